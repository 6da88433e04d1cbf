// SPDX-License-Identifier: Apache-2.0
#include "tests/support/backend_ops_cases.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace sparsight::testing {
namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// splitmix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : m_state(seed * 0x9e3779b97f4a7c15U + 1) {}
  std::uint64_t bits() {
    m_state += 0x9e3779b97f4a7c15U;
    std::uint64_t z = m_state;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  Index below(Index n) { return static_cast<Index>(bits() % static_cast<std::uint64_t>(n)); }
  double uniform() { return static_cast<double>(bits() >> 11U) * 0x1p-53; }
  /// Sum of twelve uniforms: near enough to a normal deviate, and without a library's freedom.
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  std::uint64_t m_state;
};

std::uint16_t toHalf(double x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000U : 0U;
  const double magnitude = std::min(std::abs(x), 65504.0);
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // 1024..2048, fewer when subnormal
  // A carry to 2048 runs into the exponent, which is what rounding up to the next power of two means.
  return static_cast<std::uint16_t>(sign |
                                    (static_cast<unsigned>((exponent + 14) << 10) + static_cast<unsigned>(steps)));
}

std::uint16_t toBfloat(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// Stores a matrix in the case's type, rows `gap` bytes farther apart than needed.
MatrixView store(const std::vector<double>& values, Index rows, Index cols, DType dtype, Index gap,
                 std::vector<std::byte>& out) {
  const auto item = static_cast<Index>(itemSize(dtype));
  const Index stride = cols * item + gap;
  out.assign(at(std::max<Index>(1, rows * stride)), std::byte{0x7f});  // gaps hold NaN patterns
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) {
      const double value = values[at(r * cols + c)];
      std::byte* const target = out.data() + r * stride + c * item;
      if (dtype == DType::F32) {
        const auto narrow = static_cast<float>(value);
        std::memcpy(target, &narrow, sizeof narrow);
      } else {
        const std::uint16_t narrow = dtype == DType::F16 ? toHalf(value) : toBfloat(static_cast<float>(value));
        std::memcpy(target, &narrow, sizeof narrow);
      }
    }
  }
  return {out.data(), rows, cols, stride, dtype};
}

std::vector<double> normals(Random& random, Index count, double sigma) {
  std::vector<double> values(at(count));
  for (double& value : values) value = sigma * random.normal();
  return values;
}

void copyRow(std::vector<double>& values, Index cols, Index from, Index to) {
  std::copy_n(values.begin() + from * cols, cols, values.begin() + to * cols);
}

/// What a float32 backend may differ by.
struct Tolerance {
  double logit;  ///< bound on the rounding of a float32 dot product of this case
  [[nodiscard]] double lse(double value) const { return std::max(1e-5, logit) + std::abs(value) * 1.2e-7; }
  [[nodiscard]] double probability() const { return std::max(1e-4, std::expm1(2 * logit)); }
};

Tolerance toleranceOf(const AttentionIn& in) {
  const Index d = in.q.cols;
  std::vector<float> q(at(d));
  std::vector<float> k(at(d));
  double largest = 0;
  for (Index r = 0; r < in.q.rows; ++r) {
    rowToFloat(in.q, r, q);
    for (Index n = 0; n < in.k.rows; ++n) {
      rowToFloat(in.k, n, k);
      double sum = 0;
      for (std::size_t i = 0; i < q.size(); ++i) sum += std::abs(static_cast<double>(q[i]) * static_cast<double>(k[i]));
      largest = std::max(largest, sum);
    }
  }
  return {0x1p-24 * (2 * std::sqrt(static_cast<double>(d)) + 4) * largest * std::abs(in.scale)};
}

