// SPDX-License-Identifier: Apache-2.0
#pragma once

// A block whose threads are threads: each runs the whole body on a stack of its own and stops only where a barrier or a
// warp's exchange stops it, in an order that the test chooses. Code that needs a barrier where none stands then reads
// what is not yet written, as it may on a device; cuda/block.h's HostBlock, which runs one stretch after another for
// all threads, cannot show that.

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda/block.h"
#include "tests/support/emulated_cuda/cuda_runtime_api.h"

namespace sparsight::cuda {

/// The threads of one block, one running at a time.
class ThreadScheduler {
 public:
  using Order = emulated::ThreadOrder;
  explicit ThreadScheduler(Order order, std::uint64_t seed) : m_order(order), m_random(seed * 2 + 1) {}

  /// Runs body(t) in every thread. Throws std::logic_error when threads wait for each other at different barriers.
  void run(const std::function<void(int)>& body) {
    m_body = &body;
    m_place.fill(Place::Running);
    static thread_local std::vector<char> stacks(static_cast<std::size_t>(kThreads) * kStackBytes);
    for (int t = 0; t < kThreads; ++t) {
      ucontext_t& context = m_contexts[at(t)];
      getcontext(&context);
      context.uc_stack.ss_sp = stacks.data() + at(t) * kStackBytes;
      context.uc_stack.ss_size = kStackBytes;
      context.uc_link = &m_main;
      const auto address = reinterpret_cast<std::uintptr_t>(this);
      makecontext(&context, reinterpret_cast<void (*)()>(&ThreadScheduler::enter), 3,
                  static_cast<unsigned>(address & 0xFFFFFFFFU), static_cast<unsigned>(address >> 32U), t);
    }
    while (release()) {
      for (const int t : orderOfTurn()) {
        while (m_place[at(t)] == Place::Running) {
          swapcontext(&m_main, &m_contexts[at(t)]);
          // A warp goes on by itself: the others may be anywhere before the next barrier.
          if (m_place[at(t)] == Place::AtWarp && !warpArrived(t)) break;
        }
      }
    }
  }

  /// Called by a thread: waits for the block, or for its warp.
  void waitForBlock(int t) { wait(t, Place::AtBlock); }
  void waitForWarp(int t) { wait(t, Place::AtWarp); }
  /// What the threads of the block show each other.
  std::array<void*, kThreads> shown{};

 private:
  enum class Place : std::uint8_t { Running, AtWarp, AtBlock, Ended };
  static constexpr std::size_t kStackBytes = std::size_t{128} << 10U;
  static std::size_t at(int t) { return static_cast<std::size_t>(t); }

  static void enter(unsigned low, unsigned high, int t) {
    auto* const self =
        reinterpret_cast<ThreadScheduler*>(static_cast<std::uintptr_t>(low) | static_cast<std::uintptr_t>(high) << 32U);
    (*self->m_body)(t);
    self->m_place[at(t)] = Place::Ended;
  }
  void wait(int t, Place place) {
    m_place[at(t)] = place;
    swapcontext(&m_contexts[at(t)], &m_main);
  }
  bool warpArrived(int t) {
    const auto first = m_place.begin() + t / 32 * 32;
    if (!std::all_of(first, first + 32, [](Place place) { return place == Place::AtWarp; })) return false;
    std::fill(first, first + 32, Place::Running);
    return true;
  }
  // Lets go whom nobody has to wait for any more; false: all have ended.
  bool release() {
    for (int t = 0; t < kThreads; t += 32) warpArrived(t);
    const auto are = [&](Place place) { return std::count(m_place.begin(), m_place.end(), place); };
    if (are(Place::Running) > 0) return true;
    if (are(Place::Ended) == kThreads) return false;
    if (are(Place::AtBlock) + are(Place::Ended) != kThreads || are(Place::Ended) > 0) {
      throw std::logic_error("threads of a block wait at different barriers");
    }
    m_place.fill(Place::Running);
    return true;
  }
  std::array<int, kThreads> orderOfTurn() {
    std::array<int, kThreads> order{};
    std::iota(order.begin(), order.end(), 0);
    if (m_order == Order::Reversed) std::reverse(order.begin(), order.end());
    if (m_order == Order::Random) {
      for (std::size_t i = order.size() - 1; i > 0; --i) {
        m_random = m_random * 6364136223846793005U + 1442695040888963407U;
        std::swap(order[i], order[(m_random >> 33U) % (i + 1)]);
      }
    }
    return order;
  }

