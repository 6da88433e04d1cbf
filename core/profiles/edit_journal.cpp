// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "profiles/profile_json.h"
#include "profiles/profile_text.h"
#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using nlohmann::json;
constexpr const char* kFormat = "sparsight-journal";
constexpr std::string_view kPrefix = "profile-", kSuffix = ".journal";
constexpr std::uint64_t kMaxJournalBytes = std::uint64_t{1} << 30;

std::filesystem::path directoryOr(std::filesystem::path directory) {
  return directory.empty() ? userStateDir() / "journals" : std::move(directory);
}

/// A file descriptor that also carries the lock: the kernel drops it when the process ends, however it ends, so that no
/// stale process id can ever be mistaken for a live one.
class LockedFile {
 public:
  LockedFile() = default;
  explicit LockedFile(int descriptor) : m_descriptor(descriptor) {}
  LockedFile(LockedFile&& other) noexcept : m_descriptor(std::exchange(other.m_descriptor, -1)) {}
  LockedFile& operator=(LockedFile&& other) noexcept {
    if (this != &other) {
      close();
      m_descriptor = std::exchange(other.m_descriptor, -1);
    }
    return *this;
  }
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;
  ~LockedFile() { close(); }
  void close() noexcept {
    if (m_descriptor >= 0) ::close(std::exchange(m_descriptor, -1));
  }
  [[nodiscard]] bool isOpen() const noexcept { return m_descriptor >= 0; }
  [[nodiscard]] int descriptor() const noexcept { return m_descriptor; }

 private:
  int m_descriptor = -1;
};

std::string lineOf(const ProfileEdit& edit) {
  json line;
  line["label"] = edit.label;
  json cells = json::array();
  for (const ProfileEdit::Cell& cell : edit.cells) {
    json entry = {cell.cell.step, cell.cell.layer, cell.cell.head, nullptr, nullptr};
    if (cell.before) entry[3] = *cell.before;
    if (cell.after) entry[4] = *cell.after;
    cells.push_back(std::move(entry));
  }
  line["cells"] = std::move(cells);
  json layers = json::array();
  for (const ProfileEdit::LayerMeta& meta : edit.layers) {
    layers.push_back({meta.layer, meta.lockedBefore, meta.lockedAfter, meta.noteBefore, meta.noteAfter});
  }
  line["layers"] = std::move(layers);
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

ProfileEdit editOf(const json& line) {
  const auto optional = [](const json& value) {
    return value.is_null() ? std::optional<double>() : std::optional(value.get<double>());
  };
  ProfileEdit edit;
  edit.label = line.at("label").get<std::string>();
  for (const json& cell : line.at("cells")) {
    edit.cells.push_back({{cell.at(0).get<int>(), cell.at(1).get<int>(), cell.at(2).get<int>()},
                          optional(cell.at(3)),
                          optional(cell.at(4))});
  }
  for (const json& meta : line.at("layers")) {
    edit.layers.push_back({meta.at(0).get<int>(), meta.at(1).get<bool>(), meta.at(2).get<bool>(),
                           meta.at(3).get<std::string>(), meta.at(4).get<std::string>()});
  }
  return edit;
}

std::optional<EditJournal::Recovered> recover(const std::filesystem::path& file) {
  // Held while reading: a journal that another process is writing is not left behind.
  const LockedFile lock(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!lock.isOpen() || ::flock(lock.descriptor(), LOCK_SH | LOCK_NB) != 0) return std::nullopt;
  EditJournal::Recovered recovered;
  recovered.file = file;
  try {
    const std::string text = readWholeFile(file, kMaxJournalBytes);
    std::size_t at = 0;
    bool first = true;
    while (at < text.size()) {
      const std::size_t end = text.find('\n', at);
      if (end == std::string::npos) break;  // torn: the program or the machine died while writing it
      const std::string_view line = std::string_view(text).substr(at, end - at);
      at = end + 1;
      if (first) {
        const json head = json::parse(line.begin(), line.end());
        if (head.at("format") != kFormat || head.at("format_version").at(0) != 1) return std::nullopt;
        recovered.key = head.at("key").get<std::string>();
        recovered.base = detail::profileFromJson(head.at("base"), file.string());
        recovered.current = recovered.base;
        first = false;
        continue;
      }
      const json parsed = json::parse(line.begin(), line.end(), nullptr, false);
      if (parsed.is_discarded()) break;  // what follows a damaged line was made on top of it
      editOf(parsed).apply(recovered.current);
      ++recovered.edits;
    }
    if (first) return std::nullopt;
  } catch (const std::exception&) {
    if (recovered.base.cellCount() == 0) return std::nullopt;
  }
  return recovered;
}

}  // namespace

