// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whole rows of scores in device memory, a panel at a time, and what is selected from them: row statistics, the cut
// that keeps a row's largest scores, and the cut over all rows. Selection is by radix refinement with exact counts; no
// row is ever sorted. Sums of weights are fixed-point integers relative to the row's largest score: exact to
// 2^-(kFixedBits + 1) per weight and independent of the order of additions, so atomics change no bit.

#include "cuda/pooled_map.h"

namespace sparsight::cuda {

struct ScoreRowsParams {
  Operands in;
  Validity validity;         ///< mask rows are positions in this launch's list
  const std::int32_t* rows;  ///< [rowCount] query rows; null: row0 + i
  std::int32_t row0;
  std::int32_t rowCount;
  std::int32_t keyCount;
  std::int32_t keysPerBlock;  ///< of block y, a multiple of kTileKeys
  float sign;
  float* scores;        ///< [rowCount, stride] sign * q.k; -inf: not valid
  std::int64_t stride;  ///< at least keyCount
};

template <class Tile>
struct ScoreRowsState {
  typename Tile::State tile;
};

/// Block x: 64 rows of the list; keyBlock: which keysPerBlock keys. Columns from keyCount to the next multiple of
/// kDepth become zeros where the stride has room for them.
template <class Tile, class Block>
SPARSIGHT_DEVICE void scoreRowsBody(Block& block, typename Tile::Shared& shared, const ScoreRowsParams& p,
                                    std::int32_t keyBlock) {
  const std::int32_t listBase = block.x() * kTileRows;
  const int rowCount = minOf(kTileRows, p.rowCount - listBase);
  const std::int32_t keyBegin = keyBlock * p.keysPerBlock;
  const std::int32_t keyEnd = minOf(keyBegin + p.keysPerBlock, p.keyCount);
  for (std::int32_t key0 = keyBegin; key0 < keyEnd; key0 += kTileKeys) {
    Tile::run(
        block, shared, p.in, [&](int i) { return p.rows != nullptr ? p.rows[listBase + i] : p.row0 + listBase + i; },
        rowCount, key0, keyEnd);
    block.each([&](int t, auto&) {
      // 64 neighbouring keys of a row at a time.
      const std::int32_t key = key0 + t % kTileKeys;
      for (int row = t / kTileKeys; row < rowCount; row += kThreads / kTileKeys) {
        if (key >= p.stride) continue;
        float score = 0.0F;
        if (key < p.keyCount) {
          score = p.validity.allows(listBase + row, key)
                      ? p.sign * shared.score[row * kScoreStride + t % kTileKeys] + 0.0F
                      : negativeInfinity();
        }
        p.scores[static_cast<std::int64_t>(listBase + row) * p.stride + key] = score;
      }
    });
    block.sync();  // formal: the next tile has one before it writes
  }
}

// --- Selection: one block per row
// --------------------------------------------------------------------------------------

/// Unsigned integers in the order of the floats (-0 equals +0).
SPARSIGHT_DEVICE std::uint32_t orderedBits(float x) {
  const std::uint32_t bits = bitsOf(x + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
SPARSIGHT_DEVICE float fromOrderedBits(std::uint32_t ordered) {
  return floatOf((ordered & 0x80000000U) != 0 ? ordered & 0x7FFFFFFFU : ~ordered);
}

/// The digits of a radix refinement, most significant first: 11, 11 and 10 bits.
inline constexpr int kLevels = 3;
inline constexpr int kBuckets = 2048;
SPARSIGHT_DEVICE constexpr int levelShift(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
SPARSIGHT_DEVICE constexpr std::uint32_t levelMask(int level) { return level == 2 ? 1023U : 2047U; }
SPARSIGHT_DEVICE std::uint32_t bucketOf(std::uint32_t bits, int level) {
  return (bits >> levelShift(level)) & levelMask(level);
}
/// True when the digits above `level` are those of `prefix`.
SPARSIGHT_DEVICE bool inPrefix(std::uint32_t bits, std::uint32_t prefix, int level) {
  return level == 0 || ((bits ^ prefix) >> levelShift(level - 1)) == 0;
}

/// Fractional bits of a weight in (0, 1] such that `keyCount` of them fit into 62 bits, at most 45.
SPARSIGHT_DEVICE int fixedBitsFor(std::int32_t keyCount) {
  int bits = 45;
  while (bits > 31 && (static_cast<Counter>(keyCount) >> (61 - bits)) != 0) --bits;
  return bits;
}
SPARSIGHT_DEVICE Counter toFixed(float weight, float scale) {
  // A power of two: the product is exact, only the conversion rounds.
  return static_cast<Counter>(::llrintf(weight * scale));
}

struct RowPanel {
  const float* scores;  ///< [rowCount, stride]
  std::int64_t stride;
  std::int32_t keyCount;
  float exponentScale;  ///< |scale| log2(e)
  double absScale;      ///< |scale|

  [[nodiscard]] SPARSIGHT_DEVICE const float* row(std::int32_t i) const { return scores + i * stride; }
};

/// Shared memory of a block that selects in one row.
struct SelectShared {
  std::uint32_t count[kBuckets];
  Counter sum[kBuckets];  ///< weights of a bucket; only keys for a mass
  Counter scan[2][kThreads];
  float most[kThreads];
  std::uint32_t bucket;
  Counter left;   ///< counts: what is still to be kept inside the bucket
  Counter above;  ///< number in the buckets above
  Counter mass;   ///< sum of the weights above
};

struct SelectState {
  float max;
  Counter a, b;  ///< this thread's share, then the block's
};

/// Every thread gets the largest s.max of the block.
template <class Block>
SPARSIGHT_DEVICE void maxOfBlock(Block& block, SelectShared& shared) {
  constexpr int kGroup = 16;
  block.each([&](int t, auto& s) { shared.most[t] = s.max; });
  block.sync();
  block.each([&](int t, auto& s) {
    if (t >= kThreads / kGroup) return;
    float most = shared.most[t * kGroup];
    for (int i = 1; i < kGroup; ++i) most = maxOf(most, shared.most[t * kGroup + i]);
    s.max = most;
  });
  block.sync();  // formal: a maximum may be counted twice
  block.each([&](int t, auto& s) {
    if (t < kThreads / kGroup) shared.most[t] = s.max;
  });
  block.sync();
  block.each([&](int, auto& s) {
    float most = shared.most[0];
    for (int i = 1; i < kThreads / kGroup; ++i) most = maxOf(most, shared.most[i]);
    s.max = most;
  });
  block.sync();  // formal: nothing is shared here again before another one
}

/// Every thread gets the sums of s.a and s.b over the block.
template <class Block>
SPARSIGHT_DEVICE void sumOfBlock(Block& block, SelectShared& shared) {
  constexpr int kGroup = 16;
  block.each([&](int t, auto& s) {
    shared.scan[0][t] = s.a;
    shared.scan[1][t] = s.b;
  });
  block.sync();
  block.each([&](int t, auto& s) {
    if (t >= kThreads / kGroup) return;
    s.a = 0;
    s.b = 0;
    for (int i = 0; i < kGroup; ++i) {
      s.a += shared.scan[0][t * kGroup + i];
      s.b += shared.scan[1][t * kGroup + i];
    }
  });
  block.sync();
  block.each([&](int t, auto& s) {
    if (t >= kThreads / kGroup) return;
    shared.scan[0][t] = s.a;
    shared.scan[1][t] = s.b;
  });
  block.sync();
  block.each([&](int, auto& s) {
    s.a = 0;
    s.b = 0;
    for (int i = 0; i < kThreads / kGroup; ++i) {
      s.a += shared.scan[0][i];
      s.b += shared.scan[1][i];
    }
  });
  block.sync();
}

/// Running sums of shared.scan over the threads, own share included.
template <class Block, class Shared>
SPARSIGHT_DEVICE void scanOfBlock(Block& block, Shared& shared) {
  for (int step = 1; step < kThreads; step *= 2) {
    block.each([&](int t, auto& s) {
      s.a = shared.scan[0][t] + (t >= step ? shared.scan[0][t - step] : 0);
      s.b = shared.scan[1][t] + (t >= step ? shared.scan[1][t - step] : 0);
    });
    block.sync();
    block.each([&](int t, auto& s) {
      shared.scan[0][t] = s.a;
      shared.scan[1][t] = s.b;
    });
    block.sync();
  }
}

template <class Block>
SPARSIGHT_DEVICE void clearBuckets(Block& block, SelectShared& shared, bool withSums) {
  block.each([&](int t, auto&) {
    for (int b = t; b < kBuckets; b += kThreads) {
      shared.count[b] = 0;
      if (withSums) shared.sum[b] = 0;
    }
  });
  block.sync();
}

/// Buckets of thread t, from the largest down: kEach of them, the first is kBuckets - 1 - t kEach.
inline constexpr int kEach = kBuckets / kThreads;

/// Finds the bucket, from the top, in which the `left`-th member lies; needs shared.left in 1 .. members. Afterwards
/// shared.bucket is it, and shared.left the number to keep inside it.
template <class Block>
SPARSIGHT_DEVICE void findByCount(Block& block, SelectShared& shared) {
  block.each([&](int t, auto&) {
    Counter own = 0;
    for (int i = 0; i < kEach; ++i) own += shared.count[kBuckets - 1 - t * kEach - i];
    shared.scan[0][t] = own;
    shared.scan[1][t] = 0;
  });
  block.sync();
  scanOfBlock(block, shared);
  block.each([&](int t, auto& s) {
    s.a = shared.left;
    s.b = t > 0 ? shared.scan[0][t - 1] : 0;
  });
  block.sync();
  block.each([&](int t, auto& s) {
    if (!(s.b < s.a && s.a <= shared.scan[0][t])) return;
    Counter left = s.a - s.b;
    int bucket = kBuckets - 1 - t * kEach;
    while (shared.count[bucket] < left) left -= shared.count[bucket--];
    shared.bucket = static_cast<std::uint32_t>(bucket);
    shared.left = left;
  });
  block.sync();
}

/// The same by mass: the bucket in which the sum of weights reaches `target`. shared.mass and shared.above are what
/// lies above it, before and afterwards; needs mass < target <= mass + the sum of all buckets.
template <class Block>
SPARSIGHT_DEVICE void findByMass(Block& block, SelectShared& shared, double target) {
  block.each([&](int t, auto&) {
    Counter count = 0;
    Counter sum = 0;
    for (int i = 0; i < kEach; ++i) {
      count += shared.count[kBuckets - 1 - t * kEach - i];
      sum += shared.sum[kBuckets - 1 - t * kEach - i];
    }
    shared.scan[0][t] = count;
    shared.scan[1][t] = sum;
  });
  block.sync();
  scanOfBlock(block, shared);
  block.each([&](int t, auto& s) {
    s.a = shared.above + (t > 0 ? shared.scan[0][t - 1] : 0);
    s.b = shared.mass + (t > 0 ? shared.scan[1][t - 1] : 0);
    // What the group ends with, for the comparison after the barrier.
    s.max = static_cast<double>(shared.mass + shared.scan[1][t]) >= target ? 1.0F : 0.0F;
  });
  block.sync();
  block.each([&](int t, auto& s) {
    if (static_cast<double>(s.b) >= target || s.max == 0.0F) return;
    int bucket = kBuckets - 1 - t * kEach;
    while (static_cast<double>(s.b + shared.sum[bucket]) < target) {
      s.a += shared.count[bucket];
      s.b += shared.sum[bucket--];
    }
    shared.bucket = static_cast<std::uint32_t>(bucket);
    shared.above = s.a;
    shared.mass = s.b;
  });
  block.sync();
}

/// Largest score of the row in every thread's s.max.
template <class Block>
SPARSIGHT_DEVICE void maxOfRow(Block& block, SelectShared& shared, const float* scores, std::int32_t keyCount) {
  block.each([&](int t, auto& s) {
    s.max = negativeInfinity();
    for (std::int32_t key = t; key < keyCount; key += kThreads) s.max = maxOf(s.max, scores[key]);
  });
  maxOfBlock(block, shared);
}

/// Units of a weight of 1 in this panel's fixed-point sums.
SPARSIGHT_DEVICE float fixedScaleOf(const RowPanel& panel) {
  return floatOf(static_cast<std::uint32_t>(127 + fixedBitsFor(panel.keyCount)) << 23U);
}

/// In every thread: the row's largest score in s.max, the sum of its weights relative to that in s.a, and in s.b how
/// many keys are valid.
template <class Block>
SPARSIGHT_DEVICE void weighRow(Block& block, SelectShared& shared, const RowPanel& panel, const float* scores,
                               float scale) {
  maxOfRow(block, shared, scores, panel.keyCount);
  block.each([&](int t, auto& s) {
    s.a = 0;
    s.b = 0;
    for (std::int32_t key = t; key < panel.keyCount; key += kThreads) {
      if (!(scores[key] > negativeInfinity())) continue;
      s.a += toFixed(exp2Of((scores[key] - s.max) * panel.exponentScale), scale);
      ++s.b;
    }
  });
  sumOfBlock(block, shared);
}

// --- Row statistics
// ----------------------------------------------------------------------------------------------------

struct RowStatsParams {
  RowPanel panel;
  double mass;
  float* lse;  ///< [rowCount]
  float* entropyBits;
  float* top1;
  std::int64_t* keysForMass;
};

/// Block x: one row of the panel.
template <class Block>
SPARSIGHT_DEVICE void selectBody(Block& block, SelectShared& shared, const RowStatsParams& p) {
  const std::int32_t i = block.x();
  const float* const scores = p.panel.row(i);
  const float scale = fixedScaleOf(p.panel);
  maxOfRow(block, shared, scores, p.panel.keyCount);
  clearBuckets(block, shared, true);
  block.each([&](int t, auto& s) {
    s.a = 0;
    s.b = 0;
    if (t == 0) {
      shared.above = 0;
      shared.mass = 0;
    }
    for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
      if (!(scores[key] > negativeInfinity())) continue;
      const float exponent = (scores[key] - s.max) * p.panel.exponentScale;
      const float weight = exp2Of(exponent);
      const Counter fixed = toFixed(weight, scale);
      if (fixed == 0) continue;
      s.a += fixed;
      s.b += toFixed(weight * -exponent, scale);  // below 0.54
      const std::uint32_t bucket = bucketOf(bitsOf(weight), 0);
      addAtomic(&shared.count[bucket], 1);
      addAtomic(&shared.sum[bucket], fixed);
    }
  });
  sumOfBlock(block, shared);
  double target = 0;
  float max = 0;
  block.uniform([&](auto& s) {
    max = s.max;
    target = p.mass * static_cast<double>(s.a);
  });
  const bool valid = max > negativeInfinity();
  block.each([&](int t, auto& s) {
    if (t != 0) return;
    if (!valid) {
      p.lse[i] = negativeInfinity();
      p.entropyBits[i] = p.top1[i] = floatOf(0x7FC00000U);
      p.keysForMass[i] = 0;
      return;
    }
    const double unit = 1.0 / static_cast<double>(scale);
    const double sum = static_cast<double>(s.a) * unit;
    // Relative to the largest logit: no cancellation however large the logits are.
    const double entropy = ::log2(sum) + static_cast<double>(s.b) * unit / sum;
    p.lse[i] = static_cast<float>(static_cast<double>(max) * p.panel.absScale + ::log(sum));
    p.entropyBits[i] = static_cast<float>(entropy > 0 ? entropy : 0.0);
    p.top1[i] = static_cast<float>(1.0 / sum);
    if (target <= 0) p.keysForMass[i] = 0;
  });
  if (!valid || target <= 0) return;
  std::uint32_t prefix = 0;
  for (int level = 0; level < kLevels; ++level) {
    if (level > 0) {
      clearBuckets(block, shared, true);
      block.each([&](int t, auto&) {
        for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
          if (!(scores[key] > negativeInfinity())) continue;
          const float weight = exp2Of((scores[key] - max) * p.panel.exponentScale);
          const std::uint32_t bits = bitsOf(weight);
          if (!inPrefix(bits, prefix, level)) continue;
          const Counter fixed = toFixed(weight, scale);
          if (fixed == 0) continue;
          addAtomic(&shared.count[bucketOf(bits, level)], 1);
          addAtomic(&shared.sum[bucketOf(bits, level)], fixed);
        }
      });
      block.sync();
    }
    findByMass(block, shared, target);
    prefix |= shared.bucket << levelShift(level);
  }
  // All members of the last bucket weigh the same.
  block.each([&](int t, auto&) {
    if (t != 0) return;
    const Counter members = shared.count[shared.bucket];
    const Counter each = toFixed(floatOf(prefix), scale);
    const auto reaches = [&](Counter more) { return static_cast<double>(shared.mass + more * each) >= target; };
    const double wanted = ::ceil((target - static_cast<double>(shared.mass)) / static_cast<double>(each));
    Counter more = wanted < 1 ? 1 : wanted > static_cast<double>(members) ? members : static_cast<Counter>(wanted);
    while (more > 1 && reaches(more - 1)) --more;
    while (more < members && !reaches(more)) ++more;
    p.keysForMass[i] = static_cast<std::int64_t>(shared.above + more);
  });
}

// --- The largest scores of a row
// ---------------------------------------------------------------------------------------

struct TopCutParams {
  RowPanel panel;
  const std::int64_t* counts;  ///< [rowCount] how many to keep
  float* cut;                  ///< [rowCount] smallest kept score; +inf: none kept
  std::int32_t* lastTie;       ///< [rowCount] of the scores equal to the cut, those at keys <= this one are kept
  float* threshold;            ///< [rowCount] its probability over all valid keys
};

/// Block x: one row of the panel.
template <class Block>
SPARSIGHT_DEVICE void selectBody(Block& block, SelectShared& shared, const TopCutParams& p) {
  const std::int32_t i = block.x();
  const float* const scores = p.panel.row(i);
  const float scale = fixedScaleOf(p.panel);
  const Counter wanted = p.counts[i] > 0 ? static_cast<Counter>(p.counts[i]) : 0;
  weighRow(block, shared, p.panel, scores, scale);
  double sum = 0;
  float max = 0;
  Counter left = 0;
  block.uniform([&](auto& s) {
    sum = static_cast<double>(s.a) / static_cast<double>(scale);
    max = s.max;
    left = wanted < s.b ? wanted : s.b;
  });
  if (left == 0) {
    block.each([&](int t, auto&) {
      if (t != 0) return;
      p.cut[i] = p.threshold[i] = -negativeInfinity();
      p.lastTie[i] = -1;
    });
    return;
  }
  block.each([&](int t, auto&) {
    if (t == 0) shared.left = left;
  });
  std::uint32_t prefix = 0;
  for (int level = 0; level < kLevels; ++level) {
    clearBuckets(block, shared, false);
    block.each([&](int t, auto&) {
      for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
        const std::uint32_t bits = orderedBits(scores[key]);
        if (!(scores[key] > negativeInfinity()) || !inPrefix(bits, prefix, level)) continue;
        addAtomic(&shared.count[bucketOf(bits, level)], 1);
      }
    });
    block.sync();
    findByCount(block, shared);
    prefix |= shared.bucket << levelShift(level);
  }
  const float cut = fromOrderedBits(prefix);
  const Counter ties = shared.left;
  const bool all = shared.count[shared.bucket] == ties;
  block.sync();  // formal: who clears has found the same as who reads too late
  if (!all) {
    // The key of the last tie that is kept: which of 2,048 stretches of keys, then where in it.
    const std::int32_t stretch = p.panel.keyCount / kBuckets + 1;
    clearBuckets(block, shared, false);
    block.each([&](int t, auto&) {
      for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
        // The first keys into the largest bucket, where the search begins.
        if (scores[key] == cut) addAtomic(&shared.count[kBuckets - 1 - key / stretch], 1);
      }
    });
    block.sync();
    findByCount(block, shared);
  }
  block.each([&](int t, auto&) {
    if (t != 0) return;
    std::int32_t last = p.panel.keyCount;
    if (!all) {
      last = (kBuckets - 1 - static_cast<std::int32_t>(shared.bucket)) * (p.panel.keyCount / kBuckets + 1) - 1;
      for (Counter open = shared.left; open > 0;) {
        if (scores[++last] == cut) --open;
      }
    }
    p.cut[i] = cut;
    p.lastTie[i] = last;
    // The difference of scores first: logits may be 1e4 while their difference decides.
    p.threshold[i] =
        static_cast<float>(::exp((static_cast<double>(cut) - static_cast<double>(max)) * p.panel.absScale) / sum);
  });
}

