// SPDX-License-Identifier: Apache-2.0
// What the reader returns: types, layouts, grouped heads, masks, subsets, orders, parts, and what it refuses while
// reading.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::buildTrace;
using testing_support::builtValue;
using testing_support::firstCall;
using testing_support::Hdf5Editor;
using testing_support::Stored;
using testing_support::TemporaryFolder;
using testing_support::TraceSpec;

const std::string kCall = "/data/step_0005/cond/layer_000/self";
const CallId kId{5, "cond", 0, "self", 0};

// Every element of a matrix against the builder's function.
void expectBuilt(const MatrixView& view, char tensor, Index head, const std::vector<Index>& tokens = {}) {
  std::vector<float> row(static_cast<std::size_t>(view.cols));
  for (Index r = 0; r < view.rows; ++r) {
    rowToFloat(view, r, row);
    const Index token = tokens.empty() ? r : tokens[static_cast<std::size_t>(r)];
    for (Index c = 0; c < view.cols; ++c) {
      ASSERT_EQ(row[static_cast<std::size_t>(c)], builtValue(tensor, head, token, c))
          << tensor << " head " << head << " row " << r << " channel " << c;
    }
  }
}

template <class F>
Error errorOf(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(ErrorCode::Internal, "none");
}

struct StorageCase {
  std::string name;
  Stored stored;
  DType dtype;
  std::vector<Index> chunk;
  int deflate = 0;
  bool shuffle = false;
};
void PrintTo(const StorageCase& c, std::ostream* out) { *out << c.name; }

TraceSpec specOf(const StorageCase& c) {
  TraceSpec spec;
  spec.stored = c.stored;
  spec.chunk = c.chunk;
  spec.deflate = c.deflate;
  spec.shuffle = c.shuffle;
  return spec;
}

class TraceReaderStorage : public testing::TestWithParam<StorageCase> {};

TEST_P(TraceReaderStorage, ValuesAreExact) {
  const StorageCase& c = GetParam();
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5", specOf(c));
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_THAT(trace->info().warnings, IsEmpty());
  ASSERT_EQ(trace->info().calls.size(), 1U);
  EXPECT_EQ(trace->info().calls[0].dtype, c.dtype);
  for (int head = 0; head < 2; ++head) {
    const HeadData data = trace->load({kId, head});
    EXPECT_EQ(data.input.q.dtype, c.dtype);  // 16-bit stays 16-bit
    EXPECT_EQ(data.bytes, 3 * 28 * 8 * static_cast<Index>(itemSize(c.dtype)));
    expectBuilt(data.input.q, 'q', head);
    expectBuilt(data.input.k, 'k', head);
    expectBuilt(data.input.v, 'v', head);
  }
}

