// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>
#include <thread>

#include "cpu/cpu_backend.h"
#include "tests/support/backend_ops_cases.h"

namespace sparsight {
namespace {

using testing::OpCase;

// --- The table: every case, on every instruction set of this CPU -----------------------------------------------------

class BackendOpsTable : public ::testing::TestWithParam<std::tuple<const char*, std::size_t>> {};

TEST_P(BackendOpsTable, AgreesWithTheOracle) {
  const auto [simd, index] = GetParam();
  const cpu::SimdKernels* const kernels = cpu::findSimdKernels(simd);
  if (kernels == nullptr) GTEST_SKIP() << "this CPU has no " << simd;
  Executor executor(2);
  const auto backend = createCpuBackend(executor, *kernels);
  testing::checkAllOps(*backend, testing::opCases()[index]);
}

INSTANTIATE_TEST_SUITE_P(BackendOpsTable, BackendOpsTable,
                         ::testing::Combine(::testing::Values("baseline", "avx2", "avx512", "avx512bf16"),
                                            ::testing::Range(std::size_t{0}, testing::opCases().size())),
                         [](const auto& param) {
                           return fmt::format("{}_{}", std::get<0>(param.param),
                                              testing::opCases()[std::get<1>(param.param)].name);
                         });

class BackendOps : public ::testing::Test {
 protected:
  static OpCase big() {
    OpCase c;
    c.queries = 333;
    c.keys = 777;
    c.dim = 24;
    c.valueDim = 40;
    c.dtype = DType::F16;
    c.scores = testing::Scores::Peaked;
    return c;
  }
  static std::vector<Index> allRows(Index rows) {
    std::vector<Index> list(static_cast<std::size_t>(rows));
    std::iota(list.begin(), list.end(), Index{0});
    return list;
  }
};

// --- Ties
// --------------------------------------------------------------------------------------------------------------

/// One query, keys with the logits that are listed; value of key n is n.
struct TieHead {
  explicit TieHead(std::vector<float> logits, Index queryRows = 1) : k(std::move(logits)) {
    q.assign(static_cast<std::size_t>(queryRows), 1.0F);
    v.resize(k.size());
    std::iota(v.begin(), v.end(), 0.0F);
    const auto keys = static_cast<Index>(k.size());
    in.q = viewOf(q, queryRows, 1);
    in.k = viewOf(k, keys, 1);
    in.v = viewOf(v, keys, 1);
  }
  std::vector<float> q, k, v;
  AttentionIn in;
};

TEST_F(BackendOps, AttendTopTakesTheLowestKeyOfATie) {
  const TieHead head({2, 5, 2, 5, 2, 1, 2});
  Executor executor(1);
  for (const auto& backend : {createCpuBackend(executor), createReferenceBackend()}) {
    const auto prepared = backend->prepare(head.in, nullptr, {});
    const std::vector<Index> rows{0};
    // Kept: keys 1 and 3 (logit 5), then of the equal keys 0, 2, 4, 6 the lowest ones.
    const auto expected = [&](const std::vector<int>& keys) {
      double weights = 0;
      double sum = 0;
      for (const int key : keys) {
        const double w = std::exp(static_cast<double>(head.k[static_cast<std::size_t>(key)]));
        weights += w;
        sum += w * key;
      }
      return static_cast<float>(sum / weights);
    };
    const std::vector<std::vector<int>> order{{1}, {1, 3}, {0, 1, 3}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}};
    for (const auto& keys : order) {
      const std::vector<Index> counts{static_cast<Index>(keys.size())};
      const AttendResult got = backend->attendTop(*prepared, rows, counts, {});
      EXPECT_EQ(got.count[0], counts[0]);
      EXPECT_NEAR(got.out[0], expected(keys), 1e-5F) << backend->info().id << ", " << keys.size() << " keys";
    }
  }
}

TEST_F(BackendOps, GlobalTopTakesTheLowestRowThenTheLowestKeyOfATie) {
  // Four equal rows of one large and three equal small probabilities.
  const TieHead head({0, 3, 0, 0}, 4);
  Executor executor(2);
  for (const auto& backend : {createCpuBackend(executor), createReferenceBackend()}) {
    const auto prepared = backend->prepare(head.in, nullptr, {});
    const std::vector<Index> rows{2, 0, 3};
    const auto counts = [&](Index total) { return backend->globalTop(*prepared, rows, total, {}).count; };
    EXPECT_EQ(counts(2), (std::vector<Index>{1, 1, 0}));
    EXPECT_EQ(counts(3), (std::vector<Index>{1, 1, 1}));
    EXPECT_EQ(counts(5), (std::vector<Index>{3, 1, 1}));
    EXPECT_EQ(counts(8), (std::vector<Index>{4, 3, 1}));
    EXPECT_EQ(counts(99), (std::vector<Index>{4, 4, 4}));
  }
}

TEST_F(BackendOps, KeysForMassIsInclusive) {
  const TieHead head(std::vector<float>(100, 1.25F));
  Executor executor(1);
  for (const auto& backend : {createCpuBackend(executor), createReferenceBackend()}) {
    const auto prepared = backend->prepare(head.in, nullptr, {});
    const std::vector<Index> rows{0};
    const auto keys = [&](double mass) { return backend->rowStats(*prepared, rows, mass, {}).keysForMass[0]; };
    EXPECT_EQ(keys(0.0), 0);
    EXPECT_EQ(keys(0.001), 1);
    EXPECT_EQ(keys(0.25), 25) << "25 of 100 equal keys reach exactly a quarter";
    EXPECT_EQ(keys(0.2500001), 26);
    EXPECT_EQ(keys(0.95), 95);
    EXPECT_EQ(keys(1.0), 100);
  }
}

// --- Degenerate rows -------------------------------------------------------------------------------------------------

TEST_F(BackendOps, ARowWithoutKeysAndAPaddingRow) {
  TieHead head({1, 2, 3}, 3);
  const std::vector<std::uint8_t> mask{1, 1, 1, 0, 0, 0, 1, 1, 1};
  const std::vector<std::uint8_t> queryValid{1, 1, 0};
  head.in.denseMask = mask;
  head.in.queryValid = queryValid;
  Executor executor(1);
  for (const auto& backend : {createCpuBackend(executor), createReferenceBackend()}) {
    SCOPED_TRACE(backend->info().id);
    const auto prepared = backend->prepare(head.in, nullptr, {});
    const std::vector<Index> rows{0, 1, 2};
    const std::vector<Index> bounds{0, 1, 2, 3};
    const LseMapResult map = backend->lseMap(*prepared, {bounds, bounds, true, true}, {});
    EXPECT_TRUE(std::isfinite(map.lse[0]));
    EXPECT_EQ(map.lse[1], -std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isnan(map.lse[2]));
    for (std::size_t cell = 3; cell < 9; ++cell) {
      EXPECT_TRUE(std::isnan(map.mean[cell]) && std::isnan(map.max[cell])) << cell;
    }
    const std::vector<Index> counts{2, 2, 2};
    for (const AttendResult& got :
         {backend->attend(*prepared, rows, {}, {}), backend->attendTop(*prepared, rows, counts, {})}) {
      EXPECT_EQ(got.out[1], 0.0F);
      EXPECT_EQ(got.out[2], 0.0F);
      EXPECT_EQ(got.lse[1], -std::numeric_limits<float>::infinity());
      EXPECT_TRUE(std::isnan(got.lse[2]));
      EXPECT_EQ(got.count[1], 0);
      EXPECT_EQ(got.count[2], 0);
    }
    const RowStats stats = backend->rowStats(*prepared, rows, 0.9, {});
    EXPECT_EQ(stats.keysForMass, (std::vector<Index>{2, 0, 0}));
    EXPECT_TRUE(std::isnan(stats.entropyBits[1]) && std::isnan(stats.top1[1]));
    EXPECT_EQ(backend->globalTop(*prepared, rows, 100, {}).count, (std::vector<Index>{3, 0, 0}));
  }
}

TEST_F(BackendOps, NoValidKeyAtAll) {
  TieHead head({1, 2, 3}, 2);
  const std::vector<std::uint8_t> keyValid{0, 0, 0};
  head.in.keyValid = keyValid;
  Executor executor(1);
  const auto backend = createCpuBackend(executor);
  const auto prepared = backend->prepare(head.in, nullptr, {});
  const std::vector<Index> rows{0, 1};
  const std::vector<Index> rowBounds{0, 2};
  const std::vector<Index> colBounds{0, 1, 3};
  const LseMapResult map = backend->lseMap(*prepared, {rowBounds, colBounds, true, true}, {});
  EXPECT_EQ(map.lse[0], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(map.mean[0]) && std::isnan(map.max[1]));
  EXPECT_EQ(backend->attend(*prepared, rows, {}, {}).out, (std::vector<float>{0, 0}));
  EXPECT_EQ(backend->globalTop(*prepared, rows, 3, {}).count, (std::vector<Index>{0, 0}));
  EXPECT_EQ(backend->rowStats(*prepared, rows, 0.5, {}).keysForMass, (std::vector<Index>{0, 0}));
}

// --- Threads, stop, errors -------------------------------------------------------------------------------------------

TEST_F(BackendOps, ResultsDoNotDependOnTheThreads) {
  OpCase c = big();
  for (const auto& [dtype, masked] : {std::pair{DType::F16, false}, {DType::F16, true}, {DType::BF16, false}}) {
    c.dtype = dtype;
    c.denseMask = c.keyPadding = masked;
    const auto head = testing::makeOpHead(c);
    const std::vector<Index> rows = allRows(c.queries);
    const std::vector<Index> bounds = testing::makeBlocks(testing::Blocks::Ragged, c.queries);
    const std::vector<Index> few{0, c.queries};
    const std::vector<Index> colBounds = testing::makeBlocks(testing::Blocks::Even, c.keys);
    const std::vector<Index> counts(rows.size(), c.keys / 5);
    const TileRect rect{3, 300, 10, 700, 31, 17};

    struct Everything {
      LseMapResult map, strip;
      std::vector<float> tile;
      AttendResult dense, top;
      RowStats stats;
      GlobalTop global;
      ClusterResult clusters, profiles;
    };
    const auto run = [&](int threads) {
      Executor executor(threads);
      const auto backend = createCpuBackend(executor);
      const auto prepared = backend->prepare(head->in, head, {});
      Everything all;
      all.map = backend->lseMap(*prepared, {bounds, colBounds, true, true}, {});
      all.strip = backend->lseMap(*prepared, {few, colBounds, true, true}, {});
      all.tile = backend->tile(*prepared, all.map.lse, rect, Reduce::Mean, {});
      all.dense = backend->attend(*prepared, rows, {}, {});
      all.top = backend->attendTop(*prepared, rows, counts, {});
      all.stats = backend->rowStats(*prepared, rows, 0.9, {});
      all.global = backend->globalTop(*prepared, rows, c.queries * c.keys / 7, {});
      std::vector<float> centroids(static_cast<std::size_t>(40 * c.dim));
      for (std::size_t i = 0; i < centroids.size(); ++i) centroids[i] = static_cast<float>(i * 37 % 101) / 50.0F - 1.0F;
      all.clusters = backend->cluster(*prepared, {Side::Key, 0, c.keys, centroids}, {});
      all.profiles = backend->cluster(
          *prepared, {Side::Query, 5, c.queries - 5, centroids, Distance::Cosine, all.clusters.means}, {});
      return all;
    };
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    const Everything one = run(1);
    for (const int threads : {2, 7}) {
      const Everything many = run(threads);
      EXPECT_TRUE(same(one.map.lse, many.map.lse));
      EXPECT_TRUE(same(one.map.mean, many.map.mean));
      EXPECT_TRUE(same(one.map.max, many.map.max));
      EXPECT_TRUE(same(one.strip.mean, many.strip.mean));
      EXPECT_TRUE(same(one.strip.max, many.strip.max));
      EXPECT_TRUE(same(one.tile, many.tile));
      EXPECT_TRUE(same(one.dense.out, many.dense.out));
      EXPECT_TRUE(same(one.dense.lse, many.dense.lse));
      EXPECT_TRUE(same(one.top.out, many.top.out));
      EXPECT_TRUE(same(one.top.threshold, many.top.threshold));
      EXPECT_TRUE(same(one.stats.entropyBits, many.stats.entropyBits));
      EXPECT_EQ(one.stats.keysForMass, many.stats.keysForMass);
      EXPECT_EQ(one.global.count, many.global.count);
      EXPECT_EQ(one.global.threshold, many.global.threshold);
      EXPECT_EQ(one.clusters.labels, many.clusters.labels);
      EXPECT_TRUE(same(one.clusters.means, many.clusters.means));
      EXPECT_EQ(one.profiles.labels, many.profiles.labels);
      EXPECT_TRUE(same(one.profiles.means, many.profiles.means));
    }
  }
}

TEST_F(BackendOps, ARowsResultDoesNotDependOnItsNeighbours) {
  const OpCase c = big();
  const auto head = testing::makeOpHead(c);
  Executor executor(2);
  const auto backend = createCpuBackend(executor);
  const auto prepared = backend->prepare(head->in, head, {});
  const RowStats all = backend->rowStats(*prepared, allRows(c.queries), 0.9, {});
  const AttendResult dense = backend->attend(*prepared, allRows(c.queries), {}, {});
  for (const Index row : {Index{0}, Index{17}, Index{100}, c.queries - 1}) {
    const auto r = static_cast<std::size_t>(row);
    const std::vector<Index> alone{row};
    EXPECT_EQ(backend->rowStats(*prepared, alone, 0.9, {}).lse[0], all.lse[r]);
    EXPECT_EQ(backend->attend(*prepared, alone, {}, {}).lse[0], dense.lse[r]);
  }
}

/// Asks for a stop from another thread after 30 ms and returns how long the operation then took to give up.
template <class Operation>
double secondsToStop(const Operation& operation) {
  std::stop_source source;
  const Control control{source.get_token(), {}};
  std::atomic<std::chrono::steady_clock::time_point> asked{std::chrono::steady_clock::time_point{}};
  const std::jthread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    asked = std::chrono::steady_clock::now();
    source.request_stop();
  });
  EXPECT_THROW(operation(control), Cancelled);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - asked.load()).count();
}

