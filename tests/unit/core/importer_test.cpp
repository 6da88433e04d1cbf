// SPDX-License-Identifier: Apache-2.0
// Files of other programs: those their own libraries wrote (tests/data/import), and those that no library would.
#include "sparsight/core/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <random>

#include "sparsight/core/exporter.h"
#include "sparsight/core/files.h"
#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::TemporaryFolder;
namespace fs = std::filesystem;

fs::path fixture(const std::string& name) { return fs::path(SPARSIGHT_SOURCE_DIR) / "tests/data/import" / name; }

/// As tests/data/import/make_fixtures.py has it.
float value(int role, int step, int layer, int head, Index token, Index channel) {
  return static_cast<float>((role * 7 + step * 11 + layer * 13 + head * 5 + token * 3 + channel) % 64 - 32) / 16.0F;
}

ImportOptions gridOf(int t, int h, int w) {
  ImportOptions options;
  options.grid = {t, h, w};
  return options;
}

std::string imported(const fs::path& source, const fs::path& out, const ImportOptions& options) {
  const Survey survey = surveySource(source);
  const ImportPlan plan = planImport(survey, options);
  runImport(survey, plan, out, {});
  return fmt::format("{}", fmt::join(plan.assumed, "\n"));
}

/// Every element of a head is value(role, step, layer, head, ...) with the given step and layer.
void expectValues(const Trace& trace, const CallId& call, int step, int layer, bool hasV = true) {
  const CallInfo* info = trace.info().find(call);
  ASSERT_NE(info, nullptr) << call.step << " " << call.branch << " " << call.layer;
  EXPECT_EQ(info->hasV, hasV);
  EXPECT_EQ(info->heads, (std::vector<int>{0, 1}));
  EXPECT_EQ(info->absmax, (std::vector<float>{2, 2, hasV ? 2.0F : 0.0F}));
  for (const int h : info->heads) {
    const auto head = trace.load({call, h});
    const MatrixView* planes[] = {&head.input.q, &head.input.k, &head.input.v};
    for (int role = 0; role < (hasV ? 3 : 2); ++role) {
      ASSERT_EQ(planes[role]->rows, 24);
      ASSERT_EQ(planes[role]->cols, 8);
      std::vector<float> row(8);
      for (Index n = 0; n < 24; ++n) {
        rowToFloat(*planes[role], n, row);
        for (Index c = 0; c < 8; ++c) {
          ASSERT_EQ(row[static_cast<std::size_t>(c)], value(role, step, layer, h, n, c))
              << "qkv"[role] << h << " " << n << " " << c;
        }
      }
    }
  }
}

template <class F>
std::string errorOf(F&& f, std::optional<ErrorCode> code = {}) {
  try {
    f();
  } catch (const Error& error) {
    if (code) {
      EXPECT_EQ(error.code(), *code) << error.what();
    }
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return {};
}

void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string little(std::uint64_t v, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i) & 0xffU);
  return out;
}

/// A zip file with stored members, or with sizes that lie.
struct ZipEntry {
  std::string name, data;
  std::uint32_t claimed = 0;  ///< 0: the truth
  std::uint16_t method = 0;
};
std::string zipOf(const std::vector<ZipEntry>& entries) {
  std::string out, directory;
  for (const ZipEntry& e : entries) {
    const auto size = static_cast<std::uint64_t>(e.data.size());
    const std::string sizes = little(0, 4) + little(size, 4) + little(e.claimed != 0 ? e.claimed : size, 4) +
                              little(e.name.size(), 2) + little(0, 2);
    directory += "PK\x01\x02" + little(20, 2) + little(20, 2) + little(0, 2) + little(e.method, 2) + little(0, 4) +
                 sizes + little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) + little(out.size(), 4) + e.name;
    out += "PK\x03\x04" + little(20, 2) + little(0, 2) + little(e.method, 2) + little(0, 4) + sizes + e.name + e.data;
  }
  const auto at = out.size();
  return out + directory + "PK\x05\x06" + little(0, 4) + little(entries.size(), 2) + little(entries.size(), 2) +
         little(directory.size(), 4) + little(at, 4) + little(0, 2);
}

// --- files that their own libraries wrote ----------------------------------------------------------------------------

TEST(Importer, ReadsWhatNumpyWrites) {
  const TemporaryFolder folder;
  imported(fixture("plain.npz"), folder / "a.h5", gridOf(2, 3, 4));
  expectValues(*openTrace(folder / "a.h5"), {0, "cond", 0, "self", 0}, 0, 0);
  EXPECT_EQ(openTrace(folder / "a.h5")->info().calls.front().dtype, DType::F32);

  imported(fixture("deflated.npz"), folder / "b.h5", gridOf(2, 3, 4));
  expectValues(*openTrace(folder / "b.h5"), {0, "cond", 0, "self", 0}, 0, 0);
  EXPECT_EQ(openTrace(folder / "b.h5")->info().calls.front().dtype, DType::F16);

  // A folder of .npy files: big-endian, Fortran order, tokens before heads, the layer in the name.
  const std::string assumed = imported(fixture("npy"), folder / "c.h5", gridOf(2, 3, 4));
  expectValues(*openTrace(folder / "c.h5"), {0, "cond", 2, "self", 0}, 0, 0);
  EXPECT_THAT(assumed,
              AllOf(HasSubstr("scaled by 1/sqrt(8)"), HasSubstr("step 0"), testing::Not(HasSubstr("layer 0"))));

  // bfloat16 arrives as two bytes without a meaning.
  EXPECT_THAT(errorOf([&] { imported(fixture("raw16.npz"), folder / "d.h5", gridOf(2, 3, 4)); }),
              HasSubstr("--raw16 bfloat16"));
  ImportOptions raw = gridOf(2, 3, 4);
  raw.raw16 = SourceType::BF16;
  imported(fixture("raw16.npz"), folder / "d.h5", raw);
  expectValues(*openTrace(folder / "d.h5"), {0, "cond", 0, "self", 0}, 0, 0);
  EXPECT_EQ(openTrace(folder / "d.h5")->info().calls.front().dtype, DType::BF16);

  const Survey second = surveySource(fixture("version2.npy"));
  ASSERT_EQ(second.tensors.size(), 1U);
  EXPECT_EQ(second.tensors[0].type, SourceType::F64);
  EXPECT_EQ(second.tensors[0].shape, (std::vector<Index>{2, 24, 8}));
}

TEST(Importer, ReadsWhatSafetensorsWrites) {
  const TemporaryFolder folder;
  imported(fixture("keys.safetensors"), folder / "a.h5", {});  // the grid stands in the metadata
  const auto trace = openTrace(folder / "a.h5");
  ASSERT_EQ(trace->info().calls.size(), 4U);
  for (const int step : {2, 12}) {
    expectValues(*trace, {step, "cond", 7, "self", 0}, step, 7);
    expectValues(*trace, {step, "uncond", 7, "self", 0}, step, 8);
  }
  EXPECT_EQ(trace->info().model.family, "wan2.1");
  EXPECT_EQ(trace->info().model.numLayers, 30);
  EXPECT_EQ(trace->info().calls.front().dtype, DType::BF16);
  EXPECT_EQ(trace->info().layout.video()->height, 3);

  // Types that differ meet in the narrowest one that holds them all; other tensors are named.
  const Survey mixed = surveySource(fixture("mixed.safetensors"));
  const ImportPlan plan = planImport(mixed, gridOf(2, 3, 4));
  EXPECT_EQ(plan.options.dtype, DType::F32);
  EXPECT_THAT(plan.warnings, testing::Contains(HasSubstr("mixed.safetensors: ids is not used")));
  runImport(mixed, plan, folder / "b.h5", {});
  expectValues(*openTrace(folder / "b.h5"), {0, "cond", 0, "self", 0}, 0, 0);
}

