// SPDX-License-Identifier: Apache-2.0
// The Hopper kernels: index arithmetic, their pipelines on the emulated block, the check at start-up, forced paths.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>
#include <set>

#include "cuda/hopper_attend.h"
#include "cuda/hopper_map.h"
#include "fallback_backend.h"
#include "sparsight/kernels/backend.h"
#include "tests/support/backend_ops_cases.h"
#include "tests/support/emulated_cuda.h"
#include "tests/support/emulated_hopper.h"

namespace sparsight {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
namespace hopper = cuda::hopper;

TEST(CudaHopper, SwizzleKeepsUnitsAndRows) {
  std::set<std::uint32_t> seen;
  for (std::uint32_t row = 0; row < hopper::kKeys; ++row) {
    for (std::uint32_t byte = 0; byte < hopper::kRowBytes; ++byte) {
      const std::uint32_t at = hopper::swizzled(row, byte);
      EXPECT_EQ(at / hopper::kRowBytes, row);
      EXPECT_EQ(at % 16, byte % 16);
      EXPECT_EQ(at / 16 % 8, (byte / 16) ^ (row % 8));
      seen.insert(at);
    }
  }
  EXPECT_EQ(seen.size(), hopper::kKeyBoxBytes);
  // Eight rows of one column of units, as a product reads them, lie in 32 different banks.
  for (std::uint32_t unit = 0; unit < 8; ++unit) {
    std::set<std::uint32_t> banks;
    for (std::uint32_t row = 0; row < 8; ++row) {
      for (std::uint32_t word = 0; word < 4; ++word) banks.insert(hopper::swizzled(row, unit * 16 + word * 4) / 4 % 32);
    }
    EXPECT_EQ(banks.size(), 32U);
  }
}

// The fields of PTX ISA, "Matrix Descriptor Format": bits 0-13, 16-29, 32-45 in units of 16 bytes, 49-51, 62-63.
TEST(CudaHopper, DescriptorsHoldTheirFields) {
  std::mt19937 random(1);
  std::uniform_int_distribution<std::uint32_t> unit(0, (1U << 14U) - 1);
  for (int i = 0; i < 10000; ++i) {
    const std::uint32_t address = unit(random) * 16;
    const std::uint32_t leading = unit(random) * 16;
    const std::uint32_t stride = unit(random) * 16;
    const std::uint64_t bits = hopper::descriptor(address, leading, stride);
    EXPECT_EQ((bits & 0x3FFFU) * 16, address);
    EXPECT_EQ((bits >> 16U & 0x3FFFU) * 16, leading);
    EXPECT_EQ((bits >> 32U & 0x3FFFU) * 16, stride);
    EXPECT_EQ(bits >> 46U & 0xFFFFU, 0U) << "no base offset: tiles start at multiples of 1024";
    EXPECT_EQ(bits >> 62U, 1U) << "128-byte swizzle";
    EXPECT_EQ(bits & 0x0000C000C000C000U, 0U);
  }
}

// Where the engine of a copy puts element (row, column) of a box, and where a product finds it by its descriptor.
TEST(CudaHopper, DescriptorsFindWhatCopiesWrite) {
  const auto find = [](std::uint64_t bits, std::uint32_t offset) {
    const std::uint32_t at = static_cast<std::uint32_t>(bits & 0x3FFFU) * 16 + offset;
    return at ^ ((at >> 7U & 7U) << 4U);
  };
  for (const std::uint32_t tile : {0U, 1024U, 65536U, 1024U * 200}) {
    const std::uint32_t box = hopper::kKeyBoxBytes;
    for (std::uint32_t row = 0; row < 128; ++row) {
      for (std::uint32_t col = 0; col < 128; ++col) {
        const std::uint32_t written = tile + col / 64 * box + hopper::swizzled(row, col % 64 * 2);
        // q or k: element `col` of the depth is number col % 16 of step col / 16.
        EXPECT_EQ(find(hopper::rowsDescriptor(tile, box, static_cast<int>(col / 16)),
                       row / 8 * 1024 + row % 8 * 128 + col % 16 * 2),
                  written);
        // v: row `row` is number row % 16 of step row / 16; 64 columns further is the leading offset.
        const std::uint64_t values = hopper::columnsDescriptor(tile, box, static_cast<int>(row / 16));
        const auto leading = static_cast<std::uint32_t>(values >> 16U & 0x3FFFU) * 16;
        EXPECT_EQ(find(values, col / 64 * leading + row % 16 / 8 * 1024 + row % 8 * 128 + col % 64 * 2), written);
      }
    }
  }
}

TEST(CudaHopper, AccumulatorsCoverTheTileOnce) {
  std::set<std::pair<int, int>> seen;
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < 64; ++i) {
      const int row = hopper::accRow(t, i);
      const int col = hopper::accCol(t, i);
      // PTX ISA: row = warp * 16 + lane / 4, + 8 for every other pair; col = (lane % 4) * 2 + i % 2 + 8 per four.
      EXPECT_EQ(row, (t / 32) * 16 + (t % 32) / 4 + 8 * ((i / 2) % 2));
      EXPECT_EQ(col, 8 * (i / 4) + (t % 4) * 2 + (i & 1));
      seen.insert({row, col});
    }
  }
  EXPECT_EQ(seen.size(), 64U * 128U);
}

