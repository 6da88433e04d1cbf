// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/attention_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "sampling.h"
#include "sparsight/core/map_cache.h"

namespace sparsight {
namespace {

constexpr Index kCoarseCells = 512;
constexpr Index kMaxRegionCells = Index{1} << 28;
// Cells of one streaming pass of mapRegion: bounds the partial sums of the threads.
constexpr Index kCellsPerPass = Index{1} << 22;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::size_t at(Index i) { return static_cast<std::size_t>(i); }
Index ceilShift(Index n, int level) { return (n + (Index{1} << level) - 1) >> level; }

int levelFitting(Index rows, Index cols, Index cells) {
  int level = 0;
  while (ceilShift(std::max(rows, cols), level) > cells) ++level;
  return level;
}

std::vector<Index> levelBounds(Index tokens, int level) {
  std::vector<Index> bounds;
  bounds.reserve(at(ceilShift(tokens, level)) + 1);
  for (Index edge = 0; edge < tokens; edge += Index{1} << level) bounds.push_back(edge);
  bounds.push_back(tokens);
  return bounds;
}

std::vector<Index> invert(std::span<const Index> order) {
  std::vector<Index> inverse(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) inverse[at(order[i])] = static_cast<Index>(i);
  return inverse;
}

void checkOrder(std::span<const Index> order, Index size, const char* what) {
  if (order.empty()) return;
  if (static_cast<Index>(order.size()) != size) {
    throw Error(
        ErrorCode::InvalidArgument,
        fmt::format("{} order has {} entries for {} tokens; is the plan of this head?", what, order.size(), size));
  }
  std::vector<bool> seen(order.size());
  for (const Index token : order) {
    if (token < 0 || token >= size || seen[at(token)]) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{} order is no permutation: token {} is outside 0..{} or appears twice", what, token, size - 1));
    }
    seen[at(token)] = true;
  }
}

/// Rows [row0, row1) of a head in a computed order, without V (the map needs none, and V is a third of the memory).
struct OrderedHead {
  OwnedMatrix q, k;
  std::vector<std::uint8_t> keyValid, queryValid, denseMask;
  std::shared_ptr<const void> keepAlive;
  AttentionIn input;
  Index bytes = 0;
};

std::vector<std::uint8_t> permuted(std::span<const std::uint8_t> flags, std::span<const Index> positions) {
  std::vector<std::uint8_t> out(positions.size());
  for (std::size_t i = 0; i < positions.size(); ++i) out[i] = flags[at(positions[i])];
  return out;
}

/// `rows`: model rows in the order wanted; nullopt = all in model order. Matrices without values stay so.
std::shared_ptr<const OrderedHead> orderHead(const HeadData& head, const std::optional<std::span<const Index>>& rows,
                                             std::span<const Index> kOrder) {
  auto out = std::make_shared<OrderedHead>();
  out->keepAlive = head.keepAlive;
  const AttentionIn& in = head.input;
  out->input = in;
  out->input.v = {};
  if (rows) {
    if (in.q.data != nullptr) {
      out->q = gatherRows(in.q, *rows);
      out->input.q = out->q.view;
    } else {
      out->input.q.rows = static_cast<Index>(rows->size());
    }
    if (!in.queryValid.empty()) {
      out->queryValid = permuted(in.queryValid, *rows);
      out->input.queryValid = out->queryValid;
    }
  }
  if (!kOrder.empty()) {
    if (in.k.data != nullptr) {
      out->k = gatherRows(in.k, kOrder);
      out->input.k = out->k.view;
    }
    if (!in.keyValid.empty()) {
      out->keyValid = permuted(in.keyValid, kOrder);
      out->input.keyValid = out->keyValid;
    }
  }
  if (!in.denseMask.empty() && (rows || !kOrder.empty())) {
    const Index n = out->input.q.rows, keys = in.k.rows;
    out->denseMask.resize(at(n) * at(keys));
    for (Index r = 0; r < n; ++r) {
      const auto source = in.denseMask.subspan(at(rows ? (*rows)[at(r)] : r) * at(keys), at(keys));
      std::uint8_t* target = out->denseMask.data() + at(r) * at(keys);
      for (Index c = 0; c < keys; ++c) target[c] = source[at(kOrder.empty() ? c : kOrder[at(c)])];
    }
    out->input.denseMask = out->denseMask;
  }
  out->bytes = static_cast<Index>(out->q.storage.size() + out->k.storage.size() + out->keyValid.size() +
                                  out->queryValid.size() + out->denseMask.size());
  return out;
}

/// Rows [first, last) in model order: borrowed, nothing is copied.
std::shared_ptr<const OrderedHead> sliceRows(const HeadData& head, Index first, Index last) {
  auto out = std::make_shared<OrderedHead>();
  out->keepAlive = head.keepAlive;
  AttentionIn& in = out->input;
  in = head.input;
  in.v = {};
  in.q.data = head.input.q.row(first);
  in.q.rows = last - first;
  if (!in.queryValid.empty()) in.queryValid = in.queryValid.subspan(at(first), at(last - first));
  if (!in.denseMask.empty()) {
    in.denseMask = in.denseMask.subspan(at(first * in.k.rows), at((last - first) * in.k.rows));
  }
  return out;
}

std::shared_ptr<const PreparedHead> prepareOrdered(const std::shared_ptr<const OrderedHead>& head, Backend& backend,
                                                   const Control& control) {
  return backend.prepare(head->input, head, control);
}

/// One level in memory. count: valid pairs per cell.
struct Level {
  Index rows = 0, cols = 0;
  std::vector<float> mean, max;
  std::vector<double> count;
};

/// Mean is weighted by the children's valid pairs, so that every level holds the same exact means; a child without any
/// (NaN) weighs nothing.
Level parentOf(const Level& child) {
  Level parent;
  parent.rows = ceilShift(child.rows, 1);
  parent.cols = ceilShift(child.cols, 1);
  const std::size_t size = at(parent.rows) * at(parent.cols);
  parent.mean.assign(size, kNaN);
  parent.max.assign(size, kNaN);
  parent.count.assign(size, 0.0);
  for (Index r = 0; r < parent.rows; ++r) {
    for (Index c = 0; c < parent.cols; ++c) {
      double sum = 0, weight = 0, pairs = 0;
      float largest = kNaN;
      for (Index y = 2 * r; y < std::min(2 * r + 2, child.rows); ++y) {
        for (Index x = 2 * c; x < std::min(2 * c + 2, child.cols); ++x) {
          const std::size_t i = at(y * child.cols + x);
          pairs += child.count[i];
          if (std::isnan(child.mean[i])) continue;
          sum += static_cast<double>(child.mean[i]) * child.count[i];
          weight += child.count[i];
          if (!(largest >= child.max[i])) largest = child.max[i];
        }
      }
      const std::size_t o = at(r * parent.cols + c);
      parent.count[o] = pairs;
      if (weight > 0) {
        parent.mean[o] = static_cast<float>(sum / weight);
        parent.max[o] = largest;
      }
    }
  }
  return parent;
}

/// Valid pairs of every cell of a level.
std::vector<double> pairCounts(const AttentionIn& in, int level) {
  const Index rows = in.q.rows, cols = in.k.rows;
  const Index cellRows = ceilShift(rows, level), cellCols = ceilShift(cols, level);
  std::vector<double> counts(at(cellRows) * at(cellCols), 0.0);
  const auto validQuery = [&](Index r) { return in.queryValid.empty() || in.queryValid[at(r)] != 0; };
  const auto validKey = [&](Index c) { return in.keyValid.empty() || in.keyValid[at(c)] != 0; };
  if (!in.denseMask.empty()) {
    for (Index r = 0; r < rows; ++r) {
      if (!validQuery(r)) continue;
      double* line = counts.data() + (r >> level) * cellCols;
      for (Index c = 0; c < cols; ++c) {
        if (validKey(c) && in.denseMask[at(r) * at(cols) + at(c)] != 0) line[c >> level] += 1.0;
      }
    }
    return counts;
  }
  std::vector<double> rowCount(at(cellRows)), colCount(at(cellCols));
  for (Index r = 0; r < rows; ++r) rowCount[at(r >> level)] += validQuery(r) ? 1.0 : 0.0;
  for (Index c = 0; c < cols; ++c) colCount[at(c >> level)] += validKey(c) ? 1.0 : 0.0;
  for (Index r = 0; r < cellRows; ++r) {
    for (Index c = 0; c < cellCols; ++c) counts[at(r * cellCols + c)] = rowCount[at(r)] * colCount[at(c)];
  }
  return counts;
}

/// Rows of a preview. The rows of cell row i are two groups, bounds[2 i] .. bounds[2 i + 1] .. bounds[2 i + 2]: both of
/// the same size where the error can be estimated, else all in the first.
struct RowSample {
  std::vector<Index> rows;
  std::vector<Index> bounds{0};
  std::vector<std::uint8_t> complete;  ///< [cell rows] all valid rows are in the sample
};

RowSample sampleRows(const AttentionIn& in, int level, Index perCell) {
  // Cost is proportional to the samples: the preview of 118,800 tokens must stay far below the exact pass. There one
  // cell row in eight has a second row, for the estimate of the error.
  if (perCell <= 0) perCell = in.k.rows > 65536 ? 1 : in.k.rows > 16384 ? 2 : 4;
  constexpr Index kPairEvery = 8;
  RowSample sample;
  const auto bounds = levelBounds(in.q.rows, level);
  std::vector<Index> valid;
  for (std::size_t cell = 0; cell + 1 < bounds.size(); ++cell) {
    valid.clear();
    for (Index r = bounds[cell]; r < bounds[cell + 1]; ++r) {
      if (in.queryValid.empty() || in.queryValid[at(r)] != 0) valid.push_back(r);
    }
    const auto size = static_cast<Index>(valid.size());
    const Index wanted = perCell == 1 && static_cast<Index>(cell) % kPairEvery == kPairEvery / 2 ? 2 : perCell;
    const Index count = std::min(wanted, size);
    // Random within strata: evenly spaced rows would always hit the same place of a periodic token grid.
    SeededRandom random(cell + 1);
    std::vector<Index> drawn(at(count));
    for (Index i = 0; i < count; ++i) {
      const Index first = i * size / count, last = (i + 1) * size / count;
      drawn[at(i)] = valid[at(first + random.below(last - first))];
    }
    // Every other one, so that both halves reach over the whole cell row.
    for (Index i = 0; i < count; i += count % 2 == 0 ? 2 : 1) sample.rows.push_back(drawn[at(i)]);
    sample.bounds.push_back(static_cast<Index>(sample.rows.size()));
    for (Index i = 1; i < count && count % 2 == 0; i += 2) sample.rows.push_back(drawn[at(i)]);
    sample.bounds.push_back(static_cast<Index>(sample.rows.size()));
    sample.complete.push_back(count == size ? 1 : 0);
  }
  return sample;
}

/// Fills level.mean and level.max from the groups of a sample; returns PreviewInfo::misplacedMass.
double joinHalves(const RowSample& sample, const LseMapResult& halves, const AttentionIn& in,
                  std::span<const Index> colBounds, Level& level) {
  std::vector<double> keys(at(level.cols), 0.0);  // valid ones of each column
  for (Index c = 0; c < level.cols; ++c) {
    for (Index key = colBounds[at(c)]; key < colBounds[at(c + 1)]; ++key) {
      keys[at(c)] += in.keyValid.empty() || in.keyValid[at(key)] != 0 ? 1.0 : 0.0;
    }
  }
  const std::size_t width = at(level.cols);
  level.mean.resize(at(level.rows) * width);
  level.max.resize(level.mean.size());
  double distance = 0, judged = 0;
  for (Index r = 0; r < level.rows; ++r) {
    const Index a = sample.bounds[at(2 * r + 1)] - sample.bounds[at(2 * r)];
    const Index b = sample.bounds[at(2 * r + 2)] - sample.bounds[at(2 * r + 1)];
    double difference = 0, mass = 0;
    for (std::size_t c = 0; c < width; ++c) {
      const std::size_t first = at(2 * r) * width + c, second = first + width, out = at(r) * width + c;
      const float x = halves.mean[first], y = halves.mean[second];
      // A dense mask may leave one half of a cell without a pair.
      const bool both = !std::isnan(x) && !std::isnan(y);
      level.mean[out] = both ? 0.5F * (x + y) : std::isnan(x) ? y : x;
      level.max[out] = both            ? std::max(halves.max[first], halves.max[second])
                       : std::isnan(x) ? halves.max[second]
                                       : halves.max[first];
      if (!both) continue;
      difference += keys[c] * std::abs(static_cast<double>(x) - static_cast<double>(y));
      mass += keys[c] * (static_cast<double>(x) + static_cast<double>(y));
    }
    if (a == 0 || (sample.complete[at(r)] == 0 && (a != b || !(mass > 0)))) continue;
    judged += 1.0;
    if (sample.complete[at(r)] == 0) distance += difference / mass;
  }
  return judged > 0 ? distance / judged : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

struct AttentionMap::Impl {
  /// Levels coarseLevel..maxLevel; immutable once published.
  struct Levels {
    std::vector<Level> levels;
    bool approximate = true;
    std::optional<PreviewInfo> preview;  // of an approximate map
    Index bytes = 0;
  };

  std::shared_ptr<const HeadData> head;
  LoadHead load;  // empty: `head` has all
  ContentHash queries, keys;
  std::vector<Index> qOrder, kOrder, qInverse, kInverse;
  Index rows = 0, cols = 0;
  int coarse = 0, max = 0;

  mutable std::mutex mutex;  // levels, lse, known
  std::shared_ptr<const Levels> levels;
  std::vector<float> lse;           // computed order; entry valid where known or after build
  std::vector<std::uint8_t> known;  // before build: rows whose LSE was computed alone
  std::atomic<bool> exact{false};

  std::shared_ptr<MapCache> cache;
  std::mutex cacheMutex;  // contentHash, computedBy, remembered
  std::optional<ContentHash> contentHash;
  std::string computedBy;
  std::atomic<bool> remembered{false};
  std::atomic<bool> restored{false};

  std::mutex loadMutex;                  // one lane reads; long
  std::mutex prepareMutex;               // one lane orders and packs at a time; long
  mutable std::mutex slotMutex;          // late, ordered, prepared; short: a GUI asks for bytes()
  std::shared_ptr<const HeadData> late;  // what `load` brought
  std::shared_ptr<const OrderedHead> ordered;
  std::map<std::pair<std::string, const Backend*>, std::shared_ptr<const PreparedHead>> prepared;

  /// The head with Q and K if they are here, else nullptr.
  [[nodiscard]] std::shared_ptr<const HeadData> here() const {
    if (!load) return head;
    const std::lock_guard lock(slotMutex);
    return late;
  }
  std::shared_ptr<const HeadData> whole(const std::stop_token& stop) {
    if (auto found = here()) return found;
    const std::lock_guard lock(loadMutex);
    if (auto found = here()) return found;
    auto made = std::make_shared<const HeadData>(load(stop));
    const AttentionIn &was = head->input, &is = made->input;
    if (is.q.rows != was.q.rows || is.k.rows != was.k.rows || matrixHash(is.q) != queries || matrixHash(is.k) != keys) {
      throw Error(
          ErrorCode::Format,
          fmt::format("layer {} head {} at step {}: its tensors changed while the trace was open; open it again",
                      head->id.call.layer, head->id.head, head->id.call.step));
    }
    const std::lock_guard slots(slotMutex);
    late = made;
    return made;
  }

  std::shared_ptr<const OrderedHead> orderedHead(const std::stop_token& stop) {
    const std::lock_guard lock(prepareMutex);
    return orderedHeadLocked(stop);
  }
  std::shared_ptr<const OrderedHead> orderedHeadLocked(const std::stop_token& stop) {
    {
      const std::lock_guard lock(slotMutex);
      if (ordered) return ordered;
    }
    auto made =
        orderHead(*whole(stop),
                  qOrder.empty() ? std::optional<std::span<const Index>>() : std::span<const Index>(qOrder), kOrder);
    const std::lock_guard lock(slotMutex);
    ordered = made;
    return made;
  }
  /// CPU heads are shared between the lanes' backends; a device's head belongs to its backend.
  std::shared_ptr<const PreparedHead> prepare(Backend& backend, const Control& control) {
    const std::string id = backend.info().id;
    const auto key = std::make_pair(id, id == "cpu" ? nullptr : &backend);
    const std::lock_guard lock(prepareMutex);
    {
      const std::lock_guard slots(slotMutex);
      const auto found = prepared.find(key);
      if (found != prepared.end()) return found->second;
    }
    auto made = prepareOrdered(orderedHeadLocked(control.stop), backend, Control{control.stop, {}});
    const std::lock_guard slots(slotMutex);
    prepared[key] = made;
    return made;
  }

  /// rowLse: of the exact pass; none: a preview.
  void publish(Level coarsest, std::optional<std::vector<float>> rowLse, std::optional<PreviewInfo> preview = {}) {
    const bool approximate = !rowLse;
    auto next = std::make_shared<Levels>();
    next->approximate = approximate;
    next->preview = preview;
    next->levels.push_back(std::move(coarsest));
    for (int z = coarse; z < max; ++z) next->levels.push_back(parentOf(next->levels.back()));
    for (const Level& level : next->levels) {
      next->bytes += static_cast<Index>((level.mean.size() + level.max.size()) * sizeof(float) +
                                        level.count.size() * sizeof(double));
    }
    const std::lock_guard lock(mutex);
    if (exact.load()) return;  // a late preview, or another lane was faster and its LSE is already in use
    levels = std::move(next);
    if (!rowLse) return;
    lse = std::move(*rowLse);
    known = {};
    exact.store(true);
  }

  /// LSE of rows [first, last) in a buffer of all rows, as Backend::tile takes it.
  std::span<const float> lseFor(Index first, Index last, std::vector<float>& buffer, Backend& backend,
                                const Control& control) {
    if (exact.load()) return lse;
    std::vector<Index> missing;
    {
      const std::lock_guard lock(mutex);
      if (exact.load()) return lse;
      if (known.empty()) {
        known.assign(at(rows), 0);
        lse.assign(at(rows), kNaN);
      }
      for (Index r = first; r < last; ++r) {
        if (known[at(r)] == 0) missing.push_back(r);
      }
    }
    std::vector<float> found;
    if (!missing.empty()) found = backend.attend(*prepare(backend, control), missing, RowKeep{}, control).lse;
    const std::lock_guard lock(mutex);
    if (exact.load()) return lse;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      known[at(missing[i])] = 1;
      lse[at(missing[i])] = found[i];
    }
    buffer = lse;
    return buffer;
  }

  [[nodiscard]] bool pairValid(Index row, Index key) const {
    const AttentionIn& in = head->input;
    return (in.queryValid.empty() || in.queryValid[at(row)] != 0) &&
           (in.keyValid.empty() || in.keyValid[at(key)] != 0) &&
           (in.denseMask.empty() || in.denseMask[at(row) * at(cols) + at(key)] != 0);
  }

  /// `in`: of the whole head.
  [[nodiscard]] PairReadout read(const AttentionIn& in, Index row, Index key, double rowLse) const {
    std::vector<float> q(at(in.q.cols)), k(at(in.k.cols));
    rowToFloat(in.q, row, q);
    rowToFloat(in.k, key, k);
    double dot = 0;
    for (std::size_t d = 0; d < q.size(); ++d) dot += static_cast<double>(q[d]) * static_cast<double>(k[d]);
    PairReadout out{row, key, 0.0, in.scale * dot, pairValid(row, key)};
    if (out.valid) out.probability = std::exp(out.logit - rowLse);
    return out;
  }

  void checkPair(Index rowPosition, Index colPosition) const {
    if (rowPosition < 0 || rowPosition >= rows || colPosition < 0 || colPosition >= cols) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("pair ({}, {}) is outside the map of {} x {} tokens",
                                                          rowPosition, colPosition, rows, cols));
    }
  }
  [[nodiscard]] Index queryRow(Index position) const { return qOrder.empty() ? position : qOrder[at(position)]; }
  [[nodiscard]] Index key(Index position) const { return kOrder.empty() ? position : kOrder[at(position)]; }
};

