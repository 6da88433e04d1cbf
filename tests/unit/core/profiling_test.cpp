// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profiling.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "sparsight/core/files.h"
#include "sparsight/core/synth.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using testing::HasSubstr;

/// The double-precision oracle, counting how many heads it was given.
class CountingBackend : public Backend {
 public:
  [[nodiscard]] BackendInfo info() const override { return m_inner->info(); }
  [[nodiscard]] bool supports(Op op, DType dtype, Index headDim) const noexcept override {
    return m_inner->supports(op, dtype, headDim);
  }
  std::shared_ptr<const PreparedHead> prepare(const AttentionIn& in, std::shared_ptr<const void> keepAlive,
                                              const Control& control) override {
    ++prepared;
    return m_inner->prepare(in, std::move(keepAlive), control);
  }
  LseMapResult lseMap(const PreparedHead& head, const LseMapRequest& request, const Control& control) override {
    return m_inner->lseMap(head, request, control);
  }
  std::vector<float> tile(const PreparedHead& head, std::span<const float> lse, const TileRect& rect, Reduce reduce,
                          const Control& control) override {
    return m_inner->tile(head, lse, rect, reduce, control);
  }
  AttendResult attend(const PreparedHead& head, std::span<const Index> rows, const RowKeep& keep,
                      const Control& control) override {
    return m_inner->attend(head, rows, keep, control);
  }
  AttendResult attendTop(const PreparedHead& head, std::span<const Index> rows, std::span<const Index> counts,
                         const Control& control) override {
    return m_inner->attendTop(head, rows, counts, control);
  }
  RowStats rowStats(const PreparedHead& head, std::span<const Index> rows, double mass,
                    const Control& control) override {
    return m_inner->rowStats(head, rows, mass, control);
  }
  GlobalTop globalTop(const PreparedHead& head, std::span<const Index> rows, Index total,
                      const Control& control) override {
    return m_inner->globalTop(head, rows, total, control);
  }
  ClusterResult cluster(const PreparedHead& head, const ClusterRequest& request, const Control& control) override {
    return m_inner->cluster(head, request, control);
  }
  int prepared = 0;

 private:
  std::unique_ptr<Backend> m_inner = createReferenceBackend();
};

/// exact.py written down again, in double and without any of our operations.
double naiveDensity(const HeadData& head, double mass) {
  const Index n = head.input.k.rows, d = head.input.k.cols;
  const auto floats = [d](const MatrixView& view) {
    std::vector<std::vector<float>> rows(static_cast<std::size_t>(view.rows),
                                         std::vector<float>(static_cast<std::size_t>(d)));
    for (Index r = 0; r < view.rows; ++r) rowToFloat(view, r, rows[static_cast<std::size_t>(r)]);
    return rows;
  };
  const auto q = floats(head.input.q), k = floats(head.input.k);
  double sum = 0;
  for (const auto& row : q) {
    std::vector<double> p;
    for (const auto& key : k) {
      double dot = 0;
      for (std::size_t c = 0; c < key.size(); ++c) dot += static_cast<double>(row[c]) * static_cast<double>(key[c]);
      p.push_back(head.input.scale * dot);
    }
    const double top = *std::max_element(p.begin(), p.end());
    double total = 0;
    for (double& x : p) total += x = std::exp(x - top);
    std::sort(p.begin(), p.end(), std::greater<>());
    double reached = 0;
    Index count = 0;
    while (count < n && reached < mass * total) reached += p[static_cast<std::size_t>(count++)];
    sum += static_cast<double>(count) / static_cast<double>(n);
  }
  return sum / static_cast<double>(q.size());
}

class ProfilingTest : public testing::Test {
 protected:
  void SetUp() override {
    m_folder = std::filesystem::temp_directory_path() / fmt::format("sparsight-profiling-{}", ::getpid());
    std::filesystem::create_directories(m_folder);
  }
  void TearDown() override { std::filesystem::remove_all(m_folder); }

