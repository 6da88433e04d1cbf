// SPDX-License-Identifier: Apache-2.0
// SVOO: queries and keys are co-clustered, a profile made offline bounds from below how many clusters a head keeps.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "cluster_stages.h"
#include "clustering.h"
#include "sparsight/core/method.h"
#include "sparsight/core/profile.h"

namespace sparsight {
namespace {

// theta of paper Eq. 7: heads less sparse than this are budgeted the other way round.
constexpr double kPaperTheta = 0.1;

// The clustering cache of a layer's attention processor.
struct CachedClusters {
  CoClustering clusters;
  int step = 0;          ///< that clustered
  int scheduledFor = 0;  ///< the step of the schedule it stands for
};
// What planAhead() found for a step that clusters anew.
struct AheadClusters {
  CoClustering clusters;
  std::vector<std::string> warnings;
};
using SvooState = HeadStore<CachedClusters, AheadClusters>;

// What the floor of a head is made of.
struct Floor {
  double ratio = 0;  ///< after the clips
  bool profiled = false;
  std::optional<std::string> warning;
};

class SvooMethod final : public ClusterMethod {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svoo"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVOO"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Queries and keys are clustered together; each query cluster keeps the longer of top-p and a floor that an "
           "offline profile gives per step, layer and head.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::unique_ptr<MethodState> newState() const override { return std::make_unique<SvooState>(); }

  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(const TraceInfo& trace,
                                                                            const ParamSet& given) const override {
    auto defaults = Method::defaultsFor(trace, given);
    const bool hunyuan =
        resolveModelRule(given.text("model_rule"), trace.model.family, trace.layout) == ModelRule::Hunyuan;
    if (hunyuan) {
      defaults["top_p_kmeans"] = "0.88";
      defaults.insert_or_assign("start_reuse_step", std::string(1, '5'));
      defaults["reuse_interval"] = "50";
    }
    if (given.text("variant") == "paper") {
      defaults["reuse_interval"] = "20";
      for (const char* clip : {"dynamic_min_kc_ratio_min", "dynamic_min_kc_ratio_max"}) {
        defaults.insert_or_assign(clip, std::string("none"));
      }
    }
    return defaults;
  }

  [[nodiscard]] bool hasStages() const noexcept override { return true; }
  [[nodiscard]] Plan plan(const MethodInput& input, MethodState* state, Backend& backend,
                          const Control& control) const override {
    control.checkpoint();
    const ClusterGeometry geometry = clusterGeometry(input, "svoo");
    const Index dim = input.head.input.q.cols;
    CachedClusters own;
    std::vector<std::string> warnings;
    ClusterStages stages(input, geometry);
    const auto [entry, fresh] =
        clustersOf(input, geometry, static_cast<SvooState*>(state), own, warnings, stages, backend, control);
    const Clustering& q = entry->clusters.q;
    const Clustering& k = entry->clusters.k;
    const Floor floor = floorOf(input);
    if (floor.warning) warnings.push_back(*floor.warning);
    if (input.profile != nullptr) checkProfile(*input.profile, input.numSteps, warnings);
    const Choice choice = choose(input, q, k, floor, backend, control);
    if (stages.watched()) showChoice(input, q, k, floor, choice, stages);
    Plan plan = clusteredPlan("svoo", geometry, q, k, choice.scores.probabilities, choice.map);
    plan.plannerFlops = (fresh ? q.flops + k.flops : 0.0) +
                        2.0 * static_cast<double>(q.clusters()) * static_cast<double>(k.clusters() * dim);
    if (!fresh) plan.reusedFromStep = entry->step;
    plan.facts["floor_ratio"] = floor.ratio;
    plan.facts["floor_clusters"] = static_cast<double>(choice.floorClusters);
    plan.facts["floor_from_profile"] = floor.profiled ? 1.0 : 0.0;
    plan.warnings = std::move(warnings);
    return plan;
  }

