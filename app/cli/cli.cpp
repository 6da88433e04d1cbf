// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <new>
#include <thread>

#include "app/cli/command.h"

namespace sparsight::cli {
namespace {

// One stop source for the process: Ctrl+C has no other way in. The handler only sets a flag (async-signal-safe); a
// watcher inside Control::progress would be too coarse, so a tiny thread forwards it within 20 ms.
std::atomic<bool> g_interrupted{false};
std::stop_source& stopSource() {
  static std::stop_source source;
  return source;
}
void onInterrupt(int) { g_interrupted.store(true); }

void installInterruptHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = onInterrupt;
    action.sa_flags = SA_RESTART;  // a terminal that takes its time is no error
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    std::thread([] {
      while (!g_interrupted.load()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      stopSource().request_stop();
    }).detach();
  });
}

int exitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
      return kUsage;
    case ErrorCode::Io:
    case ErrorCode::Format:
    case ErrorCode::Unsupported:
    case ErrorCode::OutOfMemory:
      return kInput;
    case ErrorCode::Device:
      return kDevice;
    case ErrorCode::Internal:
      return kInternal;
  }
  return kInternal;
}

// One line, whatever a library put into its message.
std::string oneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

int fail(int code, const std::string& message) {
  std::fflush(stdout);
  fmt::print(stderr, "sparsight-cli: {}\n", oneLine(message));
  return code;
}

}  // namespace

Executor& Context::executor() {
  if (!m_executor) m_executor = std::make_unique<Executor>(threads);
  return *m_executor;
}

Backend& Context::backend() {
  if (!m_backend) m_backend = createBackend(backendId, executor());
  return *m_backend;
}

Control Context::control(const std::string& what) const {
  Control control;
  control.stop = stopSource().get_token();
  if (quiet) return control;
  // Seen here at once, the watching thread looks only now and then.
  const auto stopIfInterrupted = [] {
    if (g_interrupted.load()) stopSource().request_stop();
  };
  struct Progress {
    std::mutex mutex;
    int lastPercent = -1;
    bool terminal = isatty(STDERR_FILENO) != 0;
  };
  const auto show = [what, state = std::make_shared<Progress>()](double fraction) {
    const std::lock_guard lock(state->mutex);
    const int percent = std::clamp(static_cast<int>(fraction * 100.0), 0, 100);
    if (percent <= state->lastPercent) return;
    if (state->terminal) {
      const int filled = percent * 30 / 100;
      fmt::print(stderr, "\r{} [{:<30}] {:3d} %{}", what, std::string(static_cast<std::size_t>(filled), '#'), percent,
                 percent == 100 ? "\n" : "");
      state->lastPercent = percent;
    } else if (percent / 10 > state->lastPercent / 10 || state->lastPercent < 0) {
      fmt::print(stderr, "{}: {} %\n", what, percent / 10 * 10);
      state->lastPercent = percent;
    }
  };
  control.progress = [show, stopIfInterrupted](double fraction) {
    show(fraction);
    stopIfInterrupted();
  };
  return control;
}

TraceOptions Context::traceOptions() const {
  TraceOptions options;
  options.readThreads = threads;
  if (memoryLimitMiB > 0) {
    options.memoryLimitBytes = memoryLimitMiB << 20;
    options.cacheBytes = std::min(options.cacheBytes, options.memoryLimitBytes / 2);
  }
  return options;
}

std::shared_ptr<MapCache> Context::mapCache() const { return noCache ? nullptr : openUserMapCache(); }

void Context::warn(const std::string& message) const { fmt::print(stderr, "warning: {}\n", oneLine(message)); }

void SelectorOptions::define(CLI::App& app, bool withRows) {
  app.add_option("--step", steps, "Denoising steps, 0-based indices: 5, 0-3, 0,4,7 or all (index 10 = 11th step)");
  app.add_option("--layer", layers, "Layers: 5, 0-3, 0,4,7 or all");
  app.add_option("--head", heads, "Heads: 5, 0-3, 0,4,7 or all");
  app.add_option("--branch", branch, "Guidance branch, or all; default cond if present, else the first");
  app.add_option("--component", component, "Transformer of a two-expert model; default the one that ran at that step");
  app.add_option("--kind", kind, "Kind of attention call");
  app.add_option("--call", call, "Which call of that kind in the layer");
  if (withRows) {
    app.add_option("--rows", rows,
                   "Evaluate on N evenly spaced valid query rows, or all; default all up to 8,192 tokens, 1,024 above");
  }
}

