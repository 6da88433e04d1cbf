// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sparsight/core/run.h"

namespace sparsight {

/// One number of a stage, with its name.
struct StageFact {
  enum class Kind : std::uint8_t { Count, Fraction, Real, Text } kind = Kind::Text;
  std::string name;
  double value = 0;
  std::string text;  ///< Kind::Text
  static StageFact count(std::string name, Index value) {
    return {Kind::Count, std::move(name), static_cast<double>(value), {}};
  }
  static StageFact fraction(std::string name, double value) { return {Kind::Fraction, std::move(name), value, {}}; }
  static StageFact real(std::string name, double value) { return {Kind::Real, std::move(name), value, {}}; }
  static StageFact words(std::string name, std::string text) {
    return {Kind::Text, std::move(name), 0, std::move(text)};
  }
};

/// Tokens of the call on the video: by cluster, or by a value of their own.
struct TokenPicture {
  std::string what;                  ///< "query clusters", "keys a sampled row keeps"
  std::vector<std::int32_t> labels;  ///< [tokens] cluster of each model token, -1: none; empty: values
  std::vector<Index> sizes;          ///< [clusters] with labels
  std::vector<float> values;         ///< [tokens] 0..1, NaN: not of this picture; empty: labels
  std::vector<Index> marked;         ///< a few model tokens that stand out
};

/// Blocks, rows of queries by columns of keys: what they score and which are kept so far.
struct BlockPicture {
  std::string what, rowName, columnName;  ///< "probability of a key cluster", "query cluster", "key cluster"
  Index rows = 0, columns = 0;
  std::vector<float> values;       ///< [rows, columns]; NaN: none
  std::vector<std::uint8_t> kept;  ///< [rows, columns]; empty: nothing chosen yet
  bool logScale = true;            ///< values span decades; false: 0..1
  bool rowsAreShares = false;      ///< a row's values sum to 1: the view shows how few columns hold how much of it
  std::optional<double> target;    ///< share of a row to be kept
};

/// A quantity that is followed over the stages: the last value is this stage's.
struct StageSeries {
  std::string what;
  std::vector<double> values;
};

/// Named quantities side by side.
struct StageBars {  // NOLINT(*-reserved-identifier,*-identifier-naming): of clang-tidy 14's own making
  struct Bar {
    std::string name;
    double value = 0;
    int group = 0;        ///< -1, 0, +1: what becomes of it
    bool marked = false;  ///< the head that is walked through, the winner
  };
  std::string what;
  std::vector<Bar> bars;
  std::optional<double> threshold;
  std::string groupNames[3];  ///< for -1, 0, +1; empty: not told apart
};

/// One step of a method's decision, for people: what happens and why, its numbers, its pictures. What is empty is not
/// part of it.
struct Stage {
  std::string chapter;  ///< stages of one kind ("k-means of the queries"): a series is walked through one by one
  std::string title;
  std::string text;     ///< one or two plain sentences
  std::string formula;  ///< as in the help page
  std::string source;   ///< paper equation or reference file
  std::vector<StageFact> facts;
  std::vector<TokenPicture> tokens;
  std::optional<BlockPicture> blocks;
  std::optional<StageSeries> series;
  std::optional<StageBars> bars;
  bool map = false;  ///< the head's own map belongs to it, in the order of `plan`, else the model's
  /// A method's last word: it waits until the plan is made, which is then `plan`.
  bool last = false;
  std::shared_ptr<const Plan> plan;   ///< as it would be made now; of the last stage: the one that is used
  std::optional<Evaluation> numbers;  ///< of `plan`, on the rows asked for; filled in by explainHead
  bool dropped = false;               ///< pictures were left out to bound memory

  [[nodiscard]] Index bytes() const noexcept;
};

struct ExplainRequest {
  std::string methodId;
  ParamSet params;
  HeadId head;
  std::uint64_t seed = 0;
  EvaluateOptions evaluate;
  /// true: the captured steps before are walked first, so that what the method carries from step to step (centroids,
  /// LSE, masks) is what a run over all steps would have; false: the step stands alone.
  bool earlierSteps = false;
  /// Pictures of the stages between first and last are left out above this; their numbers stay.
  Index memoryLimit = Index{256} << 20;
};
/// Walks through how a method plans one head: a stage that shows the head, the method's own ones as it reports them
/// (Method::hasStages), and last the plan with its numbers. The computation is that of runMethod; stages only watch.
/// The plan of the report is the last stage's. `show` is called on the calling thread. Throws Error{Unsupported} for a
/// method without stages and with the reason for a head that the method cannot handle.
[[nodiscard]] HeadReport explainHead(const Trace& trace, const ExplainRequest& request, Backend& backend,
                                     const Control& control, const std::function<void(Stage)>& show);

}  // namespace sparsight