TEST(CudaHopper, RangesOfBits) {
  for (int first = -40; first < 80; ++first) {
    for (int last = -40; last < 80; ++last) {
      std::uint32_t want = 0;
      for (int b = 0; b < 32; ++b) want |= b >= first && b < last ? 1U << static_cast<unsigned>(b) : 0U;
      ASSERT_EQ(hopper::rangeBits(first, last), want) << first << " " << last;
    }
  }
}

template <int kBoxes, class Place>
void checkPlaces() {
  EXPECT_EQ(Place::query(0) % 1024, 0U);
  EXPECT_EQ(Place::query(1) % 1024, 0U);
  for (int stage = 0; stage < Place::kStages; ++stage) {
    EXPECT_EQ(Place::tile(stage, 0) % 1024, 0U);
    EXPECT_EQ(Place::masks(stage) % 16, 0U);
    EXPECT_EQ(Place::full(stage) % 8, 0U);
    EXPECT_EQ(Place::empty(stage) % 8, 0U);
    EXPECT_EQ(Place::turn(stage % 2) % 8, 0U);
  }
  EXPECT_LT(Place::kBytes + 2048, 1U << 18U) << "addresses of a descriptor have 18 bits";
}

TEST(CudaHopper, PlacesAreAligned) {
  checkPlaces<1, hopper::MapLayout<1>>();
  checkPlaces<2, hopper::MapLayout<2>>();
  checkPlaces<1, hopper::AttendLayout<1>>();
  checkPlaces<2, hopper::AttendLayout<2>>();
}

template <class T>
double worstSplit(double least) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponent(static_cast<float>(std::log2(least)),
                                                 static_cast<float>(hopper::probabilityShift(T{})));
  double worst = 0;
  for (int i = 0; i < 50000; ++i) {
    const float a = std::exp2(exponent(random));
    const float b = i % 5 == 0 ? 0.0F : std::exp2(exponent(random));
    const hopper::Halves halves = hopper::splitPair(a, b, T{});
    const auto value = [&](unsigned shift) {
      return static_cast<double>(toFloat(T{static_cast<std::uint16_t>(halves.high >> shift)})) +
             static_cast<double>(toFloat(T{static_cast<std::uint16_t>(halves.low >> shift)}));
    };
    worst = std::max(worst, std::abs(value(0) - static_cast<double>(a)) / static_cast<double>(a));
    EXPECT_LE(std::abs(value(16) - static_cast<double>(b)), 0x1p-16 * static_cast<double>(b));
  }
  return worst;
}

TEST(CudaHopper, TwoNumbersHoldAProbability) {
  EXPECT_LE(worstSplit<cuda::Bf16Bits>(0x1p-60), 0x1p-16);
  // Relative to the largest, 2^15: 22 bits while the rest is a normal number, then an absolute 2^-25.
  EXPECT_LE(worstSplit<cuda::HalfBits>(0x1p-2), 0x1p-21);
  EXPECT_LE(worstSplit<cuda::HalfBits>(0x1p-9), 0x1p-16);
}

