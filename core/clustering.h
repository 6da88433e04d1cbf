// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/method.h"

namespace sparsight {

/// The tokens of a call as clustering methods see them: the video is clustered; what lies outside it keeps its order as
/// two blocks, prompt (valid tokens) and padding.
struct ClusterGeometry {
  Index tokens = 0;
  Index videoStart = 0, videoTokens = 0;
  std::vector<Index> prompt, padding;  ///< model tokens, ascending
  [[nodiscard]] bool hasText() const noexcept { return videoTokens < tokens; }
};
/// Throws Error{Unsupported} with the reason for a head that cannot be clustered; `method` begins the message.
[[nodiscard]] ClusterGeometry clusterGeometry(const MethodInput& input, std::string_view method);

/// Clusters used for `asked`: at most an eighth of the tokens.
[[nodiscard]] Index clampedClusters(Index asked, Index videoTokens) noexcept;
/// What the methods that cluster both sides share: parameters num_q_centroids and num_k_centroids (an eighth of the
/// video tokens at most), min_kc_ratio, share_branches, and top_p_kmeans, which moves the budget.
class ClusterMethod : public Method {
 public:
  [[nodiscard]] std::optional<Knob> knob() const override { return Knob{"top_p_kmeans"}; }
  [[nodiscard]] bool sharesBranches(const ParamSet& params) const override { return params.flag("share_branches"); }
  [[nodiscard]] std::map<std::string, std::string, std::less<>> adjusted(const TokenLayout& layout,
                                                                         const ParamSet& params,
                                                                         const Draws* draws) const override;

 protected:
  /// num_q_centroids and num_k_centroids; `scripts` names the launch scripts that give the defaults.
  [[nodiscard]] static ParamSpec queryClusters(std::string defaultValue, std::string_view scripts);
  [[nodiscard]] static ParamSpec keyClusters(std::string defaultValue);