/// Both NaN, both the same infinity, or within the tolerance.
::testing::AssertionResult near(float got, float want, double absolute, double relative) {
  if (std::isnan(want) || std::isnan(got)) {
    if (std::isnan(want) && std::isnan(got)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "got " << got << ", want " << want;
  }
  if (got == want) return ::testing::AssertionSuccess();
  const double difference = std::abs(static_cast<double>(got) - static_cast<double>(want));
  const double allowed = absolute + relative * std::abs(static_cast<double>(want));
  if (difference <= allowed) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "got " << got << ", want " << want << ": off by " << difference
                                       << ", allowed " << allowed;
}

constexpr double kTinyProbability = 1e-35;  // below it float32 has no relative precision left

/// Compares arrays and stops at the first few differences.
template <class Compare>
void compareAll(const char* what, std::size_t got, std::size_t want, const Compare& compare) {
  ASSERT_EQ(got, want) << what;
  int failures = 0;
  for (std::size_t i = 0; i < want && failures < 3; ++i) {
    const ::testing::AssertionResult result = compare(i);
    if (result) continue;
    ADD_FAILURE() << what << "[" << i << "]: " << result.message();
    ++failures;
  }
}

void compareFloats(const char* what, const std::vector<float>& got, const std::vector<float>& want, double absolute,
                   double relative) {
  compareAll(what, got.size(), want.size(), [&](std::size_t i) { return near(got[i], want[i], absolute, relative); });
}
void compareLse(const std::vector<float>& got, const std::vector<float>& want, const Tolerance& tolerance) {
  compareAll("lse", got.size(), want.size(), [&](std::size_t i) {
    return near(got[i], want[i], std::isfinite(want[i]) ? tolerance.lse(static_cast<double>(want[i])) : 0.0, 0);
  });
}

/// A head on the tested backend and on the oracle.
struct Pair {
  Pair(Backend& tested, const OpCase& opCase)
      : head(makeOpHead(opCase)),
        oracle(createReferenceBackend()),
        backend(tested),
        got(tested.prepare(head->in, head, {})),
        want(oracle->prepare(head->in, head, {})),
        tolerance(toleranceOf(head->in)) {}
  std::shared_ptr<const OpHead> head;
  std::unique_ptr<Backend> oracle;
  Backend& backend;
  std::shared_ptr<const PreparedHead> got, want;
  Tolerance tolerance;

  [[nodiscard]] double largestValue() const {
    double largest = 0;
    std::vector<float> row(at(head->in.v.data == nullptr ? 0 : head->in.v.cols));
    for (Index r = 0; head->in.v.data != nullptr && r < head->in.v.rows; ++r) {
      rowToFloat(head->in.v, r, row);
      for (const float x : row) largest = std::max(largest, std::abs(static_cast<double>(x)));
    }
    return largest;
  }
};

/// Some rows: all, or every third with repetitions and out of order.
std::vector<std::vector<Index>> rowLists(Index rows) {
  std::vector<Index> all(at(rows));
  std::iota(all.begin(), all.end(), Index{0});
  std::vector<Index> some;
  for (Index r = rows - 1; r >= 0; r -= 3) some.push_back(r);
  some.push_back(rows / 2);
  some.push_back(rows / 2);
  some.push_back(0);
  return {all, some};
}

void compareAttend(const Pair& pair, const AttendResult& got, const AttendResult& want) {
  compareLse(got.lse, want.lse, pair.tolerance);
  EXPECT_EQ(got.count, want.count);
  compareFloats("out", got.out, want.out, 2 * pair.tolerance.probability() * pair.largestValue(), 0);
  compareFloats("threshold", got.threshold, want.threshold, kTinyProbability, pair.tolerance.probability());
}

/// Interval sets that differ in kind from group to group.
RowKeep makeKeep(Index groups, Index keys, std::uint64_t seed, std::vector<Index>& ptr, std::vector<Interval>& list) {
  Random random(seed);
  ptr.assign(1, 0);
  list.clear();
  for (Index g = 0; g < groups; ++g) {
    switch (g % 5) {
      case 0:  // a band
        list.push_back({std::min(keys - 1, g * keys / groups), std::min(keys, g * keys / groups + keys / 3 + 1)});
        break;
      case 1:
        break;  // nothing kept
      case 2:   // many short ones
        for (Index k = g % 3; k < keys; k += 4) list.push_back({k, std::min(keys, k + 1 + random.below(3))});
        break;
      case 3:
        list.push_back({0, keys});
        break;
      default: {  // two of random length
        const Index a = random.below(keys);
        const Index b = a + 1 + random.below(keys - a);
        list.push_back({a, b});
        if (b + 1 < keys) list.push_back({b + 1, b + 2 + random.below(keys - b - 1)});
      }
    }
    ptr.push_back(static_cast<Index>(list.size()));
  }
  return {ptr, list, {}};
}

}  // namespace

std::vector<Index> makeBlocks(Blocks blocks, Index size) {
  std::vector<Index> bounds{0};
  Random random(7);
  switch (blocks) {
    case Blocks::Even:
      for (Index i = 1; i <= 8; ++i) bounds.push_back(i * size / 8);
      break;
    case Blocks::Ragged:
      while (bounds.back() < size) bounds.push_back(std::min(size, bounds.back() + 1 + random.below(23)));
      break;
    case Blocks::WithEmpty:
      bounds.insert(bounds.end(), {0, 0});
      while (bounds.back() < size) {
        bounds.push_back(std::min(size, bounds.back() + 1 + random.below(40)));
        for (Index n = random.below(3); n > 0; --n) bounds.push_back(bounds.back());
      }
      bounds.push_back(size);
      break;
    case Blocks::One:
      bounds.push_back(size);
      break;
    case Blocks::Tokens:
      for (Index i = 1; i <= size; ++i) bounds.push_back(i);
      break;
  }
  return bounds;
}

