// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/content_hash.h"
#include "sparsight/core/trace.h"

namespace sparsight {

/// What an exact pass over one head leaves: row LSE, and the coarse map if the pass made one.
struct CachedMap {
  Index rows = 0;                    ///< Nq
  Index cellRows = 0, cellCols = 0;  ///< of the coarse map; 0: LSE only
  std::vector<float> lse;            ///< [Nq] in computed order
  std::vector<float> mean, max;      ///< [cellRows, cellCols] or empty
  std::string computedBy;            ///< backend id, "cpu" or "cuda"
};

/// The name of a head's exact map: its queries and keys, scale, masks, token orders and the version of the format. V
/// has no part in it.
[[nodiscard]] ContentHash mapContentHash(const AttentionIn& in, std::span<const Index> qOrder,
                                         std::span<const Index> kOrder);
/// The same with matrixHash() of Q and K at hand; theirs in `in` need no values.
[[nodiscard]] ContentHash mapContentHash(const ContentHash& queries, const ContentHash& keys, const AttentionIn& in,
                                         std::span<const Index> qOrder, std::span<const Index> kOrder);

/// Exact maps on disk, one small file each, found by content. Bounded: beyond the limit the files not used for longest
/// go. Safe to delete at any time, and several processes may share a folder: files appear by rename, carry a checksum,
/// and one that is damaged or of another version counts as missing and is replaced. Nothing here throws for a reason of
/// the disk: a cache that cannot be read or written is an empty one. Any thread.
class MapCache {
 public:
  /// The folder is made when there is something to write. limitBytes <= 0: nothing is kept.
  MapCache(std::filesystem::path folder, Index limitBytes);

  /// nullopt: not there, damaged, or not of `rows` queries. A hit counts as use.
  [[nodiscard]] std::optional<CachedMap> find(const ContentHash& key, Index rows);
  /// False: not written (too large for the limit, no permission, disk full).
  bool store(const ContentHash& key, const CachedMap& map);
  /// Bytes of the files as of the last look at the folder (the constructor does not look); -1: none yet.
  [[nodiscard]] Index bytes() const noexcept { return m_bytes.load(); }
  [[nodiscard]] Index limit() const noexcept { return m_limit.load(); }
  /// Takes effect at once: smaller limits drop files. Reads the folder, and leaves the limit there for openUserMapCache
  /// of other programs.
  void setLimit(Index limitBytes);
  /// Removes every file of the cache; returns how many bytes that were.
  Index clear();
  [[nodiscard]] const std::filesystem::path& folder() const noexcept { return m_folder; }

 private:
  [[nodiscard]] std::filesystem::path fileOf(const ContentHash& key) const;
  Index trim();
  std::filesystem::path m_folder;
  std::mutex m_mutex;  // one trim at a time
  std::atomic<Index> m_limit, m_bytes{-1};
};

/// Where the window and the command line keep theirs: the folder "maps" of userCacheDir().
[[nodiscard]] std::filesystem::path userMapCacheDir();
inline constexpr Index kDefaultMapCacheBytes = Index{512} << 20;
/// That cache, with the limit that was set last (by the window's settings), else the default.
[[nodiscard]] std::shared_ptr<MapCache> openUserMapCache();

}  // namespace sparsight
