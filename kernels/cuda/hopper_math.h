// SPDX-License-Identifier: Apache-2.0
#pragma once

// Small arithmetic of the Hopper kernels, on the device and on the host.

#include "cuda/hopper_layout.h"
#include "cuda/score_tile.h"

/// Behind the parameters of a lambda that must not become a call: its captures would move to memory.
#define SPARSIGHT_INLINE_LAMBDA __attribute__((always_inline))

namespace sparsight::cuda::hopper {

/// 2^x within 2 ulp; on the device results below 2^-126 are 0.
SPARSIGHT_DEVICE float exp2Fast(float x) {
#ifdef __CUDACC__
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return ::exp2f(x);
#endif
}

/// What a sum relative to `old` is multiplied with to be relative to `now`; 0 when there was nothing to sum (the scale
/// may be 0, so the difference alone does not say so).
SPARSIGHT_DEVICE float rescale(float old, float now, float scale) {
  return old == negativeInfinity() ? 0.0F : exp2Fast((old - now) * scale);
}

SPARSIGHT_DEVICE int countBits(std::uint32_t word) {
#ifdef __CUDACC__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

/// Two probabilities in a value type, the first in the lower half of each word: what the type can hold, and the rest.
/// Their sum is within 2^-16 of the probability (2^-21 for float16, 2^-25 absolute at the least).
struct Halves {
  std::uint32_t high, low;
};

/// Two floats as one word of T, rounded to the nearest, ties to even.
SPARSIGHT_DEVICE std::uint32_t roundPair(float a, float b, Bf16Bits) {
#ifdef __CUDACC__
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  std::uint32_t out;
  memcpy(&out, &pair, sizeof out);
  return out;
#else
  const auto round = [](float x) {
    const std::uint32_t bits = bitsOf(x);
    return (bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U;
  };
  return round(a) | (round(b) << 16U);
#endif
}
SPARSIGHT_DEVICE std::uint32_t roundPair(float a, float b, HalfBits) {
#ifdef __CUDACC__
  const __half2 pair = __floats2half2_rn(a, b);
  std::uint32_t out;
  memcpy(&out, &pair, sizeof out);
  return out;
#else
  // Finite values within the range of float16 only, which is what probabilities and their rests are.
  const auto round = [](float x) -> std::uint32_t {
    const std::uint32_t sign = bitsOf(x) >> 16U & 0x8000U;
    const float size = ::fabsf(x);
    if (size == 0.0F) return sign;
    int exponent = 0;
    static_cast<void>(std::frexp(size, &exponent));
    exponent = maxOf(exponent - 1, -14);
    const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    return sign | ((static_cast<std::uint32_t>(exponent + 14) << 10U) + steps);
  };
  return round(a) | (round(b) << 16U);
#endif
}

SPARSIGHT_DEVICE Halves splitPair(float a, float b, Bf16Bits) {
  // Cut off, not rounded: the same accuracy for less work, and the rest is exact before it is rounded.
  const std::uint32_t bitsA = bitsOf(a);
  const std::uint32_t bitsB = bitsOf(b);
  const float restA = a - floatOf(bitsA & 0xFFFF0000U);
  const float restB = b - floatOf(bitsB & 0xFFFF0000U);
  return {(bitsA >> 16U) | (bitsB & 0xFFFF0000U), roundPair(restA, restB, Bf16Bits{})};
}
SPARSIGHT_DEVICE Halves splitPair(float a, float b, HalfBits) {
  const std::uint32_t high = roundPair(a, b, HalfBits{});
  const float takenA = toFloat(HalfBits{static_cast<std::uint16_t>(high)});
  const float takenB = toFloat(HalfBits{static_cast<std::uint16_t>(high >> 16U)});
  return {high, roundPair(a - takenA, b - takenB, HalfBits{})};
}

/// Probabilities are held times 2^this, so that small ones keep their bits: float16 ends at 2^-24.
constexpr int probabilityShift(HalfBits) { return 15; }
constexpr int probabilityShift(Bf16Bits) { return 0; }

/// 16 bytes from global memory, zeros where not inside.
template <class T>
SPARSIGHT_DEVICE Words4 loadEight(const void* base, bool inside, std::int64_t element) {
  if (!inside) return {{0U, 0U, 0U, 0U}};
  const T* const from = static_cast<const T*>(base) + element;
#ifdef __CUDACC__
  return *reinterpret_cast<const Words4*>(from);
#else
  Words4 out;
  std::memcpy(&out, from, sizeof out);
  return out;
#endif
}

/// The 64 query rows of one computing group into its boxes; rows and columns past the end are zeros. negate: all signs
/// turned, so that the largest logit is the largest product also for a negative softmax scale.
template <class T, int kBoxes, class Group, class RowOf>
SPARSIGHT_DEVICE void storeQueries(Group& group, std::uint32_t to, const Operands& in, RowOf rowOf, int rowCount,
                                   bool negate) {
  group.each([&](int t, auto&) {
    SPARSIGHT_UNROLL
    for (int i = 0; i < 4 * kBoxes; ++i) {
      const int item = t + i * kGroupThreads;
      const int row = item / (8 * kBoxes);
      const int unit = item % (8 * kBoxes);
      const bool inside = row < rowCount && unit * 8 < in.depth;
      Words4 value = loadEight<T>(
          in.q, inside, inside ? static_cast<std::int64_t>(rowOf(row)) * in.depth + unit * 8 : std::int64_t{0});
      if (negate) {
        SPARSIGHT_UNROLL
        for (std::uint32_t& word : value.w) word ^= 0x80008000U;
      }
      group.storeTile(to + static_cast<std::uint32_t>(unit / 8) * kQueryBoxBytes +
                          swizzled(static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(unit % 8) * 16),
                      value);
    }
  });
  group.fenceStores();
}

/// Makes the products of a group's queries with a tile of keys. tile: its number, from 0. The two computing groups
/// start theirs by turns, so that one takes exponentials while the tensor cores work for the other; left alone they
/// would go in step and wait for the same units.
template <class T, class Place, int kBoxes, class Group, class Acc>
SPARSIGHT_DEVICE void multiplyKeys(Group& group, int consumer, int tile, std::uint32_t keys, Acc&& acc) {
  const std::uint32_t queries = Place::query(consumer);
  // The first group's turn comes with the other's last tile, the second's with the first's same one.
  group.wait(Place::turn(consumer), consumer == 0 ? tile % 2 ^ 1 : tile % 2);
  group.fenceProducts(acc);
  SPARSIGHT_UNROLL
  for (int step = 0; step < 4 * kBoxes; ++step) {
    group.template multiply<T>(acc, rowsDescriptor(group.base() + queries, kQueryBoxBytes, step),
                               rowsDescriptor(group.base() + keys, kKeyBoxBytes, step), step > 0);
  }
  group.commitProducts();
  group.arriveWarps(Place::turn(1 - consumer));
  group.template waitProducts<0>(acc);
}
/// Lets the turn pass for a tile that the group does not need.
template <class Place, class Group>
SPARSIGHT_DEVICE void passTurn(Group& group, int consumer, int tile) {
  group.wait(Place::turn(consumer), consumer == 0 ? tile % 2 ^ 1 : tile % 2);
  group.arriveWarps(Place::turn(1 - consumer));
}

/// Barriers of a pipeline, before any group starts. init(offset, arrivals).
template <class Place, class Init>
SPARSIGHT_DEVICE void initBarriers(Init&& init) {
  for (int stage = 0; stage < Place::kStages; ++stage) {
    init(Place::full(stage), Place::kFullCount);
    init(Place::empty(stage), Place::kEmptyCount);
  }
  for (int consumer = 0; consumer < kConsumers; ++consumer) init(Place::turn(consumer), Place::kTurnCount);
}

/// A thread of the feeding group.
struct FeedState {
  std::uint32_t word[4];   ///< keys of the tile that its row may use
  std::uint32_t all, any;  ///< the same over the rows of its warp
  std::int32_t next;       ///< the first key behind the last tile that its row keeps
  std::int64_t cursor, cursorEnd;
  std::int32_t count;  ///< keys of its row so far
};

/// Where a loop over tiles stands in the ring of stages.
template <class Place>
struct Ring {
  int stage = 0;
  int round = 0;  ///< parity of the stage's phase
  SPARSIGHT_DEVICE void next() {
    if (++stage == Place::kStages) {
      stage = 0;
      round ^= 1;
    }
  }
};

}  // namespace sparsight::cuda::hopper