AttentionMap::AttentionMap(HeadData head, std::vector<Index> qOrder, std::vector<Index> kOrder)
    : m_impl(std::make_unique<Impl>()) {
  Impl& d = *m_impl;
  d.rows = head.input.q.rows;
  d.cols = head.input.k.rows;
  if (d.rows <= 0 || d.cols <= 0) throw Error(ErrorCode::InvalidArgument, "attention map: the head has no tokens");
  checkOrder(qOrder, d.rows, "query");
  checkOrder(kOrder, d.cols, "key");
  d.head = std::make_shared<const HeadData>(std::move(head));
  d.qInverse = invert(qOrder);
  d.kInverse = invert(kOrder);
  d.qOrder = std::move(qOrder);
  d.kOrder = std::move(kOrder);
  d.coarse = levelFitting(d.rows, d.cols, kCoarseCells);
  d.max = levelFitting(d.rows, d.cols, kTileCells);
}

AttentionMap::AttentionMap(HeadOutline outline, LoadHead load, std::vector<Index> qOrder, std::vector<Index> kOrder)
    : AttentionMap(std::move(outline.head), std::move(qOrder), std::move(kOrder)) {
  m_impl->load = std::move(load);
  m_impl->queries = outline.queries;
  m_impl->keys = outline.keys;
  m_impl->contentHash =
      mapContentHash(outline.queries, outline.keys, m_impl->head->input, m_impl->qOrder, m_impl->kOrder);
}

