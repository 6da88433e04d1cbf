// SPDX-License-Identifier: Apache-2.0
// Sparse VideoGen 2 (SAP): k-means of queries and keys, top-p over cluster pairs, exact attention on the kept ones.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "clustering.h"
#include "sparsight/core/method.h"

namespace sparsight {
namespace {

// The centroid store of a layer: the reference's attributes on the attention processor.
class Svg2State final : public MethodState {
 public:
  struct Entry {
    std::vector<float> q, k;
    int step = 0;
  };
  std::map<int, Entry> heads;
};

class Svg2Method final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svg2"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVG2"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Sparse VideoGen 2: queries and keys are clustered by k-means and permuted; cluster pairs are kept by top-p "
           "on centroid scores.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"top_p_kmeans"}; }
  [[nodiscard]] std::unique_ptr<MethodState> newState() const override { return std::make_unique<Svg2State>(); }
  [[nodiscard]] bool sharesBranches(const ParamSet& params) const override { return params.flag("share_branches"); }
  [[nodiscard]] std::map<std::string, std::string, std::less<>> adjusted(const TokenLayout& layout,
                                                                         const ParamSet& params,
                                                                         const Draws* draws) const override {
    return adjustedClusters(layout, params, draws);
  }

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

  [[nodiscard]] Plan plan(const MethodInput& input, MethodState* state, Backend& backend,
                          const Control& control) const override {
    control.checkpoint();
    const ClusterGeometry geometry = clusterGeometry(input, "svg2");
    const Result clusters = cluster(input, geometry, static_cast<Svg2State*>(state), backend, control);
    const Index dim = input.head.input.q.cols;
    const std::vector<double> probabilities =
        clusterProbabilities(clusters.q, clusters.k, input.prepared.input().scale, true, dim);
    const double ratio = input.params.real("min_kc_ratio", input.headIndex);
    const Index keys = clusters.k.clusters();
    const auto floor = static_cast<Index>(ratio * static_cast<double>(keys));
    const TopPMap map = topPMap(probabilities, clusters.q, keys, input.params.real("top_p_kmeans"),
                                [&](Index crossing) { return std::max(crossing, floor); });
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
      static_cast<void>(cluster(input, geometry, static_cast<Svg2State*>(state), backend, control));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::Unsupported) throw;  // the head is dense here: nothing to skip
    }
  }

 private:
  struct Result {
    Clustering q, k;
    std::optional<int> startedFrom;
    std::vector<std::string> warnings;
  };

  static Result cluster(const MethodInput& input, const ClusterGeometry& geometry, Svg2State* state, Backend& backend,
                        const Control& control) {
    const ParamSet& params = input.params;
    Result result;
    KMeansOptions options;
    const std::string distance = params.text("distance");
    options.distance = distance == "cosine" ? Distance::Cosine : distance == "dot" ? Distance::Dot : Distance::Euclid;
    options.returnMovedOnStop = params.text("variant") == "sparsevideo";
    const int step = input.head.id.call.step;
    Svg2State::Entry* stored = nullptr;
    if (state != nullptr) {
      if (const auto found = state->heads.find(input.head.id.head); found != state->heads.end())
        stored = &found->second;
    }
    std::vector<float> q, k;
    if (stored != nullptr) {
      result.startedFrom = stored->step;
      options.iterations = params.integer("kmeans_iter_step");
      q = stored->q;
      k = stored->k;
      if (step > stored->step + 1) {
        result.warnings.push_back(
            fmt::format("step {} starts from the centroids of step {}: the steps between were not run (captured, "
                        "selected), where the model would have refined them",
                        step, stored->step));
      }
    } else {
      options.iterations = params.integer("kmeans_iter_init");
      const bool plusPlus = params.text("init") == "kmeans++";
      for (const auto& [name, side, out] :
           {std::tuple{"num_q_centroids", Side::Query, &q}, std::tuple{"num_k_centroids", Side::Key, &k}}) {
        const Index asked = params.integer(name);
        *out = seedCentroids(input, geometry, side, asked, plusPlus, backend, control);
        const Index used = static_cast<Index>(out->size()) / input.head.input.q.cols;
        if (used < asked && used == clampedClusters(asked, geometry.videoTokens)) {
          result.warnings.push_back(fmt::format("{} {} clamped to {}, an eighth of the {} video tokens", name, asked,
                                                used, geometry.videoTokens));
        }
      }
    }
    if (options.iterations == 0) {
      result.warnings.emplace_back(
          "0 k-means iterations: tokens are assigned to the seeds (the reference stops with an "
          "error, the export runtime does this)");
    }
    result.q = kMeans(input.prepared, geometry, Side::Query, std::move(q), options, backend,
                      Control{control.stop, [&control](double f) { control.report(0.3 * f); }});
    result.k = kMeans(input.prepared, geometry, Side::Key, std::move(k), options, backend,
                      Control{control.stop, [&control](double f) { control.report(0.3 + 0.7 * f); }});
    if (state != nullptr) state->heads[input.head.id.head] = {result.q.centroids, result.k.centroids, step};
    return result;
  }

  std::vector<ParamSpec> m_params = withCommonParams(
      {
          {"num_q_centroids",
           {"qc"},
           ParamType::Int,
           "300",
           "clusters",
           1,
           65536,
           {},
           "Query clusters. At most an eighth of the video tokens.",
           "--num_q_centroids in *_sap.sh",
           false},
          {"num_k_centroids",
           {"kc"},
           ParamType::Int,
           "1000",
           "clusters",
           1,
           65536,
           {},
           "Key clusters. At most an eighth of the video tokens.",
           "--num_k_centroids",
           false},
          {"top_p_kmeans",
           {"top_p"},
           ParamType::Real,
           "0.9",
           "estimated probability mass",
           0,
           1,
           {},
           "Every query cluster keeps its most probable key clusters up to and including the one that crosses this "
           "estimated mass.",
           "--top_p_kmeans, identify_dynamic_map; paper Eq. 1-2",
           false},
          {"min_kc_ratio",
           {},
           ParamType::Real,
           "0.1",
           "fraction of key clusters",
           0,
           1,
           {},
           "Lower bound: at least floor(this x key clusters) are kept per query cluster, counted in clusters, not "
           "tokens.",
           "--min_kc_ratio",
           true},
          {"kmeans_iter_init",
           {"kmeans_iter"},
           ParamType::Int,
           "50",
           "iterations",
           0,
           10000,
           {},
           "k-means iterations of a layer's first clustering.",
           "--kmeans_iter_init",
           false},
          {"kmeans_iter_step",
           {"kmeans_iter"},
           ParamType::Int,
           "2",
           "iterations",
           0,
           10000,
           {},
           "k-means iterations of every later step, started from the stored centroids.",
           "--kmeans_iter_step",
           false},
          {"distance",
           {},
           ParamType::Choice,
           "euclid",
           "",
           0,
           0,
           {"euclid", "cosine", "dot"},
           "What nearest means. euclid is what every model path calls; cosine and dot are extras for comparison.",
           "kmeans_utils.py",
           false},
          {"init",
           {},
           ParamType::Choice,
           "random",
           "",
           0,
           0,
           {"random", "kmeans++"},
           "Seeds: random tokens with replacement (the reference), or k-means++ (an extra for comparison).",
           "batch_kmeans_Euclid",
           false},
          {"share_branches",
           {},
           ParamType::Bool,
           "true",
           "",
           0,
           0,
           {},
           "Guidance branches share a layer's centroids: cond starts, uncond goes on from there. Has an effect when "
           "all branches are run (--branch all).",
           "centroid cache in svg/models/*/attention.py",
           false},
          {"zero_step_kmeans_init",
           {},
           ParamType::Bool,
           "false",
           "",
           0,
           0,
           {},
           "Clusters on the dense warm-up steps, too, so that the centroids are older at the first sparse step. Has "
           "an effect with warm-up on.",
           "--zero_step_kmeans_init",
           false},
      },
      {"reference", "paper", "sparsevideo"});
};

}  // namespace

const Method& svg2_method() {
  static const Svg2Method method;
  return method;
}

}  // namespace sparsight
