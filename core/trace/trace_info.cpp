// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <numeric>

#include "sparsight/core/importer.h"
#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {

template <class T>
void sortUnique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// The kind that stands for a layer's own attention comes first.
int kindRank(std::string_view kind) noexcept {
  if (kind == "self") return 0;
  if (kind == "joint") return 1;
  return 2;
}

}  // namespace

const CallInfo* TraceInfo::find(const CallId& id) const noexcept {
  const auto it = std::lower_bound(calls.begin(), calls.end(), id,
                                   [](const CallInfo& c, const CallId& wanted) { return c.id < wanted; });
  return it != calls.end() && it->id == id ? &*it : nullptr;
}

std::vector<int> TraceInfo::steps() const {
  std::vector<int> values;
  for (const CallInfo& c : calls) values.push_back(c.id.step);
  sortUnique(values);
  return values;
}

std::vector<int> TraceInfo::layers() const {
  std::vector<int> values;
  for (const CallInfo& c : calls) values.push_back(c.id.layer);
  sortUnique(values);
  return values;
}

std::vector<int> TraceInfo::heads() const {
  std::vector<int> values;
  for (const CallInfo& c : calls) values.insert(values.end(), c.heads.begin(), c.heads.end());
  sortUnique(values);
  return values;
}

std::vector<std::string> TraceInfo::branches() const {
  std::vector<std::string> values;
  for (const CallInfo& c : calls) values.push_back(c.id.branch);
  sortUnique(values);
  return values;
}

std::string TraceInfo::defaultBranch() const {
  const auto all = branches();
  if (all.empty()) return {};
  return std::find(all.begin(), all.end(), "cond") != all.end() ? "cond" : all.front();
}

const CallInfo* TraceInfo::callAt(int step, std::string_view branch, int layer) const noexcept {
  const CallInfo* best = nullptr;
  for (const CallInfo& c : calls) {
    if (c.id.step != step || c.id.layer != layer || c.id.branch != branch) continue;
    if (best == nullptr || kindRank(c.id.kind) < kindRank(best->id.kind) ||
        (kindRank(c.id.kind) == kindRank(best->id.kind) && c.id.call < best->id.call)) {
      best = &c;
    }
  }
  return best;
}

std::vector<Index> HeadData::validRows() const {
  std::vector<Index> rows;
  const auto& valid = input.queryValid;
  rows.reserve(static_cast<std::size_t>(input.q.rows));
  for (Index r = 0; r < input.q.rows; ++r) {
    if (valid.empty() || valid[static_cast<std::size_t>(r)] != 0) rows.push_back(r);
  }
  return rows;
}

Index HeadData::validKeyCount() const noexcept {
  if (input.keyValid.empty()) return input.k.rows;
  return static_cast<Index>(
      std::count_if(input.keyValid.begin(), input.keyValid.end(), [](std::uint8_t v) { return v != 0; }));
}

std::string sniffFormat(const std::filesystem::path& path) {
  constexpr const char* kExpected = "a trace, plan or results file (HDF5) or a profile (CSV, JSON)";
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::is_regular_file(status) && !h5::looksLikeHdf5(path)) {
    std::ifstream in(path, std::ios::binary);
    std::array<char, 512> head{};
    in.read(head.data(), head.size());
    std::string_view text(head.data(), static_cast<std::size_t>(std::max<std::streamsize>(in.gcount(), 0)));
    if (!text.empty()) {
      std::string_view body = text;
      if (body.starts_with("\xef\xbb\xbf")) body.remove_prefix(3);
      while (!body.empty() && std::isspace(static_cast<unsigned char>(body.front())) != 0) body.remove_prefix(1);
      if (const Importer* importer = importerFor(path)) {
        throw Error(ErrorCode::Format, fmt::format("'{}' is a file of another program ({}); convert it first: "
                                                   "sparsight-cli convert '{}' OUT",
                                                   path.string(), importer->title(), path.string()));
      }
      if (body.starts_with('{')) return "profile-json";
      std::string lower(body.substr(0, 16));
      std::transform(lower.begin(), lower.end(), lower.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      std::string extension = path.extension().string();
      std::transform(extension.begin(), extension.end(), extension.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      if (lower.starts_with("step,layer,head") || extension == ".csv") return "profile-csv";
      std::string start;
      for (const char c : body.substr(0, 24)) {
        if (c == '\n' || c == '\r') break;
        start += std::isprint(static_cast<unsigned char>(c)) != 0 ? c : '.';
      }
      throw Error(ErrorCode::Format,
                  fmt::format("'{}' is not an HDF5 file and no profile (it starts with \"{}\"); expected {}",
                              path.string(), start, kExpected));
    }
  }
  const h5::File file = h5::File::openRead(path, kExpected);
  const auto format = file.tryString("format");
  if (!format) {
    file.failFormat(fmt::format(
        "attribute 'format' is missing, so this HDF5 file is none of ours; expected {}. If it holds queries and keys, "
        "'sparsight-cli convert' makes a trace of it",
        kExpected));
  }
  if (*format == "sparsight-trace") return "trace";
  if (*format == "sparsight-plan") return "plan";
  if (*format == "sparsight-results") return "results";
  file.failFormat(
      fmt::format("attribute 'format' is \"{}\", which this version does not know; expected {}", *format, kExpected));
}

bool isDamage(const TraceInfo& trace, const HeadId& id, const Error& error) noexcept {
  if (error.code() != ErrorCode::Format && error.code() != ErrorCode::Io) return false;
  const CallInfo* call = trace.find(id.call);
  return call != nullptr && call->isAvailable(id.head);
}

}  // namespace sparsight
