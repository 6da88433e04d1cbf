// SPDX-License-Identifier: Apache-2.0
#include "clustering.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "sampling.h"

namespace sparsight {
namespace {

constexpr double kStopShift = 1e-4;  // tol of batch_kmeans_Euclid, absolute

[[nodiscard]] std::size_t at(Index i) noexcept { return static_cast<std::size_t>(i); }

[[nodiscard]] const std::vector<Index>* drawsFor(const MethodInput& input, Side side) {
  if (input.draws == nullptr) return nullptr;
  const auto& rows = side == Side::Query ? input.draws->initQ : input.draws->initK;
  if (rows.empty()) return nullptr;
  const auto head = static_cast<std::size_t>(input.head.id.head);
  if (rows.size() == input.selectedHeads) return &rows[input.headIndex];
  if (head < rows.size()) return &rows[head];
  throw Error(ErrorCode::InvalidArgument,
              fmt::format("draws: {} has {} rows for {} selected heads and no row for head {}",
                          side == Side::Query ? "init_q_idx" : "init_k_idx", rows.size(), input.selectedHeads, head));
}

[[nodiscard]] double meanOf(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

[[nodiscard]] double largestShift(const std::vector<float>& before, const std::vector<float>& after, Index dim) {
  double largest = 0;
  for (std::size_t row = 0; row < before.size(); row += at(dim)) {
    double square = 0;
    for (std::size_t i = row; i < row + at(dim); ++i) {
      const double moved = static_cast<double>(after[i]) - static_cast<double>(before[i]);
      square += moved * moved;
    }
    largest = std::max(largest, square);
  }
  return std::sqrt(largest);
}

// To the nearest bfloat16 number, ties to even, as torch casts.
void roundToBfloat(std::vector<float>& values) {
  for (float& value : values) {
    auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) continue;
    bits += 0x7fffU + ((bits >> 16U) & 1U);
    value = std::bit_cast<float>(bits & 0xffff0000U);
  }
}

// Clusters without members take, in ascending order, the points farthest from their centroids, each out of a cluster
// that keeps at least one (_relocate_empty_clusters of scikit-learn).
void relocateEmpty(const MatrixView& tokens, Index first, const ClusterResult& round, std::vector<float>& means) {
  std::vector<std::size_t> empty;
  for (std::size_t c = 0; c < round.sizes.size(); ++c) {
    if (round.sizes[c] == 0) empty.push_back(c);
  }
  if (empty.empty()) return;
  const auto dim = at(tokens.cols);
  std::vector<std::size_t> points(round.labels.size());
  std::iota(points.begin(), points.end(), std::size_t{0});
  std::stable_sort(points.begin(), points.end(),
                   [&](std::size_t a, std::size_t b) { return round.nearest[a] > round.nearest[b]; });
  std::vector<Index> sizes = round.sizes;
  std::vector<float> row(dim);
  auto point = points.begin();
  for (const std::size_t c : empty) {
    const auto donor = [&] { return static_cast<std::size_t>(round.labels[*point]); };
    while (point != points.end() && sizes[donor()] < 2) ++point;
    if (point == points.end()) return;
    rowToFloat(tokens, first + static_cast<Index>(*point), row);
    const auto before = static_cast<double>(sizes[donor()]);
    float* const from = means.data() + donor() * dim;
    for (std::size_t i = 0; i < dim; ++i) {
      from[i] =
          static_cast<float>((static_cast<double>(from[i]) * before - static_cast<double>(row[i])) / (before - 1));
    }
    std::copy(row.begin(), row.end(), means.begin() + static_cast<std::ptrdiff_t>(c * dim));
    --sizes[donor()];
    ++point;
  }
}

// Position -> model token: by cluster, inside a cluster by ascending token, then prompt, then padding.
[[nodiscard]] std::vector<Index> orderOf(const ClusterGeometry& geometry, const Clustering& side) {
  std::vector<Index> next(side.sizes.size() + 1, 0);
  std::partial_sum(side.sizes.begin(), side.sizes.end(), next.begin() + 1);
  std::vector<Index> order(at(geometry.tokens));
  for (Index i = 0; i < geometry.videoTokens; ++i) {
    order[at(next[at(side.labels[at(i)])]++)] = geometry.videoStart + i;
  }
  std::copy(geometry.prompt.begin(), geometry.prompt.end(), order.begin() + geometry.videoTokens);
  std::copy(geometry.padding.begin(), geometry.padding.end(),
            order.begin() + geometry.videoTokens + static_cast<Index>(geometry.prompt.size()));
  if (std::is_sorted(order.begin(), order.end())) order.clear();
  return order;
}

void addBlocks(const ClusterGeometry& geometry, const Clustering& side, std::vector<Index>& bounds,
               std::vector<std::int32_t>& labels, std::vector<Index>& sizes) {
  sizes = side.sizes;
  labels.assign(at(geometry.tokens), 0);
  std::copy(side.labels.begin(), side.labels.end(), labels.begin() + geometry.videoStart);
  if (geometry.hasText()) {
    const auto number = static_cast<std::int32_t>(side.clusters());
    for (const Index token : geometry.prompt) labels[at(token)] = number;
    for (const Index token : geometry.padding) labels[at(token)] = number + 1;
    sizes.push_back(static_cast<Index>(geometry.prompt.size()));
    sizes.push_back(static_cast<Index>(geometry.padding.size()));
  }
  bounds.assign(1, 0);
  for (const Index size : sizes) bounds.push_back(bounds.back() + size);
}

void describeClusters(const char* name, const Clustering& side, Plan& plan) {
  const auto fact = [&](const std::string& what) -> double& { return plan.facts[fmt::format("{}_{}", name, what)]; };
  const double mean = static_cast<double>(side.labels.size()) / static_cast<double>(side.sizes.size());
  fact("clusters") = static_cast<double>(side.sizes.size());
  fact("empty_clusters") = static_cast<double>(std::count(side.sizes.begin(), side.sizes.end(), Index{0}));
  fact("largest_cluster") = static_cast<double>(*std::max_element(side.sizes.begin(), side.sizes.end()));
  fact("imbalance") = fact("largest_cluster") / mean;
  fact("iterations") = static_cast<double>(side.objective.size());
  for (std::size_t n = 0; n < side.objective.size(); ++n) {
    fact(fmt::format("objective_{:02}", n + 1)) = side.objective[n];
  }
}

}  // namespace

ClusterGeometry clusterGeometry(const MethodInput& input, std::string_view method) {
  const HeadData& head = input.head;
  const auto unsupported = [&](const std::string& reason) {
    return Error(ErrorCode::Unsupported, fmt::format("{}: {}", method, reason));
  };
  const std::string& kind = head.id.call.kind;
  if (kind != "self" && kind != "joint") {
    throw unsupported(fmt::format("{}-attention stays dense; only self-attention is clustered", kind));
  }
  const Segment* video = head.layout.video();
  if (video == nullptr || video->length < 1) {
    throw unsupported("the call has no video segment with a token grid (tokens/grid)");
  }
  ClusterGeometry geometry;
  geometry.tokens = head.layout.tokenCount;
  geometry.videoStart = video->start;
  geometry.videoTokens = video->length;
  if (!head.qRows.empty() || head.input.q.rows != geometry.tokens) {
    throw unsupported(fmt::format("only {} of {} query rows were captured; clusters need every query",
                                  head.input.q.rows, geometry.tokens));
  }
  if (head.input.k.rows != geometry.tokens) {
    throw unsupported(
        fmt::format("{} keys for {} tokens; clusters need every key", head.input.k.rows, geometry.tokens));
  }
  for (Index token = 0; token < geometry.tokens; ++token) {
    if (token >= video->start && token < video->start + video->length) continue;
    const bool valid = head.input.keyValid.empty() || head.input.keyValid[at(token)] != 0;
    (valid ? geometry.prompt : geometry.padding).push_back(token);
  }
  return geometry;
}

Index clampedClusters(Index asked, Index videoTokens) noexcept {
  return std::min(asked, std::max<Index>(1, videoTokens / 8));
}

std::vector<float> seedCentroids(const MethodInput& input, const ClusterGeometry& geometry, Side side, Index asked,
                                 bool plusPlus, Backend& backend, const Control& control, std::vector<Index>* tokens) {
  const MatrixView& matrix = side == Side::Query ? input.head.input.q : input.head.input.k;
  const Index dim = matrix.cols;
  std::vector<float> centroids;
  const auto add = [&](Index token) {
    centroids.resize(centroids.size() + at(dim));
    rowToFloat(matrix, geometry.videoStart + token, std::span(centroids).last(at(dim)));
    if (tokens != nullptr) tokens->push_back(geometry.videoStart + token);
  };
  if (const std::vector<Index>* given = drawsFor(input, side)) {
    if (given->empty()) throw Error(ErrorCode::InvalidArgument, "draws: a row of initial centroids is empty");
    for (const Index token : *given) {
      if (token < 0 || token >= geometry.videoTokens) {
        throw Error(
            ErrorCode::InvalidArgument,
            fmt::format("draws: initial centroid {} is outside the {} clustered tokens", token, geometry.videoTokens));
      }
      add(token);
    }
    return centroids;
  }
  const Index clusters = clampedClusters(asked, geometry.videoTokens);
  SeededRandom mixed(callSeed(input.seed, input.head.id.call));
  const std::uint64_t base = mixed.next();
  SeededRandom random(base + 2 * static_cast<std::uint64_t>(input.head.id.head) + (side == Side::Key ? 1U : 0U));
  if (!plusPlus) {
    for (Index c = 0; c < clusters; ++c) add(random.below(geometry.videoTokens));
    return centroids;
  }
  add(random.below(geometry.videoTokens));
  std::vector<float> squares(at(geometry.videoTokens), std::numeric_limits<float>::infinity());
  for (Index c = 1; c < clusters; ++c) {
    const ClusterResult toLast = backend.cluster(input.prepared,
                                                 {side,
                                                  geometry.videoStart,
                                                  geometry.videoTokens,
                                                  std::span<const float>(centroids).last(at(dim)),
                                                  Distance::Euclid,
                                                  {}},
                                                 Control{control.stop, {}});
    double total = 0;
    for (std::size_t i = 0; i < squares.size(); ++i) {
      squares[i] = std::min(squares[i], toLast.nearest[i]);
      total += static_cast<double>(squares[i]);
    }
    const double wanted = static_cast<double>(random.next() >> 11U) * 0x1p-53 * total;
    double reached = 0;
    std::size_t token = 0;
    for (; token + 1 < squares.size(); ++token) {
      reached += static_cast<double>(squares[token]);
      if (reached > wanted) break;
    }
    add(static_cast<Index>(token));
  }
  return centroids;
}

namespace {

// Lloyd's iteration between two rounds of the backend.
class Lloyd {
 public:
  explicit Lloyd(KMeansTask task) : m_task(std::move(task)), m_rounds(std::max<Index>(1, m_task.options.iterations)) {
    m_result.centroids = std::move(m_task.centroids);
  }
  [[nodiscard]] bool ended() const noexcept { return m_ended || m_round >= m_rounds; }
  [[nodiscard]] double progress() const noexcept {
    return ended() ? 1.0 : static_cast<double>(m_round) / static_cast<double>(m_rounds);
  }
  /// The next round to run; points into this.
  [[nodiscard]] ClusterTask next() {
    if (m_task.options.bfloatCentroids) roundToBfloat(m_result.centroids);
    const ClusterGeometry& geometry = *m_task.geometry;
    return {m_task.head,
            {m_task.side, geometry.videoStart, geometry.videoTokens, m_result.centroids, m_task.options.distance, {}}};
  }
  void take(ClusterResult round) {
    const KMeansOptions& options = m_task.options;
    const AttentionIn& in = m_task.head->input();
    const ClusterGeometry& geometry = *m_task.geometry;
    if (options.empty == EmptyPolicy::Relocate) {
      relocateEmpty(m_task.side == Side::Query ? in.q : in.k, geometry.videoStart, round, round.means);
    }
    if (options.bfloatCentroids) roundToBfloat(round.means);
    m_result.labels = std::move(round.labels);
    m_result.sizes = std::move(round.sizes);
    m_result.objective.push_back(meanOf(round.nearest));
    m_result.flops += 2.0 * static_cast<double>(geometry.videoTokens) * static_cast<double>(m_result.centroids.size());
    ++m_round;
    if (options.iterations == 0) {
      if (options.onRound) options.onRound(m_result, 0, true);
      return;
    }
    const double shift = largestShift(m_result.centroids, round.means, in.q.cols);
    m_ended = shift < kStopShift;
    if (options.onRound) options.onRound(m_result, shift, m_ended);
    if (!m_ended || options.returnMovedOnStop) m_result.centroids = std::move(round.means);
  }
  [[nodiscard]] Clustering result() && { return std::move(m_result); }

