// SPDX-License-Identifier: Apache-2.0
// Every rule of the trace format: a valid trace with one thing broken is refused (or warned about), and the message
// names the file, the object or attribute, and how to mend it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using testing::HasSubstr;
using testing_support::buildTrace;
using testing_support::firstCall;
using testing_support::Hdf5Editor;
using testing_support::Stored;
using testing_support::TemporaryFolder;
using testing_support::TraceSpec;

struct Rule {
  std::string name;
  std::function<void(Hdf5Editor&)> breakIt;
  ErrorCode code;
  std::vector<std::string> message;  ///< all of these stand in the message
  TraceSpec spec = {};
};
void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

const std::string kCall = "/data/step_0005/cond/layer_000/self";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<Rule> rules() {
  using E = Hdf5Editor;
  const auto format = ErrorCode::Format;
  const auto unsupported = ErrorCode::Unsupported;
  TraceSpec subset;
  subset.qRows = {0, 3, 9, 27};
  TraceSpec padded;
  padded.keyValid.assign(28, 1);
  TraceSpec noSegments;
  noSegments.segments = false;
  TraceSpec opaque;
  opaque.stored = Stored::Opaque2;
  TraceSpec plain16;
  plain16.stored = Stored::Uint16Plain;
  TraceSpec doubles;
  doubles.stored = Stored::Float64;
  return {
      // Root
      {"NoFormat", [](E& e) { e.removeAttribute("/", "format"); }, format, {"'format' is missing", "sparsight-trace"}},
      {"OtherFormat",
       [](E& e) { e.setString("/", "format", "something"); },
       format,
       {"'format' is \"something\"", "sparsight-trace"}},
      {"NoVersion",
       [](E& e) { e.removeAttribute("/", "format_version"); },
       format,
       {"'format_version' is missing", "write [1, 1]"}},
      {"VersionTwo",
       [](E& e) {
         e.setInts("/", "format_version", {2, 0});
       },
       unsupported,
       {"'format_version' is 2.0", "reads 1.x", "newer program"}},
      {"VersionThreeNumbers",
       [](E& e) {
         e.setInts("/", "format_version", {1, 1, 0});
       },
       format,
       {"3 elements", "[major, minor]"}},
      {"VersionIsText",
       [](E& e) { e.setString("/", "format_version", "1.1"); },
       format,
       {"'format_version' holds text, expected integers"}},
      {"RequiredFeatureAttribute",
       [](E& e) { e.setFixedStrings("/", "required_features", {"quantised_kv"}, 12, E::Padding::NullPadded); },
       unsupported,
       {"required_features", "\"quantised_kv\"", "newer program"}},
      {"RequiredFeatureDataset",
       [](E& e) { e.datasetStrings("/required_features", {"ragged"}); },
       unsupported,
       {"required_features", "\"ragged\""}},
      {"ModelNumberIsText",
       [](E& e) { e.setString("/model", "num_heads", "two"); },
       format,
       {"/model", "'num_heads' holds text, expected integers"}},
      {"ModelNegative", [](E& e) { e.setInt("/model", "num_layers", -4); }, format, {"/model", "'num_layers' is -4"}},
      {"AttributeCompound",
       [](E& e) { e.setCompound("/model", "num_layers"); },
       format,
       {"/model", "'num_layers' is compound"}},
      // Tokens
      {"NoTokens", [](E& e) { e.remove("/tokens"); }, format, {"'tokens' is missing", "n_tokens"}},
      {"ZeroTokens",
       [](E& e) { e.setInt("/tokens", "n_tokens", 0); },
       format,
       {"/tokens", "'n_tokens' is 0", "capture again"}},
      {"NegativeTokens", [](E& e) { e.setInt("/tokens", "n_tokens", -1); }, format, {"/tokens", "'n_tokens' is -1"}},
      {"TrillionTokens",
       [](E& e) { e.setInt("/tokens", "n_tokens", 1000000000000); },
       format,
       {"sum to 28 tokens, n_tokens is 1000000000000", "correct n_tokens"}},
      {"OtherOrder",
       [](E& e) { e.setString("/tokens", "order", "hwt"); },
       unsupported,
       {"/tokens", "'order' is \"hwt\"", "frame-major"}},
      {"GridDoesNotFit",
       [](E& e) {
         e.setInts("/tokens", "grid", {2, 3, 5});
       },
       format,
       {"/tokens", "2x3x5 has 30 cells", "24 tokens"}},
      {"GridDoesNotFitScalars",
       [](E& e) {
         e.setInts("/tokens", "grid", {2, 3, 5});
       },
       format,
       {"/tokens", "2x3x5 has 30 cells", "24 tokens"},
       noSegments},
      {"GridOverflows",
       [](E& e) {
         e.datasetInt32("/tokens/segments/grid", {2, 3}, {2147483647, 2147483647, 2147483647, 0, 0, 0});
       },
       format,
       {"/tokens/segments", "overflows"}},
      {"GridOfTwo",
       [](E& e) {
         e.setInts("/tokens", "grid", {6, 4});
       },
       format,
       {"'grid' has 2 elements", "[T, H, W]"},
       noSegments},
      {"NoVideoStart",
       [](E& e) { e.removeAttribute("/tokens", "video_start"); },
       format,
       {"'video_start' is missing"},
       noSegments},
      {"TextOverlaps",
       [](E& e) { e.setInt("/tokens", "text_start", 20); },
       format,
       {"/tokens", "segment at token 20 overlaps"},
       noSegments},
      {"ScalarsLeaveAHole",
       [](E& e) { e.setInt("/tokens", "text_len", 2); },
       format,
       {"sum to 26 tokens, n_tokens is 28"},
       noSegments},
      {"SegmentsOverlap",
       [](E& e) {
         e.datasetInt64("/tokens/segments/start", {2}, {0, 23});
       },
       format,
       {"/tokens/segments", "segment at token 23 overlaps"}},
      {"SegmentsLeaveAHole",
       [](E& e) {
         e.datasetInt64("/tokens/segments/length", {2}, {24, 3});
       },
       format,
       {"/tokens/segments", "sum to 27 tokens"}},
      {"SegmentBeyondEnd",
       [](E& e) {
         e.datasetInt64("/tokens/segments/length", {2}, {24, 9223372036854775807});
       },
       format,
       {"/tokens/segments", "beyond n_tokens"}},
      {"SegmentNegative",
       [](E& e) {
         e.datasetInt64("/tokens/segments/start", {2}, {-24, 24});
       },
       format,
       {"/tokens/segments", "negative"}},
      {"SegmentListsDiffer",
       [](E& e) { e.datasetInt64("/tokens/segments/start", {1}, {0}); },
       format,
       {"kind, start and length have 2, 1 and 2"}},
      {"SegmentGridShape",
       [](E& e) {
         e.datasetInt32("/tokens/segments/grid", {3}, {2, 3, 4});
       },
       format,
       {"/tokens/segments/grid", "[3]", "[2, 3]"}},
      {"VideoWithoutGrid",
       [](E& e) {
         e.datasetInt32("/tokens/segments/grid", {2, 3}, {0, 0, 0, 0, 0, 0});
       },
       format,
       {"video segment 0 has no grid"}},
      {"ScalarContradictsSegments",
       [](E& e) { e.setInt("/tokens", "video_start", 4); },
       format,
       {"'video_start' is 4, the segments say 0"}},
      {"PermLength",
       [](E& e) {
         e.datasetInt32("/tokens/perm", {3}, {0, 1, 2});
       },
       format,
       {"/tokens/perm", "[3]", "[28]"}},
      {"PermTwice",
       [](E& e) { e.datasetInt32("/tokens/perm", {28}, std::vector<std::int32_t>(28, 3)); },
       format,
       {"/tokens/perm", "3 stands twice"}},
      {"PermOutOfRange",
       [](E& e) { e.datasetInt32("/tokens/perm", {28}, std::vector<std::int32_t>(28, 28)); },
       format,
       {"/tokens/perm", "is 28, outside 0 .. 27"}},
      // Capture
      {"PreRope",
       [](E& e) { e.setString("/capture", "stage", "pre_rope"); },
       unsupported,
       {"/capture", "'stage' is \"pre_rope\""}},
      {"KeySubset",
       [](E& e) { e.setString("/capture", "k_mode", "list"); },
       unsupported,
       {"/capture", "'k_mode' is \"list\"", "K and V"}},
      {"QRowsUnsorted",
       [](E& e) {
         e.datasetInt64("/capture/q_rows", {4}, {0, 9, 3, 27});
       },
       format,
       {"/capture/q_rows", "entry 2 (3) is not larger"},
       subset},
      {"QRowsOutOfRange",
       [](E& e) {
         e.datasetInt64("/capture/q_rows", {4}, {0, 3, 9, 28});
       },
       format,
       {"/capture/q_rows", "entry 3 is 28"},
       subset},
      {"QRowsRank",
       [](E& e) {
         e.datasetInt64("/capture/q_rows", {2, 2}, {0, 3, 9, 27});
       },
       format,
       {"/capture/q_rows", "expected one axis"},
       subset},
      {"QRowsMissing",
       [](E& e) { e.remove("/capture/q_rows"); },
       format,
       {kCall, "q has 4 rows, the call has 28 tokens and no q_rows"},
       subset},
      {"QRowsOtherLength",
       [](E& e) {
         e.datasetInt64("/capture/q_rows", {3}, {0, 3, 9});
       },
       format,
       {kCall, "/capture/q_rows lists 3", "add a dataset 'q_rows'"},
       subset},
      // Calls
      {"NoData", [](E& e) { e.remove("/data"); }, format, {"'data' is missing"}},
      {"NoStep", [](E& e) { e.removeAttribute(kCall, "step"); }, format, {kCall, "'step' is missing", "0-based"}},
      {"NoBranch", [](E& e) { e.removeAttribute(kCall, "branch"); }, format, {kCall, "'branch' is missing"}},
      {"NoScale",
       [](E& e) { e.removeAttribute(kCall, "scale"); },
       format,
       {kCall, "'scale' is missing", "head_dim^-0.5"}},
      {"ScaleZero", [](E& e) { e.setReal(kCall, "scale", 0.0); }, format, {kCall, "'scale' is 0", "positive"}},
      {"ScaleNaN", [](E& e) { e.setReal(kCall, "scale", kNaN); }, format, {kCall, "'scale' is nan"}},
      {"ScaleIsText",
       [](E& e) { e.setString(kCall, "scale", "0.35"); },
       format,
       {kCall, "'scale' holds text, expected numbers"}},
      {"StepIsFloat",
       [](E& e) { e.setReal(kCall, "step", 5.0); },
       format,
       {kCall, "'step' holds floats, expected integers"}},
      {"StepTwice",
       [](E& e) {
         e.setInts(kCall, "step", {5, 6});
       },
       format,
       {kCall, "'step' has 2 elements, expected one"}},
      {"StepBeyondSchedule",
       [](E& e) { e.setInt(kCall, "step", 20); },
       format,
       {kCall, "'step' is 20", "/run/timesteps has 20 steps"}},
      {"NegativeLayer", [](E& e) { e.setInt(kCall, "layer", -1); }, format, {kCall, "'layer' is -1"}},
      {"HeadTwice",
       [](E& e) {
         e.setInts(kCall, "heads", {1, 1});
       },
       format,
       {kCall, "lists head 1 twice"}},
      {"HeadBeyondModel",
       [](E& e) {
         e.setInts(kCall, "heads", {0, 2});
       },
       format,
       {kCall, "lists head 2, the model has 2 heads"}},
      {"NoHeads", [](E& e) { e.setInts(kCall, "heads", {}); }, format, {kCall, "'heads' is empty"}},
      {"SameCallTwice",
       [](E& e) { e.copy(kCall, kCall + ".1"); },
       format,
       {kCall + ".1", "is the same call as", "'call' number"}},
      {"NoQ", [](E& e) { e.remove(kCall + "/q"); }, format, {kCall, "dataset 'q' is missing"}},
      {"NoK", [](E& e) { e.remove(kCall + "/k"); }, format, {kCall, "dataset 'k' is missing"}},
      {"WrongRank",
       [](E& e) {
         e.dataset(kCall + "/q", {28, 8}, std::vector<float>(224));
       },
       format,
       {kCall + "/q", "expected [heads, tokens, channels], found [28, 8] with 2 axes"}},
      {"HeadsOfQ",
       [](E& e) {
         e.dataset(kCall + "/q", {3, 28, 8}, std::vector<float>(672));
       },
       format,
       {kCall + "/q", "has 3 heads on axis 0, attribute 'heads' lists 2"}},
      {"HeadsOfK",
       [](E& e) {
         e.dataset(kCall + "/k", {3, 28, 8}, std::vector<float>(672));
       },
       format,
       {kCall + "/k", "neither equals nor divides the 2 heads"}},
      {"ChannelsDiffer",
       [](E& e) {
         e.dataset(kCall + "/k", {2, 28, 4}, std::vector<float>(224));
       },
       format,
       {kCall + "/k", "has 4 channels, q has 8"}},
      {"KeysDiffer",
       [](E& e) {
         e.dataset(kCall + "/v", {2, 27, 8}, std::vector<float>(432));
       },
       format,
       {kCall + "/v", "has 27 tokens, k has 28"}},
      {"HeadsOfV",
       [](E& e) {
         e.dataset(kCall + "/v", {1, 28, 8}, std::vector<float>(224));
       },
       format,
       {kCall + "/v", "has 1 heads, k has 2"}},
      {"StatedKeysDiffer",
       [](E& e) { e.setInt(kCall, "n_k", 27); },
       format,
       {kCall + "/k", "has 28 tokens, attribute 'n_k' of its call says 27"}},
      {"OtherLengthWithoutOverride",
       [](E& e) {
         e.dataset(kCall + "/k", {2, 26, 8}, std::vector<float>(416));
         e.dataset(kCall + "/v", {2, 26, 8}, std::vector<float>(416));
         e.setInt(kCall, "n_k", 26);
       },
       format,
       {kCall + "/k", "step 5, cond, layer 0, self", "n_tokens = 28", "'n_tokens'"}},
      {"OverrideDoesNotSum",
       [](E& e) { e.setInt(kCall, "n_tokens", 30); },
       format,
       {kCall, "n_tokens = 30", "sum to 28"}},
      {"OverrideTextStart",
       [](E& e) { e.setInt(kCall, "text_start", 7); },
       format,
       {kCall, "'text_start' is 7", "begins at 24"}},
      {"ZeroChannels",
       [](E& e) {
         e.dataset(kCall + "/q", {2, 28, 0}, {});
         e.dataset(kCall + "/k", {2, 28, 0}, {});
       },
       format,
       {kCall + "/q", "zero channels"}},
      {"OtherDims",
       [](E& e) { e.setString(kCall + "/q", "dims", "token,head,channel"); },
       unsupported,
       {kCall + "/q", "'dims' is \"token,head,channel\"", "transpose"}},
      {"DtypeContradicts",
       [](E& e) { e.setString(kCall + "/k", "dtype", "float16"); },
       format,
       {kCall + "/k", "'dtype' says \"float16\", the data is float32"}},
      {"MixedTypes",
       [](E& e) {
         e.unallocated(kCall + "/k", {2, 28, 8}, {1, 28, 8});
       },
       unsupported,
       {kCall + "/k", "is float16, q is float32"}},
      {"Opaque", [](E&) {}, format, {kCall + "/q", "opaque of 2 bytes", "view('<u2')"}, opaque},
      {"Uint16", [](E&) {}, format, {kCall + "/q", "uint16 without attribute dtype = \"bfloat16\""}, plain16},
      {"Float64", [](E&) {}, unsupported, {kCall + "/q", "is float64", "float16, bfloat16 or float32"}, doubles},
      {"UnknownFilter",
       [](E& e) {
         e.withUnknownFilter(kCall + "/q", {2, 28, 8}, 32015);
       },
       unsupported,
       {kCall + "/q", "filter 32015", "HDF5_PLUGIN_PATH", "h5repack"}},
      {"ExternalRawData",
       [](E& e) {
         e.externalStorage(kCall + "/q", {2, 28, 8}, "/etc/passwd");
       },
       unsupported,
       {kCall + "/q", "foreign raw file"}},
      // Masks
      {"NoMaskAttribute",
       [](E& e) { e.removeAttribute(kCall, "mask"); },
       format,
       {kCall, "'mask' is missing", "\"none\""}},
      {"MaskUnknown", [](E& e) { e.setString(kCall, "mask", "causal"); }, format, {kCall, "'mask' is \"causal\""}},
      {"KeyValidUnannounced",
       [](E& e) { e.setString(kCall, "mask", "none"); },
       format,
       {kCall, "'mask' is \"none\", but dataset 'key_valid' is there"},
       padded},
      {"KeyValidMissing",
       [](E& e) { e.setString(kCall, "mask", "key_valid"); },
       format,
       {kCall, "dataset 'key_valid' is missing"}},
      {"DenseMissing", [](E& e) { e.setString(kCall, "mask", "dense"); }, format, {kCall, "dataset 'mask' is missing"}},
      {"KeyValidLength",
       [](E& e) { e.datasetBytes(kCall + "/key_valid", {27}, std::vector<std::uint8_t>(27, 1)); },
       format,
       {kCall + "/key_valid", "[27]", "[28]"},
       padded},
      {"KeyValidType",
       [](E& e) { e.dataset(kCall + "/key_valid", {28}, std::vector<float>(28, 1.0F)); },
       format,
       {kCall + "/key_valid", "is float32, expected uint8"},
       padded},
      {"DenseShape",
       [](E& e) {
         e.setString(kCall, "mask", "dense");
         e.datasetBytes(kCall + "/mask", {28}, std::vector<std::uint8_t>(28, 1));
       },
       format,
       {kCall + "/mask", "[28]", "[28, 28]"}},
      // Stored results
      {"LseShape",
       [](E& e) { e.dataset(kCall + "/lse", {28}, std::vector<float>(28)); },
       format,
       {kCall + "/lse", "[28]", "[2, 28]"}},
      {"OutShape",
       [](E& e) {
         e.dataset(kCall + "/out", {2, 28, 4}, std::vector<float>(224));
       },
       format,
       {kCall + "/out", "[2, 28, 4]", "[2, 28, 8]"}},
      // Frames
      {"FramesShape",
       [](E& e) {
         e.datasetBytes("/frames/rgb", {2, 4, 4}, std::vector<std::uint8_t>(32));
       },
       format,
       {"/frames/rgb", "[2, 4, 4]", "[frames, height, width, 3]"}},
      // Links
      {"AbsoluteLink",
       [](E& e) { e.externalLink("/data/step_0006", "/etc/passwd", "/"); },
       unsupported,
       {"/data", "step_0006", "'/etc/passwd'", "beside the trace"}},
      {"ParentLink",
       [](E& e) { e.externalLink("/data/step_0006", "../other.h5", "/"); },
       unsupported,
       {"step_0006", "'../other.h5'"}},
      {"FolderLink",
       [](E& e) { e.externalLink("/data/step_0006", "sub/other.h5", "/"); },
       unsupported,
       {"step_0006", "'sub/other.h5'"}},
      {"DeepLink",
       [](E& e) { e.externalLink("/data/step_0005/uncond", "other.h5", "/"); },
       unsupported,
       {"/data/step_0005", "uncond", "link whole steps"}},
  };
}