AttentionMap::~AttentionMap() = default;

Index AttentionMap::rows() const noexcept { return m_impl->rows; }
Index AttentionMap::cols() const noexcept { return m_impl->cols; }
const HeadData& AttentionMap::head() const noexcept { return *m_impl->head; }
std::shared_ptr<const HeadData> AttentionMap::loadedHead(const Control& control) { return m_impl->whole(control.stop); }
bool AttentionMap::loaded() const noexcept { return m_impl->here() != nullptr; }
Index AttentionMap::queryRowAt(Index rowPosition) const noexcept { return m_impl->queryRow(rowPosition); }
Index AttentionMap::keyAt(Index colPosition) const noexcept { return m_impl->key(colPosition); }
Index AttentionMap::positionOfQueryRow(Index row) const noexcept {
  return m_impl->qInverse.empty() ? row : m_impl->qInverse[at(row)];
}
Index AttentionMap::positionOfKey(Index key) const noexcept {
  return m_impl->kInverse.empty() ? key : m_impl->kInverse[at(key)];
}
std::span<const Index> AttentionMap::qOrder() const noexcept { return m_impl->qOrder; }
std::span<const Index> AttentionMap::kOrder() const noexcept { return m_impl->kOrder; }
Index AttentionMap::cellRows(int level) const noexcept { return ceilShift(m_impl->rows, level); }
Index AttentionMap::cellCols(int level) const noexcept { return ceilShift(m_impl->cols, level); }
Index AttentionMap::tileRows(int level) const noexcept { return (cellRows(level) + kTileCells - 1) / kTileCells; }
Index AttentionMap::tileCols(int level) const noexcept { return (cellCols(level) + kTileCells - 1) / kTileCells; }
int AttentionMap::maxLevel() const noexcept { return m_impl->max; }
int AttentionMap::coarseLevel() const noexcept { return m_impl->coarse; }
bool AttentionMap::exact() const noexcept { return m_impl->exact.load(); }

