// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"

namespace sparsight::trace {

inline constexpr int kFormatMajor = 1;
inline constexpr int kFormatMinor = 1;

/// Where the rules send what they find. Opening throws at the first error; checking collects and goes on.
class Sink {
 public:
  explicit Sink(std::vector<Finding>* collected = nullptr) : m_collected(collected) {}

  /// Runs a group of rules. Opening: errors pass through. Checking: the error becomes a finding and false is returned.
  template <class Rules>
  bool guard(const std::string& where, Rules&& rules) {
    if (m_collected == nullptr) {
      rules();
      return true;
    }
    try {
      rules();
      return true;
    } catch (const Error& error) {
      m_collected->push_back({Finding::Level::Error, where, error.what()});
      return false;
    }
  }
  /// One line; warnings of the same kind are told once, with the number of further places.
  void warn(const std::string& kind, const std::string& where, const std::string& message);
  [[nodiscard]] std::vector<std::string> takeWarnings();
  [[nodiscard]] bool checking() const noexcept { return m_collected != nullptr; }

 private:
  struct Warning {
    std::string text;
    Index further = 0;
  };
  std::vector<Finding>* m_collected;
  std::vector<std::string> m_order;
  std::map<std::string, Warning> m_warnings;
};

/// Where a call's tensors are.
struct CallSource {
  std::size_t file = 0;  ///< index into ParsedTrace::files
  std::string path;      ///< group inside that file
};

struct ParsedTrace {
  TraceInfo info;
  std::vector<CallSource> sources;        ///< parallel to info.calls
  std::vector<h5::File> files;            ///< the master, then the parts of a split trace
  std::vector<Index> globalQRows;         ///< /capture/q_rows; empty: all rows
  std::vector<std::int32_t> permutation;  ///< file position -> model position; empty: identity
};

/// Reads all metadata and applies every rule that needs no tensor data.
[[nodiscard]] ParsedTrace parseTrace(const std::filesystem::path& path, Index memoryLimitBytes, Sink& sink);

/// The Trace over parsed metadata.
[[nodiscard]] std::unique_ptr<Trace> makeTrace(ParsedTrace parsed, const TraceOptions& options);

/// Storage index of the K/V head that serves a stored query head (GQA).
[[nodiscard]] Index kvIndexOf(const CallInfo& call, const ModelInfo& model, std::size_t headPosition);

/// "self" and "joint" calls: queries and keys are the same tokens.
[[nodiscard]] bool isSelfLike(const CallInfo& call) noexcept;

/// Element type of a tensor dataset by the rules of the format; throws naming dataset and mend.
[[nodiscard]] DType tensorType(const h5::Dataset& dataset);

/// Token of each stored query row: strictly increasing, in range; throws naming the first bad entry.
[[nodiscard]] std::vector<Index> readQRows(const h5::Dataset& dataset, Index tokenCount);

/// Limit given, or 3/4 of physical memory.
[[nodiscard]] Index effectiveMemoryLimit(Index requested);

/// "step 4, cond, layer 0, self" for messages.
[[nodiscard]] std::string describeCall(const CallId& id);

/// "1.5 GiB"
[[nodiscard]] std::string bytesText(double bytes);

}  // namespace sparsight::trace
