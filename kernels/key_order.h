// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "sparsight/kernels/backend.h"

/// Heads whose keys stand in another order than those of the head that they come from.
namespace sparsight::detail {

/// An order of the keys of a head that holds its tensors, and the input of the head that has them so. Owned by that
/// head, which it outlives in nothing.
struct KeyOrder {
  std::shared_ptr<const PreparedHead> source;
  std::vector<Index> order;            ///< [Nk] key i is key order[i] of the source
  std::vector<std::uint8_t> keyValid;  ///< in this order; empty as the source's
  bool withValues = true;
  AttentionIn input;  ///< as PreparedHead::input() shows it: without tensors of keys and values, without a dense mask

  /// V was captured and is wanted.
  [[nodiscard]] bool hasValues() const { return withValues && source->input().v.data != nullptr; }
};
/// The order asked for of `head`; `own`: what `head` itself was ordered by, or null. An order of an order is one of the
/// first source. Throws Error{InvalidArgument} for what is no permutation.
[[nodiscard]] std::shared_ptr<const KeyOrder> orderKeys(const PreparedHead& head, const KeyOrder* own,
                                                        const PermuteRequest& request);

/// Keys, values, flags and dense mask of `in` gathered on the host, then prepared. keepAlive owns what `in` points to.
[[nodiscard]] std::shared_ptr<const PreparedHead> prepareGathered(Backend& backend, const AttentionIn& in,
                                                                  const PermuteRequest& request,
                                                                  std::shared_ptr<const void> keepAlive,
                                                                  const Control& control);

}  // namespace sparsight::detail
