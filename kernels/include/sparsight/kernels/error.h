// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sparsight {

/// What kind of failure; the CLI maps it to an exit code, the UI to an icon and a proposal.
enum class ErrorCode : std::uint8_t { Io, Format, Unsupported, InvalidArgument, OutOfMemory, Device, Internal };

/// "io", "format", ... for logs and JSON.
[[nodiscard]] std::string_view errorCodeName(ErrorCode code) noexcept;

/// The one exception type. `what()` is a single line: what happened, where (file, dataset, attribute), how to mend it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), m_code(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return m_code; }
  /// The same error with "context: " in front; used while unwinding to say where.
  [[nodiscard]] Error withContext(std::string_view context) const;

 private:
  ErrorCode m_code;
};

/// Thrown at a checkpoint when stop was requested. Deliberately no std::exception: cancelling is not an error.
struct Cancelled {};

namespace detail {
[[noreturn]] void assertionFailed(const char* expression, const char* file, int line);
}

}  // namespace sparsight

/// Our bug: aborts in debug builds, throws Error{Internal} in release (an editor may hold unsaved work).
#define SPARSIGHT_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::sparsight::detail::assertionFailed(#condition, __FILE__, __LINE__))
