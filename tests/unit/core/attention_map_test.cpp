// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/attention_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

namespace sparsight {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

struct Fixture {
  Index nQ, nK, dim;
  std::vector<float> q, k;
  std::vector<std::uint8_t> keyValid, queryValid, mask;
  HeadData head;

  Fixture(Index rows, Index cols, Index headDim, unsigned seed = 1) : nQ(rows), nK(cols), dim(headDim) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    q.resize(at(rows * headDim));
    k.resize(at(cols * headDim));
    for (float& x : q) x = normal(random);
    for (float& x : k) x = normal(random);
    head.input.q = viewOf(q, rows, headDim);
    head.input.k = viewOf(k, cols, headDim);
    head.input.scale = 1.7 / std::sqrt(static_cast<double>(headDim));
  }
  void invalidKeys(Index first, Index last, bool queriesToo) {
    keyValid.assign(at(nK), 1);
    std::fill(keyValid.begin() + first, keyValid.begin() + last, std::uint8_t{0});
    head.input.keyValid = keyValid;
    if (queriesToo) {
      queryValid = keyValid;
      head.input.queryValid = queryValid;
    }
  }
  void maskPairs(const std::function<bool(Index, Index)>& kept) {
    mask.resize(at(nQ * nK));
    for (Index r = 0; r < nQ; ++r) {
      for (Index c = 0; c < nK; ++c) mask[at(r * nK + c)] = kept(r, c) ? 1 : 0;
    }
    head.input.denseMask = mask;
  }

  // Naive softmax in double, straight from the definition: p[row][key]; NaN where the pair is not valid.
  [[nodiscard]] std::vector<double> probabilities() const {
    std::vector<double> p(at(nQ * nK), std::numeric_limits<double>::quiet_NaN());
    for (Index r = 0; r < nQ; ++r) {
      if (!queryValid.empty() && queryValid[at(r)] == 0) continue;
      double sum = 0, largest = -1e300;
      std::vector<double> s(at(nK));
      const auto valid = [&](Index c) {
        return (keyValid.empty() || keyValid[at(c)] != 0) && (mask.empty() || mask[at(r * nK + c)] != 0);
      };
      for (Index c = 0; c < nK; ++c) {
        double dot = 0;
        for (Index d = 0; d < dim; ++d) dot += double{q[at(r * dim + d)]} * double{k[at(c * dim + d)]};
        s[at(c)] = dot * head.input.scale;
        if (valid(c)) largest = std::max(largest, s[at(c)]);
      }
      for (Index c = 0; c < nK; ++c) {
        if (valid(c)) sum += std::exp(s[at(c)] - largest);
      }
      for (Index c = 0; c < nK; ++c) {
        if (valid(c)) p[at(r * nK + c)] = std::exp(s[at(c)] - largest) / sum;
      }
    }
    return p;
  }
};

double pooled(const std::vector<double>& p, Index nK, Index r0, Index r1, Index c0, Index c1, Reduce reduce,
              const std::vector<Index>& qOrder = {}, const std::vector<Index>& kOrder = {}) {
  double sum = 0, largest = 0;
  Index count = 0;
  for (Index r = r0; r < r1; ++r) {
    for (Index c = c0; c < c1; ++c) {
      const Index row = qOrder.empty() ? r : qOrder[at(r)], key = kOrder.empty() ? c : kOrder[at(c)];
      const double value = p[at(row * nK + key)];
      if (std::isnan(value)) continue;
      sum += value;
      largest = std::max(largest, value);
      ++count;
    }
  }
  if (count == 0) return std::numeric_limits<double>::quiet_NaN();
  return reduce == Reduce::Mean ? sum / static_cast<double>(count) : largest;
}

void expectNear(float got, double want, const std::string& where) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << where << ": " << got;
  } else {
    EXPECT_NEAR(static_cast<double>(got), want, 1e-5 * want + 1e-12) << where;
  }
}