// An outline is what loadScores gives, without the values, whatever storage it reads by itself or leaves alone.
TEST_P(TraceReaderStorage, AnOutlineNamesTheSameValues) {
  const StorageCase& c = GetParam();
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5", specOf(c));
  const auto trace = openTrace(folder / "t.h5");
  const bool bigEndian = c.stored == Stored::Float16BigEndian || c.stored == Stored::Float32BigEndian;
  const bool direct = c.deflate == 0 && !bigEndian && (c.chunk.empty() || c.chunk[2] == 8);
  for (int head = 0; head < 2; ++head) {
    const auto outline = trace->outline({kId, head});
    ASSERT_EQ(outline.has_value(), direct);
    const HeadData data = trace->loadScores({kId, head});
    if (!outline) continue;
    EXPECT_EQ(outline->queries, matrixHash(data.input.q));
    EXPECT_EQ(outline->keys, matrixHash(data.input.k));
    EXPECT_NE(outline->queries, outline->keys);
    EXPECT_EQ(outline->head.input.q.data, nullptr);
    EXPECT_EQ(outline->head.input.k.data, nullptr);
    EXPECT_EQ(outline->head.input.q.rows, data.input.q.rows);
    EXPECT_EQ(outline->head.input.k.rows, data.input.k.rows);
    EXPECT_EQ(outline->head.input.q.cols, data.input.q.cols);
    EXPECT_EQ(outline->head.input.q.dtype, c.dtype);
    EXPECT_EQ(outline->head.input.scale, data.input.scale);
    EXPECT_EQ(outline->head.id, data.id);
    EXPECT_EQ(outline->head.bytes, 0) << "no tensor is held";
    EXPECT_FALSE(trace->outline({kId, head})) << "the head is in memory now";
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TraceReaderStorage,
    testing::Values(StorageCase{"Float16", Stored::Float16, DType::F16, {}},
                    StorageCase{"Bfloat16AsUint16", Stored::Bfloat16Uint16, DType::BF16, {}},
                    StorageCase{"Bfloat16AsFloat", Stored::Bfloat16Float, DType::BF16, {}},
                    StorageCase{"Float32", Stored::Float32, DType::F32, {}},
                    StorageCase{"Float16BigEndian", Stored::Float16BigEndian, DType::F16, {}},
                    StorageCase{"Float32BigEndian", Stored::Float32BigEndian, DType::F32, {}},
                    StorageCase{"Chunked", Stored::Float16, DType::F16, {1, 8, 8}},
                    StorageCase{"ChunkedRagged", Stored::Float32, DType::F32, {1, 9, 8}},
                    StorageCase{"ChunkOfTwoHeads", Stored::Float16, DType::F16, {2, 9, 8}},
                    StorageCase{"ChunkAcrossChannels", Stored::Float16, DType::F16, {2, 5, 3}},
                    StorageCase{"Deflate", Stored::Float16, DType::F16, {1, 16, 8}, 4, false},
                    StorageCase{"ShuffleDeflate", Stored::Bfloat16Uint16, DType::BF16, {1, 16, 8}, 1, true},
                    StorageCase{"ShuffleDeflateBigEndian", Stored::Float32BigEndian, DType::F32, {1, 7, 8}, 9, true}),
    [](const auto& test) { return test.param.name; });

// Addresses in such a file count from where the user block ends.
TEST(TraceReader, AUserBlockBeforeTheFileShiftsNothing) {
  for (const std::vector<Index>& chunk : {std::vector<Index>{}, std::vector<Index>{1, 9, 8}}) {
    const TemporaryFolder folder;
    TraceSpec spec;
    spec.chunk = chunk;
    buildTrace(folder / "plain.h5", spec);
    {
      std::ifstream in(folder / "plain.h5", std::ios::binary);
      std::ofstream out(folder / "t.h5", std::ios::binary);
      out << std::string(512, '#') << in.rdbuf();
    }
    const auto trace = openTrace(folder / "t.h5");
    const auto outline = trace->outline({kId, 1});
    const HeadData data = trace->load({kId, 1});
    expectBuilt(data.input.q, 'q', 1);
    expectBuilt(data.input.k, 'k', 1);
    if (outline) {
      EXPECT_EQ(outline->queries, matrixHash(data.input.q));
    }
  }
}

TEST(TraceReader, MetadataOfACall) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.steps = {3, 5, 11};
  spec.branches = {"uncond", "cond"};
  spec.layers = {0, 7};
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  const TraceInfo& info = trace->info();
  EXPECT_EQ(info.calls.size(), 12U);
  EXPECT_TRUE(
      std::is_sorted(info.calls.begin(), info.calls.end(), [](const auto& a, const auto& b) { return a.id < b.id; }));
  EXPECT_THAT(info.steps(), ElementsAre(3, 5, 11));
  EXPECT_THAT(info.layers(), ElementsAre(0, 7));
  EXPECT_THAT(info.branches(), ElementsAre("cond", "uncond"));
  EXPECT_EQ(info.defaultBranch(), "cond");
  const CallInfo* call = info.callAt(5, "uncond", 7);
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->module, "blocks.7.attn1");
  EXPECT_DOUBLE_EQ(call->timestep, 750.0);
  EXPECT_EQ(call->layout.tokenCount, 28);
  EXPECT_EQ(info.callAt(4, "cond", 7), nullptr);
  EXPECT_EQ(info.find({5, "cond", 1, "self", 0}), nullptr);
  EXPECT_EQ(info.model.family, "wan2.1");
  EXPECT_THAT(errorOf([&] {
                (void)trace->load({{4, "cond", 0, "self", 0}, 0});
              }).what(),
              HasSubstr("captured are steps 3 5 11"));
  EXPECT_EQ(errorOf([&] { (void)trace->load({{5, "cond", 0, "self", 0}, 9}); }).code(), ErrorCode::InvalidArgument);
}

TEST(TraceReader, SeveralKindsAndCallsOfALayer) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.copy(kCall, kCall + ".1");
    edit.setInt(kCall + ".1", "call", 1);
    edit.copy(kCall, "/data/step_0005/cond/layer_000/cross");
    const std::string cross = "/data/step_0005/cond/layer_000/cross";
    edit.setString(cross, "kind", "cross");
    edit.dataset(cross + "/k", {2, 5, 8}, std::vector<float>(80, 0.5F));
    edit.dataset(cross + "/v", {2, 5, 8}, std::vector<float>(80, 0.5F));
    edit.setInt(cross, "n_k", 5);
  }
  const auto trace = openTrace(folder / "t.h5");
  ASSERT_EQ(trace->info().calls.size(), 3U);
  EXPECT_EQ(trace->info().callAt(5, "cond", 0)->id, kId);
  const HeadData cross = trace->load({{5, "cond", 0, "cross", 0}, 1});
  EXPECT_EQ(cross.input.q.rows, 28);
  EXPECT_EQ(cross.input.k.rows, 5);  // cross-attention keys are other tokens
  EXPECT_TRUE(cross.input.queryValid.empty());
  EXPECT_EQ(trace->load({{5, "cond", 0, "self", 1}, 0}).input.k.rows, 28);
}

