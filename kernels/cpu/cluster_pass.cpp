// SPDX-License-Identifier: Apache-2.0
#include "cpu/cluster_pass.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "convert.h"
#include "cpu/lazy_softmax.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileCentroids = 64;
constexpr Index kPanelsPerPiece = 8;
constexpr float kNormFloor = 1e-8F;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

using Lanes = std::array<float, kMaxLanes>;

/// Memory of one piece of work. Points stand side by side in lanes, as queries do in a score panel.
struct Work {
  Work(Index dim, Index profile, Index lanes)
      : points(dim * lanes), profiles(profile * lanes), tile(kTileCentroids * lanes), row(at(dim)) {}
  AlignedFloats points;    // [dim, lanes]
  AlignedFloats profiles;  // [M, lanes]
  AlignedFloats tile;      // [kTileCentroids, lanes]
  std::vector<float> row;
};

void squares(const float* panel, Index depth, Index lanes, Lanes& out) {
  out.fill(0.0F);
  for (Index i = 0; i < depth; ++i) {
    for (Index lane = 0; lane < lanes; ++lane) out[at(lane)] += panel[i * lanes + lane] * panel[i * lanes + lane];
  }
}

void toUnitLength(float* panel, Index depth, Index lanes) {
  alignas(kAlignment) Lanes factor{};
  squares(panel, depth, lanes, factor);
  for (float& value : factor) value = 1.0F / std::sqrt(value + kNormFloor);
  for (Index i = 0; i < depth; ++i) {
    for (Index lane = 0; lane < lanes; ++lane) panel[i * lanes + lane] *= factor[at(lane)];
  }
}

/// Rows as they are compared: centroids, or their profiles, at unit length for cosines.
struct Centres {
  const float* rows = nullptr;
  Index depth = 0;
  std::vector<float> own;
  std::vector<float> squares;  // [K], Euclid only
};

Centres describe(const ClusterRequest& request, Index dim, Index clusters, const Control& control) {
  Centres centres;
  centres.rows = request.centroids.data();
  centres.depth = dim;
  if (request.distance == Distance::Euclid) {
    for (Index c = 0; c < clusters; ++c) {
      float sum = 0;
      for (Index i = 0; i < dim; ++i) sum += centres.rows[c * dim + i] * centres.rows[c * dim + i];
      centres.squares.push_back(sum);
    }
    return centres;
  }
  if (request.distance == Distance::Dot) return centres;
  const Index profile = static_cast<Index>(request.basis.size()) / dim;
  if (profile > 0) centres.depth = profile;
  centres.own.assign(at(clusters * centres.depth), 0.0F);
  for (Index c = 0; c < clusters; ++c) {
    control.checkpoint();
    float* const out = centres.own.data() + c * centres.depth;
    const float* const in = centres.rows + c * dim;
    if (profile == 0) std::copy_n(in, dim, out);
    for (Index m = 0; m < profile; ++m) {
      for (Index i = 0; i < dim; ++i) out[m] += in[i] * request.basis[at(m * dim + i)];
    }
    float square = kNormFloor;
    for (Index i = 0; i < centres.depth; ++i) square += out[i] * out[i];
    const float factor = 1.0F / std::sqrt(square);
    for (Index i = 0; i < centres.depth; ++i) out[i] *= factor;
  }
  centres.rows = centres.own.data();
  return centres;
}

/// The tile's centroids against what each lane has so far. `first` is the number of the tile's first centroid.
void nearestEuclid(const float* scores, Index count, Index lanes, const float* centreSquares, const Lanes& pointSquares,
                   Index first, Lanes& best, std::array<std::int32_t, kMaxLanes>& label) {
  for (Index n = 0; n < count; ++n) {
    const auto number = static_cast<std::int32_t>(first + n);
    for (Index lane = 0; lane < lanes; ++lane) {
      const float distance =
          std::max(0.0F, pointSquares[at(lane)] + centreSquares[n] - 2.0F * scores[n * lanes + lane]);
      const bool nearer = distance < best[at(lane)];
      best[at(lane)] = nearer ? distance : best[at(lane)];
      label[at(lane)] = nearer ? number : label[at(lane)];
    }
  }
}

void nearestSimilar(const float* scores, Index count, Index lanes, Index first, Lanes& best,
                    std::array<std::int32_t, kMaxLanes>& label) {
  for (Index n = 0; n < count; ++n) {
    const auto number = static_cast<std::int32_t>(first + n);
    for (Index lane = 0; lane < lanes; ++lane) {
      const float similarity = scores[n * lanes + lane];
      const bool nearer = similarity > best[at(lane)];
      best[at(lane)] = nearer ? similarity : best[at(lane)];
      label[at(lane)] = nearer ? number : label[at(lane)];
    }
  }
}

}  // namespace