 private:
  KMeansTask m_task;
  Index m_rounds;
  Index m_round = 0;
  bool m_ended = false;
  Clustering m_result;
};

// One half of a round of co-clustering: the tokens of `side` by their profiles over the other side's centroids.
[[nodiscard]] ClusterTask halfOf(const PreparedHead& head, const ClusterGeometry& geometry, const CoClustering& now,
                                 Side side) {
  const Clustering& own = side == Side::Query ? now.q : now.k;
  const Clustering& other = side == Side::Query ? now.k : now.q;
  return {&head, {side, geometry.videoStart, geometry.videoTokens, own.centroids, Distance::Cosine, other.centroids}};
}

void takeHalf(CoClustering& now, Side side, const ClusterGeometry& geometry, Index dim, ClusterResult round) {
  Clustering& own = side == Side::Query ? now.q : now.k;
  const Clustering& other = side == Side::Query ? now.k : now.q;
  own.labels = std::move(round.labels);
  own.sizes = std::move(round.sizes);
  own.objective.push_back(meanOf(round.nearest));
  own.centroids = std::move(round.means);
  // Profiles once, then compared: what the arithmetic needs. The reference's kernel recomputes profiles per tile.
  const double profile = static_cast<double>(other.centroids.size()) / static_cast<double>(dim);
  own.flops += 2.0 * static_cast<double>(geometry.videoTokens) *
               (static_cast<double>(dim) * profile + profile * static_cast<double>(own.clusters()));
}

}  // namespace

Clustering kMeans(const PreparedHead& head, const ClusterGeometry& geometry, Side side, std::vector<float> centroids,
                  const KMeansOptions& options, Backend& backend, const Control& control) {
  Lloyd lloyd({&head, &geometry, side, std::move(centroids), options});
  while (!lloyd.ended()) {
    const ClusterTask round = lloyd.next();
    lloyd.take(backend.cluster(*round.head, round.request, Control{control.stop, {}}));
    control.report(lloyd.progress());
  }
  return std::move(lloyd).result();
}

std::vector<Clustering> kMeansAll(std::vector<KMeansTask> tasks, Backend& backend, const Control& control) {
  std::vector<Lloyd> all;
  all.reserve(tasks.size());
  for (KMeansTask& task : tasks) all.emplace_back(std::move(task));
  while (true) {
    std::vector<Lloyd*> open;
    std::vector<ClusterTask> rounds;
    double progress = 0;
    for (Lloyd& lloyd : all) {
      progress += lloyd.progress();
      if (lloyd.ended()) continue;
      open.push_back(&lloyd);
      rounds.push_back(lloyd.next());
    }
    if (open.empty()) break;
    control.report(progress / static_cast<double>(all.size()));
    std::vector<ClusterResult> results = backend.clusterAll(rounds, Control{control.stop, {}});
    for (std::size_t i = 0; i < open.size(); ++i) open[i]->take(std::move(results[i]));
  }
  std::vector<Clustering> results;
  results.reserve(all.size());
  for (Lloyd& lloyd : all) results.push_back(std::move(lloyd).result());
  return results;
}

CoClustering coCluster(const PreparedHead& head, const ClusterGeometry& geometry, std::vector<float> qCentroids,
                       std::vector<float> kCentroids, Index rounds, Backend& backend, const Control& control,
                       const std::function<void(const CoClustering&, Side)>& onHalf) {
  CoClustering result;
  result.q.centroids = std::move(qCentroids);
  result.k.centroids = std::move(kCentroids);
  for (Index n = 0; n < rounds; ++n) {
    for (const Side side : {Side::Key, Side::Query}) {
      const ClusterTask half = halfOf(head, geometry, result, side);
      takeHalf(result, side, geometry, head.input().q.cols,
               backend.cluster(*half.head, half.request, Control{control.stop, {}}));
      if (onHalf) onHalf(result, side);
    }
    control.report(static_cast<double>(n + 1) / static_cast<double>(rounds));
  }
  return result;
}

std::vector<CoClustering> coClusterAll(std::vector<CoClusterTask> tasks, Backend& backend, const Control& control) {
  std::vector<CoClustering> all(tasks.size());
  Index rounds = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    all[i].q.centroids = std::move(tasks[i].qCentroids);
    all[i].k.centroids = std::move(tasks[i].kCentroids);
    rounds = std::max(rounds, tasks[i].rounds);
  }
  for (Index n = 0; n < rounds; ++n) {
    for (const Side side : {Side::Key, Side::Query}) {
      std::vector<std::size_t> open;
      std::vector<ClusterTask> halves;
      for (std::size_t i = 0; i < tasks.size(); ++i) {
        if (n >= tasks[i].rounds) continue;
        open.push_back(i);
        halves.push_back(halfOf(*tasks[i].head, *tasks[i].geometry, all[i], side));
      }
      std::vector<ClusterResult> results = backend.clusterAll(halves, Control{control.stop, {}});
      for (std::size_t h = 0; h < open.size(); ++h) {
        const CoClusterTask& task = tasks[open[h]];
        takeHalf(all[open[h]], side, *task.geometry, task.head->input().q.cols, std::move(results[h]));
      }
    }
    control.report(static_cast<double>(n + 1) / static_cast<double>(rounds));
  }
  return all;
}

