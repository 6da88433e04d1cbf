// SPDX-License-Identifier: Apache-2.0
#include "profiles/profile_json.h"

#include <fmt/format.h>

#include "profiles/profile_text.h"
#include "sparsight/core/files.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using nlohmann::json;
constexpr int kMajor = 1, kMinor = 0;
constexpr const char* kFormat = "sparsight-profile";

/// Reads members with the file's name and the member's path in every message.
class Reader {
 public:
  explicit Reader(const std::string& name) : m_name(name) {}

  [[noreturn]] void fail(const std::string& path, const std::string& message) const {
    throw Error(ErrorCode::Format, fmt::format("{}: {}: {}", m_name, path, message));
  }
  const json& member(const json& object, const std::string& key) const {
    const auto found = object.find(key);
    if (found == object.end()) fail(key, "the key is missing");
    return *found;
  }
  int integer(const json& value, const std::string& path, int low, int high) const {
    if (!value.is_number_integer() && !value.is_number_unsigned()) fail(path, "must be a whole number");
    const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                                                 : value.get<std::int64_t>() <= high;
    if (!fits || value.get<std::int64_t>() < low) {
      fail(path, fmt::format("{} is outside {}..{}", value.dump(), low, high));
    }
    return value.get<int>();
  }
  std::string text(const json& value, const std::string& path) const {
    if (!value.is_string()) fail(path, "must be a text");
    return value.get<std::string>();
  }
  const json& array(const json& value, const std::string& path) const {
    if (!value.is_array()) fail(path, "must be an array");
    return value;
  }
  const json& object(const json& value, const std::string& path) const {
    if (!value.is_object()) fail(path, "must be an object");
    return value;
  }

 private:
  const std::string& m_name;
};

BudgetRole roleFrom(const Reader& reader, const std::string& text) {
  for (const BudgetRole role : {BudgetRole::KeptFloor, BudgetRole::KeptTarget, BudgetRole::TopMass}) {
    if (text == budgetRoleName(role)) return role;
  }
  reader.fail("role", fmt::format("{} is unknown; it is kept_floor, kept_target or top_mass", detail::quoted(text)));
}

void readProvenance(const Reader& reader, const json& value, Provenance& out) {
  const json& object = reader.object(value, "provenance");
  const auto optionalText = [&](const char* key, std::string& target) {
    if (const auto found = object.find(key); found != object.end()) {
      target = reader.text(*found, fmt::format("provenance.{}", key));
    }
  };
  optionalText("source", out.source);
  optionalText("program", out.program);
  optionalText("model", out.model);
  if (const auto ids = object.find("trace_ids"); ids != object.end()) {
    for (const json& id : reader.array(*ids, "provenance.trace_ids")) {
      out.traceIds.push_back(reader.text(id, "provenance.trace_ids"));
    }
  }
  if (const auto parameters = object.find("parameters"); parameters != object.end()) {
    for (const auto& [key, parameter] : reader.object(*parameters, "provenance.parameters").items()) {
      out.parameters[key] = reader.text(parameter, fmt::format("provenance.parameters.{}", key));
    }
  }
}

void readLayerMeta(const Reader& reader, const json& document, Profile& profile) {
  if (const auto locks = document.find("locks"); locks != document.end()) {
    std::size_t i = 0;
    for (const json& layer : reader.array(*locks, "locks")) {
      profile.setLayerLocked(reader.integer(layer, fmt::format("locks[{}]", i++), 0, profile.layers() - 1), true);
    }
  }
  if (const auto notes = document.find("notes"); notes != document.end()) {
    std::size_t i = 0;
    for (const json& note : reader.array(*notes, "notes")) {
      const std::string path = fmt::format("notes[{}]", i++);
      reader.object(note, path);
      const int layer = reader.integer(reader.member(note, "layer"), path + ".layer", 0, profile.layers() - 1);
      profile.setLayerNote(layer, reader.text(reader.member(note, "text"), path + ".text"));
    }
  }
}

