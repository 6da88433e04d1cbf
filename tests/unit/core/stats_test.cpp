// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/unit/core/method_test_support.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
using namespace test;

class Stats : public testing::Test {
 protected:
  HeadStats statsOf(const HeadData& head, StatsOptions options = {}) {
    const auto prepared = backend->prepare(effectiveInput(head, options.evaluate.includePadding), head.keepAlive, {});
    return computeStats(head, *prepared, options, *backend, {});
  }
  Executor executor{2};
  std::unique_ptr<Backend> backend = createBackend("cpu", executor);
};

struct NaiveStats {
  double lse = 0, entropy = 0, density = 0, top1 = 0, sink = 0, text = 0, frame = 0, temporal = 0;
};
NaiveStats naiveStats(const HeadData& head, bool includePadding, double mass) {
  const Naive naive(head, includePadding);
  const Segment video = *head.layout.video();
  const Index frameSize = Index{video.height} * video.width;
  NaiveStats s;
  Index rows = 0, videoRows = 0;
  for (Index i = 0; i < naive.rows; ++i) {
    if (!naive.rowValid(i)) continue;
    ++rows;
    s.lse += naive.lse[at(i)];
    std::vector<double> p;
    const Index own = head.queryToken(i) - video.start;
    const bool isVideo = own >= 0 && own < video.length;
    videoRows += isVideo ? 1 : 0;
    for (Index j = 0; j < naive.keys; ++j) {
      if (naive.valid[at(i * naive.keys + j)] == 0) continue;
      const double x = naive.p[at(i * naive.keys + j)];
      p.push_back(x);
      if (x > 0) s.entropy -= x * std::log2(x);
      const Index key = j - video.start;
      const bool keyVideo = key >= 0 && key < video.length;
      if (keyVideo && key < frameSize) s.sink += x;
      if (!keyVideo) s.text += x;
      if (isVideo && keyVideo && key / frameSize == own / frameSize) s.frame += x;
      if (isVideo && keyVideo && key != own && key % frameSize == own % frameSize) s.temporal += x;
    }
    std::sort(p.begin(), p.end(), std::greater<>());
    s.top1 += p.front();
    double sum = 0;
    std::size_t count = 0;
    while (count < p.size() && sum < mass - 1e-12) sum += p[count++];
    s.density += static_cast<double>(count) / static_cast<double>(p.size());
  }
  const double n = static_cast<double>(rows);
  for (double* value : {&s.lse, &s.entropy, &s.density, &s.top1, &s.sink, &s.text}) *value /= n;
  s.frame /= static_cast<double>(videoRows);
  s.temporal /= static_cast<double>(videoRows);
  return s;
}

TEST_F(Stats, EqualANaiveReading) {
  for (const bool textFirst : {false, true}) {
    for (const bool includePadding : {false, true}) {
      HeadSpec spec;
      spec.layout = layoutOf(3, 4, 5, 7, textFirst);
      spec.paddingText = 2;
      spec.spread = 2;
      const HeadData head = makeHead(spec);
      StatsOptions options;
      options.mass = 0.8;
      options.evaluate.includePadding = includePadding;
      const HeadStats got = statsOf(head, options);
      const NaiveStats want = naiveStats(head, includePadding, 0.8);
      EXPECT_EQ(got.evaluatedRows, includePadding ? 67 : 65);
      EXPECT_NEAR(got.lseMean, want.lse, 1e-5);
      EXPECT_NEAR(got.entropyBits, want.entropy, 1e-4);
      EXPECT_NEAR(got.exactDensity, want.density, 1e-9);
      EXPECT_NEAR(got.top1Mass, want.top1, 1e-5);
      EXPECT_NEAR(got.sinkMass.value(), want.sink, 1e-5);
      EXPECT_NEAR(got.textMass.value(), want.text, 1e-5);
      EXPECT_NEAR(got.frameLocality.value(), want.frame, 1e-5);
      EXPECT_NEAR(got.temporalLocality.value(), want.temporal, 1e-5);
    }
  }
}

