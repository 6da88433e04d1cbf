// SPDX-License-Identifier: Apache-2.0
// Reads every trace of the reference data set and compares tensors with plain HDF5 reads of the same datasets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/backend.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {
namespace fs = std::filesystem;

std::vector<fs::path> referenceTraces() {
  std::vector<fs::path> files;
  for (const char* folder : {"golden", "traces"}) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(fs::path(SPARSIGHT_TEST_DATA) / folder, ignored)) {
      const auto name = entry.path().filename().string();
      // `curve` keeps its results in a folder beside a trace: TRACE.h5.curves.
      if (entry.path().extension() != ".h5") continue;
      if (name.starts_with("trace_") || std::string(folder) == "traces") files.push_back(entry.path());
    }
  }
  return files;
}

#define SKIP_WITHOUT_DATA(files) \
  if ((files).empty()) GTEST_SKIP() << "no reference traces in " << SPARSIGHT_TEST_DATA << "; golden cases NOT run"

TEST(TraceGolden, EveryReferenceTraceLoadsWithoutWarnings) {
  const auto files = referenceTraces();
  SKIP_WITHOUT_DATA(files);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.filename().string());
    const auto trace = openTrace(path);
    const TraceInfo& info = trace->info();
    EXPECT_THAT(info.warnings, testing::IsEmpty());
    ASSERT_FALSE(info.calls.empty());
    for (const CallInfo& call : info.calls) {
      for (const int head : call.heads) {
        const HeadData data = trace->load({call.id, head});
        EXPECT_EQ(data.input.q.rows, call.nQ);
        EXPECT_EQ(data.input.k.rows, info.layout.tokenCount);
        EXPECT_EQ(data.input.v.cols, call.valueDim);
        EXPECT_THAT(data.warnings, testing::IsEmpty());
      }
    }
  }
}

TEST(TraceGolden, TensorsEqualAPlainReadOfTheDataset) {
  const auto files = referenceTraces();
  SKIP_WITHOUT_DATA(files);
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.filename().string());
    const auto trace = openTrace(path);
    const CallInfo& call = trace->info().calls.back();
    const h5::File file = h5::File::openRead(path);
    const auto expected = file.openDataset(call.path + "/k").read<float>();  // HDF5's own conversion
    const int head = call.heads.back();
    const HeadData data = trace->load({call.id, head});
    std::vector<float> row(static_cast<std::size_t>(call.headDim));
    std::size_t mismatches = 0;
    for (Index r = 0; r < call.nK; ++r) {
      rowToFloat(data.input.k, r, row);
      const std::size_t base =
          static_cast<std::size_t>(((static_cast<Index>(call.heads.size()) - 1) * call.nK + r) * call.headDim);
      for (std::size_t c = 0; c < row.size(); ++c) mismatches += row[c] != expected[base + c] ? 1U : 0U;
    }
    EXPECT_EQ(mismatches, 0U);
  }
}

TEST(TraceGolden, HunyuanPaddingMakesKeysAndRowsInvalid) {
  const fs::path path = fs::path(SPARSIGHT_TEST_DATA) / "golden" / "trace_A_hunyuan_video.h5";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent; golden case NOT run";
  const auto trace = openTrace(path);
  const CallInfo& call = trace->info().calls.front();
  EXPECT_EQ(call.id.step, 19);
  EXPECT_EQ(trace->info().layout.tokenCount, 5 * 4 * 6 + 7);
  const HeadData data = trace->load({call.id, 0});
  EXPECT_EQ(data.validKeyCount(), 5 * 4 * 6 + 5);  // 5 of 7 text tokens are prompt
  EXPECT_EQ(static_cast<Index>(data.validRows().size()), 5 * 4 * 6 + 5);
  EXPECT_EQ(data.layout.describe(0), "f0 r0 c0");
  EXPECT_EQ(data.layout.describe(29), "f1 r0 c5");
  EXPECT_EQ(data.layout.describe(121), "text 1");
}

TEST(TraceGolden, TrainedModelTraceHasScheduleLseAndFrames) {
  const fs::path path = fs::path(SPARSIGHT_TEST_DATA) / "traces" / "tinydit_a.h5";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent; golden case NOT run";
  const auto trace = openTrace(path);
  const TraceInfo& info = trace->info();
  EXPECT_THAT(info.steps(), testing::ElementsAre(4, 5, 18));
  EXPECT_THAT(info.layers(), testing::ElementsAre(0, 2, 6));
  EXPECT_THAT(info.heads(), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(info.run.timesteps.size(), 20U);
  EXPECT_EQ(info.calls.front().dtype, DType::F16);
  ASSERT_TRUE(info.frames.has_value());
  const auto frames = trace->frames();
  ASSERT_TRUE(frames.has_value());
  EXPECT_EQ(frames->rgb.size(), static_cast<std::size_t>(9 * 20 * 24 * 3));

  // The stored row LSE is what the tensors give.
  const CallInfo* call = info.callAt(5, "cond", 2);
  ASSERT_NE(call, nullptr);
  const HeadId id{call->id, 3};
  const HeadData data = trace->load(id);
  const auto stored = trace->storedLse(id);
  ASSERT_TRUE(stored.has_value());
  const auto oracle = createReferenceBackend();
  const auto prepared = oracle->prepare(data.input, data.keepAlive, {});
  const std::vector<Index> rows{0, 7, 500, 1079, 1087};
  const RowStats stats = oracle->rowStats(*prepared, rows, 0.95, {});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NEAR(stats.lse[i], (*stored)[static_cast<std::size_t>(rows[i])], 2e-3) << "row " << rows[i];
  }
}

}  // namespace
}  // namespace sparsight