std::shared_ptr<const OpHead> makeOpHead(const OpCase& c, std::uint64_t seed) {
  Random random(seed);
  auto head = std::make_shared<OpHead>();
  double sigma = 1.0;
  if (c.scores == Scores::Peaked) sigma = std::sqrt(6.0);
  if (c.scores == Scores::Extreme) sigma = std::sqrt(2500.0);
  std::vector<double> q = normals(random, c.queries * c.dim, sigma);
  std::vector<double> k = normals(random, c.keys * c.dim, sigma);
  const std::vector<double> v = normals(random, c.keys * c.valueDim, 1.0);
  const double scale = c.scaleFactor / std::sqrt(static_cast<double>(c.dim));
  switch (c.scores) {
    case Scores::AllEqual:
      for (Index n = 1; n < c.keys; ++n) copyRow(k, c.dim, 0, n);
      break;
    case Scores::OneHuge:
      // Every query has 8 in its first dimension and the chosen key enough there to stand 1e4 above.
      for (Index r = 0; r < c.queries; ++r) q[at(r * c.dim)] = 8;
      k[at(c.keys / 2 * c.dim)] = 1e4 / (8 * std::abs(scale));
      break;
    case Scores::Duplicated:
      for (Index n = 0; n < c.keys; ++n) copyRow(k, c.dim, n % std::max<Index>(1, (c.keys + 2) / 3), n);
      for (Index r = 0; r < c.queries; ++r) copyRow(q, c.dim, r / 2, r);
      break;
    case Scores::Zero:
      std::fill(q.begin(), q.end(), 0.0);
      break;
    default:
      break;
  }
  const Index gap = c.strided ? 3 * static_cast<Index>(itemSize(c.dtype)) : 0;
  head->in.q = store(q, c.queries, c.dim, c.dtype, gap, head->q);
  head->in.k = store(k, c.keys, c.dim, c.dtype, gap, head->k);
  if (c.valueDim > 0) head->in.v = store(v, c.keys, c.valueDim, c.dtype, gap, head->v);
  head->in.scale = scale;
  if (c.keyPadding) {
    head->keyValid.resize(at(c.keys));
    for (auto& flag : head->keyValid) flag = random.below(3) != 0 ? 1 : 0;
    head->in.keyValid = head->keyValid;
  }
  if (c.queryPadding) {
    head->queryValid.assign(at(c.queries), 1);
    std::fill(head->queryValid.begin() + (c.queries - c.queries / 5), head->queryValid.end(), std::uint8_t{0});
    head->in.queryValid = head->queryValid;
  }
  if (c.denseMask) {
    head->denseMask.resize(at(c.queries * c.keys));
    for (auto& flag : head->denseMask) flag = random.below(2) != 0 ? 1 : 0;
    std::fill_n(head->denseMask.begin() + c.queries / 3 * c.keys, c.keys, std::uint8_t{0});
    head->in.denseMask = head->denseMask;
  }
  return head;
}

void checkLseMap(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  const std::vector<Index> rows = makeBlocks(c.rowBlocks, c.queries);
  const std::vector<Index> cols = makeBlocks(c.colBlocks, c.keys);
  const LseMapRequest both{rows, cols, true, true};
  const LseMapResult got = backend.lseMap(*pair.got, both, {});
  const LseMapResult want = pair.oracle->lseMap(*pair.want, both, {});
  compareLse(got.lse, want.lse, pair.tolerance);
  compareFloats("mean", got.mean, want.mean, kTinyProbability, pair.tolerance.probability());
  compareFloats("max", got.max, want.max, kTinyProbability, pair.tolerance.probability());

  const LseMapResult onlyMean = backend.lseMap(*pair.got, {rows, cols, true, false}, {});
  compareFloats("mean alone", onlyMean.mean, want.mean, kTinyProbability, pair.tolerance.probability());
  EXPECT_TRUE(onlyMean.max.empty());
  const LseMapResult onlyMax = backend.lseMap(*pair.got, {rows, cols, false, true}, {});
  compareFloats("max alone", onlyMax.max, want.max, kTinyProbability, pair.tolerance.probability());
  EXPECT_TRUE(onlyMax.mean.empty());
  // Against an LSE of another time: every probability is scaled by what the LSE is off.
  std::vector<float> stale = want.lse;
  for (std::size_t i = 0; i < stale.size(); ++i) stale[i] += 0.25F * static_cast<float>(i % 7) - 0.75F;
  const LseMapRequest cached{rows, cols, true, true, stale};
  const LseMapResult gotStale = backend.lseMap(*pair.got, cached, {});
  const LseMapResult wantStale = pair.oracle->lseMap(*pair.want, cached, {});
  compareFloats("given lse", gotStale.lse, stale, 0, 0);
  compareFloats("mean against a given lse", gotStale.mean, wantStale.mean, kTinyProbability,
                pair.tolerance.probability());
  compareFloats("max against a given lse", gotStale.max, wantStale.max, kTinyProbability, pair.tolerance.probability());
  const LseMapResult onlyLse = backend.lseMap(*pair.got, {{}, {}, true, true}, {});
  compareLse(onlyLse.lse, want.lse, pair.tolerance);
  EXPECT_TRUE(onlyLse.mean.empty() && onlyLse.max.empty());
}

void checkTile(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  const std::vector<float> lse = pair.oracle->lseMap(*pair.want, {}, {}).lse;
  std::vector<TileRect> rects{
      {0, c.queries, 0, c.keys, std::min<Index>(7, c.queries), std::min<Index>(9, c.keys)},
      {0, 1, 0, c.keys, 1, c.keys},
      {c.queries / 3, c.queries, c.keys / 4, c.keys / 4 + (c.keys + 1) / 2, 5, 3},
      {c.queries - 1, c.queries, c.keys - 1, c.keys, 2, 3},  // more cells than tokens
  };
  for (const TileRect& rect : rects) {
    SCOPED_TRACE(fmt::format("rows [{}, {}) keys [{}, {}) cells {} x {}", rect.row0, rect.row1, rect.col0, rect.col1,
                             rect.cellRows, rect.cellCols));
    for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
      const std::vector<float> want = pair.oracle->tile(*pair.want, lse, rect, reduce, {});
      compareFloats(reduce == Reduce::Mean ? "mean tile" : "max tile", backend.tile(*pair.got, lse, rect, reduce, {}),
                    want, kTinyProbability, pair.tolerance.probability());
    }
  }
}

