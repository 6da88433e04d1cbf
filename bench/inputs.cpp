// SPDX-License-Identifier: Apache-2.0
#include "inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <string_view>

#include "sparsight/core/trace_writer.h"

namespace sparsight::bench {
namespace {

constexpr Index kParts = 300;
constexpr float kSpread = 0.6F;  ///< of a part around its centre; centres have standard deviation 1

void store(std::vector<std::byte>& out, std::size_t i, float value, DType dtype) {
  if (dtype == DType::F32) {
    std::memcpy(out.data() + i * sizeof value, &value, sizeof value);
    return;
  }
  const auto narrow = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(value) + 0x8000U) >> 16U);
  std::memcpy(out.data() + i * sizeof narrow, &narrow, sizeof narrow);
}

void writeFile(const std::filesystem::path& path, const void* data, std::size_t bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  if (!file.flush()) throw Error(ErrorCode::Io, fmt::format("{}: cannot be written", path.string()));
}

Index number(std::string_view text) {
  Index value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 1)
    throw Error(ErrorCode::InvalidArgument, fmt::format("\"{}\" is not a positive number", text));
  return value;
}

DType dtypeOf(std::string_view text) {
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    if (text == shortName(dtype)) return dtype;
  }
  throw Error(ErrorCode::InvalidArgument, fmt::format("--dtype={}: known are fp32, fp16, bf16", text));
}

}  // namespace

std::shared_ptr<const BenchHead> makeMixtureHead(Index tokens, Index dim, DType dtype) {
  auto head = std::make_shared<BenchHead>();
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> centres(static_cast<std::size_t>(kParts * dim));
  for (float& c : centres) c = normal(random);
  const Index item = static_cast<Index>(itemSize(dtype));
  head->k.resize(static_cast<std::size_t>(tokens * dim * item));
  for (Index t = 0; t < tokens; ++t) {
    const auto part = static_cast<Index>(random() % kParts);
    for (Index c = 0; c < dim; ++c) {
      const float value = centres[static_cast<std::size_t>(part * dim + c)] + kSpread * normal(random);
      store(head->k, static_cast<std::size_t>(t * dim + c), value, dtype);
    }
  }
  head->in.q = head->in.k = {head->k.data(), tokens, dim, dim * item, dtype};
  head->in.scale = 1 / std::sqrt(static_cast<double>(dim));
  return head;
}

std::vector<float> startCentroids(const BenchHead& head, Index clusters, unsigned seed) {
  const MatrixView& points = head.in.k;
  std::mt19937 random(1000 + seed);
  std::vector<Index> rows(static_cast<std::size_t>(points.rows));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<Index>(i);
  std::vector<float> centroids(static_cast<std::size_t>(clusters * points.cols));
  for (Index c = 0; c < clusters; ++c) {
    const auto here = static_cast<std::size_t>(c);
    std::swap(rows[here], rows[here + random() % (rows.size() - here)]);
    rowToFloat(points, rows[here],
               std::span(centroids).subspan(here * static_cast<std::size_t>(points.cols),
                                            static_cast<std::size_t>(points.cols)));
  }
  return centroids;
}

void writeBenchTrace(const std::filesystem::path& target, const BenchHead& head, int heads, bool contiguous) {
  const Index tokens = head.in.k.rows;
  TraceHeader header;
  header.model.family = "benchmark";
  header.model.numLayers = 1;
  header.model.numHeads = heads;
  header.model.headDim = static_cast<int>(head.in.k.cols);
  header.writer = "sparsight-bench";
  header.layout.tokenCount = tokens;
  header.layout.segments = {{SegmentKind::Video, 0, tokens, 1, 1, static_cast<int>(tokens)}};
  TraceWriterOptions options;
  options.dtype = head.in.k.dtype;
  options.contiguous = contiguous;
  TraceWriter writer(target, header, options);
  CallHeader call;
  call.id.branch = "cond";
  call.scale = head.in.scale;
  for (int h = 0; h < heads; ++h) call.heads.push_back(h);
  call.nQ = call.nK = tokens;
  call.headDim = call.valueDim = head.in.k.cols;
  writer.beginCall(call);
  for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h) {
    writer.writeQuery(h, head.in.q);
    writer.writeKeyValue(h, head.in.k, head.in.v);
  }
  writer.endCall();
  writer.finish();
}

std::optional<int> writeInputs(int argc, char** argv) {
  constexpr std::string_view kFlag = "--write_inputs=";
  if (argc < 2 || !std::string_view(argv[1]).starts_with(kFlag)) return std::nullopt;
  const std::filesystem::path folder = std::string_view(argv[1]).substr(kFlag.size());
  Index tokens = 32760;
  Index dim = 128;
  DType dtype = DType::BF16;
  for (int i = 2; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string_view value = argument.substr(std::min(argument.size(), argument.find('=') + 1));
    if (argument.starts_with("--tokens=")) {
      tokens = number(value);
    } else if (argument.starts_with("--dim=")) {
      dim = number(value);
    } else if (argument.starts_with("--dtype=")) {
      dtype = dtypeOf(value);
    } else {
      throw Error(ErrorCode::InvalidArgument, fmt::format("unknown flag {} beside --write_inputs", argument));
    }
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorCode::Io, fmt::format("{}: {}", folder.string(), error.message()));

  const auto head = makeBenchHead(tokens, dim, dtype);
  writeFile(folder / "q.bin", head->q.data(), head->q.size());
  writeFile(folder / "k.bin", head->k.data(), head->k.size());
  writeFile(folder / "v.bin", head->v.data(), head->v.size());
  writeBenchTrace(folder / "trace.h5", *head, 4);
  if (dtype != DType::F16) {
    const auto mixture = makeMixtureHead(tokens, dim, dtype);
    writeFile(folder / "points.bin", mixture->k.data(), mixture->k.size());
    for (const Index clusters : {100, 500, 1000}) {
      for (unsigned seed = 0; seed < 10 && clusters <= tokens; ++seed) {
        const std::vector<float> start = startCentroids(*mixture, clusters, seed);
        writeFile(folder / fmt::format("start-k{}-s{}.bin", clusters, seed), start.data(),
                  start.size() * sizeof(float));
      }
    }
  }
  const std::string json = fmt::format("{{\"tokens\": {}, \"dim\": {}, \"dtype\": \"{}\", \"scale\": {:.17g}}}\n",
                                       tokens, dim, shortName(dtype), head->in.scale);
  writeFile(folder / "inputs.json", json.data(), json.size());
  return 0;
}

}  // namespace sparsight::bench