  Order m_order;
  std::uint64_t m_random;
  const std::function<void(int)>* m_body = nullptr;
  std::array<Place, kThreads> m_place{};
  std::array<ucontext_t, kThreads> m_contexts{};
  ucontext_t m_main{};
};

/// What one thread sees of its block; as DeviceBlock.
template <class State>
class ThreadBlock {
 public:
  ThreadBlock(ThreadScheduler& scheduler, int thread, int blockX, int blockY)
      : m_scheduler(scheduler), m_thread(thread), m_x(blockX), m_y(blockY) {}
  [[nodiscard]] int x() const { return m_x; }
  [[nodiscard]] int y() const { return m_y; }
  template <class Body>
  void each(Body&& body) {
    body(m_thread, m_state);
  }
  /// Where it stands by builtins: clang 14 has no std::source_location.
  void sync(std::string_view path = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    emulated::Machine& machine = emulated::machine();
    const std::string_view file = path.substr(path.rfind('/') + 1);
    if (m_thread == 0) machine.barriers.insert({std::string(file), line});
    if (machine.leftOut.line == line && machine.leftOut.file == file) return;
    m_scheduler.waitForBlock(m_thread);
  }
  template <class Body>
  void uniform(Body&& body) {
    body(m_state);
  }
  template <class Get, class Merge>
  void mergeLanes(Get&& get, Merge&& merge) {
    auto& value = get(m_state);
    for (const int lanes : {1, 2}) value = merge(value, shownBy(value, m_thread % 32 + lanes < 32 ? lanes : 0));
  }
  template <class Get>
  void maxOfLanes(Get&& get) {
    float& value = get(m_state);
    for (const int lane : {1, 2}) value = ::fmaxf(value, shownBy(value, (m_thread ^ lane) - m_thread));
  }
  template <class T, class Get>
  void multiply(Get&& get) {
    MmaFragments& own = get(m_state);
    m_scheduler.shown[place(m_thread)] = &own;
    m_scheduler.waitForWarp(m_thread);
    const int first = m_thread / 32 * 32;
    const int lane = m_thread % 32;
    const auto element = [](std::uint32_t word, int half) {
      return toFloat(T{static_cast<std::uint16_t>(word >> (16U * static_cast<unsigned>(half)))});
    };
    const auto of = [&](int other) -> const MmaFragments& {
      return *static_cast<const MmaFragments*>(m_scheduler.shown[place(first + other)]);
    };
    float sum[4][4] = {};
    for (int n = 0; n < 4; ++n) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8;
        const int column = lane % 4 * 2 + i % 2;  // of the eight of n
        for (int e = 0; e < 16; ++e) {
          const float a = element(of(row % 8 * 4 + e % 8 / 2).a[row / 8 + e / 8 * 2], e % 2);
          const float b = element(of(column * 4 + e % 8 / 2).b[n][e / 8], e % 2);
          sum[n][i] += a * b;
        }
      }
    }
    m_scheduler.waitForWarp(m_thread);
    for (int n = 0; n < 4; ++n) {
      for (int i = 0; i < 4; ++i) own.acc[n][i] += sum[n][i];
    }
  }
  template <class Predicate>
  bool any(Predicate&& predicate) {
    bool own = predicate(m_thread, m_state);
    m_scheduler.shown[place(m_thread)] = &own;
    m_scheduler.waitForBlock(m_thread);
    const bool found = std::any_of(m_scheduler.shown.begin(), m_scheduler.shown.end(),
                                   [](const void* other) { return *static_cast<const bool*>(other); });
    m_scheduler.waitForBlock(m_thread);
    return found;
  }

 private:
  static std::size_t place(int thread) { return static_cast<std::size_t>(thread); }
  // The value of the thread that many places on, as it was when all of the warp showed theirs.
  template <class Value>
  Value shownBy(Value value, int places) {
    m_scheduler.shown[place(m_thread)] = &value;
    m_scheduler.waitForWarp(m_thread);
    const Value other = *static_cast<const Value*>(m_scheduler.shown[place(m_thread + places)]);
    m_scheduler.waitForWarp(m_thread);
    return other;
  }

  ThreadScheduler& m_scheduler;
  int m_thread, m_x, m_y;
  State m_state{};
};

}  // namespace sparsight::cuda
