// SPDX-License-Identifier: Apache-2.0
#include "cuda/hopper_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/kernels.h"

namespace sparsight::cuda {
namespace {

// Two blocks of rows, the second not full; several tiles; edges that cut tiles and 8-column steps.
constexpr Index kCheckRows = 200;
constexpr Index kCheckKeys = 333;
constexpr Index kCheckBytes = Index{4} << 20;

struct HopperVerdict {
  std::mutex mutex;
  std::optional<std::string> why;
};
HopperVerdict& hopperVerdict() {
  static HopperVerdict verdict;
  return verdict;
}

/// Numbers of both signs up to 2 with few bits, so that both types hold them exactly; the same on every machine.
std::vector<std::uint16_t> checkValues(DType dtype, Index count, std::uint32_t seed) {
  std::vector<std::uint16_t> out(static_cast<std::size_t>(count));
  for (std::uint16_t& x : out) {
    seed = seed * 1664525U + 1013904223U;
    // Sign, an exponent of 2^-3 to 2^0, three bits of mantissa.
    const std::uint32_t sign = seed >> 31U << 15U;
    const std::uint32_t exponent = seed >> 28U & 3U;
    const std::uint32_t mantissa = seed >> 24U & 7U;
    x = static_cast<std::uint16_t>(dtype == DType::F16 ? sign | ((12U + exponent) << 10U) | (mantissa << 7U)
                                                       : sign | ((124U + exponent) << 7U) | (mantissa << 4U));
  }
  return out;
}

/// Buffers of the check. Plain calls and statuses: what goes wrong here must not be remembered as a lost device.
class HopperTrial {
 public:
  HopperTrial() : m_budget(std::make_shared<DeviceBudget>(kCheckBytes)) {}

  /// Empty: both paths agree on a head of this type and width.
  std::string compare(DType dtype, Index width) {
    const std::vector<std::uint16_t> q = checkValues(dtype, kCheckRows * width, 1);
    const std::vector<std::uint16_t> k = checkValues(dtype, kCheckKeys * width, 2);
    const std::vector<std::uint16_t> v = checkValues(dtype, kCheckKeys * width, 3);
    std::vector<std::uint8_t> valid(static_cast<std::size_t>(kCheckKeys), 1);
    for (std::size_t i = 70; i < valid.size(); i += 11) valid[i] = 0;
    const std::vector<std::int32_t> bounds{0, 60, 61, 130, 300, 333};
    const std::vector<std::int32_t> splits{0, 2, 5};
    const Index subs = static_cast<Index>(bounds.size()) - 1;
    const DeviceBuffer onQ = upload(q);
    const DeviceBuffer onK = upload(k);
    const DeviceBuffer onV = upload(v);
    const DeviceBuffer onValid = upload(valid);
    const DeviceBuffer onBounds = upload(bounds);
    const DeviceBuffer onSplits = upload(splits);
    const auto softmaxScale = 1.0 / std::sqrt(static_cast<double>(width));

    PartialsParams map{};
    map.in = {onQ.as<const void>(), onK.as<const void>(), static_cast<std::int32_t>(width), 1};
    map.validity.keyValid = onValid.as<const std::uint8_t>();
    map.rowEnd = static_cast<std::int32_t>(kCheckRows);
    map.keyRows = static_cast<std::int32_t>(kCheckKeys);
    map.subBounds = onBounds.as<const std::int32_t>();
    map.splitPtr = onSplits.as<const std::int32_t>();
    map.subCount = static_cast<std::int32_t>(subs);
    map.sign = 1.0F;
    map.exponentScale = static_cast<float>(softmaxScale * 1.4426950408889634);
    std::vector<float> max[2];
    std::vector<float> sum[2];
    for (const bool hopper : {false, true}) {
      const DeviceBuffer onMax = garbage(kCheckRows * subs * 4);
      const DeviceBuffer onSum = garbage(kCheckRows * subs * 4);
      map.partMax = onMax.as<float>();
      map.partSum = onSum.as<float>();
      note(hopper ? launchHopperPartials(dtype, map, 2, m_stream.get())
                  : launchPartials(dtype, Path::Portable, map, 2, m_stream.get()));
      max[hopper] = download<float>(onMax, kCheckRows * subs);
      sum[hopper] = download<float>(onSum, kCheckRows * subs);
      if (m_status != cudaSuccess) return failure();
    }

    // Rows in another order, one of them twice; none, one and two kept intervals.
    std::vector<std::int32_t> rows(static_cast<std::size_t>(kCheckRows));
    std::vector<std::int64_t> first(rows.size());
    std::vector<std::int64_t> last(rows.size());
    const std::vector<std::int32_t> intervals{0, 333, 17, 90, 140, 301, 320, 333};
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i] = static_cast<std::int32_t>(i * 77 % rows.size());
      const std::int64_t from[] = {0, 1, 3, 2};
      const std::int64_t to[] = {1, 3, 4, 2};
      first[i] = from[i % 4];
      last[i] = to[i % 4];
    }
    const DeviceBuffer onRows = upload(rows);
    const DeviceBuffer onFirst = upload(first);
    const DeviceBuffer onLast = upload(last);
    const DeviceBuffer onIntervals = upload(intervals);
    AttendParams attend{};
    attend.in = map.in;
    attend.validity = map.validity;
    attend.v = onV.as<const void>();
    attend.vCols = static_cast<std::int32_t>(width);
    attend.keyCount = static_cast<std::int32_t>(kCheckKeys);
    attend.rows = onRows.as<const std::int32_t>();
    attend.rowCount = static_cast<std::int32_t>(kCheckRows);
    attend.keepFirst = onFirst.as<const std::int64_t>();
    attend.keepLast = onLast.as<const std::int64_t>();
    attend.intervals = onIntervals.as<const std::int32_t>();
    attend.sign = attend.cutSign = 1.0F;
    attend.exponentScale = map.exponentScale;
    attend.absScale = softmaxScale;
    std::vector<float> out[2];
    std::vector<float> lse[2];
    std::vector<std::int64_t> count[2];
    for (const bool hopper : {false, true}) {
      const DeviceBuffer onOut = garbage(kCheckRows * width * 4);
      const DeviceBuffer onLse = garbage(kCheckRows * 4);
      const DeviceBuffer onCount = garbage(kCheckRows * 8);
      attend.out = onOut.as<float>();
      attend.lse = onLse.as<float>();
      attend.count = onCount.as<std::int64_t>();
      note(hopper ? launchHopperAttend(dtype, attend, m_stream.get())
                  : launchAttend(dtype, Path::Portable, width, attend, m_stream.get()));
      out[hopper] = download<float>(onOut, kCheckRows * width);
      lse[hopper] = download<float>(onLse, kCheckRows);
      count[hopper] = download<std::int64_t>(onCount, kCheckRows);
      if (m_status != cudaSuccess) return failure();
    }
    const auto what = [&](const char* name) {
      return fmt::format("{} of {} at dimension {} differ from the portable kernels'", name, dtypeName(dtype), width);
    };
    // Products are exact, sums are of at most 128 terms up to 4; exponentials within 2 ulp.
    if (!agree(max, 1e-4, 0)) return what("row maxima");
    if (!agree(sum, 0, 2e-4)) return what("row sums");
    if (!agree(lse, 1e-4, 0)) return what("row LSE");
    if (!agree(out, 2e-4, 0)) return what("attention outputs");
    if (count[0] != count[1]) return what("key counts");
    return {};
  }
  [[nodiscard]] cudaError_t status() const { return m_status; }