TEST(Importer, ReadsWhatTorchWrites) {
  const TemporaryFolder folder;
  for (const int protocol : {2, 3, 4, 5}) {
    const fs::path out = folder / fmt::format("p{}.h5", protocol);
    imported(fixture(fmt::format("protocol{}.pt", protocol)), out, gridOf(2, 3, 4));
    expectValues(*openTrace(out), {0, "cond", 0, "self", 0}, 0, 0);
  }
  // SVG: the layer and timestep of the name; strides of a transposed view.
  const std::string svg = imported(fixture("svg"), folder / "svg.h5", gridOf(2, 3, 4));
  const auto trace = openTrace(folder / "svg.h5");
  expectValues(*trace, {0, "uncond", 3, "self", 0}, 0, 3);
  EXPECT_EQ(trace->info().calls.front().timestep, 951);
  EXPECT_THAT(svg, AllOf(HasSubstr("branch uncond"), HasSubstr("951 = step 0")));
  // SVOO: folders named by timesteps, which fall while the run goes on; no values.
  const std::string svoo = imported(fixture("svoo"), folder / "svoo.h5", gridOf(2, 3, 4));
  expectValues(*openTrace(folder / "svoo.h5"), {0, "uncond", 4, "self", 0}, 0, 4, false);
  expectValues(*openTrace(folder / "svoo.h5"), {1, "uncond", 4, "self", 0}, 1, 4, false);
  EXPECT_THAT(svoo, HasSubstr("999 = step 0, 951 = step 1"));
  // With the schedule they get their true indices.
  ImportOptions options = gridOf(2, 3, 4);
  options.timesteps = {999, 975, 951, 900};
  options.branches = {"cond"};
  const std::string known = imported(fixture("svoo"), folder / "known.h5", options);
  expectValues(*openTrace(folder / "known.h5"), {2, "cond", 4, "self", 0}, 1, 4, false);
  EXPECT_THAT(known, testing::Not(HasSubstr("timesteps")));
  EXPECT_EQ(openTrace(folder / "known.h5")->info().run.timesteps.size(), 4U);
}

TEST(Importer, ReadsForeignHdf5) {
  const TemporaryFolder folder;
  imported(fixture("foreign.h5"), folder / "a.h5", gridOf(2, 3, 4));  // query, key, value; block0, block1; [B, N, H, D]
  for (const int layer : {0, 1}) expectValues(*openTrace(folder / "a.h5"), {0, "cond", layer, "self", 0}, 0, layer);
  ImportOptions mapped = gridOf(2, 3, 4);
  mapped.patterns = {"run/block{layer}/query", "run/block{layer}/key", ""};
  mapped.axes = "BNHD";
  imported(fixture("foreign.h5"), folder / "b.h5", mapped);
  expectValues(*openTrace(folder / "b.h5"), {0, "cond", 1, "self", 0}, 0, 1, false);

  EXPECT_THAT(errorOf([] { (void)planImport(surveySource(fixture("stacked.h5")), {}); }), HasSubstr("SLHND"));
  ImportOptions stacked;  // the grid is an attribute
  stacked.axes = "SLHND";
  EXPECT_THAT(imported(fixture("stacked.h5"), folder / "c.h5", stacked),
              AllOf(testing::Not(HasSubstr("step 0")), testing::Not(HasSubstr("layer 0"))));
  const auto trace = openTrace(folder / "c.h5");
  EXPECT_EQ(trace->info().calls.size(), 6U);
  for (const int step : {0, 1}) {
    for (const int layer : {0, 1, 2}) expectValues(*trace, {step, "cond", layer, "self", 0}, step, layer);
  }
}

TEST(Importer, RecordsWhatItTookForGranted) {
  const TemporaryFolder folder;
  const std::string assumed = imported(fixture("plain.npz"), folder / "a.h5", gridOf(2, 3, 4));
  const auto record = importRecord(openTrace(folder / "a.h5")->info());
  ASSERT_TRUE(record);
  EXPECT_EQ(record->source, "plain.npz");
  EXPECT_EQ(record->formats, std::vector<std::string>{"numpy"});
  EXPECT_EQ(fmt::format("{}", fmt::join(record->assumed, "\n")), assumed);
  EXPECT_THAT(record->assumed, testing::Contains(HasSubstr("branch cond")));
  testing_support::buildTrace(folder / "t.h5");
  EXPECT_FALSE(importRecord(openTrace(folder / "t.h5")->info()));
  EXPECT_EQ(importerFor(folder / "t.h5"), nullptr) << "a trace is not for the importers";
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "t.h5"); }), HasSubstr("Sparsight file already"));
}

// --- facts
// ------------------------------------------------------------------------------------------------------------

TEST(Importer, ProposesGridsThatFit) {
  const auto wan = proposeGrids(32760, 12, 128);
  ASSERT_FALSE(wan.empty());
  EXPECT_EQ(wan.front().preset, "wan2.1-1.3b-480p");
  for (const Index n : {Index{32760}, Index{75600}, Index{17776}, Index{119056}, Index{120}, Index{1950}}) {
    for (const GridProposal& p : proposeGrids(n)) {
      EXPECT_EQ(Index{p.grid[0]} * p.grid[1] * p.grid[2] + p.text, n) << p.title;
    }
  }
  EXPECT_EQ(proposeGrids(17776).front().preset, "cogvideox-2b");
  EXPECT_TRUE(proposeGrids(17776).front().textFirst);
  EXPECT_EQ(proposeGrids(119056, 24, 128).front().preset, "hunyuanvideo-720p");
  EXPECT_TRUE(proposeGrids(0).empty());
  const std::string asked =
      errorOf([] { (void)planImport(surveySource(fixture("plain.npz")), {}); }, ErrorCode::InvalidArgument);
  EXPECT_THAT(asked, AllOf(HasSubstr("24 tokens"), HasSubstr("--grid 2,3,4")));
  const ImportDraft draft = draftImport(surveySource(fixture("plain.npz")), {});
  EXPECT_FALSE(draft.plan);
  EXPECT_EQ(draft.problem, asked);
  EXPECT_EQ(draft.tokens, 24);
  EXPECT_EQ(draft.heads, 2);
  EXPECT_FALSE(draft.grids.empty());
}

TEST(Importer, RefusesFactsThatDoNotFit) {
  const Survey survey = surveySource(fixture("plain.npz"));
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, gridOf(2, 3, 5)); }),
              AllOf(HasSubstr("24 tokens"), HasSubstr("has 30")));
  ImportOptions preset;
  preset.preset = "wan2.1-14b-720p";
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, preset); }), HasSubstr("do not fit wan2.1-14b-720p"));
  preset.grid = {2, 3, 4};
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, preset); }), HasSubstr("8 channels"));
  preset.preset = "no-such";
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, preset); }), HasSubstr("wan2.1-1.3b-480p"));
  ImportOptions text = gridOf(2, 3, 3);
  EXPECT_THAT(planImport(survey, text).assumed,
              testing::Contains(HasSubstr("6 tokens beyond the video's 18 are text")));
  text.textFirst = true;
  EXPECT_EQ(planImport(survey, text).header.layout.text()->start, 0);
  EXPECT_EQ(planImport(survey, text).calls.front().header.id.kind, "joint");
  ImportOptions axes = gridOf(2, 3, 4);
  for (const char* bad : {"HN", "HNX", "HHD", "BHND"}) {
    axes.axes = bad;
    EXPECT_THAT(errorOf([&] { (void)planImport(survey, axes); }), HasSubstr("do not fit shape [2, 24, 8]")) << bad;
  }
  axes.axes = "BND";  // two guidance branches of one head
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, axes); }), HasSubstr("--branch uncond,cond"));
  axes.branches = {"uncond", "cond"};
  EXPECT_EQ(planImport(survey, axes).calls.size(), 2U);
  ImportOptions small = gridOf(2, 3, 4);
  small.memoryLimitBytes = 1000;
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, small); }, ErrorCode::OutOfMemory), HasSubstr("--memory-limit"));
  ImportOptions scale = gridOf(2, 3, 4);
  scale.scale = -1;
  EXPECT_THAT(errorOf([&] { (void)planImport(survey, scale); }), HasSubstr("--scale"));
}