// ---- the emulated block finds what a device would hang on or race over
// ------------------------------------------------

struct OneState {
  float acc[64];
};
using Place = hopper::MapLayout<1>;

class CudaHopperPipeline : public ::testing::Test {
 protected:
  // A block whose copies come from zeros; feed and compute as the kernels' roles.
  template <class Feed, class Compute>
  std::string run(const Feed& feed, const Compute& compute, std::uint64_t seed = 0) {
    hopper::EmulatedBlock block(0, 0, Place::kBytes, seed);
    hopper::initBarriers<Place>(
        [&](std::uint32_t offset, std::uint32_t arrivals) { block.initBarrier(offset, arrivals); });
    const auto computing = [&](int role) {
      hopper::HostGroup<OneState> group(block, role);
      compute(group, role - 1);
      group.finish();
    };
    try {
      block.run({[&](int role) {
                   hopper::HostGroup<hopper::FeedState> group(block, role);
                   feed(group);
                 },
                 computing, computing});
    } catch (const std::exception& e) {
      return e.what();
    }
    return {};
  }
  void fill(auto& group, int tiles) const {
    hopper::Ring<Place> ring;
    for (int i = 0; i < tiles; ++i, ring.next()) {
      group.wait(Place::empty(ring.stage), ring.round ^ 1);
      group.arriveExpecting(Place::full(ring.stage), Place::kMatrixBytes);
      group.load(m_map, Place::tile(ring.stage, 0), Place::full(ring.stage), 0, 128 * i);
    }
  }
  static void clearQueries(auto& group, int consumer) {
    for (std::uint32_t at = 0; at < hopper::kQueryBoxBytes; at += 16) {
      group.storeTile(Place::query(consumer) + at, cuda::Words4{});
    }
  }
  static void multiply(auto& group, int consumer, int stage) {
    group.fenceProducts(scores);
    for (int step = 0; step < 4; ++step) {
      group.template multiply<cuda::HalfBits>(
          scores, hopper::rowsDescriptor(group.base() + Place::query(consumer), hopper::kQueryBoxBytes, step),
          hopper::rowsDescriptor(group.base() + Place::tile(stage, 0), hopper::kKeyBoxBytes, step), step > 0);
    }
    group.commitProducts();
  }
  static void drain(auto& group, int consumer, int tiles) {
    clearQueries(group, consumer);
    group.fenceStores();
    hopper::Ring<Place> ring;
    for (int i = 0; i < tiles; ++i, ring.next()) {
      group.wait(Place::full(ring.stage), ring.round);
      multiply(group, consumer, ring.stage);
      group.template waitProducts<0>(scores);
      group.each([](int, OneState& s) {
        for (const float x : s.acc) EXPECT_EQ(x, 0.0F);
      });
      group.arriveWarps(Place::empty(ring.stage));
    }
  }
  static constexpr auto scores = [](auto& s) -> float (&)[64] { return s.acc; };

  std::vector<std::uint16_t> m_zeros = std::vector<std::uint16_t>(std::size_t{64} * 2000, 0);
  hopper::EmulatedMap m_map{m_zeros.data(), 2000, 64};
};

TEST_F(CudaHopperPipeline, AnyOrderOfGroupsEnds) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    EXPECT_EQ(run([&](auto& group) { fill(group, 11); }, [](auto& group, int c) { drain(group, c, 11); }, seed), "");
  }
}

TEST_F(CudaHopperPipeline, AWaitForEverIsFound) {
  EXPECT_THAT(run([&](auto& group) { fill(group, 3); }, [](auto& group, int c) { drain(group, c, 4); }),
              HasSubstr("everybody waits for ever: group 1 at barrier"));
  // One of the two computing groups never hands its stages back.
  EXPECT_THAT(run([&](auto& group) { fill(group, 11); }, [](auto& group, int c) { drain(group, c, c == 0 ? 11 : 0); }),
              HasSubstr("everybody waits for ever: group 0 at barrier"));
}