void checkAttend(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  std::vector<Index> ptr;
  std::vector<Interval> intervals;
  for (const std::vector<Index>& rows : rowLists(c.queries)) {
    {
      SCOPED_TRACE("dense");
      compareAttend(pair, backend.attend(*pair.got, rows, {}, {}), pair.oracle->attend(*pair.want, rows, {}, {}));
    }
    {
      SCOPED_TRACE("a group per row");
      const RowKeep keep = makeKeep(static_cast<Index>(rows.size()), c.keys, 3, ptr, intervals);
      compareAttend(pair, backend.attend(*pair.got, rows, keep, {}), pair.oracle->attend(*pair.want, rows, keep, {}));
    }
    for (const Index groups : {Index{1}, Index{5}, Index{11}}) {
      SCOPED_TRACE(fmt::format("{} groups", groups));
      RowKeep keep = makeKeep(groups, c.keys, 5, ptr, intervals);
      std::vector<Index> group(rows.size());
      for (std::size_t i = 0; i < rows.size(); ++i) group[i] = (rows[i] * 7 / 5) % groups;
      keep.group = group;
      compareAttend(pair, backend.attend(*pair.got, rows, keep, {}), pair.oracle->attend(*pair.want, rows, keep, {}));
    }
  }
}

void checkAttendTop(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  for (const std::vector<Index>& rows : rowLists(c.queries)) {
    const std::vector<Index> choices{0, 1, 2, 5, (c.keys + 3) / 4, c.keys / 2, c.keys, c.keys + 10};
    std::vector<Index> counts(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) counts[i] = choices[i % choices.size()];
    compareAttend(pair, backend.attendTop(*pair.got, rows, counts, {}),
                  pair.oracle->attendTop(*pair.want, rows, counts, {}));
  }
}

void checkRowStats(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  const double slack = pair.tolerance.logit + 1e-6;
  for (const std::vector<Index>& rows : rowLists(c.queries)) {
    for (const double mass : {0.0, 0.5, 0.9, 0.95, 0.999}) {
      SCOPED_TRACE(fmt::format("mass {}", mass));
      const RowStats got = backend.rowStats(*pair.got, rows, mass, {});
      const RowStats want = pair.oracle->rowStats(*pair.want, rows, mass, {});
      compareLse(got.lse, want.lse, pair.tolerance);
      compareFloats("top1", got.top1, want.top1, 0, pair.tolerance.probability());
      // The entropy moves by the logit's error times the spread of the logits (at most 1e4) that still have weight.
      compareFloats("entropy", got.entropyBits, want.entropyBits, 1e-4 + 40 * pair.tolerance.logit, 1e-5);
      // The count may differ only as far as the mass is uncertain.
      const std::vector<Index> least =
          pair.oracle->rowStats(*pair.want, rows, std::max(0.0, mass - slack), {}).keysForMass;
      const std::vector<Index> most =
          pair.oracle->rowStats(*pair.want, rows, std::min(1.0, mass + slack), {}).keysForMass;
      compareAll("keys for mass", got.keysForMass.size(), want.keysForMass.size(), [&](std::size_t i) {
        if (got.keysForMass[i] >= least[i] && got.keysForMass[i] <= most[i]) return ::testing::AssertionSuccess();
        return ::testing::AssertionFailure() << got.keysForMass[i] << " is outside " << least[i] << ".." << most[i];
      });
      const bool exact = c.scores == Scores::AllEqual || c.scores == Scores::Zero || c.scores == Scores::OneHuge;
      if (exact) {
        EXPECT_EQ(got.keysForMass, want.keysForMass);
      }
    }
  }
}

void checkGlobalTop(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  for (const std::vector<Index>& rows : rowLists(c.queries)) {
    const auto listed = static_cast<Index>(rows.size());
    for (const Index total : {Index{0}, Index{1}, listed * c.keys / 10, listed * c.keys / 3, listed * c.keys + 5}) {
      SCOPED_TRACE(fmt::format("total {}", total));
      const GlobalTop got = backend.globalTop(*pair.got, rows, total, {});
      const GlobalTop want = pair.oracle->globalTop(*pair.want, rows, total, {});
      EXPECT_TRUE(near(got.threshold, want.threshold, kTinyProbability, pair.tolerance.probability()));
      ASSERT_EQ(got.count.size(), want.count.size());
      EXPECT_EQ(std::accumulate(got.count.begin(), got.count.end(), Index{0}),
                std::accumulate(want.count.begin(), want.count.end(), Index{0}));
      Index moved = 0;
      for (std::size_t i = 0; i < got.count.size(); ++i) moved += std::abs(got.count[i] - want.count[i]);
      // Two pairs nearer than the rounding may change places. Equal rows of Zero and AllEqual leave no choice at all.
      const bool exact = c.scores == Scores::AllEqual || c.scores == Scores::Zero;
      const Index allowed = exact ? 0 : (c.scores == Scores::Extreme || c.scores == Scores::OneHuge ? 12 : 4);
      EXPECT_LE(moved, allowed);
    }
  }
}

