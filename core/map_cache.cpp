// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/map_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fstream>

#include "sparsight/core/files.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;

// Raised whenever the file layout, the hash, the levels of AttentionMap or the meaning of a value change.
constexpr std::uint64_t kFormatVersion = 3;
constexpr std::array<char, 8> kMagic{'S', 'P', 'S', 'M', 'A', 'P', '1', '\n'};
constexpr auto kSuffix = ".map";
constexpr auto kLimitFile = "limit";
constexpr auto kStaleAge = std::chrono::hours(1);  // of a temporary file whose writer must be gone
constexpr Index kMaxRows = Index{1} << 24;
constexpr Index kMaxCells = Index{1} << 22;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t version = kFormatVersion, keyHigh = 0, keyLow = 0;
  std::int64_t rows = 0, cellRows = 0, cellCols = 0;
  std::array<char, 16> computedBy{};
  std::uint64_t sumHigh = 0, sumLow = 0;  // of the values behind the header
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) == 88);

ContentHash checksum(const Header& header, std::span<const float> lse, std::span<const float> mean,
                     std::span<const float> max) {
  ContentHasher hash;
  Header plain = header;
  plain.sumHigh = plain.sumLow = 0;
  hash.add(std::as_bytes(std::span<const Header>(&plain, 1)));
  for (const auto values : {lse, mean, max}) hash.add(std::as_bytes(values));
  return hash.finish();
}

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

}  // namespace

ContentHash mapContentHash(const AttentionIn& in, std::span<const Index> qOrder, std::span<const Index> kOrder) {
  return mapContentHash(matrixHash(in.q), matrixHash(in.k), in, qOrder, kOrder);
}

ContentHash mapContentHash(const ContentHash& queries, const ContentHash& keys, const AttentionIn& in,
                           std::span<const Index> qOrder, std::span<const Index> kOrder) {
  ContentHasher hash;
  hash.add(kFormatVersion);
  hash.add(in.scale);
  hash.add(queries);
  hash.add(keys);
  hash.add(in.keyValid);
  hash.add(in.queryValid);
  hash.add(in.denseMask);
  hash.add(qOrder);
  hash.add(kOrder);
  return hash.finish();
}

MapCache::MapCache(fs::path folder, Index limitBytes) : m_folder(std::move(folder)), m_limit(limitBytes) {}

fs::path MapCache::fileOf(const ContentHash& key) const { return m_folder / (key.hex() + kSuffix); }

std::optional<CachedMap> MapCache::find(const ContentHash& key, Index rows) {
  if (m_limit.load() <= 0) return std::nullopt;
  const fs::path path = fileOf(key);
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  const auto damaged = [&]() -> std::optional<CachedMap> {
    file.close();
    std::error_code ignored;
    fs::remove(path, ignored);
    return std::nullopt;
  };
  Header header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return damaged();
  const bool sane = header.magic == kMagic && header.version == kFormatVersion && header.keyHigh == key.high &&
                    header.keyLow == key.low && header.rows >= 0 && header.rows <= kMaxRows && header.cellRows >= 0 &&
                    header.cellCols >= 0 && (header.cellRows == 0) == (header.cellCols == 0) &&
                    (header.cellCols == 0 || header.cellRows <= kMaxCells / header.cellCols);
  if (!sane) return damaged();
  if (header.rows != rows) return std::nullopt;
  const Index cells = header.cellRows * header.cellCols;
  std::error_code error;
  const auto expected = sizeof header + at(header.rows + 2 * cells) * sizeof(float);
  if (fs::file_size(path, error) != expected || error) return damaged();
  CachedMap map;
  map.rows = header.rows;
  map.cellRows = header.cellRows;
  map.cellCols = header.cellCols;
  const auto text = std::find(header.computedBy.begin(), header.computedBy.end(), '\0');
  map.computedBy.assign(header.computedBy.begin(), text);
  map.lse.resize(at(map.rows));
  map.mean.resize(at(cells));
  map.max.resize(at(cells));
  for (std::vector<float>* values : {&map.lse, &map.mean, &map.max}) {
    if (!file.read(reinterpret_cast<char*>(values->data()),
                   static_cast<std::streamsize>(values->size() * sizeof(float)))) {
      return damaged();
    }
  }
  if (checksum(header, map.lse, map.mean, map.max) != ContentHash{header.sumHigh, header.sumLow}) return damaged();
  fs::last_write_time(path, fs::file_time_type::clock::now(), error);
  return map;
}

