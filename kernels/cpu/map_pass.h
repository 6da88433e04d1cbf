// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/cpu_head.h"

namespace sparsight::cpu {

/// One streaming pass over the scores of some rows: row LSE and pooled probabilities together, never N x N in memory.
struct MapPass {
  const CpuHead& head;
  const Executor& executor;
  const Control& control;

  std::vector<Index> rows;      ///< query rows, ascending
  std::vector<Index> mapRow;    ///< [rows] non-decreasing map row of each; empty: no map
  std::vector<Index> colEdges;  ///< [C + 1] compact key positions; the pass covers [front, back)
  Index mapRows = 0;
  std::span<const float> givenLse;  ///< [Nq]; empty: compute it (colEdges then covers all keys)

  float* lse = nullptr;   ///< [Nq] out
  float* mean = nullptr;  ///< [mapRows, C] out
  float* max = nullptr;   ///< [mapRows, C] out; cells without a valid pair are left as they are

  void run() const;
};

}  // namespace sparsight::cpu