TEST(TraceReader, TextFirstLastAndNone) {
  const TemporaryFolder folder;
  for (const auto& [first, text] : {std::pair{true, 4}, {false, 4}, {false, 0}}) {
    for (const bool segments : {true, false}) {
      TraceSpec spec;
      spec.textFirst = first;
      spec.text = text;
      spec.segments = segments;
      buildTrace(folder / "t.h5", spec);
      const auto trace = openTrace(folder / "t.h5");
      const TokenLayout& layout = trace->info().layout;
      ASSERT_NE(layout.video(), nullptr);
      EXPECT_EQ(layout.video()->start, first ? 4 : 0);
      EXPECT_EQ(layout.text() != nullptr, text > 0);
      const Index token = layout.video()->start + 12 + 4 + 3;  // frame 1, row 1, column 3
      EXPECT_EQ(layout.cellOf(token), (GridCell{1, 1, 3}));
      if (text > 0) {
        EXPECT_EQ(layout.describe(layout.text()->start + 2), "text 2");
      }
    }
  }
}

TEST(TraceReader, GroupedQueryAttentionSharesKeyValueHeads) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.heads = 6;
  spec.kvHeads = 2;
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  for (int head = 0; head < 6; ++head) {
    const HeadData data = trace->load({kId, head});
    expectBuilt(data.input.q, 'q', head);
    expectBuilt(data.input.k, 'k', head / 3);
    expectBuilt(data.input.v, 'v', head / 3);
  }
  // Two query heads of a group hold the very same keys in memory.
  EXPECT_EQ(trace->load({kId, 0}).input.k.data, trace->load({kId, 2}).input.k.data);
  EXPECT_NE(trace->load({kId, 0}).input.k.data, trace->load({kId, 3}).input.k.data);
}

TEST(TraceReader, GroupedHeadsOfASubsetGoByHeadId) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.heads = 4;
  spec.kvHeads = 2;
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.setInt("/model", "num_heads", 8);
    edit.setInt("/model", "num_kv_heads", 2);
    edit.setInts(kCall, "heads", {1, 2, 3, 6});  // groups of the model: 0-3 and 4-7
  }
  const auto trace = openTrace(folder / "t.h5");
  expectBuilt(trace->load({kId, 3}).input.k, 'k', 0);
  expectBuilt(trace->load({kId, 6}).input.k, 'k', 1);
  expectBuilt(trace->load({kId, 6}).input.q, 'q', 3);
}

TEST(TraceReader, KeyValidMakesPaddingQueriesInvalid) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.keyValid.assign(28, 1);
  spec.keyValid[26] = spec.keyValid[27] = 0;
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  const auto outline = trace->outline({kId, 0});
  const HeadData data = trace->load({kId, 0});
  ASSERT_TRUE(outline);
  EXPECT_TRUE(std::ranges::equal(outline->head.input.keyValid, data.input.keyValid));
  EXPECT_TRUE(std::ranges::equal(outline->head.input.queryValid, data.input.queryValid));
  EXPECT_EQ(data.validKeyCount(), 26);
  EXPECT_EQ(data.validRows().size(), 26U);
  EXPECT_EQ(data.input.queryValid[27], 0);
}

TEST(TraceReader, AllKeysPaddingIsRefused) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.keyValid.assign(28, 0);
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_THAT(errorOf([&] { (void)trace->load({kId, 0}); }).what(), HasSubstr("marks every key as padding"));
}

TEST(TraceReader, QuerySubsetKeepsItsTokensAndValidity) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.qRows = {0, 3, 9, 27};
  spec.keyValid.assign(28, 1);
  spec.keyValid[27] = 0;
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_TRUE(trace->info().calls[0].qSubset);
  const HeadData data = trace->load({kId, 1});
  EXPECT_EQ(data.input.q.rows, 4);
  EXPECT_EQ(data.input.k.rows, 28);
  EXPECT_EQ(data.queryToken(2), 9);
  EXPECT_THAT(data.validRows(), ElementsAre(0, 1, 2));  // token 27 is padding
  expectBuilt(data.input.q, 'q', 1, spec.qRows);
}

