// SPDX-License-Identifier: Apache-2.0
#include "block_pairs.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

}  // namespace

std::vector<Index> blockEdges(Index tokens, Index block) {
  std::vector<Index> edges;
  for (Index edge = 0; edge < tokens; edge += block) edges.push_back(edge);
  edges.push_back(tokens);
  return edges;
}

std::vector<Index> validBlockPairs(const AttentionIn& in, std::span<const Index> qBounds,
                                   std::span<const Index> kBounds, const Control& control) {
  const Index bq = static_cast<Index>(qBounds.size()) - 1;
  const Index bk = static_cast<Index>(kBounds.size()) - 1;
  std::vector<Index> pairs(at(bq) * at(bk), 0), keys(at(bk), 0);
  const auto keyValid = [&](Index key) { return in.keyValid.empty() || in.keyValid[at(key)] != 0; };
  for (Index j = 0; j < bk; ++j) {
    for (Index key = kBounds[at(j)]; key < kBounds[at(j + 1)]; ++key) keys[at(j)] += keyValid(key) ? 1 : 0;
  }
  for (Index i = 0; i < bq; ++i) {
    control.checkpoint();
    for (Index row = qBounds[at(i)]; row < qBounds[at(i + 1)]; ++row) {
      if (!in.queryValid.empty() && in.queryValid[at(row)] == 0) continue;
      for (Index j = 0; j < bk; ++j) {
        Index& count = pairs[at(i) * at(bk) + at(j)];
        if (in.denseMask.empty()) {
          count += keys[at(j)];
          continue;
        }
        for (Index key = kBounds[at(j)]; key < kBounds[at(j + 1)]; ++key) {
          count += keyValid(key) && in.denseMask[at(row) * at(in.k.rows) + at(key)] != 0 ? 1 : 0;
        }
      }
    }
  }
  return pairs;
}

}  // namespace sparsight
