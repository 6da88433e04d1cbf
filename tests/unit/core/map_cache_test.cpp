// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/map_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "sparsight/core/attention_map.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;

constexpr Index kPlenty = Index{1} << 30;

CachedMap sample(Index rows, Index cells, float seed) {
  CachedMap map;
  map.rows = rows;
  map.cellRows = map.cellCols = cells;
  for (Index i = 0; i < rows; ++i) map.lse.push_back(seed + static_cast<float>(i));
  map.lse[0] = -std::numeric_limits<float>::infinity();
  for (Index i = 0; i < cells * cells; ++i) {
    map.mean.push_back(seed * 0.5F + static_cast<float>(i));
    map.max.push_back(seed * 2.0F + static_cast<float>(i));
  }
  map.computedBy = "cpu";
  return map;
}
ContentHash keyOf(std::uint64_t n) { return {n, ~n}; }
std::vector<fs::path> filesIn(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}
void age(const fs::path& file, int minutes) {
  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::minutes(minutes));
}

class MapCacheTest : public testing::Test {
 protected:
  TemporaryFolder m_folder;
  fs::path m_maps = m_folder.path() / "maps";
};

TEST_F(MapCacheTest, WhatWasStoredComesBackToAnotherProcess) {
  const CachedMap map = sample(100, 5, 3.0F);
  ASSERT_TRUE(MapCache(m_maps, kPlenty).store(keyOf(1), map));
  MapCache other(m_maps, kPlenty);
  const auto found = other.find(keyOf(1), 100);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->lse, map.lse);
  EXPECT_EQ(found->mean, map.mean);
  EXPECT_EQ(found->max, map.max);
  EXPECT_EQ(found->cellRows, 5);
  EXPECT_EQ(found->computedBy, "cpu");
  EXPECT_FALSE(other.find(keyOf(2), 100).has_value());
  EXPECT_FALSE(other.find(keyOf(1), 101).has_value()) << "of another number of rows";
  EXPECT_EQ(filesIn(m_maps).size(), 1U) << "no temporary file is left";
}

TEST_F(MapCacheTest, DamagedFilesAreMissingAndReplaced) {
  MapCache cache(m_maps, kPlenty);
  const CachedMap map = sample(64, 4, 1.0F);
  ASSERT_TRUE(cache.store(keyOf(1), map));
  const fs::path file = filesIn(m_maps).front();
  std::string good;
  {
    std::ifstream in(file, std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(in), {});
  }
  const auto write = [&](const std::string& content) { std::ofstream(file, std::ios::binary) << content; };
  std::vector<std::string> bad{"", "x", good.substr(0, 40), good.substr(0, good.size() - 1), good + "y"};
  for (const std::size_t place : {std::size_t{0}, std::size_t{9}, std::size_t{20}, std::size_t{33}, std::size_t{45},
                                  std::size_t{60}, std::size_t{75}, std::size_t{90}, good.size() - 1}) {
    bad.push_back(good);
    bad.back()[place] = static_cast<char>(bad.back()[place] ^ 0x40);
  }
  for (const std::string& content : bad) {
    write(content);
    EXPECT_FALSE(cache.find(keyOf(1), 64).has_value()) << content.size() << " bytes";
    ASSERT_TRUE(cache.store(keyOf(1), map));
    EXPECT_TRUE(cache.find(keyOf(1), 64).has_value());
  }
  // A file under another one's name is not taken for it.
  fs::copy_file(file, m_maps / (keyOf(7).hex() + ".map"));
  EXPECT_FALSE(cache.find(keyOf(7), 64).has_value());
}

TEST_F(MapCacheTest, TheLimitDropsWhatWasNotUsedForLongest) {
  const CachedMap map = sample(1000, 2, 1.0F);
  MapCache cache(m_maps, kPlenty);
  for (std::uint64_t n = 1; n <= 4; ++n) {
    ASSERT_TRUE(cache.store(keyOf(n), map));
    age(m_maps / (keyOf(n).hex() + ".map"), static_cast<int>(100 - 10 * n));
  }
  const Index each = cache.bytes() / 4;
  ASSERT_TRUE(cache.find(keyOf(1), 1000).has_value()) << "a hit counts as use";
  cache.setLimit(2 * each);
  EXPECT_EQ(cache.bytes(), 2 * each);
  EXPECT_TRUE(cache.find(keyOf(1), 1000).has_value());
  EXPECT_FALSE(cache.find(keyOf(2), 1000).has_value());
  EXPECT_FALSE(cache.find(keyOf(3), 1000).has_value());
  EXPECT_TRUE(cache.find(keyOf(4), 1000).has_value());
  ASSERT_TRUE(cache.store(keyOf(5), map));
  EXPECT_LE(cache.bytes(), 2 * each);
  EXPECT_TRUE(cache.find(keyOf(5), 1000).has_value()) << "the newest stays";
  EXPECT_FALSE(cache.store(keyOf(6), sample(5000, 2, 1.0F))) << "alone above the limit";
  EXPECT_TRUE(cache.find(keyOf(5), 1000).has_value());
}