TEST(TraceReader, QueryRowsOfACallReplaceTheGlobalOnes) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.qRows = {0, 3, 9, 27};
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.datasetInt64(kCall + "/q_rows", {4}, {1, 2, 5, 8});
  }
  EXPECT_THAT(openTrace(folder / "t.h5")->load({kId, 0}).qRows, ElementsAre(1, 2, 5, 8));
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.datasetInt64(kCall + "/q_rows", {4}, {1, 2, 2, 8});
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_THAT(errorOf([&] {
                (void)trace->load({kId, 0});
              }).what(),
              HasSubstr(kCall + "/q_rows: entry 2 (2) is not larger"));
}

TEST(TraceReader, DenseMaskAndFullyMaskedRows) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    std::vector<std::uint8_t> mask(28 * 28, 1);
    for (std::size_t k = 0; k < 28; ++k) mask[27 * 28 + k] = 0;
    mask[5] = 0;
    edit.setString(kCall, "mask", "dense");
    edit.datasetBytes(kCall + "/mask", {28, 28}, mask);
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_TRUE(trace->info().calls[0].hasDenseMask);
  const HeadData data = trace->load({kId, 0});
  ASSERT_EQ(data.input.denseMask.size(), 784U);
  EXPECT_EQ(data.input.denseMask[5], 0);
  EXPECT_EQ(data.input.denseMask[6], 1);
  EXPECT_EQ(data.validRows().size(), 27U);  // row 27 has no key at all
}

TEST(TraceReader, ReorderedCaptureComesBackInModelOrder) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.keyValid.assign(28, 1);
  spec.keyValid[0] = 0;  // file position 0
  buildTrace(folder / "t.h5", spec);
  std::vector<std::int32_t> perm(28);
  for (std::size_t i = 0; i < 28; ++i) perm[i] = static_cast<std::int32_t>((i * 5 + 2) % 28);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.datasetInt32("/tokens/perm", {28}, perm);
    std::vector<float> lse(56);
    for (std::size_t i = 0; i < 56; ++i) lse[i] = static_cast<float>(i);
    edit.dataset(kCall + "/lse", {2, 28}, lse);
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_FALSE(trace->outline({kId, 1})) << "its rows are brought into another order first";
  const HeadData data = trace->load({kId, 1});
  std::vector<Index> filePosition(28);
  for (std::size_t i = 0; i < 28; ++i) filePosition[static_cast<std::size_t>(perm[i])] = static_cast<Index>(i);
  expectBuilt(data.input.q, 'q', 1, filePosition);
  expectBuilt(data.input.k, 'k', 1, filePosition);
  expectBuilt(data.input.v, 'v', 1, filePosition);
  EXPECT_EQ(data.input.keyValid[2], 0);  // file position 0 is model token 2
  EXPECT_EQ(data.validKeyCount(), 27);
  EXPECT_EQ((*trace->storedLse({kId, 1}))[2], 28.0F);
}

TEST(TraceReader, CallsOfOtherLengthOverrideTheLayout) {
  const TemporaryFolder folder;
  for (const bool textFirst : {false, true}) {
    TraceSpec spec;
    spec.textFirst = textFirst;
    buildTrace(folder / "t.h5", spec);
    {
      Hdf5Editor edit(folder / "t.h5");
      for (const char* tensor : {"/q", "/k", "/v"})
        edit.dataset(kCall + tensor, {2, 26, 8}, std::vector<float>(416, 0.25F));
      edit.setInt(kCall, "n_q", 26);
      edit.setInt(kCall, "n_k", 26);
      edit.setInt(kCall, "n_tokens", 26);
      edit.setInt(kCall, "text_start", textFirst ? 0 : 24);
      edit.setInt(kCall, "text_len", 2);
    }
    const auto trace = openTrace(folder / "t.h5");
    const CallInfo& call = trace->info().calls[0];
    EXPECT_EQ(call.layout.tokenCount, 26);
    EXPECT_EQ(call.layout.text()->length, 2);
    EXPECT_EQ(call.layout.video()->start, textFirst ? 2 : 0);
    EXPECT_EQ(trace->info().layout.tokenCount, 28);
    EXPECT_EQ(trace->load({kId, 0}).layout.tokenCount, 26);
  }
}

TEST(TraceReader, AttributesInEveryDressOfForeignWriters) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    using P = Hdf5Editor::Padding;
    edit.setFixedStrings("/", "format", {"sparsight-trace"}, 15, P::NullPadded);  // fills its field: no terminator
    edit.setFixedStrings("/", "required_features", {}, 1, P::NullPadded);
    edit.setBool("/", "complete", true);
    edit.setFixedStrings(kCall, "branch", {"cond"}, 12, P::Space);
    edit.setFixedStrings(kCall, "mask", {"none"}, 5, P::NullTerminated);
    edit.setInt(kCall, "step", 5, 8);
    edit.setInt(kCall, "layer", 0, 16);  // big-endian int16
    edit.setInts(kCall, "call", {0});    // one-element array
    edit.setReal(kCall, "scale", std::sqrt(0.125), 32);
    edit.setString("/", "vendor_note", "unknown names are ignored");
    edit.dataset("/vendor/data", {2}, {1, 2});
    edit.dataset("/data/step_0005/cond/notes", {2}, {1, 2});
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_THAT(trace->info().warnings, IsEmpty());
  ASSERT_EQ(trace->info().calls.size(), 1U);
  EXPECT_EQ(trace->info().calls[0].id, kId);
  expectBuilt(trace->load({kId, 0}).input.q, 'q', 0);
}