TEST(Importer, ReadsNames) {
  const TensorPlace ours = placeFromName("step_0012/cond/layer_007/joint.1/query");
  EXPECT_EQ(ours.role, TensorRole::Query);
  EXPECT_EQ(ours.step, 12);
  EXPECT_EQ(ours.layer, 7);
  EXPECT_EQ(ours.branch, "cond");
  EXPECT_EQ(ours.kind, "joint");
  EXPECT_EQ(ours.call, 1);
  const TensorPlace svg = placeFromName("sparse_qkv_layer3_ts951/k");
  EXPECT_EQ(svg.role, TensorRole::Key);
  EXPECT_EQ(svg.timestep, 951.0);
  EXPECT_FALSE(svg.step);
  EXPECT_EQ(placeFromName("blocks.11.attn1.to_v").layer, 11);
  EXPECT_EQ(placeFromName("blocks.11.attn1.to_v").role, TensorRole::Value);
  EXPECT_EQ(placeFromName("blocks.11.attn2.q").kind, "cross");
  EXPECT_EQ(placeFromName("l12_h3_k").head, 3);
  EXPECT_EQ(placeFromName("q_v2").role, TensorRole::Query);
  EXPECT_EQ(placeFromName("step_3/layer_1/key_valid").role, TensorRole::KeyValid);
  EXPECT_EQ(placeFromName("step_3/layer_1/q_rows").role, TensorRole::QueryRows);
  EXPECT_EQ(placeFromName("layer3/attn_mask").role, TensorRole::Mask);
  EXPECT_EQ(placeFromName("layer3/attn_mask").layer, 3);
  for (const char* other : {"qkv", "k_mask", "key_padding_mask", "norm_q.weight", "arr_0", "", "//",
                            "99999999999999999999", "layer99999999999_x"}) {
    EXPECT_EQ(placeFromName(other).role, TensorRole::None) << other;
  }
  const auto fit = placeFromPattern("run{*}/s{step}_l{layer}/{branch}/head{head}.q", "run7a/s3_l12/cond/head5.q");
  ASSERT_TRUE(fit);
  EXPECT_EQ(fit->step, 3);
  EXPECT_EQ(fit->layer, 12);
  EXPECT_EQ(fit->head, 5);
  EXPECT_EQ(fit->branch, "cond");
  EXPECT_FALSE(placeFromPattern("q_{layer}", "q_x"));
  EXPECT_FALSE(placeFromPattern("q_{layer}", "q_1_2"));
  EXPECT_TRUE(placeFromPattern("/a/q", "a/q"));
  EXPECT_THAT(errorOf([] { (void)placeFromPattern("{lay}", "q"); }), HasSubstr("{step}"));
  EXPECT_THAT(errorOf([] { (void)placeFromPattern("{layer", "q"); }), HasSubstr("{step}"));
}

// --- what stands beside queries and keys -----------------------------------------------------------------------------

/// A tensor of a safetensors file; bytes as they are stored.
struct Stored {
  std::string name, dtype;
  std::vector<Index> shape;
  std::string bytes;
};
void writeSafetensors(const fs::path& path, const std::vector<Stored>& tensors, const std::string& metadata = {}) {
  std::string header = "{", data;
  if (!metadata.empty()) header += "\"__metadata__\":" + metadata + ",";
  for (const Stored& t : tensors) {
    header +=
        fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", &t == tensors.data() ? "" : ",",
                    t.name, t.dtype, fmt::join(t.shape, ","), data.size(), data.size() + t.bytes.size());
    data += t.bytes;
  }
  header += "}";
  write(path, little(header.size(), 8) + header + data);
}
std::string bytesOf(const auto& values) {
  std::string out(values.size() * sizeof(values[0]), '\0');
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}
/// [heads, rows, 8] float32 of value(); `rows`: tokens.
Stored input(const std::string& name, int role, const std::vector<Index>& rows, int layer = 0, int heads = 2) {
  std::vector<float> values;
  for (int h = 0; h < heads; ++h) {
    for (const Index n : rows) {
      for (Index c = 0; c < 8; ++c) values.push_back(value(role, 0, layer, h, n, c));
    }
  }
  return {name, "F32", {heads, static_cast<Index>(rows.size()), 8}, bytesOf(values)};
}
std::vector<Index> upTo(Index count, Index stride = 1) {
  std::vector<Index> rows;
  for (Index i = 0; i < count; i += stride) rows.push_back(i);
  return rows;
}
std::vector<Stored> inputs(const std::vector<Index>& rows, Index keys = 24) {
  return {input("q", 0, rows), input("k", 1, upTo(keys)), input("v", 2, upTo(keys))};
}
std::string ones(std::size_t count) { return std::string(count, '\1'); }

TEST(Importer, ReadsQueryRowsAndMasksOfEachLibrary) {
  const TemporaryFolder folder;
  for (const char* name : {"sides.npz", "sides.h5", "sides.safetensors", "sides.pt"}) {
    const fs::path out = folder / (std::string(name) + ".trace.h5");
    const Survey survey = surveySource(fixture(name));
    const ImportPlan plan = planImport(survey, gridOf(2, 3, 4));
    EXPECT_TRUE(plan.warnings.empty()) << name << ": " << plan.warnings.front();
    runImport(survey, plan, out, {});
    const auto trace = openTrace(out);
    ASSERT_EQ(trace->info().calls.size(), 1U) << name;
    const CallInfo& call = trace->info().calls.front();
    EXPECT_TRUE(call.qSubset) << name;
    EXPECT_TRUE(call.hasKeyValid) << name;
    EXPECT_FALSE(call.hasDenseMask) << name;
    for (const int h : {0, 1}) {
      const HeadData head = trace->load({call.id, h});
      EXPECT_EQ(head.qRows, upTo(24, 3)) << name;
      EXPECT_EQ(head.validKeyCount(), 20) << name;
      EXPECT_EQ(head.validRows().size(), 7U) << name << ": token 21 is padding as a query too";
      std::vector<float> row(8);
      for (Index r = 0; r < 8; ++r) {
        rowToFloat(head.input.q, r, row);
        for (Index c = 0; c < 8; ++c) ASSERT_EQ(row[static_cast<std::size_t>(c)], value(0, 0, 0, h, 3 * r, c)) << name;
      }
    }
  }
}

TEST(Importer, OneListOfRowsServesAllCalls) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "run");
  for (const int layer : {0, 1})
    writeSafetensors(folder / fmt::format("run/layer{}.safetensors", layer), inputs(upTo(24, 6)));
  writeSafetensors(folder / "run/q_rows.safetensors", {{"q_rows", "U8", {1, 4}, std::string("\0\6\14\22", 4)}});
  imported(folder / "run", folder / "a.h5", gridOf(2, 3, 4));
  const auto trace = openTrace(folder / "a.h5");
  for (const CallInfo& call : trace->info().calls) EXPECT_EQ(trace->load({call.id, 0}).qRows, upTo(24, 6));
  // The call's own list goes first.
  auto own = inputs(upTo(24, 6));
  own.push_back({"q_rows", "I16", {4}, bytesOf(std::vector<std::int16_t>{1, 7, 13, 19})});
  writeSafetensors(folder / "run/layer1.safetensors", own);
  imported(folder / "run", folder / "a.h5", gridOf(2, 3, 4));
  EXPECT_EQ(openTrace(folder / "a.h5")->load({{0, "cond", 0, "self", 0}, 0}).qRows, upTo(24, 6));
  EXPECT_EQ(openTrace(folder / "a.h5")->load({{0, "cond", 1, "self", 0}, 0}).qRows, (std::vector<Index>{1, 7, 13, 19}));
}

TEST(Importer, RefusesRowsThatAreNotSaid) {
  const TemporaryFolder folder;
  const fs::path in = folder / "s.safetensors";
  const auto refused = [&](const std::vector<Stored>& extra, std::optional<ErrorCode> code = {}) {
    auto all = inputs(upTo(24, 6));
    all.insert(all.end(), extra.begin(), extra.end());
    writeSafetensors(in, all);
    const std::string why = errorOf([&] { imported(in, folder / "o.h5", gridOf(2, 3, 4)); }, code);
    EXPECT_FALSE(fs::exists(folder / "o.h5"));
    return why;
  };
  EXPECT_THAT(refused({}, ErrorCode::Format), AllOf(HasSubstr("4 queries and 24 keys"), HasSubstr("q_rows"),
                                                    HasSubstr("--map rows=NAME"), HasSubstr("--kind cross")));
  const auto rows = [](std::vector<std::int64_t> values) {
    return Stored{"q_rows", "I64", {static_cast<Index>(values.size())}, bytesOf(values)};
  };
  EXPECT_THAT(refused({rows({0, 6, 12, 24})}, ErrorCode::Format), HasSubstr("entry 3 is 24"));
  EXPECT_THAT(refused({rows({0, 6, 6, 12})}, ErrorCode::Format), HasSubstr("rising"));
  EXPECT_THAT(refused({rows({-1, 6, 7, 12})}, ErrorCode::Format), HasSubstr("entry 0 is -1"));
  EXPECT_THAT(refused({rows({0, 6, 12})}, ErrorCode::Format), HasSubstr("[4]"));
  EXPECT_THAT(refused({{"q_rows", "F32", {4}, bytesOf(std::vector<float>{0, 1, 2, 3})}}, ErrorCode::Format),
              HasSubstr("whole numbers"));
  EXPECT_THAT(refused({rows({0, 6, 12, 18}), {"query_rows", "U8", {4}, ones(4)}}, ErrorCode::InvalidArgument),
              HasSubstr("--map rows=NAME"));
  // Named by the user.
  auto all = inputs(upTo(24, 6));
  all.push_back({"picked", "U8", {4}, std::string("\0\6\14\22", 4)});
  writeSafetensors(in, all);
  ImportOptions options = gridOf(2, 3, 4);
  options.patterns[3] = "picked";
  imported(in, folder / "o.h5", options);
  EXPECT_TRUE(openTrace(folder / "o.h5")->info().calls.front().qSubset);
  // Few query rows of many heads are not taken for tokens and heads the other way round.
  writeSafetensors(in, {input("q", 0, upTo(24, 12), 0, 4), input("k", 1, upTo(24), 0, 4), rows({0, 12})});
  EXPECT_EQ(planImport(surveySource(in), gridOf(2, 3, 4)).calls.front().header.heads.size(), 4U);
}