std::span<const float> AttentionMap::rowLse() const noexcept {
  return exact() ? std::span<const float>(m_impl->lse) : std::span<const float>();
}

std::optional<PreviewInfo> AttentionMap::previewInfo() const {
  const std::lock_guard lock(m_impl->mutex);
  return m_impl->levels ? m_impl->levels->preview : std::nullopt;
}

void AttentionMap::preview(Backend& backend, const Control& control, Index rowsPerCell) {
  Impl& d = *m_impl;
  if (exact()) return;
  const auto ordered = d.orderedHead(control.stop);
  control.checkpoint();
  const AttentionIn& in = ordered->input;
  const RowSample sample = sampleRows(in, d.coarse, rowsPerCell);
  Level level;
  level.rows = cellRows(d.coarse);
  level.cols = cellCols(d.coarse);
  level.count = pairCounts(in, d.coarse);
  PreviewInfo info{static_cast<Index>(sample.rows.size()), std::numeric_limits<double>::quiet_NaN()};
  if (sample.rows.empty()) {  // only padding rows
    level.mean.assign(at(level.rows) * at(level.cols), kNaN);
    level.max = level.mean;
  } else {
    HeadData view;
    view.input = in;
    view.keepAlive = ordered;
    const auto rows = orderHead(view, std::span<const Index>(sample.rows), {});
    const auto colBounds = levelBounds(d.cols, d.coarse);
    const LseMapResult result = backend.lseMap(*prepareOrdered(rows, backend, Control{control.stop, {}}),
                                               LseMapRequest{sample.bounds, colBounds, true, true}, control);
    info.misplacedMass = joinHalves(sample, result, in, colBounds, level);
  }
  d.publish(std::move(level), std::nullopt, info);
}

