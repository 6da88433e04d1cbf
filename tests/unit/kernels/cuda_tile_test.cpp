// SPDX-License-Identifier: Apache-2.0
// The tiles of q.k that all CUDA kernels start from, run block by block on the host.
#include "cuda/score_tile.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>

#include "cuda/dispatch.h"

namespace sparsight::cuda {
namespace {

template <class Tile>
struct TileState {
  typename Tile::State tile;
};

std::uint16_t narrow(float value, Bf16Bits) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16U);
}
// For small integers.
std::uint16_t narrow(float value, HalfBits) {
  if (value == 0.0F) return 0;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>(((bits >> 16U) & 0x8000U) | ((((bits >> 23U) & 0xFFU) - 112U) << 10U) |
                                    ((bits >> 13U) & 0x3FFU));
}

// Small integers: every product and sum is exact, so that any mix-up of rows, keys or depth shows.
template <class T, class Tile>
void checkTile(int depth, int repeats, int rowCount, int keys, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> level(-8, 8);
  const int rows = 100;
  std::vector<T> q(static_cast<std::size_t>(rows * depth));
  std::vector<T> k(static_cast<std::size_t>(keys * depth * repeats));
  for (auto* matrix : {&q, &k}) {
    for (T& x : *matrix) x = {narrow(static_cast<float>(level(random)), T{})};
  }
  const auto shared = std::make_unique<typename Tile::Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof *shared);
  HostBlock<TileState<Tile>> block(0, 0);
  const auto rowOf = [](int i) { return (i * 37 + 5) % 100; };
  const int key0 = keys > 64 ? 64 : 0;
  Tile::run(block, *shared, {q.data(), k.data(), depth, repeats}, rowOf, rowCount, key0, keys);
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 64; ++j) {
      float want = 0;
      for (int e = 0; e < depth * repeats && i < rowCount && key0 + j < keys; ++e) {
        want += toFloat(q[static_cast<std::size_t>(rowOf(i) * depth + e % depth)]) *
                toFloat(k[static_cast<std::size_t>((key0 + j) * depth * repeats + e)]);
      }
      ASSERT_EQ(shared->score[i * kScoreStride + j], want) << "row " << i << ", key " << j;
    }
  }
}

TEST(CudaTile, TensorCoreTileIsExactOnIntegers) {
  std::uint32_t seed = 1;
  for (const int depth : {16, 32, 48, 80, 128, 256}) {
    for (const int repeats : {1, 3}) {
      for (const int rowCount : {1, 17, 64}) {
        for (const int keys : {1, 63, 64, 65, 128}) {
          SCOPED_TRACE(::testing::Message()
                       << "depth " << depth << " x " << repeats << ", " << rowCount << " rows, " << keys << " keys");
          checkTile<Bf16Bits, MmaTile<Bf16Bits>>(depth, repeats, rowCount, keys, ++seed);
          checkTile<HalfBits, MmaTile<HalfBits>>(depth, repeats, rowCount, keys, ++seed);
          if (repeats == 1) checkTile<HalfBits, PortableTile<HalfBits>>(depth, 1, rowCount, keys, ++seed);
        }
      }
    }
  }
}

// Shared memory has 32 banks of 4 bytes; a warp's access is free of conflicts when no two different words of it share
// one. The addresses are those of MmaTile::run.
TEST(CudaTile, OperandReadsHitEveryBankOnce) {
  for (int offset = 0; offset < 8; ++offset) {
    std::uint32_t banks = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const int word = (lane / 4) * kMmaStride + lane % 4 + offset;
      banks |= 1U << static_cast<unsigned>(word % 32);
    }
    EXPECT_EQ(banks, ~0U);
  }
  static_assert(kMmaStride % 4 == 0, "16-byte stores must be aligned");
  static_assert(kMmaStride >= kMmaDepth / 2, "a row holds a stage");
}

