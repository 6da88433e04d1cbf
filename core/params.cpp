// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "sparsight/core/method.h"

namespace sparsight {
namespace {

[[nodiscard]] std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

[[nodiscard]] std::vector<std::string_view> splitList(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t start = 0;
  while (true) {
    const auto comma = text.find(',', start);
    parts.push_back(trimmed(text.substr(start, comma == std::string_view::npos ? comma : comma - start)));
    if (comma == std::string_view::npos) return parts;
    start = comma + 1;
  }
}

// std::from_chars: the same text means the same number in every locale.
template <class T>
[[nodiscard]] std::optional<T> parseNumber(std::string_view text) {
  T value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[nodiscard]] bool oneOf(const std::vector<std::string>& choices, std::string_view value) {
  return std::find(choices.begin(), choices.end(), value) != choices.end();
}

[[nodiscard]] std::optional<bool> parseFlag(std::string_view text) {
  if (text == "true" || text == "on" || text == "1" || text == "yes") return true;
  if (text == "false" || text == "off" || text == "0" || text == "no") return false;
  return std::nullopt;
}

[[nodiscard]] std::string rangeText(const ParamSpec& spec) {
  std::string range = spec.type == ParamType::Real
                          ? fmt::format("a number from {:g} to {:g}", spec.minimum, spec.maximum)
                          : fmt::format("a whole number from {:.0f} to {:.0f}", spec.minimum, spec.maximum);
  for (const std::string& choice : spec.choices) range += fmt::format(" or {}", choice);
  if (spec.perHead) range += ", or a list of them, one per selected head";
  return range;
}

[[noreturn]] void refuse(const ParamSpec& spec, std::string_view value, const std::string& expected) {
  throw Error(ErrorCode::InvalidArgument, fmt::format("parameter {}: takes {}, not '{}'", spec.name, expected, value));
}

void checkNumber(const ParamSpec& spec, std::string_view item, std::string_view whole) {
  if (oneOf(spec.choices, item)) return;
  double number = 0;
  if (spec.type == ParamType::Real) {
    const auto parsed = parseNumber<double>(item);
    if (!parsed || !std::isfinite(*parsed)) refuse(spec, whole, rangeText(spec));
    number = *parsed;
  } else {
    const auto parsed = parseNumber<Index>(item);
    if (!parsed) refuse(spec, whole, rangeText(spec));
    number = static_cast<double>(*parsed);
  }
  if (number < spec.minimum || number > spec.maximum) refuse(spec, whole, rangeText(spec));
}

[[nodiscard]] std::string checkedValue(const ParamSpec& spec, std::string_view value) {
  switch (spec.type) {
    case ParamType::Int:
    case ParamType::Real:
      if (spec.perHead) {
        for (const std::string_view item : splitList(value)) checkNumber(spec, item, value);
      } else {
        checkNumber(spec, value, value);
      }
      break;
    case ParamType::IntList:
      if (oneOf(spec.choices, value)) break;
      for (const std::string_view item : splitList(value)) {
        const auto parsed = parseNumber<Index>(item);
        if (!parsed || static_cast<double>(*parsed) < spec.minimum || static_cast<double>(*parsed) > spec.maximum) {
          refuse(spec, value,
                 fmt::format("a list of whole numbers from {:.0f} to {:.0f}, like 9,29", spec.minimum, spec.maximum));
        }
      }
      break;
    case ParamType::Bool: {
      const auto parsed = parseFlag(value);
      if (!parsed) refuse(spec, value, "true or false");
      return *parsed ? "true" : "false";
    }
    case ParamType::Choice:
      if (!oneOf(spec.choices, value)) refuse(spec, value, fmt::format("one of {}", fmt::join(spec.choices, ", ")));
      break;
    case ParamType::Text:
      break;
  }
  return std::string(value);
}

// The value of `spec` whose complement to 1 was given; in decimal, so that 1 - 0.9 is 0.1.
[[nodiscard]] std::string complementOf(const ParamSpec& spec, std::string_view value) {
  const auto number = parseNumber<double>(value);
  if (!number || *number < 1.0 - spec.maximum || *number > 1.0 - spec.minimum) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("parameter {} (1 - {}): takes a number from {:g} to {:g}, not '{}'", spec.complement,
                            spec.name, 1.0 - spec.maximum, 1.0 - spec.minimum, value));
  }
  return fmt::format("{:.12g}", 1.0 - *number);
}

[[nodiscard]] std::string_view itemOf(std::string_view text, std::size_t headIndex, std::string_view name) {
  if (text.find(',') == std::string_view::npos) return text;
  const auto items = splitList(text);
  if (headIndex >= items.size()) {
    throw Error(
        ErrorCode::InvalidArgument,
        fmt::format("parameter {}: has {} values, but head number {} of the selection needs one; give one value "
                    "for all heads or one per selected head",
                    name, items.size(), headIndex + 1));
  }
  return items[headIndex];
}

}  // namespace

namespace {

ParamSpec describe(ParamType type, std::string name, std::string defaultValue, std::string unit, std::string meaning,
                   std::string source) {
  ParamSpec spec;
  spec.type = type;
  spec.name = std::move(name);
  spec.defaultValue = std::move(defaultValue);
  spec.unit = std::move(unit);
  spec.meaning = std::move(meaning);
  spec.source = std::move(source);
  return spec;
}

ParamSpec describeNumber(ParamType type, std::string name, std::string defaultValue, double minimum, double maximum,
                         std::string unit, std::string meaning, std::string source) {
  ParamSpec spec =
      describe(type, std::move(name), std::move(defaultValue), std::move(unit), std::move(meaning), std::move(source));
  spec.minimum = minimum;
  spec.maximum = maximum;
  return spec;
}

}  // namespace

