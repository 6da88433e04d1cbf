// SPDX-License-Identifier: Apache-2.0
#include "cluster_stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace sparsight {
namespace {

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

[[nodiscard]] const char* plural(Side side) { return side == Side::Query ? "queries" : "keys"; }
[[nodiscard]] const char* singular(Side side) { return side == Side::Query ? "query" : "key"; }

void addSizes(Stage& stage, const Clustering& clusters) {
  const auto empty = static_cast<Index>(std::count(clusters.sizes.begin(), clusters.sizes.end(), Index{0}));
  stage.facts.push_back(StageFact::count("clusters", clusters.clusters()));
  stage.facts.push_back(StageFact::count("empty clusters", empty));
  stage.facts.push_back(
      StageFact::count("largest cluster, tokens", *std::max_element(clusters.sizes.begin(), clusters.sizes.end())));
}

}  // namespace

TokenPicture ClusterStages::picture(Side side, const Clustering& clusters) const {
  TokenPicture picture;
  picture.what = fmt::format("{} clusters", singular(side));
  picture.labels.assign(at(m_geometry.tokens), -1);
  std::copy(clusters.labels.begin(), clusters.labels.end(), picture.labels.begin() + m_geometry.videoStart);
  picture.sizes = clusters.sizes;
  return picture;
}

Index ClusterStages::changed(Side side, const Clustering& now) {
  std::vector<std::int32_t>& before = m_before[side == Side::Query ? 0 : 1];
  Index count = -1;
  if (before.size() == now.labels.size()) {
    count = 0;
    for (std::size_t i = 0; i < before.size(); ++i) count += before[i] != now.labels[i] ? 1 : 0;
  }
  before = now.labels;
  return count;
}

BlockPicture ClusterStages::blocks(const Clustering& q, const Clustering& k,
                                   const std::vector<double>& probabilities) const {
  BlockPicture picture;
  picture.what = "estimated probability";
  picture.rowName = "query cluster";
  picture.columnName = "key cluster";
  picture.rows = q.clusters();
  picture.columns = k.clusters();
  picture.values.assign(probabilities.begin(), probabilities.end());
  picture.rowsAreShares = true;
  return picture;
}

void ClusterStages::seeds(Side side, const std::vector<Index>& tokens, Index centroids, int from,
                          const std::string& how) const {
  if (!watched()) return;
  Stage stage;
  stage.chapter = fmt::format("start of the {}", plural(side));
  stage.facts.push_back(StageFact::count("centroids", centroids));
  if (from >= 0) {
    stage.title = fmt::format("Centroids of the {} from step {}", plural(side), from);
    stage.text = fmt::format(
        "The {} of a head change little from one denoising step to the next, so the clustering "
        "goes on from the centroids that step {} left.",
        plural(side), from);
    stage.facts.push_back(StageFact::words("starts from", fmt::format("step {}", from)));
  } else {
    stage.title = fmt::format("Seeds of the {}: {} tokens", plural(side), centroids);
    stage.text = fmt::format(
        "Clustering needs somewhere to start. The vectors of these {} become the first "
        "centroids; one that is drawn twice leaves an empty cluster.",
        plural(side));
    stage.facts.push_back(StageFact::words("starts from", "nothing: first clustering, no earlier step"));
    stage.facts.push_back(StageFact::words("drawn", how));
    std::vector<Index> distinct = tokens;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    stage.facts.push_back(StageFact::count("different tokens", static_cast<Index>(distinct.size())));
    TokenPicture picture;
    picture.what = fmt::format("seeds of the {} clusters", singular(side));
    picture.values.assign(at(m_geometry.tokens), 0.0F);
    for (const Index token : distinct) picture.values[at(token)] = 1.0F;
    stage.tokens.push_back(std::move(picture));
  }
  show(std::move(stage));
}

