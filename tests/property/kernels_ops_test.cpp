// SPDX-License-Identifier: Apache-2.0
// Laws that hold for every shape; tried by RapidCheck where it is installed, else by a loop over seeds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/cpu_backend.h"
#include "tests/support/backend_ops_cases.h"
#ifdef SPARSIGHT_HAVE_RAPIDCHECK
#include <rapidcheck.h>
#endif

namespace sparsight {
namespace {

using testing::OpCase;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Numbers of one trial.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : m_state(seed) {}
  Index below(Index n) {
    m_state = m_state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<Index>((m_state >> 33U) % static_cast<std::uint64_t>(n));
  }

 private:
  std::uint64_t m_state;
};

/// Runs law(seed) many times; a failing seed is printed.
template <class Law>
void forManySeeds(const char* name, const Law& law) {
#ifdef SPARSIGHT_HAVE_RAPIDCHECK
  EXPECT_TRUE(rc::check(name, [&](std::uint16_t seed) { RC_ASSERT(law(seed)); }));
#else
  for (std::uint64_t seed = 0; seed < 100; ++seed) EXPECT_TRUE(law(seed)) << name << ", seed " << seed;
#endif
}

OpCase drawCase(Draw& draw) {
  OpCase c;
  c.queries = 1 + draw.below(150);
  c.keys = 1 + draw.below(250);
  c.dim = 1 + draw.below(40);
  c.valueDim = 1 + draw.below(40);
  c.dtype = static_cast<DType>(draw.below(3));
  c.scores = static_cast<testing::Scores>(draw.below(7));
  c.keyPadding = draw.below(3) == 0;
  c.queryPadding = draw.below(3) == 0;
  c.denseMask = draw.below(4) == 0;
  return c;
}

std::vector<Index> drawBounds(Draw& draw, Index size) {
  std::vector<Index> bounds{0};
  const Index longest = 1 + draw.below(size);
  while (bounds.back() < size) bounds.push_back(std::min(size, bounds.back() + draw.below(longest + 1)));
  return bounds;
}

/// Every `step`-th edge, and the last.
std::vector<Index> coarser(const std::vector<Index>& bounds, std::size_t step) {
  std::vector<Index> out;
  for (std::size_t i = 0; i + 1 < bounds.size(); i += step) out.push_back(bounds[i]);
  out.push_back(bounds.back());
  return out;
}

std::vector<Index> allRows(Index rows) {
  std::vector<Index> list(at(rows));
  std::iota(list.begin(), list.end(), Index{0});
  return list;
}

bool close(float a, float b, float relative) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b)) + 1e-35F;
}

bool closeTo(const std::vector<float>& a, const std::vector<float>& b, float absolute) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (a[i] != b[i] && !(std::abs(a[i] - b[i]) <= absolute)) return false;
  }
  return true;
}

class KernelsOps : public ::testing::Test {
 protected:
  Executor m_executor{2};
  std::unique_ptr<Backend> m_backend = createCpuBackend(m_executor);
};

TEST_F(KernelsOps, AParentCellIsTheReductionOfItsChildren) {
  constexpr std::size_t kRowStep = 2;
  constexpr std::size_t kColStep = 3;
  forManySeeds("a parent cell is the area-weighted mean and the maximum of its children", [&](std::uint64_t seed) {
    Draw draw(seed);
    OpCase c = drawCase(draw);
    c.keyPadding = c.queryPadding = c.denseMask = false;  // the area of a cell is then a plain product
    const auto head = testing::makeOpHead(c, seed);
    const auto prepared = m_backend->prepare(head->in, head, {});
    const std::vector<Index> rows = drawBounds(draw, c.queries);
    const std::vector<Index> cols = drawBounds(draw, c.keys);
    const std::vector<Index> parentRows = coarser(rows, kRowStep);
    const std::vector<Index> parentCols = coarser(cols, kColStep);
    const LseMapResult children = m_backend->lseMap(*prepared, {rows, cols, true, true}, {});
    const LseMapResult parents = m_backend->lseMap(*prepared, {parentRows, parentCols, true, true}, {});
    for (std::size_t pr = 0; pr + 1 < parentRows.size(); ++pr) {
      for (std::size_t pc = 0; pc + 1 < parentCols.size(); ++pc) {
        double sum = 0;
        double area = 0;
        float max = std::nanf("");
        for (std::size_t r = kRowStep * pr; r < std::min(rows.size() - 1, kRowStep * (pr + 1)); ++r) {
          for (std::size_t k = kColStep * pc; k < std::min(cols.size() - 1, kColStep * (pc + 1)); ++k) {
            const std::size_t cell = r * (cols.size() - 1) + k;
            const auto cellArea = static_cast<double>((rows[r + 1] - rows[r]) * (cols[k + 1] - cols[k]));
            if (cellArea == 0) continue;
            sum += static_cast<double>(children.mean[cell]) * cellArea;
            area += cellArea;
            max = std::fmax(max, children.max[cell]);
          }
        }
        const std::size_t parent = pr * (parentCols.size() - 1) + pc;
        const float mean = area > 0 ? static_cast<float>(sum / area) : std::nanf("");
        if (!close(parents.mean[parent], mean, 4e-6F) || !close(parents.max[parent], max, 4e-6F)) return false;
      }
    }
    return true;
  });
}