HeadSelection SelectorOptions::selection() const {
  HeadSelection selection;
  selection.steps = Selector::parse(steps);
  selection.layers = Selector::parse(layers);
  selection.heads = Selector::parse(heads);
  if (!branch.empty()) selection.branch = branch;
  if (!component.empty()) selection.component = component;
  selection.kind = kind;
  selection.call = call;
  return selection;
}

Index SelectorOptions::rowCount() const {
  if (rows.empty()) return -1;
  if (rows == "all") return 0;
  std::size_t used = 0;
  Index value = 0;
  try {
    value = std::stoll(rows, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != rows.size() || value < 1) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("--rows takes a whole number from 1 or 'all', not '{}'", rows));
  }
  return value;
}

std::array<int, 3> parseGrid(const std::string& text) {
  std::array<int, 3> grid{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  bool ok = true;
  for (std::size_t i = 0; i < grid.size() && ok; ++i) {
    const auto [next, error] = std::from_chars(at, end, grid[i]);
    ok = error == std::errc() && (i + 1 < grid.size() ? next != end && (*next == ',' || *next == 'x') : next == end);
    at = ok && i + 1 < grid.size() ? next + 1 : next;
  }
  if (!ok) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("--grid is '{}', expected T,H,W in tokens, for example 9,16,24", text));
  }
  return grid;
}

void failOnDamagedHeads(std::size_t count, std::size_t total, const std::string& firstReason) {
  if (count == 0) return;
  throw Error(ErrorCode::Format,
              fmt::format("{} of {} heads could not be read and {} missing from the results; the first: {}", count,
                          total, count == 1 ? "is" : "are", firstReason));
}

void printJson(const std::string& text) {
  std::cout << text;
  if (text.empty() || text.back() != '\n') std::cout << '\n';
  std::cout.flush();
  if (!std::cout) throw Error(ErrorCode::Io, "standard output: cannot write; is the disk full or the pipe closed?");
}

int runCli(int argc, const char* const* argv) {
  installInterruptHandler();
  Context context;
  context.program = "sparsight-cli " SPARSIGHT_VERSION;
  CLI::App app{"Sparsight: attention microscope for video diffusion transformers (command line)", "sparsight-cli"};
  app.set_version_flag("--version", context.program);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--backend", context.backendId, "Compute backend")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--threads", context.threads, "CPU threads; default all cores")->check(CLI::Range(1, 4096));
  app.add_option("--seed", context.seed, "Seed of everything random");
  app.add_option("--memory-limit", context.memoryLimitMiB, "Refuse heads above this many MiB")
      ->check(CLI::Range(Index{1}, Index{1} << 40));
  app.add_option("--padding", context.padding,
                 "Padding keys and rows: exclude, or include (as SVOO's profiling counts)")
      ->check(CLI::IsMember({"exclude", "include"}));
  app.add_flag("--no-cache", context.noCache, "Neither use nor leave exact maps in the user's cache directory");
  app.add_flag("--quiet", context.quiet, "No progress on stderr");

  std::vector<std::unique_ptr<Command>> commands;
  std::vector<CLI::App*> subs;
  for (const CommandInfo* info : allCommands()) {
    CLI::App* sub = app.add_subcommand(info->name, info->summary);
    sub->fallthrough();
    commands.push_back(info->create());
    commands.back()->define(*sub);
    subs.push_back(sub);
  }
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& e) {  // --help, --version
      return app.exit(e);
    } catch (const CLI::ParseError& e) {
      return fail(kUsage, fmt::format("{}; see sparsight-cli {}--help", e.what(),
                                      app.get_subcommands().empty() ? std::string()
                                                                    : app.get_subcommands().front()->get_name() + " "));
    }
    for (std::size_t i = 0; i < subs.size(); ++i) {
      if (subs[i]->parsed()) return commands[i]->run(context);
    }
    return fail(kUsage, "no command; see sparsight-cli --help");
  } catch (const Error& e) {
    return fail(exitCodeOf(e.code()), e.what());
  } catch (const Cancelled&) {
    return fail(kInterrupted, "interrupted");
  } catch (const std::bad_alloc&) {
    return fail(kInput, "out of memory; use --memory-limit, fewer --rows or a smaller selection");
  } catch (const std::exception& e) {
    return fail(kInternal, fmt::format("internal error: {}", e.what()));
  }
}

}  // namespace sparsight::cli