class TraceRules : public testing::TestWithParam<Rule> {};

TEST_P(TraceRules, OpenRefusesNamingFileObjectAndMend) {
  const Rule& rule = GetParam();
  const TemporaryFolder folder;
  const auto path = folder / "broken.h5";
  buildTrace(path, rule.spec);
  {
    Hdf5Editor edit(path);
    rule.breakIt(edit);
  }
  try {
    const auto trace = openTrace(path);
    FAIL() << "opened without an error; warnings: " << testing::PrintToString(trace->info().warnings);
  } catch (const Error& error) {
    EXPECT_EQ(errorCodeName(error.code()), errorCodeName(rule.code));
    const std::string text = error.what();
    EXPECT_THAT(text, HasSubstr("broken.h5"));
    for (const std::string& part : rule.message) EXPECT_THAT(text, HasSubstr(part));
    EXPECT_EQ(text.find('\n'), std::string::npos);
  }
}

// The same broken file, checked: the finding is there, and checking goes on to the end.
TEST_P(TraceRules, CheckFindsIt) {
  const Rule& rule = GetParam();
  const TemporaryFolder folder;
  const auto path = folder / "broken.h5";
  buildTrace(path, rule.spec);
  {
    Hdf5Editor edit(path);
    rule.breakIt(edit);
  }
  std::vector<Finding> findings;
  try {
    findings = checkTrace(path, false, nullptr, {});
  } catch (const Error& error) {
    findings.push_back({Finding::Level::Error, "/", error.what()});  // no trace at all
  }
  std::string all;
  bool found = false;
  for (const Finding& f : findings) {
    all += f.message + "\n";
    bool matches = f.level == Finding::Level::Error;
    for (const std::string& part : rule.message) matches = matches && f.message.find(part) != std::string::npos;
    found = found || matches;
  }
  EXPECT_TRUE(found) << all;
}