void checkCluster(Backend& backend, const OpCase& c) {
  const Pair pair(backend, c);
  for (const Side side : {Side::Query, Side::Key}) {
    const MatrixView& tokens = side == Side::Query ? pair.head->in.q : pair.head->in.k;
    const MatrixView& others = side == Side::Query ? pair.head->in.k : pair.head->in.q;
    const auto rowsOf = [&](const MatrixView& matrix, Index count, Index stride) {
      std::vector<float> rows(at(count * c.dim));
      for (Index i = 0; i < count; ++i) {
        rowToFloat(matrix, i * stride % matrix.rows, std::span(rows).subspan(at(i * c.dim), at(c.dim)));
      }
      return rows;
    };
    // Seeds are tokens, drawn with replacement: the last two repeat earlier ones and must stay empty. More than a tile
    // of centroids, and only a part of the tokens.
    const Index clusters = std::min<Index>(tokens.rows, 70) + 2;
    std::vector<float> centroids = rowsOf(tokens, clusters, 5);
    std::copy_n(centroids.begin(), c.dim, centroids.end() - 2 * c.dim);
    std::copy_n(centroids.begin(), c.dim, centroids.end() - c.dim);
    const std::vector<float> basis = rowsOf(others, std::min<Index>(others.rows, 9), 3);
    const Index first = tokens.rows / 4;
    ClusterRequest request{side, first, tokens.rows - first, centroids, Distance::Euclid, {}};
    for (const int kind : {0, 1, 2, 3}) {
      request.distance = kind == 0 ? Distance::Euclid : kind == 1 ? Distance::Dot : Distance::Cosine;
      request.basis = kind == 3 ? std::span<const float>(basis) : std::span<const float>();
      SCOPED_TRACE(fmt::format("{} distance {}", side == Side::Query ? "queries" : "keys", kind));
      const ClusterResult got = backend.cluster(*pair.got, request, {});
      const ClusterResult want = pair.oracle->cluster(*pair.want, request, {});
      ASSERT_EQ(got.labels.size(), want.labels.size());
      ASSERT_EQ(got.means.size(), centroids.size());

      double largest = 0;  // rounding of a distance is relative to the vectors, not to the distance
      std::vector<float> row(at(c.dim));
      for (Index i = 0; i < tokens.rows; ++i) {
        rowToFloat(tokens, i, row);
        double square = 0;
        for (const float x : row) square += static_cast<double>(x) * static_cast<double>(x);
        largest = std::max(largest, square);
      }
      // Profiles of 1e4 leave cosines of nearly equal directions; 1e-8 in the norm hardly counts.
      const double slack = kind == 0 ? 1e-6 * (4 * largest + 1e-3) : kind == 1 ? 1e-6 * (largest + 1e-3) : 2e-5;
      std::vector<Index> sizes(at(clusters), 0);
      std::vector<double> sums(centroids.size(), 0.0);
      for (std::size_t i = 0; i < got.labels.size(); ++i) {
        const std::int32_t label = got.labels[i];
        ASSERT_TRUE(label >= 0 && label < clusters);
        EXPECT_LT(label, clusters - 2) << "an equal centroid with a lower number comes first";
        // The nearest may differ only where two are equally near.
        ASSERT_NEAR(static_cast<double>(got.nearest[i]), static_cast<double>(want.nearest[i]), slack) << "point " << i;
        if (kind == 0) {
          EXPECT_GE(got.nearest[i], 0.0F);
        }
        ++sizes[at(label)];
        rowToFloat(tokens, first + static_cast<Index>(i), row);
        for (Index d = 0; d < c.dim; ++d) sums[at(label * c.dim + d)] += static_cast<double>(row[at(d)]);
      }
      EXPECT_EQ(got.sizes, sizes);
      for (std::size_t n = 0; n < got.means.size(); ++n) {
        const Index size = sizes[n / at(c.dim)];
        if (size == 0) {
          ASSERT_EQ(got.means[n], centroids[n]) << "an empty cluster keeps its centroid";
        } else {
          const double mean = sums[n] / static_cast<double>(size);
          ASSERT_NEAR(static_cast<double>(got.means[n]), mean, 1e-6 * std::max(1.0, std::abs(mean)));
        }
      }
    }
  }
}