  [[nodiscard]] bool plansAhead() const noexcept override { return true; }
  void planAhead(std::span<const MethodInput> inputs, MethodState* state, Backend& backend,
                 const Control& control) const override {
    auto* const store = static_cast<SvooState*>(state);
    if (store == nullptr) return;
    std::vector<int> heads;
    std::vector<ClusterGeometry> geometries;
    std::vector<AheadClusters> results;
    std::vector<CoClusterTask> tasks;
    geometries.reserve(inputs.size());  // tasks point to them
    for (const MethodInput& input : inputs) {
      if (input.dense || !clustersAnew(input, SvooState::find(store, input.head.id.head))) continue;
      try {
        geometries.push_back(clusterGeometry(input, "svoo"));
      } catch (const Error& error) {
        if (error.code() != ErrorCode::Unsupported) throw;
        continue;
      }
      Seeds seeds = seedBoth(input, geometries.back(), false, backend, control);
      heads.push_back(input.head.id.head);
      results.push_back({{}, std::move(seeds.warnings)});
      tasks.push_back({&input.prepared, &geometries.back(), std::move(seeds.q), std::move(seeds.k),
                       roundsOf(input, SvooState::find(store, input.head.id.head))});
    }
    std::vector<CoClustering> clusterings = coClusterAll(std::move(tasks), backend, control);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      results[i].clusters = std::move(clusterings[i]);
      store->ahead[heads[i]] = std::move(results[i]);
    }
  }

 private:
  // int(ratio * Kk): a Python float in the reference; in the export runtime it has been through a float32 tensor, so
  // that int(0.7 * 10) is 6 there.
  static Index truncated(double ratio, Index clusters, bool singlePrecision) {
    if (singlePrecision) ratio = static_cast<double>(static_cast<float>(ratio));
    return static_cast<Index>(ratio * static_cast<double>(clusters));
  }

  // Which key clusters each query cluster keeps.
  struct Choice {
    ClusterScores scores;
    Index floorClusters = 0;
    TopPMap map;
  };

  static Choice choose(const MethodInput& input, const Clustering& q, const Clustering& k, const Floor& floor,
                       Backend& backend, const Control& control) {
    const bool paper = input.params.text("variant") == "paper";
    Choice choice;
    const double topP = input.params.real("top_p_kmeans");
    choice.scores =
        clusterScores(q, k, input.prepared.input().scale, !paper, input.head.input.q.cols, topP, backend, control);
    choice.floorClusters = truncated(floor.ratio, k.clusters(), input.params.text("variant") == "sparsevideo");
    choice.map = topPMap(choice.scores, q, k.clusters(), [&](Index crossing) {
      if (topP >= 1.0) return k.clusters();  // the scripts' own way to say dense
      // Eq. 7 speaks of skipped fractions: the smaller of two of them keeps more.
      const bool sparseEnough = 1.0 - floor.ratio > kPaperTheta;
      return paper && !sparseEnough ? std::min(crossing, choice.floorClusters)
                                    : std::max(crossing, choice.floorClusters);
    });
    return choice;
  }

  static void showChoice(const MethodInput& input, const Clustering& q, const Clustering& k, const Floor& floor,
                         const Choice& choice, ClusterStages& stages) {
    const bool paper = input.params.text("variant") == "paper";
    stages.scores(q, k, choice.scores.probabilities, !paper, "identify_dynamic_map in svoo/co_clustering.py");
    stages.selection(
        q, k, choice.scores.probabilities, choice.map, input.params.real("top_p_kmeans"), choice.floorClusters,
        floor.profiled ? fmt::format("Every query cluster keeps the longer of two: what top-p asks for, and the floor "
                                     "that the offline profile gives this head ({:g} of the key clusters).",
                                     floor.ratio)
                       : fmt::format("Every query cluster keeps the longer of two: what top-p asks for, and a floor. "
                                     "Without a profile the floor is the same everywhere ({:g} of the key clusters).",
                                     floor.ratio),
        "identify_dynamic_map in svoo/co_clustering.py; sparsity_csv_path, min_kc_ratio");
    stages.permuted(choice.map);
  }

  // Taken as it is, as the reference does, but said.
  static void checkProfile(const Profile& profile, int steps, std::vector<std::string>& warnings) {
    if (steps > 0 && profile.steps() != steps) {
      warnings.push_back(
          fmt::format("the profile has {} steps and the run {}: values are looked up by step index, not "
                      "rescaled",
                      profile.steps(), steps));
    }
    if (profile.role != BudgetRole::KeptFloor) {
      warnings.push_back(
          fmt::format("the profile's values are meant as {}; SVOO takes them as a floor of kept clusters",
                      budgetRoleName(profile.role)));
    }
  }