TEST_F(MapCacheTest, SwitchedOffNothingIsReadOrWritten) {
  ASSERT_TRUE(MapCache(m_maps, kPlenty).store(keyOf(1), sample(10, 1, 1.0F)));
  MapCache off(m_maps, 0);
  EXPECT_FALSE(off.find(keyOf(1), 10).has_value());
  EXPECT_FALSE(off.store(keyOf(2), sample(10, 1, 1.0F)));
  EXPECT_EQ(filesIn(m_maps).size(), 1U);
}

TEST_F(MapCacheTest, AFolderThatVanishesOrCannotBeWrittenIsAnEmptyCache) {
  MapCache cache(m_maps, kPlenty);
  EXPECT_FALSE(cache.find(keyOf(1), 10).has_value());
  EXPECT_FALSE(fs::exists(m_maps)) << "reading makes no folder";
  ASSERT_TRUE(cache.store(keyOf(1), sample(10, 1, 1.0F)));
  fs::remove_all(m_maps);
  EXPECT_FALSE(cache.find(keyOf(1), 10).has_value());
  EXPECT_TRUE(cache.store(keyOf(1), sample(10, 1, 1.0F))) << "made again";
  std::ofstream(m_folder.path() / "file") << "x";
  MapCache blocked(m_folder.path() / "file", kPlenty);
  EXPECT_FALSE(blocked.store(keyOf(1), sample(10, 1, 1.0F)));
  EXPECT_FALSE(blocked.find(keyOf(1), 10).has_value());
}

TEST_F(MapCacheTest, ClearRemovesOnlyItsOwnFilesAndOldLeftovers) {
  MapCache cache(m_maps, kPlenty);
  ASSERT_TRUE(cache.store(keyOf(1), sample(10, 1, 1.0F)));
  std::ofstream(m_maps / "notes.txt") << "mine";
  std::ofstream(m_maps / ".a.1-1.tmp") << "of a crash";
  std::ofstream(m_maps / ".b.1-1.tmp") << "being written";
  age(m_maps / ".a.1-1.tmp", 90);
  EXPECT_GT(cache.clear(), 0);
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_TRUE(fs::exists(m_maps / "notes.txt"));
  EXPECT_FALSE(fs::exists(m_maps / ".a.1-1.tmp"));
  EXPECT_TRUE(fs::exists(m_maps / ".b.1-1.tmp"));
  EXPECT_EQ(filesIn(m_maps).size(), 2U);
}

TEST_F(MapCacheTest, ManyWritersAndReadersOfOneFolderSeeWholeMaps) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0}, hits{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      MapCache cache(m_maps, 12'000);  // room for a few: dropping races with reading
      for (int i = 0; i < 60; ++i) {
        const auto n = static_cast<std::uint64_t>((i + t) % 5);
        cache.store(keyOf(n), sample(500, 3, static_cast<float>(n)));
        const auto found = cache.find(keyOf((n + 2) % 5), 500);
        if (!found) continue;
        ++hits;
        if (found->lse != sample(500, 3, static_cast<float>((n + 2) % 5)).lse) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(hits.load(), 0);
}

// ---------------------------------------------------------------- with maps

struct Head {
  std::vector<float> q, k;
  std::vector<std::uint8_t> valid;
  HeadData data;
  explicit Head(Index n, unsigned seed = 1) : q(static_cast<std::size_t>(n) * 6), k(q.size()) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& x : q) x = normal(random);
    for (float& x : k) x = normal(random);
    data.input.q = viewOf(q, n, 6);
    data.input.k = viewOf(k, n, 6);
    data.input.scale = 0.5;
    data.bytes = static_cast<Index>(2 * q.size() * sizeof(float));
  }
};