void expectTile(const Tile& tile, const Fixture& f, const std::vector<double>& p, const std::vector<Index>& qOrder = {},
                const std::vector<Index>& kOrder = {}) {
  const int z = tile.key.level;
  for (int r = 0; r < tile.cellRows; ++r) {
    for (int c = 0; c < tile.cellCols; ++c) {
      const Index row = (tile.key.tileY * kTileCells + r) << z, col = (tile.key.tileX * kTileCells + c) << z;
      const double want = pooled(p, f.nK, row, std::min(f.nQ, row + (Index{1} << z)), col,
                                 std::min(f.nK, col + (Index{1} << z)), tile.key.reduce, qOrder, kOrder);
      expectNear(tile.cells[at(r * tile.cellCols + c)], want,
                 "level " + std::to_string(z) + " cell " + std::to_string(r) + "," + std::to_string(c));
      if (testing::Test::HasFailure()) return;
    }
  }
}

class AttentionMapTest : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend = createReferenceBackend();
  Control control;
};

TEST_F(AttentionMapTest, GeometryOfLevels) {
  Fixture small(100, 200, 4);
  const AttentionMap one(small.head);
  EXPECT_EQ(one.coarseLevel(), 0);
  EXPECT_EQ(one.maxLevel(), 0);
  Fixture wide(300, 1100, 4);
  const AttentionMap map(wide.head);
  EXPECT_EQ(map.coarseLevel(), 2);  // 1100 / 4 = 275 <= 512, 1100 / 2 = 550 > 512
  EXPECT_EQ(map.maxLevel(), 3);
  EXPECT_EQ(map.cellCols(2), 275);
  EXPECT_EQ(map.cellRows(3), 38);
  EXPECT_EQ(map.tileCols(0), 5);
  EXPECT_EQ(map.tileRows(0), 2);
}

TEST_F(AttentionMapTest, TilesOfEveryLevelMatchTheDefinition) {
  Fixture f(531, 1037, 6);  // ragged at every level
  const auto p = f.probabilities();
  AttentionMap map(f.head);
  map.build(*backend, control);
  ASSERT_TRUE(map.exact());
  for (int z = 0; z <= map.maxLevel(); ++z) {
    for (Index y = 0; y < map.tileRows(z); ++y) {
      for (Index x = 0; x < map.tileCols(z); ++x) {
        for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
          if (z == 0 && x != map.tileCols(z) - 1) continue;  // the ragged ones of the finest level are enough
          const auto tile = map.computeTile({z, x, y, reduce}, *backend, control);
          ASSERT_NE(tile, nullptr);
          EXPECT_FALSE(tile->approximate);
          expectTile(*tile, f, p);
          ASSERT_FALSE(HasFailure());
        }
      }
    }
  }
}

TEST_F(AttentionMapTest, MaskedKeysPaddingRowsAndDenseMaskAreNoData) {
  Fixture f(520, 520, 5);
  f.invalidKeys(480, 520, true);
  f.maskPairs([](Index r, Index c) { return c <= r || (r / 64 == 3 && c > 400); });
  const auto p = f.probabilities();
  AttentionMap map(f.head);
  map.build(*backend, control);
  EXPECT_EQ(map.coarseLevel(), 1);
  bool sawNaN = false;
  for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
    for (int z = 0; z <= map.maxLevel(); ++z) {
      for (Index x = 0; x < map.tileCols(z); ++x) {
        const auto tile = map.computeTile({z, x, map.tileRows(z) - 1, reduce}, *backend, control);
        expectTile(*tile, f, p);
        sawNaN = sawNaN || std::any_of(tile->cells.begin(), tile->cells.end(), [](float v) { return std::isnan(v); });
        ASSERT_FALSE(HasFailure());
      }
    }
  }
  EXPECT_TRUE(sawNaN);
}

