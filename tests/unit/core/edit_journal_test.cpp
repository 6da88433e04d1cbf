// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

class EditJournalTest : public testing::Test {
 protected:
  void SetUp() override {
    m_folder = std::filesystem::temp_directory_path() / fmt::format("sparsight-journal-{}", ::getpid());
    std::filesystem::remove_all(m_folder);
  }
  void TearDown() override { std::filesystem::remove_all(m_folder); }

  [[nodiscard]] std::size_t fileCount() const {
    if (!std::filesystem::exists(m_folder)) return 0;
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(m_folder), std::filesystem::directory_iterator()));
  }
  /// Base with a hole, a lock and a note, and three edits one after another.
  struct Work {
    Profile base{2, 3, 2, BudgetRole::KeptFloor}, current;
    std::vector<ProfileEdit> edits;
    Work() {
      for (int s = 0; s < 2; ++s) {
        for (int l = 0; l < 3; ++l) base.set({s, l, 0}, 0.1 * l + 1.0 / 3);
      }
      base.setLayerLocked(2, true);
      base.setLayerNote(0, "a \"note\"\nof two lines");
      current = base;
      const auto add = [this](ProfileEdit edit) {
        edit.apply(current);
        edits.push_back(std::move(edit));
      };
      add(edits::set(current, {0, 1, 0, 1, 0, 1}, 0.24));
      add(edits::scale(current, CellRange::all(current), 1.1));
      add(edits::lockLayer(current, 1, true));
    }
  };
  static void leave(const Work& work, const std::filesystem::path& folder, const std::string& key = "doc") {
    EditJournal journal(key, folder);
    journal.begin(work.base);
    for (const ProfileEdit& edit : work.edits) journal.append(edit);
    // Destroyed without clear(): as after a crash.
  }
  std::filesystem::path m_folder;
};
using EditJournalFile = EditJournalTest;

TEST_F(EditJournalFile, DoesNotTouchTheDiskBeforeTheFirstEdit) {
  const Work work;
  EditJournal journal("doc", m_folder);
  journal.begin(work.base);
  EXPECT_EQ(fileCount(), 0U);
  journal.append(work.edits[0]);
  EXPECT_EQ(fileCount(), 1U);
  journal.clear();
  EXPECT_EQ(fileCount(), 0U);
}

TEST_F(EditJournalFile, BringsBackBaseAndCurrentExactly) {
  const Work work;
  leave(work, m_folder, "/home/u/p \"x\".json");
  const auto found = EditJournal::findLeftovers(m_folder);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].key, "/home/u/p \"x\".json");
  EXPECT_EQ(found[0].edits, 3);
  EXPECT_TRUE(found[0].base == work.base);
  EXPECT_TRUE(found[0].current == work.current);
  EditJournal::discard(found[0]);
  EXPECT_TRUE(EditJournal::findLeftovers(m_folder).empty());
}

TEST_F(EditJournalFile, AJournalInUseIsNoLeftover) {
  const Work work;
  EditJournal journal("doc", m_folder);
  journal.begin(work.base);
  journal.append(work.edits[0]);
  EXPECT_TRUE(EditJournal::findLeftovers(m_folder).empty());
}

TEST_F(EditJournalFile, AProcessThatWasKilledLeavesOneBehindAndALiveOneDoesNot) {
  const Work work;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    EditJournal journal("child", m_folder);
    journal.begin(work.base);
    for (const ProfileEdit& edit : work.edits) journal.append(edit);
    const ssize_t written = ::write(ready[1], "x", 1);
    static_cast<void>(written);
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_TRUE(EditJournal::findLeftovers(m_folder).empty()) << "it still runs";
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  const auto found = EditJournal::findLeftovers(m_folder);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].current == work.current) << "every edit was on disk before the crash";
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(EditJournalFile, ATornLastLineIsDroppedWhateverItsLength) {
  const Work work;
  leave(work, m_folder);
  const auto file = EditJournal::findLeftovers(m_folder).at(0).file;
  const std::string whole = readWholeFile(file, 1 << 20);
  const std::size_t lastLine = whole.rfind('\n', whole.size() - 2) + 1;
  Profile beforeLast = work.base;
  work.edits[0].apply(beforeLast);
  work.edits[1].apply(beforeLast);
  for (std::size_t size = lastLine; size < whole.size(); size += 7) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    const auto found = EditJournal::findLeftovers(m_folder);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].edits, 2);
    EXPECT_TRUE(found[0].current == beforeLast);
  }
}

TEST_F(EditJournalFile, DamageEndsTheRecoveryWithoutGuessing) {
  const Work work;
  leave(work, m_folder);
  const auto file = EditJournal::findLeftovers(m_folder).at(0).file;
  std::string text = readWholeFile(file, 1 << 20);
  const std::size_t second = text.find('\n', text.find('\n') + 1) + 1;
  text.replace(second, 10, "##########");
  std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
  const auto found = EditJournal::findLeftovers(m_folder);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].edits, 1);
  // An edit that does not fit its base ends it too.
  std::string foreign = readWholeFile(file, 1 << 20).substr(0, text.find('\n') + 1);
  foreign += R"({"label":"x","cells":[[99,0,0,null,0.5]],"layers":[]})" + std::string("\n");
  std::ofstream(file, std::ios::binary | std::ios::trunc) << foreign;
  EXPECT_EQ(EditJournal::findLeftovers(m_folder).at(0).edits, 0);
}

TEST_F(EditJournalFile, ForeignAndEmptyFilesAreSkipped) {
  std::filesystem::create_directories(m_folder);
  std::ofstream(m_folder / "profile-1-0.journal") << "";
  std::ofstream(m_folder / "profile-2-0.journal") << "not JSON\n";
  std::ofstream(m_folder / "profile-3-0.journal") << R"({"format":"sparsight-journal","format_version":[9,0]})"
                                                  << "\n";
  std::ofstream(m_folder / "readme.txt") << "hello";
  EXPECT_TRUE(EditJournal::findLeftovers(m_folder).empty());
  EXPECT_TRUE(EditJournal::findLeftovers(m_folder / "missing").empty());
}

TEST_F(EditJournalFile, BeginStartsOver) {
  const Work work;
  {
    EditJournal journal("doc", m_folder);
    journal.begin(work.base);
    journal.append(work.edits[0]);
    journal.begin(work.current);  // another profile
    EXPECT_EQ(fileCount(), 0U);
    journal.append(edits::lockLayer(work.current, 0, true));
  }
  const auto found = EditJournal::findLeftovers(m_folder);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].base == work.current);
}

TEST_F(EditJournalFile, AFolderThatCannotBeWrittenIsAnErrorThatSaysSo) {
  const Work work;
  EditJournal journal("doc", "/proc/no-such-folder");
  journal.begin(work.base);
  try {
    journal.append(work.edits[0]);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::Io);
    EXPECT_NE(std::string(e.what()).find("/proc/no-such-folder"), std::string::npos);
  }
}

}  // namespace
}  // namespace sparsight