TEST_F(BackendOps, EveryOperationStopsSoon) {
  OpCase c;
  c.queries = 4096;
  c.keys = 60000;
  c.dim = 64;
  c.valueDim = 64;
  c.dtype = DType::BF16;
  const auto head = testing::makeOpHead(c);
  Executor executor(2);
  // The slowest set: whatever it manages, the others do. The promise to the user is half a second; the bound here
  // leaves room for a busy machine.
  const auto backend = createCpuBackend(executor, *cpu::findSimdKernels("baseline"));
  const auto prepared = backend->prepare(head->in, head, {});
  const std::vector<Index> rows = allRows(c.queries);
  const std::vector<Index> counts(rows.size(), 1000);
  const std::vector<Index> rowBounds = testing::makeBlocks(testing::Blocks::Even, c.queries);
  const std::vector<Index> colBounds = testing::makeBlocks(testing::Blocks::Ragged, c.keys);
  const std::vector<float> lse(rows.size(), 11.0F);
  const std::vector<float> centroids(static_cast<std::size_t>(4096 * c.dim), 0.5F);
  constexpr double kPromise = 2.0;
  EXPECT_LT(secondsToStop([&](const Control& control) {
              static_cast<void>(backend->cluster(*prepared, {Side::Key, 0, c.keys, centroids}, control));
            }),
            kPromise);
  EXPECT_LT(secondsToStop([&](const Control& control) {
              static_cast<void>(backend->lseMap(*prepared, {rowBounds, colBounds, true, true}, control));
            }),
            kPromise);
  EXPECT_LT(
      secondsToStop([&](const Control& control) {
        static_cast<void>(backend->tile(*prepared, lse, {0, c.queries, 0, c.keys, 64, 64}, Reduce::Mean, control));
      }),
      kPromise);
  EXPECT_LT(
      secondsToStop([&](const Control& control) { static_cast<void>(backend->attend(*prepared, rows, {}, control)); }),
      kPromise);
  EXPECT_LT(secondsToStop([&](const Control& control) {
              static_cast<void>(backend->attendTop(*prepared, rows, counts, control));
            }),
            kPromise);
  EXPECT_LT(secondsToStop(
                [&](const Control& control) { static_cast<void>(backend->rowStats(*prepared, rows, 0.95, control)); }),
            kPromise);
  EXPECT_LT(secondsToStop([&](const Control& control) {
              static_cast<void>(backend->globalTop(*prepared, rows, 1000000, control));
            }),
            kPromise);
}

