// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/profiling.h"
#include "sparsight/core/head_feed.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "profiles/profile_json.h"
#include "profiles/profile_text.h"
#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using nlohmann::json;
constexpr const char* kResumeFormat = "sparsight-profiling";
constexpr auto kSavePeriod = std::chrono::seconds(5);

/// What a measured number depends on besides the head: the key in the resume file.
std::string measurementKey(const TraceInfo& trace, const ProfilingRequest& request, const std::string& branch) {
  std::error_code error;
  const std::string id =
      trace.uuid.empty() ? "path " + std::filesystem::absolute(trace.path, error).string() : "uuid " + trace.uuid;
  return fmt::format("{} | mass {} | rows {} | padding {} | branch {} | component {} | kind {} | call {}", id,
                     request.mass, request.rows, request.includePadding ? "include" : "exclude", branch,
                     request.selection.component.value_or("any"), request.selection.kind, request.selection.call);
}

/// Finished heads of earlier, interrupted calls. Written atomically, so that an interruption leaves the last good
/// state.
class ResumeStore {
 public:
  explicit ResumeStore(std::filesystem::path file) : m_file(std::move(file)) {
    if (m_file.empty() || !std::filesystem::exists(m_file)) return;
    const std::string name = m_file.string();
    const json document = detail::parseBoundedJson(readWholeFile(m_file, detail::kMaxProfileFileBytes), name);
    try {
      if (document.at("format") != kResumeFormat || document.at("format_version").at(0) != 1) {
        throw Error(ErrorCode::Format,
                    fmt::format("{}: no profiling state of this version; name another file to resume from, "
                                "or remove it",
                                name));
      }
      for (const auto& [key, cells] : document.at("measured").items()) {
        for (const json& cell : cells) {
          const double density = cell.at(3).get<double>();
          if (!(density >= 0 && density <= 1)) continue;
          m_done[key][{cell.at(0).get<int>(), cell.at(1).get<int>(), cell.at(2).get<int>()}] = density;
        }
      }
    } catch (const json::exception& e) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: damaged profiling state ({}); remove it to begin again", name, e.what()));
    }
  }

  [[nodiscard]] std::optional<double> find(const std::string& key, CellId cell) const {
    const auto trace = m_done.find(key);
    if (trace == m_done.end()) return std::nullopt;
    const auto found = trace->second.find(cell);
    return found == trace->second.end() ? std::nullopt : std::optional(found->second);
  }
  void put(const std::string& key, CellId cell, double density) {
    m_done[key][cell] = density;
    m_unsaved = true;
    if (Clock::now() - m_saved > kSavePeriod) save();
  }
  void save() {
    if (m_file.empty() || !m_unsaved) return;
    nlohmann::ordered_json document;
    document["format"] = kResumeFormat;
    document["format_version"] = {1, 0};
    document["measured"] = nlohmann::ordered_json::object();
    for (const auto& [key, cells] : m_done) {
      auto& list = document["measured"][key] = nlohmann::ordered_json::array();
      for (const auto& [cell, density] : cells) list.push_back({cell.step, cell.layer, cell.head, density});
    }
    writeFileAtomically(m_file, document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    m_unsaved = false;
    m_saved = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::filesystem::path m_file;
  std::map<std::string, std::map<CellId, double>> m_done;
  bool m_unsaved = false;
  Clock::time_point m_saved = Clock::now();
};

struct Grid {
  int steps = 0, layers = 0, heads = 0;
  friend bool operator==(const Grid&, const Grid&) = default;
};

/// The model's whole grid as far as the trace knows it, never smaller than what it captured.
Grid gridOf(const TraceInfo& info) {
  const int known = std::max(info.run.numInferenceSteps, static_cast<int>(info.run.timesteps.size()));
  const auto last = [](const std::vector<int>& list) { return list.empty() ? 0 : list.back() + 1; };
  return {std::max(known, last(info.steps())), std::max(info.model.numLayers, last(info.layers())),
          std::max(info.model.numHeads, last(info.heads()))};
}

std::string gridText(const Grid& g) {
  return fmt::format("{} steps x {} layers x {} heads", g.steps, g.layers, g.heads);
}

bool isHeadError(const Error& error) {
  return error.code() != ErrorCode::Internal && error.code() != ErrorCode::Device;
}

}  // namespace

std::string_view mergeRuleName(MergeRule rule) noexcept {
  switch (rule) {
    case MergeRule::Max:
      return "max";
    case MergeRule::Mean:
      return "mean";
    case MergeRule::Gauss:
      return "gauss";
  }
  return "max";
}

double roundedDensity(double density) { return std::strtod(fmt::format("{:.4f}", density).c_str(), nullptr); }

double mergedDensity(const std::vector<double>& values, MergeRule rule) {
  SPARSIGHT_ASSERT(!values.empty());
  if (rule == MergeRule::Max) return *std::max_element(values.begin(), values.end());
  const double count = static_cast<double>(values.size());
  double mean = 0;
  for (const double v : values) mean += v / count;
  if (rule == MergeRule::Mean) return roundedDensity(std::clamp(mean, 0.0, 1.0));
  double variance = 0;
  for (const double v : values) variance += (v - mean) * (v - mean) / count;
  return roundedDensity(std::clamp(mean + 1.645 * std::sqrt(variance), 0.0, 1.0));
}

