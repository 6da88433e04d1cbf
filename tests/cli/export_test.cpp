// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"

namespace sparsight {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ExportCli : public testing::Test {
 protected:
  struct Result {
    int code = -1;
    std::string out, err;
  };
  void SetUp() override {
    m_folder = std::filesystem::temp_directory_path() / fmt::format("sparsight-export-{}", ::getpid());
    std::filesystem::create_directories(m_folder);
  }
  void TearDown() override { std::filesystem::remove_all(m_folder); }

  Result run(const std::string& arguments) const {
    const auto err = m_folder / "stderr";
    const std::string command =
        fmt::format("cd '{}' && '{}' {} 2>'{}'", m_folder.string(), SPARSIGHT_CLI, arguments, err.string());
    Result result;
    FILE* pipe = ::popen(command.c_str(), "r");
    char buffer[4096];
    for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.out.append(buffer, n);
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result.err = readWholeFile(err, 1 << 20);
    return result;
  }
  Result fails(const std::string& arguments, int code) const {
    Result result = run(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << "one line: " << result.err;
    return result;
  }
  [[nodiscard]] std::string read(const std::string& name) const { return readWholeFile(m_folder / name, 1 << 24); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(m_folder / name, std::ios::binary) << text;
  }
  /// The grid of Wan2.1 1.3B, with or without a hole at step index 7.
  [[nodiscard]] static Profile wan(bool hole) {
    Profile p(50, 30, 12, BudgetRole::KeptFloor);
    for (int s = 0; s < 50; ++s) {
      for (int l = 0; l < 30; ++l) {
        for (int h = 0; h < 12; ++h) p.set({s, l, h}, (s * 360 + l * 12 + h) % 10000 / 10000.0);
      }
    }
    if (hole) p.set({7, 3, 1}, std::nullopt);
    return p;
  }
  std::filesystem::path m_folder;
};

TEST_F(ExportCli, AnUneditedCsvComesOutByteForByte) {
  const std::string csv = formatSvooCsv(wan(false));
  write("p.csv", csv);
  const Result result = run("export p.csv --to svoo-csv --out 'a b.csv'");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_TRUE(read("a b.csv") == csv);
  EXPECT_THAT(result.out,
              HasSubstr("MODEL_SIZE=1.3B bash scripts/inference/wan/wan_t2v_720p_svoo.sh --sparsity_csv_path '"));
  EXPECT_THAT(result.out, HasSubstr((m_folder / "a b.csv").string() +
                                    "' --dynamic_min_kc_ratio_min 0.0 --dynamic_min_kc_ratio_max 1.0\n"));
  EXPECT_THAT(result.out, AllOf(HasSubstr("kept "), HasSubstr("(skipped ")));
}

TEST_F(ExportCli, GoesThroughJsonAndBackExactly) {
  const std::string csv = formatSvooCsv(wan(false));
  write("p.csv", csv);
  ASSERT_EQ(run("export p.csv --to json --out p.json").code, 0);
  EXPECT_TRUE(nlohmann::json::accept(read("p.json")));
  ASSERT_EQ(run("export p.json --to svoo-csv --out q.csv").code, 0);
  EXPECT_TRUE(read("q.csv") == csv);
}

TEST_F(ExportCli, RefusesHolesWithTheReadyCommandThatWorks) {
  writeProfile(m_folder / "p.json", wan(true));
  const Result refused = fails("export p.json --to svoo-csv --model wan21_t2v_1_3b --out q.csv", 2);
  EXPECT_FALSE(std::filesystem::exists(m_folder / "q.csv"));
  EXPECT_THAT(refused.err, HasSubstr("1 of 18000 cells"));
  const std::size_t at = refused.err.find("run: sparsight-cli ");
  ASSERT_NE(at, std::string::npos) << refused.err;
  const std::size_t from = at + 19;
  const Result filled = run(refused.err.substr(from, refused.err.find(" (or", from) - from));
  EXPECT_EQ(filled.code, 0) << filled.err;
  EXPECT_THAT(filled.out, HasSubstr("1 cells were filled (nearest)"));
  EXPECT_EQ(readProfile(m_folder / "q.csv").holeCount(), 0);
}

TEST_F(ExportCli, FillsAsAsked) {
  writeProfile(m_folder / "p.json", wan(true));
  for (const auto& [fill, value] :
       {std::pair("nearest", *wan(true).at({6, 3, 1})), {"hold", *wan(true).at({6, 3, 1})}, {"value=0.125", 0.125}}) {
    ASSERT_EQ(run(fmt::format("export p.json --to svoo-csv --fill {} --out q.csv", fill)).code, 0) << fill;
    EXPECT_EQ(readProfile(m_folder / "q.csv").at({7, 3, 1}), value) << fill;
  }
  for (const char* bad : {"value=1.5", "value=", "value=x", "value=nan", "linear", "value"}) {
    fails(fmt::format("export p.json --to svoo-csv --fill {} --out q2.csv", bad), 2);
  }
  EXPECT_EQ(run("export p.json --to json --out copy.json").code, 0) << "our own format has holes";
  EXPECT_EQ(readProfile(m_folder / "copy.json").holeCount(), 1);
  EXPECT_EQ(run("export p.json --to json --fill hold --out full.json").code, 0);
  EXPECT_EQ(readProfile(m_folder / "full.json").holeCount(), 0);
}

TEST_F(ExportCli, ListsTheTargetsItHas) {
  write("p.csv", formatSvooCsv(wan(false)));
  EXPECT_THAT(fails("export p.csv --to nonsense --out q", 2).err, HasSubstr("there are json, sparsevideo, svg-cli"));
  fails("export p.csv --to svoo-csv", 2);
  fails("export p.csv --out q.csv", 2);
  EXPECT_THAT(run("export --help").out, AllOf(HasSubstr("sparsevideo"), HasSubstr("--model wan_t2v_720p")));
}

TEST_F(ExportCli, WritesWhatRuntimesRun) {
  write("p.csv", formatSvooCsv(wan(false)));
  const Result script = run("export p.csv --to svoo-cli --out run.sh");
  EXPECT_EQ(script.code, 0) << script.err;
  EXPECT_TRUE(read("run.csv") == read("p.csv"));
  EXPECT_EQ(run("export p.csv --to svoo-cli --out run.sh").code, 0) << "again";
  const Result config = run("export p.csv --to sparsevideo --model wan21-t2v-1.3b --out video.json --json");
  EXPECT_EQ(config.code, 0) << config.err;
  EXPECT_EQ(nlohmann::json::parse(read("video.json")).at("num_inference_steps"), 50);
  EXPECT_EQ(nlohmann::json::parse(config.out).at("files").size(), 2U);
  // Neither the profile itself nor somebody else's file is replaced by a companion.
  EXPECT_THAT(fails("export p.csv --to svoo-cli --out p.sh", 2).err, HasSubstr("p.csv"));
  write("mine.csv", "mine");
  EXPECT_THAT(fails("export p.csv --to svoo-cli --out mine.sh", 2).err, HasSubstr("mine.csv"));
  EXPECT_EQ(read("mine.csv"), "mine");
  EXPECT_FALSE(std::filesystem::exists(m_folder / "mine.sh"));
}

TEST_F(ExportCli, ChecksTheModel) {
  write("p.csv", formatSvooCsv(wan(false)));
  EXPECT_THAT(fails("export p.csv --to svoo-csv --model wan21_t2v_14b --out q.csv", 2).err,
              AllOf(HasSubstr("40 x 40"), HasSubstr("this is the grid of Wan2.1 1.3B T2V")));
  EXPECT_THAT(fails("export p.csv --to svoo-csv --model gpt --out q.csv", 2).err, HasSubstr("wan21_t2v_1_3b"));
  Profile shorter(20, 30, 12, BudgetRole::KeptFloor);
  writeProfile(m_folder / "s.json", fillForExport(shorter, FillPolicy::Value, 0.5));
  const Result result = run("export s.json --to svoo-csv --model wan21_t2v_1_3b --out q.csv");
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.err, AllOf(HasSubstr("warning: "), HasSubstr("--num_inference_steps 20")));
  EXPECT_THAT(result.out, HasSubstr("--num_inference_steps 20"));
}

TEST_F(ExportCli, TakesTheClipOfTheLoadingLine) {
  write("p.csv", formatSvooCsv(wan(false)));
  const Result result =
      run("export p.csv --to svoo-csv --param dynamic_min_kc_ratio_min=0.12 --param "
          "dynamic_min_kc_ratio_max=0.3 --out q.csv --json");
  EXPECT_EQ(result.code, 0) << result.err;
  const auto document = nlohmann::json::parse(result.out);
  EXPECT_THAT(document.at("load").at(0).get<std::string>(),
              HasSubstr("--dynamic_min_kc_ratio_min 0.12 --dynamic_min_kc_ratio_max 0.3"));
  EXPECT_EQ(document.at("files").at(0), "q.csv");
  EXPECT_EQ(document.at("values"), 18000);
  fails("export p.csv --to svoo-csv --param x=1 --out q3.csv", 2);
  fails("export p.csv --to svoo-csv --param dynamic_min_kc_ratio_min=2 --out q3.csv", 2);
  fails(
      "export p.csv --to svoo-csv --param dynamic_min_kc_ratio_min=0.5 --param dynamic_min_kc_ratio_max=0.2 --out "
      "q3.csv",
      2);
}

TEST_F(ExportCli, AnswersBadInputWithOneLineAndCodeThree) {
  fails("export missing.csv --to json --out q.json", 3);
  fails("export . --to json --out q.json", 3);
  write("empty.csv", "");
  fails("export empty.csv --to json --out q.json", 3);
  write("text.csv", "hello\nworld\n");
  fails("export text.csv --to json --out q.json", 3);
  write("bad.csv", "Step,Layer,Head,Sparsity\r\n1,0,0,x\r\n");
  EXPECT_THAT(fails("export bad.csv --to json --out q.json", 3).err, HasSubstr("bad.csv: line 2, column 7"));
  write("bad.json", "{");
  fails("export bad.json --to json --out q.json", 3);
  write("p.csv", formatSvooCsv(wan(false)));
  fails("export p.csv --to json --out no/such/folder/q.json", 3);
  EXPECT_FALSE(std::filesystem::exists(m_folder / "q.json"));
}

TEST_F(ExportCli, WarnsOfWhatItMendsAndRefusesAnotherQuantity) {
  write("lf.csv", "Step,Layer,Head,Sparsity\n1,0,0,0.5\n1,0,0,0.25\n");
  const Result result = run("export lf.csv --to svoo-csv --out q.csv");
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.err, AllOf(HasSubstr("warning: lf.csv: line 3, column 1"), HasSubstr("LF")));
  EXPECT_EQ(read("q.csv"), "Step,Layer,Head,Sparsity\n1,0,0,0.25\n");
  Profile mass(1, 1, 1, BudgetRole::TopMass);
  mass.set({0, 0, 0}, 0.9);
  writeProfile(m_folder / "mass.json", mass);
  EXPECT_THAT(fails("export mass.json --to svoo-csv --out q4.csv", 2).err, HasSubstr("top-p"));
}

}  // namespace
}  // namespace sparsight
