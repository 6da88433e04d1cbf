// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "plan_ranges.h"
#include "sparsight/core/files.h"

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

// 128 bits of content: two multiplicative hashes over 64-bit words, so that equal keys mean equal content in practice.
class Fingerprint {
 public:
  void add(const void* data, std::size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    for (; bytes >= sizeof(std::uint64_t); bytes -= sizeof(std::uint64_t), from += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, from, sizeof word);
      mix(word);
    }
    if (bytes == 0) return;
    std::uint64_t rest = 0;
    std::memcpy(&rest, from, bytes);
    mix(rest ^ (static_cast<std::uint64_t>(bytes) << 56U));
  }
  template <class T>
  void add(std::span<const T> values) {
    mix(values.size());
    add(values.data(), values.size_bytes());
  }
  void add(std::uint64_t value) { mix(value); }
  void add(const MatrixView& matrix) {
    mix(static_cast<std::uint64_t>(matrix.rows));
    mix(static_cast<std::uint64_t>(matrix.cols));
    const std::size_t bytes = at(matrix.cols) * itemSize(matrix.dtype);
    for (Index row = 0; row < matrix.rows; ++row) add(matrix.row(row), bytes);
  }
  [[nodiscard]] std::uint64_t value() const { return m_a ^ std::rotl(m_b, 32); }
  friend auto operator<=>(const Fingerprint&, const Fingerprint&) = default;

 private:
  void mix(std::uint64_t word) {
    m_a = (std::rotl(m_a, 5) ^ word) * 0x9E3779B97F4A7C15ULL;
    m_b = (std::rotl(m_b, 23) + word) * 0xC2B2AE3D27D4EB4FULL;
    m_b ^= m_b >> 29U;
  }
  std::uint64_t m_a = 0x243F6A8885A308D3ULL, m_b = 0x13198A2E03707344ULL;
};

class MemoBackend final : public Backend {
 public:
  MemoBackend(Backend& inner, Index bytes) : m_inner(inner), m_limit(bytes) {}

