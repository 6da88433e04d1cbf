// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/trace_writer.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>
#include <set>

#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"
#include "trace/narrow.h"
#include "trace/trace_schema.h"

namespace sparsight {
namespace {

// Room for what HDF5 writes beside the tensors: object headers, chunk indices, attributes.
constexpr std::uint64_t kMetadataMargin = std::uint64_t{4} << 20;

[[noreturn]] void invalid(const std::string& message) { throw Error(ErrorCode::InvalidArgument, message); }

std::string randomUuid() {
  std::random_device device;
  const auto word = [&] { return static_cast<std::uint32_t>(device()); };
  const std::uint32_t a = word(), b = word(), c = word(), d = word();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", a, b >> 16U, b & 0xfffU, 0x8000U | (c & 0x3fffU),
                     c >> 16U, d);
}

h5::Element elementFor(DType dtype, bool bfloat16AsFloat) {
  switch (dtype) {
    case DType::F32:
      return h5::Element::F32;
    case DType::F16:
      return h5::Element::F16;
    case DType::BF16:
      break;
  }
  return bfloat16AsFloat ? h5::Element::Bf16Float : h5::Element::U16;
}

// [1, R, D]: R a power of two from 128 up with R * D * itemsize <= 1 MiB, the default chunk cache of every reader.
std::vector<Index> chunkFor(Index rows, Index cols, std::size_t item) {
  constexpr Index kMaxChunkBytes = Index{1} << 20;
  const Index rowBytes = std::max<Index>(1, cols * static_cast<Index>(item));
  Index r = 128;
  while (r * 2 * rowBytes <= kMaxChunkBytes) r *= 2;
  return {1, std::min(r, rows), cols};
}

// Magnitudes of floats are ordered as their bits without the sign are. nullopt: one of them is not finite.
std::optional<float> largestMagnitude(const std::byte* data, std::size_t count, DType dtype) {
  const auto largest = [&](auto bits, auto magnitude) {
    decltype(bits) most = 0;
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(&bits, data + i * sizeof bits, sizeof bits);
      most = std::max(most, static_cast<decltype(bits)>(bits & magnitude));
    }
    return most;
  };
  if (dtype == DType::F32) {
    const std::uint32_t most = largest(std::uint32_t{}, std::uint32_t{0x7fffffffU});
    return most >= 0x7f800000U ? std::nullopt : std::optional(std::bit_cast<float>(most));
  }
  const std::uint16_t most = largest(std::uint16_t{}, std::uint16_t{0x7fffU});
  if (most >= (dtype == DType::F16 ? 0x7c00U : 0x7f80U)) return std::nullopt;
  float value = 0;
  rowToFloat({reinterpret_cast<const std::byte*>(&most), 1, 1, 2, dtype}, 0, {&value, 1});
  return value;
}

