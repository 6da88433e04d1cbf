// SPDX-License-Identifier: Apache-2.0
#include "clustering.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "method_test_support.h"

namespace sparsight {
namespace {
using namespace test;

/// The keys of a head cut to bfloat16.
void toBfloat(HeadData& head) {
  const MatrixView& k = head.input.k;
  auto bits = std::make_shared<std::vector<std::uint16_t>>();
  std::vector<float> row(at(k.cols));
  for (Index n = 0; n < k.rows; ++n) {
    rowToFloat(k, n, row);
    for (const float x : row) bits->push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16U));
  }
  head.input.k.data = reinterpret_cast<const std::byte*>(bits->data());
  head.input.k.rowStrideBytes = k.cols * 2;
  head.input.k.dtype = DType::BF16;
  head.keepAlive =
      std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(head.keepAlive, bits);
}

struct Fixture {
  explicit Fixture(DType dtype = DType::F32) {
    HeadSpec spec;
    spec.layout = layoutOf(4, 8, 16, 0, false);
    head = makeHead(spec);
    if (dtype == DType::BF16) toBfloat(head);
    geometry.tokens = head.layout.tokenCount;
    geometry.videoTokens = head.layout.tokenCount;
    prepared = backend->prepare(head.input, head.keepAlive, {});
  }
  [[nodiscard]] std::vector<float> seeds(const std::vector<Index>& tokens) const {
    std::vector<float> out;
    for (const Index token : tokens) {
      out.resize(out.size() + at(head.input.k.cols));
      rowToFloat(head.input.k, token, std::span(out).last(at(head.input.k.cols)));
    }
    return out;
  }
  [[nodiscard]] Clustering run(const std::vector<Index>& tokens, const KMeansOptions& options) const {
    return kMeans(*prepared, geometry, Side::Key, seeds(tokens), options, *backend, {});
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
  HeadData head;
  ClusterGeometry geometry;
  std::shared_ptr<const PreparedHead> prepared;
};

TEST(Clustering, EmptyClustersAreKeptOrRelocated) {
  const Fixture f;
  // Three seeds at the same token: ties go to the first, so two stay without members.
  const std::vector<Index> tokens{5, 5, 5, 300};
  KMeansOptions options;
  options.iterations = 1;
  const Clustering kept = f.run(tokens, options);
  EXPECT_EQ(std::count(kept.sizes.begin(), kept.sizes.end(), Index{0}), 2);
  EXPECT_TRUE(std::equal(kept.centroids.begin() + f.head.input.k.cols, kept.centroids.begin() + 2 * f.head.input.k.cols,
                         f.seeds({5}).begin()))
      << "an empty cluster keeps its centroid";

  options.iterations = 2;
  const Clustering later = f.run(tokens, options);
  options.empty = EmptyPolicy::Relocate;
  const Clustering moved = f.run(tokens, options);
  EXPECT_EQ(std::count(moved.sizes.begin(), moved.sizes.end(), Index{0}), 0);
  EXPECT_LT(moved.objective.back(), later.objective.back());
  EXPECT_EQ(moved.objective.front(), later.objective.front()) << "the first round knows no difference";
}

TEST(Clustering, RelocationMovesTheFarthestPointAndItsCluster) {
  const Fixture f;
  KMeansOptions options;
  options.iterations = 1;
  options.empty = EmptyPolicy::Relocate;
  const std::vector<Index> tokens{9, 9};
  const Clustering result = f.run(tokens, options);
  const auto dim = at(f.head.input.k.cols);
  // The oracle: farthest token from token 9, and the mean of all others.
  std::vector<double> sum(dim, 0.0);
  std::vector<float> row(dim);
  const std::vector<float> seed = f.seeds({9});
  double farthest = -1;
  std::vector<float> far;
  for (Index t = 0; t < f.geometry.tokens; ++t) {
    rowToFloat(f.head.input.k, t, row);
    double square = 0;
    for (std::size_t i = 0; i < dim; ++i) {
      square += std::pow(static_cast<double>(row[i]) - static_cast<double>(seed[i]), 2);
      sum[i] += static_cast<double>(row[i]);
    }
    if (square > farthest) {
      farthest = square;
      far = row;
    }
  }
  for (std::size_t i = 0; i < dim; ++i) {
    EXPECT_EQ(result.centroids[dim + i], far[i]);
    const double others = (sum[i] - static_cast<double>(far[i])) / static_cast<double>(f.geometry.tokens - 1);
    EXPECT_NEAR(static_cast<double>(result.centroids[i]), others, 1e-5);
  }
}

TEST(Clustering, BfloatCentroidsAreOfThatTypeAndNearlyAsGood) {
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const Fixture f(dtype);
    std::vector<Index> tokens;
    for (Index i = 0; i < 24; ++i) tokens.push_back(i * 21);
    KMeansOptions options;
    options.iterations = 6;
    const Clustering exact = f.run(tokens, options);
    options.bfloatCentroids = true;
    const Clustering rounded = f.run(tokens, options);
    for (const float value : rounded.centroids) EXPECT_EQ(std::bit_cast<std::uint32_t>(value) & 0xffffU, 0U);
    EXPECT_NE(rounded.centroids, exact.centroids);
    EXPECT_NEAR(rounded.objective.back() / exact.objective.back(), 1.0, 0.02);

    // Whatever arithmetic the CPU chose for them, it is the oracle's within rounding.
    const auto oracle = createReferenceBackend();
    const ClusterRequest request{Side::Key, 0, f.geometry.tokens, rounded.centroids, Distance::Euclid, {}};
    const ClusterResult want = oracle->cluster(*oracle->prepare(f.head.input, f.head.keepAlive, {}), request, {});
    const ClusterResult got = f.backend->cluster(*f.prepared, request, {});
    for (std::size_t i = 0; i < want.nearest.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(got.nearest[i]), static_cast<double>(want.nearest[i]),
                  1e-4 * (1 + static_cast<double>(want.nearest[i])));
    }
  }
}

}  // namespace
}  // namespace sparsight