  [[nodiscard]] BackendInfo info() const override { return m_inner.info(); }
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override {
    return m_inner.supports(op, dtype, headDim);
  }
  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    m_headKeys.clear();  // a new head may come to lie where an old one was
    return m_inner.prepare(in, std::move(keepAlive), control);
  }
  std::shared_ptr<const PreparedHead> prepareAhead(const AttentionIn& in,
                                                   std::shared_ptr<const void> keepAlive) override {
    m_headKeys.clear();
    return m_inner.prepareAhead(in, std::move(keepAlive));
  }
  std::shared_ptr<const PreparedHead> permuteKeys(const PreparedHead& head, const PermuteRequest& request,
                                                  const Control& control) override {
    m_headKeys.clear();
    return m_inner.permuteKeys(head, request, control);
  }
  [[nodiscard]] Index headsAtOnce(Index headBytes) const noexcept override { return m_inner.headsAtOnce(headBytes); }
  LseMapResult lseMap(const PreparedHead& head, const LseMapRequest& request, const Control& control) override {
    if (!head.holdsTensors()) return m_inner.lseMap(head, request, control);
    Fingerprint key = headKey(head);
    key.add(std::uint64_t{1});
    key.add(request.rowBounds);
    key.add(request.colBounds);
    key.add(request.rowLse);
    key.add(std::uint64_t{request.wantMean ? 1U : 0U} + (request.wantMax ? 2U : 0U));
    return remembered<LseMapResult>(
        key, [&] { return m_inner.lseMap(head, request, control); },
        [](const LseMapResult& r) { return (r.lse.size() + r.mean.size() + r.max.size()) * sizeof(float); });
  }
  std::vector<float> tile(const PreparedHead& head, std::span<const float> rowLse, const TileRect& rect, Reduce reduce,
                          const Control& control) override {
    return m_inner.tile(head, rowLse, rect, reduce, control);
  }
  AttendResult attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override {
    return m_inner.attend(head, rows, keep, control);
  }
  AttendResult attendTop(const PreparedHead& head, std::span<const Index> rows, std::span<const Index> counts,
                         const Control& control) override {
    return m_inner.attendTop(head, rows, counts, control);
  }
  RowStats rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                    const Control& control) override {
    return m_inner.rowStats(head, rows, mass, control);
  }
  GlobalTop globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                      const Control& control) override {
    return m_inner.globalTop(head, rows, total, control);
  }
  ClusterResult cluster(const PreparedHead& head, const ClusterRequest& request, const Control& control) override {
    if (!head.holdsTensors()) return m_inner.cluster(head, request, control);
    return remembered<ClusterResult>(
        clusterKey(head, request), [&] { return m_inner.cluster(head, request, control); }, bytesOf);
  }
  std::vector<ClusterResult> clusterAll(std::span<const ClusterTask> tasks, const Control& control) override {
    if (!std::all_of(tasks.begin(), tasks.end(), [](const ClusterTask& task) { return task.head->holdsTensors(); })) {
      return m_inner.clusterAll(tasks, control);
    }
    std::vector<ClusterTask> open;
    std::vector<Fingerprint> keys;
    std::vector<std::optional<std::size_t>> places;  // in `open`
    for (const ClusterTask& task : tasks) {
      keys.push_back(clusterKey(*task.head, task.request));
      const bool known = m_index.find(keys.back()) != m_index.end();
      places.push_back(known ? std::nullopt : std::optional(open.size()));
      if (!known) open.push_back(task);
    }
    std::vector<ClusterResult> found = m_inner.clusterAll(open, control);
    std::vector<ClusterResult> results;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      // Putting one away may push out another that was known above: that one is then computed alone.
      const auto compute = [&] {
        return places[i] ? std::move(found[*places[i]]) : m_inner.cluster(*tasks[i].head, tasks[i].request, control);
      };
      results.push_back(remembered<ClusterResult>(keys[i], compute, bytesOf));
    }
    return results;
  }
  ClusterScores scoreClusters(const ClusterScoresRequest& request, const Control& control) override {
    return m_inner.scoreClusters(request, control);
  }
  std::vector<std::uint8_t> selectLargest(const SelectRequest& request, const Control& control) override {
    return m_inner.selectLargest(request, control);
  }
  std::vector<std::string> takeFallbacks() override { return m_inner.takeFallbacks(); }

 private:
  struct Entry {
    Fingerprint key;
    std::variant<LseMapResult, ClusterResult> value;
    std::size_t bytes;
  };

  Fingerprint clusterKey(const PreparedHead& head, const ClusterRequest& request) {
    Fingerprint key = headKey(head);
    key.add(std::uint64_t{2} + static_cast<std::uint64_t>(request.side));
    key.add(static_cast<std::uint64_t>(request.first));
    key.add(static_cast<std::uint64_t>(request.count));
    key.add(static_cast<std::uint64_t>(request.distance));
    key.add(request.centroids);
    key.add(request.basis);
    return key;
  }
  static std::size_t bytesOf(const ClusterResult& r) {
    return (r.labels.size() + r.nearest.size() + r.means.size()) * sizeof(float) + r.sizes.size() * sizeof(Index);
  }

  // Of the content, once per prepared head.
  Fingerprint headKey(const PreparedHead& head) {
    const auto known = m_headKeys.find(&head);
    if (known != m_headKeys.end()) return known->second;
    const AttentionIn& in = head.input();
    Fingerprint key;
    key.add(in.q);
    key.add(in.k);
    key.add(std::bit_cast<std::uint64_t>(in.scale));
    key.add(in.keyValid);
    key.add(in.queryValid);
    key.add(in.denseMask);
    m_headKeys[&head] = key;
    return key;
  }

  template <class T, class Compute, class Size>
  T remembered(const Fingerprint& key, const Compute& compute, const Size& size) {
    if (const auto found = m_index.find(key); found != m_index.end()) {
      m_entries.splice(m_entries.begin(), m_entries, found->second);
      return std::get<T>(found->second->value);
    }
    T value = compute();
    const std::size_t bytes = size(value);
    if (static_cast<Index>(bytes) > m_limit) return value;
    m_entries.push_front({key, value, bytes});
    m_index[key] = m_entries.begin();
    m_bytes += static_cast<Index>(bytes);
    while (m_bytes > m_limit) {
      m_bytes -= static_cast<Index>(m_entries.back().bytes);
      m_index.erase(m_entries.back().key);
      m_entries.pop_back();
    }
    return value;
  }

  Backend& m_inner;
  Index m_limit, m_bytes = 0;
  std::map<const PreparedHead*, Fingerprint> m_headKeys;
  std::list<Entry> m_entries;
  std::map<Fingerprint, std::list<Entry>::iterator> m_index;
};

[[nodiscard]] double measured(const RunSummary& summary, Budget budget) {
  switch (budget) {
    case Budget::Kept:
      return summary.keptFraction;
    case Budget::Mass:
      return summary.keptMass;
    case Budget::Error:
      return summary.outputRelError.value_or(std::numeric_limits<double>::quiet_NaN());
  }
  return 0;
}