// --- The largest probabilities of all rows
// -----------------------------------------------------------------------------

struct GlobalParams {
  RowPanel panel;
  std::int32_t firstListed;  ///< place of the panel's first row in the list
  float* rowMax;             ///< [list]
  float* rowLog2Sum;         ///< [list] log2 of the sum of 2^(log2 logit - the largest)
  Counter* rowPairs;         ///< [list] valid pairs
  std::int32_t level;        ///< digit of the histogram, or kLevels: counts
  std::uint32_t prefix;      ///< digits found so far; with kLevels: the cut
  Counter* histogram;        ///< [kBuckets], added to
  Counter* rowAbove;         ///< [list] pairs above the cut
  Counter* rowEqual;         ///< [list] pairs at the cut
};

/// Log2 probability of a score, as an integer in the same order. Relative to the row's largest first: rows of equal
/// distributions are then real ties, whatever the size of their logits.
SPARSIGHT_DEVICE std::uint32_t globalBits(float score, float max, float log2Sum, float exponentScale) {
  return orderedBits(fmaOf(score - max, exponentScale, -log2Sum));
}

struct GlobalRowsParams {
  GlobalParams all;
};

/// Block x: one row of the panel. Fills rowMax, rowLog2Sum and rowPairs.
template <class Block>
SPARSIGHT_DEVICE void selectBody(Block& block, SelectShared& shared, const GlobalRowsParams& rows) {
  const GlobalParams& p = rows.all;
  const std::int32_t i = block.x();
  const float* const scores = p.panel.row(i);
  const float scale = fixedScaleOf(p.panel);
  weighRow(block, shared, p.panel, scores, scale);
  block.each([&](int t, auto& s) {
    if (t != 0) return;
    p.rowMax[p.firstListed + i] = s.max;
    p.rowLog2Sum[p.firstListed + i] =
        s.b > 0 ? static_cast<float>(::log2(static_cast<double>(s.a) / static_cast<double>(scale))) : 0.0F;
    p.rowPairs[p.firstListed + i] = s.b;
  });
}