INSTANTIATE_TEST_SUITE_P(All, TraceRules, testing::ValuesIn(rules()), [](const auto& test) { return test.param.name; });

// Warnings: the trace opens, and says what is odd.
struct Oddity {
  std::string name;
  std::function<void(Hdf5Editor&)> change;
  std::vector<std::string> message;
};
void PrintTo(const Oddity& oddity, std::ostream* out) { *out << oddity.name; }

std::vector<Oddity> oddities() {
  using E = Hdf5Editor;
  return {
      {"NewerMinor",
       [](E& e) {
         e.setInts("/", "format_version", {1, 7});
       },
       {"1.7", "newer"}},
      {"NotComplete", [](E& e) { e.setInt("/", "complete", 0); }, {"'complete' is 0", "did not end cleanly"}},
      {"CompleteMissing", [](E& e) { e.removeAttribute("/", "complete"); }, {"'complete' is missing"}},
      {"UnusualScale", [](E& e) { e.setReal(kCall, "scale", 0.5); }, {kCall, "'scale' is 0.5", "0.353553"}},
      {"TimestepsNotMonotone",
       [](E& e) { e.dataset("/run/timesteps", {20}, {9, 8, 7, 3, 5, 750, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}); },
       {"/run/timesteps", "not monotone"}},
      {"NoModel", [](E& e) { e.remove("/model"); }, {"/model", "missing"}},
      {"LayerBeyondModel", [](E& e) { e.setInt(kCall, "layer", 30); }, {"'layer' is 30, the model has 30 layers"}},
      {"TimestepContradicts",
       [](E& e) { e.setReal(kCall, "timestep", 1.0); },
       {"'timestep' is 1", "/run/timesteps[5] is 750"}},
      {"HeadDimContradicts", [](E& e) { e.setInt("/model", "head_dim", 64); }, {"8 channels", "head_dim 64"}},
      {"QRowsWithModeAll",
       [](E& e) {
         e.datasetInt64("/capture/q_rows", {2}, {0, 1});
       },
       {"/capture/q_rows", "ignored"}},
      {"OddTruth",
       [](E& e) {
         e.dataset("/ext/synth/truth", {2}, {0, 1});
       },
       {"/ext/synth/truth", "ignored"}},
      {"NoCalls", [](E& e) { e.remove("/data/step_0005"); }, {"/data", "no attention call"}},
  };
}