TEST_F(MapCacheTest, AMapComesBackExactWithoutComputing) {
  Head head(700);
  head.valid.assign(700, 1);
  std::fill(head.valid.begin() + 650, head.valid.end(), std::uint8_t{0});
  head.data.input.keyValid = head.data.input.queryValid = head.valid;
  const auto backend = createReferenceBackend();
  const auto cache = std::make_shared<MapCache>(m_maps, kPlenty);
  AttentionMap first(head.data);
  first.setCache(cache);
  EXPECT_FALSE(first.restore({}));
  first.build(*backend, {});
  EXPECT_FALSE(first.fromCache());
  first.remember();
  first.remember();
  EXPECT_EQ(filesIn(m_maps).size(), 1U);

  AttentionMap again(head.data);
  again.setCache(cache);
  ASSERT_TRUE(again.restore({}));
  EXPECT_TRUE(again.exact());
  EXPECT_TRUE(again.fromCache());
  ASSERT_EQ(again.rowLse().size(), 700U);
  for (std::size_t r = 0; r < 700; ++r) {
    const float want = first.rowLse()[r], got = again.rowLse()[r];
    EXPECT_TRUE(want == got || (std::isnan(want) && std::isnan(got))) << r;
  }
  for (int z = again.coarseLevel(); z <= again.maxLevel(); ++z) {
    for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
      const auto want = first.coarseTile({z, 0, 0, reduce}), got = again.coarseTile({z, 0, 0, reduce});
      EXPECT_FALSE(got->approximate);
      for (std::size_t i = 0; i < want->cells.size(); ++i) {
        EXPECT_TRUE(want->cells[i] == got->cells[i] || (std::isnan(want->cells[i]) && std::isnan(got->cells[i])));
      }
    }
  }
  again.remember();
  EXPECT_EQ(filesIn(m_maps).size(), 1U);
}

/// As a trace would describe the head.
HeadOutline outlineOf(const HeadData& head) {
  HeadOutline outline{head, matrixHash(head.input.q), matrixHash(head.input.k)};
  outline.head.input.q.data = outline.head.input.k.data = nullptr;
  return outline;
}

TEST_F(MapCacheTest, AnOutlineIsEnoughForAKnownMapAndTensorsComeWhenNeeded) {
  Head head(700);
  head.valid.assign(700, 1);
  std::fill(head.valid.begin() + 650, head.valid.end(), std::uint8_t{0});
  head.data.input.keyValid = head.data.input.queryValid = head.valid;
  std::vector<Index> order(700);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>((i * 3) % 700);
  const auto backend = createReferenceBackend();
  const auto cache = std::make_shared<MapCache>(m_maps, kPlenty);
  for (const std::vector<Index>& kOrder : {std::vector<Index>{}, order}) {
    AttentionMap first(head.data, {}, kOrder);
    first.setCache(cache);
    EXPECT_TRUE(first.loaded());
    first.build(*backend, {});
    first.remember();

    int loads = 0;
    AttentionMap late(
        outlineOf(head.data),
        [&](const std::stop_token&) {
          ++loads;
          return head.data;
        },
        {}, kOrder);
    late.setCache(cache);
    ASSERT_TRUE(late.restore({}));
    for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
      const int z = late.coarseLevel();
      const auto want = first.coarseTile({z, 0, 0, reduce}), got = late.coarseTile({z, 0, 0, reduce});
      ASSERT_EQ(want->cells.size(), got->cells.size());
      for (std::size_t i = 0; i < want->cells.size(); ++i) {
        EXPECT_TRUE(want->cells[i] == got->cells[i] || (std::isnan(want->cells[i]) && std::isnan(got->cells[i]))) << i;
      }
    }
    EXPECT_FALSE(late.readoutIfKnown(3, 4)) << "its row is known, but neither q nor k";
    EXPECT_FALSE(late.loaded());
    EXPECT_EQ(loads, 0);

    const PairReadout want = first.readout(3, 4, *backend, {}), got = late.readout(3, 4, *backend, {});
    EXPECT_EQ(got.probability, want.probability);
    EXPECT_EQ(got.logit, want.logit);
    EXPECT_EQ(got.key, want.key);
    EXPECT_TRUE(late.readoutIfKnown(3, 4));
    const TileKey fine{0, 1, 1, Reduce::Max};
    const auto a = first.computeTile(fine, *backend, {}), b = late.computeTile(fine, *backend, {});
    for (std::size_t i = 0; i < a->cells.size(); ++i) {
      EXPECT_TRUE(a->cells[i] == b->cells[i] || (std::isnan(a->cells[i]) && std::isnan(b->cells[i]))) << i;
    }
    EXPECT_EQ(loads, 1);
    const Index before = late.bytes();
    late.trim();
    EXPECT_FALSE(late.loaded());
    EXPECT_LE(late.bytes(), before - head.data.bytes);
    EXPECT_EQ(late.loadedHead({})->input.q.rows, 700);
    EXPECT_EQ(loads, 2);
  }
}

