// SPDX-License-Identifier: Apache-2.0
// Sparse VideoGen 2 (SAP): k-means of queries and keys, top-p over cluster pairs, exact attention on the kept ones.
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "cluster_stages.h"
#include "clustering.h"
#include "sparsight/core/method.h"

namespace sparsight {
namespace {

// The centroid store of a layer: the reference's attributes on the attention processor.
struct Centroids {
  std::vector<float> q, k;
  int step = 0;
};
// One head's clusters at one step.
struct Svg2Clusters {
  Clustering q, k;
  std::optional<int> startedFrom;
  std::vector<std::string> warnings;
};
using Svg2State = HeadStore<Centroids, Svg2Clusters>;

class Svg2Method final : public ClusterMethod {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svg2"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG2"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Sparse VideoGen 2: queries and keys are clustered by k-means and permuted; cluster pairs are kept by top-p "
           "on centroid scores.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::unique_ptr<MethodState> newState() const override { return std::make_unique<Svg2State>(); }

  [[nodiscard]] std::map<std::string, std::string, std::less<>> defaultsFor(const TraceInfo& trace,
                                                                            const ParamSet& given) const override {
    auto defaults = Method::defaultsFor(trace, given);
    const bool hunyuan =
        resolveModelRule(given.text("model_rule"), trace.model.family, trace.layout) == ModelRule::Hunyuan;
    if (hunyuan || isCosmosFamily(trace.model.family)) defaults["num_q_centroids"] = "400";
    if (hunyuan) defaults["zero_step_kmeans_init"] = "true";
    if (given.text("variant") == "paper") {
      defaults["num_q_centroids"] = "100";
      defaults["num_k_centroids"] = "500";
      defaults["first_times_fp"] = "0.3";
    }
    return defaults;
  }

  [[nodiscard]] bool hasStages() const noexcept override { return true; }
  [[nodiscard]] Plan plan(const MethodInput& input, MethodState* state, Backend& backend,
                          const Control& control) const override {
    control.checkpoint();
    const ClusterGeometry geometry = clusterGeometry(input, "svg2");
    ClusterStages stages(input, geometry);
    const Svg2Clusters clusters = cluster(input, geometry, static_cast<Svg2State*>(state), stages, backend, control);
    const Index dim = input.head.input.q.cols;
    const double topP = input.params.real("top_p_kmeans");
    const ClusterScores scores =
        clusterScores(clusters.q, clusters.k, input.prepared.input().scale, true, dim, topP, backend, control);
    const std::vector<double>& probabilities = scores.probabilities;
    stages.scores(clusters.q, clusters.k, probabilities, true,
                  "paper Eq. 1; identify_dynamic_map in svg/models/*/attention.py");
    const double ratio = input.params.real("min_kc_ratio", input.headIndex);
    const Index keys = clusters.k.clusters();
    const auto floor = static_cast<Index>(ratio * static_cast<double>(keys));
    const TopPMap map = topPMap(scores, clusters.q, keys, [&](Index crossing) { return std::max(crossing, floor); });
    stages.selection(clusters.q, clusters.k, probabilities, map, topP, floor,
                     "Every query cluster takes key clusters from the most probable down until the estimate says "
                     "enough, and at least the floor. So each gets as many as it needs.",
                     "paper Eq. 2; --top_p_kmeans, --min_kc_ratio");
    stages.permuted(map);
    Plan plan = clusteredPlan("svg2", geometry, clusters.q, clusters.k, probabilities, map);
    plan.plannerFlops = clusters.q.flops + clusters.k.flops +
                        2.0 * static_cast<double>(clusters.q.clusters()) * static_cast<double>(keys * dim);
    plan.reusedFromStep = clusters.startedFrom;
    plan.warnings = clusters.warnings;
    plan.facts["floor_clusters"] = static_cast<double>(floor);
    return plan;
  }

