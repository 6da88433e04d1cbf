// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include "sparsight/kernels/error.h"

namespace sparsight {
namespace fs = std::filesystem;
namespace {

std::string mendFor(int error, const fs::path& path) {
  const auto folder = path.has_parent_path() ? path.parent_path().string() : std::string(".");
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "the disk is full; free some space or choose another folder";
    case EFBIG:
      return "the file size limit of this process is reached (ulimit -f); raise it or choose a smaller selection";
    case EACCES:
    case EPERM:
      return fmt::format("no permission; choose a folder you may write to, or change the rights of '{}'", folder);
    case ENOENT:
      return fmt::format("the folder '{}' does not exist; create it first", folder);
    case ENOTDIR:
      return fmt::format("'{}' is not a folder; check the path", folder);
    case EROFS:
      return "the file system is read-only; choose another folder";
    case ENAMETOOLONG:
      return "the file name is too long; choose a shorter one";
    default:
      return std::generic_category().message(error);
  }
}

[[noreturn]] void failWriting(const fs::path& target, int error) {
  throw Error(ErrorCode::Io, fmt::format("cannot write '{}': {}", target.string(), mendFor(error, target)));
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) noexcept : m_fd(fd) {}
  ~Descriptor() {
    if (m_fd >= 0) ::close(m_fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return m_fd; }
  [[nodiscard]] bool ok() const noexcept { return m_fd >= 0; }
  /// close() reports what write() could not (NFS, quotas).
  [[nodiscard]] int close() noexcept { return ::close(std::exchange(m_fd, -1)) == 0 ? 0 : errno; }

 private:
  int m_fd;
};

// Writing beyond RLIMIT_FSIZE raises SIGXFSZ, whose default is to kill the process: look before writing.
int checkSizeLimit(std::uint64_t totalBytes) {
  struct rlimit limit {};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && totalBytes > limit.rlim_cur)
    return EFBIG;
  return 0;
}

int writeAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

fs::path followLinks(fs::path target) {
  // Renaming over a symbolic link would replace the link, not the file the user keeps behind it.
  std::error_code ignored;
  for (int depth = 0; depth < 16 && fs::is_symlink(target, ignored); ++depth) {
    fs::path next = fs::read_symlink(target, ignored);
    if (ignored) break;
    target = next.is_absolute() ? next : target.parent_path() / next;
  }
  return target;
}

bool isSpecialFile(const fs::path& target) {
  std::error_code ignored;
  const auto status = fs::status(target, ignored);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

fs::path xdgDirectory(const char* variable, const char* underHome) {
  fs::path base;
  if (const char* value = std::getenv(variable); value != nullptr && *value == '/') base = value;
  if (base.empty()) {
    if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') base = fs::path(home) / underHome;
  }
  std::error_code error;
  if (!base.empty()) {
    fs::path directory = base / "sparsight";
    fs::create_directories(directory, error);
    if (!error && ::access(directory.c_str(), W_OK) == 0) return directory;
  }
  fs::path fallback = fs::temp_directory_path(error);
  if (error) fallback = "/tmp";
  fallback /= fmt::format("sparsight-{}", static_cast<unsigned long>(::getuid()));
  fallback /= fs::path(underHome).filename();
  fs::create_directories(fallback, error);
  if (error) {
    throw Error(ErrorCode::Io, fmt::format("cannot create '{}': {}; set {} to a folder you may write to",
                                           fallback.string(), error.message(), variable));
  }
  fs::permissions(fallback, fs::perms::owner_all, error);
  return fallback;
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& target) : m_target(followLinks(target)) {
  if (m_target.empty() || !m_target.has_filename()) {
    throw Error(ErrorCode::Io, fmt::format("cannot write '{}': it names no file; give a file name", target.string()));
  }
  std::error_code ignored;
  if (fs::is_directory(m_target, ignored)) {
    throw Error(ErrorCode::Io,
                fmt::format("cannot write '{}': it is a folder; give a file name inside it", target.string()));
  }
  if (isSpecialFile(m_target)) {
    throw Error(ErrorCode::Io, fmt::format("cannot write '{}': it is a device or pipe; give the name of a regular file",
                                           target.string()));
  }
  // Same directory, so that the rename cannot cross file systems. Unique over processes and threads.
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    fs::path candidate = m_target;
    candidate.replace_filename(fmt::format(".{}.{}-{}.tmp", m_target.filename().string(), static_cast<long>(::getpid()),
                                           counter.fetch_add(1)));
    const Descriptor fd(::open(candidate.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666));
    if (fd.ok()) {
      struct stat existing {};
      if (::stat(m_target.c_str(), &existing) == 0) static_cast<void>(::fchmod(fd.get(), existing.st_mode & 07777U));
      m_temporary = std::move(candidate);
      return;
    }
    if (errno != EEXIST) failWriting(m_target, errno);
  }
  failWriting(m_target, EEXIST);
}