TEST(TraceReader, EmptyRequiredFeaturesMayBeADataset) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.dataset("/required_features", {0}, {});
  }
  EXPECT_EQ(openTrace(folder / "t.h5")->info().calls.size(), 1U);
}

// ---------------------------------------------------------------------------------------------------------------------
// Split files

void splitStep(const TemporaryFolder& folder) {
  TraceSpec spec;
  spec.steps = {5, 6};
  buildTrace(folder / "master.h5", spec);
  buildTrace(folder / "master.step_0006.h5", spec);
  Hdf5Editor edit(folder / "master.h5");
  edit.remove("/data/step_0006");
  edit.externalLink("/data/step_0006", "master.step_0006.h5", "/data/step_0006");
}

TEST(TraceReader, PartsOfASplitTraceAreFollowed) {
  const TemporaryFolder folder;
  splitStep(folder);
  const auto trace = openTrace(folder / "master.h5");
  EXPECT_THAT(trace->info().warnings, IsEmpty());
  EXPECT_THAT(trace->info().steps(), ElementsAre(5, 6));
  expectBuilt(trace->load({{6, "cond", 0, "self", 0}, 1}).input.k, 'k', 1);
  expectBuilt(trace->load({kId, 1}).input.k, 'k', 1);
}

TEST(TraceReader, MissingPartIsNamedAndNotFatal) {
  const TemporaryFolder folder;
  splitStep(folder);
  std::filesystem::remove(folder / "master.step_0006.h5");
  const auto trace = openTrace(folder / "master.h5");
  ASSERT_EQ(trace->info().warnings.size(), 1U);
  EXPECT_THAT(trace->info().warnings[0], HasSubstr("'master.step_0006.h5' is missing; put it beside 'master.h5'"));
  const CallInfo* call = trace->info().find({6, "cond", 0, "self", 0});
  ASSERT_NE(call, nullptr);
  EXPECT_FALSE(call->available);
  EXPECT_THAT(call->unavailableReason, HasSubstr("master.step_0006.h5"));
  EXPECT_THAT(errorOf([&] { (void)trace->load({call->id, 0}); }).what(), HasSubstr("not available: part file"));
  expectBuilt(trace->load({kId, 0}).input.q, 'q', 0);
}

TEST(TraceReader, DamagedPartIsNamedAndNotFatal) {
  const TemporaryFolder folder;
  splitStep(folder);
  std::ofstream(folder / "master.step_0006.h5") << "nothing of use";
  const auto trace = openTrace(folder / "master.h5");
  ASSERT_EQ(trace->info().warnings.size(), 1U);
  EXPECT_THAT(trace->info().warnings[0], HasSubstr("is not an HDF5 file"));
  EXPECT_FALSE(trace->info().find({6, "cond", 0, "self", 0})->available);
}

TEST(TraceReader, LinksDeepInAPartAreNotFollowedOutside) {
  const TemporaryFolder folder;
  splitStep(folder);
  {
    Hdf5Editor edit(folder / "master.step_0006.h5");
    edit.remove("/data/step_0006/cond/layer_000/self/q");
    edit.externalLink("/data/step_0006/cond/layer_000/self/q", "master.h5", kCall + "/q");
  }
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "master.h5"); }).what(), HasSubstr("dataset 'q' is missing"));
}

TEST(TraceReader, VirtualDatasetsReadFromTheirSource) {
  const TemporaryFolder folder;
  buildTrace(folder / "source.h5");
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.virtualDataset(kCall + "/k", {2, 28, 8}, "source.h5", kCall + "/k");
  }
  {
    const auto trace = openTrace(folder / "t.h5");
    EXPECT_TRUE(trace->info().calls[0].available);
    expectBuilt(trace->load({kId, 1}).input.k, 'k', 1);
  }
  std::filesystem::remove(folder / "source.h5");
  {
    const auto trace = openTrace(folder / "t.h5");
    EXPECT_FALSE(trace->info().calls[0].available);
    EXPECT_THAT(trace->info().calls[0].unavailableReason, HasSubstr("'source.h5' is missing"));
  }
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.virtualDataset(kCall + "/k", {2, 28, 8}, "../source.h5", kCall + "/k");
  }
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "t.h5"); }).what(), HasSubstr("outside the file's folder"));
}

