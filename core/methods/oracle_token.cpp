// SPDX-License-Identifier: Apache-2.0
// The upper bound for any plan of as many pairs: the most probable keys themselves. Not a runtime method.
#include <algorithm>
#include <cmath>

#include "sparsight/core/method.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

class OracleTokenMethod final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "oracle_token"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "Oracle, tokens"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Keeps the most probable keys of the exact softmax: no plan of as many pairs has a larger kept mass.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"kept"}; }

  [[nodiscard]] Plan plan(const MethodInput& input, MethodState*, Backend& backend,
                          const Control& control) const override {
    const AttentionIn& in = input.prepared.input();
    const double kept = input.params.real("kept", input.headIndex);
    Plan plan = densePlan(in.q.rows, in.k.rows);
    plan.methodId = "oracle_token";
    // One block says nothing about which keys: the row counts do.
    plan.blockMask = {static_cast<std::uint8_t>(BlockState::Partial)};
    plan.rowCount.assign(at(in.q.rows), 0);
    plan.rowThreshold.assign(at(in.q.rows), 0.0F);

    std::vector<Index> rows, available;
    Index pairs = 0;
    const auto keyValid = [&](Index key) { return in.keyValid.empty() || in.keyValid[at(key)] != 0; };
    Index validKeys = 0;
    for (Index key = 0; key < in.k.rows; ++key) validKeys += keyValid(key) ? 1 : 0;
    for (Index row = 0; row < in.q.rows; ++row) {
      if (!in.queryValid.empty() && in.queryValid[at(row)] == 0) continue;
      Index keys = in.denseMask.empty() ? validKeys : 0;
      if (!in.denseMask.empty()) {
        control.checkpoint();
        for (Index key = 0; key < in.k.rows; ++key) {
          keys += keyValid(key) && in.denseMask[at(row) * at(in.k.rows) + at(key)] != 0 ? 1 : 0;
        }
      }
      rows.push_back(row);
      available.push_back(keys);
      pairs += keys;
    }
    if (input.params.text("scope") == "global") {
      const Index total = std::clamp<Index>(std::llround(kept * static_cast<double>(pairs)), pairs > 0 ? 1 : 0, pairs);
      const GlobalTop top = backend.globalTop(input.prepared, rows, total, control);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        plan.rowCount[at(rows[i])] = top.count[i];
        plan.rowThreshold[at(rows[i])] = top.threshold;
      }
    } else {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        available[i] = std::clamp<Index>(std::llround(kept * static_cast<double>(available[i])),
                                         available[i] > 0 ? 1 : 0, available[i]);
      }
      fillByRow(input, rows, available, backend, control, plan);
    }
    plan.plannerFlops =
        2.0 * static_cast<double>(rows.size()) * static_cast<double>(in.k.rows) * static_cast<double>(in.q.cols);
    return plan;
  }

 private:
  static void fillByRow(const MethodInput& input, const std::vector<Index>& rows, const std::vector<Index>& counts,
                        Backend& backend, const Control& control, Plan& plan) {
    constexpr std::size_t kChunk = 2048;  // attendTop returns an output row each; only thresholds are wanted here
    for (std::size_t first = 0; first < rows.size(); first += kChunk) {
      control.checkpoint();
      const std::size_t n = std::min(kChunk, rows.size() - first);
      const AttendResult top = backend.attendTop(input.prepared, std::span(rows).subspan(first, n),
                                                 std::span(counts).subspan(first, n), Control{control.stop, {}});
      for (std::size_t i = 0; i < n; ++i) {
        plan.rowCount[at(rows[first + i])] = top.count[i];
        plan.rowThreshold[at(rows[first + i])] = top.threshold[i];
      }
      control.report(static_cast<double>(first + n) / static_cast<double>(rows.size()));
    }
  }

  std::vector<ParamSpec> m_params = withCommonParams({
      ParamSpec::real("kept", "0.25", 0, 1, "fraction of query-key pairs kept",
                      "Share of the valid pairs to keep; at least one key per row (row) or one pair (global).",
                      "definition"),
      ParamSpec::choice(
          "scope", "global", {"global", "row"},
          "global: the most probable pairs of the whole head (rows may starve); row: the same share in every row.",
          "definition"),
  });
};

}  // namespace

const Method& oracle_token_method() {
  static const OracleTokenMethod method;
  return method;
}

}  // namespace sparsight
