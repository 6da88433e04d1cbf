// SPDX-License-Identifier: Apache-2.0
#pragma once

// The pass of pooled_map.h for compute capability 9.0: the same partials of every row and sub-block. One warpgroup
// copies tiles of 128 keys through a ring of stages; two warpgroups hold 64 query rows each and go by turns: while the
// tensor cores make the scores of one, the other takes maxima and exponentials of its own in registers.

#include "cuda/hopper_math.h"
#include "cuda/pooled_map.h"

namespace sparsight::cuda::hopper {

/// One thread's share of a row of the current sub-block: the 32 columns of each tile that its accumulators hold.
struct MapPart {
  float max;  ///< -infinity: no key so far
  float sum;  ///< of 2^((score - max) * c)
  std::int32_t count;
};
struct MapState {
  float acc[64];
  MapPart part[2];              ///< rows t / 4 and t / 4 + 8 of the warp
  std::uint32_t allowed[2][4];  ///< of the current tile
  float rowMax;
};

/// What a block has to do; the same for all of its groups. Tiles start at multiples of kKeys from the operation's first
/// key, so that a partial does not depend on how the keys are split.
struct MapRange {
  std::int32_t keyBegin, keyEnd, start;
  int tiles;
  bool masked;
};
SPARSIGHT_DEVICE MapRange mapRange(const PartialsParams& p, int split) {
  MapRange r{};
  const std::int32_t first = p.subBounds[0];
  r.keyBegin = p.subBounds[p.splitPtr[split]];
  r.keyEnd = p.subBounds[p.splitPtr[split + 1]];
  r.start = first + (r.keyBegin - first) / kKeys * kKeys;
  r.tiles = (r.keyEnd - r.start + kKeys - 1) / kKeys;
  r.masked = p.validity.keyValid != nullptr || p.validity.mask != nullptr;
  return r;
}

/// The feeding group.
template <int kBoxes, class Group, class Map>
SPARSIGHT_DEVICE void feedMap(Group& group, const PartialsParams& p, const Map& keys) {
  using Place = MapLayout<kBoxes>;
  const MapRange range = mapRange(p, group.y());
  const std::int32_t launchRow0 = group.x() * kBlockRows;
  Ring<Place> ring;
  for (int i = 0; i < range.tiles; ++i, ring.next()) {
    const std::int32_t key0 = range.start + i * kKeys;
    group.wait(Place::empty(ring.stage), ring.round ^ 1);
    if (range.masked) {
      if (p.validity.keyValid != nullptr) {
        SPARSIGHT_UNROLL
        for (int w = 0; w < 4; ++w) {
          group.ballot([&](auto& s) -> std::uint32_t& { return s.word[w]; },
                       [&](int t, auto&) {
                         const std::int32_t key = key0 + w * 32 + t % 32;
                         return key < range.keyEnd && p.validity.keyValid[key] != 0;
                       });
        }
      } else {
        group.each([&](int, auto& s) {
          SPARSIGHT_UNROLL
          for (int w = 0; w < 4; ++w) s.word[w] = rangeBits(0, range.keyEnd - key0 - w * 32);
        });
      }
      group.each([&](int t, auto& s) {
        std::uint32_t* const to = group.template shared<std::uint32_t>(Place::masks(ring.stage)) + t * 4;
        const std::int32_t row = launchRow0 + t;
        SPARSIGHT_UNROLL
        for (int w = 0; w < 4; ++w) {
          std::uint32_t word = s.word[w];
          if (p.validity.mask != nullptr) {
            const std::uint32_t wanted =
                row < p.rowEnd - p.row0 ? word & rangeBits(range.keyBegin - key0 - w * 32, 32) : 0;
            word = 0;
            for (int b = 0; b < 32; ++b) {
              if ((wanted >> static_cast<unsigned>(b) & 1U) != 0 && p.validity.allows(row, key0 + w * 32 + b)) {
                word |= 1U << static_cast<unsigned>(b);
              }
            }
          }
          to[w] = word;
        }
      });
    }
    group.arriveExpecting(Place::full(ring.stage), Place::kMatrixBytes);
    SPARSIGHT_UNROLL
    for (int box = 0; box < kBoxes; ++box) {
      group.load(keys, Place::tile(ring.stage, 0) + static_cast<std::uint32_t>(box) * kKeyBoxBytes,
                 Place::full(ring.stage), box * kBoxCols, key0);
    }
  }
}

// Calls visit(accumulator, row half, wanted) for a thread's accumulators of columns [first, last) of the tile. Words
// that the range covers in full are visited without a test, columns outside are skipped in steps of 8.
template <bool kMasked, class Visit>
SPARSIGHT_DEVICE void visitColumns(int t, const std::uint32_t (&allowed)[2][4], int first, int last, Visit&& visit) {
  const auto shift = static_cast<unsigned>(t % 4 * 2);
  SPARSIGHT_UNROLL
  for (int w = 0; w < 4; ++w) {
    const std::uint32_t range = rangeBits(first - w * 32, last - w * 32);
    if (range == 0) continue;
    if (!kMasked && range == ~0U) {
      SPARSIGHT_UNROLL
      for (int i = 0; i < 16; ++i) visit(w * 16 + i, i / 2 % 2, true);
      continue;
    }
    std::uint32_t wanted[2] = {range >> shift, range >> shift};
    if constexpr (kMasked) {  // as one expression, GCC 12's -fsanitize=bounds reads the index before it is set
      wanted[0] &= allowed[0][w] >> shift;
      wanted[1] &= allowed[1][w] >> shift;
    }
    SPARSIGHT_UNROLL
    for (int chunk = 0; chunk < 4; ++chunk) {
      if ((range >> static_cast<unsigned>(chunk * 8) & 0xFFU) == 0) continue;
      SPARSIGHT_UNROLL
      for (int i = 0; i < 4; ++i) {
        visit(w * 16 + chunk * 4 + i, i / 2, (wanted[i / 2] >> static_cast<unsigned>(chunk * 8 + i % 2) & 1U) != 0);
      }
    }
  }
}

/// Adds columns [first, last) of the tile to the thread's parts.
template <bool kMasked>
SPARSIGHT_DEVICE void addColumns(int t, MapState& s, int first, int last, float scale) {
  float max[2] = {s.part[0].max, s.part[1].max};
  visitColumns<kMasked>(t, s.allowed, first, last, [&](int at, int half, bool wanted) SPARSIGHT_INLINE_LAMBDA {
    max[half] = maxOf(max[half], wanted ? s.acc[at] : negativeInfinity());
  });
  float from[2];
  float sum[2];
  SPARSIGHT_UNROLL
  for (int half = 0; half < 2; ++half) {
    // No key so far: every term is 2^-infinity, relative to anything.
    from[half] = max[half] == negativeInfinity() ? 0.0F : max[half];
    sum[half] = s.part[half].sum * rescale(s.part[half].max, from[half], scale);
    s.part[half].max = max[half];
  }
  visitColumns<kMasked>(t, s.allowed, first, last, [&](int at, int half, bool wanted) SPARSIGHT_INLINE_LAMBDA {
    sum[half] += exp2Fast(wanted ? (s.acc[at] - from[half]) * scale : negativeInfinity());
  });
  SPARSIGHT_UNROLL
  for (int half = 0; half < 2; ++half) {
    s.part[half].sum = sum[half];
    if constexpr (kMasked) {
      SPARSIGHT_UNROLL
      for (int w = 0; w < 4; ++w) {
        const std::uint32_t mine = 0x03030303U << static_cast<unsigned>(t % 4 * 2);
        s.part[half].count += countBits(s.allowed[half][w] & rangeBits(first - w * 32, last - w * 32) & mine);
      }
    }
  }
}

/// A whole tile: cut at the edges of the sub-blocks, each of which is written when its last key is done.
template <class Group>
SPARSIGHT_DEVICE void addTile(Group& group, int consumer, const PartialsParams& p, const MapRange& range,
                              std::int32_t key0, std::int32_t& sub) {
  const int end = minOf(range.keyEnd - key0, kKeys);
  for (int position = maxOf(range.keyBegin - key0, 0); position < end;) {
    const int subEnd = p.subBounds[sub + 1] - key0;
    const int last = minOf(subEnd, end);
    group.each([&](int t, auto& s) SPARSIGHT_INLINE_LAMBDA {
      if (range.masked) {
        addColumns<true>(t, s, position, last, p.exponentScale);
      } else {
        addColumns<false>(t, s, position, last, p.exponentScale);
      }
    });
    position = last;
    if (last < subEnd) break;
    // Each row's four threads agree on a maximum, bring their sums to it and add them.
    SPARSIGHT_UNROLL
    for (int half = 0; half < 2; ++half) {
      group.each([&](int, auto& s) { s.rowMax = s.part[half].max; });
      group.maxOfRow([](auto& s) -> float& { return s.rowMax; });
      group.each([&](int, auto& s) { s.part[half].sum *= rescale(s.part[half].max, s.rowMax, p.exponentScale); });
      group.sumOfRow([&](auto& s) -> float& { return s.part[half].sum; });
      if (p.partCount != nullptr) {
        group.sumOfRow([&](auto& s) -> std::int32_t& { return s.part[half].count; });
      }
      group.each([&](int t, auto& s) {
        const int row = group.x() * kBlockRows + consumer * kGroupRows + accRow(t, half * 2);
        if (t % 4 == 0 && row < p.rowEnd - p.row0) {
          const std::int64_t at = static_cast<std::int64_t>(row) * p.subCount + sub;
          p.partMax[at] = s.rowMax;
          p.partSum[at] = s.part[half].sum;
          if (p.partCount != nullptr) p.partCount[at] = s.part[half].count;
        }
        s.part[half] = {negativeInfinity(), 0.0F, 0};
      });
    }
    ++sub;
  }
}

/// A computing group: consumer 0 or 1 of the block.
template <class T, int kBoxes, class Group>
SPARSIGHT_DEVICE void computeMap(Group& group, int consumer, const PartialsParams& p) {
  using Place = MapLayout<kBoxes>;
  const MapRange range = mapRange(p, group.y());
  const std::int32_t row0 = p.row0 + group.x() * kBlockRows + consumer * kGroupRows;
  storeQueries<T, kBoxes>(
      group, Place::query(consumer), p.in, [&](int i) { return row0 + i; }, p.rowEnd - row0, p.sign < 0);
  group.each([&](int, auto& s) {
    SPARSIGHT_UNROLL
    for (auto& part : s.part) part = {negativeInfinity(), 0.0F, 0};
  });
  std::int32_t sub = p.splitPtr[group.y()];
  Ring<Place> ring;
  for (int i = 0; i < range.tiles; ++i, ring.next()) {
    group.wait(Place::full(ring.stage), ring.round);
    multiplyKeys<T, Place, kBoxes>(group, consumer, i, Place::tile(ring.stage, 0),
                                   [](auto& s) -> float(&)[64] { return s.acc; });
    if (range.masked) {
      group.each([&](int t, auto& s) {
        const std::uint32_t* const masks = group.template shared<const std::uint32_t>(Place::masks(ring.stage));
        SPARSIGHT_UNROLL
        for (int half = 0; half < 2; ++half) {
          SPARSIGHT_UNROLL
          for (int w = 0; w < 4; ++w) {
            s.allowed[half][w] = masks[(consumer * kGroupRows + accRow(t, half * 2)) * 4 + w];
          }
        }
      });
    }
    // Scores and masks are in registers: the stage goes back.
    group.arriveWarps(Place::empty(ring.stage));
    addTile(group, consumer, p, range, range.start + i * kKeys, sub);
  }
}

}  // namespace sparsight::cuda::hopper