bool MapCache::store(const ContentHash& key, const CachedMap& map) {
  const Index cells = map.cellRows * map.cellCols;
  if (map.rows != static_cast<Index>(map.lse.size()) || cells != static_cast<Index>(map.mean.size()) ||
      cells != static_cast<Index>(map.max.size()) || map.rows > kMaxRows || cells > kMaxCells) {
    throw Error(ErrorCode::InvalidArgument, "map cache: the sizes of a map do not agree");
  }
  const auto size = static_cast<Index>(sizeof(Header) + (map.lse.size() + 2 * map.mean.size()) * sizeof(float));
  if (size > m_limit.load()) return false;
  Header header;
  header.keyHigh = key.high;
  header.keyLow = key.low;
  header.rows = map.rows;
  header.cellRows = map.cellRows;
  header.cellCols = map.cellCols;
  std::copy_n(map.computedBy.begin(), std::min(map.computedBy.size(), header.computedBy.size() - 1),
              header.computedBy.begin());
  const ContentHash sum = checksum(header, map.lse, map.mean, map.max);
  header.sumHigh = sum.high;
  header.sumLow = sum.low;

  static std::atomic<unsigned> counter{0};
  std::error_code error;
  fs::create_directories(m_folder, error);
  const fs::path target = fileOf(key);
  const fs::path temporary =
      m_folder / fmt::format(".{}.{}-{}.tmp", key.hex(), static_cast<long>(::getpid()), counter.fetch_add(1));
  {
    // Not synced: a file that a power cut tears fails its checksum.
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(&header), sizeof header);
    for (const std::vector<float>* values : {&map.lse, &map.mean, &map.max}) {
      file.write(reinterpret_cast<const char*>(values->data()),
                 static_cast<std::streamsize>(values->size() * sizeof(float)));
    }
    file.close();
    if (!file) {
      fs::remove(temporary, error);
      return false;
    }
  }
  // The system stamps files by a clock that lags up to a tick behind the one that hits are stamped by.
  fs::last_write_time(temporary, fs::file_time_type::clock::now(), error);
  fs::rename(temporary, target, error);
  if (error) {
    fs::remove(temporary, error);
    return false;
  }
  trim();
  return true;
}

void MapCache::setLimit(Index limitBytes) {
  m_limit.store(limitBytes);
  trim();
  std::error_code error;
  if (limitBytes == kDefaultMapCacheBytes && !fs::exists(m_folder / kLimitFile, error)) return;
  fs::create_directories(m_folder, error);
  writeFileAtomically(m_folder / kLimitFile, fmt::format("{}\n", std::max<Index>(0, limitBytes)));
}

Index MapCache::trim() {
  struct File {
    fs::path path;
    fs::file_time_type used;
    Index bytes;
  };
  const std::lock_guard lock(m_mutex);
  std::vector<File> files;
  Index total = 0;
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  // Another process may delete what is being listed: whatever cannot be looked at is not there.
  for (fs::directory_iterator it(m_folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code each;
    const fs::path& path = it->path();
    const fs::file_time_type used = fs::last_write_time(path, each);
    if (each) continue;
    if (path.extension() == ".tmp") {
      if (now - used > kStaleAge) fs::remove(path, each);
      continue;
    }
    if (path.extension() != kSuffix) continue;
    const auto bytes = static_cast<Index>(fs::file_size(path, each));
    if (each) continue;
    files.push_back({path, used, bytes});
    total += bytes;
  }
  const Index limit = std::max<Index>(0, m_limit.load());
  if (total > limit) {
    std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.used < b.used; });
    for (const File& file : files) {
      if (total <= limit) break;
      fs::remove(file.path, error);
      total -= file.bytes;
    }
  }
  m_bytes.store(total);
  return total;
}

Index MapCache::clear() {
  const Index before = trim();
  const std::lock_guard lock(m_mutex);
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(m_folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == kSuffix) files.push_back(it->path());
  }
  for (const fs::path& path : files) fs::remove(path, error);
  m_bytes.store(0);
  return before;
}

fs::path userMapCacheDir() { return userCacheDir() / "maps"; }

std::shared_ptr<MapCache> openUserMapCache() {
  const fs::path folder = userMapCacheDir();
  Index limit = 0;
  std::ifstream file(folder / kLimitFile);
  if (!(file >> limit) || limit < 0) limit = kDefaultMapCacheBytes;
  return std::make_shared<MapCache>(folder, limit);
}

}  // namespace sparsight