template <class T>
std::vector<T> sorted(const std::set<T>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

struct TraceWriter::Impl {
  Impl(const std::filesystem::path& target, const TraceHeader& head, const TraceWriterOptions& opts)
      : atomic(target), header(head), options(opts), file(h5::File::create(atomic.temporary())) {}

  AtomicFile atomic;
  TraceHeader header;
  TraceWriterOptions options;
  std::optional<h5::File> file;

  std::uint64_t planned = kMetadataMargin;  // bytes that the file will have at most
  bool hasV = true, hasLse = true, hasOut = true, anyCall = false, qSubset = false;
  std::set<int> steps, layers, heads;
  std::set<std::string> branches, kinds;
  std::set<std::string> paths;

  struct OpenCall {
    CallHeader header;
    h5::Group group;
    std::optional<h5::Dataset> q, k, v, lse, out;
    std::vector<bool> wroteQ, wroteKv, wroteLse, wroteOut;
    std::array<float, 3> absmax{0, 0, 0};
  };
  std::optional<OpenCall> call;

  void reserve(double bytes) {
    if (bytes < 0 || bytes > 0x1p62)
      invalid("the trace would be larger than any file; choose fewer tokens, heads or steps");
    planned += static_cast<std::uint64_t>(bytes * 1.01) + (std::uint64_t{64} << 10U);
    atomic.reserve(planned);
  }

  h5::StorageOptions storageFor(Index rows, Index cols, std::size_t item) const {
    h5::StorageOptions storage;
    if (options.contiguous) return storage;
    storage.chunk = chunkFor(rows, cols, item);
    storage.deflate = options.deflate;
    storage.shuffle = options.deflate > 0;
    return storage;
  }

  h5::Dataset createTensor(const char* name, Index count, Index rows, Index cols) {
    const std::array<Index, 3> shape{count, rows, cols};
    h5::Dataset dataset = call->group.createDataset(name, elementFor(options.dtype, options.bfloat16AsFloat), shape,
                                                    storageFor(rows, cols, itemSize(options.dtype)));
    dataset.writeString("dims", "head,token,channel");
    dataset.writeString("dtype", dtypeName(options.dtype));
    return dataset;
  }

  // Converts slab by slab, checks that the type can hold the values, and keeps the largest magnitude.
  void writeTensor(h5::Dataset& dataset, Index position, const MatrixView& matrix, float& absmax) const {
    const auto cols = static_cast<std::size_t>(matrix.cols);
    const std::size_t item = itemSize(options.dtype);
    const Index slabRows =
        std::max<Index>(1, (Index{4} << 20) / std::max<Index>(1, matrix.cols * static_cast<Index>(item)));
    const auto& chunk = dataset.info().chunk;
    const Index unit = chunk.empty() ? 1 : chunk[1];
    const Index step = std::max(unit, slabRows / unit * unit);
    std::vector<float> row(cols);
    std::vector<std::byte> slab;
    for (Index r0 = 0; r0 < matrix.rows; r0 += step) {
      const Index n = std::min(step, matrix.rows - r0);
      slab.resize(static_cast<std::size_t>(n) * cols * item);
      for (Index r = 0; r < n; ++r) {
        if (matrix.dtype == options.dtype) {  // bits as they are; the rest is for values that change their type
          std::byte* to = slab.data() + static_cast<std::size_t>(r) * cols * item;
          std::memcpy(to, matrix.row(r0 + r), cols * item);
          if (const std::optional<float> largest = largestMagnitude(to, cols, matrix.dtype)) {
            absmax = std::max(absmax, *largest);
            continue;
          }
        }
        rowToFloat(matrix, r0 + r, row);
        std::byte* out = slab.data() + static_cast<std::size_t>(r) * cols * item;
        for (std::size_t c = 0; c < cols; ++c) {
          const float value = row[c];
          if (!std::isfinite(value)) {
            invalid(fmt::format("{}: value at [{}, {}, {}] is NaN or infinite; a trace holds finite values only",
                                dataset.path(), position, r0 + r, c));
          }
          absmax = std::max(absmax, std::abs(value));
          if (options.dtype == DType::F32) {
            std::memcpy(out + c * item, &value, item);
            continue;
          }
          const std::uint16_t bits =
              options.dtype == DType::F16 ? trace::floatToHalf(value) : trace::floatToBfloat(value);
          if ((bits & 0x7fffU) >= (options.dtype == DType::F16 ? 0x7c00U : 0x7f80U)) {
            invalid(fmt::format("{}: {} does not fit {}; use {}", dataset.path(), value, dtypeName(options.dtype),
                                options.dtype == DType::F16 ? "bfloat16" : "float32"));
          }
          std::memcpy(out + c * item, &bits, item);
        }
      }
      dataset.writeRaw(std::array<Index, 3>{position, r0, 0}, std::array<Index, 3>{1, n, matrix.cols}, slab);
    }
  }

  void writeLayout(h5::Group tokens) const {
    const TokenLayout& layout = header.layout;
    tokens.writeInt("n_tokens", layout.tokenCount);
    tokens.writeString("order", "thw");
    tokens.writeInt32("padded_frames_front", 0);
    if (const Segment* video = layout.video()) {
      tokens.writeArray("grid", std::vector<std::int32_t>{video->frames, video->height, video->width});
      tokens.writeInt("video_start", video->start);
      tokens.writeInt("video_len", video->length);
    }
    const Segment* text = layout.text();
    tokens.writeInt("text_start", text != nullptr ? text->start : 0);
    tokens.writeInt("text_len", text != nullptr ? text->length : 0);
    std::vector<std::uint8_t> kind;
    std::vector<std::int64_t> start, length;
    std::vector<std::int32_t> grid;
    for (const Segment& s : layout.segments) {
      kind.push_back(static_cast<std::uint8_t>(s.kind));
      start.push_back(s.start);
      length.push_back(s.length);
      grid.insert(grid.end(), {s.frames, s.height, s.width});
    }
    h5::Group segments = tokens.createGroup("segments");
    segments.writeDataset("kind", kind);
    segments.writeDataset("start", start);
    segments.writeDataset("length", length);
    segments.writeDataset<std::int32_t>("grid", grid, std::array<Index, 2>{static_cast<Index>(kind.size()), 3});
  }

  void writeHeader() {
    h5::File& root = *file;
    root.writeString("format", "sparsight-trace");
    root.writeArray("format_version", std::vector<std::int32_t>{trace::kFormatMajor, trace::kFormatMinor});
    root.writeString("writer", header.writer);
    root.writeString("uuid", header.uuid.empty() ? randomUuid() : header.uuid);
    root.writeString("created_utc", header.createdUtc.empty()
                                        ? fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))
                                        : header.createdUtc);
    root.writeString("software", header.software);
    root.writeByte("complete", 0);

    h5::Group model = root.createGroup("model");
    const ModelInfo& m = header.model;
    model.writeString("family", m.family);
    model.writeString("class_name", m.className);
    model.writeString("repo_id", m.repoId);
    model.writeString("revision", m.revision);
    model.writeString("attention", m.attention);
    model.writeString("qk_norm", m.qkNorm);
    model.writeString("rope", m.rope);
    model.writeInt32("num_layers", m.numLayers);
    model.writeInt32("num_heads", m.numHeads);
    model.writeInt32("num_kv_heads", m.numKvHeads);
    model.writeInt32("head_dim", m.headDim);
    model.writeArray("patch_size", std::span<const std::int32_t>(header.patchSize));
    model.writeArray("vae_stride", std::span<const std::int32_t>(header.vaeStride));

    h5::Group run = root.createGroup("run");
    const RunInfo& r = header.run;
    run.writeString("pipeline_class", r.pipelineClass);
    run.writeString("prompt", r.prompt);
    run.writeString("negative_prompt", r.negativePrompt);
    run.writeInt("seed", r.seed);
    run.writeInt32("height", r.height);
    run.writeInt32("width", r.width);
    run.writeInt32("num_frames", r.numFrames);
    run.writeReal("fps", r.fps);
    run.writeInt32("num_inference_steps", r.numInferenceSteps);
    run.writeReal("guidance_scale", r.guidanceScale);
    run.writeString("guidance_mode", r.guidanceMode);
    run.writeString("scheduler", r.scheduler);
    run.writeString("compute_dtype", r.computeDtype);
    run.writeString("attention_backend", r.attentionBackend);
    if (!r.timesteps.empty()) run.writeDataset("timesteps", r.timesteps);
    if (!r.sigmas.empty()) run.writeDataset("sigmas", r.sigmas);
    writeLayout(root.createGroup("tokens"));
    root.createGroup("data");
  }

  void writeCapture() {
    h5::Group capture = file->createGroup("capture");
    capture.writeString("stage", "post_rope");
    capture.writeArray("steps", std::vector<std::int32_t>(steps.begin(), steps.end()));
    capture.writeArray("layers", std::vector<std::int32_t>(layers.begin(), layers.end()));
    capture.writeArray("heads", std::vector<std::int32_t>(heads.begin(), heads.end()));
    capture.writeStrings("branches", sorted(branches));
    capture.writeStrings("kinds", sorted(kinds));
    capture.writeByte("has_v", anyCall && hasV ? 1 : 0);
    capture.writeByte("has_lse", anyCall && hasLse ? 1 : 0);
    capture.writeByte("has_out", anyCall && hasOut ? 1 : 0);
    capture.writeString("q_mode", qSubset ? "list" : "all");
    capture.writeString("k_mode", "all");
  }

  OpenCall& current() {
    if (!call) invalid("trace writer: no call is open; begin one first");
    return *call;
  }
};

