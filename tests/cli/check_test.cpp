// SPDX-License-Identifier: Apache-2.0
// sparsight-cli check, as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "sparsight/core/trace_writer.h"
#include "sparsight/kernels/backend.h"
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

const std::string kCall = "/data/step_0005/cond/layer_000/self";

class Check : public testing::Test {
 protected:
  TemporaryFolder folder;
  std::string path(const std::string& name) const { return (folder / name).string(); }

  // The builder's trace with lse and out as the oracle computes them.
  void buildWithResults() const {
    buildTrace(path("t.h5"));
    std::vector<float> lse, out;
    {
      const auto trace = openTrace(path("t.h5"));
      const auto oracle = createReferenceBackend();
      std::vector<Index> rows(28);
      for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<Index>(i);
      for (const int head : {0, 1}) {
        const HeadData data = trace->load({{5, "cond", 0, "self", 0}, head});
        const AttendResult dense = oracle->attend(*oracle->prepare(data.input, data.keepAlive, {}), rows, {}, {});
        lse.insert(lse.end(), dense.lse.begin(), dense.lse.end());
        out.insert(out.end(), dense.out.begin(), dense.out.end());
      }
    }
    Hdf5Editor edit(path("t.h5"));
    edit.dataset(kCall + "/lse", {2, 28}, lse);
    edit.dataset(kCall + "/out", {2, 28, 8}, out);
  }
};

TEST_F(Check, AValidTraceHasNoFindingsButTheCount) {
  buildTrace(path("t.h5"));
  const Program program = runProgram({"check", path("t.h5"), "--quiet"});
  EXPECT_EQ(program.exitCode, 0) << program.err;
  EXPECT_THAT(program.out, AllOf(HasSubstr("1 calls, 2 heads read"), HasSubstr("0 errors, 0 mismatches, 0 warnings")));
}

TEST_F(Check, ALinePerFindingAndExitThree) {
  buildTrace(path("t.h5"));
  {
    Hdf5Editor edit(path("t.h5"));
    edit.setInt("/", "complete", 0);
    edit.overwrite(kCall + "/v", 20, std::numeric_limits<float>::infinity());
    edit.overwrite(kCall + "/q", 28 * 8, std::numeric_limits<float>::quiet_NaN());
  }
  const Program program = runProgram({"check", path("t.h5"), "--quiet"});
  EXPECT_EQ(program.exitCode, 3);
  EXPECT_THAT(program.out, AllOf(HasSubstr("warning: "), HasSubstr("error: "), HasSubstr("/v: value at [0, 2, 4]"),
                                 HasSubstr("/q: value at [1, 0, 0]"), HasSubstr("2 errors, 0 mismatches, 1 warnings")));
}

TEST_F(Check, DeepRecomputesLseAndOut) {
  buildWithResults();
  const Program program = runProgram({"check", path("t.h5"), "--deep", "--backend", "cpu", "--quiet"});
  EXPECT_EQ(program.exitCode, 0) << program.out << program.err;
  EXPECT_THAT(program.out, HasSubstr("2 heads recomputed"));
}

TEST_F(Check, DeepMismatchOfLseExitsOne) {
  buildWithResults();
  {
    Hdf5Editor edit(path("t.h5"));
    edit.overwrite(kCall + "/lse", 28, 9.0F);  // row 0 of head 1
  }
  EXPECT_EQ(runProgram({"check", path("t.h5"), "--quiet"}).exitCode, 0);  // only a deep check can know
  const Program program = runProgram({"check", path("t.h5"), "--deep", "--quiet"});
  EXPECT_EQ(program.exitCode, 1);
  EXPECT_THAT(program.out, AllOf(HasSubstr("mismatch: "), HasSubstr("head 1"), HasSubstr("lse of row 0 is 9")));
}

TEST_F(Check, DeepFindsAWrongScale) {
  buildWithResults();
  {
    Hdf5Editor edit(path("t.h5"));
    edit.setReal(kCall, "scale", 0.5);
  }
  const Program program = runProgram({"check", path("t.h5"), "--deep", "--json", "--quiet"});
  EXPECT_EQ(program.exitCode, 1);
  const auto json = nlohmann::json::parse(program.out);
  EXPECT_EQ(json.at("mismatches"), 4);  // lse and out of two heads
  EXPECT_EQ(json.at("warnings"), 1);    // the unusual scale itself
}

TEST_F(Check, DeepFindsSwappedHeads) {
  buildWithResults();
  {
    Hdf5Editor edit(path("t.h5"));
    edit.setInts(kCall, "heads", {1, 0});  // ids only: still consistent
  }
  EXPECT_EQ(runProgram({"check", path("t.h5"), "--deep", "--quiet"}).exitCode, 0);
  {
    Hdf5Editor edit(path("t.h5"));
    std::vector<float> k;
    for (const Index head : {1, 0}) {
      for (Index t = 0; t < 28; ++t) {
        for (Index c = 0; c < 8; ++c) k.push_back(testing_support::builtValue('k', head, t, c));
      }
    }
    edit.dataset(kCall + "/k", {2, 28, 8}, k);
  }
  EXPECT_EQ(runProgram({"check", path("t.h5"), "--deep", "--quiet"}).exitCode, 1);
}

TEST_F(Check, ProfilesAndPlans) {
  std::ofstream(path("p.csv")) << "Step,Layer,Head,Sparsity\r\n1,0,0,0.25\r\n1,0,1,0.5\r\n";
  const Program profile = runProgram({"check", path("p.csv")});
  EXPECT_EQ(profile.exitCode, 0) << profile.err;
  EXPECT_THAT(profile.out, HasSubstr("1 steps x 1 layers x 2 heads, 0 holes"));
  std::ofstream(path("bad.csv")) << "Step,Layer,Head,Sparsity\r\n1,0,0,abc\r\n";
  const Program bad = runProgram({"check", path("bad.csv")});
  EXPECT_EQ(bad.exitCode, 3);
  EXPECT_THAT(bad.err, HasSubstr("bad.csv"));
  buildTrace(path("t.h5"));
  ASSERT_EQ(runProgram({"run", path("t.h5"), "--method", "dense", "--plan", path("plan.h5"), "--results",
                        path("results.h5"), "--quiet"})
                .exitCode,
            0);
  EXPECT_THAT(runProgram({"check", path("plan.h5")}).out, HasSubstr("2 planned heads"));
  const Program results = runProgram({"check", path("results.h5")});
  EXPECT_EQ(results.exitCode, 0) << results.err;
  EXPECT_THAT(results.out, HasSubstr("2 evaluated heads"));
}

TEST_F(Check, MissingArgumentIsAUsageError) { EXPECT_EQ(runProgram({"check"}).exitCode, 2); }

}  // namespace
}  // namespace sparsight