TEST(Importer, CrossAttentionIsTakenWhereItIsWanted) {
  const TemporaryFolder folder;
  const fs::path in = folder / "s.safetensors";
  writeSafetensors(in, {input("blocks.1.attn1.q", 0, upTo(24), 1),
                        input("blocks.1.attn1.k", 1, upTo(24), 1),
                        input("blocks.1.attn2.q", 0, upTo(24), 2),
                        input("blocks.1.attn2.k", 1, upTo(5), 2),
                        input("blocks.1.attn2.v", 2, upTo(5), 2),
                        {"blocks.1.attn2.key_valid", "BOOL", {5}, ones(3) + std::string(2, '\0')},
                        {"blocks.1.attn1.attn_mask", "BOOL", {24}, ones(24)}});
  const Survey survey = surveySource(in);
  ImportOptions options = gridOf(2, 3, 4);
  const ImportPlan without = planImport(survey, options);
  EXPECT_EQ(without.calls.size(), 1U);
  EXPECT_THAT(without.warnings,
              testing::Contains(AllOf(HasSubstr("4 tensors of cross-attention"), HasSubstr("--cross"))));
  options.cross = true;
  const ImportPlan with = planImport(survey, options);
  ASSERT_EQ(with.calls.size(), 2U);
  EXPECT_TRUE(with.warnings.empty());
  runImport(survey, with, folder / "o.h5", {});
  const auto trace = openTrace(folder / "o.h5");
  const CallInfo* cross = trace->info().find({0, "cond", 1, "cross", 0});
  ASSERT_NE(cross, nullptr);
  EXPECT_EQ(cross->nQ, 24);
  EXPECT_EQ(cross->nK, 5);
  EXPECT_EQ(trace->load({cross->id, 1}).validKeyCount(), 3);
  EXPECT_EQ(trace->load({cross->id, 1}).validRows().size(), 24U) << "keys are no tokens of the video here";
  EXPECT_NE(trace->info().find({0, "cond", 1, "self", 0}), nullptr);
  // A file of cross-attention alone, which its names do not say.
  writeSafetensors(in, {input("q", 0, upTo(24)), input("k", 1, upTo(5))});
  options = gridOf(2, 3, 4);
  options.kind = "cross";
  imported(in, folder / "o.h5", options);
  EXPECT_EQ(openTrace(folder / "o.h5")->info().calls.front().nK, 5);
  writeSafetensors(in, {input("q", 0, upTo(23)), input("k", 1, upTo(5))});
  EXPECT_THAT(errorOf([&] { imported(in, folder / "o.h5", options); }), HasSubstr("23 tokens"));
}

TEST(Importer, MasksBecomeWhatATraceHolds) {
  const TemporaryFolder folder;
  const fs::path in = folder / "s.safetensors";
  const auto plan = [&](const Stored& mask, const ImportOptions& options = gridOf(2, 3, 4)) {
    auto all = inputs(upTo(24));
    all.push_back(mask);
    writeSafetensors(in, all);
    imported(in, folder / "o.h5", options);
    return openTrace(folder / "o.h5");
  };
  const CallId id{0, "cond", 0, "self", 0};
  std::string square, causal;
  std::vector<float> added;
  for (int r = 0; r < 24; ++r) {
    for (int c = 0; c < 24; ++c) {
      square += static_cast<char>(r < 20 && c < 20 ? 1 : 0);
      causal += static_cast<char>(c <= r ? 1 : 0);
      added.push_back(c <= r ? 0.0F : -65504.0F);
    }
  }
  // HunyuanVideo's, and HunyuanVideo-1.5's where padding is masked as a query too.
  auto trace = plan({"attn_mask", "BOOL", {1, 1, 24, 24}, square});
  EXPECT_TRUE(trace->info().calls[0].hasKeyValid);
  EXPECT_FALSE(trace->info().calls[0].hasDenseMask);
  EXPECT_EQ(trace->load({id, 0}).validKeyCount(), 20);
  EXPECT_EQ(trace->load({id, 0}).validRows().size(), 20U);
  trace = plan({"attention_mask", "I32", {1, 24}, bytesOf(std::vector<std::int32_t>(24, 1))});
  EXPECT_FALSE(trace->info().calls[0].hasKeyValid) << "all keys count: no mask";
  for (const Stored& mask :
       {Stored{"attn_mask", "BOOL", {24, 24}, causal}, Stored{"attn_mask", "F32", {24, 24}, bytesOf(added)}}) {
    trace = plan(mask);
    EXPECT_TRUE(trace->info().calls[0].hasDenseMask);
    const HeadData head = trace->load({id, 0});
    ASSERT_EQ(head.input.denseMask.size(), 576U);
    EXPECT_EQ(std::string(head.input.denseMask.begin(), head.input.denseMask.end()), causal);
  }
  // A batch has a mask for each entry.
  const auto pair = [&](const char* name, int role) {
    Stored a = input(name, role, upTo(24)), b = input(name, role, upTo(24), 1);
    return Stored{name, "F32", {2, 2, 24, 8}, a.bytes + b.bytes};
  };
  writeSafetensors(
      in,
      {pair("q", 0), pair("k", 1), {"attn_mask", "BOOL", {2, 1, 1, 24}, ones(10) + std::string(14, '\0') + ones(24)}});
  ImportOptions batch = gridOf(2, 3, 4);
  batch.branches = {"uncond", "cond"};
  imported(in, folder / "o.h5", batch);
  EXPECT_EQ(openTrace(folder / "o.h5")->load({{0, "uncond", 0, "self", 0}, 0}).validKeyCount(), 10);
  EXPECT_FALSE(openTrace(folder / "o.h5")->info().find({0, "cond", 0, "self", 0})->hasKeyValid);

  const auto refused = [&](const Stored& mask, ErrorCode code, const ImportOptions& options = gridOf(2, 3, 4)) {
    fs::remove(folder / "o.h5");
    const std::string why = errorOf([&] { plan(mask, options); }, code);
    EXPECT_FALSE(fs::exists(folder / "o.h5"));
    return why;
  };
  EXPECT_THAT(refused({"attn_mask", "BOOL", {1, 2, 24, 24}, causal + causal}, ErrorCode::Unsupported),
              AllOf(HasSubstr("between heads"), HasSubstr("--map mask=none")));
  EXPECT_THAT(refused({"attn_mask", "BOOL", {23}, ones(23)}, ErrorCode::Unsupported), HasSubstr("keys'"));
  EXPECT_THAT(refused({"attn_mask", "BOOL", {1, 1, 5, 24}, ones(120)}, ErrorCode::Unsupported), HasSubstr("queries'"));
  added[3] = 0.5F;
  EXPECT_THAT(refused({"attn_mask", "F32", {24, 24}, bytesOf(added)}, ErrorCode::Unsupported),
              AllOf(HasSubstr("adds 0.5"), HasSubstr("no biases")));
  EXPECT_THAT(refused({"attn_mask", "F32", {24}, bytesOf(std::vector<float>(24, 1))}, ErrorCode::Unsupported),
              HasSubstr("as bool"));
  EXPECT_THAT(refused({"attn_mask", "BOOL", {24}, std::string(24, '\0')}, ErrorCode::Format),
              HasSubstr("masks every key"));
  ImportOptions small = gridOf(2, 3, 4);
  small.memoryLimitBytes = 5000;
  auto wide = inputs(upTo(24));
  EXPECT_THAT(refused({"key_valid", "F32", {24}, bytesOf(std::vector<float>(24, 1))}, ErrorCode::Unsupported),
              HasSubstr("no yes or no"));
  // Left out by name; masks of padding mean two things and are never guessed.
  ImportOptions none = gridOf(2, 3, 4);
  none.patterns[5] = "none";
  EXPECT_FALSE(plan({"attn_mask", "BOOL", {24, 24}, causal}, none)->info().calls[0].hasDenseMask);
  EXPECT_FALSE(plan({"key_padding_mask", "BOOL", {24}, ones(3) + std::string(21, '\0')})->info().calls[0].hasKeyValid);
  none.patterns[5].clear();
  none.patterns[4] = "key_padding_mask";
  EXPECT_EQ(
      plan({"key_padding_mask", "BOOL", {24}, ones(3) + std::string(21, '\0')}, none)->load({id, 0}).validKeyCount(),
      3);
}