namespace {

void requireShape(const MatrixView& matrix, Index rows, Index cols, const char* name) {
  if (matrix.data == nullptr || matrix.rows != rows || matrix.cols != cols) {
    invalid(fmt::format("trace writer: {} is [{}, {}], the call says [{}, {}]", name, matrix.rows, matrix.cols, rows,
                        cols));
  }
}
void markWritten(std::vector<bool>& done, std::size_t position, const char* name) {
  if (position >= done.size())
    invalid(fmt::format("trace writer: {} of head position {}, the call has {}", name, position, done.size()));
  done[position] = true;
}
std::string callPath(const CallId& id) {
  const std::string leaf = id.call == 0 ? id.kind : fmt::format("{}.{}", id.kind, id.call);
  return fmt::format("data/step_{:04d}/{}/layer_{:03d}/{}", id.step, id.branch, id.layer, leaf);
}

}  // namespace

TraceWriter::TraceWriter(const std::filesystem::path& target, const TraceHeader& header,
                         const TraceWriterOptions& options)
    : m_impl(std::make_unique<Impl>(target, header, options)) {
  if (options.deflate < 0 || options.deflate > 9)
    invalid(fmt::format("deflate level {} is outside 0 .. 9", options.deflate));
  if (options.contiguous && options.deflate > 0) invalid("contiguous data cannot be compressed; choose one");
  m_impl->reserve(0);
  m_impl->writeHeader();
}