// What a lane holds, in the words of the PTX ISA (m16n8k16, 16-bit elements), against a plain product.
TEST(CudaTile, FragmentsAreThoseOfThePtxIsa) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> level(-8, 8);
  float a[16][16];
  float b[16][32];
  for (auto& row : a) {
    for (float& x : row) x = static_cast<float>(level(random));
  }
  for (auto& row : b) {
    for (float& x : row) x = static_cast<float>(level(random));
  }
  struct State {
    MmaFragments part;
  };
  const auto pack = [](float low, float high) {
    return static_cast<std::uint32_t>(narrow(low, Bf16Bits{})) |
           (static_cast<std::uint32_t>(narrow(high, Bf16Bits{})) << 16U);
  };
  HostBlock<State> block(0, 0);
  block.each([&](int t, State& s) {
    const int groupId = t % 32 >> 2;
    const int inGroup = t % 32 % 4;
    for (int n = 0; n < 4; ++n) {
      for (float& x : s.part.acc[n]) x = 1.0F;
    }
    // a_i: row = groupID for i in {0, 1, 4, 5}, else groupID + 8; col = inGroup * 2 + (i & 1), + 8 for i >= 4.
    for (int i = 0; i < 8; i += 2) {
      const int row = i == 0 || i == 4 ? groupId : groupId + 8;
      const int col = inGroup * 2 + (i >= 4 ? 8 : 0);
      s.part.a[i / 2] = pack(a[row][col], a[row][col + 1]);
    }
    // b_i: row = inGroup * 2 + (i & 1), + 8 for i >= 2; col = groupID.
    for (int n = 0; n < 4; ++n) {
      for (int i = 0; i < 4; i += 2) {
        const int row = inGroup * 2 + (i >= 2 ? 8 : 0);
        s.part.b[n][i / 2] = pack(b[row][n * 8 + groupId], b[row + 1][n * 8 + groupId]);
      }
    }
  });
  block.multiply<Bf16Bits>([](State& s) -> MmaFragments& { return s.part; });
  block.each([&](int t, State& s) {
    const int groupId = t % 32 >> 2;
    const int inGroup = t % 32 % 4;
    for (int n = 0; n < 4; ++n) {
      // c_i: row = groupID for i < 2, else groupID + 8; col = inGroup * 2 + (i & 1).
      for (int i = 0; i < 4; ++i) {
        const int row = i < 2 ? groupId : groupId + 8;
        const int col = n * 8 + inGroup * 2 + (i & 1);
        float want = 1.0F;
        for (int e = 0; e < 16; ++e) want += a[row][e] * b[e][col];
        ASSERT_EQ(s.part.acc[n][i], want) << "thread " << t << ", n " << n << ", i " << i;
      }
    }
  });
}

TEST(CudaTile, AFloatIsTheSumOfItsThreeParts) {
  std::mt19937 random(5);
  const auto check = [](float value) {
    std::uint16_t parts[3];
    splitFloat(value, parts);
    const auto part = [&](int i) { return static_cast<double>(toFloat(Bf16Bits{parts[i]})); };
    EXPECT_EQ(static_cast<float>(part(0) + part(1) + part(2)), value);
    EXPECT_EQ(part(0) + part(1) + part(2), static_cast<double>(value));
  };
  for (const float value :
       {0.0F, -0.0F, 1.0F, -1.0F, 3.14159274F, 0.1F, 16777215.0F, -1e30F, 1e-30F, std::numeric_limits<float>::max(),
        std::nextafter(1.0F, 2.0F), std::nextafter(1.0F, 0.0F)}) {
    check(value);
  }
  std::uniform_int_distribution<std::uint32_t> mantissa(0, 0xFFFFFFU);
  std::uniform_int_distribution<int> exponent(-60, 60);
  for (int i = 0; i < 20000; ++i) {
    const float value = std::ldexp(static_cast<float>(mantissa(random)), exponent(random));
    check(i % 2 == 0 ? value : -value);
  }
}

}  // namespace
}  // namespace sparsight::cuda