TEST(Importer, SingleBlocksFollowDoubleOnes) {
  const TemporaryFolder folder;
  const fs::path in = folder / "s.safetensors";
  std::vector<Stored> tensors;
  for (const char* block :
       {"transformer_blocks.0", "transformer_blocks.1", "single_transformer_blocks.0", "single_transformer_blocks.2"}) {
    tensors.push_back(input(fmt::format("{}.attn.q", block), 0, upTo(24)));
    tensors.push_back(input(fmt::format("{}.attn.k", block), 1, upTo(24)));
  }
  tensors.push_back(input("context_embedder.token_refiner.refiner_blocks.0.attn.q", 0, upTo(6)));
  tensors.push_back(input("context_embedder.token_refiner.refiner_blocks.0.attn.k", 1, upTo(6)));
  writeSafetensors(in, tensors);
  const auto layers = [&](const ImportOptions& options) {
    const ImportPlan plan = planImport(surveySource(in), options);
    EXPECT_THAT(plan.warnings, testing::Contains(HasSubstr("refiner")));
    std::vector<int> out;
    for (const PlannedCall& call : plan.calls) out.push_back(call.header.id.layer);
    return std::pair(out, fmt::format("{}", fmt::join(plan.assumed, "\n")));
  };
  ImportOptions options = gridOf(2, 3, 4);
  EXPECT_EQ(layers(options).first, (std::vector<int>{0, 1, 2, 4}));
  EXPECT_THAT(layers(options).second, AllOf(HasSubstr("single block 0 is layer 2"), HasSubstr("--double-blocks")));
  options.family = "hunyuanvideo";
  EXPECT_EQ(layers(options).first, (std::vector<int>{0, 1, 20, 22}));
  EXPECT_THAT(layers(options).second, HasSubstr("20 double blocks"));
  options.doubleBlocks = 5;
  EXPECT_EQ(layers(options).first, (std::vector<int>{0, 1, 5, 7}));
  EXPECT_THAT(layers(options).second, testing::Not(HasSubstr("single block")));
  options.doubleBlocks = 1;
  EXPECT_THAT(errorOf([&] { (void)planImport(surveySource(in), options); }), HasSubstr("holds double block 1"));
  EXPECT_EQ(placeFromName("double_blocks.3.img_attn.k").stack, "double");
  EXPECT_EQ(placeFromName("single_blocks.3.q").stack, "single");
  EXPECT_EQ(placeFromName("blocks.3.attn1.q").stack, "");
}

TEST(Importer, AFolderThatDisagreesSaysSo) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "run");
  writeSafetensors(folder / "run/layer0.safetensors", inputs(upTo(24)), R"({"grid":"2,3,4"})");
  writeSafetensors(folder / "run/layer1.safetensors", inputs(upTo(24)), R"({"grid":"4,3,2"})");
  writeSafetensors(folder / "run/layer2.safetensors", inputs(upTo(24)), R"({"grid":"4,3,2"})");
  EXPECT_THAT(surveySource(folder / "run").warnings,
              testing::ElementsAre(AllOf(HasSubstr("layer1.safetensors says grid = 4,3,2"), HasSubstr("2,3,4"))));
}

TEST(Importer, LookingAtAFolderStops) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "run");
  for (int i = 0; i < 300; ++i) write(folder / fmt::format("run/{}.txt", i), "x");
  std::stop_source stop;
  stop.request_stop();
  Control control;
  control.stop = stop.get_token();
  EXPECT_THROW((void)isImportable(folder / "run", control), Cancelled);
  EXPECT_THROW((void)surveySource(folder / "run", control), Cancelled);
  EXPECT_FALSE(isImportable(folder / "run"));
}

TEST(Importer, TheRootOfTheFileSystemIsNotSearched) {
  try {
    (void)surveySource("/");
    ADD_FAILURE() << "listed everything there is";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("'/' is the root of the file system; choose the folder of one capture"));
  }
}

TEST(Importer, MembersOfALargeNpzAreNotAllUnpackedAtOnce) {
  const TemporaryFolder folder;
  // numpy's own deflated arrays, again and again under other names.
  const std::string whole = readWholeFile(fixture("deflated.npz"), 1 << 20);
  std::string body, directory;
  constexpr int kLayers = 20;
  std::size_t count = 0;
  for (std::size_t at = 0; (at = whole.find("PK\x01\x02", at)) != std::string::npos; ++at) {
    const auto u16 = [&](std::size_t i) {
      return static_cast<std::size_t>(static_cast<unsigned char>(whole[i]) | static_cast<unsigned char>(whole[i + 1])
                                                                                 << 8);
    };
    const auto u32 = [&](std::size_t i) { return u16(i) | u16(i + 2) << 16; };
    const std::string name = whole.substr(at + 46, u16(at + 28));
    const std::size_t header = u32(at + 42), data = header + 30 + u16(header + 26) + u16(header + 28);
    const std::string facts = whole.substr(at + 10, 18);  // method, time, checksum, sizes
    const std::string packed = whole.substr(data, u32(at + 20));
    for (int layer = 0; layer < kLayers; ++layer, ++count) {
      const std::string full = fmt::format("layer{}/{}", layer, name);
      directory += "PK\x01\x02" + little(20, 2) + little(20, 2) + little(0, 2) + facts + little(full.size(), 2) +
                   little(0, 2) + little(0, 2) + little(0, 4) + little(0, 4) + little(body.size(), 4) + full;
      body +=
          "PK\x03\x04" + little(20, 2) + little(0, 2) + facts + little(full.size(), 2) + little(0, 2) + full + packed;
    }
  }
  ASSERT_EQ(count, std::size_t{3 * kLayers});
  write(folder / "many.npz", body + directory + "PK\x05\x06" + little(0, 4) + little(count, 2) + little(count, 2) +
                                 little(directory.size(), 4) + little(body.size(), 4) + little(0, 2));
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = descriptors();
  std::ptrdiff_t most = 0;
  Control control;
  control.progress = [&](double) { most = std::max(most, descriptors() - before); };
  const Survey survey = surveySource(folder / "many.npz");
  runImport(survey, planImport(survey, gridOf(2, 3, 4)), folder / "o.h5", control);
  EXPECT_LT(most, 15) << "the archive, the trace, and a few members";
  const auto trace = openTrace(folder / "o.h5");
  EXPECT_EQ(trace->info().calls.size(), std::size_t{kLayers});
  expectValues(*trace, {0, "cond", kLayers - 1, "self", 0}, 0, 0);
}