namespace {

/// What every operation gives on a head, as numbers in a row.
std::vector<double> numbersOf(Backend& backend, const PreparedHead& head, const OpCase& c) {
  std::vector<double> all;
  const auto add = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
  const auto addAttend = [&](const AttendResult& r) {
    add(r.out);
    add(r.lse);
    add(r.count);
    add(r.threshold);
  };
  const std::vector<Index> rows = rowLists(c.queries)[1];
  const std::vector<Index> rowBounds = makeBlocks(c.rowBlocks, c.queries);
  const std::vector<Index> colBounds = makeBlocks(c.colBlocks, c.keys);
  const LseMapResult map = backend.lseMap(head, {rowBounds, colBounds, true, true, {}}, {});
  add(map.lse);
  add(map.mean);
  add(map.max);
  // Of a part of the keys: their places in the mask are counted from its edge.
  add(backend.tile(head, map.lse, {c.queries / 3, c.queries, c.keys / 4, c.keys, 4, 3}, Reduce::Mean, {}));
  addAttend(backend.attend(head, rows, {}, {}));
  std::vector<Index> ptr;
  std::vector<Interval> intervals;
  addAttend(backend.attend(head, rows, makeKeep(static_cast<Index>(rows.size()), c.keys, 3, ptr, intervals), {}));
  const std::vector<Index> counts(rows.size(), (c.keys + 2) / 3);
  addAttend(backend.attendTop(head, rows, counts, {}));
  const RowStats stats = backend.rowStats(head, rows, 0.9, {});
  add(stats.lse);
  add(stats.entropyBits);
  add(stats.top1);
  add(stats.keysForMass);
  add(backend.globalTop(head, rows, c.keys * 2, {}).count);
  std::vector<float> centroids(at(7 * c.dim));
  for (std::size_t i = 0; i < centroids.size(); ++i) centroids[i] = std::sin(static_cast<float>(i));
  for (const Side side : {Side::Key, Side::Query}) {
    const Index tokens = side == Side::Key ? c.keys : c.queries;
    const ClusterResult r = backend.cluster(head, {side, tokens / 4, tokens - tokens / 4, centroids}, {});
    add(r.labels);
    add(r.nearest);
    add(r.sizes);
    add(r.means);
  }
  return all;
}

void expectSameNumbers(const std::vector<double>& got, const std::vector<double>& want) {
  compareAll("number", got.size(), want.size(), [&](std::size_t i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << got[i] << " and " << want[i];
  });
}

/// The tensors of a case with their keys in another order, gathered with care and without a backend.
std::shared_ptr<const OpHead> gathered(const OpHead& head, std::span<const Index> order, bool withValues) {
  auto out = std::make_shared<OpHead>();
  out->in = head.in;
  const auto move = [&](const MatrixView& from, std::vector<std::byte>& storage) {
    const std::size_t bytes = at(from.cols) * itemSize(from.dtype);
    for (const Index key : order) storage.insert(storage.end(), from.row(key), from.row(key) + bytes);
    return MatrixView{storage.data(), from.rows, from.cols, static_cast<Index>(bytes), from.dtype};
  };
  out->in.k = move(head.in.k, out->k);
  out->in.v = head.in.v.data != nullptr && withValues ? move(head.in.v, out->v) : MatrixView{};
  for (std::size_t i = 0; i < head.in.keyValid.size(); ++i) {
    out->keyValid.push_back(head.in.keyValid[at(order[i])]);
  }
  out->in.keyValid = out->keyValid;
  for (Index row = 0; row < head.in.q.rows && !head.in.denseMask.empty(); ++row) {
    for (const Index key : order) out->denseMask.push_back(head.in.denseMask[at(row * head.in.k.rows + key)]);
  }
  out->in.denseMask = out->denseMask;
  return out;
}

}  // namespace

void checkPermuteKeys(Backend& backend, const OpCase& c) {
  const std::shared_ptr<const OpHead> head = makeOpHead(c);
  std::vector<Index> order(at(c.keys));
  std::iota(order.rbegin(), order.rend(), Index{0});
  Random random(11);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[at(random.below(Index(i)))]);
  std::vector<Index> inverse(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) inverse[at(order[i])] = static_cast<Index>(i);

  auto source = backend.prepare(head->in, head, {});
  const auto wanted = gathered(*head, order, true);
  const auto moved = backend.permuteKeys(*source, {order}, {});
  expectSameNumbers(numbersOf(backend, *moved, c), numbersOf(backend, *backend.prepare(wanted->in, wanted, {}), c));
  {
    // What it says about itself.
    const AttentionIn& in = moved->input();
    EXPECT_EQ(in.q.data, head->in.q.data);
    EXPECT_EQ(in.k.rows, c.keys);
    EXPECT_EQ(in.v.cols, head->in.v.data != nullptr ? c.valueDim : 0);
    EXPECT_TRUE(std::equal(in.keyValid.begin(), in.keyValid.end(), wanted->keyValid.begin(), wanted->keyValid.end()));
    if (moved->holdsTensors()) {
      for (Index key = 0; key < c.keys; ++key) {
        ASSERT_EQ(std::memcmp(in.k.row(key), wanted->in.k.row(key), at(c.dim) * itemSize(c.dtype)), 0) << key;
      }
      EXPECT_EQ(in.denseMask.size(), wanted->denseMask.size());
    } else {
      EXPECT_TRUE(in.k.data == nullptr && in.v.data == nullptr && in.denseMask.empty());
    }
  }
  {
    SCOPED_TRACE("and back, after the others are gone");
    const std::vector<double> want = numbersOf(backend, *source, c);
    auto twice = backend.permuteKeys(*moved, {inverse}, {});
    source.reset();
    expectSameNumbers(numbersOf(backend, *twice, c), want);
  }
  {
    SCOPED_TRACE("without values");
    const auto keysOnly = backend.permuteKeys(*moved, {order, false}, {});
    std::vector<Index> both(order.size());
    for (std::size_t i = 0; i < both.size(); ++i) both[i] = order[at(order[i])];
    const auto bare = gathered(*head, both, false);
    const std::vector<Index> rows = rowLists(c.queries)[1];
    const AttendResult got = backend.attend(*keysOnly, rows, {}, {});
    const AttendResult want = backend.attend(*backend.prepare(bare->in, bare, {}), rows, {}, {});
    EXPECT_TRUE(got.out.empty());
    expectSameNumbers({got.lse.begin(), got.lse.end()}, {want.lse.begin(), want.lse.end()});
    EXPECT_EQ(got.count, want.count);
  }
  for (const Index wrong : {Index{-1}, c.keys, order.back()}) {
    if (c.keys == 1 && wrong == order.front()) continue;
    std::vector<Index> broken = order;
    broken.front() = wrong;
    EXPECT_THROW(static_cast<void>(backend.permuteKeys(*moved, {broken}, {})), Error) << wrong;
  }
  EXPECT_THROW(static_cast<void>(backend.permuteKeys(*moved, {std::span(order).first(order.size() - 1)}, {})), Error);
}

