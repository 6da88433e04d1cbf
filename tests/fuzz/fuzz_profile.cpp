// SPDX-License-Identifier: Apache-2.0
// Profiles come from strangers: both parsers must answer any bytes with a profile or an Error, and what they accept
// must survive being written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

using namespace sparsight;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void csv(std::string_view text, ValueConvention convention) {
  try {
    const Profile p = parseSvooCsv(text, "fuzz", convention).profile;
    if (p.cellCount() > 20000 || p.holeCount() == p.cellCount()) return;  // large grids only cost time
    const Profile full = fillForExport(p, FillPolicy::Nearest);
    const std::string written = formatSvooCsv(full);
    const Profile again = parseSvooCsv(written, "again").profile;
    require(formatSvooCsv(again) == written);
  } catch (const Error&) {
  }
}

void json(std::string_view text) {
  try {
    const Profile p = parseProfileJson(text, "fuzz");
    const std::string written = formatProfileJson(p);
    require(parseProfileJson(written, "again") == p);
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      csv(text, ValueConvention::Kept);
      break;
    case 1:
      csv(text, ValueConvention::Skipped);
      break;
    default:
      json(text);
      break;
  }
  return 0;
}
