// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sparsight/kernels/backend.h"

/// One table of operation cases that every backend must pass against the double-precision oracle.
namespace sparsight::testing {

/// What the logits look like.
enum class Scores : std::uint8_t {
  Normal,      ///< standard deviation about 1
  Peaked,      ///< standard deviation about 6: most rows live on a few keys
  Extreme,     ///< up to about 1e4
  AllEqual,    ///< every key the same
  OneHuge,     ///< one key 1e4 above the rest
  Duplicated,  ///< every key three times and every query twice: real ties
  Zero,        ///< queries of zeros
};
enum class Blocks : std::uint8_t { Even, Ragged, WithEmpty, One, Tokens };

struct OpCase {
  std::string name;
  Index queries = 0, keys = 0, dim = 0, valueDim = 0;  ///< valueDim 0: no V captured
  DType dtype = DType::F32;
  Scores scores = Scores::Normal;
  Blocks rowBlocks = Blocks::Ragged, colBlocks = Blocks::Ragged;
  bool keyPadding = false;    ///< a third of the keys, scattered
  bool queryPadding = false;  ///< the last fifth of the rows
  bool denseMask = false;     ///< half of the pairs, and one whole row
  bool strided = false;       ///< rows farther apart than their length
  double scaleFactor = 1.0;   ///< times 1 / sqrt(dim); negative and zero are legal
};
[[nodiscard]] const std::vector<OpCase>& opCases();

/// The tensors of a case, owned. Equal seeds give equal bits on every machine.
struct OpHead {
  std::vector<std::byte> q, k, v;
  std::vector<std::uint8_t> keyValid, queryValid, denseMask;
  AttentionIn in;
};
[[nodiscard]] std::shared_ptr<const OpHead> makeOpHead(const OpCase& opCase, std::uint64_t seed = 1);
/// Edges of a partition of [0, size).
[[nodiscard]] std::vector<Index> makeBlocks(Blocks blocks, Index size);

/// Runs one operation of one case on `backend` and compares it with the oracle by gtest expectations.
void checkLseMap(Backend& backend, const OpCase& opCase);
void checkTile(Backend& backend, const OpCase& opCase);
void checkAttend(Backend& backend, const OpCase& opCase);
void checkAttendTop(Backend& backend, const OpCase& opCase);
void checkRowStats(Backend& backend, const OpCase& opCase);
void checkGlobalTop(Backend& backend, const OpCase& opCase);
void checkCluster(Backend& backend, const OpCase& opCase);
/// The bits of a head prepared from gathered tensors, for every operation.
void checkPermuteKeys(Backend& backend, const OpCase& opCase);
/// The oracle's bits, with the head's tokens for centroids.
void checkScoreClusters(Backend& backend, const OpCase& opCase);
/// The largest by a plain sort.
void checkSelectLargest(Backend& backend, const OpCase& opCase);
/// All operations that the backend supports for the case; named by opName.
void checkAllOps(Backend& backend, const OpCase& opCase);

}  // namespace sparsight::testing
