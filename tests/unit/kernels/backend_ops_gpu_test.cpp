// SPDX-License-Identifier: Apache-2.0
// The same table on the backends that are no CPU, wherever their device is present.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/support/backend_ops_cases.h"

namespace sparsight {
namespace {

TEST(BackendOpsGpu, AgreesWithTheOracle) {
  Executor executor(2);
  int run = 0;
  std::string why = "no GPU backend is compiled in";
  for (const BackendEntry& entry : compiledBackends()) {
    if (entry.id == "cpu" || !entry.probe(why)) continue;
    const auto backend = entry.create(executor);
    SCOPED_TRACE(std::string(entry.id) + " on " + backend->info().deviceName);
    for (const testing::OpCase& opCase : testing::opCases()) testing::checkAllOps(*backend, opCase);
    ++run;
  }
  if (run > 0) return;
  if (std::getenv("SPARSIGHT_REQUIRE_GPU") != nullptr) FAIL() << "SPARSIGHT_REQUIRE_GPU is set, but " << why;
  GTEST_SKIP() << "operation table NOT run on a GPU: " << why;
}

}  // namespace
}  // namespace sparsight