TEST(Importer, SmallFilesCannotAskForMuchMemory) {
  const TemporaryFolder folder;
  const auto joined = [](std::initializer_list<std::string> parts) { return fmt::format("{}", fmt::join(parts, "")); };
  const auto refused = [&](std::initializer_list<std::string> pickle) {
    write(folder / "p.pt",
          zipOf({{"p/data.pkl", joined({"\x80\x02", joined(pickle), "."})}, {"p/data/0", std::string(64, '\0')}}));
    return errorOf([&] { (void)surveySource(folder / "p.pt"); }, ErrorCode::Format);
  };
  EXPECT_THAT(refused({"N", std::string(1'200'000, '\x94')}), HasSubstr("remembers far more"));
  EXPECT_THAT(refused({std::string(1'200'000, '(')}), HasSubstr("nested deeper"));
  // A storage's key of 300 bytes, and shapes of 40 axes.
  const auto key = [&](std::size_t n) { return joined({"X", little(n, 4), std::string(n, '0')}); };
  const auto storage = [&](std::size_t n) {
    return joined({"(X", little(7, 4), "storage", "ctorch\nFloatStorage\n", key(n), key(3), "K\x10tQ"});
  };
  const std::string rebuild = "ctorch._utils\n_rebuild_tensor_v2\n(";
  EXPECT_THAT(refused({storage(300)}), HasSubstr("storage's name"));
  std::string axes;
  for (int i = 0; i < 40; ++i) axes += "K\x01";
  const std::string zero("K\0", 2);
  EXPECT_THAT(refused({rebuild, storage(1), zero, "(", axes, "t(", axes, "t\x89}tR"}), HasSubstr("at most 16"));
  // The same tensor under ever longer names.
  std::string nested;
  for (int i = 0; i < 20; ++i) nested += joined({"}", key(500)});
  nested += "](";
  for (int i = 0; i < 8000; ++i) nested += "h\x05";
  nested += "e";
  for (int i = 0; i < 20; ++i) nested += "s";
  const std::string tensor = joined({rebuild, storage(1), zero, "K\x02K\x02\x86K\x02K\x01\x86\x89}tRq\x05", "0"});
  EXPECT_THAT(refused({tensor, nested}), HasSubstr("more text"));

  const std::string deep(100'000, '[');
  write(folder / "s.safetensors", joined({little(deep.size() + 5, 8), "{\"q\":", deep}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "s.safetensors"); }, ErrorCode::Format),
              HasSubstr("nested deeper"));
  write(folder / "v.jsonl", joined({R"({"avg_density": )", deep, "\n"}));
  EXPECT_THAT(
      errorOf([&] { (void)importerFor(folder / "v.jsonl")->readProfile(folder / "v.jsonl", {}); }, ErrorCode::Format),
      HasSubstr("nested deeper"));
  // Expanded views cost nothing in a file, but their heads would in memory.
  std::vector<Stored> tensors;
  std::string header = "{";
  for (int i = 0; i < 60; ++i)
    header += fmt::format(R"({}"layer{}/q":{{"dtype":"F16","shape":[1,65000,1,0],"data_offsets":[0,0]}})",
                          i == 0 ? "" : ",", i);
  header += "}";
  write(folder / "s.safetensors", joined({little(header.size(), 8), header}));
  errorOf([&] { (void)planImport(surveySource(folder / "s.safetensors"), {}); });
}

// --- files that no library would write -------------------------------------------------------------------------------

TEST(Importer, NothingOfAPickleIsEverRun) {
  const fs::path marker = "/tmp/sparsight-hostile-pickle-ran";
  fs::remove(marker);
  EXPECT_THAT(errorOf([] { (void)surveySource(fixture("hostile_system.pt")); }, ErrorCode::Unsupported),
              HasSubstr("'posix.system'"));
  EXPECT_THAT(errorOf([] { (void)surveySource(fixture("hostile_eval.pt")); }, ErrorCode::Unsupported),
              HasSubstr("eval'"));
  EXPECT_THAT(errorOf([] { (void)surveySource(fixture("module.pt")); }, ErrorCode::Unsupported),
              HasSubstr("torch.nn.modules.linear.Linear"));
  EXPECT_THAT(errorOf([] { (void)surveySource(fixture("legacy.pt")); }, ErrorCode::Unsupported),
              HasSubstr("before 1.6"));
  EXPECT_FALSE(fs::exists(marker));
}

TEST(Importer, RefusesPicklesThatAreNoData) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& pickle, ErrorCode code) {
    write(folder / "p.pt", zipOf({{"p/data.pkl", pickle}, {"p/data/0", std::string(64, '\0')}}));
    return errorOf([&] { (void)surveySource(folder / "p.pt"); }, code);
  };
  EXPECT_THAT(refused("\x80\x02"
                      "cbuiltins\ngetattr\n.",
                      ErrorCode::Unsupported),
              HasSubstr("'builtins.getattr'"));
  EXPECT_THAT(refused(std::string("\x80\x04\x8c\x02os\x8c\x06system\x93.", 15), ErrorCode::Unsupported),
              HasSubstr("'os.system'"));
  EXPECT_THAT(refused("\x80\x02"
                      "ctorch\nload\n.",
                      ErrorCode::Unsupported),
              HasSubstr("'torch.load'"));
  EXPECT_THAT(refused("\x80\x02(ios\nsystem\n.", ErrorCode::Unsupported), HasSubstr("opcode 'i'"));
  EXPECT_THAT(refused("\x80\x02)\x81.", ErrorCode::Unsupported), HasSubstr("opcode 0x81"));
  EXPECT_THAT(refused("\x80\x02"
                      "Pid\n.",
                      ErrorCode::Unsupported),
              HasSubstr("opcode 'P'"));
  EXPECT_THAT(refused("\x80\x02]}b.", ErrorCode::Unsupported), HasSubstr("state"));
  EXPECT_THAT(refused("\x80\x02N)R.", ErrorCode::Unsupported), HasSubstr("no function"));
  EXPECT_THAT(refused("\x80\x07N.", ErrorCode::Unsupported), HasSubstr("protocol 7"));
  for (const std::string& torn :
       {std::string(), std::string("\x80"), std::string("."), std::string("\x80\x02h\x05."), std::string("\x80\x02(."),
        std::string("\x80\x02t."), std::string("\x80\x02X\xff\xff\xff\x7f."),
        std::string("\x80\x02(K\x01"
                    "d."),
        std::string("\x80\x02K\x01K\x02"
                    "a."),
        std::string("\x80\x02Q."),
        std::string("\x80\x02"
                    "0.")}) {
    refused(torn, ErrorCode::Format);
  }
  // Lists within lists, and lists of the same list twice: neither deep nor wide enough to hurt.
  std::string deep = "\x80\x02";
  for (int i = 0; i < 200'000; ++i) deep += ']';
  for (int i = 1; i < 200'000; ++i) deep += 'a';
  EXPECT_THAT(refused(deep + ".", ErrorCode::Format), HasSubstr("nested deeper"));
  std::string laughs = "\x80\x02]";
  for (int i = 0; i < 28; ++i) laughs += "2\x86";  // (x, x)
  EXPECT_THAT(refused(laughs + ".", ErrorCode::Format), HasSubstr("nested deeper"));
  EXPECT_THAT(refused("\x80\x02" + std::string(1'500'000, 'N') + ".", ErrorCode::Format), HasSubstr("more values"));
  // One long list of pairs, copied again and again.
  std::string copies =
      "\x80\x02"
      "ccollections\nOrderedDict\nq\x01"
      "0](";
  for (int i = 0; i < 100'000; ++i) copies += "NN\x86";
  copies +=
      "eq\x02"
      "0";
  for (int i = 0; i < 1000; ++i) copies += "h\x01h\x02\x85R0";
  EXPECT_THAT(refused(copies + "N.", ErrorCode::Format), HasSubstr("more values"));
}

TEST(Importer, RefusesTensorsOutsideTheirStorage) {
  const TemporaryFolder folder;
  const auto pickle = [](int offset, const std::string& shape, const std::string& strides) {
    return "\x80\x02}X\x01" + std::string("\0\0\0", 3) + "qctorch._utils\n_rebuild_tensor_v2\n((X\x07" +
           std::string("\0\0\0", 3) + "storagectorch\nFloatStorage\nX\x01" + std::string("\0\0\0", 3) + "0X\x03" +
           std::string("\0\0\0", 3) + "cpuK\x10tQJ" + little(static_cast<std::uint32_t>(offset), 4) + shape + strides +
           "\x89}tRs.";
  };
  const auto numbers = [](const std::vector<int>& values) {
    std::string out = "(";
    for (const int v : values) out.append(1, 'J').append(little(static_cast<std::uint32_t>(v), 4));
    return out + "t";
  };
  const auto survey = [&](int offset, const std::vector<int>& shape, const std::vector<int>& strides) {
    write(folder / "p.pt", zipOf({{"p/data.pkl", pickle(offset, numbers(shape), numbers(strides))},
                                  {"p/data/0", std::string(64, '\0')}}));
    return surveySource(folder / "p.pt");
  };
  EXPECT_EQ(survey(0, {2, 8}, {8, 1}).tensors.size(), 1U);
  EXPECT_EQ(survey(8, {8, 2}, {0, 1}).tensors.size(), 1U) << "an expanded tensor";
  EXPECT_EQ(survey(0, {1, 16}, {1 << 30, 1}).tensors.size(), 1U) << "the stride of one entry is never used";
  for (const auto& [offset, shape, strides] : {std::tuple<int, std::vector<int>, std::vector<int>>{1, {2, 8}, {8, 1}},
                                               {0, {2, 8}, {9, 1}},
                                               {-1, {2, 4}, {8, 1}},
                                               {0, {2, 8}, {-8, 1}},
                                               {0, {1 << 30, 1 << 30}, {1 << 30, 1 << 30}},
                                               {0, {-2, 8}, {8, 1}},
                                               {0, {2, 8}, {8}},
                                               {17, {1, 1}, {1, 1}}}) {
    EXPECT_THAT(errorOf([&, o = offset, &s = shape, &t = strides] { (void)survey(o, s, t); }, ErrorCode::Format),
                HasSubstr("tensor 'q'"));
  }
  // 2^30 x 2^30 elements of stride 0 lie inside 64 bytes, but no head may be that large.
  const Survey huge = survey(0, {1 << 30, 1 << 30}, {0, 0});
  errorOf([&] { (void)planImport(huge, gridOf(2, 3, 4)); });
  write(folder / "p.pt", zipOf({{"p/data.pkl", pickle(0, numbers({2, 8}), numbers({8, 1}))}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "p.pt"); }, ErrorCode::Format),
              HasSubstr("storage '0' is not in the file"));
}