// Kept keys of one query token as bits by key token.
class KeptBits {
 public:
  explicit KeptBits(const Plan& plan) : m_plan(plan), m_ranges(plan), m_position(at(plan.queryCount)) {
    for (Index i = 0; i < plan.queryCount; ++i) m_position[at(plan.qOrder.empty() ? i : plan.qOrder[at(i)])] = i;
  }
  void fill(Index row, std::vector<std::uint64_t>& bits) const {
    std::fill(bits.begin(), bits.end(), 0);
    const Index group = m_ranges.groupOf(m_position[at(row)]);
    for (Index n = m_ranges.ptr()[at(group)]; n < m_ranges.ptr()[at(group + 1)]; ++n) {
      const Interval& interval = m_ranges.intervals()[at(n)];
      for (Index c = interval.first; c < interval.last; ++c) {
        const Index key = m_plan.kOrder.empty() ? c : m_plan.kOrder[at(c)];
        bits[at(key >> 6U)] |= std::uint64_t{1} << (static_cast<std::uint64_t>(key) & 63U);
      }
    }
  }

 private:
  const Plan& m_plan;
  KeptRanges m_ranges;
  std::vector<Index> m_position;
};

}  // namespace

std::unique_ptr<Backend> createMemoBackend(Backend& inner, Index bytes) {
  return std::make_unique<MemoBackend>(inner, bytes);
}

RunSummary summarise(const RunReport& report) {
  RunSummary sum;
  double error = 0, cosine = 0;
  std::size_t withError = 0;
  for (const HeadReport& head : report.heads) {
    if (!head.skippedReason.empty()) {
      ++sum.skipped;
      continue;
    }
    const Evaluation& numbers = head.evaluation;
    ++sum.heads;
    sum.keptFraction += numbers.keptFraction;
    sum.keptMass += numbers.keptMass;
    sum.keptMassP5 += numbers.keptMassP5;
    sum.starvedRows += numbers.starvedRows;
    sum.plannerFlops += head.plan.plannerFlops;
    sum.attentionFlops += numbers.attentionFlops;
    if (numbers.keptFraction > 0) sum.denseFlops += numbers.attentionFlops / numbers.keptFraction;
    if (numbers.outputRelError) {
      ++withError;
      error += *numbers.outputRelError;
      cosine += numbers.outputCosine.value_or(0);
    }
  }
  if (sum.heads == 0) return sum;
  const auto heads = static_cast<double>(sum.heads);
  sum.keptFraction /= heads;
  sum.keptMass /= heads;
  sum.keptMassP5 /= heads;
  if (withError > 0) {
    sum.outputRelError = error / static_cast<double>(withError);
    sum.outputCosine = cosine / static_cast<double>(withError);
  }
  return sum;
}

Solution solveBudget(const Trace& trace, RunRequest request, const BudgetTarget& target, Backend& backend,
                     const Control& control, const std::function<void(const HeadReport&)>& onHead) {
  // Enough to tell neighbouring values of any knob apart: 2^-16 of its range.
  constexpr int kHalvings = 16;
  const Method& method = methodById(request.methodId);
  const std::optional<Method::Knob> knob = method.knob();
  if (!knob) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("method {} has no parameter that moves its budget; compare it at its own setting",
                            request.methodId));
  }
  const auto specs = method.params();
  const ParamSpec& spec =
      *std::find_if(specs.begin(), specs.end(), [&](const ParamSpec& s) { return s.name == knob->name; });
  const auto memo = createMemoBackend(backend);
  Solution solution;
  solution.knob = knob->name;
  solution.asked = target.value;

  RunRequest trial = request;
  trial.keepPlanArrays = false;
  trial.countsOnly = target.budget == Budget::Kept;
  const auto run = [&](double value, RunRequest& how, double from, double share,
                       const std::function<void(const HeadReport&)>& each = {}) {
    how.params.set(knob->name, fmt::format("{}", value));
    ++solution.runs;
    RunReport report =
        runMethod(trace, how, *memo,
                  Control{control.stop, [&control, from, share](double f) { control.report(from + share * f); }}, each);
    if (summarise(report).heads == 0) {
      throw Error(ErrorCode::Unsupported, fmt::format("{}: no head could be planned; {}", request.methodId,
                                                      report.heads.front().skippedReason));
    }
    return report;
  };
  struct Point {
    double knob = 0, value = 0;
  };
  Point best{0, std::numeric_limits<double>::infinity()};
  const auto consider = [&](double value, double from) {
    const Point point{value, measured(summarise(run(value, trial, from, 0.045)), target.budget)};
    if (std::isnan(point.value)) {
      throw Error(ErrorCode::Unsupported, "values (V) were not captured: the output error cannot be a target");
    }
    if (std::abs(point.value - target.value) < std::abs(best.value - target.value)) best = point;
    return point;
  };
  // `low` keeps less than the target asks, `high` at least as much.
  const bool rising = knob->moreKeepsMore;
  Point low = consider(rising ? spec.minimum : spec.maximum, 0);
  Point high = consider(rising ? spec.maximum : spec.minimum, 0.045);
  const auto reaches = [&](double value) {
    return target.budget == Budget::Error ? value <= target.value : value >= target.value;
  };
  if (!reaches(low.value) && reaches(high.value)) {
    for (int n = 0; n < kHalvings; ++n) {
      const Point middle = consider((low.knob + high.knob) / 2, 0.09 + 0.045 * n);
      (reaches(middle.value) ? high : low) = middle;
    }
    solution.quantum = std::abs(high.value - low.value);
  }
  solution.knobValue = best.knob;
  solution.report = run(best.knob, request, 0.85, 0.15, onHead);
  solution.reached = measured(summarise(solution.report), target.budget);
  solution.flagged = std::abs(solution.reached - solution.asked) > kFlagAbove;
  return solution;
}

