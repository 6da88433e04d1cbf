// SPDX-License-Identifier: Apache-2.0
// The oracle: every operation written as its definition, in double, one row at a time. Nothing here is clever, so that
// a difference between it and a fast backend is the fast backend's error.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "checks.h"
#include "convert.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

class ReferenceHead final : public PreparedHead {
 public:
  ReferenceHead(const AttentionIn& in, std::shared_ptr<const void> keepAlive)
      : PreparedHead(in, std::move(keepAlive)), q(widen(in.q)), k(widen(in.k)), v(widen(in.v)) {}

  [[nodiscard]] Index bytes() const noexcept override {
    return static_cast<Index>((q.size() + k.size() + v.size()) * sizeof(double));
  }

  [[nodiscard]] bool valid(Index row, Index key) const {
    const AttentionIn& in = input();
    if (detail::isPaddingRow(in, row)) return false;
    if (!in.keyValid.empty() && in.keyValid[at(key)] == 0) return false;
    return in.denseMask.empty() || in.denseMask[at(row * in.k.rows + key)] != 0;
  }

  [[nodiscard]] double logit(Index row, Index key) const {
    const Index d = input().q.cols;
    double dot = 0;
    for (Index i = 0; i < d; ++i) dot += q[at(row * d + i)] * k[at(key * d + i)];
    return input().scale * dot;
  }

  /// All logits of a row; -inf where the pair is not valid.
  [[nodiscard]] std::vector<double> logits(Index row) const {
    std::vector<double> z(at(input().k.rows), -kInf);
    for (Index key = 0; key < input().k.rows; ++key) {
      if (valid(row, key)) z[at(key)] = logit(row, key);
    }
    return z;
  }

  std::vector<double> q, k, v;

 private:
  static std::vector<double> widen(const MatrixView& m) {
    if (m.data == nullptr) return {};
    std::vector<double> wide;
    wide.reserve(at(m.rows * m.cols));
    std::vector<float> row(at(m.cols));
    for (Index r = 0; r < m.rows; ++r) {
      detail::convertRow(m, r, row.data());
      wide.insert(wide.end(), row.begin(), row.end());
    }
    return wide;
  }
};

double largest(const std::vector<double>& z) { return z.empty() ? -kInf : *std::max_element(z.begin(), z.end()); }

/// log of the sum of exp(z - top).
double logSumExp(const std::vector<double>& z, double top) {
  double sum = 0;
  for (const double value : z) sum += std::exp(value - top);
  return std::log(sum);
}

double logSumExp(const std::vector<double>& z) {
  const double top = largest(z);
  return top == -kInf ? -kInf : top + logSumExp(z, top);
}

/// One pooled cell while it is filled.
struct Cell {
  double sum = 0, max = -kInf;
  Index pairs = 0;
  void add(double p) {
    sum += p;
    max = std::max(max, p);
    ++pairs;
  }
  [[nodiscard]] float mean() const { return pairs > 0 ? static_cast<float>(sum / static_cast<double>(pairs)) : kNan; }
  [[nodiscard]] float largest() const { return pairs > 0 ? static_cast<float>(max) : kNan; }
};