void AttentionMap::build(Backend& backend, const Control& control) {
  Impl& d = *m_impl;
  if (exact()) return;
  const auto prepared = d.prepare(backend, control);
  control.checkpoint();
  {
    const std::lock_guard lock(d.cacheMutex);
    d.computedBy = backend.info().id;
  }
  const auto rowBounds = levelBounds(d.rows, d.coarse), colBounds = levelBounds(d.cols, d.coarse);
  LseMapResult result = backend.lseMap(*prepared, LseMapRequest{rowBounds, colBounds, true, true}, control);
  Level level;
  level.rows = cellRows(d.coarse);
  level.cols = cellCols(d.coarse);
  level.count = pairCounts(prepared->input(), d.coarse);
  level.mean = std::move(result.mean);
  level.max = std::move(result.max);
  d.publish(std::move(level), std::move(result.lse));
}

void AttentionMap::setCache(std::shared_ptr<MapCache> cache) { m_impl->cache = std::move(cache); }

bool AttentionMap::unsaved() const noexcept {
  return m_impl->cache && m_impl->cache->limit() > 0 && exact() && !m_impl->remembered.load();
}

bool AttentionMap::fromCache() const noexcept { return m_impl->restored.load(); }

bool AttentionMap::restore(const Control& control) {
  Impl& d = *m_impl;
  if (exact()) return true;
  if (!d.cache || d.cache->limit() <= 0) return false;
  control.checkpoint();
  const std::lock_guard lock(d.cacheMutex);
  if (!d.contentHash) d.contentHash = mapContentHash(d.head->input, d.qOrder, d.kOrder);
  control.checkpoint();
  std::optional<CachedMap> found = d.cache->find(*d.contentHash, d.rows);
  // An LSE alone is no map: the exact pass makes both at the price of one.
  if (!found || found->cellRows != cellRows(d.coarse) || found->cellCols != cellCols(d.coarse)) return false;
  d.remembered = true;
  d.computedBy = found->computedBy;
  Level level;
  level.rows = found->cellRows;
  level.cols = found->cellCols;
  HeadData masks;  // counting pairs takes no values: Q and K are not copied
  masks.input = d.head->input;
  masks.input.q.data = masks.input.k.data = nullptr;
  const auto qOrder = d.qOrder.empty() ? std::optional<std::span<const Index>>() : std::span<const Index>(d.qOrder);
  level.count = pairCounts(orderHead(masks, qOrder, d.kOrder)->input, d.coarse);
  level.mean = std::move(found->mean);
  level.max = std::move(found->max);
  d.restored.store(true);
  d.publish(std::move(level), std::move(found->lse));
  return true;
}

