// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/error.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace sparsight {

std::string_view errorCodeName(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::Io:
      return "io";
    case ErrorCode::Format:
      return "format";
    case ErrorCode::Unsupported:
      return "unsupported";
    case ErrorCode::InvalidArgument:
      return "invalid argument";
    case ErrorCode::OutOfMemory:
      return "out of memory";
    case ErrorCode::Device:
      return "device";
    case ErrorCode::Internal:
      return "internal";
  }
  return "internal";
}

Error Error::withContext(std::string_view context) const { return {m_code, fmt::format("{}: {}", context, what())}; }

namespace detail {

void assertionFailed(const char* expression, const char* file, int line) {
  const std::string message = fmt::format("{}:{}: assertion failed: {}", file, line, expression);
#ifdef NDEBUG
  throw Error(ErrorCode::Internal, message);
#else
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
#endif
}

}  // namespace detail
}  // namespace sparsight
