// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight::trace {

/// Memory of tensors that are gone, for those that come: touching new pages takes longer than reading a head into old
/// ones. Thread-safe.
class BufferPool {
 public:
  struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  using Block = std::unique_ptr<std::byte[], Free>;

  /// Holds blocks of this many bytes altogether; the rest is freed.
  void setLimit(std::size_t bytes) {
    const std::lock_guard lock(m_mutex);
    m_limit = bytes;
    shrink();
  }
  [[nodiscard]] std::size_t bytes() const {
    const std::lock_guard lock(m_mutex);
    return m_bytes;
  }
  /// A block of exactly that size, or none; blocks of another size are freed then, they would not be asked for.
  [[nodiscard]] Block take(std::size_t bytes) {
    const std::lock_guard lock(m_mutex);
    for (auto it = m_blocks.rbegin(); it != m_blocks.rend(); ++it) {
      if (it->second != bytes) continue;
      Block block = std::move(it->first);
      m_blocks.erase(std::next(it).base());
      m_bytes -= bytes;
      return block;
    }
    m_blocks.clear();
    m_bytes = 0;
    return {};
  }
  /// Where the memory is missing to remember it, the block is freed: blocks come from destructors.
  void give(Block block, std::size_t bytes) noexcept {
    try {
      const std::lock_guard lock(m_mutex);
      m_blocks.emplace_back(std::move(block), bytes);
      m_bytes += bytes;
      shrink();
    } catch (const std::exception&) {
      return;  // `block` goes with this call, or has gone
    }
  }

 private:
  void shrink() {
    while (m_bytes > m_limit) {
      m_bytes -= m_blocks.front().second;
      m_blocks.erase(m_blocks.begin());
    }
  }
  mutable std::mutex m_mutex;
  std::vector<std::pair<Block, std::size_t>> m_blocks;  // the last given is the warmest
  std::size_t m_bytes = 0, m_limit = 0;
};

/// Uninitialised bytes aligned for vector loads; they go back to the pool they came from.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes, const std::shared_ptr<BufferPool>& pool = nullptr) : m_size(bytes), m_pool(pool) {
    if (bytes == 0) return;
    if (pool) m_data = pool->take(bytes);
    if (m_data) return;
    m_data.reset(
        static_cast<std::byte*>(std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment)));
    if (!m_data) throw std::bad_alloc();
  }
  ~Buffer() {
    if (!m_data) return;
    if (const auto pool = m_pool.lock()) pool->give(std::move(m_data), m_size);
  }
  Buffer(Buffer&& other) noexcept = default;
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(m_data, other.m_data);
    std::swap(m_size, other.m_size);
    std::swap(m_pool, other.m_pool);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] std::byte* data() noexcept { return m_data.get(); }
  [[nodiscard]] const std::byte* data() const noexcept { return m_data.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return m_size; }

 private:
  static constexpr std::size_t kAlignment = 64;

  BufferPool::Block m_data;
  std::size_t m_size = 0;
  std::weak_ptr<BufferPool> m_pool;  // a head may outlive its trace
};

/// One matrix of one stored head as it lies in the file (little-endian), with what the sample check found.
struct Tensor {
  Buffer buffer;
  MatrixView view;
  float absmax = 0;
  std::vector<std::string> warnings;
};

/// What the heads of a call share.
struct CallData {
  std::vector<std::uint8_t> keyValid, queryValid, denseMask;
  std::vector<Index> qRows;
  [[nodiscard]] Index bytes() const noexcept {
    return static_cast<Index>(keyValid.size() + queryValid.size() + denseMask.size() + qRows.size() * sizeof(Index));
  }
};

/// Byte-bounded LRU of immutable values. K and V heads are entries of their own, so that the query heads of a GQA group
/// share them. Thread-safe.
class TensorCache {
 public:
  using Key = std::tuple<std::size_t, char, Index>;  // call, 'q' 'k' 'v' or 'c', stored head

  explicit TensorCache(Index capacityBytes) : m_capacity(capacityBytes) {}

  template <class T>
  [[nodiscard]] std::shared_ptr<const T> find(const Key& key) {
    const std::lock_guard lock(m_mutex);
    const auto it = m_index.find(key);
    if (it == m_index.end()) return nullptr;
    m_entries.splice(m_entries.begin(), m_entries, it->second);
    return std::static_pointer_cast<const T>(it->second->value);
  }
  /// Memory for a value that will be inserted: what must go to keep within the capacity goes first, and its memory is
  /// used again.
  [[nodiscard]] Buffer newBuffer(Index bytes) {
    m_pool->setLimit(static_cast<std::size_t>(m_capacity));
    std::vector<std::shared_ptr<const void>> gone;
    {
      const std::lock_guard lock(m_mutex);
      while (bytes <= m_capacity && m_bytes + bytes > m_capacity) gone.push_back(evictLast());
    }
    gone.clear();
    limitPool();
    return Buffer(static_cast<std::size_t>(bytes), m_pool);
  }
  /// Values larger than the whole cache are not kept; the caller's reference keeps them alive.
  void insert(const Key& key, std::shared_ptr<const void> value, Index bytes) {
    {
      const std::lock_guard lock(m_mutex);
      if (bytes > m_capacity || m_index.contains(key)) return;
      m_entries.push_front({key, std::move(value), bytes});
      m_index[key] = m_entries.begin();
      m_bytes += bytes;
      while (m_bytes > m_capacity) evictLast();
    }
    limitPool();
  }
  [[nodiscard]] Index bytes() const {
    const std::lock_guard lock(m_mutex);
    return m_bytes;
  }
  /// Memory of evicted values that waits for new ones.
  [[nodiscard]] Index waitingBytes() const { return static_cast<Index>(m_pool->bytes()); }

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const void> value;
    Index bytes;
  };
  std::shared_ptr<const void> evictLast() {
    std::shared_ptr<const void> value = std::move(m_entries.back().value);
    m_bytes -= m_entries.back().bytes;
    m_index.erase(m_entries.back().key);
    m_entries.pop_back();
    return value;
  }
  /// What waits for use and what is cached are one budget.
  void limitPool() { m_pool->setLimit(static_cast<std::size_t>(std::max<Index>(0, m_capacity - bytes()))); }

  std::shared_ptr<BufferPool> m_pool = std::make_shared<BufferPool>();  // outlives the values below
  mutable std::mutex m_mutex;
  Index m_capacity, m_bytes = 0;
  std::list<Entry> m_entries;
  std::map<Key, std::list<Entry>::iterator> m_index;
};

}  // namespace sparsight::trace