// ---------------------------------------------------------------------------------------------------------------------
// What was never written, what is too large, what is not a number

TEST(TraceReader, UnwrittenChunksAreNotAvailable) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.stored = Stored::Float16;
  spec.layers = {0, 1};
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.unallocated(kCall + "/v", {2, 28, 8}, {1, 14, 8});
  }
  const auto trace = openTrace(folder / "t.h5");
  const CallInfo* call = trace->info().find(kId);
  EXPECT_FALSE(call->available);
  EXPECT_THAT(call->unavailableReason, HasSubstr("/v: was never written"));
  EXPECT_THAT(trace->info().warnings, ElementsAre(HasSubstr("2 of 2 heads are not available")));
  EXPECT_TRUE(trace->info().find({5, "cond", 1, "self", 0})->available);
}

TEST(TraceReader, HeadsWithUnwrittenChunksAreNotAvailable) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.heads = 4;
  spec.kvHeads = 2;
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.partlyAllocated(kCall + "/k", {2, 28, 8}, {1, 14, 8}, 1);  // K/V head 1 serves heads 2 and 3
  }
  const auto trace = openTrace(folder / "t.h5");
  const CallInfo& call = trace->info().calls[0];
  EXPECT_TRUE(call.available);
  EXPECT_THAT(call.unavailableHeads, ElementsAre(0, 1));
  EXPECT_EQ(errorOf([&] { (void)trace->load({kId, 1}); }).code(), ErrorCode::Io);
  EXPECT_EQ(trace->load({kId, 2}).input.k.rows, 28);
}

TEST(TraceReader, NotANumberIsNamedWithItsPlace) {
  for (const auto& [tensor, value] : {std::pair{"/q", std::numeric_limits<float>::quiet_NaN()},
                                      {"/k", std::numeric_limits<float>::infinity()},
                                      {"/v", -std::numeric_limits<float>::infinity()}}) {
    for (const Stored stored : {Stored::Float32, Stored::Float16, Stored::Bfloat16Float}) {
      const TemporaryFolder folder;
      TraceSpec spec;
      spec.stored = stored;
      buildTrace(folder / "t.h5", spec);
      {
        Hdf5Editor edit(folder / "t.h5");
        edit.overwrite(kCall + tensor, 28 * 8 + 27 * 8 + 3, value);  // the very last row of head 1
      }
      const auto trace = openTrace(folder / "t.h5");
      EXPECT_NO_THROW((void)trace->load({kId, 0}));
      const Error error = errorOf([&] { (void)trace->load({kId, 1}); });
      EXPECT_EQ(error.code(), ErrorCode::Format);
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("t.h5: " + kCall + tensor),
                                               HasSubstr("[1, 27, 3] is NaN or infinite"), HasSubstr("capture again")));
    }
  }
}

TEST(TraceReader, AllZeroKeysAreAWarning) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.dataset(kCall + "/v", {2, 28, 8}, std::vector<float>(448));
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_THAT(trace->load({kId, 0}).warnings, ElementsAre(HasSubstr("all zero")));
  EXPECT_THAT(trace->load({kId, 0}).warnings, ElementsAre(HasSubstr("all zero")));  // from the cache too
}

TEST(TraceReader, ValuesAboveTheStatedMaximumAreAWarning) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.setInts(kCall, "absmax", {2, 1, 2});  // K reaches almost 2
  }
  EXPECT_THAT(openTrace(folder / "t.h5")->load({kId, 0}).warnings,
              ElementsAre(testing::AllOf(HasSubstr("/k: head 0 reaches"), HasSubstr("'absmax' says 1"))));
}

TEST(TraceReader, ATrillionTokensAreRefusedBeforeAnyAllocation) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    const Index n = 1000000000000;
    edit.setInt("/tokens", "n_tokens", n);
    edit.remove("/tokens/segments");
    edit.setInt("/tokens", "text_start", 24);
    edit.setInt("/tokens", "text_len", n - 24);
    for (const char* tensor : {"/q", "/k", "/v"}) edit.unallocated(kCall + tensor, {2, n, 8}, {1, 1024, 8});
    edit.setInt(kCall, "n_q", n);
    edit.setInt(kCall, "n_k", n);
  }
  const Error error = errorOf([&] { (void)openTrace(folder / "t.h5"); });
  EXPECT_EQ(error.code(), ErrorCode::OutOfMemory);
  EXPECT_THAT(error.what(), testing::AllOf(HasSubstr(kCall), HasSubstr("TiB"), HasSubstr("--memory-limit")));
}