Compared compareMethod(const Trace& trace, const RunRequest& request, const std::optional<BudgetTarget>& target,
                       Backend& backend, const Control& control, const std::function<void(const HeadReport&)>& onHead) {
  Compared compared;
  if (target && methodById(request.methodId).knob()) {
    compared.solution = solveBudget(trace, request, *target, backend, control, onHead);
    compared.report = std::exchange(compared.solution->report, {});
  } else {
    compared.report = runMethod(trace, request, backend, control, onHead);
  }
  return compared;
}

CurvePoint HeadCurve::at(double kept) const {
  if (points.empty()) return {};
  const auto above = std::find_if(points.begin(), points.end(), [&](const CurvePoint& p) { return p.kept >= kept; });
  if (above == points.begin()) return points.front();
  if (above == points.end()) return points.back();
  const CurvePoint& low = *std::prev(above);
  const double part = (kept - low.kept) / (above->kept - low.kept);
  const auto between = [part](double a, double b) { return a + part * (b - a); };
  CurvePoint point{between(low.knob, above->knob), kept, between(low.mass, above->mass),
                   between(low.massP5, above->massP5), std::nullopt};
  if (low.error && above->error) point.error = between(*low.error, *above->error);
  return point;
}

std::vector<HeadCurve> responseCurves(const Trace& trace, RunRequest request, int points, Backend& backend,
                                      const Control& control) {
  const Method& method = methodById(request.methodId);
  const std::optional<Method::Knob> knob = method.knob();
  if (!knob) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("method {} has no parameter that moves its budget", request.methodId));
  }
  const auto specs = method.params();
  const ParamSpec& spec =
      *std::find_if(specs.begin(), specs.end(), [&](const ParamSpec& s) { return s.name == knob->name; });
  const auto memo = createMemoBackend(backend);
  request.keepPlanArrays = false;
  std::map<HeadId, HeadCurve> curves;
  for (int n = 0; n < points; ++n) {
    const double value = spec.minimum + (spec.maximum - spec.minimum) * n / std::max(1, points - 1);
    request.params.set(knob->name, fmt::format("{}", value));
    const RunReport report =
        runMethod(trace, request, *memo,
                  Control{control.stop, [&](double fraction) { control.report((n + fraction) / points); }});
    for (const HeadReport& head : report.heads) {
      if (!head.skippedReason.empty()) continue;
      HeadCurve& curve = curves[head.id];
      curve.id = head.id;
      curve.points.push_back({value, head.evaluation.keptFraction, head.evaluation.keptMass, head.evaluation.keptMassP5,
                              head.evaluation.outputRelError});
    }
  }
  std::vector<HeadCurve> out;
  for (auto& [id, curve] : curves) {
    std::stable_sort(curve.points.begin(), curve.points.end(),
                     [](const CurvePoint& a, const CurvePoint& b) { return a.kept < b.kept; });
    out.push_back(std::move(curve));
  }
  if (out.empty()) throw Error(ErrorCode::Unsupported, fmt::format("{}: no head could be planned", request.methodId));
  return out;
}