AtomicFile::~AtomicFile() {
  if (!m_temporary.empty()) ::unlink(m_temporary.c_str());
}

void AtomicFile::reserve(std::uint64_t totalBytes) {
  if (const int error = checkSizeLimit(totalBytes)) failWriting(m_target, error);
  const Descriptor fd(::open(m_temporary.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.ok()) failWriting(m_target, errno);
  // Keeping the size leaves the writer's own idea of the end of file true; blocks not used are given back by commit.
  if (::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(totalBytes)) != 0) {
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) failWriting(m_target, errno);
    // The file system cannot reserve (network drives): at least look how much is free.
    struct statvfs volume {};
    struct stat file {};
    if (::fstatvfs(fd.get(), &volume) == 0 && ::fstat(fd.get(), &file) == 0) {
      const auto have = static_cast<std::uint64_t>(volume.f_bavail) * volume.f_frsize +
                        static_cast<std::uint64_t>(file.st_blocks) * 512;
      if (totalBytes > have) failWriting(m_target, ENOSPC);
    }
  }
}

void AtomicFile::commit() {
  {
    Descriptor fd(::open(m_temporary.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.ok()) failWriting(m_target, errno);
    struct stat status {};
    if (::fstat(fd.get(), &status) == 0) static_cast<void>(::ftruncate(fd.get(), status.st_size) == 0);
    if (::fsync(fd.get()) != 0) failWriting(m_target, errno);
    if (const int error = fd.close()) failWriting(m_target, error);
  }
  if (::rename(m_temporary.c_str(), m_target.c_str()) != 0) failWriting(m_target, errno);
  m_temporary.clear();
  const fs::path folder = m_target.has_parent_path() ? m_target.parent_path() : fs::path(".");
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems cannot sync a directory; the content is safe by then, so this is no failure.
  if (directory.ok()) static_cast<void>(::fsync(directory.get()));
}

void writeFileAtomically(const fs::path& target, std::string_view content) {
  if (isSpecialFile(target)) {
    // /dev/stdout, a named pipe: nothing to replace atomically, and a rename would destroy the device node.
    Descriptor fd(::open(target.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.ok()) failWriting(target, errno);
    if (const int error = writeAll(fd.get(), content)) failWriting(target, error);
    return;
  }
  AtomicFile file(target);
  file.reserve(content.size());
  {
    Descriptor fd(::open(file.temporary().c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.ok()) failWriting(target, errno);
    if (const int error = writeAll(fd.get(), content)) failWriting(target, error);
    if (const int error = fd.close()) failWriting(target, error);
  }
  file.commit();
}

void writeFileAtomically(const fs::path& target, const std::function<void(const fs::path&)>& write) {
  AtomicFile file(target);
  write(file.temporary());
  file.commit();
}

std::string readWholeFile(const fs::path& path, std::uint64_t maxBytes) {
  const auto fail = [&](const std::string& why) -> void {
    throw Error(ErrorCode::Io, fmt::format("cannot read '{}': {}", path.string(), why));
  };
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.ok()) {
    switch (errno) {
      case ENOENT:
        fail("no such file; check the path");
        break;
      case EACCES:
        fail("no permission; ask its owner for read access");
        break;
      default:
        fail(std::generic_category().message(errno));
    }
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) fail(std::generic_category().message(errno));
  if (S_ISDIR(status.st_mode)) fail("it is a folder; give a file inside it");
  if (S_ISREG(status.st_mode) && static_cast<std::uint64_t>(status.st_size) > maxBytes) {
    fail(fmt::format("it has {} bytes, more than the {} allowed for this kind of file", status.st_size, maxBytes));
  }
  std::string content;
  if (S_ISREG(status.st_mode)) content.reserve(static_cast<std::size_t>(status.st_size));
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0) {
      if (errno == EINTR) continue;
      fail(std::generic_category().message(errno));
    }
    if (n == 0) return content;
    content.append(buffer, static_cast<std::size_t>(n));
    if (content.size() > maxBytes)
      fail(fmt::format("it is longer than the {} bytes allowed for this kind of file", maxBytes));
  }
}

fs::path userCacheDir() { return xdgDirectory("XDG_CACHE_HOME", ".cache"); }
fs::path userStateDir() { return xdgDirectory("XDG_STATE_HOME", ".local/state"); }
fs::path userConfigDir() { return xdgDirectory("XDG_CONFIG_HOME", ".config"); }

}  // namespace sparsight
