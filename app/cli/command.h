// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/map_cache.h"
#include "sparsight/core/run.h"
#include "sparsight/kernels/backend.h"

namespace sparsight::cli {

/// Exit codes of the command line contract.
enum ExitCode : int { kOk = 0, kMismatch = 1, kUsage = 2, kInput = 3, kDevice = 4, kInternal = 5, kInterrupted = 130 };

/// A file that a command is asked to write; an empty path is one that was not asked for.
struct OutputFile {
  const char* option;  ///< "--out", for messages
  std::filesystem::path path;
};
/// The trace and its parts: the files that must survive a command that reads it.
[[nodiscard]] std::vector<std::filesystem::path> filesOf(const TraceInfo& trace);

/// What every command shares: global options, backend, cancellation, progress on stderr.
class Context {
 public:
  std::string backendId = "auto";
  int threads = 0;
  std::uint64_t seed = 0;
  Index memoryLimitMiB = 0;
  std::string padding = "exclude";
  bool quiet = false;
  bool noCache = false;
  std::string program;  ///< "sparsight-cli 0.1.0", goes into files

  [[nodiscard]] bool includePadding() const noexcept { return padding == "include"; }
  [[nodiscard]] Executor& executor();
  [[nodiscard]] Backend& backend();  ///< created on first use
  /// Stop on Ctrl+C; progress as a bar on a terminal, a line per 10 % otherwise, none with --quiet.
  [[nodiscard]] Control control(const std::string& what) const;
  [[nodiscard]] TraceOptions traceOptions() const;
  /// The user's exact maps on disk; nullptr with --no-cache.
  [[nodiscard]] std::shared_ptr<MapCache> mapCache() const;
  /// Refuses, before any work starts, an output that is one of the inputs (also through a link), a second output of the
  /// same name, a folder, or a place that cannot be written. `inputs` may hold empty names. Throws Error.
  void checkOutputs(const std::vector<OutputFile>& outputs, std::vector<std::filesystem::path> inputs) const;
  /// One line on stderr: "warning: ...".
  void warn(const std::string& message) const;

 private:
  std::unique_ptr<Executor> m_executor;
  std::unique_ptr<Backend> m_backend;
};

/// Selectors of every command that reads a trace.
struct SelectorOptions {
  std::string steps = "all", layers = "all", heads = "all", branch, component, kind = "self", rows;
  int call = 0;
  void define(CLI::App& app, bool withRows = true);
  [[nodiscard]] HeadSelection selection() const;
  /// --rows N|all; -1 = the default rule.
  [[nodiscard]] Index rowCount() const;
};

/// A subcommand: define() declares its options on `app`, run() does it and returns an exit code. Errors are thrown.
class Command {
 public:
  virtual ~Command() = default;
  virtual void define(CLI::App& app) = 0;
  virtual int run(Context& context) = 0;
};
/// One per file in app/cli/commands, which ends with `const CommandInfo& <file>_command()`; CMake collects them.
struct CommandInfo {
  const char* name;
  const char* summary;
  std::unique_ptr<Command> (*create)();
};

/// Parses and runs; never throws. argv[0] is the program.
int runCli(int argc, const char* const* argv);

/// Called after the results of the other heads are out: throws Error{Format} (exit 3, one line) when `count` of `total`
/// selected heads hold malformed data, so that a script cannot take the rest for the whole.
void failOnDamagedHeads(std::size_t count, std::size_t total, const std::string& firstReason);

/// "--grid T,H,W" (frames, rows, columns of tokens), also with 'x' between. Throws Error{InvalidArgument}.
[[nodiscard]] std::array<int, 3> parseGrid(const std::string& text);

/// Prints one JSON document (already formatted) on stdout.
void printJson(const std::string& text);

}  // namespace sparsight::cli

namespace sparsight {
using cli::CommandInfo;
[[nodiscard]] std::span<const CommandInfo* const> allCommands();
}  // namespace sparsight