Profile profileTraces(const ProfilingRequest& request, Backend& backend, const Control& control,
                      std::vector<std::string>* warnings, std::vector<std::string>* damaged) {
  if (request.traces.empty()) throw Error(ErrorCode::InvalidArgument, "profiling needs at least one trace");
  if (!(request.mass > 0 && request.mass <= 1)) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("mass {}: it must lie above 0 and at most 1", request.mass));
  }
  ResumeStore resume(request.resumeFile);

  // Metadata of all traces first: a trace that does not fit is told before hours of work, not after.
  struct Source {
    std::unique_ptr<Trace> trace;
    std::vector<HeadId> heads;
    std::string key;
  };
  std::vector<Source> sources;
  std::optional<Grid> grid;
  Index total = 0;
  for (const auto& path : request.traces) {
    control.checkpoint();
    Source source;
    source.trace = openTrace(path, request.traceOptions);
    const TraceInfo& info = source.trace->info();
    const Grid own = gridOf(info);
    if (!grid) grid = own;
    if (!(*grid == own)) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{} has {}, but {} has {}; profile traces of one model and schedule together",
                              path.string(), gridText(own), request.traces.front().string(), gridText(*grid)));
    }
    source.heads = selectHeads(info, request.selection);
    source.key = measurementKey(info, request, request.selection.branch.value_or(info.defaultBranch()));
    for (const Source& other : sources) {
      if (other.key == source.key) {
        throw Error(ErrorCode::InvalidArgument, fmt::format("{} is the same trace as {}; name each trace once",
                                                            path.string(), other.trace->info().path.string()));
      }
    }
    total += static_cast<Index>(source.heads.size());
    sources.push_back(std::move(source));
  }

  std::map<CellId, std::vector<double>> measured;
  std::optional<Error> firstError;
  Index done = 0;
  const auto measureAll = [&] {
    for (const Source& source : sources) {
      std::vector<HeadId> open;
      std::vector<std::size_t> placeOf;
      for (const HeadId& id : source.heads) {
        placeOf.push_back(open.size());
        if (!resume.find(source.key, {id.call.step, id.call.layer, id.head})) open.push_back(id);
      }
      HeadFeed feed(*source.trace, backend, open, request.includePadding, control.stop);
      for (std::size_t n = 0; n < source.heads.size(); ++n) {
        const HeadId& id = source.heads[n];
        control.checkpoint();
        const CellId cell{id.call.step, id.call.layer, id.head};
        std::optional<double> density = resume.find(source.key, cell);
        if (!density) {
          const Control part{control.stop, [&](double fraction) {
                               control.report((static_cast<double>(done) + fraction) / static_cast<double>(total));
                             }};
          try {
            feed.release(placeOf[n]);
            const auto& [head, prepared] = feed.at(placeOf[n]);
            density = exactDensity(head, *prepared, request.mass, request.rows, request.includePadding, backend, part);
            resume.put(source.key, cell, *density);
          } catch (const Error& error) {
            if (!isHeadError(error)) throw;
            if (!firstError) firstError = error;
            if (damaged != nullptr && isDamage(source.trace->info(), id, error)) damaged->emplace_back(error.what());
            if (warnings != nullptr) {
              warnings->push_back(fmt::format("{}: left without a value: {}", detail::cellText(cell), error.what()));
            }
          }
        }
        if (density) measured[cell].push_back(roundedDensity(std::clamp(*density, 0.0, 1.0)));
        control.report(static_cast<double>(++done) / static_cast<double>(total));
      }
    }
  };
  try {
    measureAll();
  } catch (...) {
    resume.save();  // the heads finished so far are the point of a resume file
    throw;
  }
  resume.save();
  if (measured.empty() && firstError) throw Error(*firstError);

  Profile profile(grid->steps, grid->layers, grid->heads, BudgetRole::KeptFloor);
  for (const auto& [cell, values] : measured) profile.set(cell, mergedDensity(values, request.merge));
  Provenance& provenance = profile.provenance;
  provenance.source = "offline profiling";
  provenance.program = "sparsight " SPARSIGHT_VERSION;
  const TraceInfo& first = sources.front().trace->info();
  provenance.model = !first.model.repoId.empty() ? first.model.repoId : first.model.family;
  for (const Source& source : sources) provenance.traceIds.push_back(source.trace->info().uuid);
  provenance.parameters["mass"] = formatProfileValue(request.mass);
  provenance.parameters["merge"] = std::string(mergeRuleName(request.merge));
  provenance.parameters["rows"] = request.rows < 0    ? "default"
                                  : request.rows == 0 ? "all"
                                                      : std::to_string(request.rows);
  provenance.parameters["padding"] = request.includePadding ? "include" : "exclude";
  return profile;
}

}  // namespace sparsight
