// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "cpu/simd.h"

namespace sparsight::cpu {

/// Uninitialised floats on a vector boundary.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(Index count)
      : m_data(static_cast<float*>(
            ::operator new (static_cast<std::size_t>(count) * sizeof(float), std::align_val_t{kAlignment}))) {}
  [[nodiscard]] float* get() const noexcept { return m_data.get(); }

 private:
  struct Free {
    void operator()(float* p) const noexcept { ::operator delete (p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<float[], Free> m_data;
};

/// Working memory of one operation: one object per piece of work that runs at the same time, reused by later pieces.
/// Not thread_local: a thread that waits inside a nested loop may run another piece of the same operation.
template <class T>
class ScratchPool {
 public:
  template <class Make>
  explicit ScratchPool(Make make) : m_make(std::move(make)) {}

  class Lease {
   public:
    Lease(ScratchPool& pool, std::unique_ptr<T> item) : m_pool(pool), m_item(std::move(item)) {}
    ~Lease() {
      const std::lock_guard lock(m_pool.m_mutex);
      m_pool.m_free.push_back(std::move(m_item));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    T& operator*() const noexcept { return *m_item; }

   private:
    ScratchPool& m_pool;
    std::unique_ptr<T> m_item;
  };

  [[nodiscard]] Lease take() {
    {
      const std::lock_guard lock(m_mutex);
      if (!m_free.empty()) {
        std::unique_ptr<T> item = std::move(m_free.back());
        m_free.pop_back();
        return {*this, std::move(item)};
      }
      m_free.reserve(++m_made);  // so that giving back cannot throw
    }
    return {*this, m_make()};
  }
  /// Everything given back, for summing per-piece results up. Only when no lease is out.
  [[nodiscard]] const std::vector<std::unique_ptr<T>>& all() const noexcept { return m_free; }

 private:
  std::function<std::unique_ptr<T>()> m_make;
  std::mutex m_mutex;
  std::vector<std::unique_ptr<T>> m_free;
  std::size_t m_made = 0;
};

}  // namespace sparsight::cpu