 private:
  // Nothing is allocated after it: an allocation would report the same once more, as the backend's own failure.
  std::string failure() const {
    return fmt::format("{} ({})", cudaGetErrorString(m_status), cudaGetErrorName(m_status));
  }
  void note(cudaError_t status) {
    if (m_status == cudaSuccess) m_status = status;
  }
  static bool agree(const std::vector<float> (&values)[2], double absolute, double relative) {
    for (std::size_t i = 0; i < values[0].size(); ++i) {
      const auto want = static_cast<double>(values[0][i]);
      const auto got = static_cast<double>(values[1][i]);
      // Written so that a NaN disagrees.
      if (!(got == want || std::abs(got - want) <= absolute + relative * std::abs(want))) return false;
    }
    return true;
  }
  template <class T>
  DeviceBuffer upload(const std::vector<T>& values) {
    DeviceBuffer buffer(m_budget, static_cast<Index>(values.size() * sizeof(T)), "check of the Hopper kernels");
    note(cudaMemcpyAsync(buffer.template as<void>(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice,
                         m_stream.get()));
    return buffer;
  }
  // NaN patterns: what a kernel leaves out must show.
  DeviceBuffer garbage(Index bytes) {
    DeviceBuffer buffer(m_budget, bytes, "check of the Hopper kernels");
    note(cudaMemsetAsync(buffer.as<void>(), 0xFF, static_cast<std::size_t>(bytes), m_stream.get()));
    return buffer;
  }
  template <class T>
  std::vector<T> download(const DeviceBuffer& from, Index count) {
    std::vector<T> out(static_cast<std::size_t>(count));
    note(cudaMemcpyAsync(out.data(), from.as<void>(), out.size() * sizeof(T), cudaMemcpyDeviceToHost, m_stream.get()));
    note(cudaStreamSynchronize(m_stream.get()));
    return out;
  }

  std::shared_ptr<DeviceBudget> m_budget;
  Stream m_stream;
  cudaError_t m_status = cudaSuccess;
};

std::string tryHopper() {
  std::string why;
  cudaError_t status = cudaSuccess;
  try {
    HopperTrial trial;
    for (const DType dtype : {DType::BF16, DType::F16}) {
      for (const Index width : {Index{64}, Index{128}}) {
        if (why.empty()) why = trial.compare(dtype, width);
      }
    }
    status = trial.status();
  } catch (const Error& e) {
    why = e.what();
  }
  static_cast<void>(cudaGetLastError());
  if (status != cudaSuccess) {
    // A kernel that failed while it ran takes the context with it; a new one serves the other kernels. Where even that
    // fails, the next call of the backend reports the device.
    static_cast<void>(cudaDeviceReset());
    static_cast<void>(cudaGetLastError());
  }
  return why.empty() ? why : "self check: " + why;
}

}  // namespace

std::string whyNotHopper() {
  if (!hopperBuilt()) return "not built: 90 or 90a is not among this program's CUDA architectures";
  HopperVerdict& verdict = hopperVerdict();
  const std::lock_guard lock(verdict.mutex);
  if (!verdict.why) verdict.why = tryHopper();
  return *verdict.why;
}

}  // namespace sparsight::cuda