/// Block x: one row of the panel. One digit of the refinement, or the final counts.
template <class Block>
SPARSIGHT_DEVICE void selectBody(Block& block, SelectShared& shared, const GlobalParams& p) {
  const std::int32_t i = block.x();
  const float* const scores = p.panel.row(i);
  const float max = p.rowMax[p.firstListed + i];
  const float log2Sum = p.rowLog2Sum[p.firstListed + i];
  if (p.level == kLevels) {
    block.each([&](int t, auto& s) {
      s.a = 0;
      s.b = 0;
      for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
        if (!(scores[key] > negativeInfinity())) continue;
        const std::uint32_t bits = globalBits(scores[key], max, log2Sum, p.panel.exponentScale);
        if (bits > p.prefix) ++s.a;
        if (bits == p.prefix) ++s.b;
      }
    });
    sumOfBlock(block, shared);
    block.each([&](int t, auto& s) {
      if (t != 0) return;
      p.rowAbove[p.firstListed + i] = s.a;
      p.rowEqual[p.firstListed + i] = s.b;
    });
    return;
  }
  clearBuckets(block, shared, false);
  block.each([&](int t, auto&) {
    for (std::int32_t key = t; key < p.panel.keyCount; key += kThreads) {
      if (!(scores[key] > negativeInfinity())) continue;
      const std::uint32_t bits = globalBits(scores[key], max, log2Sum, p.panel.exponentScale);
      if (inPrefix(bits, p.prefix, p.level)) addAtomic(&shared.count[bucketOf(bits, p.level)], 1);
    }
  });
  block.sync();
  block.each([&](int t, auto&) {
    for (int b = t; b < kBuckets; b += kThreads) {
      if (shared.count[b] > 0) addAtomic(&p.histogram[b], static_cast<Counter>(shared.count[b]));
    }
  });
}

}  // namespace sparsight::cuda