std::filesystem::path curvePath(const Trace& trace, const RunRequest& request, int points) {
  const TraceInfo& info = trace.info();
  std::string key = fmt::format("{} {} {} {} {} {} {} {}", SPARSIGHT_VERSION, info.uuid, request.methodId, request.seed,
                                points, request.evaluate.rows, request.evaluate.includePadding, request.warmup);
  for (const auto& [name, value] : request.params.values()) key += fmt::format(" {}={}", name, value);
  for (const HeadId& id : selectHeads(info, request.selection)) {
    key += fmt::format(" {}/{}/{}/{}/{}/{}", id.call.step, id.call.branch, id.call.layer, id.call.kind, id.call.call,
                       id.head);
  }
  Fingerprint print;
  print.add(key.data(), key.size());
  std::filesystem::path folder = info.path;
  folder += ".curves";
  return folder / fmt::format("{}-{:016x}.json", request.methodId, print.value());
}

void writeCurves(const std::filesystem::path& path, const std::vector<HeadCurve>& curves) {
  auto list = nlohmann::ordered_json::array();
  for (const HeadCurve& curve : curves) {
    auto points = nlohmann::ordered_json::array();
    for (const CurvePoint& p : curve.points) {
      points.push_back(
          {p.knob, p.kept, p.mass, p.massP5, p.error ? nlohmann::ordered_json(*p.error) : nlohmann::ordered_json()});
    }
    const CallId& call = curve.id.call;
    list.push_back({{"step", call.step},
                    {"branch", call.branch},
                    {"layer", call.layer},
                    {"kind", call.kind},
                    {"call", call.call},
                    {"head", curve.id.head},
                    {"points", std::move(points)}});
  }
  const nlohmann::ordered_json document{
      {"format", "sparsight-curves"}, {"format_version", 1}, {"curves", std::move(list)}};
  std::error_code failed;
  std::filesystem::create_directories(path.parent_path(), failed);
  writeFileAtomically(path, document.dump() + "\n");
}

std::vector<HeadCurve> readCurves(const std::filesystem::path& path) {
  constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;
  const auto malformed = [&](const std::string& what) {
    return Error(ErrorCode::Format, fmt::format("{}: {}; delete it, it is made again", path.string(), what));
  };
  try {
    const auto document = nlohmann::json::parse(readWholeFile(path, kMaxBytes));
    if (document.at("format") != "sparsight-curves" || document.at("format_version") != 1) {
      throw malformed("no sparsight-curves file of version 1");
    }
    std::vector<HeadCurve> curves;
    for (const auto& entry : document.at("curves")) {
      HeadCurve curve;
      curve.id.call = {entry.at("step"), entry.at("branch"), entry.at("layer"), entry.at("kind"), entry.at("call")};
      curve.id.head = entry.at("head");
      for (const auto& p : entry.at("points")) {
        CurvePoint point{p.at(0), p.at(1), p.at(2), p.at(3), std::nullopt};
        if (!p.at(4).is_null()) point.error = p.at(4).get<double>();
        curve.points.push_back(point);
      }
      curves.push_back(std::move(curve));
    }
    return curves;
  } catch (const nlohmann::json::exception& error) {
    throw malformed(error.what());
  }
}

Overlap overlapOf(const Plan& a, const Plan& b, Index rows, const Control& control) {
  if (a.queryCount != b.queryCount || a.keyCount != b.keyCount) {
    throw Error(ErrorCode::Unsupported, fmt::format("plans of {} x {} and {} x {} tokens have no common pairs",
                                                    a.queryCount, a.keyCount, b.queryCount, b.keyCount));
  }
  if (!a.rowCount.empty() || !b.rowCount.empty()) {
    throw Error(ErrorCode::Unsupported, "plans by row count (oracle_token) name no pairs; use a method with blocks");
  }
  std::vector<Index> all(at(a.queryCount));
  for (Index i = 0; i < a.queryCount; ++i) all[at(i)] = i;
  const KeptBits left(a), right(b);
  std::vector<std::uint64_t> mine(at((a.keyCount + 63) / 64)), theirs(mine.size());
  double both = 0, either = 0, own = 0;
  Overlap overlap;
  for (const Index row : evaluationRows(all, a.keyCount, rows)) {
    control.checkpoint();
    left.fill(row, mine);
    right.fill(row, theirs);
    for (std::size_t w = 0; w < mine.size(); ++w) {
      both += std::popcount(mine[w] & theirs[w]);
      either += std::popcount(mine[w] | theirs[w]);
      own += std::popcount(mine[w]);
    }
    ++overlap.rows;
  }
  overlap.jaccard = either > 0 ? both / either : 1;
  overlap.covered = own > 0 ? both / own : 1;
  return overlap;
}

}  // namespace sparsight
