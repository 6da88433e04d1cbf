// SPDX-License-Identifier: Apache-2.0
#include "cpu/cluster_pass.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "convert.h"
#include "cpu/lazy_softmax.h"

namespace sparsight::cpu {
namespace {

constexpr Index kTileCentroids = 96;  // a multiple of every key unroll
constexpr Index kPrefetchMembers = 8;
constexpr Index kPanelsPerPiece = 8;
constexpr float kNormFloor = 1e-8F;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

using Lanes = std::array<float, kMaxLanes>;

/// Memory of one piece of work. Points stand side by side in lanes, as queries do in a score panel.
struct Work {
  Work(const CpuHead& head, Index profile, Index lanes)
      : points(head.panelFloats()), profiles(profile * lanes), tile(kTileCentroids * lanes), row(at(head.dim())) {}
  AlignedFloats points;    // as CpuHead::packPoints gives them
  AlignedFloats profiles;  // [M, lanes]
  AlignedFloats tile;      // [kTileCentroids, lanes]
  std::vector<float> row;
  std::vector<Index> rows;
};

void squares(const float* panel, Index depth, Index lanes, Lanes& out) {
  out.fill(0.0F);
  for (Index i = 0; i < depth; ++i) {
    for (Index lane = 0; lane < lanes; ++lane) out[at(lane)] += panel[i * lanes + lane] * panel[i * lanes + lane];
  }
}

/// The same of bfloat16 pairs; the squares are summed in the same order.
void pairSquares(const float* panel, Index depth, Index lanes, Lanes& out) {
  out.fill(0.0F);
  const auto* const pairs = reinterpret_cast<const std::uint32_t*>(panel);
  for (Index i = 0; i < (depth + 1) / 2; ++i) {
    for (Index lane = 0; lane < lanes; ++lane) {
      const std::uint32_t pair = pairs[i * lanes + lane];
      const auto first = std::bit_cast<float>(pair << 16U);
      const auto second = std::bit_cast<float>(pair & 0xffff0000U);
      out[at(lane)] += first * first;
      out[at(lane)] += second * second;
    }
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
  std::vector<float> squares;          // [K], Euclid only
  std::vector<std::uint16_t> bfloats;  // [K, even dim] where every centroid is a bfloat16 number and may be used so
};

/// Centroids that were rounded to bfloat16 meet bfloat16 points in dot products of that type, at twice the rate and
/// with the same exact products.
void tryBfloats(Centres& centres, Index clusters, const Control& control) {
  const Index even = centres.depth + centres.depth % 2;
  std::vector<std::uint16_t> out(at(clusters * even), 0);
  for (Index c = 0; c < clusters; ++c) {
    if (c % 256 == 0) control.checkpoint();
    for (Index i = 0; i < centres.depth; ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(centres.rows[c * centres.depth + i]);
      if ((bits & 0xffffU) != 0) return;
      out[at(c * even + i)] = static_cast<std::uint16_t>(bits >> 16U);
    }
  }
  centres.bfloats = std::move(out);
}

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

}  // namespace

ClusterResult clusterPoints(const CpuHead& head, const ClusterRequest& request, const Executor& executor,
                            const Control& control) {
  const MatrixView& tokens = request.side == Side::Query ? head.input().q : head.input().k;
  const SimdKernels& simd = head.simd();
  const Index lanes = simd.lanes;
  const Index dim = tokens.cols;
  const Index clusters = static_cast<Index>(request.centroids.size()) / dim;
  const Index profile = static_cast<Index>(request.basis.size()) / dim;
  Centres centres = describe(request, dim, clusters, control);
  const bool euclid = request.distance == Distance::Euclid;
  // Cosines scale the points, which are then no bfloat16 numbers any more.
  if (simd.scoresBf16 != nullptr && tokens.dtype == DType::BF16 && request.distance != Distance::Cosine) {
    tryBfloats(centres, clusters, control);
  }
  const bool pairs = !centres.bfloats.empty();

  ClusterResult result;
  result.labels.assign(at(request.count), 0);
  result.nearest.assign(at(request.count), 0.0F);
  ScratchPool<Work> pool([&] { return std::make_unique<Work>(head, profile, lanes); });
  LoopProgress progress(control, request.count, 0, 0.9);
  executor.parallelFor(request.count, kPanelsPerPiece * lanes, control, [&](Index first, Index last) {
    const auto lease = pool.take();
    Work& work = *lease;
    for (Index start = first; start < last; start += lanes) {
      control.checkpoint();
      const Index used = std::min(lanes, last - start);
      float* panel = work.points.get();
      work.rows.resize(at(used));
      std::iota(work.rows.begin(), work.rows.end(), request.first + start);
      head.packPoints(tokens, work.rows, pairs, panel, work.row.data());
      alignas(kAlignment) Lanes unused{};
      if (profile > 0) {
        simd.scores(panel, request.basis.data(), dim, profile, dim, work.profiles.get(), unused.data());
        panel = work.profiles.get();
      }
      if (request.distance == Distance::Cosine) toUnitLength(panel, centres.depth, lanes);
      alignas(kAlignment) Lanes pointSquares{};
      alignas(kAlignment) Lanes best{};
      alignas(kAlignment) std::array<std::int32_t, kMaxLanes> label{};
      best.fill(euclid ? std::numeric_limits<float>::infinity() : kMinusInfinity);
      if (euclid && pairs) pairSquares(panel, dim, lanes, pointSquares);
      if (euclid && !pairs) squares(panel, dim, lanes, pointSquares);
      for (Index c = 0; c < clusters; c += kTileCentroids) {
        const Index count = std::min(kTileCentroids, clusters - c);
        if (pairs) {
          const Index even = dim + dim % 2;
          simd.scoresBf16(reinterpret_cast<const std::uint16_t*>(panel), centres.bfloats.data() + c * even, even, count,
                          even, work.tile.get(), unused.data());
        } else {
          simd.scores(panel, centres.rows + c * centres.depth, centres.depth, count, centres.depth, work.tile.get(),
                      unused.data());
        }
        const auto number = static_cast<std::int32_t>(c);
        if (euclid) {
          simd.nearest(work.tile.get(), count, pointSquares.data(), centres.squares.data() + c, number, best.data(),
                       label.data());
        } else {
          simd.mostSimilar(work.tile.get(), count, number, best.data(), label.data());
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
    const Index rowBytes = dim * (tokens.dtype == DType::F32 ? Index{4} : Index{2});
    std::vector<double> sum(at(dim));
    std::vector<float> row(at(dim));
    for (Index c = first; c < last; ++c) {
      if (result.sizes[at(c)] == 0) continue;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (Index n = offset[at(c)]; n < offset[at(c + 1)]; ++n) {
        if (n % 4096 == 0) control.checkpoint();
        // Members lie anywhere: ask for the ones to come.
        const Index ahead = std::min(n + kPrefetchMembers, request.count - 1);
        const std::byte* const coming = tokens.row(request.first + members[at(ahead)]);
        for (Index b = 0; b < rowBytes; b += static_cast<Index>(kAlignment)) __builtin_prefetch(coming + b);
        head.widenRow(tokens, request.first + members[at(n)], row.data());
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