ClusterResult clusterPoints(const CpuHead& head, const ClusterRequest& request, const Executor& executor,
                            const Control& control) {
  const MatrixView& tokens = request.side == Side::Query ? head.input().q : head.input().k;
  const SimdKernels& simd = head.simd();
  const Index lanes = simd.lanes;
  const Index dim = tokens.cols;
  const Index clusters = static_cast<Index>(request.centroids.size()) / dim;
  const Index profile = static_cast<Index>(request.basis.size()) / dim;
  const Centres centres = describe(request, dim, clusters, control);
  const bool euclid = request.distance == Distance::Euclid;

  ClusterResult result;
  result.labels.assign(at(request.count), 0);
  result.nearest.assign(at(request.count), 0.0F);
  ScratchPool<Work> pool([&] { return std::make_unique<Work>(dim, profile, lanes); });
  LoopProgress progress(control, request.count, 0, 0.9);
  executor.parallelFor(request.count, kPanelsPerPiece * lanes, control, [&](Index first, Index last) {
    const auto lease = pool.take();
    Work& work = *lease;
    for (Index start = first; start < last; start += lanes) {
      control.checkpoint();
      const Index used = std::min(lanes, last - start);
      float* panel = work.points.get();
      std::fill_n(panel, dim * lanes, 0.0F);
      for (Index lane = 0; lane < used; ++lane) {
        detail::convertRow(tokens, request.first + start + lane, work.row.data());
        for (Index i = 0; i < dim; ++i) panel[i * lanes + lane] = work.row[at(i)];
      }
      if (profile > 0) {
        simd.scores(panel, request.basis.data(), dim, profile, dim, work.profiles.get());
        panel = work.profiles.get();
      }
      if (request.distance == Distance::Cosine) toUnitLength(panel, centres.depth, lanes);
      alignas(kAlignment) Lanes pointSquares{};
      alignas(kAlignment) Lanes best{};
      std::array<std::int32_t, kMaxLanes> label{};
      best.fill(euclid ? std::numeric_limits<float>::infinity() : kMinusInfinity);
      if (euclid) squares(panel, dim, lanes, pointSquares);
      for (Index c = 0; c < clusters; c += kTileCentroids) {
        const Index count = std::min(kTileCentroids, clusters - c);
        simd.scores(panel, centres.rows + c * centres.depth, centres.depth, count, centres.depth, work.tile.get());
        if (euclid) {
          nearestEuclid(work.tile.get(), count, lanes, centres.squares.data() + c, pointSquares, c, best, label);
        } else {
          nearestSimilar(work.tile.get(), count, lanes, c, best, label);
        }
      }
      std::copy_n(label.begin(), used, result.labels.begin() + start);
      std::copy_n(best.begin(), used, result.nearest.begin() + start);
    }
    progress.add(last - first);
  });

  // Members side by side, ascending within a cluster: whoever sums them, the order is the same.
  result.sizes.assign(at(clusters), 0);
  for (const std::int32_t label : result.labels) ++result.sizes[at(label)];
  std::vector<Index> offset(at(clusters) + 1, 0);
  for (Index c = 0; c < clusters; ++c) offset[at(c + 1)] = offset[at(c)] + result.sizes[at(c)];
  std::vector<Index> members(result.labels.size());
  std::vector<Index> next(offset.begin(), offset.end() - 1);
  for (Index i = 0; i < request.count; ++i) members[at(next[at(result.labels[at(i)])]++)] = i;
  result.means.assign(request.centroids.begin(), request.centroids.end());
  executor.parallelFor(clusters, 4, control, [&](Index first, Index last) {
    std::vector<double> sum(at(dim));
    std::vector<float> row(at(dim));
    for (Index c = first; c < last; ++c) {
      if (result.sizes[at(c)] == 0) continue;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (Index n = offset[at(c)]; n < offset[at(c + 1)]; ++n) {
        if (n % 4096 == 0) control.checkpoint();
        detail::convertRow(tokens, request.first + members[at(n)], row.data());
        for (Index i = 0; i < dim; ++i) sum[at(i)] += static_cast<double>(row[at(i)]);
      }
      const double factor = 1.0 / static_cast<double>(result.sizes[at(c)]);
      for (Index i = 0; i < dim; ++i) result.means[at(c * dim + i)] = static_cast<float>(sum[at(i)] * factor);
    }
  });
  control.report(1.0);
  return result;
}

}  // namespace sparsight::cpu
