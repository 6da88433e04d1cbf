// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

/// SplitMix64 (Steele, Lea, Flood 2014): integers only, so the same seed gives the same draws on every platform and
/// compiler, which std::uniform_int_distribution does not promise.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) noexcept : m_state(seed) {}

  [[nodiscard]] std::uint64_t next() noexcept {
    m_state += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = m_state;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31U);
  }
  /// Uniform in [0, count), count > 0; rejection, so without modulo bias.
  [[nodiscard]] Index below(Index count) noexcept {
    const auto n = static_cast<std::uint64_t>(count);
    const std::uint64_t threshold = (0 - n) % n;
    std::uint64_t draw = next();
    while (draw < threshold) draw = next();
    return static_cast<Index>(draw % n);
  }

 private:
  std::uint64_t m_state;
};

/// Seed of the draws of one call, from (seed, step, branch, layer) by FNV-1a: independent of which heads are selected,
/// of the order of work and of threads.
[[nodiscard]] inline std::uint64_t callSeed(std::uint64_t seed, const CallId& call) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  const auto byte = [&](std::uint64_t value) { hash = (hash ^ (value & 0xFFU)) * 0x100000001B3ULL; };
  const auto word = [&](std::uint64_t value) {
    for (unsigned shift = 0; shift < 64; shift += 8) byte(value >> shift);
  };
  word(seed);
  word(static_cast<std::uint64_t>(call.step));
  for (const char c : call.branch) byte(static_cast<std::uint64_t>(static_cast<unsigned char>(c)));
  word(static_cast<std::uint64_t>(call.layer));
  return hash;
}

}  // namespace sparsight