void ClusterStages::round(Side side, const Clustering& now, double shift, bool stopped, Index rounds,
                          const std::string& distance) {
  if (!watched()) return;
  const auto number = static_cast<Index>(now.objective.size());
  const Index moved = changed(side, now);
  Stage stage;
  stage.chapter = fmt::format("k-means of the {}", plural(side));
  stage.title = fmt::format("{} k-means, iteration {} of at most {}", side == Side::Query ? "Query" : "Key", number,
                            std::max<Index>(1, rounds));
  if (rounds == 0) {
    stage.text = fmt::format("No iteration was asked for: every {} goes to its nearest seed, and the seeds stay.",
                             singular(side));
  } else if (number == 1) {
    stage.text = fmt::format(
        "Every {} goes to its nearest centroid. Then each centroid moves to the mean of its "
        "members, and it begins anew.",
        singular(side));
  } else if (moved == 0) {
    stage.text = "Nothing changes its cluster any more: the clusters are as good as this start can make them.";
  } else {
    stage.text = fmt::format(
        "The centroids have moved, so some {} are nearer to another one now and change over; the "
        "mean distance falls with every iteration.",
        plural(side));
  }
  if (stopped && rounds > 0) {
    stage.text += " No centroid moved by 0.0001 or more: it ends here.";
  } else if (number == std::max<Index>(1, rounds) && rounds > 0) {
    stage.text += " The iterations are used up; these labels are the ones that count.";
  }
  stage.formula = distance == "euclid"   ? "label(x) = argmin_c |x - m_c|^2,   m_c = mean of the members of c"
                  : distance == "cosine" ? "label(x) = argmax_c cos(x, m_c),   m_c = mean of the members of c"
                                         : "label(x) = argmax_c x . m_c,   m_c = mean of the members of c";
  stage.source = "k-means (Lloyd); batch_kmeans_Euclid in svg/kmeans_utils.py";
  if (moved >= 0) {
    stage.facts.push_back(StageFact::count("changed their cluster", moved));
    stage.facts.push_back(
        StageFact::fraction("of all", static_cast<double>(moved) / static_cast<double>(now.labels.size())));
  }
  stage.facts.push_back(
      StageFact::real(distance == "euclid" ? "mean squared distance" : "mean similarity", now.objective.back()));
  if (rounds > 0) stage.facts.push_back(StageFact::real("largest move of a centroid", shift));
  addSizes(stage, now);
  stage.series = StageSeries{distance == "euclid" ? "mean squared distance" : "mean similarity", now.objective};
  stage.tokens.push_back(picture(side, now));
  show(std::move(stage));
}

void ClusterStages::half(Side side, const CoClustering& now, Index rounds, std::shared_ptr<const Plan> plan) {
  if (!watched()) return;
  const Clustering& own = side == Side::Query ? now.q : now.k;
  const auto number = static_cast<Index>(own.objective.size());
  const Index moved = changed(side, own);
  Stage stage;
  stage.chapter = "co-clustering";
  stage.title = side == Side::Key
                    ? fmt::format("Round {} of {}: keys, seen through the query centroids", number, rounds)
                    : fmt::format("Round {} of {}: queries, seen through the key centroids", number, rounds);
  stage.text = side == Side::Key
                   ? "Two keys belong together when the query centroids look at them alike: each key becomes its "
                     "profile over the query centroids and goes to the nearest key centroid by the angle between "
                     "profiles."
                   : "Now the queries, by their profiles over the new key centroids. So both sides group by how they "
                     "attend to each other and not by where their vectors lie.";
  if (number == 1) stage.text += " Centroids then become the means of their members' own vectors.";
  stage.formula = side == Side::Key ? "u = k Cq^T / sqrt(|k Cq^T|^2 + 1e-8),   label(k) = argmax_c u_k . u_c"
                                    : "u = q Ck^T / sqrt(|q Ck^T|^2 + 1e-8),   label(q) = argmax_c u_q . u_c";
  stage.source = "co_cluster_tokens in svoo/co_clustering.py";
  if (moved >= 0) {
    stage.facts.push_back(StageFact::count("changed their cluster", moved));
    stage.facts.push_back(
        StageFact::fraction("of all", static_cast<double>(moved) / static_cast<double>(own.labels.size())));
  }
  stage.facts.push_back(StageFact::real("mean cosine of profiles", own.objective.back()));
  addSizes(stage, own);
  if (!plan) stage.facts.push_back(StageFact::words("kept mass", "no query clusters yet"));
  stage.series = StageSeries{fmt::format("mean cosine of profiles, {}", plural(side)), own.objective};
  stage.tokens.push_back(picture(side, own));
  stage.plan = std::move(plan);
  show(std::move(stage));
}