TEST_F(KernelsOps, TheProbabilitiesOfARowAddUpToOne) {
  forManySeeds("the probabilities of a row add up to one", [&](std::uint64_t seed) {
    Draw draw(seed);
    const OpCase c = drawCase(draw);
    const auto head = testing::makeOpHead(c, seed);
    const auto prepared = m_backend->prepare(head->in, head, {});
    const std::vector<float> lse = m_backend->lseMap(*prepared, {}, {}).lse;
    const Index row = draw.below(c.queries);
    const TileRect wholeRow{row, row + 1, 0, c.keys, 1, c.keys};
    double sum = 0;
    for (const float p : m_backend->tile(*prepared, lse, wholeRow, Reduce::Mean, {})) {
      sum += std::isnan(p) ? 0.0 : static_cast<double>(p);
    }
    if (!std::isfinite(lse[at(row)])) return sum == 0;
    // The LSE is stored in float32: of a logit of 1e4 it keeps 1e-3.
    return std::abs(sum - 1) <= 2e-5 + 2e-7 * std::abs(static_cast<double>(lse[at(row)]));
  });
}

TEST_F(KernelsOps, AttendingToIntervalsThatCoverAllIsDense) {
  forManySeeds("attending to intervals that cover every key is dense attention", [&](std::uint64_t seed) {
    Draw draw(seed);
    const OpCase c = drawCase(draw);
    const auto head = testing::makeOpHead(c, seed);
    const auto prepared = m_backend->prepare(head->in, head, {});
    const std::vector<Index> rows = allRows(c.queries);
    const AttendResult dense = m_backend->attend(*prepared, rows, {}, {});
    std::vector<Index> ptr{0};
    std::vector<Interval> intervals;
    std::vector<Index> group;
    const Index groups = 1 + draw.below(8);
    for (Index g = 0; g < groups; ++g) {
      const std::vector<Index> bounds = drawBounds(draw, c.keys);
      for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
        if (bounds[i] < bounds[i + 1]) intervals.push_back({bounds[i], bounds[i + 1]});
      }
      ptr.push_back(static_cast<Index>(intervals.size()));
    }
    for (Index r = 0; r < c.queries; ++r) group.push_back(draw.below(groups));
    const AttendResult cut = m_backend->attend(*prepared, rows, {ptr, intervals, group}, {});
    return closeTo(cut.out, dense.out, 1e-5F) && closeTo(cut.lse, dense.lse, 4e-3F) && cut.count == dense.count;
  });
}

TEST_F(KernelsOps, AttendingToTheTopOfAllKeysIsDense) {
  forManySeeds("attending to the top of all keys is dense attention", [&](std::uint64_t seed) {
    Draw draw(seed);
    const OpCase c = drawCase(draw);
    const auto head = testing::makeOpHead(c, seed);
    const auto prepared = m_backend->prepare(head->in, head, {});
    const std::vector<Index> rows = allRows(c.queries);
    const std::vector<Index> counts(rows.size(), c.keys);
    const AttendResult dense = m_backend->attend(*prepared, rows, {}, {});
    const AttendResult top = m_backend->attendTop(*prepared, rows, counts, {});
    return closeTo(top.out, dense.out, 1e-5F) && closeTo(top.lse, dense.lse, 4e-3F) && top.count == dense.count;
  });
}

TEST_F(KernelsOps, TheGlobalSelectionOfOneRowIsItsTop) {
  forManySeeds("the global selection over one row keeps that row's top", [&](std::uint64_t seed) {
    Draw draw(seed);
    const OpCase c = drawCase(draw);
    const auto head = testing::makeOpHead(c, seed);
    const auto prepared = m_backend->prepare(head->in, head, {});
    const std::vector<Index> row{draw.below(c.queries)};
    const std::vector<Index> count{draw.below(c.keys + 3)};
    const AttendResult top = m_backend->attendTop(*prepared, row, count, {});
    const GlobalTop global = m_backend->globalTop(*prepared, row, count[0], {});
    return global.count[0] == top.count[0] && close(global.threshold, top.threshold[0], 5e-3F);
  });
}

}  // namespace
}  // namespace sparsight