void checkScoreClusters(Backend& backend, const OpCase& c) {
  const std::shared_ptr<const OpHead> head = makeOpHead(c);
  const auto floats = [&](const MatrixView& matrix) {
    std::vector<float> rows(at(matrix.rows * matrix.cols));
    for (Index i = 0; i < matrix.rows; ++i) {
      rowToFloat(matrix, i, std::span(rows).subspan(at(i * matrix.cols), at(matrix.cols)));
    }
    return rows;
  };
  const std::vector<float> queries = floats(head->in.q);
  const std::vector<float> keys = floats(head->in.k);
  std::vector<Index> weights;
  Random random(5);
  for (Index j = 0; j < c.keys && !c.denseMask; ++j)
    weights.push_back(c.keyPadding ? random.below(3) : 1 + random.below(90));
  for (const double topP : {0.0, 0.9, 1.0}) {
    SCOPED_TRACE(fmt::format("top {}", topP));
    const ClusterScoresRequest request{c.dim, queries, keys, weights, head->in.scale, topP};
    const ClusterScores got = backend.scoreClusters(request, {});
    const ClusterScores want = createReferenceBackend()->scoreClusters(request, {});
    EXPECT_EQ(got.order, want.order);
    EXPECT_EQ(got.crossing, want.crossing);
    expectSameNumbers(got.probabilities, want.probabilities);
  }
}

void checkSelectLargest(Backend& backend, const OpCase& c) {
  Random random(3);
  std::vector<double> values(at(c.queries * c.keys));
  // Few different values in every second row, and zeros: ties at the cut.
  for (Index i = 0; i < c.queries; ++i) {
    for (Index j = 0; j < c.keys; ++j) {
      const double value = random.uniform();
      values[at(i * c.keys + j)] = i % 2 == 0 ? value * value : std::floor(3 * value) * 1e-300;
    }
  }
  const std::vector<Index> choices{0, 1, 2, c.keys / 3, c.keys - 1, c.keys, c.keys + 5};
  std::vector<Index> counts;
  for (Index i = 0; i < c.queries; ++i) counts.push_back(std::max<Index>(0, choices[at(i) % choices.size()]));
  std::vector<std::uint8_t> excluded;
  for (Index j = 0; j < c.keys && c.keyPadding; ++j) excluded.push_back(random.below(4) == 0 ? 1 : 0);
  const std::vector<std::uint8_t> got = backend.selectLargest({c.keys, values, counts, excluded}, {});
  ASSERT_EQ(got.size(), values.size());
  for (Index i = 0; i < c.queries; ++i) {
    std::vector<Index> order;
    for (Index j = 0; j < c.keys; ++j) {
      if (excluded.empty() || excluded[at(j)] == 0) order.push_back(j);
    }
    const double* const row = values.data() + i * c.keys;
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return row[a] > row[b]; });
    std::vector<std::uint8_t> want(at(c.keys), 0);
    for (std::size_t n = 0; n < order.size() && static_cast<Index>(n) < counts[at(i)]; ++n) want[at(order[n])] = 1;
    ASSERT_TRUE(std::equal(want.begin(), want.end(), got.begin() + i * c.keys)) << "row " << i;
  }
}

void checkAllOps(Backend& backend, const OpCase& c) {
  struct Check {
    Op op;
    void (*run)(Backend&, const OpCase&);
  };
  constexpr Check kChecks[] = {{Op::LseMap, checkLseMap},
                               {Op::Tile, checkTile},
                               {Op::Attend, checkAttend},
                               {Op::AttendTop, checkAttendTop},
                               {Op::RowStats, checkRowStats},
                               {Op::GlobalTop, checkGlobalTop},
                               {Op::Cluster, checkCluster},
                               {Op::PermuteKeys, checkPermuteKeys},
                               {Op::ScoreClusters, checkScoreClusters},
                               {Op::SelectLargest, checkSelectLargest}};
  for (const Check& check : kChecks) {
    if (!backend.supports(check.op, c.dtype, c.dim)) continue;
    SCOPED_TRACE(fmt::format("{} of {}", opName(check.op), c.name));
    check.run(backend, c);
  }
}