class TraceRulesWarnings : public testing::TestWithParam<Oddity> {};
TEST_P(TraceRulesWarnings, OpensAndSaysWhatIsOdd) {
  const TemporaryFolder folder;
  const auto path = folder / "odd.h5";
  buildTrace(path);
  {
    Hdf5Editor edit(path);
    GetParam().change(edit);
  }
  const auto trace = openTrace(path);
  ASSERT_EQ(trace->info().warnings.size(), 1U) << testing::PrintToString(trace->info().warnings);
  for (const std::string& part : GetParam().message) EXPECT_THAT(trace->info().warnings.front(), HasSubstr(part));
}
INSTANTIATE_TEST_SUITE_P(All, TraceRulesWarnings, testing::ValuesIn(oddities()),
                         [](const auto& test) { return test.param.name; });

TEST(TraceRulesValid, TheBuilderItselfIsValid) {
  const TemporaryFolder folder;
  buildTrace(folder / "ok.h5");
  EXPECT_THAT(openTrace(folder / "ok.h5")->info().warnings, testing::IsEmpty());
  for (const Finding& f : checkTrace(folder / "ok.h5", false, nullptr, {}))
    EXPECT_EQ(f.level, Finding::Level::Info) << f.message;
}

TEST(TraceRulesValid, SameWarningInManyCallsIsToldOnce) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.layers = {0, 1, 2, 3};
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    for (const char* layer : {"0", "1", "2", "3"})
      edit.setReal(std::string("/data/step_0005/cond/layer_00") + layer + "/self", "scale", 0.5);
  }
  const auto trace = openTrace(folder / "t.h5");
  ASSERT_EQ(trace->info().warnings.size(), 1U);
  EXPECT_THAT(trace->info().warnings.front(), HasSubstr("3 more places"));
}

TEST(TraceRulesValid, CheckListsEveryBrokenCall) {
  const TemporaryFolder folder;
  TraceSpec spec;
  spec.layers = {0, 1, 2};
  buildTrace(folder / "t.h5", spec);
  {
    Hdf5Editor edit(folder / "t.h5");
    edit.removeAttribute("/data/step_0005/cond/layer_000/self", "scale");
    edit.remove("/data/step_0005/cond/layer_002/self/k");
  }
  const auto findings = checkTrace(folder / "t.h5", false, nullptr, {});
  const auto errors = std::count_if(findings.begin(), findings.end(),
                                    [](const Finding& f) { return f.level == Finding::Level::Error; });
  EXPECT_EQ(errors, 2);
}

}  // namespace
}  // namespace sparsight
