// SPDX-License-Identifier: Apache-2.0
#pragma once

// The largest values of each row, exactly: radix refinement of the bits of doubles, no row is sorted.

#include "cuda/score_rows.h"
#include "exact_exp.h"

namespace sparsight::cuda {

struct SelectLargestParams {
  const double* values;          ///< [rows, columns], none negative
  const std::uint8_t* excluded;  ///< [columns] 1: never kept; null: none
  const std::int32_t* counts;    ///< [rows] at most the columns that are not excluded
  std::int32_t columns;
  std::uint8_t* kept;  ///< [rows, columns]
};
inline constexpr int kSelectBits = 8;
inline constexpr int kSelectBuckets = 1 << kSelectBits;
static_assert(kSelectBuckets == kThreads, "a thread clears a bucket");
struct SelectLargestShared {
  std::uint32_t count[kSelectBuckets];
  std::uint8_t tie[kThreads];
  std::uint64_t prefix;
  std::uint32_t left, equal;
};
struct SelectLargestState {
  std::uint64_t prefix;  ///< leading bits of the last rank that is kept
  std::uint32_t left;    ///< how many of that rank are kept
  std::uint32_t equal;   ///< how many there are
  std::uint32_t seen;
  std::uint64_t rank;
};

/// Block x: one row. Ranks fall as values rise; among equal values the first columns are kept.
template <class Block>
SPARSIGHT_DEVICE void selectLargestBody(Block& block, SelectLargestShared& shared, const SelectLargestParams& p) {
  const double* const row = p.values + static_cast<std::int64_t>(block.x()) * p.columns;
  std::uint8_t* const kept = p.kept + static_cast<std::int64_t>(block.x()) * p.columns;
  const auto open = [&](std::int64_t i) { return p.excluded == nullptr || p.excluded[i] == 0; };
  block.each([&](int, auto& s) {
    s.prefix = 0;
    s.left = static_cast<std::uint32_t>(p.counts[block.x()]);
  });
  for (int shift = 64 - kSelectBits; shift >= 0; shift -= kSelectBits) {
    block.each([&](int t, auto&) { shared.count[t] = 0; });
    block.sync();
    block.each([&](int t, auto& s) {
      for (std::int64_t i = t; i < p.columns; i += kThreads) {
        if (!open(i)) continue;
        const std::uint64_t rank = exact::rankOf(row[i]) >> static_cast<unsigned>(shift);
        if (rank >> static_cast<unsigned>(kSelectBits) == s.prefix) addAtomic(&shared.count[rank % kSelectBuckets], 1);
      }
    });
    block.sync();
    block.each([&](int t, auto& s) {
      if (t != 0) return;
      std::uint32_t left = s.left;
      int bucket = 0;
      while (bucket < kSelectBuckets - 1 && shared.count[bucket] < left) left -= shared.count[bucket++];
      shared.prefix = s.prefix << static_cast<unsigned>(kSelectBits) | static_cast<std::uint64_t>(bucket);
      shared.left = left;
      shared.equal = shared.count[bucket];
    });
    block.sync();
    block.each([&](int, auto& s) {
      s.prefix = shared.prefix;
      s.left = shared.left;
      s.equal = shared.equal;
    });
  }
  block.each([&](int t, auto& s) {
    const bool whole = s.left >= s.equal;
    for (std::int64_t i = t; i < p.columns; i += kThreads) {
      const std::uint64_t rank = exact::rankOf(row[i]);
      kept[i] = open(i) && (rank < s.prefix || (whole && rank == s.prefix)) ? 1 : 0;
    }
    s.seen = whole ? s.left : 0;
  });
  // Some of several equal ones: counted in the order of the columns.
  for (std::int64_t base = 0; base < p.columns; base += kThreads) {
    bool done = false;
    block.uniform([&](auto& s) { done = s.seen >= s.left; });
    if (done) break;
    block.each([&](int t, auto& s) {
      const std::int64_t i = base + t;
      shared.tie[t] = i < p.columns && open(i) && exact::rankOf(row[i]) == s.prefix ? 1 : 0;
    });
    block.sync();
    block.each([&](int t, auto& s) {
      std::uint32_t before = s.seen;
      SPARSIGHT_UNROLL_BY_8
      for (int i = 0; i < kThreads; ++i) {
        before += i < t ? shared.tie[i] : 0U;
        s.seen += shared.tie[i];
      }
      if (shared.tie[t] != 0 && before < s.left) kept[base + t] = 1;
    });
    block.sync();
  }
}

}  // namespace sparsight::cuda