struct EditJournal::Impl {
  std::string key;
  std::filesystem::path directory;
  std::optional<Profile> base;
  std::filesystem::path file;
  LockedFile handle;

  [[noreturn]] void fail(const char* what) const {
    const int code = errno;
    throw Error(ErrorCode::Io,
                fmt::format("{}: cannot {} the crash journal: {}; edits are not protected until the next "
                            "save",
                            file.string(), what, std::strerror(code)));
  }
  void write(const std::string& line) {
    std::size_t done = 0;
    while (done < line.size()) {
      const ssize_t count = ::write(handle.descriptor(), line.data() + done, line.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail("write");
      done += static_cast<std::size_t>(count);
    }
    if (::fdatasync(handle.descriptor()) != 0 && errno != EINVAL && errno != ENOSYS) fail("sync");
  }
  void open() {
    static std::atomic<unsigned> serial{0};
    const std::filesystem::path folder = directoryOr(directory);
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    for (int attempt = 0; attempt < 1000 && !handle.isOpen(); ++attempt) {
      file = folder / fmt::format("{}{}-{}{}", kPrefix, ::getpid(), serial.fetch_add(1), kSuffix);
      handle = LockedFile(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
      if (!handle.isOpen() && errno != EEXIST) fail("create");
    }
    if (!handle.isOpen()) fail("create");
    if (::flock(handle.descriptor(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) fail("lock");
    json head;
    head["format"] = kFormat;
    head["format_version"] = {1, 0};
    head["key"] = key;
    std::string line = head.dump(-1, ' ', false, json::error_handler_t::replace);
    line.pop_back();
    line += ",\"base\":";
    std::string profile =
        detail::profileHead(*base).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    profile.pop_back();
    line += profile + ",\"values\":";
    detail::appendProfileValues(line, *base, -1);
    line += "}}\n";
    write(line);
  }
  void remove() noexcept {
    if (!handle.isOpen()) return;
    ::unlink(file.c_str());  // while the lock is held: nobody takes it for a leftover in between
    handle.close();
  }
};

EditJournal::EditJournal(std::string key, std::filesystem::path directory) : m_impl(std::make_unique<Impl>()) {
  m_impl->key = std::move(key);
  m_impl->directory = std::move(directory);
}

EditJournal::~EditJournal() = default;

void EditJournal::begin(const Profile& base) {
  m_impl->remove();
  m_impl->base = base;
}

void EditJournal::append(const ProfileEdit& edit) {
  if (!m_impl->base) throw Error(ErrorCode::Internal, "crash journal: an edit without a base profile");
  if (m_impl->base->cellCount() == 0) return;
  if (!m_impl->handle.isOpen()) m_impl->open();
  m_impl->write(lineOf(edit));
}

void EditJournal::clear() {
  m_impl->remove();
  m_impl->base.reset();
}

std::vector<EditJournal::Recovered> EditJournal::findLeftovers(std::filesystem::path directory) {
  std::vector<Recovered> found;
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator it(directoryOr(std::move(directory)), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kSuffix)) files.push_back(it->path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    if (auto recovered = recover(file)) found.push_back(std::move(*recovered));
  }
  return found;
}

void EditJournal::discard(const Recovered& leftover) noexcept {
  std::error_code error;
  std::filesystem::remove(leftover.file, error);
}

}  // namespace sparsight