TEST_F(CudaHopperPipeline, AStageReadTooEarlyIsFound) {
  EXPECT_THAT(run([&](auto& group) { fill(group, 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.fenceStores();
                    multiply(group, c, 0);
                    group.template waitProducts<0>(scores);
                  }),
              HasSubstr("a stage is read while a copy fills it"));
}

TEST_F(CudaHopperPipeline, AStageGivenBackTooEarlyIsFound) {
  EXPECT_THAT(run([&](auto& group) { fill(group, Place::kStages + 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.fenceStores();
                    group.wait(Place::full(0), 0);
                    multiply(group, c, 0);
                    group.arriveWarps(Place::empty(0));  // before the product was waited for
                    group.wait(Place::full(1), 0);
                    group.wait(Place::full(2), 0);
                    group.wait(Place::full(3), 0);
                    group.wait(Place::full(0), 1);
                    group.template waitProducts<0>(scores);
                    group.each([](int, OneState& s) { s.acc[0] = 0; });
                    group.wait(Place::full(1), 1);
                  }),
              Not(IsEmpty()));
  EXPECT_THAT(run([&](auto& group) { fill(group, Place::kStages + 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.fenceStores();
                    group.wait(Place::full(0), 0);
                    multiply(group, c, 0);
                    group.arriveWarps(Place::empty(0));
                    if (c == 0) group.wait(Place::full(1), 0);
                    // The feeding group has started the next copy into the stage by now.
                    for (int stage = 1; stage < Place::kStages; ++stage) group.arriveWarps(Place::empty(stage));
                    group.wait(Place::full(3), 0);
                    group.template waitProducts<0>(scores);
                  }),
              HasSubstr("a stage is read while a copy fills it"));
}

TEST_F(CudaHopperPipeline, MissingFencesAndWaitsAreFound) {
  EXPECT_THAT(run([&](auto& group) { fill(group, 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.wait(Place::full(0), 0);
                    multiply(group, c, 0);
                    group.template waitProducts<0>(scores);
                  }),
              HasSubstr("stores are read by the tensor cores without a fence"));
  EXPECT_THAT(run([&](auto& group) { fill(group, 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.fenceStores();
                    group.wait(Place::full(0), 0);
                    multiply(group, c, 0);
                    group.template waitProducts<1>(scores);
                  }),
              HasSubstr("sums are used that were not waited for"));
  EXPECT_THAT(run([&](auto& group) { fill(group, 1); },
                  [](auto& group, int c) {
                    clearQueries(group, c);
                    group.fenceStores();
                    group.wait(Place::full(0), 0);
                    group.fenceProducts(scores);
                    group.each([](int, OneState& s) { s.acc[0] = 1; });
                    group.template multiply<cuda::HalfBits>(
                        scores, hopper::rowsDescriptor(group.base(), hopper::kQueryBoxBytes, 0),
                        hopper::rowsDescriptor(group.base(), hopper::kKeyBoxBytes, 0), false);
                  }),
              HasSubstr("without a fence behind the last use of registers"));
}

// ---- the kernels as the backend runs them
// ----------------------------------------------------------------------------

class CudaHopperBackend : public ::testing::Test {
 protected:
  void SetUp() override { resetEmulatedCuda(); }
  void TearDown() override {
    unsetenv("SPARSIGHT_CUDA_PATH");
    forgetHopperCheck();
    resetEmulatedCuda();
  }
  static testing::OpCase opCase(DType dtype, Index dim, Index valueDim) {
    testing::OpCase c;
    c.name = "hopper";
    c.queries = 205;
    c.keys = 333;
    c.dim = dim;
    c.valueDim = valueDim;
    c.dtype = dtype;
    return c;
  }

  Executor m_executor{2};
};

TEST_F(CudaHopperBackend, EveryShapeAgreesWithTheOracle) {
  const auto backend = createEmulatedCudaBackend(m_executor);
  ASSERT_THAT(backend->info().detail, HasSubstr("Hopper kernels"));
  int n = 0;
  for (const Index dim : {16, 64, 72, 128}) {
    for (const Index valueDim : {16, 64, 128}) {
      testing::OpCase c = opCase(n % 2 == 0 ? DType::BF16 : DType::F16, dim, valueDim);
      c.keyPadding = n % 3 == 1;
      c.queryPadding = n % 4 == 1;
      c.denseMask = n % 5 == 2;
      c.scaleFactor = n % 4 == 3 ? -1.0 : 1.0;
      c.colBlocks = n % 2 == 0 ? testing::Blocks::Ragged : testing::Blocks::Even;
      SCOPED_TRACE(::testing::Message() << "head dimension " << dim << ", values " << valueDim);
      testing::checkLseMap(*backend, c);
      testing::checkTile(*backend, c);
      testing::checkAttend(*backend, c);
      ++n;
    }
  }
}

// Many small probabilities beside a large one: float16 would lose them without the shift.
TEST_F(CudaHopperBackend, SmallProbabilitiesCount) {
  const Index n = 4096;
  std::vector<std::uint16_t> q(16, 0);
  std::vector<std::uint16_t> k(static_cast<std::size_t>(n) * 16, 0);
  std::vector<std::uint16_t> v(static_cast<std::size_t>(n) * 16, 0x3C00);  // 1
  q[0] = 0x3C00;
  k[0] = 0x4C80;                                  // 18 above the rest: each is 2^-26 of the largest
  for (std::size_t c = 0; c < 16; ++c) v[c] = 0;  // and only the rest has values
  AttentionIn in;
  in.q = {reinterpret_cast<const std::byte*>(q.data()), 1, 16, 32, DType::F16};
  in.k = {reinterpret_cast<const std::byte*>(k.data()), n, 16, 32, DType::F16};
  in.v = {reinterpret_cast<const std::byte*>(v.data()), n, 16, 32, DType::F16};
  in.scale = 1.0;
  const auto backend = createEmulatedCudaBackend(m_executor);
  const std::vector<Index> rows{0};
  const AttendResult got = backend->attend(*backend->prepare(in, nullptr, {}), rows, {}, {});
  const double rest = static_cast<double>(n - 1) * std::exp(-18.0);
  EXPECT_NEAR(static_cast<double>(got.out[3]), rest / (1 + rest), 1e-4 * rest);
}

TEST_F(CudaHopperBackend, PaddingValuesMayBeAnything) {
  testing::OpCase c = opCase(DType::BF16, 64, 64);
  c.keyPadding = true;
  const auto head = testing::makeOpHead(c);
  std::vector<std::byte> v(head->v);
  for (Index key = 0; key < c.keys; ++key) {
    if (head->keyValid[static_cast<std::size_t>(key)] != 0) continue;
    for (Index col = 0; col < c.valueDim; ++col) {
      const std::uint16_t nan = 0x7FC0;
      std::memcpy(v.data() + (key * c.valueDim + col) * 2, &nan, sizeof nan);
    }
  }
  AttentionIn in = head->in;
  in.v.data = v.data();
  std::vector<Index> rows(static_cast<std::size_t>(c.queries));
  std::iota(rows.begin(), rows.end(), 0);
  const auto backend = createEmulatedCudaBackend(m_executor);
  const AttendResult got = backend->attend(*backend->prepare(in, nullptr, {}), rows, {}, {});
  const AttendResult want = backend->attend(*backend->prepare(head->in, nullptr, {}), rows, {}, {});
  EXPECT_EQ(got.out, want.out);
}

// Whatever group runs first and whenever copies arrive, the bits are the same; nothing hangs.
TEST_F(CudaHopperBackend, SameBitsInEveryOrder) {
  testing::OpCase c = opCase(DType::BF16, 64, 64);
  c.keyPadding = true;
  const auto head = testing::makeOpHead(c);
  const std::vector<Index> bounds = testing::makeBlocks(testing::Blocks::Ragged, c.queries);
  const std::vector<Index> cols = testing::makeBlocks(testing::Blocks::Even, c.keys);
  std::vector<Index> rows(static_cast<std::size_t>(c.queries));
  std::iota(rows.rbegin(), rows.rend(), 0);
  const std::vector<Interval> intervals{{0, 5}, {40, 200}, {201, 202}, {130, 260}, {300, 333}};
  const std::vector<Index> ptr{0, 3, 4, 4, 5};
  std::vector<Index> group(rows.size());
  for (std::size_t i = 0; i < group.size(); ++i) group[i] = static_cast<Index>(i / 50 % 4);
  std::vector<std::vector<float>> first;
  for (std::uint64_t seed = 0; seed < 300; seed += 37) {
    emulated::machine().hopperSeed = seed;
    const auto backend = createEmulatedCudaBackend(m_executor);
    const auto prepared = backend->prepare(head->in, nullptr, {});
    const LseMapResult map = backend->lseMap(*prepared, {bounds, cols, true, true}, {});
    const AttendResult attended = backend->attend(*prepared, rows, {ptr, intervals, group}, {});
    const std::vector<std::vector<float>> got{map.lse, map.mean, map.max, attended.out, attended.lse};
    if (first.empty()) first = got;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].size(), first[i].size());
      for (std::size_t n = 0; n < got[i].size(); ++n) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i][n]), std::bit_cast<std::uint32_t>(first[i][n])) << seed;
      }
    }
  }
}

