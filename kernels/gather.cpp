// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstring>

#include "checks.h"
#include "key_order.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

OwnedMatrix gatherRows(const MatrixView& in, std::span<const Index> order) {
  const std::size_t rowBytes = static_cast<std::size_t>(in.cols) * itemSize(in.dtype);
  OwnedMatrix out;
  out.storage.resize(rowBytes * order.size());
  std::byte* target = out.storage.data();
  for (const Index row : order) {
    if (row < 0 || row >= in.rows) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("token order: {} is outside 0..{}", row, in.rows - 1));
    }
    std::memcpy(target, in.row(row), rowBytes);
    target += rowBytes;
  }
  out.view = {out.storage.data(), static_cast<Index>(order.size()), in.cols, static_cast<Index>(rowBytes), in.dtype};
  return out;
}

namespace detail {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

std::vector<std::uint8_t> gatherFlags(std::span<const std::uint8_t> flags, std::span<const Index> order) {
  std::vector<std::uint8_t> out;
  if (flags.empty()) return out;
  out.reserve(order.size());
  for (const Index key : order) out.push_back(flags[at(key)]);
  return out;
}

struct Gathered {
  OwnedMatrix k, v;
  std::vector<std::uint8_t> keyValid, denseMask;
  std::shared_ptr<const void> source;
};

}  // namespace

std::shared_ptr<const KeyOrder> orderKeys(const PreparedHead& head, const KeyOrder* own,
                                          const PermuteRequest& request) {
  checkOrder(head.input(), request.order);
  auto keys = std::make_shared<KeyOrder>();
  keys->source = own != nullptr ? own->source : head.shared_from_this();
  keys->order.assign(request.order.begin(), request.order.end());
  if (own != nullptr) {
    for (Index& key : keys->order) key = own->order[at(key)];
  }
  keys->withValues = request.withValues && (own == nullptr || own->withValues);
  keys->input = keys->source->input();
  keys->keyValid = gatherFlags(keys->input.keyValid, keys->order);
  keys->input.keyValid = keys->keyValid;
  keys->input.denseMask = {};
  keys->input.k.data = nullptr;
  keys->input.v.data = nullptr;
  if (!keys->hasValues()) keys->input.v = {};
  return keys;
}

std::shared_ptr<const PreparedHead> prepareGathered(Backend& backend, const AttentionIn& in,
                                                    const PermuteRequest& request,
                                                    std::shared_ptr<const void> keepAlive, const Control& control) {
  control.checkpoint();
  auto gathered = std::make_shared<Gathered>();
  gathered->source = std::move(keepAlive);
  AttentionIn moved = in;
  gathered->k = gatherRows(in.k, request.order);
  moved.k = gathered->k.view;
  if (!request.withValues) moved.v = {};
  if (moved.v.data != nullptr) {
    gathered->v = gatherRows(in.v, request.order);
    moved.v = gathered->v.view;
  }
  gathered->keyValid = gatherFlags(in.keyValid, request.order);
  moved.keyValid = gathered->keyValid;
  if (!in.denseMask.empty()) {
    gathered->denseMask.resize(in.denseMask.size());
    std::uint8_t* to = gathered->denseMask.data();
    for (Index row = 0; row < in.q.rows; ++row) {
      control.checkpoint();
      const std::uint8_t* const from = in.denseMask.data() + row * in.k.rows;
      for (const Index key : request.order) *to++ = from[key];
    }
    moved.denseMask = gathered->denseMask;
  }
  return backend.prepare(moved, std::move(gathered), control);
}

}  // namespace detail
}  // namespace sparsight
