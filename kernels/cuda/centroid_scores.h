// SPDX-License-Identifier: Apache-2.0
#pragma once

// Probabilities of key clusters for query clusters and their order, in double and with the CPU's bits: products of two
// floats are exact, every sum has one order, and the exponential is the same code.

#include "cluster_scores.h"
#include "cuda/block.h"
#include "exact_exp.h"

namespace sparsight::cuda {

struct CentroidScoresParams {
  const float* queries;         ///< [rowCount, dim] centroids
  const float* keys;            ///< [keyCount, dim] centroids
  const std::int64_t* weights;  ///< [keyCount]; null: 1 each
  std::int32_t rowCount, keyCount, dim;
  double scale, topP;
  double* probabilities;   ///< [rowCount, keyCount]
  std::int32_t* order;     ///< [rowCount, keyCount]
  std::int32_t* crossing;  ///< [rowCount]
};

/// Query clusters and key clusters of a block of dot products: each thread has two of either.
inline constexpr int kCentroidTile = 32;
inline constexpr int kCentroidSide = kCentroidTile / 2;
/// Dimensions that lie in shared memory at a time.
inline constexpr int kCentroidDepth = 32;
struct CentroidDotsShared {
  // One more than is used: the 16 threads of a row then read from 16 different pairs of banks.
  double query[kCentroidTile][kCentroidDepth + 1];
  double key[kCentroidTile][kCentroidDepth + 1];
};
struct CentroidDotsState {
  double sum[2][2];
};

/// Block x, y: a tile of query clusters, of key clusters. Leaves scale * dot product in probabilities.
template <class Block>
SPARSIGHT_DEVICE void centroidDotsBody(Block& block, CentroidDotsShared& shared, const CentroidScoresParams& p) {
  const std::int64_t row0 = static_cast<std::int64_t>(block.x()) * kCentroidTile;
  const std::int64_t key0 = static_cast<std::int64_t>(block.y()) * kCentroidTile;
  block.each([&](int, auto& s) {
    SPARSIGHT_UNROLL
    for (int n = 0; n < 4; ++n) s.sum[n / 2][n % 2] = 0;
  });
  for (std::int32_t first = 0; first < p.dim; first += kCentroidDepth) {
    const int depth = minOf(kCentroidDepth, p.dim - first);
    block.each([&](int t, auto&) {
      const int d = t % kCentroidDepth;
      SPARSIGHT_UNROLL
      for (int n = 0; n < kCentroidTile * kCentroidDepth / kThreads; ++n) {
        const int i = t / kCentroidDepth + n * (kThreads / kCentroidDepth);
        const bool inside = d < depth;
        shared.query[i][d] =
            inside && row0 + i < p.rowCount ? static_cast<double>(p.queries[(row0 + i) * p.dim + first + d]) : 0.0;
        shared.key[i][d] =
            inside && key0 + i < p.keyCount ? static_cast<double>(p.keys[(key0 + i) * p.dim + first + d]) : 0.0;
      }
    });
    block.sync();
    block.each([&](int t, auto& s) {
      const int row = t / kCentroidSide;
      const int key = t % kCentroidSide;
      for (int d = 0; d < depth; ++d) {
        SPARSIGHT_UNROLL
        for (int n = 0; n < 4; ++n) {
          // Fused or not: the product is exact.
          s.sum[n / 2][n % 2] +=
              shared.query[row + n / 2 * kCentroidSide][d] * shared.key[key + n % 2 * kCentroidSide][d];
        }
      }
    });
    block.sync();
  }
  block.each([&](int t, auto& s) {
    SPARSIGHT_UNROLL
    for (int n = 0; n < 4; ++n) {
      const std::int64_t row = row0 + t / kCentroidSide + n / 2 * kCentroidSide;
      const std::int64_t key = key0 + t % kCentroidSide + n % 2 * kCentroidSide;
      if (row < p.rowCount && key < p.keyCount) {
        p.probabilities[row * p.keyCount + key] = exact::mul(s.sum[n / 2][n % 2], p.scale);
      }
    }
  });
}

/// Key clusters that a block looks at between two barriers.
inline constexpr int kCentroidStep = 4 * kThreads;
struct CentroidRowShared {
  double most[kThreads / kLanes];
  double value[kCentroidStep];
  double sum;
};
struct CentroidRowState {
  struct Largest {
    double value;
#ifdef __CUDACC__
    __device__ __forceinline__ Largest shuffleDown(unsigned lanes) const {
      return {__shfl_down_sync(0xFFFFFFFFU, value, lanes)};
    }
#endif
  };
  Largest top;
  double sum;  ///< thread 0 only
};

/// Block x: one query cluster. Turns its scores into probabilities. One thread adds them, in the order of the clusters.
template <class Block>
SPARSIGHT_DEVICE void centroidSoftmaxBody(Block& block, CentroidRowShared& shared, const CentroidScoresParams& p) {
  double* const row = p.probabilities + static_cast<std::int64_t>(block.x()) * p.keyCount;
  block.each([&](int t, auto& s) {
    s.sum = 0;
    s.top.value = -HUGE_VAL;
    for (std::int32_t j = t; j < p.keyCount; j += kThreads) s.top.value = row[j] > s.top.value ? row[j] : s.top.value;
  });
  using Largest = CentroidRowState::Largest;
  block.mergeLanes([](auto& s) -> Largest& { return s.top; },
                   [](const Largest& a, const Largest& b) { return b.value > a.value ? b : a; });
  block.each([&](int t, auto& s) {
    if (t % kLanes == 0) shared.most[t / kLanes] = s.top.value;
  });
  block.sync();
  block.each([&](int, auto& s) {
    s.top.value = shared.most[0];
    for (int i = 1; i < kThreads / kLanes; ++i)
      s.top.value = shared.most[i] > s.top.value ? shared.most[i] : s.top.value;
  });
  for (std::int32_t first = 0; first < p.keyCount; first += kCentroidStep) {
    const int count = minOf(kCentroidStep, p.keyCount - first);
    block.each([&](int t, auto& s) {
      for (int i = t; i < count; i += kThreads) {
        double value = exact::exp(exact::sub(row[first + i], s.top.value));
        if (p.weights != nullptr) value = exact::mul(static_cast<double>(p.weights[first + i]), value);
        row[first + i] = value;
        shared.value[i] = value;
      }
    });
    block.sync();
    block.each([&](int t, auto& s) {
      if (t != 0) return;
      SPARSIGHT_UNROLL_BY_8
      for (int i = 0; i < count; ++i) s.sum = exact::add(s.sum, shared.value[i]);
    });
    block.sync();
  }
  block.each([&](int t, auto& s) {
    if (t == 0) shared.sum = s.sum < detail::kLeastClusterSum ? detail::kLeastClusterSum : s.sum;
  });
  block.sync();
  block.each([&](int t, auto&) {
    for (std::int32_t j = t; j < p.keyCount; j += kThreads) row[j] = exact::div(row[j], shared.sum);
  });
}

struct CentroidOrderShared {
  std::uint64_t rank[kCentroidStep];
  double value[kCentroidStep];
};
struct CentroidOrderState {
  std::uint64_t rank[4];   ///< of four key clusters
  std::int32_t before[4];  ///< how many stand before each
  double mass;             ///< thread 0 only: of the clusters so far
  std::int32_t crossing;
};

/// Block x: one query cluster. A key cluster's place is the number of those before it, which are counted.
template <class Block>
SPARSIGHT_DEVICE void centroidOrderBody(Block& block, CentroidOrderShared& shared, const CentroidScoresParams& p) {
  const double* const row = p.probabilities + static_cast<std::int64_t>(block.x()) * p.keyCount;
  std::int32_t* const order = p.order + static_cast<std::int64_t>(block.x()) * p.keyCount;
  for (std::int32_t own = 0; own < p.keyCount; own += kCentroidStep) {
    block.each([&](int t, auto& s) {
      SPARSIGHT_UNROLL
      for (int n = 0; n < 4; ++n) {
        const std::int32_t i = own + t + n * kThreads;
        s.rank[n] = i < p.keyCount ? exact::rankOf(row[i]) : 0;
        s.before[n] = 0;
      }
    });
    for (std::int32_t first = 0; first < p.keyCount; first += kCentroidStep) {
      const int count = minOf(kCentroidStep, p.keyCount - first);
      block.each([&](int t, auto&) {
        for (int i = t; i < count; i += kThreads) shared.rank[i] = exact::rankOf(row[first + i]);
      });
      block.sync();
      block.each([&](int t, auto& s) {
        SPARSIGHT_UNROLL_BY_8
        for (int i = 0; i < count; ++i) {
          const std::uint64_t other = shared.rank[i];
          SPARSIGHT_UNROLL
          for (int n = 0; n < 4; ++n) {
            // Among equals the lower number comes first.
            const std::uint64_t tie = first + i < own + t + n * kThreads ? 1 : 0;
            s.before[n] += other < s.rank[n] + tie ? 1 : 0;
          }
        }
      });
      block.sync();
    }
    block.each([&](int t, auto& s) {
      SPARSIGHT_UNROLL
      for (int n = 0; n < 4; ++n) {
        const std::int32_t i = own + t + n * kThreads;
        if (i < p.keyCount) order[s.before[n]] = i;
      }
    });
  }
  block.sync();
  block.each([&](int, auto& s) {
    s.mass = 0;
    s.crossing = 0;
  });
  for (std::int32_t first = 0; first < p.keyCount; first += kCentroidStep) {
    const int count = minOf(kCentroidStep, p.keyCount - first);
    block.each([&](int t, auto&) {
      for (int i = t; i < count; i += kThreads) shared.value[i] = row[order[first + i]];
    });
    block.sync();
    block.each([&](int t, auto& s) {
      if (t != 0) return;
      for (int i = 0; i < count; ++i) {
        // The first is always taken, and the one that crosses is the last.
        if (s.crossing != first + i || (s.crossing > 0 && !(s.mass <= p.topP))) break;
        s.mass = s.crossing == 0 ? shared.value[i] : exact::add(s.mass, shared.value[i]);
        ++s.crossing;
      }
    });
    block.sync();
  }
  block.each([&](int t, auto& s) {
    if (t == 0) p.crossing[block.x()] = s.crossing;
  });
}

}  // namespace sparsight::cuda