void AttentionMap::remember() {
  Impl& d = *m_impl;
  if (!d.cache || d.cache->limit() <= 0 || !exact()) return;
  const std::lock_guard lock(d.cacheMutex);
  if (d.remembered.exchange(true)) return;
  if (!d.contentHash) d.contentHash = mapContentHash(d.head->input, d.qOrder, d.kOrder);
  std::shared_ptr<const Impl::Levels> levels;
  {
    const std::lock_guard inner(d.mutex);
    levels = d.levels;
  }
  const Level& coarsest = levels->levels.front();
  d.cache->store(*d.contentHash,
                 {d.rows, coarsest.rows, coarsest.cols, d.lse, coarsest.mean, coarsest.max, d.computedBy});
}

std::shared_ptr<const Tile> AttentionMap::coarseTile(const TileKey& key) const {
  const Impl& d = *m_impl;
  std::shared_ptr<const Impl::Levels> levels;
  {
    const std::lock_guard lock(d.mutex);
    levels = d.levels;
  }
  if (!levels || key.level < d.coarse || key.level > d.max || key.tileX < 0 || key.tileY < 0 ||
      key.tileX >= tileCols(key.level) || key.tileY >= tileRows(key.level)) {
    return nullptr;
  }
  const Level& level = levels->levels[at(key.level - d.coarse)];
  const std::vector<float>& source = key.reduce == Reduce::Mean ? level.mean : level.max;
  auto tile = std::make_shared<Tile>();
  tile->key = key;
  tile->approximate = levels->approximate;
  const Index row0 = key.tileY * kTileCells, col0 = key.tileX * kTileCells;
  tile->cellRows = static_cast<int>(std::min<Index>(kTileCells, level.rows - row0));
  tile->cellCols = static_cast<int>(std::min<Index>(kTileCells, level.cols - col0));
  tile->cells.reserve(at(tile->cellRows) * at(tile->cellCols));
  for (Index r = row0; r < row0 + tile->cellRows; ++r) {
    const auto line = source.begin() + (r * level.cols + col0);
    tile->cells.insert(tile->cells.end(), line, line + tile->cellCols);
  }
  return tile;
}