TEST(Importer, RefusesSafetensorsThatLie) {
  const TemporaryFolder folder;
  const auto survey = [&](const std::string& header, std::size_t data, std::optional<std::uint64_t> length = {}) {
    write(folder / "s.safetensors", little(length.value_or(header.size()), 8) + header + std::string(data, '\0'));
    return surveySource(folder / "s.safetensors");
  };
  const char* good = R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})";
  EXPECT_EQ(survey(good, 16).tensors.size(), 1U);
  for (const std::uint64_t length : {std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{0},
                                     std::uint64_t{1000}, std::uint64_t{100'000'000}}) {
    EXPECT_THAT(errorOf([&] { (void)survey(good, 16, length); }, ErrorCode::Format), HasSubstr("header of")) << length;
  }
  for (
      const char* bad :
      {R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[0,17]}})",
       R"({"q":{"dtype":"F32","shape":[2,3],"data_offsets":[0,16]}})",
       R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[16,0]}})",
       R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}})",
       R"({"q":{"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]}})",
       R"({"q":{"dtype":"F32","shape":[2.0,2],"data_offsets":[0,16]}})",
       R"({"q":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}})",
       R"({"q":{"dtype":"F32","shape":"x","data_offsets":[0,16]}})", R"({"q":{"shape":[2,2],"data_offsets":[0,16]}})",
       R"({"q":7})", R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[0]}})",
       R"({"q":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"k":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})",
       R"({"q":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"k":{"dtype":"F32","shape":[1,3],"data_offsets":[4,16]}})",
       R"([1])", R"({"q")"}) {
    errorOf([&] { (void)survey(bad, 16); }, ErrorCode::Format);
  }
  // Types that are no input of attention are listed and, when they are asked for, named.
  const Survey ints = survey(
      R"({"q":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]},"x":{"dtype":"F4","shape":[2],"data_offsets":[16,17]}})",
      17);
  ASSERT_EQ(ints.tensors.size(), 2U);
  EXPECT_THAT(errorOf([&] { (void)planImport(ints, {}); }, ErrorCode::Unsupported), HasSubstr("'I32'"));
}