  static Floor floorOf(const MethodInput& input) {
    const ParamSet& params = input.params;
    const double fallback = params.real("min_kc_ratio", input.headIndex);
    if (input.profile == nullptr) return {fallback, false, std::nullopt};
    const CallId& call = input.head.id.call;
    const Profile& profile = *input.profile;
    // One missing head sends the whole layer of that step to the fallback, which is not clipped.
    const int heads = std::max(profile.heads(), input.head.id.head + 1);
    for (int head = 0; head < heads; ++head) {
      if (profile.contains({call.step, call.layer, head}) && profile.at({call.step, call.layer, head})) continue;
      return {fallback, false,
              fmt::format("the profile has no value for step {} layer {} head {}: that layer takes min_kc_ratio {:g}",
                          call.step, call.layer, head, fallback)};
    }
    double ratio = *profile.at({call.step, call.layer, input.head.id.head});
    // lo first, hi last: hi wins where they cross.
    if (params.text("dynamic_min_kc_ratio_min") != "none") {
      ratio = std::max(ratio, params.real("dynamic_min_kc_ratio_min"));
    }
    if (params.text("dynamic_min_kc_ratio_max") != "none") {
      ratio = std::min(ratio, params.real("dynamic_min_kc_ratio_max"));
    }
    return {ratio, true, std::nullopt};
  }

  struct Use {
    const CachedClusters* entry;
    bool fresh;
  };

  static bool clustersAnew(const MethodInput& input, const CachedClusters* stored) {
    if (stored == nullptr) return true;
    const int step = input.head.id.call.step;
    if (input.params.text("variant") == "sparsevideo") {
      const Index interval = intervalOf(input.params);
      return interval > 0 && step - stored->step >= interval;
    }
    const int scheduled = scheduledStep(input.params, step);
    return scheduled == step || stored->scheduledFor != scheduled;
  }
  static Index roundsOf(const MethodInput& input, const CachedClusters* stored) {
    return input.params.integer(stored == nullptr ? "kmeans_iter_init" : "kmeans_iter_step");
  }

  static void coClusterNow(const MethodInput& input, const ClusterGeometry& geometry, const CachedClusters* stored,
                           CachedClusters& own, std::vector<std::string>& warnings, ClusterStages& stages,
                           Backend& backend, const Control& control) {
    Seeds seeds = seedBoth(input, geometry, false, backend, control);
    stages.seeds(Side::Query, seeds.qTokens, static_cast<Index>(seeds.qTokens.size()), -1, "random");
    stages.seeds(Side::Key, seeds.kTokens, static_cast<Index>(seeds.kTokens.size()), -1, "random");
    warnings.insert(warnings.end(), seeds.warnings.begin(), seeds.warnings.end());
    const Index rounds = roundsOf(input, stored);
    std::function<void(const CoClustering&, Side)> onHalf;
    if (stages.watched()) {
      onHalf = [&](const CoClustering& now, Side side) {
        std::shared_ptr<const Plan> plan;
        if (now.q.clusters() > 0) {
          const Choice choice = choose(input, now.q, now.k, floorOf(input), backend, control);
          plan = std::make_shared<const Plan>(
              clusteredPlan("svoo", geometry, now.q, now.k, choice.scores.probabilities, choice.map));
        }
        stages.half(side, now, rounds, std::move(plan));
      };
    }
    own.clusters =
        coCluster(input.prepared, geometry, std::move(seeds.q), std::move(seeds.k), rounds, backend, control, onHalf);
  }

  static Use clustersOf(const MethodInput& input, const ClusterGeometry& geometry, SvooState* state,
                        CachedClusters& own, std::vector<std::string>& warnings, ClusterStages& stages,
                        Backend& backend, const Control& control) {
    const int step = input.head.id.call.step;
    const int scheduled = scheduledStep(input.params, step);
    const CachedClusters* stored = SvooState::find(state, input.head.id.head);
    if (!clustersAnew(input, stored)) {
      stages.reused(stored->clusters.q, stored->clusters.k, stored->step);
      return {stored, false};
    }

    if (std::optional<AheadClusters> ahead = SvooState::take(state, input.head.id.head)) {
      own.clusters = std::move(ahead->clusters);
      warnings.insert(warnings.end(), ahead->warnings.begin(), ahead->warnings.end());
    } else {
      coClusterNow(input, geometry, stored, own, warnings, stages, backend, control);
    }
    own.step = step;
    own.scheduledFor = scheduled;
    if (scheduled != step && input.params.text("variant") != "sparsevideo") {
      warnings.push_back(
          fmt::format("step {}, where the schedule clusters anew, was not run (captured, selected): "
                      "clustered at step {} instead",
                      scheduled, step));
    }
    if (state == nullptr) return {&own, true};
    CachedClusters& kept = state->heads[input.head.id.head];
    kept = std::move(own);
    return {&kept, true};
  }