ClusterScores clusterScores(const Clustering& q, const Clustering& k, double scale, bool weighted, Index dim,
                            double topP, Backend& backend, const Control& control) {
  ClusterScoresRequest request{dim, q.centroids, k.centroids, {}, scale, topP};
  if (weighted) request.weights = k.sizes;
  return backend.scoreClusters(request, {control.stop, {}});
}

TopPMap topPMap(const ClusterScores& scores, const Clustering& q, Index keyClusters,
                const std::function<Index(Index)>& keepCount) {
  TopPMap result;
  result.map.assign(scores.probabilities.size(), 0);
  double tokens = 0;
  for (Index i = 0; i < q.clusters(); ++i) {
    const auto row = std::span(scores.probabilities).subspan(at(i * keyClusters), at(keyClusters));
    const auto order = std::span(scores.order).subspan(at(i * keyClusters), at(keyClusters));
    const Index crossing = scores.crossing[at(i)];
    const Index kept = std::clamp<Index>(keepCount(crossing), 1, keyClusters);
    double mass = 0;
    for (Index n = 0; n < kept; ++n) {
      result.map[at(i * keyClusters + order[at(n)])] = 1;
      mass += row[at(order[at(n)])];
    }
    if (kept != crossing) result.boundByFloor += 1.0;
    const auto size = static_cast<double>(q.sizes[at(i)]);
    result.estimatedMass += size * mass;
    tokens += size;
  }
  result.boundByFloor /= static_cast<double>(q.clusters());
  result.estimatedMass /= tokens;
  return result;
}

