// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profiling.h"
#include "sparsight/core/synth.h"
#include "sparsight/kernels/error.h"

namespace sparsight {

Profile demoProfile(Executor& executor, Backend& backend, const Control& control) {
  const std::filesystem::path trace = demoTracePath(executor, control);
  const std::filesystem::path cached = std::filesystem::path(trace).replace_extension(".profile.json");
  const std::string uuid = openTrace(trace)->info().uuid;
  try {
    if (std::filesystem::exists(cached)) {
      Profile profile = readProfile(cached);
      if (profile.provenance.traceIds == std::vector<std::string>{uuid}) return profile;
    }
  } catch (const Error&) {
    // A damaged cache is measured again.
  }
  ProfilingRequest request;
  request.traces = {trace};
  request.rows = 256;  // of some 3,500: the whole profile in a few seconds
  Profile profile = profileTraces(request, backend, control);
  if (profile.holeCount() > 0) {
    // The demo captures a few steps of a schedule; the editor is to be tried on a profile that a runtime could load.
    profile = fillForExport(profile, FillPolicy::Nearest);
    profile.provenance.parameters["fill"] = "nearest";
  }
  try {
    writeProfile(cached, profile);
  } catch (const Error&) {
    // Without a cache it is measured again at the next start; nothing is lost.
  }
  return profile;
}

}  // namespace sparsight
