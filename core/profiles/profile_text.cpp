// SPDX-License-Identifier: Apache-2.0
#include "profiles/profile_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace sparsight {

std::string formatProfileValue(double value) {
  // Python's repr: fixed notation from 1e-4 to below 1e16, else an exponent of at least two digits; both shortest.
  std::array<char, 400> buffer;
  const bool fixed = value == 0 || (value >= 1e-4 && value < 1e16) || (value <= -1e-4 && value > -1e16);
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer.data(), end);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

namespace detail {

std::string cellText(CellId cell) {
  const int ordinal = cell.step + 1;
  const int tens = ordinal % 100;
  const char* suffix = "th";
  if (tens < 11 || tens > 13) {
    if (ordinal % 10 == 1) suffix = "st";
    if (ordinal % 10 == 2) suffix = "nd";
    if (ordinal % 10 == 3) suffix = "rd";
  }
  return fmt::format("step index {} ({}{}), layer {}, head {}", cell.step, ordinal, suffix, cell.layer, cell.head);
}

std::string holesText(const Profile& profile) {
  for (int s = 0; s < profile.steps(); ++s) {
    for (int l = 0; l < profile.layers(); ++l) {
      for (int h = 0; h < profile.heads(); ++h) {
        if (profile.at({s, l, h})) continue;
        const Index holes = profile.holeCount();
        return fmt::format("{} of {} cells {} without a value (first: {})", holes, profile.cellCount(),
                           holes == 1 ? "is" : "are", cellText({s, l, h}));
      }
    }
  }
  return "no cell is without a value";
}

std::string percentText(double fraction) { return fmt::format("{:.4g}", fraction * 100); }

TextPosition positionOf(std::string_view text, std::size_t byte) noexcept {
  TextPosition position;
  byte = std::min(byte, text.size());
  for (std::size_t i = 0; i < byte; ++i) {
    if (text[i] == '\n') {
      ++position.line;
      position.column = 1;
    } else {
      ++position.column;
    }
  }
  return position;
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 40;
  std::string out = "'";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > kShown) {
    // A cut in the middle of a UTF-8 sequence would make the message itself malformed.
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0U) == 0x80U) out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0U) out.pop_back();
    out += "...";
  }
  return out + "'";
}

}  // namespace detail
}  // namespace sparsight