TEST_F(AttentionMapTest, ParentIsTheReductionOfItsChildren) {
  Fixture f(700, 1000, 4);
  AttentionMap map(f.head);
  map.build(*backend, control);
  const int z = map.coarseLevel() + 1;
  ASSERT_LE(z, map.maxLevel());
  const auto maxTile = map.coarseTile({z, 0, 0, Reduce::Max});
  const auto meanTile = map.coarseTile({z, 0, 0, Reduce::Mean});
  const auto child = [&](Index r, Index c, Reduce reduce) {
    const auto tile = map.coarseTile({z - 1, c / kTileCells, r / kTileCells, reduce});
    return tile->cells[at((r % kTileCells) * tile->cellCols + c % kTileCells)];
  };
  for (const auto& [r, c] : {std::pair<Index, Index>{0, 0}, {31, 7}, {100, 150}, {174, 249}}) {
    float largest = 0;
    double sum = 0, weight = 0;
    for (Index y = 2 * r; y < std::min(2 * r + 2, map.cellRows(z - 1)); ++y) {
      for (Index x = 2 * c; x < std::min(2 * c + 2, map.cellCols(z - 1)); ++x) {
        const Index side = Index{1} << (z - 1);
        const double pairs = static_cast<double>((std::min(f.nQ, (y + 1) * side) - y * side) *
                                                 (std::min(f.nK, (x + 1) * side) - x * side));
        largest = std::max(largest, child(y, x, Reduce::Max));
        sum += pairs * static_cast<double>(child(y, x, Reduce::Mean));
        weight += pairs;
      }
    }
    EXPECT_EQ(maxTile->cells[at(r * maxTile->cellCols + c)], largest);
    EXPECT_NEAR(static_cast<double>(meanTile->cells[at(r * meanTile->cellCols + c)]), sum / weight,
                1e-6 * sum / weight);
  }
}

TEST_F(AttentionMapTest, PreviewIsLabelledBoundedByTheExactMapAndReplacedByIt) {
  Fixture f(1100, 1100, 6);
  f.invalidKeys(1000, 1100, true);
  AttentionMap map(f.head);
  const TileKey key{map.coarseLevel(), 0, 0, Reduce::Max};
  EXPECT_EQ(map.coarseTile(key), nullptr) << "nothing to show yet";
  map.preview(*backend, control);
  EXPECT_FALSE(map.exact());
  EXPECT_TRUE(map.rowLse().empty());
  const auto rough = map.coarseTile(key);
  ASSERT_NE(rough, nullptr);
  EXPECT_TRUE(rough->approximate);
  map.build(*backend, control);
  const auto exact = map.coarseTile(key);
  EXPECT_FALSE(exact->approximate);
  EXPECT_EQ(map.rowLse().size(), 1100U);
  ASSERT_EQ(rough->cells.size(), exact->cells.size());
  for (std::size_t i = 0; i < exact->cells.size(); ++i) {
    EXPECT_EQ(std::isnan(rough->cells[i]), std::isnan(exact->cells[i])) << i;
    // A maximum over sampled rows is a lower bound of the maximum over all rows.
    if (!std::isnan(exact->cells[i])) {
      EXPECT_LE(rough->cells[i], exact->cells[i] * 1.0001F) << i;
    }
  }
  map.preview(*backend, control);
  EXPECT_FALSE(map.coarseTile(key)->approximate) << "a preview never replaces the exact map";
}

/// Half the absolute difference of two mean maps, summed over a cell row, averaged over the rows: what
/// PreviewInfo::misplacedMass estimates.
double misplaced(const AttentionMap& map, const std::vector<float>& rough, const std::vector<float>& exact) {
  const Index rows = map.cellRows(map.coarseLevel()), cols = map.cellCols(map.coarseLevel());
  double total = 0;
  Index counted = 0;
  for (Index r = 0; r < rows; ++r) {
    double difference = 0, mass = 0;
    for (Index c = 0; c < cols; ++c) {
      const float a = rough[at(r * cols + c)], b = exact[at(r * cols + c)];
      if (std::isnan(b)) continue;
      const Index first = c << map.coarseLevel();
      const auto keys = static_cast<double>(std::min(map.cols(), first + (Index{1} << map.coarseLevel())) - first);
      difference += keys * std::abs(static_cast<double>(a) - static_cast<double>(b));
      mass += keys * static_cast<double>(b);
    }
    if (!(mass > 0)) continue;
    total += difference / mass / 2;
    ++counted;
  }
  return total / static_cast<double>(counted);
}
std::vector<float> coarseMean(const AttentionMap& map) {
  const int z = map.coarseLevel();
  std::vector<float> cells(at(map.cellRows(z) * map.cellCols(z)));
  for (Index y = 0; y < map.tileRows(z); ++y) {
    for (Index x = 0; x < map.tileCols(z); ++x) {
      const auto tile = map.coarseTile({z, x, y, Reduce::Mean});
      for (int r = 0; r < tile->cellRows; ++r) {
        std::copy_n(tile->cells.begin() + r * tile->cellCols, tile->cellCols,
                    cells.begin() + (y * kTileCells + r) * map.cellCols(z) + x * kTileCells);
      }
    }
  }
  return cells;
}

