// SPDX-License-Identifier: Apache-2.0
// Random tensors, written as safetensors, .npy and .npz by a second implementation here, come back as they were.
#include "sparsight/core/importer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing_support::TemporaryFolder;

struct Random {
  std::mt19937 engine;
  int below(int n) { return static_cast<int>(engine() % static_cast<unsigned>(n)); }
};

/// One tensor: bits of every element by [step, layer, batch, head, token, channel].
struct Tensor {
  std::array<int, 6> extent{};  // S L B H N D
  std::vector<std::uint32_t> bits;
  [[nodiscard]] std::size_t at(const std::array<int, 6>& i) const {
    std::size_t flat = 0;
    for (std::size_t a = 0; a < 6; ++a)
      flat = flat * static_cast<std::size_t>(extent[a]) + static_cast<std::size_t>(i[a]);
    return flat;
  }
};

/// Elements in the order of `axes` (letters of SLBHND), first axis slowest, or fastest for Fortran order.
std::string laidOut(const Tensor& t, const std::string& axes, std::size_t item, bool fortran, bool bigEndian) {
  const std::string letters = "SLBHND";
  std::vector<std::size_t> order;
  for (const char c : axes) order.push_back(letters.find(c));
  if (fortran) std::reverse(order.begin(), order.end());
  std::string out;
  std::array<int, 6> i{};
  for (;;) {
    const std::uint32_t bits = t.bits[t.at(i)];
    for (std::size_t b = 0; b < item; ++b)
      out += static_cast<char>(bits >> (8 * (bigEndian ? item - 1 - b : b)) & 0xffU);
    std::size_t a = order.size();
    while (a > 0 && ++i[order[a - 1]] == t.extent[order[a - 1]]) i[order[--a]] = 0;
    if (a == 0) return out;
  }
}

std::string shapeOf(const Tensor& t, const std::string& axes, const char* end) {
  std::string text;
  for (const char c : axes)
    text += fmt::format("{}{}", text.empty() ? "" : ", ", t.extent[std::string("SLBHND").find(c)]);
  return text + end;
}

TEST(Importer, RandomTensorsComeBackAsTheyWere) {
  const TemporaryFolder folder;
  Random random{std::mt19937(20260921)};
  for (int round = 0; round < 120; ++round) {
    std::string axes = "ND";
    for (const char c : std::string("SLBH")) {
      if (random.below(2) == 0) axes += c;
    }
    std::shuffle(axes.begin(), axes.end(), random.engine);
    const auto has = [&](char c) { return axes.find(c) != std::string::npos; };
    Tensor shape;
    shape.extent = {has('S') ? 1 + random.below(3) : 1,
                    has('L') ? 1 + random.below(3) : 1,
                    has('B') ? 1 + random.below(2) : 1,
                    has('H') ? 1 + random.below(4) : 1,
                    12,
                    1 + random.below(9)};
    const int type = random.below(3);  // f16, bf16, f32
    const std::size_t item = type == 2 ? 4 : 2;
    std::array<Tensor, 3> tensors{shape, shape, shape};
    for (Tensor& t : tensors) {
      t.bits.resize(std::accumulate(t.extent.begin(), t.extent.end(), std::size_t{1},
                                    [](std::size_t a, int b) { return a * static_cast<std::size_t>(b); }));
      for (std::uint32_t& bits : t.bits) {
        bits = static_cast<std::uint32_t>(random.engine());
        // Any finite number, also denormal ones and both zeros.
        if (type == 0) bits = (bits & 0x7c00U) == 0x7c00U ? bits & 0x83ffU : bits & 0xffffU;
        if (type == 1) bits = (bits & 0x7f80U) == 0x7f80U ? bits & 0x807fU : bits & 0xffffU;
        if (type == 2) bits = (bits & 0x7f800000U) == 0x7f800000U ? bits & 0x807fffffU : bits;
      }
    }
    const bool npy = type != 1 && random.below(2) == 0;
    const bool fortran = npy && random.below(2) == 0, big = npy && random.below(2) == 0;
    const std::filesystem::path source =
        npy ? folder / fmt::format("r{}", round) : folder / fmt::format("r{}.safetensors", round);
    std::string header, data;
    if (npy) std::filesystem::create_directories(source);
    for (std::size_t r = 0; r < 3; ++r) {
      const std::string name(1, "qkv"[r]);
      const std::string bytes = laidOut(tensors[r], axes, item, fortran, big);
      if (npy) {
        const std::string literal =
            fmt::format("{{'descr': '{}f{}', 'fortran_order': {}, 'shape': ({}), }}\n", big ? '>' : '<', item,
                        fortran ? "True" : "False", shapeOf(tensors[r], axes, ","));
        std::string magic("\x93NUMPY\x01\0", 8);
        magic += static_cast<char>(literal.size());
        magic += '\0';
        std::ofstream(source / (name + ".npy"), std::ios::binary) << magic << literal << bytes;
      } else {
        header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                              header.empty() ? "" : ",", name,
                              type == 0   ? "F16"
                              : type == 1 ? "BF16"
                                          : "F32",
                              shapeOf(tensors[r], axes, ""), data.size(), data.size() + bytes.size());
        data += bytes;
      }
    }
    if (!npy) {
      header = "{" + header + "}";
      std::string length;
      for (int i = 0; i < 8; ++i) length += static_cast<char>(header.size() >> (8 * i) & 0xffU);
      std::ofstream(source, std::ios::binary) << length << header << data;
    }
    ImportOptions options;
    options.grid = {2, 2, 3};
    options.axes = axes;
    if (shape.extent[2] == 2) options.branches = {"uncond", "cond"};
    const Survey survey = surveySource(source);
    const ImportPlan plan = planImport(survey, options);
    const auto out = folder / "out.h5";
    runImport(survey, plan, out, {});
    const auto trace = openTrace(out);
    const auto [S, L, B, H, N, D] = shape.extent;
    ASSERT_EQ(trace->info().calls.size(), static_cast<std::size_t>(S * L * B)) << axes;
    for (int s = 0; s < S; ++s) {
      for (int l = 0; l < L; ++l) {
        for (int b = 0; b < B; ++b) {
          for (int h = 0; h < H; ++h) {
            const auto head = trace->load({{s, B == 2 && b == 0 ? "uncond" : "cond", l, "self", 0}, h});
            const MatrixView* planes[] = {&head.input.q, &head.input.k, &head.input.v};
            for (std::size_t r = 0; r < 3; ++r) {
              ASSERT_EQ(itemSize(planes[r]->dtype), item);
              for (int n = 0; n < N; ++n) {
                for (int d = 0; d < D; ++d) {
                  std::uint32_t bits = 0;
                  std::memcpy(&bits, planes[r]->row(n) + static_cast<std::size_t>(d) * item, item);
                  ASSERT_EQ(bits, tensors[r].bits[tensors[r].at({s, l, b, h, n, d})])
                      << axes << (npy ? " npy" : "") << (fortran ? " fortran" : "");
                }
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sparsight