void readValues(const Reader& reader, const json& values, Profile& profile) {
  const auto sized = [&](const json& value, const std::string& path, int wanted, const char* what) -> const json& {
    if (reader.array(value, path).size() != static_cast<std::size_t>(wanted)) {
      reader.fail(path, fmt::format("has {} entries where the profile has {} {}", value.size(), wanted, what));
    }
    return value;
  };
  sized(values, "values", profile.steps(), "steps");
  for (int s = 0; s < profile.steps(); ++s) {
    const json& step = values[static_cast<std::size_t>(s)];
    sized(step, fmt::format("values[{}]", s), profile.layers(), "layers");
    for (int l = 0; l < profile.layers(); ++l) {
      const json& layer = step[static_cast<std::size_t>(l)];
      sized(layer, fmt::format("values[{}][{}]", s, l), profile.heads(), "heads");
      for (int h = 0; h < profile.heads(); ++h) {
        const json& value = layer[static_cast<std::size_t>(h)];
        if (value.is_null()) continue;
        const double number = value.is_number() ? value.get<double>() : -1;
        if (!(number >= 0 && number <= 1)) {
          reader.fail(fmt::format("values[{}][{}][{}]", s, l, h),
                      fmt::format("{} is no number between 0 and 1; a cell without a value is null",
                                  detail::quoted(value.is_primitive() ? value.dump() : value.type_name())));
        }
        profile.set({s, l, h}, number);
      }
    }
  }
}

}  // namespace

namespace detail {

nlohmann::ordered_json profileHead(const Profile& profile) {
  nlohmann::ordered_json head;
  head["format"] = kFormat;
  head["format_version"] = {kMajor, kMinor};
  head["role"] = std::string(budgetRoleName(profile.role));
  head["steps"] = profile.steps();
  head["layers"] = profile.layers();
  head["heads"] = profile.heads();
  nlohmann::ordered_json provenance;
  provenance["source"] = profile.provenance.source;
  provenance["program"] = profile.provenance.program;
  provenance["model"] = profile.provenance.model;
  provenance["trace_ids"] = profile.provenance.traceIds;
  provenance["parameters"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : profile.provenance.parameters) provenance["parameters"][key] = value;
  head["provenance"] = std::move(provenance);
  head["csv_line_ending"] = profile.lineEnding == "\n" ? "lf" : "crlf";
  head["locks"] = nlohmann::ordered_json::array();
  head["notes"] = nlohmann::ordered_json::array();
  for (int layer = 0; layer < profile.layers(); ++layer) {
    if (profile.layerLocked(layer)) head["locks"].push_back(layer);
    if (std::string note = profile.layerNote(layer); !note.empty()) {
      nlohmann::ordered_json entry;
      entry["layer"] = layer;
      entry["text"] = std::move(note);
      head["notes"].push_back(std::move(entry));
    }
  }
  return head;
}

void appendProfileValues(std::string& out, const Profile& profile, int indent) {
  const bool lines = indent >= 0;
  const std::string newLine = lines ? "\n" + std::string(static_cast<std::size_t>(indent), ' ') : "";
  out += '[';
  for (int s = 0; s < profile.steps(); ++s) {
    out += s == 0 ? "[" : ",[";
    for (int l = 0; l < profile.layers(); ++l) {
      if (l > 0) out += ',';
      out += newLine;
      out += '[';
      for (int h = 0; h < profile.heads(); ++h) {
        if (h > 0) out += lines ? ", " : ",";
        const auto value = profile.at({s, l, h});
        out += value ? formatProfileValue(*value) : "null";
      }
      out += ']';
    }
    out += ']';
  }
  out += ']';
}

json parseBoundedJson(std::string_view text, const std::string& name) {
  // A document of tiny values takes 16 times its size in memory; a profile never has more values than this.
  const Index limit = kMaxProfileCells * 2 + 100000;
  Index count = 0;
  const json::parser_callback_t bounded = [&](int depth, json::parse_event_t, json&) {
    if (depth > 64) throw Error(ErrorCode::Format, fmt::format("{}: nested deeper than any profile is", name));
    if (++count > limit) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: more values than a profile of {} cells has", name, kMaxProfileCells));
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), bounded);
  } catch (const json::parse_error& e) {
    const TextPosition at = positionOf(text, e.byte == 0 ? 0 : e.byte - 1);
    std::string reason = e.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ...": keep what follows the
    // position.
    if (const auto colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
    throw Error(ErrorCode::Format,
                fmt::format("{}: line {}, column {}: no valid JSON: {}", name, at.line, at.column, reason));
  } catch (const json::exception& e) {
    throw Error(ErrorCode::Format, fmt::format("{}: no valid JSON: {}", name, e.what()));
  }
}

