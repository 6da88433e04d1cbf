// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using testing::HasSubstr;

/// Runs f and returns the message of the Error it must throw.
template <class F>
std::string messageOf(const F& f, ErrorCode code = ErrorCode::InvalidArgument) {
  try {
    static_cast<void>(f());
  } catch (const Error& e) {
    EXPECT_EQ(errorCodeName(e.code()), errorCodeName(code)) << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "one line";
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// 2 steps x 4 layers x 3 heads; value = 0.1 layer + 0.01 head + 0.001 step.
Profile sample() {
  Profile p(2, 4, 3, BudgetRole::KeptTarget);
  for (int s = 0; s < 2; ++s) {
    for (int l = 0; l < 4; ++l) {
      for (int h = 0; h < 3; ++h) p.set({s, l, h}, 0.1 * l + 0.01 * h + 0.001 * s);
    }
  }
  return p;
}
Profile applied(Profile p, const ProfileEdit& edit) {
  edit.apply(p);
  return p;
}

TEST(Profile, BeginsAsHolesAndKeepsWhatItIsGiven) {
  Profile p(2, 3, 4, BudgetRole::KeptFloor);
  EXPECT_EQ(p.cellCount(), 24);
  EXPECT_EQ(p.holeCount(), 24);
  p.set({1, 2, 3}, 0.25);
  p.set({0, 0, 0}, 0.0);
  p.set({0, 0, 1}, 1.0);
  EXPECT_EQ(p.at({1, 2, 3}), 0.25);
  EXPECT_EQ(p.at({0, 0, 0}), 0.0) << "zero is a value, not a hole";
  EXPECT_EQ(p.at({0, 1, 0}), std::nullopt);
  EXPECT_EQ(p.at({2, 0, 0}), std::nullopt) << "outside";
  EXPECT_EQ(p.at({0, -1, 0}), std::nullopt);
  EXPECT_EQ(p.holeCount(), 21);
  p.set({1, 2, 3}, std::nullopt);
  EXPECT_EQ(p.holeCount(), 22);
}

TEST(Profile, RefusesWhatIsNoFractionOrOutside) {
  Profile p(1, 1, 1, BudgetRole::KeptTarget);
  for (const double bad :
       {-0.001, 1.001, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    messageOf([&] { return p.set({0, 0, 0}, bad), 0; });
  }
  EXPECT_THAT(messageOf([&] { return p.set({10, 0, 0}, 0.5), 0; }), HasSubstr("step index 10 (11th)"));
  EXPECT_EQ(p.holeCount(), 1);
  messageOf([] { return Profile(0, 1, 1, BudgetRole::KeptTarget); });
  messageOf([] { return Profile(1, -1, 1, BudgetRole::KeptTarget); });
  messageOf([] { return Profile(2000000000, 2000000000, 2000000000, BudgetRole::KeptTarget); });
}

TEST(Profile, SummariesIgnoreHolesAndCountThem) {
  Profile p = sample();
  p.set({0, 1, 0}, std::nullopt);
  const ProfileSummary layer = summariseLayer(p, 1, 0);
  EXPECT_EQ(layer.count, 2);
  EXPECT_EQ(layer.holes, 1);
  EXPECT_NEAR(layer.mean, 0.115, 1e-12);
  EXPECT_NEAR(layer.min, 0.11, 1e-12);
  EXPECT_NEAR(layer.max, 0.12, 1e-12);
  EXPECT_EQ(summarise(p).count, 23);
  const ProfileSummary none = summarise(Profile(1, 1, 1, BudgetRole::KeptTarget));
  EXPECT_EQ(none.count, 0);
  EXPECT_EQ(none.mean, 0);
  EXPECT_EQ(none.max, 0);
  EXPECT_EQ(summarise(Profile()).count, 0);
}

TEST(Profile, LocksAndNotesBelongToLayers) {
  Profile p = sample();
  EXPECT_FALSE(p.layerLocked(2));
  p.setLayerLocked(2, true);
  p.setLayerNote(3, "text heads");
  EXPECT_TRUE(p.layerLocked(2));
  EXPECT_EQ(p.layerNote(3), "text heads");
  p.setLayerNote(3, "");
  EXPECT_EQ(p.layerNote(3), "");
  EXPECT_FALSE(p.layerLocked(99));
  messageOf([&] { return p.setLayerLocked(4, true), 0; });
}

TEST(ProfileEdits, SetNamesWhatItDoes) {
  Profile p(50, 40, 40, BudgetRole::KeptFloor);
  EXPECT_EQ(edits::set(p, {0, 49, 12, 18, 0, 39}, 0.24).label, "Set kept of L12-L18 to 24 %");
  EXPECT_EQ(edits::set(p, {0, 49, 17, 17, 3, 3}, 0.245).label, "Set kept of L17 (H3) to 24.5 %");
  EXPECT_EQ(edits::set(p, {4, 9, 0, 39, 0, 39}, 0.0079).label, "Set kept of all layers (step index 4-9) to 0.79 %");
  EXPECT_EQ(edits::set(p, {4, 4, 0, 0, 1, 2}, 1).label, "Set kept of L0 (H1-H2, step index 4) to 100 %");
  p.role = BudgetRole::TopMass;
  EXPECT_EQ(edits::set(p, {0, 49, 1, 1, 0, 39}, 0.9).label, "Set top mass of L1 to 90 %");
}

TEST(ProfileEdits, TouchOnlyTheirRangeAndNoLockedLayer) {
  Profile p = sample();
  p.setLayerLocked(2, true);
  const Profile after = applied(p, edits::set(p, {1, 1, 1, 3, 0, 1}, 0.9));
  for (int s = 0; s < 2; ++s) {
    for (int l = 0; l < 4; ++l) {
      for (int h = 0; h < 3; ++h) {
        const bool touched = s == 1 && (l == 1 || l == 3) && h <= 1;
        EXPECT_EQ(after.at({s, l, h}), touched ? std::optional(0.9) : p.at({s, l, h})) << s << l << h;
      }
    }
  }
  const ProfileEdit locked = edits::setLayerMean(p, 2, CellRange::all(p), 0.5);
  EXPECT_TRUE(locked.empty());
  EXPECT_FALSE(locked.label.empty());
}

TEST(ProfileEdits, RefuseEmptyAndForeignRangesAndValuesOutsideTheUnitInterval) {
  const Profile p = sample();
  messageOf([&] { return edits::set(p, {1, 0, 0, 0, 0, 0}, 0.5); });
  messageOf([&] { return edits::set(p, {0, 0, 0, 4, 0, 0}, 0.5); });
  messageOf([&] { return edits::set(Profile(), {0, 0, 0, 0, 0, 0}, 0.5); });
  EXPECT_THAT(messageOf([&] { return edits::set(p, CellRange::all(p), 1.2); }), HasSubstr("120 %"));
  messageOf([&] { return edits::set(p, CellRange::all(p), std::numeric_limits<double>::quiet_NaN()); });
  EXPECT_THAT(messageOf([&] { return edits::scale(p, CellRange::all(p), 10); }), HasSubstr("layer 1, head 1"));
  messageOf([&] { return edits::add(p, CellRange::all(p), -0.05); });
  messageOf([&] { return edits::scale(p, CellRange::all(p), std::numeric_limits<double>::infinity()); });
  messageOf([&] { return edits::smooth(p, CellRange::all(p), 0); });
  messageOf([&] { return edits::copyLayer(p, 9, 0, CellRange::all(p)); });
}

TEST(ProfileEdits, ClampOnlyWhenAskedAndSaySo) {
  const Profile p = sample();
  const ProfileEdit edit = edits::add(p, {0, 0, 0, 0, 0, 2}, -0.015, true);
  EXPECT_EQ(edit.label, "Lower kept of L0 (step index 0) by 1.5 % (2 cells held at 0 or 100 %)");
  const Profile after = applied(p, edit);
  EXPECT_EQ(after.at({0, 0, 0}), 0.0);
  EXPECT_EQ(after.at({0, 0, 1}), 0.0);
  EXPECT_EQ(after.at({0, 0, 2}), 0.005) << "no binary noise";
}

TEST(ProfileEdits, ScaleAndAddLeaveHolesAlone) {
  Profile p = sample();
  p.set({0, 3, 1}, std::nullopt);
  const Profile after = applied(p, edits::scale(p, CellRange::all(p), 1.5));
  EXPECT_EQ(after.at({0, 3, 1}), std::nullopt);
  EXPECT_EQ(after.at({0, 2, 1}), 0.315);
}

TEST(ProfileEdits, FillHolesFillsOnlyHoles) {
  Profile p = sample();
  p.set({0, 3, 1}, std::nullopt);
  p.set({1, 3, 1}, std::nullopt);
  const ProfileEdit edit = edits::fillHoles(p, CellRange::all(p), 0.5);
  EXPECT_EQ(edit.cells.size(), 2U);
  EXPECT_EQ(edit.label, "Fill 2 holes of all layers with 50 %");
  EXPECT_EQ(applied(p, edit).at({1, 3, 1}), 0.5);
}

TEST(ProfileEdits, SmoothAveragesOverLayersFromTheOldValues) {
  Profile p(1, 4, 1, BudgetRole::KeptTarget);
  p.set({0, 0, 0}, 0.0);
  p.set({0, 1, 0}, 0.6);
  p.set({0, 3, 0}, 0.3);
  const Profile after = applied(p, edits::smooth(p, CellRange::all(p)));
  EXPECT_EQ(after.at({0, 0, 0}), 0.3);
  EXPECT_EQ(after.at({0, 1, 0}), 0.3) << "the hole at layer 2 does not count";
  EXPECT_EQ(after.at({0, 2, 0}), std::nullopt);
  EXPECT_EQ(after.at({0, 3, 0}), 0.3);
}

TEST(ProfileEdits, CopiesLayersAndSteps) {
  Profile p = sample();
  p.set({0, 3, 1}, std::nullopt);
  const Profile layers = applied(p, edits::copyLayer(p, 3, 1, {0, 0, 0, 3, 0, 2}));
  EXPECT_EQ(layers.at({0, 1, 0}), p.at({0, 3, 0}));
  EXPECT_EQ(layers.at({0, 1, 1}), std::nullopt) << "a hole is copied too";
  EXPECT_EQ(layers.at({1, 1, 0}), p.at({1, 1, 0})) << "the other step is not in the range";
  const Profile steps = applied(p, edits::copyStep(p, 0, 1, {0, 1, 2, 3, 0, 2}));
  EXPECT_EQ(steps.at({1, 3, 2}), p.at({0, 3, 2}));
  EXPECT_EQ(steps.at({1, 1, 2}), p.at({1, 1, 2}));
}

TEST(ProfileEdits, SetLayerMeanShiftsAllCellsAlike) {
  const Profile p = sample();
  const Profile after = applied(p, edits::setLayerMean(p, 2, CellRange::all(p), 0.5));
  EXPECT_NEAR(summariseLayer(after, 2).mean, 0.5, 1e-9);
  EXPECT_NEAR(*after.at({0, 2, 2}) - *after.at({0, 2, 0}), 0.02, 1e-9) << "the shape stays";
  EXPECT_EQ(after.at({0, 1, 0}), p.at({0, 1, 0}));
}

TEST(ProfileEdits, SetLayerMeanReachesTheMeanEvenWhereCellsHitTheBorder) {
  Profile p(1, 1, 4, BudgetRole::KeptTarget);
  for (int h = 0; h < 4; ++h) p.set({0, 0, h}, 0.1 + 0.25 * h);  // 0.10 0.35 0.60 0.85
  const ProfileEdit edit = edits::setLayerMean(p, 0, CellRange::all(p), 0.9);
  const Profile after = applied(p, edit);
  EXPECT_NEAR(summarise(after).mean, 0.9, 1e-8);
  EXPECT_EQ(after.at({0, 0, 3}), 1.0);
  EXPECT_THAT(edit.label, HasSubstr("to 90 % ("));
  EXPECT_THAT(edit.label, HasSubstr("held at 0 or 100 %"));
  EXPECT_NEAR(summarise(applied(p, edits::setLayerMean(p, 0, CellRange::all(p), 1.0))).mean, 1.0, 1e-9);
  EXPECT_NEAR(summarise(applied(p, edits::setLayerMean(p, 0, CellRange::all(p), 0.0))).mean, 0.0, 1e-9);
}

TEST(ProfileEdits, LockAndNoteAreInvertible) {
  Profile p = sample();
  p.setLayerNote(1, "before");
  const ProfileEdit lock = edits::lockLayer(p, 1, true);
  EXPECT_EQ(lock.label, "Lock L1");
  Profile q = applied(p, lock);
  EXPECT_TRUE(q.layerLocked(1));
  const ProfileEdit note = edits::noteLayer(q, 1, "after");
  note.apply(q);
  EXPECT_TRUE(q.layerLocked(1)) << "a note does not unlock";
  EXPECT_EQ(q.layerNote(1), "after");
  note.inverse().apply(q);
  lock.inverse().apply(q);
  EXPECT_EQ(q, p);
  EXPECT_TRUE(edits::lockLayer(p, 1, false).empty()) << "already unlocked";
  EXPECT_EQ(note.inverse().label, "Undo: Note on L1");
  EXPECT_EQ(note.inverse().inverse().label, "Note on L1");
}

TEST(ProfileEdits, AnEditThatDoesNotFitChangesNothing) {
  const Profile p = sample();
  ProfileEdit edit = edits::set(p, CellRange::all(p), 0.5);
  Profile small(1, 1, 1, BudgetRole::KeptTarget);
  small.set({0, 0, 0}, 0.3);
  const Profile before = small;
  EXPECT_THAT(messageOf([&] { return edit.apply(small), 0; }), HasSubstr("does not fit"));
  EXPECT_EQ(small, before);
}

TEST(ProfileEdits, MergedGestureIsOneEditWithTheLastName) {
  const Profile p = sample();
  const ProfileEdit first = edits::set(p, {0, 1, 1, 1, 0, 2}, 0.5);
  Profile q = applied(p, first);
  const ProfileEdit second = edits::set(q, {0, 1, 1, 2, 0, 2}, 0.24);
  const ProfileEdit merged = first.mergedWith(second);
  EXPECT_EQ(merged.label, second.label);
  EXPECT_EQ(applied(p, merged), applied(q, second));
  EXPECT_EQ(applied(applied(p, merged), merged.inverse()), p);
  EXPECT_TRUE(first.mergedWith(first.inverse()).empty());
}

TEST(ProfileDiff, ComparesOnTheUnionOfBothGrids) {
  const Profile a = sample();
  Profile b(1, 5, 3, BudgetRole::KeptTarget);
  for (int l = 0; l < 5; ++l) {
    for (int h = 0; h < 3; ++h) b.set({0, l, h}, 0.1 * l + 0.01 * h);
  }
  b.set({0, 1, 1}, 0.41);
  b.set({0, 2, 2}, std::nullopt);
  const ProfileDiff diff = diffProfiles(a, b);
  EXPECT_EQ(diff.steps, 2);
  EXPECT_EQ(diff.layers, 5);
  EXPECT_EQ(diff.heads, 3);
  EXPECT_EQ(diff.delta.size(), 30U);
  EXPECT_EQ(diff.changed, 1);
  EXPECT_EQ(diff.onlyA, 12 + 1);
  EXPECT_EQ(diff.onlyB, 3);
  EXPECT_NEAR(diff.maxAbs, 0.3, 1e-12);
  EXPECT_NEAR(diff.meanAbs, 0.3 / 11, 1e-12);
  EXPECT_NEAR(*diff.delta[1 * 3 + 1], -0.3, 1e-12) << "a - b";
  EXPECT_EQ(diff.delta[2 * 3 + 2], std::nullopt);
  const ProfileDiff same = diffProfiles(a, a);
  EXPECT_NEAR(same.pearson, 1, 1e-12);
  EXPECT_EQ(same.changed, 0);
  EXPECT_EQ(diffProfiles(Profile(), Profile()).steps, 0);
}

TEST(ProfileFill, RefusesCountingTheHolesAndSayingHow) {
  Profile p = sample();
  p.set({0, 1, 2}, std::nullopt);
  p.set({1, 1, 2}, std::nullopt);
  const std::string message = messageOf([&] { return fillForExport(p, FillPolicy::Refuse); });
  EXPECT_THAT(message, HasSubstr("2 of 24 cells"));
  EXPECT_THAT(message, HasSubstr("step index 0 (1st), layer 1, head 2"));
  EXPECT_THAT(message, HasSubstr("--fill nearest"));
  EXPECT_EQ(fillForExport(sample(), FillPolicy::Refuse), sample());
}

TEST(ProfileFill, NearestAndHoldDifferBetweenCapturedSteps) {
  Profile p(8, 1, 1, BudgetRole::KeptFloor);
  p.set({2, 0, 0}, 0.2);
  p.set({6, 0, 0}, 0.6);
  const Profile nearest = fillForExport(p, FillPolicy::Nearest);
  const Profile hold = fillForExport(p, FillPolicy::Hold);
  const double wantNearest[] = {0.2, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6};
  const double wantHold[] = {0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6};
  for (int s = 0; s < 8; ++s) {
    EXPECT_EQ(nearest.at({s, 0, 0}), wantNearest[s]) << s;
    EXPECT_EQ(hold.at({s, 0, 0}), wantHold[s]) << s;
  }
  const Profile value = fillForExport(p, FillPolicy::Value, 0.9);
  EXPECT_EQ(value.at({3, 0, 0}), 0.9);
  EXPECT_EQ(value.at({2, 0, 0}), 0.2);
  messageOf([&] { return fillForExport(p, FillPolicy::Value, 1.5); });
}

TEST(ProfileFill, WholeLayersAndHeadsWithoutAValueTakeTheNearestOne) {
  Profile p(2, 4, 2, BudgetRole::KeptFloor);
  p.set({0, 0, 0}, 0.1);
  p.set({1, 3, 0}, 0.4);
  const Profile full = fillForExport(p, FillPolicy::Nearest);
  EXPECT_EQ(full.holeCount(), 0);
  EXPECT_EQ(full.at({1, 1, 1}), 0.1);
  EXPECT_EQ(full.at({0, 2, 0}), 0.4);
  EXPECT_THAT(messageOf([] { return fillForExport(Profile(2, 2, 2, BudgetRole::KeptFloor), FillPolicy::Hold); }),
              HasSubstr("no value at all"));
}

TEST(ProfileModels, AreFoundByTheirGrid) {
  EXPECT_EQ(modelsOfGrid(30, 12), "Wan2.1 1.3B T2V");
  EXPECT_THAT(modelsOfGrid(40, 40), HasSubstr("Wan2.2 A14B I2V"));
  EXPECT_EQ(modelsOfGrid(3, 3), "");
  EXPECT_EQ(svooModels().size(), 7U);
}

}  // namespace
}  // namespace sparsight