TEST_F(CudaHopperBackend, BitsDoNotDependOnTheLaunches) {
  const testing::OpCase c = opCase(DType::F16, 128, 64);
  const auto head = testing::makeOpHead(c);
  const std::vector<Index> bounds = testing::makeBlocks(testing::Blocks::Ragged, c.queries);
  const std::vector<Index> cols{0, 1, 100, 101, 290, 290, 333};
  std::vector<Index> rows(static_cast<std::size_t>(c.queries));
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<Interval> intervals{{3, 140}, {200, 333}, {77, 78}};
  const std::vector<Index> ptr{0, 1, 2, 3};
  std::vector<Index> group(rows.size());
  for (std::size_t i = 0; i < group.size(); ++i) group[i] = static_cast<Index>(i % 64 / 22);
  std::vector<float> first;
  for (const auto& [work, bytes] :
       {std::pair{1e12, Index{1} << 28}, std::pair{1.0, Index{1} << 28}, std::pair{3e6, Index{1} << 28}}) {
    const auto backend = createEmulatedCudaBackend(work, bytes);
    const auto prepared = backend->prepare(head->in, nullptr, {});
    const LseMapResult map = backend->lseMap(*prepared, {bounds, cols, true, true}, {});
    std::vector<float> got = backend->attend(*prepared, rows, {ptr, intervals, group}, {}).out;
    got.insert(got.end(), map.mean.begin(), map.mean.end());
    got.insert(got.end(), map.max.begin(), map.max.end());
    if (first.empty()) first = got;
    ASSERT_EQ(got.size(), first.size());
    for (std::size_t n = 0; n < got.size(); ++n) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[n]), std::bit_cast<std::uint32_t>(first[n])) << n;
    }
  }
}

