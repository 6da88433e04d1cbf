// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdlib>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <tuple>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight::trace {

/// Uninitialised bytes aligned for vector loads.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : m_size(bytes) {
    if (bytes == 0) return;
    m_data.reset(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    if (!m_data) throw std::bad_alloc();
  }
  [[nodiscard]] std::byte* data() noexcept { return m_data.get(); }
  [[nodiscard]] const std::byte* data() const noexcept { return m_data.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return m_size; }

 private:
  struct Free {
    void operator()(std::byte* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<std::byte[], Free> m_data;
  std::size_t m_size = 0;
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
  /// Values larger than the whole cache are not kept; the caller's reference keeps them alive.
  void insert(const Key& key, std::shared_ptr<const void> value, Index bytes) {
    const std::lock_guard lock(m_mutex);
    if (bytes > m_capacity || m_index.contains(key)) return;
    m_entries.push_front({key, std::move(value), bytes});
    m_index[key] = m_entries.begin();
    m_bytes += bytes;
    while (m_bytes > m_capacity) {
      m_bytes -= m_entries.back().bytes;
      m_index.erase(m_entries.back().key);
      m_entries.pop_back();
    }
  }
  [[nodiscard]] Index bytes() const {
    const std::lock_guard lock(m_mutex);
    return m_bytes;
  }

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const void> value;
    Index bytes;
  };
  mutable std::mutex m_mutex;
  Index m_capacity, m_bytes = 0;
  std::list<Entry> m_entries;
  std::map<Key, std::list<Entry>::iterator> m_index;
};

}  // namespace sparsight::trace