TEST_F(Stats, QuerySubsetsCountStoredRows) {
  HeadSpec spec;
  spec.layout = layoutOf(3, 4, 5, 7);
  spec.qRows = {1, 20, 21, 40, 62};
  const HeadData head = makeHead(spec);
  const HeadStats got = statsOf(head);
  const NaiveStats want = naiveStats(head, false, 0.95);
  EXPECT_EQ(got.evaluatedRows, 5);
  EXPECT_NEAR(got.temporalLocality.value(), want.temporal, 1e-5);
  EXPECT_NEAR(got.frameLocality.value(), want.frame, 1e-5);
  EXPECT_NEAR(got.exactDensity, want.density, 1e-9);
}

TEST_F(Stats, WithoutTextOrSeveralFramesThereIsNothingToSay) {
  HeadSpec spec;
  spec.layout = layoutOf(1, 4, 5, 0);
  const HeadStats got = statsOf(makeHead(spec));
  EXPECT_FALSE(got.textMass);
  EXPECT_NEAR(got.sinkMass.value(), 1.0, 1e-6);        // the only frame
  EXPECT_NEAR(got.temporalLocality.value(), 0, 1e-9);  // no other frame
}

TEST_F(Stats, SampledRowsCarryAnInterval) {
  HeadSpec spec;
  spec.layout = layoutOf(4, 8, 8, 0);
  const HeadData head = makeHead(spec);
  StatsOptions options;
  options.evaluate.rows = 50;
  const HeadStats got = statsOf(head, options);
  EXPECT_EQ(got.evaluatedRows, 50);
  ASSERT_TRUE(got.exactDensityCi95);
  EXPECT_NEAR(got.exactDensity, naiveStats(head, false, 0.95).density, 3 * *got.exactDensityCi95);
  EXPECT_FALSE(statsOf(head).exactDensityCi95);
}

TEST_F(Stats, UniformRowsNeedTheirShare) {
  HeadSpec spec;
  spec.spread = 0;
  const HeadData head = makeHead(spec);
  const HeadStats got = statsOf(head);
  EXPECT_NEAR(got.exactDensity, 57.0 / 60.0, 1.0 / 60.0 + 1e-9);
  EXPECT_NEAR(got.entropyBits, std::log2(60.0), 1e-5);
  EXPECT_NEAR(got.lseMean, std::log(60.0), 1e-5);
}

// Reference data: SVOO's exact.py on the golden traces.
class StatsGolden : public testing::TestWithParam<const char*> {};

TEST_P(StatsGolden, ExactDensity) {
  const std::filesystem::path folder = std::filesystem::path(SPARSIGHT_TEST_DATA) / "golden";
  const std::filesystem::path results = folder / fmt::format("svoo_{}.h5", GetParam());
  if (!std::filesystem::exists(results)) {
    GTEST_SKIP() << "no reference data in " << folder << "; golden case " << GetParam() << " NOT run";
  }
  Executor executor(2);
  const auto backend = createBackend("cpu", executor);
  const h5::File file = h5::File::openRead(results);
  const auto trace = openTrace(folder / fmt::format("trace_{}.h5", GetParam()));
  for (int h = 0; h < 2; ++h) {
    const HeadData head = trace->load({trace->info().calls.front().id, h});
    const auto prepared = backend->prepare(effectiveInput(head, true), head.keepAlive, {});
    for (const char* mass : {"0.5", "0.9", "0.95"}) {
      const double want = file.openDataset(std::string("exact_") + mass).read<double>()[at(h)];
      EXPECT_NEAR(exactDensity(head, *prepared, std::stod(mass), 0, true, *backend, {}), want, 2e-6) << mass;
    }
    const double sampled = file.openDataset("exact_sampled16_0p95").read<double>()[at(h)];
    EXPECT_NEAR(exactDensity(head, *prepared, 0.95, 16, true, *backend, {}), sampled, 2e-6);
    // Asked for padding rules the head was not prepared under, it prepares its own.
    const auto other = backend->prepare(effectiveInput(head, false), head.keepAlive, {});
    EXPECT_NEAR(exactDensity(head, *other, 0.95, 16, true, *backend, {}), sampled, 2e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, StatsGolden,
                         testing::Values("A_wan", "A_hunyuan_video", "B_wan", "B_hunyuan_video", "G_wan",
                                         "G_hunyuan_video"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace sparsight