TEST(Importer, RefusesNumpyFilesThatLie) {
  const TemporaryFolder folder;
  const auto survey = [&](const std::string& header, std::size_t data) {
    write(folder / "q.npy",
          std::string("\x93NUMPY\x01\0", 8) + little(header.size(), 2) + header + std::string(data, '\0'));
    return surveySource(folder / "q.npy");
  };
  EXPECT_EQ(survey("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", 16).tensors.size(), 1U);
  EXPECT_EQ(survey("{'shape':(4,),'fortran_order':True,\"descr\":\">f8\"}\n", 32).tensors[0].type, SourceType::F64);
  for (const char* bad :
       {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 2), }",
        "{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (2, 2), }", "{'descr': '<f4', 'shape': (2, 2), }",
        "{", "", "{'descr': '<f4'",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 2, }"}) {
    errorOf([&] { (void)survey(bad, 16); }, ErrorCode::Format);
  }
  EXPECT_THAT(errorOf([&] { (void)survey("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 16); },
                      ErrorCode::Unsupported),
              HasSubstr("records"));
  const Survey object = survey("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", 16);
  EXPECT_THAT(errorOf([&] { (void)planImport(object, gridOf(1, 1, 2)); }), HasSubstr("'|O'"))
      << "an object array is a pickle: never opened";
}

TEST(Importer, RefusesZipBombsAndTornZips) {
  const TemporaryFolder folder;
  const std::string npy = std::string("\x93NUMPY\x01\0", 8) + little(60, 2) +
                          std::string("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }").append(3, ' ');
  write(folder / "a.npz", zipOf({{"q.npy", std::string(100, '\0'), 0xf0000000U, 8}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.npz"); }, ErrorCode::Format),
              HasSubstr("claims 4026531840 bytes from 100"));
  write(folder / "a.npz", zipOf({{"q.npy", std::string(100, '\0'), 1000, 0}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.npz"); }, ErrorCode::Format), HasSubstr("two sizes"));
  write(folder / "a.npz", zipOf({{"q.npy", std::string(100, 'x'), 100, 8}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.npz"); }, ErrorCode::Format),
              HasSubstr("compressed data is damaged"));
  write(folder / "a.npz", zipOf({{"q.npy", npy, 0, 12}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.npz"); }, ErrorCode::Unsupported), HasSubstr("method 12"));
  write(folder / "a.npz", "PK\x05\x06" + little(0, 4) + little(5000, 2) + little(5000, 2) + little(400'000'000, 4) +
                              little(0, 4) + little(0, 2));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.npz"); }, ErrorCode::Format), HasSubstr("5000 members"));
  write(folder / "a.pt", zipOf({{"p/other", "x"}}));
  EXPECT_THAT(errorOf([&] { (void)surveySource(folder / "a.pt"); }, ErrorCode::Format), HasSubstr("without data.pkl"));
}

TEST(Importer, TornFilesLeaveNothingBehind) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "out");
  int refused = 0;
  for (const char* name : {"plain.npz", "deflated.npz", "keys.safetensors", "mixed.safetensors", "protocol2.pt",
                           "protocol5.pt", "npy/q_layer2.npy", "version2.npy"}) {
    const std::string whole = readWholeFile(fixture(name), 1 << 20);
    for (std::size_t part = 0; part < 40; ++part) {
      const fs::path torn = folder / fmt::format("torn{}", fs::path(name).extension().string());
      write(torn, whole.substr(0, whole.size() * part / 40));
      try {
        imported(torn, folder / "out/t.h5", gridOf(2, 3, 4));
        ADD_FAILURE() << name << " " << part;
      } catch (const Error& error) {
        ++refused;
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      }
      EXPECT_TRUE(fs::is_empty(folder / "out")) << name << " " << part;
    }
  }
  EXPECT_EQ(refused, 320);
}

TEST(Importer, FlippedBytesAreAnswered) {
  const TemporaryFolder folder;
  std::mt19937 random(7);
  for (const char* name :
       {"deflated.npz", "plain.npz", "keys.safetensors", "protocol2.pt", "protocol5.pt", "version2.npy"}) {
    const std::string whole = readWholeFile(fixture(name), 1 << 20);
    const fs::path path = folder / fmt::format("f{}", fs::path(name).extension().string());
    for (int i = 0; i < 150; ++i) {
      std::string bytes = whole;
      for (int flips = 0; flips < 1 + i % 3; ++flips) bytes[random() % bytes.size()] = static_cast<char>(random());
      write(path, bytes);
      try {
        imported(path, folder / "o.h5", gridOf(2, 3, 4));
      } catch (const Error&) {
      }
    }
  }
}

TEST(Importer, CancellingLeavesNothingBehind) {
  const TemporaryFolder folder;
  const Survey survey = surveySource(fixture("keys.safetensors"));
  const ImportPlan plan = planImport(survey, {});
  std::stop_source stop;
  Control control;
  control.stop = stop.get_token();
  double last = 0;
  control.progress = [&](double fraction) {
    EXPECT_GE(fraction, last);
    last = fraction;
    if (fraction > 0.5) stop.request_stop();
  };
  EXPECT_THROW(runImport(survey, plan, folder / "o.h5", control), Cancelled);
  EXPECT_GT(last, 0.5);
  EXPECT_LT(last, 1.0);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Importer, AFolderNamesItsDamagedFilesAndGoesOn) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "run/step2");
  fs::copy_file(fixture("plain.npz"), folder / "run/step2/layer1.npz");
  write(folder / "run/step2/layer2.npz", "PK\x03\x04 torn");
  fs::copy_file(fixture("hostile_system.pt"), folder / "run/step2/layer3.pt");
  write(folder / "run/notes.txt", "hello");
  const Survey survey = surveySource(folder / "run");
  EXPECT_THAT(survey.warnings, testing::UnorderedElementsAre(AllOf(HasSubstr("skipped"), HasSubstr("layer2.npz")),
                                                             HasSubstr("posix.system"), HasSubstr("1 other files")));
  const ImportPlan plan = planImport(survey, gridOf(2, 3, 4));
  ASSERT_EQ(plan.calls.size(), 1U);
  EXPECT_EQ(plan.calls[0].header.id.step, 2);
  EXPECT_EQ(plan.calls[0].header.id.layer, 1);
  runImport(survey, plan, folder / "o.h5", {});
  EXPECT_THAT(importRecord(openTrace(folder / "o.h5")->info())->warnings, testing::Contains(HasSubstr("layer2.npz")));
  fs::remove(folder / "run/step2/layer1.npz");
  errorOf([&] { (void)surveySource(folder / "run"); });
  EXPECT_TRUE(isImportable(fixture("svoo")));
  EXPECT_FALSE(isImportable(folder / "nowhere"));
}

// --- profiles
// ---------------------------------------------------------------------------------------------------------

TEST(Importer, ReadsTheDensityLogOfSvg2) {
  const TemporaryFolder folder;
  std::string log;
  for (const double t : {900.5, 800.25}) {
    for (const int layer : {1, 2}) {
      for (int pass = 0; pass < 2; ++pass) {
        log += fmt::format(R"({{"timestep": {}, "layer": {}, "avg_density": 0.3, "density": [[{}, {}]]}})"
                           "\n",
                           t, layer, 0.25 + 0.125 * pass, layer / 4.0);
      }
    }
  }
  write(folder / "v.jsonl", log);
  const Importer* importer = importerFor(folder / "v.jsonl");
  ASSERT_NE(importer, nullptr);
  EXPECT_EQ(importer->id(), "svg2-log");
  ProfileImportOptions options;
  options.steps = 10;
  const ProfileImport read = importer->readProfile(folder / "v.jsonl", options);
  EXPECT_EQ(read.profile.steps(), 10);
  EXPECT_EQ(read.profile.layers(), 3);
  EXPECT_EQ(read.profile.heads(), 2);
  EXPECT_EQ(read.profile.at({8, 1, 0}), 0.3125) << "the mean of both guidance passes";
  EXPECT_EQ(read.profile.at({9, 2, 1}), 0.5);
  EXPECT_FALSE(read.profile.at({7, 1, 0})) << "dense steps are not logged";
  EXPECT_FALSE(read.profile.at({9, 0, 0}));
  EXPECT_THAT(read.assumed, testing::Contains(HasSubstr("the last of 10 steps")));
  write(folder / "torn.jsonl", log + R"({"timestep": 8)");
  EXPECT_THAT(importer->readProfile(folder / "torn.jsonl", {}).warnings, testing::Contains(HasSubstr("torn")));
  write(folder / "bad.jsonl", R"({"timestep": 1, "layer": 0, "avg_density": 2, "density": [[2]]})"
                              "\n" +
                                  log);
  EXPECT_THAT(errorOf([&] { (void)importer->readProfile(folder / "bad.jsonl", {}); }, ErrorCode::Format),
              HasSubstr("line 1"));
  options.steps = 1;
  EXPECT_THAT(errorOf([&] { (void)importer->readProfile(folder / "v.jsonl", options); }), HasSubstr("--steps 1"));
}

Profile gridProfile(int steps, int layers, int heads, BudgetRole role, bool flat) {
  Profile profile(steps, layers, heads, role);
  for (int s = 0; s < steps; ++s) {
    for (int l = 0; l < layers; ++l) {
      for (int h = 0; h < heads; ++h) {
        profile.set({s, l, h}, flat ? 0.25 : ((s * layers + l) * heads + h) % 1000 / 1000.0);
      }
    }
  }
  return profile;
}

// What each export writes, read again.
TEST(Importer, ExportsComeBack) {
  const TemporaryFolder folder;
  const auto around = [&](const char* id, const char* model, const Profile& profile, const std::string& name,
                          const std::vector<std::string>& params = {}) {
    const Exporter& exporter = exporterById(id);
    writeExport(prepareExport(exporter,
                              {profile, "p", model, ParamSet::parse(exporter.params(), params), {}, 0, folder / name}));
    const Importer* importer = importerFor(folder / name);
    if (importer == nullptr) return ProfileImport{readProfile(folder / name), {}, {}};
    EXPECT_TRUE(importer->isProfile());
    return importer->readProfile(folder / name, {});
  };
  const auto same = [](const Profile& a, const Profile& b) {
    if (a.steps() != b.steps() || a.layers() != b.layers() || a.heads() != b.heads() || a.role != b.role) return false;
    for (int s = 0; s < a.steps(); ++s) {
      for (int l = 0; l < a.layers(); ++l) {
        for (int h = 0; h < a.heads(); ++h) {
          if (a.at({s, l, h}) != b.at({s, l, h})) return false;
        }
      }
    }
    return true;
  };
  const Profile floors = gridProfile(50, 30, 12, BudgetRole::KeptFloor, false);
  EXPECT_TRUE(same(around("svoo-csv", "", floors, "a.csv").profile, floors));
  EXPECT_TRUE(same(around("json", "", floors, "a.json").profile, floors));
  EXPECT_TRUE(same(around("svoo-cli", "wan21_t2v_1_3b", floors, "a b.sh").profile, floors));
  EXPECT_TRUE(same(around("sparsevideo", "wan21-t2v-1.3b", floors, "v.json").profile, floors));
  const Profile targets = gridProfile(50, 30, 12, BudgetRole::KeptTarget, false);
  EXPECT_TRUE(same(around("sparsevideo", "wan21-t2v-1.3b", targets, "w.json").profile, targets));
  const Profile masses = gridProfile(50, 30, 12, BudgetRole::TopMass, false);
  EXPECT_TRUE(same(around("sparsevideo", "wan21-t2v-1.3b", masses, "x.json").profile, masses));
  // Sparse VideoGen takes one value: what is flat comes back, and as what it was.
  for (const BudgetRole role : {BudgetRole::KeptTarget, BudgetRole::KeptFloor, BudgetRole::TopMass}) {
    const Profile flat = gridProfile(50, 40, 40, role, true);
    const ProfileImport read = around("svg-cli", "wan_t2v_720p", flat, "s.sh");
    EXPECT_TRUE(same(read.profile, flat)) << budgetRoleName(role);
    EXPECT_THAT(read.assumed, testing::Contains(HasSubstr("for all steps, layers and heads")));
  }
  // The clip of SVOO's scripts is told, not applied.
  EXPECT_THAT(around("svoo-cli", "wan21_t2v_1_3b", floors, "c.sh", {"dynamic_min_kc_ratio_max=0.1"}).warnings,
              testing::Contains(HasSubstr("clips these values to 0 .. 0.1")));
  fs::remove(folder / "c.csv");
  EXPECT_THAT(errorOf([&] { (void)importerFor(folder / "c.sh")->readProfile(folder / "c.sh", {}); }, ErrorCode::Io),
              HasSubstr("c.csv"));
  write(folder / "own.sh",
        "#!/bin/sh\ntouch /tmp/sparsight-script-ran\npython x.py --pattern SVG --sparsity 0.3 # --sparsity 0.9\n");
  EXPECT_THAT(errorOf([&] { (void)importerFor(folder / "own.sh")->readProfile(folder / "own.sh", {}); }),
              HasSubstr("--steps N --layers N --heads N"));
  const ProfileImport own = importerFor(folder / "own.sh")->readProfile(folder / "own.sh", {4, 2, 3, {}});
  EXPECT_EQ(own.profile.at({3, 1, 2}), 0.3);
  EXPECT_FALSE(fs::exists("/tmp/sparsight-script-ran"));
  write(folder / "own.sh", "#!/bin/sh\npython x.py --pattern SVG --sparsity \"$S\"\n");
  EXPECT_THAT(errorOf(
                  [&] {
                    (void)importerFor(folder / "own.sh")->readProfile(folder / "own.sh", {4, 2, 3, {}});
                  },
                  ErrorCode::Format),
              HasSubstr("not a number"));
}

}  // namespace
}  // namespace sparsight