  void observeDense(const MethodInput& input, MethodState* state, Backend& backend,
                    const Control& control) const override {
    if (!input.params.flag("zero_step_kmeans_init")) return;
    try {
      const ClusterGeometry geometry = clusterGeometry(input, "svg2");
      ClusterStages stages(input, geometry);
      static_cast<void>(cluster(input, geometry, static_cast<Svg2State*>(state), stages, backend, control));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::Unsupported) throw;  // the head is dense here: nothing to skip
    }
  }

  [[nodiscard]] bool plansAhead() const noexcept override { return true; }
  void planAhead(std::span<const MethodInput> inputs, MethodState* state, Backend& backend,
                 const Control& control) const override {
    auto* const store = static_cast<Svg2State*>(state);
    if (store == nullptr) return;
    std::vector<int> heads;
    std::vector<ClusterGeometry> geometries;
    std::vector<Svg2Clusters> results;
    std::vector<KMeansTask> tasks;
    geometries.reserve(inputs.size());  // tasks point to them
    for (const MethodInput& input : inputs) {
      if (input.dense && !input.params.flag("zero_step_kmeans_init")) continue;
      try {
        geometries.push_back(clusterGeometry(input, "svg2"));
      } catch (const Error& error) {
        if (error.code() != ErrorCode::Unsupported) throw;
        continue;
      }
      Start start = begin(input, geometries.back(), store, backend, control);
      heads.push_back(input.head.id.head);
      results.push_back(std::move(start.clusters));
      for (const Side side : {Side::Query, Side::Key}) {
        tasks.push_back({&input.prepared, &geometries.back(), side,
                         std::move(side == Side::Query ? start.seeds.q : start.seeds.k), start.options});
      }
    }
    std::vector<Clustering> clusterings = kMeansAll(std::move(tasks), backend, control);
    for (std::size_t i = 0; i < heads.size(); ++i) {
      results[i].q = std::move(clusterings[2 * i]);
      results[i].k = std::move(clusterings[2 * i + 1]);
      store->ahead[heads[i]] = std::move(results[i]);
    }
  }

 private:
  // What a clustering starts from.
  struct Start {
    KMeansOptions options;
    Seeds seeds;
    Svg2Clusters clusters;  ///< without q and k
  };

  static Start begin(const MethodInput& input, const ClusterGeometry& geometry, Svg2State* state, Backend& backend,
                     const Control& control) {
    const ParamSet& params = input.params;
    Start start;
    KMeansOptions& options = start.options;
    const std::string distance = params.text("distance");
    options.distance = distance == "cosine" ? Distance::Cosine : distance == "dot" ? Distance::Dot : Distance::Euclid;
    options.bfloatCentroids = params.text("centroid_type") == "bf16";
    options.returnMovedOnStop = params.text("variant") == "sparsevideo";
    const int step = input.head.id.call.step;
    Seeds& seeds = start.seeds;
    std::vector<std::string>& warnings = start.clusters.warnings;
    if (const Centroids* stored = Svg2State::find(state, input.head.id.head); stored != nullptr) {
      start.clusters.startedFrom = stored->step;
      options.iterations = params.integer("kmeans_iter_step");
      seeds.q = stored->q;
      seeds.k = stored->k;
      if (step > stored->step + 1) {
        warnings.push_back(
            fmt::format("step {} starts from the centroids of step {}: the steps between were not run (captured, "
                        "selected), where the model would have refined them",
                        step, stored->step));
      }
    } else {
      options.iterations = params.integer("kmeans_iter_init");
      seeds = seedBoth(input, geometry, params.text("init") == "kmeans++", backend, control);
      warnings = std::move(seeds.warnings);
    }
    if (options.iterations == 0) {
      warnings.emplace_back(
          "0 k-means iterations: tokens are assigned to the seeds (the reference stops with an "
          "error, the export runtime does this)");
    }
    return start;
  }