TEST(TraceReader, SizesThatOverflowAreRefused) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    for (const char* tensor : {"/q", "/k", "/v"})
      edit.unallocated(kCall + tensor, {2, Index{1} << 31, Index{1} << 31}, {1, 1024, 8});
  }
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "t.h5"); }).what(), HasSubstr("overflows"));
}

TEST(TraceReader, HeadsAboveTheMemoryLimitAreRefused) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  TraceOptions options;
  options.memoryLimitBytes = 2000;  // a head has 3 x 28 x 8 x 4 = 2688 bytes
  const Error error = errorOf([&] { (void)openTrace(folder / "t.h5", options); });
  EXPECT_EQ(error.code(), ErrorCode::OutOfMemory);
  EXPECT_THAT(error.what(), HasSubstr("2.6 KiB"));
}

TEST(TraceReader, TruncatedEmptyAndForeignFiles) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  const auto size = std::filesystem::file_size(folder / "t.h5");
  for (const auto keep : {size - 1, size / 2, std::uintmax_t{600}, std::uintmax_t{96}}) {
    std::filesystem::copy_file(folder / "t.h5", folder / "cut.h5", std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder / "cut.h5", keep);
    const Error error = errorOf([&] { (void)openTrace(folder / "cut.h5"); });
    EXPECT_EQ(error.code(), ErrorCode::Format) << keep;
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("cut.h5"), HasSubstr("truncated"), HasSubstr("copy")));
  }
  std::ofstream(folder / "empty.h5").flush();
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "empty.h5"); }).what(), HasSubstr("is empty"));
  std::ofstream(folder / "text.h5") << "Step,Layer";
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "text.h5"); }).what(), HasSubstr("not an HDF5 file"));
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder / "none.h5"); }).what(), HasSubstr("no such file"));
  EXPECT_THAT(errorOf([&] { (void)openTrace(folder.path()); }).what(), HasSubstr("is a folder"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory, threads, stop

TEST(TraceReader, ASecondLoadComesFromTheCache) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  const auto trace = openTrace(folder / "t.h5");
  const HeadData a = trace->load({kId, 0});
  EXPECT_EQ(a.input.q.data, trace->load({kId, 0}).input.q.data);
}

TEST(TraceReader, TheCacheIsBoundedAndDropsTheOldest) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.heads = spec.kvHeads = 4;
  buildTrace(folder / "t.h5", spec);
  TraceOptions options;
  options.cacheBytes = 2 * 3 * 28 * 8 * 4;  // two heads
  const auto trace = openTrace(folder / "t.h5", options);
  const HeadData first = trace->load({kId, 0});
  (void)trace->load({kId, 1});
  (void)trace->load({kId, 2});
  const HeadData again = trace->load({kId, 0});
  EXPECT_NE(first.input.q.data, again.input.q.data);  // dropped and read again
  expectBuilt(first.input.q, 'q', 0);                 // but alive for whoever holds it
}

TEST(TraceReader, StopIsSeenBeforeAnythingIsRead) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  const auto trace = openTrace(folder / "t.h5");
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW((void)trace->load({kId, 0}, source.get_token()), Cancelled);
  EXPECT_THROW((void)trace->outline({kId, 0}, source.get_token()), Cancelled);
  EXPECT_NO_THROW((void)trace->load({kId, 0}));
}

TEST(TraceReader, LoadsFromSeveralThreadsAtOnce) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.heads = spec.kvHeads = 8;
  spec.chunk = {1, 8, 8};
  spec.deflate = 1;
  buildTrace(folder / "t.h5", spec);
  TraceOptions options;
  options.cacheBytes = 4000;
  const auto trace = openTrace(folder / "t.h5", options);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const int head = (i * 3 + t) % 8;
        const HeadData data = trace->load({kId, head});
        std::vector<float> row(8);
        rowToFloat(data.input.v, 13, row);
        for (Index c = 0; c < 8; ++c) wrong += row[static_cast<std::size_t>(c)] != builtValue('v', head, 13, c) ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(TraceReader, OpensATwentyGigabyteSparseFileByItsMetadata) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.layers = {0, 1, 2, 3, 4, 5, 6, 7};
  spec.stored = Stored::Float16;
  buildTrace(folder / "t.h5", spec);
  const Index n = 75600;
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.remove("/tokens/segments");
    edit.setInt("/tokens", "n_tokens", n);
    edit.setInts("/tokens", "grid", {21, 45, 80});
    edit.setInt("/tokens", "video_len", n);
    edit.setInt("/tokens", "text_len", 0);
    edit.setInt("/model", "num_heads", 40);
    std::vector<std::int64_t> heads(40);
    for (std::size_t i = 0; i < 40; ++i) heads[i] = static_cast<std::int64_t>(i);
    for (int layer = 0; layer < 8; ++layer) {
      const std::string call = "/data/step_0005/cond/layer_00" + std::to_string(layer) + "/self";
      for (const char* tensor : {"/q", "/k", "/v"}) edit.unallocated(call + tensor, {40, n, 128}, {1, 4096, 128});
      edit.setInts(call, "heads", heads);
      edit.setInt(call, "n_q", n);
      edit.setInt(call, "n_k", n);
      edit.setReal(call, "scale", 1 / std::sqrt(128.0));
    }
    edit.setInt("/model", "head_dim", 128);
  }
  std::filesystem::resize_file(folder / "t.h5", std::uintmax_t{20} << 30);  // a hole
  struct rusage before {
  }, after{};
  getrusage(RUSAGE_SELF, &before);
  const auto trace = openTrace(folder / "t.h5");
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(trace->info().calls.size(), 8U);
  EXPECT_FALSE(trace->info().calls[0].available);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 100 * 1024) << "KiB of growth";
}

