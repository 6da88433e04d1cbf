// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing::HasSubstr;
using testing_support::TemporaryFolder;
namespace fs = std::filesystem;

std::string contentOf(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
std::size_t filesIn(const fs::path& folder) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder)) ++n;
  return n;
}
template <class F>
std::string messageOf(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Io);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Files, WritesAndReplaces) {
  const TemporaryFolder folder;
  writeFileAtomically(folder / "a.txt", "one");
  EXPECT_EQ(contentOf(folder / "a.txt"), "one");
  writeFileAtomically(folder / "a.txt", "two");
  EXPECT_EQ(contentOf(folder / "a.txt"), "two");
  EXPECT_EQ(filesIn(folder.path()), 1U);  // no temporary file is left
}

TEST(Files, AFailingWriterLeavesTheTargetAsItWas) {
  const TemporaryFolder folder;
  writeFileAtomically(folder / "a.txt", "old");
  EXPECT_THROW(writeFileAtomically(folder / "a.txt",
                                   [](const fs::path& temporary) {
                                     std::ofstream(temporary) << "half";
                                     throw Cancelled{};
                                   }),
               Cancelled);
  EXPECT_EQ(contentOf(folder / "a.txt"), "old");
  EXPECT_EQ(filesIn(folder.path()), 1U);
}

TEST(Files, KeepsTheModeAndFollowsLinks) {
  const TemporaryFolder folder;
  writeFileAtomically(folder / "real.txt", "old");
  ASSERT_EQ(::chmod((folder / "real.txt").c_str(), 0640), 0);
  fs::create_symlink("real.txt", folder / "link.txt");
  writeFileAtomically(folder / "link.txt", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link.txt"));
  EXPECT_EQ(contentOf(folder / "real.txt"), "new");
  struct stat status {};
  ASSERT_EQ(::stat((folder / "real.txt").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0640U);
}

TEST(Files, DevicesAreWrittenToAndNeverReplaced) {
  writeFileAtomically("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_THAT(messageOf([] { AtomicFile file("/dev/null"); }), HasSubstr("device or pipe"));
}

TEST(Files, MessagesSayWhatToDo) {
  const TemporaryFolder folder;
  EXPECT_THAT(messageOf([&] { writeFileAtomically(folder / "no/such/x", "a"); }),
              HasSubstr("does not exist; create it first"));
  EXPECT_THAT(messageOf([&] { writeFileAtomically(folder.path(), "a"); }), HasSubstr("it is a folder"));
  EXPECT_THAT(messageOf([&] { (void)readWholeFile(folder / "none", 10); }), HasSubstr("no such file"));
  EXPECT_THAT(messageOf([&] { (void)readWholeFile(folder.path(), 10); }), HasSubstr("it is a folder"));
  writeFileAtomically(folder / "big", "0123456789");
  EXPECT_EQ(readWholeFile(folder / "big", 10), "0123456789");
  EXPECT_THAT(messageOf([&] { (void)readWholeFile(folder / "big", 9); }), HasSubstr("10 bytes, more than the 9"));
}

TEST(Files, NoPermissionIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  const TemporaryFolder folder;
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(messageOf([&] { writeFileAtomically(folder / "a", "a"); }), HasSubstr("no permission"));
  fs::permissions(folder.path(), fs::perms::owner_all);
}

TEST(Files, TheFileSizeLimitOfTheProcessIsRespected) {
  const TemporaryFolder folder;
  writeFileAtomically(folder / "a.txt", "old");
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit small { 1000, before.rlim_max };
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  // Without a look at the limit first, the kernel would end the process with SIGXFSZ.
  const std::string message = messageOf([&] { writeFileAtomically(folder / "a.txt", std::string(2000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(message, HasSubstr("file size limit"));
  EXPECT_EQ(contentOf(folder / "a.txt"), "old");
  EXPECT_EQ(filesIn(folder.path()), 1U);
}

TEST(Files, AFullDiskLeavesTheTargetAsItWas) {
  const TemporaryFolder folder;
  const fs::path disk = folder / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "no right to mount a small disk";
  writeFileAtomically(disk / "a.txt", "old");
  const std::string message = messageOf([&] { writeFileAtomically(disk / "a.txt", std::string(200000, 'x')); });
  EXPECT_THAT(message, HasSubstr("disk is full"));
  EXPECT_EQ(contentOf(disk / "a.txt"), "old");
  EXPECT_EQ(filesIn(disk), 1U);
  ::umount(disk.c_str());
}

TEST(Files, UserFoldersFollowXdg) {
  const TemporaryFolder folder;
  const char* old = std::getenv("XDG_CACHE_HOME");
  const std::string saved = old != nullptr ? old : "";
  ::setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
  const fs::path cache = userCacheDir();
  EXPECT_EQ(cache, folder / "sparsight");
  EXPECT_TRUE(fs::is_directory(cache));
  // Relative values are invalid by the specification and ignored.
  ::setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_TRUE(userCacheDir().is_absolute());
  if (old != nullptr)
    ::setenv("XDG_CACHE_HOME", saved.c_str(), 1);
  else
    ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace sparsight