TEST_F(AttentionMapTest, ErrorOfAPreviewBoundsTheTrueOneAndFollowsIt) {
  // From nearly uniform rows to rows that look at a few keys each: the error grows with the peaks.
  double last = 0;
  for (const double scale : {0.05, 0.4, 1.2}) {
    Fixture f(4096, 4096, 8, 5);
    f.head.input.scale = scale;
    std::vector<double> estimates;
    for (const Index perCell : {Index{1}, Index{2}, Index{4}}) {
      AttentionMap map(f.head);
      EXPECT_FALSE(map.previewInfo().has_value());
      const auto cpu = [] {
        static Executor executor(1);
        return createBackend("cpu", executor);
      }();
      map.preview(*cpu, control, perCell);
      const auto info = map.previewInfo();
      ASSERT_TRUE(info.has_value());
      EXPECT_GE(info->sampledRows, perCell * map.cellRows(map.coarseLevel()));
      const auto rough = coarseMean(map);
      map.build(*cpu, control);
      EXPECT_FALSE(map.previewInfo().has_value()) << "the exact map has no error to tell";
      const double truth = misplaced(map, rough, coarseMean(map));
      EXPECT_GT(info->misplacedMass, truth * 0.97) << "scale " << scale << ", " << perCell << " rows";
      EXPECT_LT(info->misplacedMass, truth * 3.0) << "scale " << scale << ", " << perCell << " rows";
      estimates.push_back(info->misplacedMass);
    }
    EXPECT_LT(estimates[2], estimates[1]) << "more rows, less error";
    EXPECT_GT(estimates[0], last) << "sharper rows, more error";
    last = estimates[0];
  }
}

TEST_F(AttentionMapTest, APreviewOfAllRowsHasNoErrorAndOneOfSingleRowsSaysThatItCannotTell) {
  Fixture f(700, 700, 4);  // two rows a cell
  AttentionMap all(f.head);
  all.preview(*backend, control, 4);
  EXPECT_EQ(all.previewInfo()->sampledRows, 700);
  EXPECT_EQ(all.previewInfo()->misplacedMass, 0.0);
  const auto rough = coarseMean(all);
  all.build(*backend, control);
  EXPECT_NEAR(misplaced(all, rough, coarseMean(all)), 0.0, 1e-6);
  Fixture tall(520, 700, 4);
  std::vector<std::uint8_t> valid(520, 0);
  valid[3] = valid[4] = valid[5] = 1;  // cell row 1 has two valid rows of which one is drawn
  tall.queryValid = valid;
  tall.head.input.queryValid = tall.queryValid;
  AttentionMap sparse(tall.head);
  sparse.preview(*backend, control, 1);
  EXPECT_EQ(sparse.previewInfo()->sampledRows, 2);
}

TEST_F(AttentionMapTest, ErrorOfAPreviewOnATrainedModel) {
  const auto path = std::filesystem::path(SPARSIGHT_TEST_DATA) / "traces" / "tinydit_a.h5";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << ": the case of a trained model did NOT run";
  const auto trace = openTrace(path);
  Executor executor(1);
  const auto cpu = createBackend("cpu", executor);
  Index heads = 0;
  double ratios = 0;
  for (const CallInfo& call : trace->info().calls) {
    for (const int head : call.heads) {
      AttentionMap map(trace->load({call.id, head}));
      map.preview(*cpu, control, 1);  // of four rows a cell
      const double estimate = map.previewInfo()->misplacedMass;
      const auto rough = coarseMean(map);
      map.build(*cpu, control);
      const double truth = misplaced(map, rough, coarseMean(map));
      // One cell row in eight is judged: a single head may be off by chance, all of them together may not.
      EXPECT_GT(estimate, truth * 0.7) << call.path << " head " << head;
      EXPECT_LT(estimate, truth * 2.5) << call.path << " head " << head;
      ratios += estimate / truth;
      ++heads;
    }
  }
  ASSERT_GT(heads, 0);
  EXPECT_GT(ratios / static_cast<double>(heads), 1.0);
  EXPECT_LT(ratios / static_cast<double>(heads), 2.0);
}