const std::vector<OpCase>& opCases() {
  static const std::vector<OpCase> kCases = [] {
    std::vector<OpCase> cases;
    // Every head_dim that models use, and odd ones, over the three types.
    const DType types[] = {DType::F32, DType::F16, DType::BF16};
    Index n = 0;
    for (const Index dim : {1, 7, 8, 10, 12, 16, 32, 64, 72, 80, 96, 128, 160, 256}) {
      OpCase c;
      c.dtype = types[n % 3];
      c.name = fmt::format("dim{}_{}", dim, dtypeName(c.dtype));
      c.queries = 37 + n;
      c.keys = 101 + 3 * n;
      c.dim = dim;
      c.valueDim = dim;
      c.colBlocks = n % 2 == 0 ? Blocks::Ragged : Blocks::WithEmpty;
      cases.push_back(c);
      ++n;
    }
    const OpCase base{"", 67, 131, 32, 32, DType::F32, Scores::Normal};
    const auto add = [&](std::string name, auto change) {
      OpCase c = base;
      c.name = std::move(name);
      change(c);
      cases.push_back(c);
    };
    add("one_query_one_key", [](OpCase& c) { c.queries = c.keys = 1; });
    add("one_query", [](OpCase& c) { c.queries = 1; });
    add("one_key", [](OpCase& c) { c.keys = 1; });
    add("two_keys", [](OpCase& c) { c.keys = 2; });
    add("few_queries_many_keys", [](OpCase& c) {
      c.queries = 5;
      c.keys = 801;
    });
    add("many_queries_few_keys", [](OpCase& c) {
      c.queries = 403;
      c.keys = 9;
    });
    add("whole_tiles", [](OpCase& c) {
      c.queries = 128;
      c.keys = 192;
    });
    add("one_more_than_tiles", [](OpCase& c) {
      c.queries = 129;
      c.keys = 193;
    });
    add("several_blocks", [](OpCase& c) {
      c.queries = 300;
      c.keys = 517;
      c.dtype = DType::F16;
    });
    // More than 2,048 rows: eight panels share a key tile.
    add("many_rows", [](OpCase& c) {
      c.queries = 2250;
      c.keys = 119;
      c.dim = c.valueDim = 8;
      c.rowBlocks = Blocks::Even;
    });
    add("wide_values", [](OpCase& c) { c.valueDim = 96; });
    add("narrow_values", [](OpCase& c) {
      c.dim = 80;
      c.valueDim = 3;
      c.dtype = DType::BF16;
    });
    add("no_values", [](OpCase& c) { c.valueDim = 0; });
    add("strided_float32", [](OpCase& c) { c.strided = true; });
    add("strided_float16", [](OpCase& c) {
      c.strided = true;
      c.dtype = DType::F16;
      c.dim = c.valueDim = 12;
    });
    add("empty_blocks", [](OpCase& c) { c.rowBlocks = c.colBlocks = Blocks::WithEmpty; });
    add("one_cell", [](OpCase& c) { c.rowBlocks = c.colBlocks = Blocks::One; });
    add("one_map_row", [](OpCase& c) {
      c.queries = 300;
      c.rowBlocks = Blocks::One;
      c.colBlocks = Blocks::Tokens;
    });
    add("a_cell_per_token", [](OpCase& c) { c.rowBlocks = c.colBlocks = Blocks::Tokens; });
    add("even_blocks", [](OpCase& c) {
      c.rowBlocks = c.colBlocks = Blocks::Even;
      c.dtype = DType::BF16;
    });
    // Columns that the CPU folds: wider than a key tile, under four panels, with references that move.
    add("wide_columns_bfloat16", [](OpCase& c) {
      c.queries = 300;
      c.keys = 1500;
      c.dim = c.valueDim = 80;
      c.colBlocks = Blocks::Even;
      c.scores = Scores::Peaked;
      c.dtype = DType::BF16;
    });
    add("many_rows_bfloat16", [](OpCase& c) {
      c.queries = 2250;
      c.keys = 119;
      c.dim = c.valueDim = 8;
      c.rowBlocks = c.colBlocks = Blocks::Even;
      c.dtype = DType::BF16;
    });
    add("extreme_even_bfloat16", [](OpCase& c) {
      c.keys = 700;
      c.colBlocks = Blocks::Even;
      c.scores = Scores::Extreme;
      c.dtype = DType::BF16;
      c.keyPadding = true;
    });
    add("padding_keys", [](OpCase& c) { c.keyPadding = true; });
    add("padding_rows", [](OpCase& c) { c.queryPadding = true; });
    add("padding_both_bfloat16", [](OpCase& c) {
      c.keyPadding = c.queryPadding = true;
      c.dtype = DType::BF16;
    });
    add("dense_mask", [](OpCase& c) { c.denseMask = true; });
    add("dense_mask_and_padding", [](OpCase& c) {
      c.denseMask = c.keyPadding = c.queryPadding = true;
      c.rowBlocks = c.colBlocks = Blocks::WithEmpty;
    });
    add("peaked", [](OpCase& c) {
      c.scores = Scores::Peaked;
      c.keys = 600;
    });
    add("peaked_float16", [](OpCase& c) {
      c.scores = Scores::Peaked;
      c.dtype = DType::F16;
      c.dim = c.valueDim = 128;
    });
    add("extreme", [](OpCase& c) { c.scores = Scores::Extreme; });
    add("extreme_bfloat16", [](OpCase& c) {
      c.scores = Scores::Extreme;
      c.dtype = DType::BF16;
      c.keyPadding = true;
    });
    add("all_equal", [](OpCase& c) {
      c.scores = Scores::AllEqual;
      c.keys = 700;
    });
    add("one_huge", [](OpCase& c) {
      c.scores = Scores::OneHuge;
      c.keys = 300;
    });
    add("zero_queries", [](OpCase& c) { c.scores = Scores::Zero; });
    add("duplicated", [](OpCase& c) {
      c.scores = Scores::Duplicated;
      c.keys = 150;
    });
    add("duplicated_padding", [](OpCase& c) {
      c.scores = Scores::Duplicated;
      c.keys = 301;
      c.keyPadding = true;
    });
    add("negative_scale", [](OpCase& c) { c.scaleFactor = -1.5; });
    add("zero_scale", [](OpCase& c) {
      c.scaleFactor = 0;
      c.denseMask = true;
    });
    return cases;
  }();
  return kCases;
}

}  // namespace sparsight::testing