std::shared_ptr<const Tile> AttentionMap::computeTile(const TileKey& key, Backend& backend, const Control& control) {
  Impl& d = *m_impl;
  if (key.level < 0 || key.level > d.max || key.tileX < 0 || key.tileY < 0 || key.tileX >= tileCols(key.level) ||
      key.tileY >= tileRows(key.level)) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("tile ({}, {}) of level {} is outside the map of {} x {} tokens", key.tileX, key.tileY,
                            key.level, d.rows, d.cols));
  }
  if (key.level >= d.coarse) {
    build(backend, control);
    return coarseTile(key);
  }
  const int z = key.level;
  const Index row0 = (key.tileY * kTileCells) << z, row1 = std::min(d.rows, row0 + (Index{kTileCells} << z));
  const Index col0 = (key.tileX * kTileCells) << z, col1 = std::min(d.cols, col0 + (Index{kTileCells} << z));
  const auto prepared = d.prepare(backend, control);
  std::vector<float> buffer;
  const std::span<const float> lse = d.lseFor(row0, row1, buffer, backend, control);

  auto tile = std::make_shared<Tile>();
  tile->key = key;
  tile->cellRows = static_cast<int>(ceilShift(row1 - row0, z));
  tile->cellCols = static_cast<int>(ceilShift(col1 - col0, z));
  tile->cells.resize(at(tile->cellRows) * at(tile->cellCols));
  // Backend cells divide a region evenly; ours are 2^z tokens with a ragged last one. So the ragged edge is its own
  // region.
  const auto pieces = [z](Index first, Index last) {
    const Index whole = (last - first) >> z;
    std::vector<std::array<Index, 3>> out;  // first, last, cells
    if (whole > 0) out.push_back({first, first + (whole << z), whole});
    if (first + (whole << z) < last) out.push_back({first + (whole << z), last, 1});
    return out;
  };
  for (const auto& [r0, r1, rCells] : pieces(row0, row1)) {
    for (const auto& [c0, c1, cCells] : pieces(col0, col1)) {
      const auto part = backend.tile(*prepared, lse, TileRect{r0, r1, c0, c1, rCells, cCells}, key.reduce, control);
      for (Index r = 0; r < rCells; ++r) {
        std::copy_n(part.begin() + r * cCells, cCells,
                    tile->cells.begin() + (((r0 - row0) >> z) + r) * tile->cellCols + ((c0 - col0) >> z));
      }
    }
  }
  return tile;
}

PairReadout AttentionMap::readout(Index rowPosition, Index colPosition, Backend& backend, const Control& control) {
  Impl& d = *m_impl;
  d.checkPair(rowPosition, colPosition);
  std::vector<float> buffer;
  const auto lse = d.lseFor(rowPosition, rowPosition + 1, buffer, backend, control);
  return d.read(d.whole(control.stop)->input, d.queryRow(rowPosition), d.key(colPosition),
                static_cast<double>(lse[at(rowPosition)]));
}

std::optional<PairReadout> AttentionMap::readoutIfKnown(Index rowPosition, Index colPosition) const {
  const Impl& d = *m_impl;
  d.checkPair(rowPosition, colPosition);
  const std::shared_ptr<const HeadData> head = d.here();
  if (!head) return std::nullopt;
  double lse = 0;
  if (d.exact.load()) {
    lse = static_cast<double>(d.lse[at(rowPosition)]);
  } else {
    const std::lock_guard lock(d.mutex);
    if (!d.exact.load() && (d.known.empty() || d.known[at(rowPosition)] == 0)) return std::nullopt;
    lse = static_cast<double>(d.lse[at(rowPosition)]);
  }
  return d.read(head->input, d.queryRow(rowPosition), d.key(colPosition), lse);
}

Index AttentionMap::bytes() const noexcept {
  const Impl& d = *m_impl;
  Index total = d.head->bytes;
  total += static_cast<Index>((d.qOrder.size() + d.kOrder.size()) * 2 * sizeof(Index));
  {
    const std::lock_guard lock(d.mutex);
    if (d.levels) total += d.levels->bytes;
    total += static_cast<Index>(d.lse.size() * sizeof(float) + d.known.size());
  }
  const std::lock_guard lock(d.slotMutex);
  if (d.late) total += d.late->bytes - d.head->bytes;  // the masks are the same ones
  if (d.ordered) total += d.ordered->bytes;
  for (const auto& [key, head] : d.prepared) {
    if (head) total += head->bytes();
  }
  return total;
}

std::shared_ptr<const void> AttentionMap::trim() {
  struct Dropped {
    std::shared_ptr<const HeadData> late;
    std::shared_ptr<const OrderedHead> ordered;
    std::map<std::pair<std::string, const Backend*>, std::shared_ptr<const PreparedHead>> prepared;
  };
  auto dropped = std::make_shared<Dropped>();
  const std::lock_guard lock(m_impl->slotMutex);
  if (!m_impl->late && !m_impl->ordered && m_impl->prepared.empty()) return nullptr;
  dropped->late.swap(m_impl->late);
  dropped->ordered.swap(m_impl->ordered);
  dropped->prepared.swap(m_impl->prepared);
  return dropped;
}

std::shared_ptr<AttentionMap> openMap(std::shared_ptr<const Trace> trace, const HeadId& id, std::vector<Index> qOrder,
                                      std::vector<Index> kOrder, std::shared_ptr<MapCache> cache,
                                      const Control& control) {
  if (cache && cache->limit() > 0) {
    if (std::optional<HeadOutline> outline = trace->outline(id, control.stop)) {
      const auto map = std::make_shared<AttentionMap>(
          std::move(*outline), [trace, id](const std::stop_token& stop) { return trace->loadScores(id, stop); },
          std::move(qOrder), std::move(kOrder));
      map->setCache(std::move(cache));
      if (!map->restore(control)) static_cast<void>(map->loadedHead(control));
      return map;
    }
  }
  const auto map =
      std::make_shared<AttentionMap>(trace->loadScores(id, control.stop), std::move(qOrder), std::move(kOrder));
  map->setCache(std::move(cache));
  map->restore(control);
  return map;
}