TraceWriter::~TraceWriter() {
  // Datasets close before their file, and the file before its temporary is removed.
  if (m_impl) {
    m_impl->call.reset();
    m_impl->file.reset();
  }
}

void TraceWriter::beginCall(const CallHeader& header) {
  Impl& w = *m_impl;
  if (w.call) invalid("trace writer: end the open call first");
  const auto heads = static_cast<Index>(header.heads.size());
  const Index kvHeads = header.kvHeads == 0 ? heads : header.kvHeads;
  if (heads == 0 || header.nQ <= 0 || header.nK <= 0 || header.headDim <= 0 || header.valueDim < 0)
    invalid("trace writer: a call needs heads, queries, keys and channels");
  if (kvHeads <= 0 || heads % kvHeads != 0)
    invalid(fmt::format("trace writer: {} K/V heads do not divide {} heads", kvHeads, heads));
  if (!(header.scale > 0) || !std::isfinite(header.scale))
    invalid(fmt::format("trace writer: scale {} is not finite and positive", header.scale));
  if (header.id.branch.empty() || header.id.kind.empty() || header.id.branch.find('/') != std::string::npos ||
      header.id.kind.find('/') != std::string::npos) {
    invalid("trace writer: branch and kind are names without '/'");
  }
  const auto sizeIs = [](std::size_t size, Index expected) {
    return size == 0 || static_cast<Index>(size) == expected;
  };
  if (!sizeIs(header.keyValid.size(), header.nK) || !sizeIs(header.qRows.size(), header.nQ) ||
      !sizeIs(header.denseMask.size(), header.nQ * header.nK)) {
    invalid("trace writer: key_valid, q_rows or mask does not fit the call");
  }
  const std::string path = callPath(header.id);
  if (!w.paths.insert(path).second) invalid(fmt::format("trace writer: {} was written before", path));
  const auto item = static_cast<double>(itemSize(w.options.dtype));
  const auto d = [](Index v) { return static_cast<double>(v); };
  w.reserve((d(heads) * d(header.nQ) * d(header.headDim) +
             d(kvHeads) * d(header.nK) * d(header.headDim + header.valueDim) +
             (header.out ? d(heads) * d(header.nQ) * d(header.valueDim) : 0)) *
                item +
            (header.lse ? d(heads) * d(header.nQ) * 4 : 0) +
            d(static_cast<Index>(header.denseMask.size() + header.keyValid.size() + header.qRows.size() * 8)));

  h5::Group group = w.file->createGroup(path);
  group.writeInt32("step", header.id.step);
  group.writeReal("timestep", header.timestep);
  group.writeReal("sigma", header.sigma);
  group.writeString("branch", header.id.branch);
  group.writeInt32("layer", header.id.layer);
  group.writeString("module", header.module);
  group.writeString("component", header.component);
  group.writeString("kind", header.id.kind);
  group.writeInt32("call", header.id.call);
  group.writeReal("scale", header.scale);
  group.writeArray("heads", std::vector<std::int32_t>(header.heads.begin(), header.heads.end()));
  group.writeString("mask", !header.denseMask.empty() ? "dense" : !header.keyValid.empty() ? "key_valid" : "none");
  group.writeInt("n_q", header.nQ);
  group.writeInt("n_k", header.nK);
  if (header.layout) {
    const Segment* text = header.layout->text();
    group.writeInt("n_tokens", header.layout->tokenCount);
    group.writeInt("text_start", text != nullptr ? text->start : 0);
    group.writeInt("text_len", text != nullptr ? text->length : 0);
  }
  if (!header.keyValid.empty())
    group.writeDataset<std::uint8_t>("key_valid", header.keyValid, std::array<Index, 1>{header.nK});
  if (!header.denseMask.empty())
    group.writeDataset<std::uint8_t>("mask", header.denseMask, std::array<Index, 2>{header.nQ, header.nK});
  if (!header.qRows.empty()) group.writeDataset<std::int64_t>("q_rows", header.qRows, std::array<Index, 1>{header.nQ});

  w.call.emplace(Impl::OpenCall{header, std::move(group), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
  Impl::OpenCall& call = *w.call;
  call.q = w.createTensor("q", heads, header.nQ, header.headDim);
  call.k = w.createTensor("k", kvHeads, header.nK, header.headDim);
  if (header.valueDim > 0) call.v = w.createTensor("v", kvHeads, header.nK, header.valueDim);
  if (header.out) call.out = w.createTensor("out", heads, header.nQ, header.valueDim);
  if (header.lse) call.lse = call.group.createDataset("lse", h5::Element::F32, std::array<Index, 2>{heads, header.nQ});
  call.wroteQ.assign(static_cast<std::size_t>(heads), false);
  call.wroteKv.assign(static_cast<std::size_t>(kvHeads), false);
  call.wroteLse.assign(header.lse ? static_cast<std::size_t>(heads) : 0, false);
  call.wroteOut.assign(header.out ? static_cast<std::size_t>(heads) : 0, false);
}

void TraceWriter::writeQuery(std::size_t position, const MatrixView& q) {
  Impl::OpenCall& call = m_impl->current();
  requireShape(q, call.header.nQ, call.header.headDim, "q");
  markWritten(call.wroteQ, position, "q");
  m_impl->writeTensor(*call.q, static_cast<Index>(position), q, call.absmax[0]);
}

void TraceWriter::writeKeyValue(std::size_t position, const MatrixView& k, const MatrixView& v) {
  Impl::OpenCall& call = m_impl->current();
  requireShape(k, call.header.nK, call.header.headDim, "k");
  if (call.v) requireShape(v, call.header.nK, call.header.valueDim, "v");
  markWritten(call.wroteKv, position, "k");
  m_impl->writeTensor(*call.k, static_cast<Index>(position), k, call.absmax[1]);
  if (call.v) m_impl->writeTensor(*call.v, static_cast<Index>(position), v, call.absmax[2]);
}

void TraceWriter::writeLse(std::size_t position, std::span<const float> lse) {
  Impl::OpenCall& call = m_impl->current();
  if (static_cast<Index>(lse.size()) != call.header.nQ)
    invalid(fmt::format("trace writer: lse has {} rows, the call {}", lse.size(), call.header.nQ));
  markWritten(call.wroteLse, position, "lse");
  call.lse->writeRaw(std::array<Index, 2>{static_cast<Index>(position), 0}, std::array<Index, 2>{1, call.header.nQ},
                     std::as_bytes(lse));
}

void TraceWriter::writeOut(std::size_t position, const MatrixView& out) {
  Impl::OpenCall& call = m_impl->current();
  requireShape(out, call.header.nQ, call.header.valueDim, "out");
  markWritten(call.wroteOut, position, "out");
  float ignored = 0;
  m_impl->writeTensor(*call.out, static_cast<Index>(position), out, ignored);
}

void TraceWriter::endCall() {
  Impl& w = *m_impl;
  Impl::OpenCall& call = w.current();
  for (const auto* done : {&call.wroteQ, &call.wroteKv, &call.wroteLse, &call.wroteOut}) {
    if (std::find(done->begin(), done->end(), false) != done->end()) {
      invalid(fmt::format("trace writer: {} ends with a head missing", trace::describeCall(call.header.id)));
    }
  }
  call.group.writeArray("absmax", std::span<const float>(call.absmax));
  w.steps.insert(call.header.id.step);
  w.layers.insert(call.header.id.layer);
  w.heads.insert(call.header.heads.begin(), call.header.heads.end());
  w.branches.insert(call.header.id.branch);
  w.kinds.insert(call.header.id.kind);
  w.hasV = w.hasV && call.v.has_value();
  w.hasLse = w.hasLse && call.lse.has_value();
  w.hasOut = w.hasOut && call.out.has_value();
  w.qSubset = w.qSubset || !call.header.qRows.empty();
  w.anyCall = true;
  w.call.reset();
}

void TraceWriter::writeFrames(const FramesRgb& frames) {
  const std::array<Index, 4> shape{frames.info.count, frames.info.height, frames.info.width, 3};
  if (static_cast<Index>(frames.rgb.size()) != h5::elementCount(shape, "frames"))
    invalid("trace writer: frames do not fit their size");
  m_impl->reserve(static_cast<double>(frames.rgb.size()));
  h5::Group group = m_impl->file->createGroup("frames");
  h5::StorageOptions storage;
  storage.chunk = {1, frames.info.height, frames.info.width, 3};
  storage.deflate = 4;
  h5::Dataset rgb = group.writeDataset<std::uint8_t>("rgb", frames.rgb, shape, storage);
  rgb.writeReal("fps", frames.info.fps);
}

void TraceWriter::writeTruth(const SyntheticTruth& truth) {
  const std::array<Index, 3> shape{truth.steps, truth.layers, truth.heads};
  if (static_cast<Index>(truth.classOf.size()) != h5::elementCount(shape, "truth"))
    invalid("trace writer: the truth does not fit its size");
  h5::Dataset dataset = m_impl->file->createGroup("ext/synth").writeDataset<std::int8_t>("truth", truth.classOf, shape);
  dataset.writeStrings("classes", truth.classes);
}

void TraceWriter::finish() {
  Impl& w = *m_impl;
  if (w.call) invalid("trace writer: end the open call first");
  w.writeCapture();
  w.file->flush();
  w.file->writeByte("complete", 1);
  w.file->close();
  w.file.reset();
  w.atomic.commit();
}

}  // namespace sparsight
