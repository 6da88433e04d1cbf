// SPDX-License-Identifier: Apache-2.0
#pragma once

// The kernel of attend.h for compute capability 9.0, over all keys or exact intervals (a cut needs the very scores that
// it was found in, which other instructions sum in another order: see attend.h). One warpgroup finds the tiles that any
// row of the block keeps, says which keys of them each row may use, and copies keys and values; two warpgroups hold 64
// rows each and both products run on tensor cores. While one of them takes exponentials, the products of the other run.
// Probabilities enter the second product as two numbers of the value type whose sum is within 2^-16 of them (bfloat16;
// 2^-21 for float16), so that the output answers to the same tolerance as with float32 products.

#include "cuda/attend.h"
#include "cuda/hopper_math.h"

namespace sparsight::cuda::hopper {

/// How much of a tile 32 rows of the block may use.
enum Kind : std::uint32_t { kNone = 0, kSome = 1, kAll = 2 };
/// First key of a tile that does not exist: no more follow.
inline constexpr std::int32_t kNoTile = -1;
/// Words of a stage's notes.
inline constexpr int kNoteFirstKey = 4;

template <int kBoxes>
struct AttendGroupState {
  float acc[64];             ///< scores of a tile, then probabilities
  std::uint32_t high[8][4];  ///< probabilities as operands, 16 keys each
  std::uint32_t low[8][4];
  float out[kOutRegisters<kBoxes>];
  float rowMax[2];  ///< rows t / 4 and t / 4 + 8 of the warp
  float tileMax[2];
  float sum[2];  ///< this thread's columns only, until the end
};

/// The feeding group. Thread t speaks for row t of the block.
template <int kBoxes, class Group, class Map>
SPARSIGHT_DEVICE void feedAttend(Group& group, const AttendParams& p, const Map& keys, const Map& values) {
  using Place = AttendLayout<kBoxes>;
  constexpr std::int32_t kNever = 0x7FFFFFFF;
  const std::int32_t listBase = group.x() * kBlockRows;
  group.each([&](int t, auto& s) {
    s.count = 0;
    s.cursor = 0;
    s.cursorEnd = 0;
    if (p.keepFirst != nullptr && listBase + t < p.rowCount) {
      s.cursor = p.keepFirst[listBase + t];
      s.cursorEnd = p.keepLast[listBase + t];
    }
  });
  Ring<Place> ring;
  for (std::int32_t position = 0;; ring.next()) {
    // Tiles start at the first key behind the last tile that any row keeps.
    std::int32_t key0 = position < p.keyCount ? position : kNever;
    if (p.keepFirst != nullptr) {
      group.each([&](int, auto& s) {
        while (s.cursor < s.cursorEnd && p.intervals[2 * s.cursor + 1] <= position) ++s.cursor;
        s.next = s.cursor < s.cursorEnd ? maxOf(p.intervals[2 * s.cursor], position) : kNever;
      });
      key0 = group.minOfGroup(Place::kVotes, [](auto& s) { return s.next; });
    }
    group.wait(Place::empty(ring.stage), ring.round ^ 1);
    std::uint32_t* const notes = group.template shared<std::uint32_t>(Place::notes(ring.stage));
    if (key0 == kNever) {
      group.each([&](int t, auto& s) {
        if (t == 0) notes[kNoteFirstKey] = static_cast<std::uint32_t>(kNoTile);
        if (listBase + t < p.rowCount) p.count[listBase + t] = s.count;
      });
      group.arrive(Place::full(ring.stage));
      return;
    }
    group.each([&](int t, auto& s) {
      const bool listed = listBase + t < p.rowCount;
      SPARSIGHT_UNROLL
      for (int w = 0; w < 4; ++w) {
        // Without intervals every listed row keeps what there is.
        s.word[w] = listed && p.keepFirst == nullptr ? rangeBits(0, p.keyCount - key0 - w * 32) : 0U;
      }
      for (std::int64_t c = s.cursor; c < s.cursorEnd; ++c) {
        const int first = p.intervals[2 * c] - key0;
        const int last = p.intervals[2 * c + 1] - key0;
        if (first >= kKeys) break;
        SPARSIGHT_UNROLL
        for (int w = 0; w < 4; ++w) s.word[w] |= rangeBits(first - w * 32, last - w * 32);
      }
    });
    if (p.validity.keyValid != nullptr) {
      SPARSIGHT_UNROLL
      for (int w = 0; w < 4; ++w) {
        group.ballot([](auto& s) -> std::uint32_t& { return s.any; },
                     [&](int t, auto&) {
                       const std::int32_t key = key0 + w * 32 + t % 32;
                       return key < p.keyCount && p.validity.keyValid[key] != 0;
                     });
        group.each([&](int, auto& s) { s.word[w] &= s.any; });
      }
    }
    if (p.validity.mask != nullptr) {
      group.each([&](int t, auto& s) {
        SPARSIGHT_UNROLL
        for (int w = 0; w < 4; ++w) {
          const std::uint32_t wanted = s.word[w];
          for (int b = 0; b < 32; ++b) {
            const std::uint32_t bit = 1U << static_cast<unsigned>(b);
            if ((wanted & bit) != 0 && !p.validity.allows(listBase + t, key0 + w * 32 + b)) s.word[w] &= ~bit;
          }
        }
      });
    }
    group.ballot([](auto& s) -> std::uint32_t& { return s.any; },
                 [](int, auto& s) { return (s.word[0] | s.word[1] | s.word[2] | s.word[3]) != 0; });
    group.ballot([](auto& s) -> std::uint32_t& { return s.all; },
                 [](int, auto& s) { return (s.word[0] & s.word[1] & s.word[2] & s.word[3]) == ~0U; });
    group.each([&](int t, auto& s) {
      std::uint32_t* const to = group.template shared<std::uint32_t>(Place::masks(ring.stage)) + t * 4;
      SPARSIGHT_UNROLL
      for (int w = 0; w < 4; ++w) {
        to[w] = s.word[w];
        s.count += countBits(s.word[w]);
      }
      if (t % 32 == 0) notes[t / 32] = s.any == 0 ? kNone : s.all == ~0U ? kAll : kSome;
      if (t == 0) notes[kNoteFirstKey] = static_cast<std::uint32_t>(key0);
    });
    group.arriveExpecting(Place::full(ring.stage), Place::kStageBytes);
    SPARSIGHT_UNROLL
    for (int box = 0; box < kBoxes; ++box) {
      const std::uint32_t at = static_cast<std::uint32_t>(box) * kKeyBoxBytes;
      group.load(keys, Place::tile(ring.stage, 0) + at, Place::full(ring.stage), box * kBoxCols, key0);
      group.load(values, Place::tile(ring.stage, 1) + at, Place::full(ring.stage), box * kBoxCols, key0);
    }
    position = key0 + kKeys;
  }
}

/// A computing group: consumer 0 or 1 of the block.
template <class T, int kBoxes, class Group>
SPARSIGHT_DEVICE void computeAttend(Group& group, int consumer, const AttendParams& p) {
  using Place = AttendLayout<kBoxes>;
  constexpr auto kShift = static_cast<float>(probabilityShift(T{}));
  const std::int32_t list0 = group.x() * kBlockRows + consumer * kGroupRows;
  storeQueries<T, kBoxes>(
      group, Place::query(consumer), p.in, [&](int i) { return p.rows[list0 + i]; }, p.rowCount - list0, p.sign < 0);
  group.each([&](int, auto& s) {
    SPARSIGHT_UNROLL
    for (int half = 0; half < 2; ++half) {
      s.rowMax[half] = negativeInfinity();
      s.sum[half] = 0.0F;
    }
    SPARSIGHT_UNROLL
    for (float& x : s.out) x = 0.0F;
  });
  const auto scores = [](auto& s) -> float(&)[64] { return s.acc; };
  const auto sums = [](auto& s) -> float(&)[kOutRegisters<kBoxes>] { return s.out; };
  Ring<Place> ring;
  for (int tile = 0;; ++tile, ring.next()) {
    group.wait(Place::full(ring.stage), ring.round);
    const std::uint32_t* const notes = group.template shared<const std::uint32_t>(Place::notes(ring.stage));
    if (notes[kNoteFirstKey] == static_cast<std::uint32_t>(kNoTile)) break;
    const std::uint32_t low = notes[consumer * 2];
    const std::uint32_t high = notes[consumer * 2 + 1];
    if (low == kNone && high == kNone) {
      passTurn<Place>(group, consumer, tile);
      group.arriveWarps(Place::empty(ring.stage));
      continue;
    }
    const bool whole = low == kAll && high == kAll;
    multiplyKeys<T, Place, kBoxes>(group, consumer, tile, Place::tile(ring.stage, 0), scores);
    if (!whole) {
      group.each([&](int t, auto& s) {
        const std::uint32_t* const masks = group.template shared<const std::uint32_t>(Place::masks(ring.stage));
        SPARSIGHT_UNROLL
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t* const row = masks + (consumer * kGroupRows + accRow(t, half * 2)) * 4;
          SPARSIGHT_UNROLL
          for (int w = 0; w < 4; ++w) {
            const std::uint32_t mine = row[w] >> static_cast<unsigned>(t % 4 * 2);
            SPARSIGHT_UNROLL
            for (int i = 0; i < 8; ++i) {
              float& score = s.acc[w * 16 + i / 2 * 4 + half * 2 + i % 2];
              score = (mine >> static_cast<unsigned>(i / 2 * 8 + i % 2) & 1U) != 0 ? score : negativeInfinity();
            }
          }
        }
      });
    }
    SPARSIGHT_UNROLL
    for (int half = 0; half < 2; ++half) {
      group.each([&](int, auto& s) {
        s.tileMax[half] = s.rowMax[half];
        SPARSIGHT_UNROLL
        for (int i = 0; i < 32; ++i) s.tileMax[half] = maxOf(s.tileMax[half], s.acc[i / 2 * 4 + half * 2 + i % 2]);
      });
      group.maxOfRow([&](auto& s) -> float& { return s.tileMax[half]; });
    }
    group.each([&](int, auto& s) {
      float scaled[2];
      float from[2];
      float sum[2] = {0.0F, 0.0F};
      SPARSIGHT_UNROLL
      for (int half = 0; half < 2; ++half) {
        scaled[half] = rescale(s.rowMax[half], s.tileMax[half], p.exponentScale);
        s.rowMax[half] = s.tileMax[half];
        // No key so far: every probability is 2^-infinity, relative to anything.
        from[half] = s.tileMax[half] == negativeInfinity() ? 0.0F : s.tileMax[half];
      }
      SPARSIGHT_UNROLL
      for (int step = 0; step < kKeys / 16; ++step) {
        SPARSIGHT_UNROLL
        for (int i = 0; i < 4; ++i) {
          float pair[2];
          SPARSIGHT_UNROLL
          for (int e = 0; e < 2; ++e) {
            // A key that is left out is -infinity, and the scale is not 0.
            pair[e] = exp2Fast(fmaOf(s.acc[step * 8 + i * 2 + e] - from[i % 2], p.exponentScale, kShift));
            sum[i % 2] += pair[e];
          }
          const Halves halves = splitPair(pair[0], pair[1], T{});
          s.high[step][i] = halves.high;
          s.low[step][i] = halves.low;
        }
      }
      SPARSIGHT_UNROLL
      for (int half = 0; half < 2; ++half) s.sum[half] = s.sum[half] * scaled[half] + sum[half];
      SPARSIGHT_UNROLL
      for (std::size_t i = 0; i < kOutRegisters<kBoxes>; ++i) s.out[i] *= scaled[i / 2 % 2];
    });
    group.fenceProducts(
        sums, [](auto& s) -> std::uint32_t(&)[8][4] { return s.high; },
        [](auto& s) -> std::uint32_t(&)[8][4] { return s.low; });
    SPARSIGHT_UNROLL
    for (int step = 0; step < kKeys / 16; ++step) {
      const std::uint64_t value = columnsDescriptor(group.base() + Place::tile(ring.stage, 1), kKeyBoxBytes, step);
      group.template multiplyHeld<T>(
          sums, [step](auto& s) -> std::uint32_t(&)[4] { return s.high[step]; }, value);
      group.template multiplyHeld<T>(
          sums, [step](auto& s) -> std::uint32_t(&)[4] { return s.low[step]; }, value);
    }
    group.commitProducts();
    group.template waitProducts<0>(sums);
    group.arriveWarps(Place::empty(ring.stage));
  }
  SPARSIGHT_UNROLL
  for (int half = 0; half < 2; ++half) {
    group.sumOfRow([&](auto& s) -> float& { return s.sum[half]; });
  }
  group.each([&](int t, auto& s) {
    SPARSIGHT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const std::int32_t at = list0 + accRow(t, half * 2);
      if (at >= p.rowCount) continue;
      const bool kept = s.rowMax[half] != negativeInfinity();
      if (t % 4 == 0) {
        p.lse[at] = kept ? static_cast<float>(static_cast<double>(s.rowMax[half]) * p.absScale +
                                              (::log2(static_cast<double>(s.sum[half])) - static_cast<double>(kShift)) *
                                                  0.69314718055994530942)
                         : negativeInfinity();
      }
      const float inverse = kept ? 1.0F / s.sum[half] : 0.0F;
      SPARSIGHT_UNROLL
      for (int i = 0; i < 16 * kBoxes; ++i) {
        const int column = accCol(t, i / 2 * 4 + i % 2);
        if (column < p.vCols) {
          p.out[static_cast<std::int64_t>(at) * p.vCols + column] = s.out[i / 2 * 4 + half * 2 + i % 2] * inverse;
        }
      }
    }
  });
}

}  // namespace sparsight::cuda::hopper