  static Svg2Clusters cluster(const MethodInput& input, const ClusterGeometry& geometry, Svg2State* state,
                              ClusterStages& stages, Backend& backend, const Control& control) {
    const auto keep = [&](const Svg2Clusters& clusters) {
      if (state == nullptr) return;
      state->heads[input.head.id.head] = {clusters.q.centroids, clusters.k.centroids, input.head.id.call.step};
    };
    if (std::optional<Svg2Clusters> ahead = Svg2State::take(state, input.head.id.head)) {
      keep(*ahead);
      return std::move(*ahead);
    }
    Start start = begin(input, geometry, state, backend, control);
    Svg2Clusters result = std::move(start.clusters);
    KMeansOptions& options = start.options;
    const auto run = [&](Side side, std::vector<float> from, const std::vector<Index>& tokens, double done,
                         double share) {
      stages.seeds(side, tokens, static_cast<Index>(from.size()) / input.head.input.q.cols,
                   result.startedFrom.value_or(-1), input.params.text("init"));
      if (stages.watched()) {
        options.onRound = [&, side](const Clustering& now, double shift, bool stopped) {
          stages.round(side, now, shift, stopped, options.iterations, input.params.text("distance"));
        };
      }
      return kMeans(input.prepared, geometry, side, std::move(from), options, backend,
                    Control{control.stop, [&control, done, share](double f) { control.report(done + share * f); }});
    };
    result.q = run(Side::Query, std::move(start.seeds.q), start.seeds.qTokens, 0, 0.3);
    result.k = run(Side::Key, std::move(start.seeds.k), start.seeds.kTokens, 0.3, 0.7);
    keep(result);
    return result;
  }

  std::vector<ParamSpec> m_params = withCommonParams(
      {
          queryClusters("300", "*_sap.sh"),
          keyClusters("1000"),
          ParamSpec::real(
              "top_p_kmeans", "0.9", 0, 1, "estimated probability mass",
              "Every query cluster keeps its most probable key clusters up to and including the one that crosses this "
              "estimated mass.",
              "--top_p_kmeans, identify_dynamic_map; paper Eq. 1-2")
              .withAliases({"top_p"}),
          ParamSpec::real(
              "min_kc_ratio", "0.1", 0, 1, "fraction of key clusters",
              "Lower bound: at least floor(this x key clusters) are kept per query cluster, counted in clusters, not "
              "tokens.",
              "--min_kc_ratio")
              .listedPerHead(),
          ParamSpec::integer("kmeans_iter_init", "50", 0, 10000, "iterations",
                             "k-means iterations of a layer's first clustering.", "--kmeans_iter_init")
              .withAliases({"kmeans_iter"}),
          ParamSpec::integer("kmeans_iter_step", "2", 0, 10000, "iterations",
                             "k-means iterations of every later step, started from the stored centroids.",
                             "--kmeans_iter_step")
              .withAliases({"kmeans_iter"}),
          ParamSpec::choice(
              "distance", "euclid", {"euclid", "cosine", "dot"},
              "What nearest means. euclid is what every model path calls; cosine and dot are extras for comparison.",
              "kmeans_utils.py"),
          ParamSpec::choice("centroid_type", "fp32", {"fp32", "bf16"},
                            "Type the centroids are kept in. bf16 rounds them before every round, as the reference "
                            "casts them back to "
                            "the tensors' type; on bfloat16 tensors that is also faster.",
                            "kmeans_utils.py"),
          ParamSpec::choice(
              "init", "random", {"random", "kmeans++"},
              "Seeds: random tokens with replacement (the reference), or k-means++ (an extra for comparison).",
              "batch_kmeans_Euclid"),
          ParamSpec::boolean(
              "share_branches", "true",
              "Guidance branches share a layer's centroids: cond starts, uncond goes on from there. Has an effect when "
              "all branches are run (--branch all).",
              "centroid cache in svg/models/*/attention.py"),
          ParamSpec::boolean(
              "zero_step_kmeans_init", "false",
              "Clusters on the dense warm-up steps, too, so that the centroids are older at the first sparse step. Has "
              "an effect with warm-up on.",
              "--zero_step_kmeans_init"),
      },
      {"reference", "paper", "sparsevideo"});
};

}  // namespace

const Method& svg2_method() {
  static const Svg2Method method;
  return method;
}

}  // namespace sparsight