// ---- which path runs
// -------------------------------------------------------------------------------------------------

class CudaHopperChoice : public CudaHopperBackend {
 protected:
  std::string refused(const char* path) {
    EXPECT_EQ(setenv("SPARSIGHT_CUDA_PATH", path, 1), 0);
    std::string message;
    try {
      static_cast<void>(createEmulatedCudaBackend(m_executor));
      ADD_FAILURE() << path << " was accepted";
    } catch (const Error& e) {
      // Not a device error: auto would take the CPU without a word.
      EXPECT_EQ(e.code(), ErrorCode::InvalidArgument);
      message = e.what();
    }
    unsetenv("SPARSIGHT_CUDA_PATH");
    return message;
  }
  std::string detail() { return createEmulatedCudaBackend(m_executor)->info().detail; }
};

TEST_F(CudaHopperChoice, OnlyAtCapabilityNine) {
  EXPECT_THAT(detail(), HasSubstr("tensor cores with Hopper kernels"));
  for (const auto& [major, minor] : {std::pair{8, 0}, std::pair{8, 9}, std::pair{10, 0}, std::pair{12, 0}}) {
    emulated::machine().major = major;
    emulated::machine().minor = minor;
    EXPECT_THAT(detail(), Not(HasSubstr("Hopper")));
    EXPECT_THAT(refused("hopper"), HasSubstr("needs compute capability 9.0, the device has " + std::to_string(major)));
  }
}