Plan clusteredPlan(std::string_view method, const ClusterGeometry& geometry, const Clustering& q, const Clustering& k,
                   const std::vector<double>& probabilities, const TopPMap& map) {
  Plan plan;
  plan.methodId = method;
  plan.queryCount = plan.keyCount = geometry.tokens;
  plan.qOrder = orderOf(geometry, q);
  plan.kOrder = orderOf(geometry, k);
  addBlocks(geometry, q, plan.qBounds, plan.qLabels, plan.qSizes);
  addBlocks(geometry, k, plan.kBounds, plan.kLabels, plan.kSizes);
  plan.qCentroids = q.centroids;
  plan.kCentroids = k.centroids;
  const Index queries = q.clusters();
  const Index keys = k.clusters();
  const Index columns = plan.kBlocks();
  plan.map.assign(at(plan.qBlocks() * columns), 0);
  plan.scores.assign(plan.map.size(), std::numeric_limits<float>::quiet_NaN());
  for (Index i = 0; i < queries; ++i) {
    for (Index j = 0; j < keys; ++j) {
      plan.map[at(i * columns + j)] = map.map[at(i * keys + j)];
      plan.scores[at(i * columns + j)] = static_cast<float>(probabilities[at(i * keys + j)]);
    }
    if (geometry.hasText()) plan.map[at(i * columns + keys)] = 1;
  }
  if (geometry.hasText()) {
    for (Index j = 0; j <= keys; ++j) plan.map[at(queries * columns + j)] = 1;
    plan.map[at((queries + 1) * columns + keys + 1)] = 1;
  }
  plan.blockMask = plan.map;  // 1 is BlockState::Whole
  plan.facts["estimated_mass"] = map.estimatedMass;
  plan.facts["rows_bound_by_floor"] = map.boundByFloor;
  describeClusters("q", q, plan);
  describeClusters("k", k, plan);
  return plan;
}

