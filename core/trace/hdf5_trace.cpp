// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>
#include <type_traits>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/executor.h"
#include "trace/tensor_cache.h"
#include "trace/trace_schema.h"

namespace sparsight {
namespace {

using trace::Buffer;
using trace::CallData;
using trace::Tensor;
using trace::TensorCache;

// Reads go in slabs of about this size, so that a stop is seen within a few 10 ms even behind gzip, and other threads
// get the library in between.
constexpr Index kSlabBytes = Index{2} << 20;
// Read past the library: so small that what is read is still in a core's own cache when its values are looked at.
constexpr Index kDirectSlabBytes = Index{256} << 10;
// More threads than this do not make a disk or the page cache faster.
constexpr int kMostReadThreads = 4;

void swapBytes(std::byte* data, std::size_t count, std::size_t item) {
  for (std::size_t i = 0; i < count; ++i) std::reverse(data + i * item, data + (i + 1) * item);
}

using SeeSlab = std::function<void(std::span<const std::byte>)>;

// Rows [0, rows) of slice `lead` (nullopt: a matrix without leading axis) in the file's own element type, in this
// machine's byte order; `see` gets every slab of them, from several threads at once.
void readRows(const Executor& executor, const h5::Dataset& dataset, std::optional<Index> lead, Index rows, Index cols,
              std::byte* out, const std::stop_token& stop, const SeeSlab& see = {}) {
  const h5::DatasetInfo& info = dataset.info();
  const Index item = static_cast<Index>(info.type.size);
  const std::size_t rowAxis = lead ? 1 : 0;
  const Index rowBytes = std::max<Index>(1, cols * item);
  const bool direct = dataset.readsDirectly();
  // Whole chunks per slab: a chunk is inflated once.
  const Index unit = info.layout == h5::Layout::Chunked && !direct ? info.chunk[rowAxis] : Index{1};
  const Index slabRows = std::max(unit, (direct ? kDirectSlabBytes : kSlabBytes) / rowBytes / unit * unit);
  const auto readSlab = [&](Index r) {
    const Index n = std::min(slabRows, rows - r);
    std::vector<Index> start, count;
    if (lead) {
      start.push_back(*lead);
      count.push_back(1);
    }
    start.push_back(r);
    count.push_back(n);
    if (info.shape.size() > start.size()) {
      start.push_back(0);
      count.push_back(cols);
    }
    const std::span<std::byte> slab{out + r * rowBytes, static_cast<std::size_t>(n * rowBytes)};
    dataset.readRaw(start, count, slab);
    if (info.type.bigEndian && item > 1) {
      swapBytes(slab.data(), static_cast<std::size_t>(n * cols), static_cast<std::size_t>(item));
    }
    if (see) see(slab);
  };
  Control control;
  control.stop = stop;
  if (direct) {
    executor.parallelFor((rows + slabRows - 1) / slabRows, 1, control, [&](Index first, Index last) {
      for (Index slab = first; slab < last; ++slab) readSlab(slab * slabRows);
    });
    return;
  }
  for (Index r = 0; r < rows; r += slabRows) {
    control.checkpoint();
    readSlab(r);
  }
}

int readThreadsOf(const TraceOptions& options) {
  const int most = options.readThreads > 0 ? options.readThreads : kMostReadThreads;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, most);
}

// The largest of the values that several threads report.
void raise(std::atomic<std::uint32_t>& largest, std::uint32_t value) {
  std::uint32_t seen = largest.load(std::memory_order_relaxed);
  while (seen < value && !largest.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// Largest magnitude by its bits: the order of IEEE magnitudes is the order of their integers, and infinities and NaNs
// are on top. One vectorisable pass; without the sign they are signed integers too, whose maximum every x86-64 has as
// one instruction for 16 bits.
template <class Bits>
Bits largestMagnitude(const std::byte* data, std::size_t count, Bits mask) {
  using Signed = std::make_signed_t<Bits>;
  Signed largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Signed bits;
    std::memcpy(&bits, data + i * sizeof(Bits), sizeof(Bits));
    bits = static_cast<Signed>(bits & static_cast<Signed>(mask));
    largest = largest < bits ? bits : largest;
  }
  return static_cast<Bits>(largest);
}

/// Bits of an infinity of this type, and of its largest magnitude among some numbers.
std::uint32_t infinityBits(DType dtype) {
  return dtype == DType::F16 ? 0x7C00U : dtype == DType::BF16 ? 0x7F80U : 0x7F800000U;
}
std::uint32_t largestMagnitude(std::span<const std::byte> numbers, DType dtype) {
  if (dtype == DType::F32) return largestMagnitude<std::uint32_t>(numbers.data(), numbers.size() / 4, 0x7FFFFFFFU);
  return largestMagnitude<std::uint16_t>(numbers.data(), numbers.size() / 2, 0x7FFFU);
}
float valueOf(std::uint32_t bits, DType dtype) {
  const auto half = static_cast<std::uint16_t>(bits);
  const bool wide = dtype == DType::F32;
  const MatrixView one{wide ? reinterpret_cast<const std::byte*>(&bits) : reinterpret_cast<const std::byte*>(&half), 1,
                       1, static_cast<Index>(itemSize(dtype)), dtype};
  float value = 0;
  rowToFloat(one, 0, {&value, 1});
  return value;
}
/// Number of the first value that is NaN or infinite; the tensor has one.
std::size_t firstBad(const Tensor& tensor) {
  const auto item = static_cast<std::size_t>(itemSize(tensor.view.dtype));
  std::size_t n = 0;
  while (largestMagnitude({tensor.view.data + n * item, item}, tensor.view.dtype) < infinityBits(tensor.view.dtype))
    ++n;
  return n;
}

class Hdf5Trace final : public Trace {
 public:
  Hdf5Trace(trace::ParsedTrace parsed, const TraceOptions& options)
      : m_parsed(std::move(parsed)),
        m_memoryLimit(trace::effectiveMemoryLimit(options.memoryLimitBytes)),
        m_executor(readThreadsOf(options)),
        m_cache(options.cacheBytes) {}

  [[nodiscard]] const TraceInfo& info() const noexcept override { return m_parsed.info; }

  [[nodiscard]] HeadData load(const HeadId& id, std::stop_token stop) const override { return read(id, true, stop); }
  [[nodiscard]] HeadData loadScores(const HeadId& id, std::stop_token stop) const override {
    return read(id, false, stop);
  }

  [[nodiscard]] std::optional<HeadOutline> outline(const HeadId& id, std::stop_token stop) const override {
    const auto [callIndex, position] = locate(id);
    const CallInfo& call = m_parsed.info.calls[callIndex];
    if (queriesPermuted(call) || keysPermuted(call)) return std::nullopt;
    struct Source {
      char name;
      Index head, rows;
      std::shared_ptr<const Tensor> loaded;
      std::optional<h5::Dataset> stored;
      ContentHash hash;
    };
    std::array<Source, 2> sources{
        Source{'q', static_cast<Index>(position), call.nQ, {}, {}, {}},
        Source{'k', trace::kvIndexOf(call, m_parsed.info.model, position), call.nK, {}, {}, {}}};
    for (Source& each : sources) {
      each.loaded = m_cache.find<Tensor>({callIndex, each.name, each.head});
      if (each.loaded) continue;
      each.stored.emplace(openTensor(callIndex, each.name, each.head, each.rows, call.headDim));
      if (!each.stored->readsDirectly() || each.stored->info().type.bigEndian) return std::nullopt;
    }
    if (sources[0].loaded && sources[1].loaded) return std::nullopt;
    const auto shared = callData(callIndex, stop);
    Control control;
    control.stop = stop;
    m_executor.parallelFor(2, 1, control, [&](Index first, Index last) {
      for (Index i = first; i < last; ++i) {
        Source& each = sources[static_cast<std::size_t>(i)];
        each.hash = each.loaded ? matrixHash(each.loaded->view)
                                : storedHash(*each.stored, each.head, each.rows, call.headDim, call.dtype, stop);
      }
    });
    HeadOutline result;
    result.head = describe(id, call, shared);
    result.head.input.q = {nullptr, call.nQ, call.headDim, call.headDim * static_cast<Index>(itemSize(call.dtype)),
                           call.dtype};
    result.head.input.k = result.head.input.q;
    result.head.input.k.rows = call.nK;
    result.head.bytes = shared->bytes();
    result.head.keepAlive = shared;
    result.queries = sources[0].hash;
    result.keys = sources[1].hash;
    return result;
  }

  [[nodiscard]] std::optional<FramesRgb> frames() const override {
    if (!m_parsed.info.frames) return std::nullopt;
    const h5::Dataset rgb = m_parsed.files.front().openDataset("/frames/rgb");
    FramesRgb result;
    result.info = *m_parsed.info.frames;
    result.rgb.resize(static_cast<std::size_t>(h5::elementCount(rgb.info().shape, rgb.where())));
    rgb.readRaw(std::array<Index, 4>{0, 0, 0, 0}, rgb.info().shape, std::as_writable_bytes(std::span(result.rgb)));
    return result;
  }

  [[nodiscard]] std::optional<SyntheticTruth> truth() const override {
    if (!m_parsed.info.hasSyntheticTruth) return std::nullopt;
    const h5::Dataset dataset = m_parsed.files.front().openDataset("/ext/synth/truth");
    const auto& shape = dataset.info().shape;
    SyntheticTruth truth;
    truth.steps = static_cast<int>(shape[0]);
    truth.layers = static_cast<int>(shape[1]);
    truth.heads = static_cast<int>(shape[2]);
    truth.classOf = dataset.read<std::int8_t>();
    truth.classes = dataset.readStrings("classes");
    return truth;
  }

  [[nodiscard]] std::optional<std::vector<float>> storedLse(const HeadId& id) const override {
    const auto [callIndex, position] = locate(id);
    const CallInfo& call = m_parsed.info.calls[callIndex];
    if (!call.hasLse) return std::nullopt;
    const h5::Dataset dataset = groupOf(callIndex).openDataset("lse");
    std::vector<float> values(static_cast<std::size_t>(call.nQ));
    readRows(m_executor, dataset, static_cast<Index>(position), call.nQ, 1, reinterpret_cast<std::byte*>(values.data()),
             {});
    if (queriesPermuted(call)) permuteRows(reinterpret_cast<std::byte*>(values.data()), call.nQ, sizeof(float));
    return values;
  }

  [[nodiscard]] std::optional<std::vector<float>> storedOut(const HeadId& id) const override {
    const auto [callIndex, position] = locate(id);
    const CallInfo& call = m_parsed.info.calls[callIndex];
    if (!call.hasOut) return std::nullopt;
    const h5::Dataset dataset = groupOf(callIndex).openDataset("out");
    const Index cols = dataset.info().shape[2];
    const DType dtype = trace::tensorType(dataset);
    const Index rowBytes = cols * static_cast<Index>(itemSize(dtype));
    requireMemory(dataset, static_cast<double>(call.nQ) * static_cast<double>(cols) * 8.0);
    Buffer raw(static_cast<std::size_t>(call.nQ * rowBytes));
    readRows(m_executor, dataset, static_cast<Index>(position), call.nQ, cols, raw.data(), {});
    if (queriesPermuted(call)) permuteRows(raw.data(), call.nQ, static_cast<std::size_t>(rowBytes));
    const MatrixView view{raw.data(), call.nQ, cols, rowBytes, dtype};
    std::vector<float> values(static_cast<std::size_t>(call.nQ * cols));
    for (Index r = 0; r < call.nQ; ++r) {
      rowToFloat(view, r,
                 std::span(values).subspan(static_cast<std::size_t>(r * cols), static_cast<std::size_t>(cols)));
    }
    return values;
  }

 private:
  [[nodiscard]] HeadData read(const HeadId& id, bool withValues, const std::stop_token& stop) const {
    const auto [callIndex, position] = locate(id);
    const CallInfo& call = m_parsed.info.calls[callIndex];
    const Index kv = trace::kvIndexOf(call, m_parsed.info.model, position);
    const auto shared = callData(callIndex, stop);
    const auto q = tensor(callIndex, 'q', static_cast<Index>(position), call.nQ, call.headDim, stop);
    const auto k = tensor(callIndex, 'k', kv, call.nK, call.headDim, stop);
    const auto v = withValues && call.hasV ? tensor(callIndex, 'v', kv, call.nK, call.valueDim, stop) : nullptr;

    struct Owner {
      std::shared_ptr<const CallData> shared;
      std::shared_ptr<const Tensor> q, k, v;
    };
    HeadData head = describe(id, call, shared);
    head.input.q = q->view;
    head.input.k = k->view;
    if (v) head.input.v = v->view;
    head.bytes = static_cast<Index>(q->buffer.size() + k->buffer.size() + (v ? v->buffer.size() : 0)) + shared->bytes();
    for (const Tensor* t : {q.get(), k.get(), v.get()}) {
      if (t != nullptr) head.warnings.insert(head.warnings.end(), t->warnings.begin(), t->warnings.end());
    }
    head.keepAlive = std::make_shared<const Owner>(Owner{shared, q, k, v});
    return head;
  }

  /// All but the tensors.
  [[nodiscard]] HeadData describe(const HeadId& id, const CallInfo& call,
                                  const std::shared_ptr<const CallData>& shared) const {
    HeadData head;
    head.id = id;
    head.layout = call.layout;
    head.qRows = shared->qRows;
    head.family = m_parsed.info.model.family;
    head.input.scale = call.scale;
    head.input.keyValid = shared->keyValid;
    head.input.queryValid = shared->queryValid;
    head.input.denseMask = shared->denseMask;
    return head;
  }

  /// matrixHash of a stored head, through a buffer that stays in a core's own cache.
  [[nodiscard]] ContentHash storedHash(const h5::Dataset& dataset, Index head, Index rows, Index cols, DType dtype,
                                       const std::stop_token& stop) const {
    const Index rowBytes = cols * static_cast<Index>(itemSize(dtype));
    requireMemory(dataset, static_cast<double>(rowBytes));
    const Index slabRows =
        std::clamp<Index>(kDirectSlabBytes / std::max<Index>(1, rowBytes), 1, std::max<Index>(1, rows));
    std::vector<std::byte> slab(static_cast<std::size_t>(slabRows * rowBytes));
    MatrixHasher hasher(dtype, rows, cols);
    for (Index r = 0; r < rows; r += slabRows) {
      if (stop.stop_requested()) throw Cancelled{};
      const Index n = std::min(slabRows, rows - r);
      const auto part = std::span(slab).first(static_cast<std::size_t>(n * rowBytes));
      dataset.readRaw(std::array<Index, 3>{head, r, 0}, std::array<Index, 3>{1, n, cols}, part);
      hasher.add(part);
    }
    return hasher.finish();
  }

  [[nodiscard]] std::pair<std::size_t, std::size_t> locate(const HeadId& id) const {
    const TraceInfo& info = m_parsed.info;
    const CallInfo* call = info.find(id.call);
    if (call == nullptr) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: {} was not captured; captured are steps {}, layers {}, branches {}",
                              info.path.string(), trace::describeCall(id.call), fmt::join(info.steps(), " "),
                              fmt::join(info.layers(), " "), fmt::join(info.branches(), " ")));
    }
    const auto it = std::find(call->heads.begin(), call->heads.end(), id.head);
    if (it == call->heads.end()) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: {}: head {} was not captured; captured are {}", info.path.string(), call->path,
                              id.head, fmt::join(call->heads, " ")));
    }
    if (std::binary_search(call->unavailableHeads.begin(), call->unavailableHeads.end(), id.head)) {
      throw Error(ErrorCode::Io, fmt::format("{}: {}: head {} is not available: {}", info.path.string(), call->path,
                                             id.head, call->unavailableReason));
    }
    return {static_cast<std::size_t>(call - info.calls.data()), static_cast<std::size_t>(it - call->heads.begin())};
  }

  [[nodiscard]] h5::Group groupOf(std::size_t callIndex) const {
    const trace::CallSource& source = m_parsed.sources[callIndex];
    return m_parsed.files[source.file].openGroup(source.path);
  }

  // A reordered capture is brought back to model order here, once, so that nothing else has to know.
  [[nodiscard]] bool keysPermuted(const CallInfo& call) const {
    return !m_parsed.permutation.empty() && trace::isSelfLike(call) &&
           call.nK == static_cast<Index>(m_parsed.permutation.size());
  }
  [[nodiscard]] bool queriesPermuted(const CallInfo& call) const {
    return !m_parsed.permutation.empty() && !call.qSubset && call.nQ == static_cast<Index>(m_parsed.permutation.size());
  }
  void permuteRows(std::byte* data, Index rows, std::size_t rowBytes) const {
    Buffer copy(static_cast<std::size_t>(rows) * rowBytes);
    std::memcpy(copy.data(), data, copy.size());
    for (Index r = 0; r < rows; ++r) {
      const auto to = static_cast<std::size_t>(m_parsed.permutation[static_cast<std::size_t>(r)]);
      std::memcpy(data + to * rowBytes, copy.data() + static_cast<std::size_t>(r) * rowBytes, rowBytes);
    }
  }

  void requireMemory(const h5::Dataset& dataset, double bytes) const {
    if (bytes <= static_cast<double>(m_memoryLimit)) return;
    throw Error(ErrorCode::OutOfMemory,
                fmt::format("{}: needs {}, the memory limit is {}; raise --memory-limit", dataset.where(),
                            trace::bytesText(bytes), trace::bytesText(static_cast<double>(m_memoryLimit))));
  }

  [[nodiscard]] h5::Dataset openTensor(std::size_t callIndex, char name, Index head, Index rows, Index cols) const {
    constexpr Index kChunkCacheBytes = Index{32} << 20;
    h5::Dataset dataset = groupOf(callIndex).openDataset(std::string(1, name), kChunkCacheBytes);
    const auto& shape = dataset.info().shape;
    if (shape.size() != 3 || shape[1] != rows || shape[2] != cols || head >= shape[0] ||
        trace::tensorType(dataset) != m_parsed.info.calls[callIndex].dtype) {
      dataset.failFormat("changed while the trace was open; open it again");
    }
    return dataset;
  }

  [[nodiscard]] std::shared_ptr<const Tensor> tensor(std::size_t callIndex, char name, Index head, Index rows,
                                                     Index cols, const std::stop_token& stop) const {
    const TensorCache::Key key{callIndex, name, head};
    if (auto cached = m_cache.find<Tensor>(key)) return cached;
    const CallInfo& call = m_parsed.info.calls[callIndex];
    const h5::Dataset dataset = openTensor(callIndex, name, head, rows, cols);
    const Index rowBytes = cols * static_cast<Index>(itemSize(call.dtype));
    requireMemory(dataset, static_cast<double>(rows) * static_cast<double>(rowBytes));
    auto result = std::make_shared<Tensor>();
    result->buffer = m_cache.newBuffer(rows * rowBytes);
    result->view = {result->buffer.data(), rows, cols, rowBytes, call.dtype};
    std::atomic<std::uint32_t> largest = 0;
    readRows(m_executor, dataset, head, rows, cols, result->buffer.data(), stop,
             [&](std::span<const std::byte> slab) { raise(largest, largestMagnitude(slab, call.dtype)); });
    if (name == 'q' ? queriesPermuted(call) : keysPermuted(call)) {
      permuteRows(result->buffer.data(), rows, static_cast<std::size_t>(rowBytes));
    }
    checkValues(dataset, call, name, head, largest, *result);
    m_cache.insert(key, result, rows * rowBytes);
    return result;
  }

  // The sample check of a first read. All rows: it costs less than the read. `largest` are magnitude bits.
  static void checkValues(const h5::Dataset& dataset, const CallInfo& call, char name, Index head,
                          std::uint32_t largest, Tensor& tensor) {
    if (largest >= infinityBits(call.dtype)) {
      const std::size_t bad = firstBad(tensor);
      const auto cols = static_cast<std::size_t>(tensor.view.cols);
      dataset.failFormat(
          fmt::format("value at [{}, {}, {}] is NaN or infinite; capture again (float16 overflows above 65504: use "
                      "bfloat16)",
                      head, bad / cols, bad % cols));
    }
    const float value = valueOf(largest, call.dtype);
    tensor.absmax = value;
    if (name != 'q' && value == 0.0F) {
      tensor.warnings.push_back(
          fmt::format("{}: head {} is all zero; if it was never written, capture it again", dataset.where(), head));
    }
    const std::size_t slot = name == 'q' ? 0 : name == 'k' ? 1 : 2;
    // absmax may have been taken before rounding to the stored type.
    if (slot < call.absmax.size() && call.absmax[slot] > 0 && value > call.absmax[slot] * 1.01F) {
      tensor.warnings.push_back(
          fmt::format("{}: head {} reaches {:.4g}, attribute 'absmax' says {:.4g}; the data may be damaged",
                      dataset.where(), head, value, call.absmax[slot]));
    }
  }

  [[nodiscard]] std::shared_ptr<const CallData> callData(std::size_t callIndex, const std::stop_token& stop) const {
    const TensorCache::Key key{callIndex, 'c', 0};
    if (auto cached = m_cache.find<CallData>(key)) return cached;
    const CallInfo& call = m_parsed.info.calls[callIndex];
    auto data = std::make_shared<CallData>();
    const h5::Group group = groupOf(callIndex);
    if (call.qSubset) {
      const auto own = group.tryDataset("q_rows");
      data->qRows = own ? trace::readQRows(*own, call.layout.tokenCount) : m_parsed.globalQRows;
    }
    if (call.hasKeyValid) {
      data->keyValid.resize(static_cast<std::size_t>(call.nK));
      readRows(m_executor, group.openDataset("key_valid"), std::nullopt, call.nK, 1,
               reinterpret_cast<std::byte*>(data->keyValid.data()), stop);
      if (keysPermuted(call)) permuteRows(reinterpret_cast<std::byte*>(data->keyValid.data()), call.nK, 1);
      for (auto& v : data->keyValid) v = v != 0 ? 1 : 0;
      if (std::find(data->keyValid.begin(), data->keyValid.end(), 1) == data->keyValid.end()) {
        group.openDataset("key_valid")
            .failFormat("marks every key as padding; no query could attend to anything, capture again");
      }
    }
    if (call.hasDenseMask) readMask(group, call, *data, stop);
    deriveQueryValid(call, *data);
    m_cache.insert(key, data, data->bytes());
    return data;
  }

  void readMask(const h5::Group& group, const CallInfo& call, CallData& data, const std::stop_token& stop) const {
    const h5::Dataset dataset = group.openDataset("mask");
    requireMemory(dataset, static_cast<double>(call.nQ) * static_cast<double>(call.nK));
    data.denseMask.resize(static_cast<std::size_t>(call.nQ * call.nK));
    readRows(m_executor, dataset, std::nullopt, call.nQ, call.nK, reinterpret_cast<std::byte*>(data.denseMask.data()),
             stop);
    if (queriesPermuted(call))
      permuteRows(reinterpret_cast<std::byte*>(data.denseMask.data()), call.nQ, static_cast<std::size_t>(call.nK));
    if (keysPermuted(call)) {
      for (Index r = 0; r < call.nQ; ++r) {
        if (stop.stop_requested()) throw Cancelled{};
        permuteRows(reinterpret_cast<std::byte*>(data.denseMask.data()) + r * call.nK, call.nK, 1);
      }
    }
  }

  // In self-attention a padding key is a padding query too; a fully masked row has no softmax at all.
  static void deriveQueryValid(const CallInfo& call, CallData& data) {
    const auto n = static_cast<std::size_t>(call.nQ);
    const bool fromKeys = trace::isSelfLike(call) && !data.keyValid.empty();
    if (!fromKeys && data.denseMask.empty()) return;
    data.queryValid.assign(n, 1);
    for (std::size_t r = 0; r < n; ++r) {
      if (fromKeys) {
        const auto token = data.qRows.empty() ? r : static_cast<std::size_t>(data.qRows[r]);
        if (token < data.keyValid.size() && data.keyValid[token] == 0) data.queryValid[r] = 0;
      }
      if (!data.denseMask.empty()) {
        const auto row = data.denseMask.begin() + static_cast<std::ptrdiff_t>(r * static_cast<std::size_t>(call.nK));
        if (std::all_of(row, row + static_cast<std::ptrdiff_t>(call.nK), [](std::uint8_t v) { return v == 0; }))
          data.queryValid[r] = 0;
      }
    }
  }

  trace::ParsedTrace m_parsed;
  Index m_memoryLimit;
  Executor m_executor;
  mutable TensorCache m_cache;
};

}  // namespace

std::unique_ptr<Trace> trace::makeTrace(ParsedTrace parsed, const TraceOptions& options) {
  return std::make_unique<Hdf5Trace>(std::move(parsed), options);
}

std::unique_ptr<Trace> openTrace(const std::filesystem::path& path, const TraceOptions& options) {
  trace::Sink sink;
  return trace::makeTrace(trace::parseTrace(path, options.memoryLimitBytes, sink), options);
}

}  // namespace sparsight