  static Index intervalOf(const ParamSet& params) {
    return params.text("reuse_interval") == "none" ? 0 : params.integer("reuse_interval");
  }

  // The step at which the schedule last clustered, `step` included: every step before start, then every interval.
  static int scheduledStep(const ParamSet& params, int step) {
    if (params.text("start_reuse_step") == "none") return step;
    const auto start = static_cast<int>(params.integer("start_reuse_step"));
    if (step < start) return step;
    const Index interval = intervalOf(params);
    if (interval <= 0) return start;
    return start + static_cast<int>((step - start) / interval * interval);
  }

  std::vector<ParamSpec> m_params = withCommonParams(
      {
          queryClusters("256", "*_svoo.sh"),
          keyClusters("1024"),
          ParamSpec::real(
              "top_p_kmeans", "0.9", 0, 1, "estimated probability mass",
              "Every query cluster keeps its most probable key clusters up to and including the one that crosses this "
              "estimated mass; 1 keeps everything.",
              "--top_p_kmeans, identify_dynamic_map in svoo/co_clustering.py")
              .withAliases({"top_p"}),
          ParamSpec::integer("kmeans_iter_init", "2", 1, 10000, "rounds",
                             "Rounds (keys, then queries) of a layer's first clustering, from random tokens.",
                             "--kmeans_iter_init")
              .withAliases({"kmeans_iter"}),
          ParamSpec::integer("kmeans_iter_step", "2", 1, 10000, "rounds",
                             "Rounds of later clusterings; also from random tokens: SVOO has no warm start.",
                             "--kmeans_iter_step")
              .withAliases({"kmeans_iter"}),
          ParamSpec::freeText(
              "sparsity_csv_path", "none", "file",
              "Profile with a kept floor per step, layer and head (SVOO's CSV or this program's JSON); none: "
              "min_kc_ratio.",
              "--sparsity_csv_path")
              .withAliases({"profile"}),
          ParamSpec::real(
              "min_kc_ratio", "0.1", 0, 1, "fraction of key clusters",
              "Floor without a profile, or where it has a hole in the layer; not clipped. Counted in clusters, not "
              "tokens.",
              "--min_kc_ratio")
              .listedPerHead(),
          ParamSpec::real("dynamic_min_kc_ratio_min", "0.05", 0, 1, "fraction of key clusters",
                          "Profile values are raised to this first; none: not.", "--dynamic_min_kc_ratio_min")
              .orWords({"none"}),
          ParamSpec::real("dynamic_min_kc_ratio_max", "0.1", 0, 1, "fraction of key clusters",
                          "Then lowered to this, which wins where the two cross; none: not.",
                          "--dynamic_min_kc_ratio_max")
              .orWords({"none"}),
          ParamSpec::integer("start_reuse_step", "10", 0, 100000, "denoising step index",
                             "Clusters are kept from this 0-based step on (step index 10 = 11th step, which clusters "
                             "once more); none: every step clusters.",
                             "--start_reuse_step (1-based there)")
              .orWords({"none"}),
          ParamSpec::integer(
              "reuse_interval", "20", 0, 100000, "denoising steps",
              "Steps between clusterings once they are reused; 0 or none: never again. Labels and centroids are both "
              "frozen between.",
              "--reuse_interval")
              .orWords({"none"}),
          ParamSpec::boolean("share_branches", "true",
                             "Guidance branches share a layer's cache: where both cluster, the later one (uncond) "
                             "stays. Has an effect when all branches are run (--branch all).",
                             "kmeans_clustering in models/*/attention.py"),
      },
      {"reference", "paper", "sparsevideo"});
};

}  // namespace

const Method& svoo_method() {
  static const SvooMethod method;
  return method;
}

}  // namespace sparsight