std::map<std::string, std::string, std::less<>> ClusterMethod::adjusted(const TokenLayout& layout,
                                                                        const ParamSet& params,
                                                                        const Draws* draws) const {
  std::map<std::string, std::string, std::less<>> values;
  const Segment* video = layout.video();
  const auto adjust = [&](const char* name, const std::vector<std::vector<Index>>* drawn) {
    Index clusters = params.integer(name);
    if (video != nullptr) clusters = clampedClusters(clusters, video->length);
    if (drawn != nullptr && !drawn->empty()) clusters = static_cast<Index>(drawn->front().size());
    values[name] = std::to_string(clusters);
  };
  adjust("num_q_centroids", draws != nullptr ? &draws->initQ : nullptr);
  adjust("num_k_centroids", draws != nullptr ? &draws->initK : nullptr);
  return values;
}

ParamSpec ClusterMethod::queryClusters(std::string defaultValue, std::string_view scripts) {
  return ParamSpec::integer("num_q_centroids", std::move(defaultValue), 1, 65536, "clusters",
                            "Query clusters. At most an eighth of the video tokens.",
                            fmt::format("--num_q_centroids in {}", scripts))
      .withAliases({"qc"});
}

ParamSpec ClusterMethod::keyClusters(std::string defaultValue) {
  return ParamSpec::integer("num_k_centroids", std::move(defaultValue), 1, 65536, "clusters",
                            "Key clusters. At most an eighth of the video tokens.", "--num_k_centroids")
      .withAliases({"kc"});
}

ClusterMethod::Seeds ClusterMethod::seedBoth(const MethodInput& input, const ClusterGeometry& geometry, bool plusPlus,
                                             Backend& backend, const Control& control) {
  Seeds seeds;
  const auto seed = [&](std::string_view name, Side side, std::vector<Index>& tokens) {
    const Index asked = input.params.integer(name);
    std::vector<float> centroids = seedCentroids(input, geometry, side, asked, plusPlus, backend, control, &tokens);
    const Index used = static_cast<Index>(centroids.size()) / input.head.input.q.cols;
    if (used < asked && used == clampedClusters(asked, geometry.videoTokens)) {
      seeds.warnings.push_back(fmt::format("{} {} clamped to {}, an eighth of the {} video tokens", name, asked, used,
                                           geometry.videoTokens));
    }
    return centroids;
  };
  seeds.q = seed("num_q_centroids", Side::Query, seeds.qTokens);
  seeds.k = seed("num_k_centroids", Side::Key, seeds.kTokens);
  return seeds;
}

}  // namespace sparsight