ParamSpec ParamSpec::integer(std::string name, std::string defaultValue, double minimum, double maximum,
                             std::string unit, std::string meaning, std::string source) {
  return describeNumber(ParamType::Int, std::move(name), std::move(defaultValue), minimum, maximum, std::move(unit),
                        std::move(meaning), std::move(source));
}

ParamSpec ParamSpec::real(std::string name, std::string defaultValue, double minimum, double maximum, std::string unit,
                          std::string meaning, std::string source) {
  return describeNumber(ParamType::Real, std::move(name), std::move(defaultValue), minimum, maximum, std::move(unit),
                        std::move(meaning), std::move(source));
}

ParamSpec ParamSpec::integers(std::string name, std::string defaultValue, double minimum, double maximum,
                              std::string unit, std::string meaning, std::string source) {
  return describeNumber(ParamType::IntList, std::move(name), std::move(defaultValue), minimum, maximum, std::move(unit),
                        std::move(meaning), std::move(source));
}

ParamSpec ParamSpec::choice(std::string name, std::string defaultValue, std::vector<std::string> choices,
                            std::string meaning, std::string source) {
  return describe(ParamType::Choice, std::move(name), std::move(defaultValue), {}, std::move(meaning),
                  std::move(source))
      .orWords(std::move(choices));
}

ParamSpec ParamSpec::boolean(std::string name, std::string defaultValue, std::string meaning, std::string source) {
  return describe(ParamType::Bool, std::move(name), std::move(defaultValue), {}, std::move(meaning), std::move(source));
}

ParamSpec ParamSpec::freeText(std::string name, std::string defaultValue, std::string unit, std::string meaning,
                              std::string source) {
  return describe(ParamType::Text, std::move(name), std::move(defaultValue), std::move(unit), std::move(meaning),
                  std::move(source));
}

ParamSpec ParamSpec::withAliases(std::vector<std::string> names) && {
  aliases = std::move(names);
  return std::move(*this);
}

ParamSpec ParamSpec::withComplement(std::string other) && {
  complement = std::move(other);
  return std::move(*this);
}

ParamSpec ParamSpec::orWords(std::vector<std::string> words) && {
  choices = std::move(words);
  return std::move(*this);
}

ParamSpec ParamSpec::listedPerHead() && {
  perHead = true;
  return std::move(*this);
}

ParamSet ParamSet::parse(std::span<const ParamSpec> specs, const std::vector<std::string>& assignments) {
  ParamSet set;
  for (const ParamSpec& spec : specs) set.m_defaults[spec.name] = spec.defaultValue;
  for (const std::string& assignment : assignments) {
    const auto equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("parameter '{}': write it as name=value, e.g. {}", assignment,
                              specs.empty() ? std::string("kept=0.25")
                                            : fmt::format("{}={}", specs.back().name, specs.back().defaultValue)));
    }
    const std::string_view name = trimmed(std::string_view(assignment).substr(0, equals));
    const std::string_view value = trimmed(std::string_view(assignment).substr(equals + 1));
    // An alias may stand for several parameters: kmeans_iter sets the first and the later iterations.
    bool found = false;
    for (const ParamSpec& spec : specs) {
      const bool complement = !spec.complement.empty() && spec.complement == name;
      if (spec.name != name && !oneOf(spec.aliases, name) && !complement) continue;
      set.m_values[spec.name] = complement ? complementOf(spec, value) : checkedValue(spec, value);
      found = true;
    }
    if (!found) {
      std::vector<std::string> known;
      for (const ParamSpec& candidate : specs) known.push_back(candidate.name);
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("parameter {}: unknown; {}", name,
                      known.empty() ? "there are none here" : fmt::format("there are {}", fmt::join(known, ", "))));
    }
  }
  return set;
}

bool ParamSet::has(std::string_view name) const { return m_values.find(name) != m_values.end(); }

std::string ParamSet::text(std::string_view name) const {
  if (const auto given = m_values.find(name); given != m_values.end()) return given->second;
  if (const auto fallback = m_defaults.find(name); fallback != m_defaults.end()) return fallback->second;
  throw Error(ErrorCode::Internal, fmt::format("parameter {}: asked for, but neither given nor declared", name));
}

double ParamSet::real(std::string_view name, std::size_t headIndex) const {
  const std::string whole = text(name);
  const auto value = parseNumber<double>(itemOf(whole, headIndex, name));
  if (!value) throw Error(ErrorCode::InvalidArgument, fmt::format("parameter {}: '{}' is no number", name, whole));
  return *value;
}

Index ParamSet::integer(std::string_view name, std::size_t headIndex) const {
  const std::string whole = text(name);
  const auto value = parseNumber<Index>(itemOf(whole, headIndex, name));
  if (!value) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("parameter {}: '{}' is no whole number", name, whole));
  }
  return *value;
}

bool ParamSet::flag(std::string_view name) const {
  const std::string whole = text(name);
  const auto value = parseFlag(whole);
  if (!value) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("parameter {}: '{}' is neither true nor false", name, whole));
  }
  return *value;
}

std::vector<Index> ParamSet::integers(std::string_view name) const {
  const std::string whole = text(name);
  std::vector<Index> values;
  if (trimmed(whole).empty()) return values;
  for (const std::string_view item : splitList(whole)) {
    const auto value = parseNumber<Index>(item);
    if (!value) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("parameter {}: '{}' is no list of whole numbers", name, whole));
    }
    values.push_back(*value);
  }
  return values;
}

}  // namespace sparsight
