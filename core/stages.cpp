// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/stages.h"

#include <fmt/format.h>

#include <algorithm>

namespace sparsight {
namespace {

template <class T>
[[nodiscard]] Index bytesOf(const std::vector<T>& values) {
  return static_cast<Index>(values.capacity() * sizeof(T));
}

[[nodiscard]] Selector only(int value) { return {{{value, value}}}; }

[[nodiscard]] Stage headStage(const HeadData& head, const Method& method, const std::string& from) {
  Stage stage;
  stage.chapter = "the head";
  stage.title = fmt::format("Layer {}, head {}, step {}", head.id.call.layer, head.id.head, head.id.call.step);
  stage.text = fmt::format("Where this head attends, in the model's token order: queries down, keys right. {}",
                           method.summary());
  stage.map = true;
  stage.facts.push_back(StageFact::count("tokens", head.layout.tokenCount));
  if (const Segment* video = head.layout.video()) {
    stage.facts.push_back(
        StageFact::words("video", fmt::format("{} frames of {} x {}", video->frames, video->height, video->width)));
  }
  if (const Segment* text = head.layout.text()) stage.facts.push_back(StageFact::count("text tokens", text->length));
  stage.facts.push_back(StageFact::count("channels", head.input.q.cols));
  stage.facts.push_back(StageFact::words("earlier steps", from));
  return stage;
}

}  // namespace

Index Stage::bytes() const noexcept {
  Index sum = static_cast<Index>(sizeof(Stage));
  for (const TokenPicture& picture : tokens) {
    sum += bytesOf(picture.labels) + bytesOf(picture.sizes) + bytesOf(picture.values) + bytesOf(picture.marked);
  }
  if (blocks) sum += bytesOf(blocks->values) + bytesOf(blocks->kept);
  if (series) sum += bytesOf(series->values);
  if (plan) {
    const Plan& p = *plan;
    sum += bytesOf(p.qOrder) + bytesOf(p.kOrder) + bytesOf(p.qBounds) + bytesOf(p.kBounds) + bytesOf(p.blockMask) +
           bytesOf(p.rowIntervals) + bytesOf(p.intervalRows) + bytesOf(p.rowIntervalsPtr) + bytesOf(p.qLabels) +
           bytesOf(p.kLabels) + bytesOf(p.qCentroids) + bytesOf(p.kCentroids) + bytesOf(p.scores) + bytesOf(p.map) +
           bytesOf(p.lse);
  }
  return sum;
}

HeadReport explainHead(const Trace& trace, const ExplainRequest& request, Backend& backend, const Control& control,
                       const std::function<void(Stage)>& show) {
  const Method& method = methodById(request.methodId);
  if (!method.hasStages()) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("{} has no stages to walk through: {}", method.title(), method.summary()));
  }
  const CallId& call = request.head.call;
  RunRequest run;
  run.methodId = request.methodId;
  run.params = request.params;
  run.seed = request.seed;
  run.evaluate = request.evaluate;
  run.selection.branch = call.branch;
  run.selection.kind = call.kind;
  run.selection.call = call.call;
  run.selection.layers = only(call.layer);
  run.selection.heads = only(request.head.head);
  run.selection.steps = only(call.step);
  if (request.earlierSteps) run.selection.steps.ranges.front().first = 0;
  run.keepPlanArrays = false;
  run.countsOnly = true;  // what is shown is evaluated here
  Index used = 0;
  const auto pass = [&](Stage stage) {
    const Index bytes = stage.bytes();
    if (used + bytes > request.memoryLimit && !stage.last && !stage.map) {
      stage.tokens.clear();
      stage.blocks.reset();
      stage.plan.reset();
      stage.dropped = true;
    }
    used += stage.bytes();
    show(std::move(stage));
  };
  const auto measure = [&](Stage& stage, const HeadData& head, const PreparedHead& prepared) {
    stage.numbers = evaluatePlan(*stage.plan, head, prepared, run.evaluate, backend, Control{control.stop, {}});
  };

  const std::vector<HeadId> walked = selectHeads(trace.info(), run.selection);
  std::string from = "not walked: this step alone";
  if (request.earlierSteps) {
    std::string list;
    for (const HeadId& id : walked) {
      if (id.call.step < call.step) list += fmt::format("{}{}", list.empty() ? "" : ", ", id.call.step);
    }
    from = list.empty() ? "none captured before this one" : fmt::format("walked first: {}", list);
  }
  show(headStage(trace.load(request.head, control.stop), method, from));

  std::optional<Stage> last;
  HeadReport report;
  RunRequest::Watch watch;
  watch.head = request.head;
  watch.stage = [&](Stage stage, const HeadData& head, const PreparedHead& prepared) {
    control.checkpoint();
    if (stage.last) {
      last = std::move(stage);
      return;
    }
    if (stage.plan) measure(stage, head, prepared);
    pass(std::move(stage));
  };
  watch.planned = [&](const Plan& plan, const HeadData& head, const PreparedHead& prepared) {
    Stage stage = last ? std::move(*last) : Stage{};
    if (stage.title.empty()) stage.title = "The plan";
    if (stage.chapter.empty()) stage.chapter = "plan";
    stage.last = true;
    stage.map = true;
    stage.plan = std::make_shared<const Plan>(plan);
    measure(stage, head, prepared);
    report.evaluation = *stage.numbers;
    report.plan = plan;
    pass(std::move(stage));
  };
  run.watch = &watch;
  const RunReport done = runMethod(trace, run, backend, control);
  const HeadReport& own = done.heads.back();
  if (!own.skippedReason.empty()) throw Error(ErrorCode::Unsupported, own.skippedReason);
  report.id = own.id;
  report.planMs = own.planMs;
  report.wouldBeDense = own.wouldBeDense;
  return report;
}

}  // namespace sparsight