  std::filesystem::path trace(std::uint64_t seed, int layers = 2) {
    SynthSpec spec;
    spec.frames = 2;
    spec.height = 4;
    spec.width = 4;
    spec.textTokens = 4;
    spec.layers = layers;
    spec.heads = 3;
    spec.steps = 2;
    spec.headDim = 16;
    spec.seed = seed;
    const auto path = m_folder / fmt::format("t{}-{}.h5", seed, layers);
    if (!std::filesystem::exists(path)) writeSyntheticTrace(path, spec, m_executor, {});
    return path;
  }
  static ProfilingRequest requestOf(std::vector<std::filesystem::path> traces) {
    ProfilingRequest request;
    request.traces = std::move(traces);
    return request;
  }
  template <class F>
  static std::string errorOf(const F& f, ErrorCode code) {
    try {
      static_cast<void>(f());
    } catch (const Error& e) {
      EXPECT_EQ(errorCodeName(e.code()), errorCodeName(code)) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "no error";
    return {};
  }

  std::filesystem::path m_folder;
  Executor m_executor{1};
  CountingBackend m_backend;
};
using Profiling = ProfilingTest;

TEST(ProfilingNumbers, RoundAsPythonPrintsThem) {
  EXPECT_EQ(roundedDensity(0.73824999), 0.7382);
  EXPECT_EQ(roundedDensity(0.000049), 0.0);
  EXPECT_EQ(roundedDensity(0.00005), 0.0001) << "the double is a little above";
  EXPECT_EQ(roundedDensity(0.99999), 1.0);
  EXPECT_EQ(roundedDensity(0.5), 0.5);
}

TEST(ProfilingNumbers, MergeByRule) {
  const std::vector<double> values{0.2, 0.4, 0.3};
  EXPECT_EQ(mergedDensity(values, MergeRule::Max), 0.4);
  EXPECT_EQ(mergedDensity(values, MergeRule::Mean), 0.3);
  EXPECT_EQ(mergedDensity(values, MergeRule::Gauss), 0.4343) << "0.3 + 1.645 sqrt(0.02 / 3)";
  EXPECT_EQ(mergedDensity({0.25}, MergeRule::Gauss), 0.25);
  EXPECT_EQ(mergedDensity({0.2, 1.0}, MergeRule::Gauss), 1.0) << "clamped";
}

TEST_F(Profiling, MeasuresTheExactDensityOfEveryCapturedHead) {
  const auto path = trace(0);
  const Profile p = profileTraces(requestOf({path}), m_backend, {});
  const auto opened = openTrace(path);
  const TraceInfo& info = opened->info();
  EXPECT_EQ(p.steps(), std::max(info.run.numInferenceSteps, info.steps().back() + 1));
  EXPECT_EQ(p.layers(), 2);
  EXPECT_EQ(p.heads(), 3);
  EXPECT_EQ(p.role, BudgetRole::KeptFloor);
  EXPECT_EQ(p.provenance.traceIds, std::vector<std::string>{info.uuid});
  EXPECT_EQ(p.provenance.parameters.at("mass"), "0.95");
  Index values = 0;
  for (const HeadId& id : selectHeads(info, {})) {
    const auto measured = p.at({id.call.step, id.call.layer, id.head});
    ASSERT_TRUE(measured.has_value());
    EXPECT_NEAR(*measured, naiveDensity(opened->load(id), 0.95), 0.00005 + 1e-9);
    EXPECT_EQ(*measured, roundedDensity(*measured));
    ++values;
  }
  EXPECT_EQ(p.cellCount() - p.holeCount(), values) << "what was not captured is a hole";
}

TEST_F(Profiling, CombinesTracesCellByCell) {
  const Profile a = profileTraces(requestOf({trace(0)}), m_backend, {});
  const Profile b = profileTraces(requestOf({trace(1)}), m_backend, {});
  ASSERT_GT(diffProfiles(a, b).changed, 0);
  for (const MergeRule rule : {MergeRule::Max, MergeRule::Mean, MergeRule::Gauss}) {
    ProfilingRequest request = requestOf({trace(0), trace(1)});
    request.merge = rule;
    const Profile both = profileTraces(request, m_backend, {});
    EXPECT_EQ(both.holeCount(), a.holeCount());
    EXPECT_EQ(both.provenance.traceIds.size(), 2U);
    for (int s = 0; s < a.steps(); ++s) {
      for (int l = 0; l < a.layers(); ++l) {
        for (int h = 0; h < a.heads(); ++h) {
          if (const auto x = a.at({s, l, h})) {
            EXPECT_EQ(both.at({s, l, h}), mergedDensity({*x, *b.at({s, l, h})}, rule));
          }
        }
      }
    }
  }
}

TEST_F(Profiling, ASelectionLeavesTheRestAsHoles) {
  ProfilingRequest request = requestOf({trace(0)});
  request.selection.layers = Selector::parse("1");
  request.selection.heads = Selector::parse("0,2");
  const Profile p = profileTraces(request, m_backend, {});
  EXPECT_EQ(p.layers(), 2) << "the grid stays the model's";
  EXPECT_EQ(summariseLayer(p, 0).count, 0);
  EXPECT_EQ(summariseLayer(p, 1).count, 4);
}

TEST_F(Profiling, ReportsHeadsUpToTheEnd) {
  std::vector<double> fractions;
  const Control control{{}, [&](double fraction) { fractions.push_back(fraction); }};
  static_cast<void>(profileTraces(requestOf({trace(0)}), m_backend, control));
  ASSERT_GE(fractions.size(), 12U);
  EXPECT_TRUE(std::is_sorted(fractions.begin(), fractions.end()));
  EXPECT_EQ(fractions.back(), 1.0);
}

TEST_F(Profiling, RefusesTracesThatDoNotBelongTogether) {
  EXPECT_THAT(errorOf(
                  [&] {
                    return profileTraces(requestOf({trace(0), trace(0, 3)}), m_backend, {});
                  },
                  ErrorCode::InvalidArgument),
              HasSubstr("3 layers"));
  EXPECT_THAT(errorOf(
                  [&] {
                    return profileTraces(requestOf({trace(0), trace(0)}), m_backend, {});
                  },
                  ErrorCode::InvalidArgument),
              HasSubstr("same trace"));
  EXPECT_THAT(errorOf([&] { return profileTraces(requestOf({}), m_backend, {}); }, ErrorCode::InvalidArgument),
              HasSubstr("at least one"));
  ProfilingRequest mass = requestOf({trace(0)});
  mass.mass = 1.5;
  errorOf([&] { return profileTraces(mass, m_backend, {}); }, ErrorCode::InvalidArgument);
  errorOf([&] { return profileTraces(requestOf({m_folder / "missing.h5"}), m_backend, {}); }, ErrorCode::Io);
  EXPECT_EQ(m_backend.prepared, 0) << "told before any work";
}

TEST_F(Profiling, ContinuesWhereItWasStopped) {
  ProfilingRequest request = requestOf({trace(0), trace(1)});
  request.resumeFile = m_folder / "state.json";
  const Profile whole = profileTraces(requestOf({trace(0), trace(1)}), m_backend, {});

  std::stop_source stop;
  const Control control{stop.get_token(), [&](double fraction) {
                          if (fraction > 0.6) stop.request_stop();
                        }};
  m_backend.prepared = 0;
  EXPECT_THROW(static_cast<void>(profileTraces(request, m_backend, control)), Cancelled);
  const int first = m_backend.prepared;
  EXPECT_GT(first, 12);
  EXPECT_LT(first, 24);
  ASSERT_TRUE(std::filesystem::exists(request.resumeFile));

  m_backend.prepared = 0;
  const Profile resumed = profileTraces(request, m_backend, {});
  EXPECT_LE(first + m_backend.prepared, 25) << "at most the head that was cut off is measured twice";
  EXPECT_TRUE(resumed == whole);

  m_backend.prepared = 0;
  EXPECT_TRUE(profileTraces(request, m_backend, {}) == whole);
  EXPECT_EQ(m_backend.prepared, 0);
  request.mass = 0.8;
  static_cast<void>(profileTraces(request, m_backend, {}));
  EXPECT_EQ(m_backend.prepared, 24) << "another mass is another number";
}

TEST_F(Profiling, ADamagedStateIsNamed) {
  ProfilingRequest request = requestOf({trace(0)});
  request.resumeFile = m_folder / "state.json";
  for (const char* text : {"", "{", "{\"format\":\"other\"}", "[1]",
                           R"({"format":"sparsight-profiling","format_version":[1,0],"measured":{"k":[[1]]}})"}) {
    std::ofstream(request.resumeFile, std::ios::trunc) << text;
    EXPECT_THAT(errorOf([&] { return profileTraces(request, m_backend, {}); }, ErrorCode::Format),
                HasSubstr("state.json"))
        << text;
  }
}

TEST(ProfilingGolden, AgreesWithAnIndependentComputationOnATrainedModel) {
  const auto path = std::filesystem::path(SPARSIGHT_TEST_DATA) / "traces" / "tinydit_a.h5";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the trained model's trace is not here: 1 golden case NOT run";
  ProfilingRequest request;
  request.traces = {path};
  request.selection.steps = Selector::parse("4");
  request.selection.layers = Selector::parse("0");
  request.rows = 0;
  Executor executor(2);
  const auto backend = createBackend("cpu", executor);
  const Profile p = profileTraces(request, *backend, {});
  // numpy in float64 on the stored float16 tensors: 0.65321, 0.49082, 0.70563, 0.57734.
  const double expected[] = {0.6532, 0.4908, 0.7056, 0.5773};
  for (int h = 0; h < 4; ++h) EXPECT_NEAR(p.at({4, 0, h}).value_or(-1), expected[h], 1e-4) << h;
}

}  // namespace
}  // namespace sparsight