  struct Seeds {
    std::vector<float> q, k;              ///< [K, D] each
    std::vector<Index> qTokens, kTokens;  ///< the model tokens they are
    std::vector<std::string> warnings;    ///< of clamped counts
  };
  /// Seeds of both sides from the draws or at random; plusPlus as in seedCentroids.
  [[nodiscard]] static Seeds seedBoth(const MethodInput& input, const ClusterGeometry& geometry, bool plusPlus,
                                      Backend& backend, const Control& control);
};

/// What such a method keeps per head of a layer: an Entry from step to step, and what planAhead() made for the plan of
/// the present step.
template <class Entry, class Ahead>
class HeadStore final : public MethodState {
 public:
  /// nullptr: no store, or nothing kept for that head.
  [[nodiscard]] static Entry* find(HeadStore* store, int head) {
    if (store == nullptr) return nullptr;
    const auto found = store->heads.find(head);
    return found == store->heads.end() ? nullptr : &found->second;
  }
  /// Hands out what planAhead() made; nullopt: nothing.
  [[nodiscard]] static std::optional<Ahead> take(HeadStore* store, int head) {
    if (store == nullptr) return std::nullopt;
    const auto found = store->ahead.find(head);
    if (found == store->ahead.end()) return std::nullopt;
    std::optional<Ahead> taken = std::move(found->second);
    store->ahead.erase(found);
    return taken;
  }
  std::map<int, Entry> heads;
  std::map<int, Ahead> ahead;
};

/// The tokens of one side as they are clustered, and what came of it.
struct Clustering {
  std::vector<std::int32_t> labels;  ///< [V]
  std::vector<float> centroids;      ///< [K, D]
  std::vector<Index> sizes;          ///< [K]
  std::vector<double> objective;     ///< per iteration: mean squared distance, or mean similarity
  double flops = 0;
  [[nodiscard]] Index clusters() const noexcept { return static_cast<Index>(sizes.size()); }
};

/// Centroids [K, D] made of tokens: given draws, or `asked` (clamped) drawn uniformly with replacement from the seed,
/// the call, the head and the side; plusPlus: by squared distance instead (k-means++). Throws Error{InvalidArgument}
/// for draws that do not fit. `tokens`, where given, gets the model tokens they are made of.
[[nodiscard]] std::vector<float> seedCentroids(const MethodInput& input, const ClusterGeometry& geometry, Side side,
                                               Index asked, bool plusPlus, Backend& backend, const Control& control,
                                               std::vector<Index>* tokens = nullptr);

/// What becomes of a cluster without members.
enum class EmptyPolicy : std::uint8_t {
  Keep,      ///< it keeps its centroid, as in the methods
  Relocate,  ///< it takes the point farthest from its centroid out of that cluster (scikit-learn's rule)
};

struct KMeansOptions {
  Index iterations = 50;  ///< 0: tokens are assigned to the given centroids, which stay
  Distance distance = Distance::Euclid;
  EmptyPolicy empty = EmptyPolicy::Keep;
  /// Centroids are rounded to bfloat16 before every round, as the reference casts them back to the tensors' type. With
  /// bfloat16 tokens the CPU then compares in that type, at twice the rate; float32 is the default.
  bool bfloatCentroids = false;
  /// When no centroid moved by 1e-4 the iteration ends; true: with the moved centroids, as the export runtime does.
  bool returnMovedOnStop = false;
  /// Sees every round: what the round gave (labels, sizes, objective so far; centroids as they were for it), how far a
  /// centroid moved at most, and whether that ended it. The last call's labels are those of the result.
  std::function<void(const Clustering&, double shift, bool stopped)> onRound = {};
};
/// Lloyd's iteration. Labels and sizes belong to the centroids before the last update, as in the reference.
[[nodiscard]] Clustering kMeans(const PreparedHead& head, const ClusterGeometry& geometry, Side side,
                                std::vector<float> centroids, const KMeansOptions& options, Backend& backend,
                                const Control& control);

/// One clustering of kMeansAll.
struct KMeansTask {
  const PreparedHead* head = nullptr;
  const ClusterGeometry* geometry = nullptr;
  Side side = Side::Key;
  std::vector<float> centroids;
  KMeansOptions options;
};
/// kMeans of every task, with the same results: their rounds run together (Backend::clusterAll) until each has ended.
[[nodiscard]] std::vector<Clustering> kMeansAll(std::vector<KMeansTask> tasks, Backend& backend,
                                                const Control& control);

/// SVOO's bidirectional co-clustering (co_cluster_tokens): per round keys by their profiles against the query
/// centroids, then queries by theirs against the new key centroids; means in token space.
struct CoClustering {
  Clustering q, k;
};
/// onHalf sees the state after every half of a round and whose tokens it moved; query labels are empty after the first.
[[nodiscard]] CoClustering coCluster(const PreparedHead& head, const ClusterGeometry& geometry,
                                     std::vector<float> qCentroids, std::vector<float> kCentroids, Index rounds,
                                     Backend& backend, const Control& control,
                                     const std::function<void(const CoClustering&, Side)>& onHalf = {});

/// One head of coClusterAll.
struct CoClusterTask {
  const PreparedHead* head = nullptr;
  const ClusterGeometry* geometry = nullptr;
  std::vector<float> qCentroids, kCentroids;
  Index rounds = 0;
};
/// coCluster of every task, with the same results, in common halves of rounds.
[[nodiscard]] std::vector<CoClustering> coClusterAll(std::vector<CoClusterTask> tasks, Backend& backend,
                                                     const Control& control);

/// Backend::scoreClusters of two clusterings: P weighted by key cluster sizes or not.
[[nodiscard]] ClusterScores clusterScores(const Clustering& q, const Clustering& k, double scale, bool weighted,
                                          Index dim, double topP, Backend& backend, const Control& control);

/// Which clusters each query cluster keeps, in order of falling probability (ties: lowest number first).
struct TopPMap {
  std::vector<std::uint8_t> map;  ///< [Kq, Kk]
  double estimatedMass = 0;       ///< mean over query tokens of the kept probability: the method's own recall estimate
  double boundByFloor = 0;        ///< share of query clusters whose count is not the top-p one
};
/// keepCount(m): clusters to keep where top-p keeps m. top-p keeps up to and including the cluster that crosses p.
[[nodiscard]] TopPMap topPMap(const ClusterScores& scores, const Clustering& q, Index keyClusters,
                              const std::function<Index(Index)>& keepCount);

/// The plan of a clustered head: orders by cluster, variable blocks, prompt and padding blocks with the rules of
/// dynamic_map_post_processing (prompt sees video and prompt, video sees prompt, padding sees padding only).
[[nodiscard]] Plan clusteredPlan(std::string_view method, const ClusterGeometry& geometry, const Clustering& q,
                                 const Clustering& k, const std::vector<double>& probabilities, const TopPMap& map);

}  // namespace sparsight