class ReferenceBackend final : public Backend {
 public:
  [[nodiscard]] BackendInfo info() const override { return {"reference", "double-precision oracle", "scalar", 0}; }
  [[nodiscard]] bool supports(Op, DType, Index) const noexcept override { return true; }

  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    detail::checkInput(in);
    control.checkpoint();
    return std::make_shared<ReferenceHead>(in, std::move(keepAlive));
  }

  LseMapResult lseMap(const PreparedHead& prepared, const LseMapRequest& request, const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkRequest(head.input(), request);
    LseMapResult result;
    result.lse.resize(at(head.input().q.rows));
    forRows(head.input().q.rows, control, [&](Index row) {
      if (!request.rowLse.empty()) {
        result.lse[at(row)] = request.rowLse[at(row)];
        return;
      }
      const bool padding = detail::isPaddingRow(head.input(), row);
      result.lse[at(row)] = padding ? kNan : static_cast<float>(logSumExp(head.logits(row)));
    });
    if (!request.rowBounds.empty()) {
      const Index mapRows = static_cast<Index>(request.rowBounds.size()) - 1;
      const Index mapCols = static_cast<Index>(request.colBounds.size()) - 1;
      if (request.wantMean) result.mean.resize(at(mapRows * mapCols));
      if (request.wantMax) result.max.resize(at(mapRows * mapCols));
      forRows(mapRows, control, [&](Index r) {
        const std::vector<Cell> cells = poolRows(
            head, request.rowBounds[at(r)], request.rowBounds[at(r + 1)], request.colBounds,
            [&](const std::vector<double>& z, Index row) {
              return request.rowLse.empty() ? logSumExp(z) : static_cast<double>(request.rowLse[at(row)]);
            },
            control);
        for (Index c = 0; c < mapCols; ++c) {
          if (request.wantMean) result.mean[at(r * mapCols + c)] = cells[at(c)].mean();
          if (request.wantMax) result.max[at(r * mapCols + c)] = cells[at(c)].largest();
        }
      });
    }
    return result;
  }

  std::vector<float> tile(const PreparedHead& prepared, std::span<const float> rowLse, const TileRect& rect,
                          Reduce reduce, const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkTile(head.input(), rowLse, rect);
    const std::vector<Index> rowBounds = detail::cellBounds(rect.row0, rect.row1, rect.cellRows);
    const std::vector<Index> colBounds = detail::cellBounds(rect.col0, rect.col1, rect.cellCols);
    std::vector<float> out(at(rect.cellRows * rect.cellCols));
    forRows(rect.cellRows, control, [&](Index r) {
      const std::vector<Cell> cells = poolRows(
          head, rowBounds[at(r)], rowBounds[at(r + 1)], colBounds,
          [&](const std::vector<double>&, Index row) { return static_cast<double>(rowLse[at(row)]); }, control);
      for (Index c = 0; c < rect.cellCols; ++c) {
        out[at(r * rect.cellCols + c)] = reduce == Reduce::Mean ? cells[at(c)].mean() : cells[at(c)].largest();
      }
    });
    return out;
  }

  AttendResult attend(const PreparedHead& prepared, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkKeep(head.input(), rows, keep);
    AttendResult result = makeResult(head, rows);
    forRows(static_cast<Index>(rows.size()), control, [&](Index i) {
      std::vector<double> z = head.logits(rows[at(i)]);
      if (!detail::keepsAll(keep)) {
        std::vector<double> kept(z.size(), -kInf);
        const Index group = keep.group.empty() ? i : keep.group[at(i)];
        for (Index n = keep.ptr[at(group)]; n < keep.ptr[at(group + 1)]; ++n) {
          const Interval interval = keep.intervals[at(n)];
          for (Index key = interval.first; key < interval.last; ++key) kept[at(key)] = z[at(key)];
        }
        z = std::move(kept);
      }
      finishRow(head, rows[at(i)], z, i, result);
    });
    return result;
  }

  AttendResult attendTop(const PreparedHead& prepared, std::span<const Index> rows, std::span<const Index> counts,
                         const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkCounts(rows, counts);
    AttendResult result = makeResult(head, rows);
    result.threshold.assign(rows.size(), std::numeric_limits<float>::infinity());
    forRows(static_cast<Index>(rows.size()), control, [&](Index i) {
      const std::vector<double> z = head.logits(rows[at(i)]);
      const std::vector<Index> order = keysByLogit(z);
      const Index count = std::min(counts[at(i)], static_cast<Index>(order.size()));
      std::vector<double> kept(z.size(), -kInf);
      for (Index n = 0; n < count; ++n) kept[at(order[at(n)])] = z[at(order[at(n)])];
      if (count > 0) result.threshold[at(i)] = static_cast<float>(std::exp(z[at(order[at(count - 1)])] - logSumExp(z)));
      finishRow(head, rows[at(i)], kept, i, result);
    });
    return result;
  }

  RowStats rowStats(const PreparedHead& prepared, std::span<const Index> rows, double mass,
                    const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkMass(mass);
    RowStats stats;
    stats.lse.assign(rows.size(), kNan);
    stats.entropyBits.assign(rows.size(), kNan);
    stats.top1.assign(rows.size(), kNan);
    stats.keysForMass.assign(rows.size(), 0);
    forRows(static_cast<Index>(rows.size()), control, [&](Index i) {
      if (detail::isPaddingRow(head.input(), rows[at(i)])) return;
      const std::vector<double> z = head.logits(rows[at(i)]);
      const double lse = logSumExp(z);
      stats.lse[at(i)] = static_cast<float>(lse);
      const std::vector<Index> order = keysByLogit(z);
      if (order.empty()) return;
      const double top = z[at(order.front())];
      double entropy = 0;
      double total = 0;
      for (const Index key : order) {
        const double logP = z[at(key)] - lse;
        entropy -= std::exp(logP) * logP;
        total += std::exp(z[at(key)] - top);
      }
      stats.entropyBits[at(i)] = static_cast<float>(entropy / std::log(2.0));
      stats.top1[at(i)] = static_cast<float>(std::exp(top - lse));
      double reached = 0;
      Index count = 0;
      while (reached < mass * total && count < static_cast<Index>(order.size())) {
        reached += std::exp(z[at(order[at(count)])] - top);
        ++count;
      }
      stats.keysForMass[at(i)] = count;
    });
    return stats;
  }

  GlobalTop globalTop(const PreparedHead& prepared, std::span<const Index> rows, Index total,
                      const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkRows(head.input(), rows);
    detail::checkTotal(total);
    struct Pair {
      double logP;
      Index listed, key;
    };
    std::vector<Pair> pairs;
    for (Index i = 0; i < static_cast<Index>(rows.size()); ++i) {
      control.checkpoint();
      const std::vector<double> z = head.logits(rows[at(i)]);
      // Relative to the largest logit first, so that rows of equal distributions tie exactly.
      const double top = largest(z);
      const double logSum = logSumExp(z, top);
      for (Index key = 0; key < head.input().k.rows; ++key) {
        if (z[at(key)] > -kInf) pairs.push_back({z[at(key)] - top - logSum, i, key});
      }
    }
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
      if (a.logP != b.logP) return a.logP > b.logP;
      return a.listed != b.listed ? a.listed < b.listed : a.key < b.key;
    });
    GlobalTop top;
    top.threshold = std::numeric_limits<float>::infinity();
    top.count.assign(rows.size(), 0);
    pairs.resize(std::min(pairs.size(), at(total)));
    for (const Pair& pair : pairs) ++top.count[at(pair.listed)];
    if (!pairs.empty()) top.threshold = static_cast<float>(std::exp(pairs.back().logP));
    return top;
  }
  ClusterResult cluster(const PreparedHead& prepared, const ClusterRequest& request, const Control& control) override {
    const ReferenceHead& head = cast(prepared);
    detail::checkCluster(head.input(), request);
    const Index dim = head.input().q.cols;
    const Index clusters = static_cast<Index>(request.centroids.size()) / dim;
    const std::vector<double>& tokens = request.side == Side::Query ? head.q : head.k;
    const auto point = [&](Index i) { return std::span(tokens).subspan(at((request.first + i) * dim), at(dim)); };
    const auto centroid = [&](Index c) { return request.centroids.subspan(at(c * dim), at(dim)); };
    // What is compared: the vector itself, or its scores against the basis; for cosines at unit length.
    const auto described = [&](const auto& x) {
      std::vector<double> out(x.begin(), x.end());
      if (!request.basis.empty()) {
        out.assign(request.basis.size() / at(dim), 0.0);
        for (std::size_t m = 0; m < out.size(); ++m) {
          for (Index i = 0; i < dim; ++i) {
            out[m] += static_cast<double>(x[at(i)]) * static_cast<double>(request.basis[m * at(dim) + at(i)]);
          }
        }
      }
      if (request.distance != Distance::Cosine) return out;
      double square = 1e-8;
      for (const double value : out) square += value * value;
      for (double& value : out) value /= std::sqrt(square);
      return out;
    };
    std::vector<std::vector<double>> centres;
    for (Index c = 0; c < clusters; ++c) centres.push_back(described(centroid(c)));

    ClusterResult result;
    result.labels.assign(at(request.count), 0);
    result.nearest.assign(at(request.count), 0.0F);
    forRows(request.count, control, [&](Index i) {
      const std::vector<double> x = described(point(i));
      double best = 0;
      for (Index c = 0; c < clusters; ++c) {
        double value = 0;
        for (std::size_t n = 0; n < x.size(); ++n) {
          const double y = centres[at(c)][n];
          value += request.distance == Distance::Euclid ? (x[n] - y) * (x[n] - y) : x[n] * y;
        }
        if (c > 0 && (request.distance == Distance::Euclid ? value >= best : value <= best)) continue;
        best = value;
        result.labels[at(i)] = static_cast<std::int32_t>(c);
      }
      result.nearest[at(i)] = static_cast<float>(best);
    });

    result.sizes.assign(at(clusters), 0);
    std::vector<double> sums(at(clusters * dim), 0.0);
    for (Index i = 0; i < request.count; ++i) {
      const Index c = result.labels[at(i)];
      ++result.sizes[at(c)];
      for (Index d = 0; d < dim; ++d) sums[at(c * dim + d)] += point(i)[at(d)];
    }
    result.means.assign(request.centroids.begin(), request.centroids.end());
    for (Index c = 0; c < clusters; ++c) {
      if (result.sizes[at(c)] == 0) continue;
      for (Index d = 0; d < dim; ++d) {
        result.means[at(c * dim + d)] =
            static_cast<float>(sums[at(c * dim + d)] / static_cast<double>(result.sizes[at(c)]));
      }
    }
    return result;
  }

 private:
  static const ReferenceHead& cast(const PreparedHead& head) {
    const auto* const mine = dynamic_cast<const ReferenceHead*>(&head);
    if (mine == nullptr) throw Error(ErrorCode::InvalidArgument, "the head was prepared by another backend");
    return *mine;
  }

  /// Rows are independent of each other, so they may run on all cores without changing a bit.
  template <class Body>
  void forRows(Index count, const Control& control, const Body& body) const {
    m_executor.parallelFor(count, 1, control, [&](Index first, Index last) {
      for (Index i = first; i < last; ++i) body(i);
    });
  }

  /// Keys with a logit, most probable first, ties by ascending key.
  static std::vector<Index> keysByLogit(const std::vector<double>& z) {
    std::vector<Index> order;
    for (Index key = 0; key < static_cast<Index>(z.size()); ++key) {
      if (z[at(key)] > -kInf) order.push_back(key);
    }
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return z[at(a)] > z[at(b)]; });
    return order;
  }

  template <class LseOf>
  static std::vector<Cell> poolRows(const ReferenceHead& head, Index rowFirst, Index rowLast,
                                    std::span<const Index> colBounds, const LseOf& lseOf, const Control& control) {
    std::vector<Cell> cells(colBounds.size() - 1);
    for (Index row = rowFirst; row < rowLast; ++row) {
      control.checkpoint();
      const std::vector<double> z = head.logits(row);
      const double lse = lseOf(z, row);
      for (std::size_t c = 0; c + 1 < colBounds.size(); ++c) {
        for (Index key = colBounds[c]; key < colBounds[c + 1]; ++key) {
          if (head.valid(row, key)) cells[c].add(std::exp(z[at(key)] - lse));
        }
      }
    }
    return cells;
  }

  static AttendResult makeResult(const ReferenceHead& head, std::span<const Index> rows) {
    AttendResult result;
    if (!head.v.empty()) result.out.assign(rows.size() * at(head.input().v.cols), 0.0F);
    result.lse.assign(rows.size(), kNan);
    result.count.assign(rows.size(), 0);
    return result;
  }

  /// Softmax over the finite logits and the weighted sum of values.
  static void finishRow(const ReferenceHead& head, Index row, const std::vector<double>& z, Index i,
                        AttendResult& result) {
    if (detail::isPaddingRow(head.input(), row)) return;
    const double lse = logSumExp(z);
    result.lse[at(i)] = static_cast<float>(lse);
    const Index dv = head.v.empty() ? 0 : head.input().v.cols;
    std::vector<double> out(at(dv), 0.0);
    for (Index key = 0; key < static_cast<Index>(z.size()); ++key) {
      if (z[at(key)] == -kInf) continue;
      ++result.count[at(i)];
      const double p = std::exp(z[at(key)] - lse);
      for (Index c = 0; c < dv; ++c) out[at(c)] += p * head.v[at(key * dv + c)];
    }
    for (Index c = 0; c < dv; ++c) result.out[at(i * dv + c)] = static_cast<float>(out[at(c)]);
  }

  Executor m_executor;
};

}  // namespace

std::unique_ptr<Backend> createReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace sparsight