TEST_F(CudaHopperChoice, ForcedPaths) {
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_PATH", "mma", 1), 0);
  EXPECT_THAT(detail(), Not(HasSubstr("Hopper")));
  ASSERT_EQ(setenv("SPARSIGHT_CUDA_PATH", "hopper", 1), 0);
  EXPECT_THAT(detail(), HasSubstr("tensor cores with Hopper kernels"));
  unsetenv("SPARSIGHT_CUDA_PATH");
  EXPECT_THAT(refused("wgmma"), HasSubstr("use auto, portable, mma or hopper"));
}

TEST_F(CudaHopperChoice, NotBuiltIsNamed) {
  emulated::machine().hopperBuilt = false;
  EXPECT_THAT(detail(), HasSubstr("tensor cores (Hopper kernels not built"));
  EXPECT_THAT(createEmulatedCudaBackend(m_executor)->takeFallbacks(), IsEmpty()) << "the program is as it was built";
  EXPECT_THAT(refused("hopper"), HasSubstr("not built: 90 or 90a is not among"));
}

// Launches of the check, behind the trial kernel: 2 types x 2 widths x (map, attention) x (portable, Hopper).
TEST_F(CudaHopperChoice, AKernelThatFailsIsSwitchedOff) {
  for (int launch = 1; launch <= 16; ++launch) {
    for (const bool late : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "launch " << launch << (late ? ", late" : ""));
      forgetHopperCheck();
      emulated::machine().launchesUntilFailure = launch;
      emulated::machine().failsLate = late;
      emulated::machine().launchError = cudaErrorIllegalInstruction;
      const auto backend = createEmulatedCudaBackend(m_executor);
      EXPECT_THAT(backend->info().detail, HasSubstr("tensor cores (Hopper kernels off: self check: emulated failure"));
      EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("Hopper kernels off (self check: ")));
      testing::checkLseMap(*backend, opCase(DType::BF16, 64, 64));
      EXPECT_THAT(refused("hopper"), HasSubstr("cannot be used (self check: "));
    }
  }
  EXPECT_TRUE(emulated::machine().allocations.empty());
}

TEST_F(CudaHopperChoice, AKernelThatIsRefusedIsSwitchedOff) {
  forgetHopperCheck();
  emulated::machine().launchesUntilFailure = 2;
  emulated::machine().launchError = cudaErrorLaunchOutOfResources;
  EXPECT_THAT(detail(), HasSubstr("self check: emulated failure (cudaErrorLaunchOutOfResources)"));
  EXPECT_THAT(detail(), HasSubstr("self check: ")) << "found out once per process";
}

TEST_F(CudaHopperChoice, ADeviceThatDoesNotComeBackIsADeviceError) {
  forgetHopperCheck();
  emulated::machine().launchesUntilFailure = 2;
  emulated::machine().launchError = cudaErrorIllegalInstruction;
  emulated::machine().survivesReset = false;
  try {
    static_cast<void>(createEmulatedCudaBackend(m_executor));
    ADD_FAILURE() << "the device is lost";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::Device);
  }
}

TEST_F(CudaHopperChoice, WrongResultsAreSwitchedOff) {
  forgetHopperCheck();
  emulated::machine().hopperWrong = true;
  const auto backend = createEmulatedCudaBackend(m_executor);
  EXPECT_THAT(backend->info().detail,
              HasSubstr("off: self check: row sums of bfloat16 at dimension 64 differ from the portable"));
  EXPECT_THAT(backend->takeFallbacks(), ElementsAre(HasSubstr("differ from the portable kernels'")));
}

TEST_F(CudaHopperChoice, ACheckWithoutMemoryIsNamed) {
  forgetHopperCheck();
  emulated::machine().allocationsUntilFailure = 3;  // the trial kernel's is the first
  EXPECT_THAT(detail(), HasSubstr("self check: cuda: check of the Hopper kernels"));
}

}  // namespace
}  // namespace sparsight
