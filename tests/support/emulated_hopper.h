// SPDX-License-Identifier: Apache-2.0
#pragma once

// A block of a Hopper kernel on the host: three warpgroups that run by turns, barriers with phases, tensor copies and
// asynchronous products. Everything that a device may do late is done as late as it may be: a copy arrives when nobody
// can go on without it, and what it overwrites is garbage from its start; a product reads its operands when it is
// waited for, and its registers are garbage until then. So a stage that is read before it is filled, or handed back
// before it was read, gives wrong results or a named failure, and groups that wait for each other are found out.

#include <bit>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/hopper_layout.h"
#include "cuda/score_tile.h"

namespace sparsight::cuda::hopper {

/// What the machine saw go wrong; on a device it would be a hang or a race.
struct EmulationFailure : std::logic_error {
  using std::logic_error::logic_error;
};

/// A row-major matrix of 16-bit elements, as a tensor map describes it.
struct EmulatedMap {
  const std::uint16_t* data;
  std::int64_t rows, cols;
};

class EmulatedBlock {
 public:
  /// seed 0: every group runs until it has to wait. Others: groups change places at random too, and copies arrive at
  /// random.
  EmulatedBlock(int x, int y, std::uint32_t bytes, std::uint64_t seed)
      : m_x(x),
        m_y(y),
        m_memory(bytes, std::byte{0xFF}),
        m_filling(bytes / kAtomBytes + 1, 0),
        m_unfenced(bytes / kAtomBytes + 1, -1),
        m_random(seed),
        m_shuffled(seed != 0) {}

  [[nodiscard]] int x() const { return m_x; }
  [[nodiscard]] int y() const { return m_y; }
  /// Any multiple of kAtomBytes: code that forgets to add it reads elsewhere.
  [[nodiscard]] static std::uint32_t base() { return 3 * kAtomBytes; }
  [[nodiscard]] std::byte* memory(std::uint32_t offset) { return m_memory.data() + offset; }

  void initBarrier(std::uint32_t offset, std::uint32_t arrivals) { m_barriers[offset] = {arrivals, arrivals, 0, 0}; }