TEST_F(AttentionMapTest, FineTileBeforeBuildNeedsOnlyItsOwnRows) {
  Fixture f(1100, 1100, 6);
  const auto p = f.probabilities();
  AttentionMap map(f.head);
  const auto tile = map.computeTile({0, 2, 1, Reduce::Max}, *backend, control);
  EXPECT_FALSE(map.exact());
  EXPECT_FALSE(tile->approximate);
  expectTile(*tile, f, p);
  EXPECT_TRUE(map.readoutIfKnown(300, 5).has_value()) << "row 300 is in the tile";
  EXPECT_FALSE(map.readoutIfKnown(10, 5).has_value());
}

TEST_F(AttentionMapTest, ReadoutIsExactBeforeAndAfterBuild) {
  Fixture f(600, 640, 8);
  f.invalidKeys(620, 640, false);
  const auto p = f.probabilities();
  AttentionMap map(f.head);
  for (int pass = 0; pass < 2; ++pass) {
    for (const auto& [r, c] : {std::pair<Index, Index>{0, 0}, {17, 619}, {599, 3}}) {
      const PairReadout got = map.readout(r, c, *backend, control);
      EXPECT_EQ(got.row, r);
      EXPECT_EQ(got.key, c);
      EXPECT_TRUE(got.valid);
      const double want = p[at(r * f.nK + c)];
      EXPECT_NEAR(got.probability, want, 1e-5 * want);
      double dot = 0;
      for (Index d = 0; d < f.dim; ++d) dot += double{f.q[at(r * f.dim + d)]} * double{f.k[at(c * f.dim + d)]};
      EXPECT_NEAR(got.logit, dot * f.head.input.scale, 1e-9);
    }
    const PairReadout padding = map.readout(4, 630, *backend, control);
    EXPECT_FALSE(padding.valid);
    EXPECT_EQ(padding.probability, 0.0);
    map.build(*backend, control);
  }
  EXPECT_THROW((void)map.readout(600, 0, *backend, control), Error);
}

TEST_F(AttentionMapTest, ComputedOrderPermutesRowsAndKeys) {
  Fixture f(540, 560, 5);
  f.invalidKeys(100, 130, false);
  const auto p = f.probabilities();
  std::vector<Index> qOrder(540), kOrder(560);
  std::iota(qOrder.begin(), qOrder.end(), 0);
  std::iota(kOrder.begin(), kOrder.end(), 0);
  std::mt19937 random(3);
  std::shuffle(qOrder.begin(), qOrder.end(), random);
  std::shuffle(kOrder.begin(), kOrder.end(), random);
  AttentionMap map(f.head, qOrder, kOrder);
  map.build(*backend, control);
  expectTile(*map.computeTile({0, 1, 2, Reduce::Max}, *backend, control), f, p, qOrder, kOrder);
  expectTile(*map.computeTile({map.maxLevel(), 0, 0, Reduce::Mean}, *backend, control), f, p, qOrder, kOrder);
  const PairReadout got = map.readout(7, 9, *backend, control);
  EXPECT_EQ(got.row, qOrder[7]);
  EXPECT_EQ(got.key, kOrder[9]);
  EXPECT_EQ(map.queryRowAt(7), qOrder[7]);
  EXPECT_EQ(map.positionOfQueryRow(qOrder[7]), 7);
  EXPECT_EQ(map.positionOfKey(map.keyAt(33)), 33);
  EXPECT_NEAR(static_cast<double>(map.rowLse()[7]), got.logit - std::log(got.probability), 1e-4);
  kOrder[0] = kOrder[1];
  EXPECT_THROW(AttentionMap(f.head, qOrder, kOrder), Error) << "no permutation";
  kOrder.pop_back();
  EXPECT_THROW(AttentionMap(f.head, qOrder, kOrder), Error) << "of another head";
}

