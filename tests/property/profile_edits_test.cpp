// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

#ifdef SPARSIGHT_HAVE_RAPIDCHECK
#include <rapidcheck/gtest.h>
#endif

namespace sparsight {
namespace {

/// Everything about a case follows from one seed, so that a failure is a number to type in.
class Case {
 public:
  explicit Case(std::uint64_t seed) : m_random(seed) {}
  int upTo(int n) { return static_cast<int>(m_random() % static_cast<std::uint64_t>(n)); }
  double fraction() { return std::uniform_real_distribution<double>(0, 1)(m_random); }

  Profile profile() {
    Profile p(1 + upTo(4), 1 + upTo(5), 1 + upTo(4), upTo(2) == 0 ? BudgetRole::KeptFloor : BudgetRole::TopMass);
    for (int s = 0; s < p.steps(); ++s) {
      for (int l = 0; l < p.layers(); ++l) {
        for (int h = 0; h < p.heads(); ++h) {
          const int kind = upTo(8);
          if (kind == 0) continue;  // a hole
          p.set({s, l, h}, kind == 1 ? 0.0 : kind == 2 ? 1.0 : fraction());
        }
      }
    }
    for (int l = 0; l < p.layers(); ++l) {
      if (upTo(4) == 0) p.setLayerLocked(l, true);
      if (upTo(4) == 0) p.setLayerNote(l, "note");
    }
    return p;
  }

  CellRange range(const Profile& p) {
    const auto pair = [this](int n) {
      const int a = upTo(n), b = upTo(n);
      return std::pair(std::min(a, b), std::max(a, b));
    };
    const auto [s0, s1] = pair(p.steps());
    const auto [l0, l1] = pair(p.layers());
    const auto [h0, h1] = pair(p.heads());
    return {s0, s1, l0, l1, h0, h1};
  }

  ProfileEdit edit(const Profile& p) {
    const CellRange r = range(p);
    switch (upTo(10)) {
      case 0:
        return edits::set(p, r, fraction());
      case 1:
        return edits::scale(p, r, 3 * fraction(), true);
      case 2:
        return edits::add(p, r, 2 * fraction() - 1, true);
      case 3:
        return edits::smooth(p, r, 1 + upTo(3));
      case 4:
        return edits::copyLayer(p, upTo(p.layers()), upTo(p.layers()), r);
      case 5:
        return edits::copyStep(p, upTo(p.steps()), upTo(p.steps()), r);
      case 6:
        return edits::fillHoles(p, r, fraction());
      case 7:
        return edits::setLayerMean(p, upTo(p.layers()), r, fraction());
      case 8:
        return edits::lockLayer(p, upTo(p.layers()), upTo(2) == 0);
      default:
        return edits::noteLayer(p, upTo(p.layers()), upTo(2) == 0 ? "" : "another");
    }
  }

 private:
  std::mt19937_64 m_random;
};

Profile applied(Profile p, const ProfileEdit& edit) {
  edit.apply(p);
  return p;
}

/// Runs `holds` on 1000 seeds: with RapidCheck where it is installed, else one after another.
void forSeeds(const std::function<void(std::uint64_t)>& holds) {
#ifdef SPARSIGHT_HAVE_RAPIDCHECK
  rc::check([&](std::uint64_t seed) {
    holds(seed);
    RC_ASSERT(!testing::Test::HasFailure());
  });
#endif
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    holds(seed);
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
  }
}

TEST(ProfileEdits, EditThenInverseIsTheIdentity) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    const ProfileEdit edit = c.edit(p);
    EXPECT_TRUE(applied(applied(p, edit), edit.inverse()) == p) << edit.label;
    EXPECT_TRUE(applied(p, edit.inverse().inverse()) == applied(p, edit)) << edit.label;
  });
}

TEST(ProfileEdits, MergingIsApplyingOneAfterAnother) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    Profile end = p;
    ProfileEdit merged;
    for (int i = 0; i < 5; ++i) {
      const ProfileEdit edit = c.edit(end);
      edit.apply(end);
      merged = merged.mergedWith(edit);
    }
    EXPECT_TRUE(applied(p, merged) == end);
    EXPECT_TRUE(applied(end, merged.inverse()) == p);
  });
}

TEST(ProfileEdits, MergingIsAssociative) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    const ProfileEdit a = c.edit(p);
    const Profile afterA = applied(p, a);
    const ProfileEdit b = c.edit(afterA);
    const ProfileEdit d = c.edit(applied(afterA, b));
    EXPECT_TRUE(applied(p, a.mergedWith(b).mergedWith(d)) == applied(p, a.mergedWith(b.mergedWith(d))));
  });
}

TEST(ProfileEdits, LockedLayersAndCellsOutsideTheRangeStay) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    const ProfileEdit edit = c.edit(p);
    for (const ProfileEdit::Cell& cell : edit.cells) {
      EXPECT_FALSE(p.layerLocked(cell.cell.layer)) << edit.label;
      EXPECT_TRUE(p.at(cell.cell) == cell.before) << edit.label;
      EXPECT_TRUE(cell.before != cell.after) << edit.label << ": a cell that does not change";
    }
  });
}

TEST(ProfileEdits, SetLayerMeanReachesEveryMean) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    Profile p = c.profile();
    const int layer = c.upTo(p.layers());
    p.setLayerLocked(layer, false);
    const double mean = c.fraction();
    const Profile after = applied(p, edits::setLayerMean(p, layer, CellRange::all(p), mean));
    const ProfileSummary summary = summariseLayer(after, layer);
    if (summary.count > 0) {
      EXPECT_NEAR(summary.mean, mean, 2e-9);
    }
    EXPECT_EQ(summary.holes, summariseLayer(p, layer).holes);
  });
}

TEST(ProfileEdits, FilesRoundTripAnyProfile) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    EXPECT_TRUE(parseProfileJson(formatProfileJson(p), "p") == p);
    const Profile full = fillForExport(p, FillPolicy::Value, c.fraction());
    const ProfileDiff diff = diffProfiles(parseSvooCsv(formatSvooCsv(full), "p").profile, full);
    EXPECT_EQ(diff.changed + diff.onlyA + diff.onlyB, 0);
  });
}

TEST(ProfileEdits, FillingKeepsWhatWasThereAndLeavesNoHole) {
  forSeeds([](std::uint64_t seed) {
    Case c(seed);
    const Profile p = c.profile();
    if (p.holeCount() == p.cellCount()) return;
    for (const FillPolicy policy : {FillPolicy::Nearest, FillPolicy::Hold, FillPolicy::Value}) {
      const Profile full = fillForExport(p, policy, 0.5);
      EXPECT_EQ(full.holeCount(), 0);
      EXPECT_EQ(diffProfiles(full, p).changed, 0);
      EXPECT_TRUE(summarise(full).max <= std::max(0.5, summarise(p).max));
    }
  });
}

}  // namespace
}  // namespace sparsight