  /// Runs the groups; each is called with its number. Throws the first exception of any of them.
  void run(const std::vector<std::function<void(int)>>& groups) {
    m_roles.assign(groups.size(), {});
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      threads.emplace_back([&, i] {
        try {
          {
            std::unique_lock lock(m_mutex);
            takeTurn(lock, i);
          }
          groups[i](static_cast<int>(i));
        } catch (...) {
          const std::lock_guard lock(m_mutex);
          if (!m_failure) m_failure = std::current_exception();
        }
        const std::lock_guard lock(m_mutex);
        m_roles[i].done = true;
        passOn();
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (m_failure) std::rethrow_exception(m_failure);
    if (!m_copies.empty()) throw EmulationFailure("a copy was started that nobody waits for");
  }

  void wait(int role, std::uint32_t barrier, int parity) {
    std::unique_lock lock(m_mutex);
    Role& own = m_roles[static_cast<std::size_t>(role)];
    own.waiting = true;
    own.barrier = barrier;
    own.parity = parity;
    if (m_shuffled || !ready(own)) {
      passOn();
      takeTurn(lock, static_cast<std::size_t>(role));
    }
    own.waiting = false;
  }
  void arrive(int role, std::uint32_t barrier, std::uint32_t arrivals, std::uint32_t expectedBytes) {
    std::unique_lock lock(m_mutex);
    Barrier& at = m_barriers.at(barrier);
    if (arrivals > at.pending) throw EmulationFailure("more threads arrive at a barrier than it was made for");
    at.bytes += expectedBytes;
    at.pending -= arrivals;
    at.settle();
    maybeYield(lock, role);
  }
  void load(int role, const EmulatedMap& map, std::uint32_t to, std::uint32_t barrier, int column, int row) {
    std::unique_lock lock(m_mutex);
    if (to % kAtomBytes != 0) throw EmulationFailure("a swizzled copy must go to a multiple of 1024 bytes");
    mark(to, 1);
    std::fill_n(m_memory.begin() + to, kKeyBoxBytes, std::byte{0xFF});
    m_copies.push_back({map, to, barrier, column, row});
    maybeYield(lock, role);
  }
  void storeTile(int role, std::uint32_t offset, const Words4& value) {
    std::memcpy(memory(offset), &value, sizeof value);
    m_unfenced[offset / kAtomBytes] = role;
  }
  void fenceStores(int role) { std::replace(m_unfenced.begin(), m_unfenced.end(), role, -1); }

  /// The 16-bit element at an address of the shared window, as the tensor cores see it: the 16-byte unit is exchanged
  /// by address bits 7 to 9.
  [[nodiscard]] std::uint16_t readSwizzled(std::uint32_t address) {
    const std::uint32_t at = (address ^ ((address >> 7U & 7U) << 4U)) - base();
    if (m_filling.at(at / kAtomBytes) != 0) throw EmulationFailure("a stage is read while a copy fills it");
    if (m_unfenced[at / kAtomBytes] >= 0) throw EmulationFailure("stores are read by the tensor cores without a fence");
    std::uint16_t value = 0;
    std::memcpy(&value, memory(at), sizeof value);
    return value;
  }

 private:
  struct Barrier {
    std::uint32_t expected, pending;
    std::int64_t bytes;
    std::uint64_t phases;
    void settle() {
      if (pending != 0 || bytes != 0) return;
      ++phases;
      pending = expected;
    }
  };
  struct Role {
    bool waiting = false, done = false;
    std::uint32_t barrier = 0;
    int parity = 0;
  };
  struct Copy {
    EmulatedMap map;
    std::uint32_t to, barrier;
    int column, row;
  };

  bool ready(const Role& role) {
    if (role.done) return false;
    return !role.waiting || static_cast<int>(m_barriers.at(role.barrier).phases & 1U) != role.parity;
  }
  void mark(std::uint32_t to, int change) {
    for (std::uint32_t at = to; at < to + kKeyBoxBytes; at += kAtomBytes) {
      if (change > 0 && m_filling[at / kAtomBytes] != 0) throw EmulationFailure("two copies fill the same stage");
      m_filling[at / kAtomBytes] += change;
    }
  }
  void deliver(std::size_t which) {
    const Copy copy = m_copies[which];
    m_copies.erase(m_copies.begin() + static_cast<std::ptrdiff_t>(which));
    for (std::uint32_t r = 0; r < kKeys; ++r) {
      for (std::uint32_t c = 0; c < kBoxCols; ++c) {
        const std::int64_t row = copy.row + static_cast<std::int64_t>(r);
        const std::int64_t column = copy.column + static_cast<std::int64_t>(c);
        const bool inside = row >= 0 && row < copy.map.rows && column >= 0 && column < copy.map.cols;
        const std::uint16_t value = inside ? copy.map.data[row * copy.map.cols + column] : std::uint16_t{0};
        // Written by the rule of the copy engine (16-byte unit of a row, row modulo 8), not by swizzled().
        const std::uint32_t unit = c / 8 ^ (r & 7U);
        std::memcpy(memory(copy.to + r * 128 + unit * 16 + c % 8 * 2), &value, sizeof value);
      }
    }
    mark(copy.to, -1);
    Barrier& at = m_barriers.at(copy.barrier);
    at.bytes -= kKeyBoxBytes;
    at.settle();
  }
  std::size_t draw(std::size_t count) { return std::uniform_int_distribution<std::size_t>(0, count - 1)(m_random); }

  // Chooses who runs next. With the mutex held.
  void passOn() {
    for (;;) {
      if (m_failure) break;
      if (m_shuffled && !m_copies.empty() && draw(3) == 0) deliver(draw(m_copies.size()));
      std::vector<std::size_t> able;
      bool alive = false;
      for (std::size_t i = 0; i < m_roles.size(); ++i) {
        alive = alive || !m_roles[i].done;
        if (ready(m_roles[i])) able.push_back(i);
      }
      if (!able.empty()) {
        m_current = m_shuffled ? able[draw(able.size())] : able.front();
        break;
      }
      if (!alive) break;
      if (m_copies.empty()) {
        std::string who;
        for (std::size_t i = 0; i < m_roles.size(); ++i) {
          if (m_roles[i].done) continue;
          who += " group " + std::to_string(i) + " at barrier " + std::to_string(m_roles[i].barrier) + ";";
        }
        m_failure = std::make_exception_ptr(EmulationFailure("everybody waits for ever:" + who));
        break;
      }
      deliver(m_shuffled ? draw(m_copies.size()) : 0);
    }
    m_turn.notify_all();
  }
  void takeTurn(std::unique_lock<std::mutex>& lock, std::size_t role) {
    m_turn.wait(lock, [&] { return m_current == role || m_failure; });
    if (m_failure) throw EmulationFailure("another group failed");
  }
  void maybeYield(std::unique_lock<std::mutex>& lock, int role) {
    if (!m_shuffled || draw(2) != 0) return;
    passOn();
    takeTurn(lock, static_cast<std::size_t>(role));
  }

  int m_x, m_y;
  std::vector<std::byte> m_memory;
  std::vector<int> m_filling;   ///< copies under way into each atom
  std::vector<int> m_unfenced;  ///< the group whose stores to an atom are not fenced; -1: none
  std::map<std::uint32_t, Barrier> m_barriers;
  std::vector<Role> m_roles;
  std::deque<Copy> m_copies;
  std::mutex m_mutex;
  std::condition_variable m_turn;
  std::size_t m_current = 0;
  std::exception_ptr m_failure;
  std::mt19937_64 m_random;
  bool m_shuffled;
};

/// One warpgroup of a block, with the names of DeviceGroup.
template <class StateOf>
class HostGroup {
 public:
  using State = StateOf;
  HostGroup(EmulatedBlock& block, int role) : m_block(block), m_role(role), m_states(kGroupThreads) {
    std::memset(static_cast<void*>(m_states.data()), 0xFF, m_states.size() * sizeof(State));  // NaN
  }

  [[nodiscard]] int x() const { return m_block.x(); }
  [[nodiscard]] int y() const { return m_block.y(); }
  [[nodiscard]] std::uint32_t base() const { return EmulatedBlock::base(); }
  template <class Body>
  void each(Body&& body) {
    m_fenced = false;
    for (int t = 0; t < kGroupThreads; ++t) body(t, m_states[static_cast<std::size_t>(t)]);
  }
  template <class T>
  T* shared(std::uint32_t offset) {
    return reinterpret_cast<T*>(m_block.memory(offset));
  }
  void storeTile(std::uint32_t offset, const Words4& value) { m_block.storeTile(m_role, offset, value); }
  void fenceStores() { m_block.fenceStores(m_role); }
  void syncGroup() {}
  void wait(std::uint32_t barrier, int parity) { m_block.wait(m_role, barrier, parity); }
  void arrive(std::uint32_t barrier) { m_block.arrive(m_role, barrier, kGroupThreads, 0); }
  void arriveExpecting(std::uint32_t barrier, std::uint32_t bytes) {
    m_block.arrive(m_role, barrier, kGroupThreads, bytes);
  }
  void arriveWarps(std::uint32_t barrier) { m_block.arrive(m_role, barrier, kWarps, 0); }
  void load(const EmulatedMap& map, std::uint32_t to, std::uint32_t barrier, int column, int row) {
    m_block.load(m_role, map, to, barrier, column, row);
  }
  template <class Get, class Predicate>
  void ballot(Get&& get, Predicate&& predicate) {
    for (int warp = 0; warp < kWarps; ++warp) {
      std::uint32_t bits = 0;
      for (int lane = 0; lane < 32; ++lane) {
        const int t = warp * 32 + lane;
        if (predicate(t, m_states[static_cast<std::size_t>(t)])) bits |= 1U << static_cast<unsigned>(lane);
      }
      for (int lane = 0; lane < 32; ++lane) get(m_states[static_cast<std::size_t>(warp * 32 + lane)]) = bits;
    }
  }
  template <class Get>
  int minOfGroup(std::uint32_t, Get&& get) {
    int least = std::numeric_limits<int>::max();
    for (State& state : m_states) least = minOf(least, static_cast<int>(get(state)));
    return least;
  }
  template <class Get>
  void maxOfRow(Get&& get) {
    for (std::size_t t = 0; t < m_states.size(); t += 4) {
      float largest = get(m_states[t]);
      for (std::size_t i = 1; i < 4; ++i) largest = ::fmaxf(largest, get(m_states[t + i]));
      for (std::size_t i = 0; i < 4; ++i) get(m_states[t + i]) = largest;
    }
  }
  template <class Get>
  void sumOfRow(Get&& get) {
    for (std::size_t t = 0; t < m_states.size(); t += 4) {
      const auto sum = (get(m_states[t]) + get(m_states[t + 1])) + (get(m_states[t + 2]) + get(m_states[t + 3]));
      for (std::size_t i = 0; i < 4; ++i) get(m_states[t + i]) = sum;
    }
  }

  template <class Acc, class... Held>
  void fenceProducts(Acc&&, Held&&...) {
    m_fenced = true;
  }
  template <class T, class Acc>
  void multiply(Acc&& acc, std::uint64_t a, std::uint64_t b, bool add) {
    enqueue<T>(acc, add, b, false, [this, a](float(&to)[64][16]) {
      const Matrix rows(a);
      for (std::uint32_t r = 0; r < 64; ++r) {
        for (std::uint32_t k = 0; k < 16; ++k) {
          to[r][k] = toFloat(T{m_block.readSwizzled(rows.start + r / 8 * rows.stride + r % 8 * 128 + k * 2)});
        }
      }
    });
  }
  template <class T, class Acc, class Left>
  void multiplyHeld(Acc&& acc, Left&& left, std::uint64_t b) {
    // PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16", A: two elements of a word, the lower one first.
    enqueue<T>(acc, true, b, true, [this, left](float(&to)[64][16]) {
      for (std::size_t t = 0; t < m_states.size(); ++t) {
        const auto& words = left(m_states[t]);
        for (std::size_t i = 0; i < 4; ++i) {
          const std::size_t row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8;
          const std::size_t k = t % 4 * 2 + i / 2 * 8;
          to[row][k] = toFloat(T{static_cast<std::uint16_t>(words[i])});
          to[row][k + 1] = toFloat(T{static_cast<std::uint16_t>(words[i] >> 16U)});
        }
      }
    });
  }
  void commitProducts() {
    m_groups.push_back(std::move(m_open));
    m_open.clear();
  }
  template <int kLeft, class Acc>
  void waitProducts(Acc&& acc) {
    while (m_groups.size() > static_cast<std::size_t>(kLeft)) {
      for (const Product& product : m_groups.front()) product.run();
      for (const Product& product : m_groups.front()) --m_inFlight[product.registers];
      m_groups.pop_front();
    }
    if (m_inFlight[&acc(m_states.front())[0]] != 0) throw EmulationFailure("sums are used that were not waited for");
  }
  /// At the end of the group's code.
  void finish() const {
    for (const auto& group : m_groups) {
      if (!group.empty()) throw EmulationFailure("products are under way at the end");
    }
    if (!m_open.empty()) throw EmulationFailure("products were not committed");
  }

 private:
  /// The fields of a matrix descriptor.
  struct Matrix {
    explicit Matrix(std::uint64_t bits)
        : start(static_cast<std::uint32_t>(bits & 0x3FFFU) * 16),
          leading(static_cast<std::uint32_t>(bits >> 16U & 0x3FFFU) * 16),
          stride(static_cast<std::uint32_t>(bits >> 32U & 0x3FFFU) * 16) {
      if (bits >> 62U != 1) throw EmulationFailure("a descriptor without the 128-byte swizzle");
      if ((bits >> 49U & 7U) != 0) throw EmulationFailure("a descriptor with a base offset");
    }
    std::uint32_t start, leading, stride;
  };
  struct Product {
    const float* registers;
    std::function<void()> run;
  };

  // The sums are garbage from now until the product runs, which goes on from what they were.
  template <class T, class Acc, class LoadA>
  void enqueue(Acc&& acc, bool add, std::uint64_t b, bool transposed, LoadA loadA) {
    if (!m_fenced) throw EmulationFailure("a product is started without a fence behind the last use of registers");
    using Registers = std::remove_reference_t<decltype(acc(m_states.front()))>;
    constexpr std::uint32_t kCols = std::extent_v<Registers> * 2;
    const float* const registers = &acc(m_states.front())[0];
    std::vector<float> saved;
    if (m_inFlight[registers]++ == 0) {
      for (State& state : m_states) {
        for (float& x : acc(state)) {
          saved.push_back(x);
          x = std::numeric_limits<float>::quiet_NaN();
        }
      }
    }
    m_open.push_back({registers, [this, acc, add, b, transposed, loadA, saved = std::move(saved)] {
                        static thread_local float left[64][16];
                        static thread_local float right[16][kCols];
                        static thread_local float sum[64][kCols];
                        loadA(left);
                        const Matrix matrix(b);
                        for (std::uint32_t k = 0; k < 16; ++k) {
                          for (std::uint32_t n = 0; n < kCols; ++n) {
                            const std::uint32_t at = transposed
                                                         ? matrix.start + n / 64 * matrix.leading + n % 64 * 2 +
                                                               k / 8 * matrix.stride + k % 8 * 128
                                                         : matrix.start + n / 8 * matrix.stride + n % 8 * 128 + k * 2;
                            right[k][n] = toFloat(T{m_block.readSwizzled(at)});
                          }
                        }
                        for (std::uint32_t r = 0; r < 64; ++r) {
                          for (float& x : sum[r]) x = 0.0F;
                          for (std::uint32_t k = 0; k < 16; ++k) {
                            for (std::uint32_t n = 0; n < kCols; ++n) sum[r][n] += left[r][k] * right[k][n];
                          }
                        }
                        auto before = saved.begin();
                        for (std::size_t t = 0; t < m_states.size(); ++t) {
                          auto& own = acc(m_states[t]);
                          for (std::size_t i = 0; i < kCols / 2; ++i) {
                            if (before != saved.end()) own[i] = *before++;
                            // PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16", D.
                            const std::size_t row = t / 32 * 16 + t % 32 / 4 + (i % 4 >= 2 ? 8 : 0);
                            const std::size_t col = i / 4 * 8 + t % 4 * 2 + i % 2;
                            own[i] = (add ? own[i] : 0.0F) + sum[row][col];
                          }
                        }
                      }});
  }

  EmulatedBlock& m_block;
  int m_role;
  std::vector<State> m_states;
  bool m_fenced = false;
  std::vector<Product> m_open;
  std::deque<std::vector<Product>> m_groups;
  std::map<const float*, int> m_inFlight;
};

}  // namespace sparsight::cuda::hopper