TEST_F(BackendOps, ProgressGrowsToOne) {
  const OpCase c = big();
  const auto head = testing::makeOpHead(c);
  Executor executor(1);
  const auto backend = createCpuBackend(executor);
  const auto prepared = backend->prepare(head->in, head, {});
  std::vector<double> seen;
  const Control control{{}, [&](double fraction) { seen.push_back(fraction); }};
  static_cast<void>(backend->globalTop(*prepared, allRows(c.queries), 1000, control));
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_DOUBLE_EQ(seen.back(), 1.0);
}

TEST_F(BackendOps, ShapesThatDoNotFitAreRefused) {
  const OpCase c = big();
  const auto head = testing::makeOpHead(c);
  Executor executor(1);
  const auto refused = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.code() == ErrorCode::InvalidArgument;
    }
    return false;
  };
  for (const auto& backend : {createCpuBackend(executor), createReferenceBackend()}) {
    SCOPED_TRACE(backend->info().id);
    AttentionIn bad = head->in;
    bad.k.cols = 25;
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->prepare(bad, nullptr, {})); }));
    bad = head->in;
    bad.v.rows -= 1;
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->prepare(bad, nullptr, {})); }));
    bad = head->in;
    const std::vector<std::uint8_t> flags(5, 1);
    bad.keyValid = flags;
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->prepare(bad, nullptr, {})); }));
    bad = head->in;
    bad.scale = std::nan("");
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->prepare(bad, nullptr, {})); }));

    const auto prepared = backend->prepare(head->in, head, {});
    const std::vector<Index> falling{0, 9, 5, c.queries};
    const std::vector<Index> cols{0, c.keys};
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->lseMap(*prepared, {falling, cols}, {})); }));
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->lseMap(*prepared, {cols, cols}, {})); }));
    const std::vector<Index> outside{0, c.queries};
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->attend(*prepared, outside, {}, {})); }));
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->rowStats(*prepared, outside, 0.5, {})); }));
    const std::vector<Index> row{0};
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->rowStats(*prepared, row, 1.5, {})); }));
    const std::vector<Index> ptr{0, 2};
    const std::vector<Interval> overlapping{{0, 5}, {4, 9}};
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->attend(*prepared, row, {ptr, overlapping, {}}, {})); }));
    const std::vector<Interval> beyond{{0, 5}, {6, c.keys + 1}};
    EXPECT_TRUE(refused([&] { static_cast<void>(backend->attend(*prepared, row, {ptr, beyond, {}}, {})); }));
    const std::vector<float> lse(static_cast<std::size_t>(c.queries), 0.0F);
    EXPECT_TRUE(refused([&] {
      static_cast<void>(backend->lseMap(*prepared, {{}, {}, true, true, std::span(lse).first(3)}, {}));
    }));
    const std::vector<float> centroids(static_cast<std::size_t>(2 * c.dim), 0.5F);
    for (const ClusterRequest& request :
         {ClusterRequest{Side::Key, 0, c.keys + 1, centroids}, ClusterRequest{Side::Key, 0, 0, centroids},
          ClusterRequest{Side::Key, -1, 3, centroids}, ClusterRequest{Side::Key, 0, 3, std::span(centroids).first(5)},
          ClusterRequest{Side::Key, 0, 3, {}},
          ClusterRequest{Side::Key, 0, 3, centroids, Distance::Euclid, centroids}}) {
      EXPECT_TRUE(refused([&] { static_cast<void>(backend->cluster(*prepared, request, {})); }));
    }
    EXPECT_TRUE(refused([&] {
      static_cast<void>(backend->tile(*prepared, lse, {0, c.queries, 5, 5, 1, 1}, Reduce::Max, {}));
    }));
    EXPECT_TRUE(refused([&] {
      static_cast<void>(backend->tile(*prepared, std::span(lse).first(3), {0, 1, 0, 1, 1, 1}, Reduce::Max, {}));
    }));
  }
  const auto foreign = createReferenceBackend()->prepare(head->in, head, {});
  EXPECT_TRUE(refused([&] { static_cast<void>(createCpuBackend(executor)->lseMap(*foreign, {}, {})); }));
}

}  // namespace
}  // namespace sparsight
