// SPDX-License-Identifier: Apache-2.0
// sparsight-cli info, as a program: what it says of every kind of file, and the one line and exit code for bad ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/cli/method_command.h"
#include "tests/support/trace_builder.h"

namespace sparsight {
namespace {

using test::Program;
using test::runProgram;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::buildTrace;
using testing_support::Hdf5Editor;
using testing_support::TemporaryFolder;
using testing_support::TraceSpec;

const std::string kCall = "/data/step_0005/cond/layer_000/self";

class Info : public testing::Test {
 protected:
  TemporaryFolder folder;
  std::string path(const std::string& name) const { return (folder / name).string(); }
};

TEST_F(Info, ResultsAndPlansSayWhereTheyComeFrom) {
  buildTrace(path("t.h5"));
  ASSERT_EQ(runProgram({"run", path("t.h5"), "--method", "oracle_block", "--param", "kept=0.5", "block_size=4",
                        "--results", path("r.h5"), "--plan", path("p.h5"), "--quiet"})
                .exitCode,
            0);
  for (const char* name : {"r.h5", "p.h5"}) {
    SCOPED_TRACE(name);
    const Program text = runProgram({"info", path(name)});
    ASSERT_EQ(text.exitCode, 0) << text.err;
    EXPECT_THAT(text.out, AllOf(HasSubstr(path("t.h5")), HasSubstr("oracle_block"), HasSubstr("kept "),
                                HasSubstr("skipped "), HasSubstr("2 heads"), HasSubstr("seed 0")));
    const Program program = runProgram({"info", path(name), "--json"});
    const auto json = nlohmann::json::parse(program.out);
    EXPECT_EQ(json.at("trace_path"), path("t.h5"));
    EXPECT_FALSE(json.at("trace_uuid").get<std::string>().empty());
    EXPECT_TRUE(json.at("complete").get<bool>());
    EXPECT_EQ(json.at("methods").at("oracle_block"), 2);
    ASSERT_EQ(json.at("summary").size(), 1U);
    EXPECT_NEAR(json.at("summary")[0].at("kept_fraction").get<double>(),
                (json.at("heads")[0].at("kept_fraction").get<double>() +
                 json.at("heads")[1].at("kept_fraction").get<double>()) /
                    2,
                1e-12);
  }
}

TEST_F(Info, ContractOfTheJsonDocument) {
  TraceSpec spec;
  spec.steps = {3, 5};
  spec.textFirst = true;
  buildTrace(path("t.h5"), spec);
  const Program program = runProgram({"info", path("t.h5"), "--json"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_EQ(program.err, "");
  const auto json = nlohmann::json::parse(program.out);
  EXPECT_EQ(json.at("format"), "trace");
  EXPECT_EQ(json.at("model").at("family"), "wan2.1");
  EXPECT_EQ(json.at("tokens").at("n_tokens"), 28);
  EXPECT_EQ(json.at("tokens").at("grid"), nlohmann::json({2, 3, 4}));
  EXPECT_EQ(json.at("tokens").at("video_start"), 4);
  EXPECT_EQ(json.at("tokens").at("video_len"), 24);
  EXPECT_EQ(json.at("tokens").at("text_start"), 0);
  EXPECT_EQ(json.at("tokens").at("text_len"), 4);
  ASSERT_EQ(json.at("captured").size(), 2U);
  const auto& call = json.at("captured").at(1);
  EXPECT_EQ(call.at("step"), 5);
  EXPECT_EQ(call.at("branch"), "cond");
  EXPECT_EQ(call.at("component"), "transformer");
  EXPECT_EQ(call.at("layer"), 0);
  EXPECT_EQ(call.at("kind"), "self");
  EXPECT_EQ(call.at("call"), 0);
  EXPECT_EQ(call.at("heads"), nlohmann::json({0, 1}));
  EXPECT_EQ(call.at("dtype"), "float32");
  EXPECT_EQ(call.at("n_q"), 28);
  EXPECT_EQ(call.at("n_k"), 28);
  EXPECT_EQ(call.at("has_v"), true);
  EXPECT_TRUE(json.at("warnings").empty());
}

TEST_F(Info, WarningsAreInTheDocumentAndDoNotFail) {
  buildTrace(path("t.h5"));
  {
    Hdf5Editor edit(path("t.h5"));
    edit.setInt("/", "complete", 0);
    edit.setString("/run", "prompt", "caf\xc3\xa9 \xff broken utf-8");
  }
  const Program program = runProgram({"info", path("t.h5"), "--json"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  EXPECT_THAT(nlohmann::json::parse(program.out).at("warnings").at(0).get<std::string>(),
              HasSubstr("did not end cleanly"));
  EXPECT_THAT(runProgram({"info", path("t.h5")}).out,
              AllOf(HasSubstr("not complete"), HasSubstr("28 = 24 video (2x3x4) + 4 text")));
}

TEST_F(Info, ProfilesAreRecognised) {
  std::ofstream(path("p.csv")) << "Step,Layer,Head,Sparsity\r\n1,0,0,0.25\r\n1,0,1,0.5\r\n";
  const Program program = runProgram({"info", path("p.csv"), "--json"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto json = nlohmann::json::parse(program.out);
  EXPECT_EQ(json.at("format"), "profile-csv");
  EXPECT_EQ(json.at("heads"), 2);
  EXPECT_DOUBLE_EQ(json.at("mean").get<double>(), 0.375);
  EXPECT_THAT(runProgram({"info", path("p.csv")}).out, HasSubstr("37.5 % (skipped 62.5 %)"));
}

TEST_F(Info, PlanFilesAreRecognised) {
  buildTrace(path("t.h5"));
  ASSERT_EQ(runProgram({"run", path("t.h5"), "--method", "dense", "--plan", path("p.h5"), "--quiet"}).exitCode, 0);
  const Program program = runProgram({"info", path("p.h5"), "--json"});
  ASSERT_EQ(program.exitCode, 0) << program.err;
  const auto json = nlohmann::json::parse(program.out);
  EXPECT_EQ(json.at("format"), "plan");
  ASSERT_EQ(json.at("heads").size(), 2U);
  EXPECT_EQ(json.at("heads").at(0).at("method"), "dense");
}

// What goes wrong with files in daily life: exit code 3, one line, file and mend in it, nothing on stdout.
struct Bad {
  std::string name;
  std::function<void(const TemporaryFolder&)> make;
  std::vector<std::string> message;
  std::string file = "x.h5";
};
void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

class InfoErrors : public testing::TestWithParam<Bad> {};

TEST_P(InfoErrors, ExitThreeAndOneLine) {
  const TemporaryFolder folder;
  GetParam().make(folder);
  const std::string file = (folder / GetParam().file).string();
  for (const char* command : {"info", "check"}) {
    const Program program = runProgram({command, file, "--quiet"});
    SCOPED_TRACE(command);
    EXPECT_EQ(program.exitCode, 3);
    EXPECT_EQ(std::count(program.err.begin(), program.err.end(), '\n'), 1) << program.err;
    // check prints its findings on stdout, and says on stderr that there are some.
    const std::string text = std::string(command) == "check" ? program.out + program.err : program.err;
    if (std::string(command) == "info") {
      EXPECT_EQ(program.out, "");
    }
    for (const std::string& part : GetParam().message) EXPECT_THAT(text, HasSubstr(part));
    EXPECT_THAT(text, HasSubstr(GetParam().file));
  }
}

void editTrace(const TemporaryFolder& folder, const std::function<void(Hdf5Editor&)>& change) {
  buildTrace(folder / "x.h5");
  Hdf5Editor edit(folder / "x.h5");
  change(edit);
}

INSTANTIATE_TEST_SUITE_P(
    All, InfoErrors,
    testing::Values(
        Bad{"Missing", [](const TemporaryFolder&) {}, {"no such file", "check the path"}},
        Bad{"Empty", [](const TemporaryFolder& f) { std::ofstream(f / "x.h5").flush(); }, {"is empty"}},
        Bad{"TextNamedH5",
            [](const TemporaryFolder& f) { std::ofstream(f / "x.h5") << "just text\n"; },
            {"not an HDF5 file", "just text"}},
        Bad{"Truncated",
            [](const TemporaryFolder& f) {
              buildTrace(f / "x.h5");
              std::filesystem::resize_file(f / "x.h5", std::filesystem::file_size(f / "x.h5") / 2);
            },
            {"truncated", "copy"}},
        Bad{"Folder", [](const TemporaryFolder& f) { std::filesystem::create_directory(f / "x.h5"); }, {"is a folder"}},
        Bad{"Device",
            [](const TemporaryFolder& f) { std::filesystem::create_symlink("/dev/null", f / "x.h5"); },
            {"device or pipe"}},
        Bad{"WrongRank",
            [](const TemporaryFolder& f) {
              editTrace(f, [](Hdf5Editor& e) { e.dataset(kCall + "/q", {28, 8}, std::vector<float>(224)); });
            },
            {kCall + "/q", "expected [heads, tokens, channels]"}},
        Bad{"ZeroTokens",
            [](const TemporaryFolder& f) { editTrace(f, [](Hdf5Editor& e) { e.setInt("/tokens", "n_tokens", 0); }); },
            {"'n_tokens' is 0"}},
        Bad{"UnknownVersion",
            [](const TemporaryFolder& f) {
              editTrace(f, [](Hdf5Editor& e) { e.setInts("/", "format_version", {9, 0}); });
            },
            {"9.0", "newer program"}},
        Bad{"TrillionTokens",
            [](const TemporaryFolder& f) {
              editTrace(f, [](Hdf5Editor& e) {
                const Index n = 1000000000000;
                e.setInt("/tokens", "n_tokens", n);
                e.remove("/tokens/segments");
                e.setInt("/tokens", "text_len", n - 24);
                for (const char* tensor : {"/q", "/k", "/v"}) e.unallocated(kCall + tensor, {2, n, 8}, {1, 1024, 8});
                e.setInt(kCall, "n_q", n);
                e.setInt(kCall, "n_k", n);
              });
            },
            {"TiB", "memory limit"}},
        Bad{"ForeignHdf5",
            [](const TemporaryFolder& f) { Hdf5Editor::create(f / "x.h5").dataset("/a", {1}, {1.0F}); },
            {"'format' is missing"}}),
    [](const auto& test) { return test.param.name; });

TEST_F(Info, NoPermission) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  buildTrace(path("t.h5"));
  std::filesystem::permissions(path("t.h5"), std::filesystem::perms::none);
  const Program program = runProgram({"info", path("t.h5")});
  EXPECT_EQ(program.exitCode, 3);
  EXPECT_THAT(program.err, HasSubstr("no permission"));
}

TEST_F(Info, NaNInQIsRefusedWhereItIsRead) {
  buildTrace(path("t.h5"));
  {
    Hdf5Editor edit(path("t.h5"));
    edit.overwrite(kCall + "/q", 100, std::numeric_limits<float>::quiet_NaN());
  }
  EXPECT_EQ(runProgram({"info", path("t.h5")}).exitCode, 0);  // metadata only
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"stats", path("t.h5"), "--head", "0", "--json", "--quiet"},
        {"run", path("t.h5"), "--head", "0", "--method", "dense", "--json", "--quiet"}}) {
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 3) << arguments[0];
    EXPECT_THAT(program.err, AllOf(HasSubstr(kCall + "/q"), HasSubstr("[0, 12, 4] is NaN")));
    EXPECT_EQ(program.out, "");
  }
  // The other heads are worth having, but a script must not take them for all: results and exit code 3.
  const std::string profile = path("p.json");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"stats", path("t.h5"), "--json", "--quiet"},
        {"run", path("t.h5"), "--method", "dense", "--json", "--quiet"},
        {"profile", path("t.h5"), "--out", profile, "--json", "--quiet"}}) {
    const Program program = runProgram(arguments);
    EXPECT_EQ(program.exitCode, 3) << arguments[0];
    EXPECT_THAT(program.err, AllOf(HasSubstr("heads could not be read"), HasSubstr("[0, 12, 4] is NaN")));
    EXPECT_TRUE(nlohmann::json::accept(program.out)) << arguments[0];
  }
  EXPECT_TRUE(std::filesystem::exists(profile));
}

TEST_F(Info, MemoryLimitIsAnOption) {
  TraceSpec spec;
  spec.frames = 40;
  spec.height = 40;
  spec.width = 40;  // 64,004 tokens x 8 channels x 4 bytes x 3 = 5.9 MiB a head
  buildTrace(path("t.h5"), spec);
  EXPECT_EQ(runProgram({"info", path("t.h5"), "--memory-limit", "6"}).exitCode, 0);
  const Program program = runProgram({"info", path("t.h5"), "--memory-limit", "5"});
  EXPECT_EQ(program.exitCode, 3);
  EXPECT_THAT(program.err, HasSubstr("--memory-limit"));
}

}  // namespace
}  // namespace sparsight
