// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "sparsight/core/importer.h"

// What stands beside a call's queries and keys: which rows are stored, which keys count.
namespace sparsight::import {

/// Copies a plane of the source, see TensorFile::readPlane.
using PlaneReader = std::function<void(const PlaneSource&, std::span<std::byte>)>;

/// The token of each query row, [nQ], rising, below `tokens`; empty where all rows are stored. Throws Error{Format}.
[[nodiscard]] std::vector<Index> readQueryRows(const Survey& survey, const PlannedCall& call, Index tokens,
                                               const PlaneReader& read);

struct CallMasks {
  std::vector<std::uint8_t> keyValid;  ///< [nK]; empty: all count
  std::vector<std::uint8_t> dense;     ///< [nQ, nK]; empty: the same for all queries
};
/// Reads row by row. A mask that is the same for all queries becomes keyValid; so does one of padding, whose own rows
/// are wholly masked. `rows`: see readQueryRows. Throws Error{Unsupported} for biases, Error{Format} where no key
/// counts, Error{OutOfMemory} where a mask that differs between queries is larger than `limit` bytes.
[[nodiscard]] CallMasks readMasks(const Survey& survey, const PlannedCall& call, std::span<const Index> rows,
                                  Index limit, const PlaneReader& read);

}  // namespace sparsight::import