// ---------------------------------------------------------------------------------------------------------------------
// Extras

TEST(TraceReader, StoredOutAndLseOfAHead) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    std::vector<float> out(448), lse(56);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(i);
    for (std::size_t i = 0; i < lse.size(); ++i) lse[i] = -static_cast<float>(i);
    edit.dataset(kCall + "/out", {2, 28, 8}, out);
    edit.dataset(kCall + "/lse", {2, 28}, lse);
  }
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_TRUE(trace->info().calls[0].hasOut && trace->info().calls[0].hasLse);
  EXPECT_EQ((*trace->storedOut({kId, 1}))[9], 224.0F + 9.0F);
  EXPECT_EQ((*trace->storedLse({kId, 1}))[3], -31.0F);
}

TEST(TraceReader, WithoutValuesOnlyTheMapRemains) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.valueDim = 0;
  buildTrace(folder / "t.h5", spec);
  const auto trace = openTrace(folder / "t.h5");
  EXPECT_FALSE(trace->info().calls[0].hasV);
  EXPECT_EQ(trace->load({kId, 0}).input.v.data, nullptr);
  EXPECT_FALSE(trace->storedOut({kId, 0}).has_value());
}

TEST(TraceReader, FramesAndTruth) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  {
    Hdf5Editor edit(folder / "t.h5");
    std::vector<std::uint8_t> rgb(2 * 3 * 4 * 3);
    for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i);
    edit.datasetBytes("/frames/rgb", {2, 3, 4, 3}, rgb);
    edit.setReal("/frames/rgb", "fps", 12.5);
    edit.datasetBytes("/ext/synth/truth", {1, 1, 2}, {1, 0});
    edit.setFixedStrings("/ext/synth/truth", "classes", {"spatial", "temporal"}, 8, Hdf5Editor::Padding::NullPadded);
  }
  const auto trace = openTrace(folder / "t.h5");
  const auto frames = trace->frames();
  ASSERT_TRUE(frames.has_value());
  EXPECT_EQ(frames->info.width, 4);
  EXPECT_DOUBLE_EQ(frames->info.fps, 12.5);
  EXPECT_EQ(frames->rgb[70], 70);
  const auto truth = trace->truth();
  ASSERT_TRUE(truth.has_value());
  EXPECT_THAT(truth->classes, ElementsAre("spatial", "temporal"));
  EXPECT_THAT(truth->classOf, ElementsAre(1, 0));
}

TEST(TraceReader, SniffNamesTheFormat) {
  const TemporaryFolder folder;
  buildTrace(folder / "t.h5");
  EXPECT_EQ(sniffFormat(folder / "t.h5"), "trace");
  {
    Hdf5Editor edit = Hdf5Editor::create(folder / "plan.h5");
    edit.setString("/", "format", "sparsight-plan");
  }
  EXPECT_EQ(sniffFormat(folder / "plan.h5"), "plan");
  std::ofstream(folder / "p.txt") << "\xef\xbb\xbfStep,Layer,Head,Sparsity\r\n1,0,0,0.5\r\n";
  EXPECT_EQ(sniffFormat(folder / "p.txt"), "profile-csv");
  std::ofstream(folder / "p.json") << "  {\"format\": \"x\"}";
  EXPECT_EQ(sniffFormat(folder / "p.json"), "profile-json");
  std::ofstream(folder / "x.h5") << "hello world";
  EXPECT_THAT(errorOf([&] { (void)sniffFormat(folder / "x.h5"); }).what(), HasSubstr("starts with \"hello world\""));
  { Hdf5Editor edit = Hdf5Editor::create(folder / "foreign.h5"); }
  EXPECT_THAT(errorOf([&] { (void)sniffFormat(folder / "foreign.h5"); }).what(), HasSubstr("'format' is missing"));
}

}  // namespace
}  // namespace sparsight