void ClusterStages::reused(const Clustering& q, const Clustering& k, int step) const {
  if (!watched()) return;
  Stage stage;
  stage.chapter = "reuse";
  stage.title = fmt::format("Clusters of step {} are used again", step);
  stage.text = fmt::format(
      "The schedule does not cluster at this step: labels and centroids are those of step {}, and "
      "only the floor may differ.",
      step);
  stage.source = "start_reuse_step, reuse_interval";
  stage.facts.push_back(StageFact::words("starts from", fmt::format("step {}", step)));
  stage.facts.push_back(StageFact::count("query clusters", q.clusters()));
  stage.facts.push_back(StageFact::count("key clusters", k.clusters()));
  stage.tokens.push_back(picture(Side::Query, q));
  stage.tokens.push_back(picture(Side::Key, k));
  show(std::move(stage));
}

void ClusterStages::scores(const Clustering& q, const Clustering& k, const std::vector<double>& probabilities,
                           bool weighted, const std::string& source) const {
  if (!watched()) return;
  Stage stage;
  stage.chapter = "estimate";
  stage.title = "What each query cluster is likely to need";
  stage.text =
      weighted ? "Each centroid stands for its whole cluster. A softmax over the key clusters, weighted by how many "
                 "keys each holds, estimates how a query cluster's attention is spread, at a tiny part of the cost."
               : "Each centroid stands for its whole cluster: a softmax over the key centroids estimates how a "
                 "query cluster's attention is spread, at a tiny part of the cost.";
  stage.formula = weighted ? "P_ij = n_j exp(s_ij) / sum_l n_l exp(s_il),   s_ij = cq_i . ck_j / sqrt(D)"
                           : "P_ij = exp(s_ij) / sum_l exp(s_il),   s_ij = cq_i . ck_j / sqrt(D)";
  stage.source = source;
  stage.facts.push_back(StageFact::count("query clusters", q.clusters()));
  stage.facts.push_back(StageFact::count("key clusters", k.clusters()));
  stage.facts.push_back(StageFact::count("cluster pairs", q.clusters() * k.clusters()));
  stage.facts.push_back(
      StageFact::real("token pairs per cluster pair", static_cast<double>(m_geometry.videoTokens) *
                                                          static_cast<double>(m_geometry.videoTokens) /
                                                          static_cast<double>(q.clusters() * k.clusters())));
  stage.blocks = blocks(q, k, probabilities);
  stage.tokens.push_back(picture(Side::Query, q));
  show(std::move(stage));
}

void ClusterStages::selection(const Clustering& q, const Clustering& k, const std::vector<double>& probabilities,
                              const TopPMap& map, double topP, Index floor, const std::string& text,
                              const std::string& source) const {
  if (!watched()) return;
  Stage stage;
  stage.chapter = "top-p";
  stage.title = fmt::format("Keep the most probable, up to {:g} %", topP * 100);
  stage.text = text;
  stage.formula = "keep the fewest key clusters whose P sums above p, the crossing one included";
  stage.source = source;
  const auto kept = static_cast<double>(std::count(map.map.begin(), map.map.end(), std::uint8_t{1}));
  stage.facts.push_back(StageFact::fraction("top-p", topP));
  stage.facts.push_back(StageFact::count("floor, key clusters", floor));
  stage.facts.push_back(StageFact::real("key clusters kept, mean", kept / static_cast<double>(q.clusters())));
  stage.facts.push_back(StageFact::fraction("query clusters where the floor decides", map.boundByFloor));
  stage.facts.push_back(StageFact::fraction("estimated kept mass", map.estimatedMass));
  stage.blocks = blocks(q, k, probabilities);
  stage.blocks->kept = map.map;
  stage.blocks->target = topP;
  stage.tokens.push_back(picture(Side::Query, q));
  stage.tokens.push_back(picture(Side::Key, k));
  show(std::move(stage));
}

void ClusterStages::permuted(const TopPMap& map) const {
  if (!watched()) return;
  Stage stage;
  stage.last = true;
  stage.chapter = "plan";
  stage.title = "Sorted by cluster: whole blocks are kept or skipped";
  stage.text =
      "Tokens of a cluster now lie side by side, so a kept pair of clusters is one solid block and attention on "
      "it is exact. The estimate knew only centroids; what is really kept is measured here.";
  stage.source = "permutation of q, k and v; outputs return to the model's order";
  stage.facts.push_back(StageFact::fraction("estimated kept mass", map.estimatedMass));
  show(std::move(stage));
}

}  // namespace sparsight
