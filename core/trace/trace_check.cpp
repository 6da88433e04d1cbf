// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "trace/trace_schema.h"

namespace sparsight {
namespace {

// A stored LSE or output may come from tensors before they were rounded to the stored type and from a kernel that works
// in 16 bits. A wrong scale, mask, head or token order is off by far more.
constexpr double kLseTolerance = 0.02;  // absolute, natural log
constexpr double kOutTolerance = 0.02;  // relative, Frobenius norm over the sampled rows
constexpr std::size_t kSampledRows = 16;

std::vector<Index> sample(const std::vector<Index>& valid) {
  if (valid.size() <= kSampledRows) return valid;
  std::vector<Index> rows;
  for (std::size_t i = 0; i < kSampledRows; ++i) rows.push_back(valid[i * (valid.size() - 1) / (kSampledRows - 1)]);
  return rows;
}

class Checker {
 public:
  Checker(std::vector<Finding>& findings, Backend* backend, const Control& control)
      : m_findings(findings), m_backend(backend), m_control(control) {}

  void run(const Trace& trace) {
    Index total = 0;
    for (const CallInfo& call : trace.info().calls) total += static_cast<Index>(call.heads.size());
    Index done = 0;
    for (const CallInfo& call : trace.info().calls) {
      for (const int head : call.heads) {
        m_control.checkpoint();
        if (call.isAvailable(head)) checkHead(trace, call, head);
        m_control.report(static_cast<double>(++done) / static_cast<double>(std::max<Index>(1, total)));
      }
    }
    add(Finding::Level::Info, "/data", fmt::format("{} calls, {} heads read", trace.info().calls.size(), m_read));
    if (m_backend != nullptr) {
      add(Finding::Level::Info, "/data",
          m_deep == 0
              ? std::string("no lse and no out stored, so nothing to recompute")
              : fmt::format("{} heads recomputed on sampled rows: lse off by at most {:.2g}, out by {:.2g} (relative)",
                            m_deep, m_worstLse, m_worstOut));
    }
  }

 private:
  void add(Finding::Level level, const std::string& where, const std::string& message) {
    m_findings.push_back({level, where, message});
  }

  void checkHead(const Trace& trace, const CallInfo& call, int head) {
    const HeadId id{call.id, head};
    const std::string where = fmt::format("{} head {}", call.path, head);
    try {
      const HeadData data = trace.load(id, m_control.stop);
      ++m_read;
      for (const std::string& warning : data.warnings) add(Finding::Level::Warning, where, warning);
      if (data.validRows().empty())
        add(Finding::Level::Warning, where, "every query row is masked or padding; there is nothing to show");
      if (m_backend != nullptr && (call.hasLse || call.hasOut)) checkDeep(trace, call, data, where);
    } catch (const Error& error) {
      add(Finding::Level::Error, where, error.what());
    }
  }

  void checkDeep(const Trace& trace, const CallInfo& call, const HeadData& data, const std::string& where) {
    const auto rows = sample(data.validRows());
    if (rows.empty()) return;
    const auto prepared = m_backend->prepare(data.input, data.keepAlive, m_control);
    const AttendResult dense = m_backend->attend(*prepared, rows, {}, m_control);
    ++m_deep;
    if (const auto stored = trace.storedLse(data.id)) {
      double worst = 0;
      Index worstRow = rows.front();
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const double difference = std::abs(static_cast<double>(dense.lse[i]) -
                                           static_cast<double>((*stored)[static_cast<std::size_t>(rows[i])]));
        if (difference > worst || !std::isfinite(difference)) {
          worst = std::isfinite(difference) ? difference : HUGE_VAL;
          worstRow = rows[i];
        }
      }
      m_worstLse = std::max(m_worstLse, worst);
      if (worst > kLseTolerance) {
        add(Finding::Level::Mismatch, where,
            fmt::format("{}: {}: lse of row {} is {:.6g}, q and k give a value {:.3g} away; check scale, mask and the "
                        "order of heads and tokens, or capture again",
                        trace.info().path.string(), where, worstRow,
                        static_cast<double>((*stored)[static_cast<std::size_t>(worstRow)]), worst));
      }
    }
    const auto out = call.hasV ? trace.storedOut(data.id) : std::nullopt;
    if (!out) return;
    const auto cols = static_cast<std::size_t>(call.valueDim);
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t c = 0; c < cols; ++c) {
        const double expected = static_cast<double>(dense.out[i * cols + c]);
        const double found = static_cast<double>((*out)[static_cast<std::size_t>(rows[i]) * cols + c]);
        error += (expected - found) * (expected - found);
        norm += expected * expected;
      }
    }
    const double relative = norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
    m_worstOut = std::max(m_worstOut, std::isfinite(relative) ? relative : HUGE_VAL);
    if (!(relative <= kOutTolerance)) {
      add(Finding::Level::Mismatch, where,
          fmt::format("{}: {}: out differs by {:.3g} (relative) from softmax(scale q k^T) v; check scale, mask and the "
                      "order of heads and tokens, or capture again",
                      trace.info().path.string(), where, relative));
    }
  }

  std::vector<Finding>& m_findings;
  Backend* m_backend;
  const Control& m_control;
  Index m_read = 0, m_deep = 0;
  double m_worstLse = 0, m_worstOut = 0;
};

}  // namespace

std::vector<Finding> checkTrace(const std::filesystem::path& path, bool deep, Backend* backend,
                                const Control& control) {
  if (deep && backend == nullptr) throw Error(ErrorCode::InvalidArgument, "a deep check needs a compute backend");
  control.checkpoint();
  std::vector<Finding> findings;
  trace::Sink sink(&findings);
  TraceOptions options;
  options.cacheBytes = Index{64} << 20;  // every head is seen once
  const auto trace = trace::makeTrace(trace::parseTrace(path, options.memoryLimitBytes, sink), options);
  Checker(findings, deep ? backend : nullptr, control).run(*trace);
  return findings;
}

}  // namespace sparsight