TEST_F(AttentionMapTest, TrimGivesMemoryBackAndKeepsTheMap) {
  Fixture f(900, 900, 16);
  std::vector<Index> order(900);
  std::iota(order.rbegin(), order.rend(), 0);
  AttentionMap map(f.head, order, order);
  map.build(*backend, control);
  const auto before = map.coarseTile({map.maxLevel(), 0, 0, Reduce::Max});
  const Index full = map.bytes();
  map.trim();
  EXPECT_LE(map.bytes(), full - 2 * 900 * 16 * 4);
  EXPECT_TRUE(map.exact());
  EXPECT_EQ(map.coarseTile({map.maxLevel(), 0, 0, Reduce::Max})->cells, before->cells);
  EXPECT_EQ(map.computeTile({0, 0, 0, Reduce::Max}, *backend, control)->cellRows, 256);
}

TEST_F(AttentionMapTest, RegionsOfAnyShapeMatchTheDefinition) {
  Fixture f(310, 290, 7);
  f.invalidKeys(250, 290, false);
  const auto p = f.probabilities();
  std::vector<Index> order(310);
  std::iota(order.rbegin(), order.rend(), 0);
  for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
    for (const bool reversed : {false, true}) {
      const std::vector<Index> qOrder = reversed ? order : std::vector<Index>{};
      for (const TileRect rect : {TileRect{0, 310, 0, 290, 17, 29}, TileRect{13, 200, 31, 32, 187, 1},
                                  TileRect{5, 9, 200, 290, 9, 45}, TileRect{309, 310, 0, 290, 1, 290}}) {
        const auto got = mapRegion(f.head, rect, reduce, qOrder, {}, *backend, control);
        ASSERT_EQ(static_cast<Index>(got.size()), rect.cellRows * rect.cellCols);
        for (Index i = 0; i < rect.cellRows; ++i) {
          for (Index j = 0; j < rect.cellCols; ++j) {
            const Index n = rect.row1 - rect.row0, m = rect.col1 - rect.col0;
            const double want =
                pooled(p, f.nK, rect.row0 + i * n / rect.cellRows, rect.row0 + (i + 1) * n / rect.cellRows,
                       rect.col0 + j * m / rect.cellCols, rect.col0 + (j + 1) * m / rect.cellCols, reduce, qOrder);
            expectNear(got[at(i * rect.cellCols + j)], want, std::to_string(i) + "," + std::to_string(j));
            ASSERT_FALSE(HasFailure());
          }
        }
      }
    }
  }
  const auto region = [&](TileRect rect) { (void)mapRegion(f.head, rect, Reduce::Max, {}, {}, *backend, control); };
  EXPECT_THROW(region({0, 311, 0, 290, 1, 1}), Error);
  EXPECT_THROW(region({10, 10, 0, 290, 1, 1}), Error);
  EXPECT_THROW(region({0, 310, 0, 290, 0, 1}), Error);
  EXPECT_THROW(region({0, 310, 0, 290, Index{1} << 40, Index{1} << 40}), Error);
}

TEST_F(AttentionMapTest, StopIsHonouredAndLeavesTheMapUsable) {
  Fixture f(600, 600, 4);
  AttentionMap map(f.head);
  std::stop_source source;
  source.request_stop();
  const Control stopped{source.get_token(), {}};
  EXPECT_THROW(map.preview(*backend, stopped), Cancelled);
  EXPECT_THROW(map.build(*backend, stopped), Cancelled);
  EXPECT_FALSE(map.exact());
  map.build(*backend, control);
  EXPECT_TRUE(map.exact());
}

TEST_F(AttentionMapTest, TilesAndReadoutsWhileBuilding) {
  Fixture f(700, 700, 4);
  const auto p = f.probabilities();
  AttentionMap map(f.head);
  std::thread builder([&] {
    const auto own = createReferenceBackend();
    map.build(*own, Control{});
  });
  for (int i = 0; i < 20; ++i) {
    const Index row = (i * 37) % 700;
    EXPECT_NEAR(map.readout(row, 3, *backend, control).probability, p[at(row * 700 + 3)], 1e-5 * p[at(row * 700 + 3)]);
    (void)map.coarseTile({map.maxLevel(), 0, 0, Reduce::Max});
  }
  expectTile(*map.computeTile({0, 1, 1, Reduce::Max}, *backend, control), f, p);
  builder.join();
  EXPECT_TRUE(map.exact());
  EXPECT_EQ(map.rowLse().size(), 700U);
}

}  // namespace
}  // namespace sparsight