Profile profileFromJson(const json& document, const std::string& name) {
  const Reader reader(name);
  if (!document.is_object())
    throw Error(ErrorCode::Format, fmt::format("{}: the JSON is no profile (no object)", name));
  const auto format = document.find("format");
  if (format == document.end() || *format != kFormat) {
    throw Error(ErrorCode::Format,
                fmt::format("{}: the JSON is no Sparsight profile (its \"format\" is not \"{}\")", name, kFormat));
  }
  const json& version = reader.array(reader.member(document, "format_version"), "format_version");
  if (version.size() != 2) reader.fail("format_version", "must be [major, minor]");
  const int major = reader.integer(version[0], "format_version[0]", 0, 1000000);
  const int minor = reader.integer(version[1], "format_version[1]", 0, 1000000);
  if (major != kMajor) {
    throw Error(
        ErrorCode::Unsupported,
        fmt::format("{}: profile format {}.{} is not supported; this program reads {}.x. {}", name, major, minor,
                    kMajor, major > kMajor ? "Use a newer Sparsight" : "Save it again with the program that made it"));
  }
  const BudgetRole role = roleFrom(reader, reader.text(reader.member(document, "role"), "role"));
  constexpr int kMost = static_cast<int>(kMaxProfileCells);
  const int steps = reader.integer(reader.member(document, "steps"), "steps", 1, kMost);
  const int layers = reader.integer(reader.member(document, "layers"), "layers", 1, kMost);
  const int heads = reader.integer(reader.member(document, "heads"), "heads", 1, kMost);
  if (!fitsProfile(steps, layers, heads)) {
    reader.fail("steps, layers, heads",
                fmt::format("{} x {} x {} is more than {} cells", steps, layers, heads, kMaxProfileCells));
  }
  const json& values = reader.array(reader.member(document, "values"), "values");
  if (values.size() != static_cast<std::size_t>(steps)) {  // before the grid is allocated
    reader.fail("values", fmt::format("has {} entries where the profile has {} steps", values.size(), steps));
  }
  Profile profile(steps, layers, heads, role);
  if (const auto provenance = document.find("provenance"); provenance != document.end()) {
    readProvenance(reader, *provenance, profile.provenance);
  }
  if (const auto ending = document.find("csv_line_ending"); ending != document.end()) {
    const std::string text = reader.text(*ending, "csv_line_ending");
    if (text != "lf" && text != "crlf") reader.fail("csv_line_ending", "must be \"crlf\" or \"lf\"");
    profile.lineEnding = text == "lf" ? "\n" : "\r\n";
  }
  readLayerMeta(reader, document, profile);
  readValues(reader, values, profile);
  return profile;
}

}  // namespace detail

Profile parseProfileJson(std::string_view text, const std::string& name) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.empty()) throw Error(ErrorCode::Format, fmt::format("{}: the file is empty; expected a profile", name));
  return detail::profileFromJson(detail::parseBoundedJson(text, name), name);
}

std::string formatProfileJson(const Profile& profile) {
  if (profile.cellCount() == 0)
    throw Error(ErrorCode::InvalidArgument, "the profile is empty; there is nothing to write");
  // Notes may come from anywhere: bytes that are no UTF-8 are replaced rather than fail the save.
  std::string out = detail::profileHead(profile).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  out.erase(out.rfind('}'));
  while (!out.empty() && out.back() == '\n') out.pop_back();
  out.reserve(out.size() + static_cast<std::size_t>(profile.cellCount()) * 9);
  out += ",\n  \"values\": ";
  detail::appendProfileValues(out, profile, 4);
  out += "\n}\n";
  return out;
}

Profile readProfile(const std::filesystem::path& path, std::vector<CsvIssue>* issues) {
  const std::string text = readWholeFile(path, detail::kMaxProfileFileBytes);
  std::string_view start = text;
  if (start.starts_with("\xEF\xBB\xBF")) start.remove_prefix(3);
  const std::size_t first = start.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && (start[first] == '{' || start[first] == '[')) {
    return parseProfileJson(text, path.string());
  }
  CsvImport import = parseSvooCsv(text, path.string());
  if (issues != nullptr) *issues = std::move(import.issues);
  return std::move(import.profile);
}

void writeProfile(const std::filesystem::path& path, const Profile& profile) {
  const std::string extension = path.extension().string();
  if (extension == ".csv") {
    writeFileAtomically(path, formatSvooCsv(profile));
  } else if (extension == ".json") {
    writeFileAtomically(path, formatProfileJson(profile));
  } else {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: the name must end with .csv (SVOO) or .json (Sparsight profile)", path.string()));
  }
}

}  // namespace sparsight
