// SPDX-License-Identifier: Apache-2.0
// Keys in another order: moved where they lie on the device.
#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

/// What moving 16 bytes counts for among multiply-adds: a small GPU moves some 10^10 of these a second.
constexpr double kWorkPerUnit = 150;

}  // namespace

std::shared_ptr<const PreparedHead> CudaBackend::permuteKeys(const PreparedHead& prepared,
                                                             const PermuteRequest& request, const Control& control) {
  const CudaHead& given = cast(prepared);
  auto head = std::make_shared<CudaHead>(detail::orderKeys(given, given.order, request));
  start();
  static_cast<void>(arrived(head->source(), control));
  // Half a batch would be half a head. Scratch of earlier operations gives way, as for an upload.
  for (const bool again : {false, true}) {
    try {
      const Drain drain(m_stream);
      moveKeys(*head, control);
      m_stream.wait("permute_keys");
      readTimer();
      control.report(1.0);
      return head;
    } catch (const Error& e) {
      if (again || e.code() != ErrorCode::OutOfMemory) throw;
    }
    m_scratch = {};
  }
  return nullptr;
}

void CudaBackend::moveKeys(CudaHead& head, const Control& control) {
  const CudaHead& source = head.source();
  const bool withValues = head.hasValues() && source.v.sizeBytes() > 0;
  const auto bytesOfRow = [&](Index cols) { return cols * static_cast<Index>(itemSize(head.dtype)); };
  head.reserve(m_budget, withValues);
  if (!head.input().keyValid.empty()) {
    m_staging.upload(head.keyValid.as<void>(), head.input().keyValid.data(), head.keyValid.sizeBytes(), control,
                     "upload the key validity");
  }
  uploadOrder(head, control);
  beginTiming();
  gatherRows(source.k, head.k, head.input().k.rows, bytesOfRow(head.depth), control, 0, withValues ? 0.5 : 1);
  if (withValues) {
    gatherRows(source.v, head.v, head.input().k.rows, bytesOfRow(head.valueCols()), control, 0.5, 0.5);
  }
  endTiming();
}

void CudaBackend::moveValues(CudaHead& head, const Control& control) {
  uploadOrder(head, control);
  gatherRows(head.source().v, head.v, head.input().k.rows, head.valueCols() * static_cast<Index>(itemSize(head.dtype)),
             {control.stop, {}}, 0, 1);
}

void CudaBackend::uploadOrder(const CudaHead& head, const Control& control) {
  const std::vector<std::int32_t> order(head.order->order.begin(), head.order->order.end());
  uploadTable(m_scratch.keyOrder, order, control, "upload the order of the keys");
}

void CudaBackend::gatherRows(const DeviceBuffer& from, const DeviceBuffer& to, Index rows, Index rowBytes,
                             const Control& control, double done, double share) {
  const Index units = rowBytes / static_cast<Index>(sizeof(Words4));
  const Index perLaunch = rowsPerLaunch(m_limits, rows, kWorkPerUnit * static_cast<double>(units), 1);
  Index launch = 0;
  for (Index first = 0; first < rows; first += perLaunch, ++launch) {
    control.checkpoint();
    const Index n = std::min(perLaunch, rows - first);
    check(launchGather({from.as<const void>(), to.as<std::byte>() + first * rowBytes,
                        m_scratch.keyOrder.as<const std::int32_t>() + first, static_cast<std::int32_t>(n),
                        static_cast<std::int32_t>(units)},
                       m_stream.get()),
          "permute_keys");
    paceLaunches(launch, "permute_keys");
    control.report(done + share * static_cast<double>(first + n) / static_cast<double>(rows));
  }
}

void CudaBackend::uploadMask(const CudaHead& head, void* to, Index row0, Index rows, Index key0, Index keys,
                             const Control& control) {
  constexpr Index kGatheredBytes = Index{4} << 20;
  const AttentionIn& in = head.source().input();
  const std::uint8_t* const mask = in.denseMask.data();
  if (head.order == nullptr) {
    m_staging.uploadRows(to, keys, reinterpret_cast<const std::byte*>(mask) + row0 * in.k.rows + key0, rows, keys,
                         in.k.rows, control, "upload rows of the dense mask");
    return;
  }
  const std::span<const Index> order = std::span(head.order->order).subspan(at(key0), at(keys));
  const Index perStep = std::max<Index>(1, kGatheredBytes / std::max<Index>(keys, 1));
  std::vector<std::uint8_t> gathered(at(std::min(perStep, rows) * keys));
  for (Index first = 0; first < rows; first += perStep) {
    control.checkpoint();
    const Index n = std::min(perStep, rows - first);
    std::uint8_t* next = gathered.data();
    for (Index row = row0 + first; row < row0 + first + n; ++row) {
      for (const Index key : order) *next++ = mask[row * in.k.rows + key];
    }
    m_staging.uploadRows(static_cast<std::byte*>(to) + first * keys, keys,
                         reinterpret_cast<const std::byte*>(gathered.data()), n, keys, keys, control,
                         "upload rows of the dense mask");
  }
}

}  // namespace sparsight::cuda