TEST_F(MapCacheTest, TensorsThatChangedBehindAnOutlineAreRefused) {
  const Head head(300), other(300, 2), shorter(200);
  const auto backend = createReferenceBackend();
  for (const Head* found : {&other, &shorter}) {
    AttentionMap late(outlineOf(head.data), [&](const std::stop_token&) { return found->data; });
    try {
      late.build(*backend, {});
      ADD_FAILURE() << "a map of another head";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::Format);
      EXPECT_THAT(error.what(), testing::HasSubstr("changed while the trace was open; open it again"));
    }
    EXPECT_FALSE(late.loaded());
  }
}

TEST_F(MapCacheTest, WhateverTheMapDependsOnIsInItsName) {
  const Head head(300), other(300, 2);
  const AttentionIn& in = head.data.input;
  std::set<ContentHash> names;
  const auto add = [&](const AttentionIn& input, std::vector<Index> qOrder = {}, std::vector<Index> kOrder = {}) {
    EXPECT_TRUE(names.insert(mapContentHash(input, qOrder, kOrder)).second) << names.size();
  };
  add(in);
  AttentionIn changed = in;
  changed.scale = 0.25;
  add(changed);
  changed = in;
  changed.q = other.data.input.q;
  add(changed);
  changed = in;
  changed.k = other.data.input.k;
  add(changed);
  std::vector<std::uint8_t> valid(300, 1);
  valid[7] = 0;
  changed = in;
  changed.keyValid = valid;
  add(changed);
  changed = in;
  changed.queryValid = valid;
  add(changed);
  std::vector<std::uint8_t> mask(300 * 300, 1);
  changed = in;
  changed.denseMask = mask;
  add(changed);
  std::vector<Index> order(300);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(order.size() - 1 - i);
  add(in, order);
  add(in, {}, order);
  add(in, order, order);
  changed = in;
  changed.v = other.data.input.q;
  EXPECT_EQ(mapContentHash(changed, {}, {}), mapContentHash(in, {}, {})) << "values have no part in a map";
}

TEST_F(MapCacheTest, RegionsUseTheRowLseOfAnEarlierPass) {
  const Head head(400);
  const auto backend = createReferenceBackend();
  MapCache cache(m_maps, kPlenty);
  std::vector<Index> order(400);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>((i * 7) % 400);
  for (const bool reordered : {false, true}) {
    const std::vector<Index> q = reordered ? order : std::vector<Index>{};
    const TileRect part{20, 200, 100, 333, 31, 47};
    bool used = true;
    const auto plain = mapRegion(head.data, part, Reduce::Max, q, {}, *backend, {}, &cache, &used);
    EXPECT_FALSE(used) << "nothing is known yet, and a part of the rows leaves nothing";
    (void)mapRegion(head.data, {0, 400, 0, 400, 10, 10}, Reduce::Mean, q, {}, *backend, {}, &cache, &used);
    EXPECT_FALSE(used);
    const auto cached = mapRegion(head.data, part, Reduce::Max, q, {}, *backend, {}, &cache, &used);
    EXPECT_TRUE(used);
    ASSERT_EQ(cached.size(), plain.size());
    for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(cached[i], plain[i], 1e-5F * plain[i] + 1e-12F) << i;
    // An LSE without a coarse map is no map for the window.
    AttentionMap map(head.data, q);
    map.setCache(std::make_shared<MapCache>(m_maps, kPlenty));
    EXPECT_FALSE(map.restore({}));
    map.build(*backend, {});
    map.remember();
    AttentionMap again(head.data, q);
    again.setCache(std::make_shared<MapCache>(m_maps, kPlenty));
    EXPECT_TRUE(again.restore({})) << "the whole map took the place of the LSE alone";
  }
}

}  // namespace
}  // namespace sparsight
