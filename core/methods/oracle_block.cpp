// SPDX-License-Identifier: Apache-2.0
// The upper bound for block-sparse plans in model order: blocks by their exact probability mass.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "block_pairs.h"
#include "sparsight/core/method.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

class OracleBlockMethod final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "oracle_block"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "Oracle, blocks"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Keeps the blocks with the most exact probability mass per pair: the bound for block masks in model order.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"kept"}; }

  [[nodiscard]] Plan plan(const MethodInput& input, MethodState*, Backend& backend,
                          const Control& control) const override {
    const AttentionIn& in = input.prepared.input();
    const double kept = input.params.real("kept", input.headIndex);
    const Index block = input.params.integer("block_size");
    Plan plan;
    plan.methodId = "oracle_block";
    plan.queryCount = in.q.rows;
    plan.keyCount = in.k.rows;
    plan.qBounds = blockEdges(in.q.rows, block);
    plan.kBounds = blockEdges(in.k.rows, block);
    const Index bq = plan.qBlocks();
    const Index bk = plan.kBlocks();
    LseMapResult map = backend.lseMap(input.prepared, {plan.qBounds, plan.kBounds, true, false}, control);
    plan.lse = std::move(map.lse);
    plan.plannerFlops =
        2.0 * static_cast<double>(in.q.rows) * static_cast<double>(in.k.rows) * static_cast<double>(in.q.cols);

    const std::vector<Index> pairs = validBlockPairs(in, plan.qBounds, plan.kBounds, control);
    plan.blockMask.assign(at(bq) * at(bk), static_cast<std::uint8_t>(BlockState::Skipped));
    plan.scores.assign(plan.blockMask.size(), std::numeric_limits<float>::quiet_NaN());
    for (std::size_t n = 0; n < pairs.size(); ++n) {
      if (pairs[n] > 0) plan.scores[n] = map.mean[n];
    }
    std::vector<std::size_t> blocks;
    if (input.params.text("scope") == "global") {
      for (std::size_t n = 0; n < pairs.size(); ++n) {
        if (pairs[n] > 0) blocks.push_back(n);
      }
      keepBest(blocks, pairs, kept, plan);
    } else {
      for (Index i = 0; i < bq; ++i) {
        blocks.clear();
        for (std::size_t n = at(i) * at(bk); n < at(i + 1) * at(bk); ++n) {
          if (pairs[n] > 0) blocks.push_back(n);
        }
        keepBest(blocks, pairs, kept, plan);
      }
    }
    plan.map = plan.blockMask;
    return plan;
  }

 private:
  // Best mean probability first: mass per pair, so that small edge blocks compete fairly. The prefix stops where the
  // next block would leave the target farther behind than it is now ahead, and a larger target never drops a block.
  static void keepBest(std::vector<std::size_t>& blocks, const std::vector<Index>& pairs, double kept, Plan& plan) {
    Index total = 0;
    for (const std::size_t n : blocks) total += pairs[n];
    std::stable_sort(blocks.begin(), blocks.end(),
                     [&](std::size_t a, std::size_t b) { return plan.scores[a] > plan.scores[b]; });
    const double target = kept * static_cast<double>(total);
    double area = 0;
    for (const std::size_t n : blocks) {
      const double next = area + static_cast<double>(pairs[n]);
      if (area > 0 && next - target > target - area) break;
      plan.blockMask[n] = static_cast<std::uint8_t>(BlockState::Whole);
      area = next;
    }
  }

  std::vector<ParamSpec> m_params = withCommonParams({
      ParamSpec::real(
          "kept", "0.25", 0, 1, "fraction of query-key pairs kept",
          "Share of the valid pairs to keep, to the nearest block; at least one block (per block row with scope row).",
          "definition"),
      ParamSpec::choice("scope", "global", {"global", "row"},
                        "global: the best blocks of the whole head; row: the same share in every block row.",
                        "definition"),
      ParamSpec::integer("block_size", "64", 1, 65536, "tokens", "Side of a block in tokens, model order.",
                         "definition"),
  });
};

}  // namespace

const Method& oracle_block_method() {
  static const OracleBlockMethod method;
  return method;
}

}  // namespace sparsight
