// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/trace_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"
#include "trace/hdf5_file.h"
#include "trace/narrow.h"

namespace sparsight {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::TemporaryFolder;
namespace fs = std::filesystem;

constexpr Index kTokens = 300;
constexpr Index kDim = 12;

std::vector<float> values(Index rows, Index cols, int seed) {
  std::vector<float> v(static_cast<std::size_t>(rows * cols));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<float>((static_cast<int>(i) * 7 + seed * 13) % 127 - 63) / 32.0F;
  return v;
}

TraceHeader header() {
  TraceHeader h;
  h.writer = "test";
  h.model.family = "wan2.1";
  h.model.numLayers = 2;
  h.model.numHeads = 4;
  h.model.numKvHeads = 2;
  h.model.headDim = static_cast<int>(kDim);
  h.run.timesteps = {1000, 750, 500, 250};
  h.layout.tokenCount = kTokens;
  h.layout.segments = {{SegmentKind::Text, 0, 12, 0, 0, 0}, {SegmentKind::Video, 12, 288, 4, 8, 9}};
  return h;
}

CallHeader call(int step, int layer) {
  CallHeader c;
  c.id = {step, "cond", layer, "self", 0};
  c.timestep = 1000 - 250 * step;
  c.scale = 1 / std::sqrt(static_cast<double>(kDim));
  c.heads = {0, 1, 2, 3};
  c.kvHeads = 2;
  c.nQ = c.nK = kTokens;
  c.headDim = c.valueDim = kDim;
  return c;
}

void writeCall(TraceWriter& writer, const CallHeader& c) {
  writer.beginCall(c);
  for (std::size_t h = 0; h < 4; ++h) {
    writer.writeQuery(h, viewOf(values(c.nQ, kDim, static_cast<int>(h)), c.nQ, kDim));
    if (c.lse) writer.writeLse(h, values(1, c.nQ, 50 + static_cast<int>(h)));
    if (c.out) writer.writeOut(h, viewOf(values(c.nQ, kDim, 60 + static_cast<int>(h)), c.nQ, kDim));
  }
  for (std::size_t h = 0; h < 2; ++h) {
    writer.writeKeyValue(h, viewOf(values(c.nK, kDim, 10 + static_cast<int>(h)), c.nK, kDim),
                         viewOf(values(c.nK, kDim, 20 + static_cast<int>(h)), c.nK, kDim));
  }
  writer.endCall();
}

void expectEqual(const MatrixView& view, const std::vector<float>& expected) {
  std::vector<float> row(static_cast<std::size_t>(view.cols));
  for (Index r = 0; r < view.rows; ++r) {
    rowToFloat(view, r, row);
    for (std::size_t c = 0; c < row.size(); ++c)
      ASSERT_EQ(row[c], expected[static_cast<std::size_t>(r) * row.size() + c]) << r << " " << c;
  }
}

struct Form {
  std::string name;
  TraceWriterOptions options;
};
void PrintTo(const Form& f, std::ostream* out) { *out << f.name; }
class TraceWriterForms : public testing::TestWithParam<Form> {};

TEST_P(TraceWriterForms, WhatIsWrittenIsReadBackExactly) {
  const TemporaryFolder folder;
  {
    TraceWriter writer(folder / "t.h5", header(), GetParam().options);
    CallHeader first = call(1, 0);
    first.lse = first.out = true;
    writeCall(writer, first);
    writeCall(writer, call(2, 1));
    writer.finish();
  }
  const auto trace = openTrace(folder / "t.h5");
  const TraceInfo& info = trace->info();
  EXPECT_THAT(info.warnings, IsEmpty());
  EXPECT_TRUE(info.complete);
  EXPECT_EQ(info.versionMinor, 1);
  EXPECT_THAT(info.steps(), ElementsAre(1, 2));
  EXPECT_EQ(info.layout.text()->length, 12);
  EXPECT_EQ(info.calls[0].dtype, GetParam().options.dtype);
  EXPECT_EQ(info.calls[0].kvHeads, 2);
  EXPECT_TRUE(info.calls[0].hasLse && info.calls[0].hasOut);
  EXPECT_FALSE(info.calls[1].hasLse || info.calls[1].hasOut);
  for (int h = 0; h < 4; ++h) {
    const HeadData data = trace->load({call(1, 0).id, h});
    EXPECT_THAT(data.warnings, IsEmpty());
    expectEqual(data.input.q, values(kTokens, kDim, h));
    expectEqual(data.input.k, values(kTokens, kDim, 10 + h / 2));
    expectEqual(data.input.v, values(kTokens, kDim, 20 + h / 2));
    EXPECT_EQ(*trace->storedLse(data.id), values(1, kTokens, 50 + h));
    EXPECT_EQ(*trace->storedOut(data.id), values(kTokens, kDim, 60 + h));
  }
  // The chunk rule, and only filters that every HDF5 library has.
  const h5::File file = h5::File::openRead(folder / "t.h5");
  const h5::DatasetInfo q = file.openDataset(info.calls[0].path + "/q").info();
  if (GetParam().options.contiguous) {
    EXPECT_EQ(q.layout, h5::Layout::Contiguous);
  } else {
    ASSERT_EQ(q.chunk.size(), 3U);
    EXPECT_EQ(q.chunk[0], 1);
    EXPECT_LE(q.chunk[1] * q.chunk[2] * static_cast<Index>(q.type.size), Index{1} << 20);
  }
  EXPECT_EQ(q.filters.size(), GetParam().options.deflate > 0 ? 2U : 0U);
}

INSTANTIATE_TEST_SUITE_P(All, TraceWriterForms,
                         testing::Values(Form{"Float16", {}}, Form{"Float32", {DType::F32, 0, false, false}},
                                         Form{"Bfloat16", {DType::BF16, 0, false, false}},
                                         Form{"Bfloat16Float", {DType::BF16, 0, false, true}},
                                         Form{"Deflate", {DType::F16, 1, false, false}},
                                         Form{"DeflateFloat32", {DType::F32, 9, false, false}},
                                         Form{"Contiguous", {DType::F16, 0, true, false}}),
                         [](const auto& test) { return test.param.name; });

TEST(TraceWriter, MasksSubsetsAndOtherLengths) {
  const TemporaryFolder folder;
  std::vector<std::uint8_t> valid(kTokens, 1);
  valid[0] = 0;
  const std::vector<Index> rows{1, 5, 299};
  {
    TraceWriter writer(folder / "t.h5", header());
    CallHeader c = call(1, 0);
    c.keyValid = valid;
    c.qRows = rows;
    c.nQ = 3;
    writeCall(writer, c);
    CallHeader shorter = call(1, 1);
    shorter.layout = header().layout;
    shorter.layout->tokenCount = 298;
    shorter.layout->segments = {{SegmentKind::Text, 0, 10, 0, 0, 0}, {SegmentKind::Video, 10, 288, 4, 8, 9}};
    shorter.nQ = shorter.nK = 298;
    writeCall(writer, shorter);
    writer.finish();
  }
  const auto trace = openTrace(folder / "t.h5");
  const HeadData data = trace->load({call(1, 0).id, 1});
  EXPECT_THAT(data.qRows, ElementsAre(1, 5, 299));
  EXPECT_EQ(data.validKeyCount(), 299);
  EXPECT_EQ(trace->info().find(call(1, 1).id)->layout.video()->start, 10);
}

TEST(TraceWriter, WithoutFinishNothingIsLeft) {
  const TemporaryFolder folder;
  {
    TraceWriter writer(folder / "t.h5", header());
    writeCall(writer, call(1, 0));
    writer.beginCall(call(2, 0));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(TraceWriter, RefusesWhatTheTypeCannotHold) {
  const TemporaryFolder folder;
  const auto attempt = [&](float value, DType dtype) -> std::string {
    TraceWriterOptions options;
    options.dtype = dtype;
    TraceWriter writer(folder / "t.h5", header(), options);
    writer.beginCall(call(1, 0));
    auto q = values(kTokens, kDim, 0);
    q[25] = value;
    try {
      writer.writeQuery(0, viewOf(q, kTokens, kDim));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(attempt(70000.0F, DType::F16),
              testing::AllOf(HasSubstr("70000 does not fit float16"), HasSubstr("bfloat16")));
  EXPECT_EQ(attempt(65504.0F, DType::F16), "");
  EXPECT_EQ(attempt(70000.0F, DType::BF16), "");
  EXPECT_THAT(attempt(std::numeric_limits<float>::quiet_NaN(), DType::F32), HasSubstr("[0, 2, 1] is NaN"));
}

TEST(TraceWriter, RefusesBrokenCalls) {
  const TemporaryFolder folder;
  TraceWriter writer(folder / "t.h5", header());
  EXPECT_THROW(writer.endCall(), Error);
  CallHeader c = call(1, 0);
  c.kvHeads = 3;
  EXPECT_THROW(writer.beginCall(c), Error);
  c = call(1, 0);
  c.scale = 0;
  EXPECT_THROW(writer.beginCall(c), Error);
  writer.beginCall(call(1, 0));
  EXPECT_THROW(writer.writeQuery(0, viewOf(values(10, kDim, 0), 10, kDim)), Error);
  EXPECT_THROW(writer.endCall(), Error);  // heads are missing
}

TEST(TraceWriter, AFullDiskLeavesTheTargetAndNoTemporary) {
  const TemporaryFolder folder;
  const fs::path disk = folder / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=5m") != 0) GTEST_SKIP() << "no right to mount a small disk";
  std::ofstream(disk / "t.h5") << "old";
  try {
    TraceWriter writer(disk / "t.h5", header());
    CallHeader big = call(1, 0);
    big.nQ = big.nK = 60000;
    writeCall(writer, big);
    ADD_FAILURE() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Io);
    EXPECT_THAT(error.what(), HasSubstr("disk is full"));
  }
  EXPECT_EQ(fs::file_size(disk / "t.h5"), 3U);
  EXPECT_EQ(std::distance(fs::directory_iterator(disk), fs::directory_iterator()), 1);
  ::umount(disk.c_str());
}

TEST(TraceWriter, RoundsToNearestEven) {
  using trace::floatToBfloat;
  using trace::floatToHalf;
  EXPECT_EQ(floatToHalf(1.0F), 0x3c00);
  EXPECT_EQ(floatToHalf(-2.0F), 0xc000);
  EXPECT_EQ(floatToHalf(1.0F + 0x1p-11F), 0x3c00);      // tie, down to even
  EXPECT_EQ(floatToHalf(1.0F + 3 * 0x1p-11F), 0x3c02);  // tie, up to even
  EXPECT_EQ(floatToHalf(65504.0F), 0x7bff);
  EXPECT_EQ(floatToHalf(65519.0F), 0x7bff);
  EXPECT_EQ(floatToHalf(65520.0F), 0x7c00);
  EXPECT_EQ(floatToHalf(0x1p-24F), 0x0001);  // smallest subnormal
  EXPECT_EQ(floatToHalf(0x1p-25F), 0x0000);  // tie to zero
  EXPECT_EQ(floatToHalf(0x1.8p-25F), 0x0001);
  EXPECT_EQ(floatToHalf(-0.0F), 0x8000);
  EXPECT_EQ(floatToBfloat(1.0F + 0x1p-8F), 0x3f80);
  EXPECT_EQ(floatToBfloat(1.0F + 3 * 0x1p-8F), 0x3f82);
  // Every half survives the way through float.
  for (std::uint32_t bits = 0; bits < 0x7c00U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    float value = 0;
    const MatrixView one{reinterpret_cast<const std::byte*>(&half), 1, 1, 2, DType::F16};
    rowToFloat(one, 0, {&value, 1});
    ASSERT_EQ(floatToHalf(value), half);
  }
}

}  // namespace
}  // namespace sparsight