std::vector<float> mapRegion(const HeadData& head, const TileRect& rect, Reduce reduce, std::span<const Index> qOrder,
                             std::span<const Index> kOrder, Backend& backend, const Control& control, MapCache* cache,
                             bool* usedCache) {
  if (usedCache != nullptr) *usedCache = false;
  const Index rows = head.input.q.rows, cols = head.input.k.rows;
  const auto inside = [](Index first, Index last, Index size) { return first >= 0 && first < last && last <= size; };
  if (!inside(rect.row0, rect.row1, rows) || !inside(rect.col0, rect.col1, cols)) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("region rows {}:{}, keys {}:{} is empty or outside the map of {} x {} tokens", rect.row0,
                            rect.row1, rect.col0, rect.col1, rows, cols));
  }
  if (rect.cellRows < 1 || rect.cellCols < 1 || rect.cellRows > kMaxRegionCells / rect.cellCols) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{} x {} cells: give at least 1 x 1 and at most {} in all",
                                                        rect.cellRows, rect.cellCols, kMaxRegionCells));
  }
  checkOrder(qOrder, rows, "query");
  checkOrder(kOrder, cols, "key");
  std::optional<ContentHash> key;
  bool known = false;
  if (cache != nullptr && cache->limit() > 0) {
    key = mapContentHash(head.input, qOrder, kOrder);
    const std::optional<CachedMap> found = cache->find(*key, rows);
    known = found.has_value();
    // Only what this backend computed: with and without the cache the numbers are of one arithmetic. A region of all
    // keys costs one pass either way.
    if (found && found->computedBy == backend.info().id && rect.col1 - rect.col0 < cols &&
        rect.cellRows <= rect.row1 - rect.row0 && rect.cellCols <= rect.col1 - rect.col0) {
      const auto ordered = orderHead(
          head, qOrder.empty() ? std::optional<std::span<const Index>>() : std::span<const Index>(qOrder), kOrder);
      if (usedCache != nullptr) *usedCache = true;
      return backend.tile(*prepareOrdered(ordered, backend, Control{control.stop, {}}), found->lse, rect, reduce,
                          control);
    }
  }
  std::vector<float> wholeLse;
  const auto edge = [](Index first, Index last, Index cells, Index i) { return first + i * (last - first) / cells; };
  // A row's softmax needs all keys; those outside the region go into two extra columns that are dropped.
  std::vector<Index> colBounds{0};
  for (Index i = 0; i <= rect.cellCols; ++i) colBounds.push_back(edge(rect.col0, rect.col1, rect.cellCols, i));
  colBounds.push_back(cols);

  HeadData reordered;  // keys reordered once, whatever the number of passes
  const auto keys = orderHead(head, std::nullopt, kOrder);
  reordered.input = keys->input;
  reordered.keepAlive = keys;
  std::vector<float> out(at(rect.cellRows) * at(rect.cellCols), kNaN);
  const Index rowsPerPass = std::max<Index>(1, kCellsPerPass / (rect.cellCols + 2));
  for (Index cell = 0; cell < rect.cellRows; cell += rowsPerPass) {
    control.checkpoint();
    const Index cellEnd = std::min(rect.cellRows, cell + rowsPerPass);
    const Index first = edge(rect.row0, rect.row1, rect.cellRows, cell);
    const Index last = edge(rect.row0, rect.row1, rect.cellRows, cellEnd);
    if (first == last) continue;  // more cells than rows
    std::vector<Index> rowBounds;
    for (Index i = cell; i <= cellEnd; ++i) rowBounds.push_back(edge(rect.row0, rect.row1, rect.cellRows, i) - first);
    const auto part = qOrder.empty() ? sliceRows(reordered, first, last)
                                     : orderHead(reordered, qOrder.subspan(at(first), at(last - first)), {});
    Control share{control.stop, {}};
    if (control.progress) {
      share.progress = [&control, cell, cellEnd, total = rect.cellRows](double fraction) {
        control.report((static_cast<double>(cell) + fraction * static_cast<double>(cellEnd - cell)) /
                       static_cast<double>(total));
      };
    }
    const LseMapResult result =
        backend.lseMap(*prepareOrdered(part, backend, Control{control.stop, {}}),
                       LseMapRequest{rowBounds, colBounds, reduce == Reduce::Mean, reduce == Reduce::Max}, share);
    const std::vector<float>& cells = reduce == Reduce::Mean ? result.mean : result.max;
    for (Index r = 0; r < cellEnd - cell; ++r) {
      std::copy_n(cells.begin() + r * (rect.cellCols + 2) + 1, rect.cellCols, out.begin() + (cell + r) * rect.cellCols);
    }
    if (key && !known) wholeLse.insert(wholeLse.end(), result.lse.begin(), result.lse.end());
  }
  // What a pass over all rows found serves later regions; a map that is there already holds more.
  if (key && !known && static_cast<Index>(wholeLse.size()) == rows) {
    CachedMap map;
    map.rows = rows;
    map.lse = std::move(wholeLse);
    map.computedBy = backend.info().id;
    cache->store(*key, map);
  }
  return out;
}

}  // namespace sparsight
