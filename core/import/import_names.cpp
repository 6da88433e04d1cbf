// SPDX-License-Identifier: Apache-2.0
// What the names of tensors and files say about their place in a run.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

struct Word {
  std::string text;  ///< lower case letters, or digits
  bool digits = false;
  bool joined = false;  ///< directly after the word before it: "l12"
};

// Runs of letters and of digits; everything else separates.
std::vector<Word> wordsOf(std::string_view text) {
  std::vector<Word> words;
  bool joined = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool digit = std::isdigit(byte) != 0, letter = std::isalpha(byte) != 0;
    if (!digit && !letter) {
      joined = false;
      continue;
    }
    if (!joined || words.empty() || words.back().digits != digit) words.push_back({{}, digit, joined});
    words.back().text += static_cast<char>(std::tolower(byte));
    joined = true;
  }
  return words;
}

std::optional<int> numberOf(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// "q_rows", "key_valid", "attn_mask": what comes beside queries and keys. Masks of padding say 1 for padding in some
// programs and for tokens in others, so that they have to be named by the user.
TensorRole roleBeside(const std::vector<Word>& words) {
  const auto has = [&](const char* text) {
    return std::any_of(words.begin(), words.end(), [&](const Word& w) { return w.text == text; });
  };
  if (has("padding") || has("norm") || has("weight") || has("bias")) return TensorRole::None;
  if (has("rows") && (has("q") || has("query"))) return TensorRole::QueryRows;
  if (has("valid") && (has("k") || has("key"))) return TensorRole::KeyValid;
  if (has("mask") && (words.size() == 1 || has("attn") || has("attention"))) return TensorRole::Mask;
  return TensorRole::None;
}

TensorRole roleOf(const std::string& word) {
  if (word == "q" || word == "query" || word == "queries") return TensorRole::Query;
  if (word == "k" || word == "key" || word == "keys") return TensorRole::Key;
  if (word == "v" || word == "value" || word == "values") return TensorRole::Value;
  return TensorRole::None;
}

// The first word of a path component that names an input of attention. "norm_k" and "k_mask" do not.
TensorRole roleIn(std::string_view component) {
  const std::vector<Word> words = wordsOf(component);
  if (const TensorRole beside = roleBeside(words); beside != TensorRole::None) return beside;
  constexpr std::array kOther{"valid", "mask", "padding", "bias", "norm", "weight", "rows"};
  for (const Word& word : words) {
    if (std::find(kOther.begin(), kOther.end(), word.text) != kOther.end()) return TensorRole::None;
  }
  for (const Word& word : words) {
    if (const TensorRole role = roleOf(word.text); role != TensorRole::None) return role;
  }
  return TensorRole::None;
}

void takeNumber(TensorPlace& place, const Word& word, const Word& next) {
  const std::optional<int> number = numberOf(next.text);
  if (!number) return;
  const std::string& w = word.text;
  const bool close = next.joined;  // one letter counts only right before its number
  if (w == "step" || w == "steps" || (w == "s" && close)) place.step = number;
  if (w == "timestep" || w == "ts" || (w == "t" && close)) place.timestep = *number;
  if (w == "layer" || w == "layers" || w == "block" || w == "blocks" || (w == "l" && close)) place.layer = number;
  if (w == "head" || w == "heads" || (w == "h" && close)) place.head = number;
  if (w == "call" || w == "self" || w == "joint") place.call = number;
  if (w == "attn" && *number == 2 && place.kind.empty()) place.kind = "cross";
}

}  // namespace

TensorPlace placeFromName(std::string_view name) {
  TensorPlace place;
  const std::vector<Word> words = wordsOf(name);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i].text;
    if (word == "cond" || word == "uncond" || word == "batched") place.branch = word;
    if (word == "self" || word == "joint" || word == "cross") place.kind = word;
    if (word == "refiner") place.kind = word;
    // "single_transformer_blocks.3" is not "transformer_blocks.3".
    const bool blocks = word == "blocks" || word == "block";
    for (std::size_t back = 1; blocks && back <= 2 && back <= i; ++back) {
      const std::string& before = words[i - back].text;
      if (before == "single" || before == "double") place.stack = before;
    }
    if (i + 1 < words.size() && words[i + 1].digits) takeNumber(place, words[i], words[i + 1]);
  }
  for (std::size_t end = name.size(); place.role == TensorRole::None;) {
    const std::size_t slash = end == 0 ? std::string_view::npos : name.find_last_of("/.", end - 1);
    place.role = roleIn(name.substr(slash == std::string_view::npos ? 0 : slash + 1,
                                    end - (slash == std::string_view::npos ? 0 : slash + 1)));
    if (slash == std::string_view::npos) break;
    end = slash;
  }
  return place;
}

namespace {

// Fits the pattern from its position on; a placeholder takes as much as it may and gives back.
bool fits(std::string_view pattern, std::string_view name, TensorPlace& place) {
  const std::size_t open = pattern.find('{');
  if (open == std::string_view::npos) return pattern == name;
  if (name.substr(0, open) != pattern.substr(0, open) || name.size() < open) return false;
  const std::size_t close = pattern.find('}', open);
  const std::string_view key = pattern.substr(open + 1, close - open - 1);
  const std::string_view rest = pattern.substr(close + 1);
  name.remove_prefix(open);
  const bool number = key == "step" || key == "layer" || key == "head" || key == "call";
  const bool real = key == "timestep";
  std::size_t most = 0;
  while (most < name.size()) {
    const auto c = static_cast<unsigned char>(name[most]);
    const bool taken = number ? std::isdigit(c) != 0 : real ? std::isdigit(c) != 0 || c == '.' : key == "*" || c != '/';
    if (!taken) break;
    ++most;
  }
  for (std::size_t length = most; length > 0; --length) {
    TensorPlace attempt = place;
    const std::string_view value = name.substr(0, length);
    if (number) {
      const std::optional<int> parsed = numberOf(value);
      if (!parsed) continue;
      (key == "step"    ? attempt.step
       : key == "layer" ? attempt.layer
       : key == "head"  ? attempt.head
                        : attempt.call) = parsed;
    } else if (real) {
      double parsed = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
      if (error != std::errc() || end != value.data() + value.size()) continue;
      attempt.timestep = parsed;
    } else if (key == "branch") {
      attempt.branch = std::string(value);
    } else if (key == "kind") {
      attempt.kind = std::string(value);
    }
    if (fits(rest, name.substr(length), attempt)) {
      place = attempt;
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<TensorPlace> placeFromPattern(std::string_view pattern, std::string_view name) {
  int wild = 0;
  for (std::size_t at = 0; (at = pattern.find('{', at)) != std::string_view::npos; ++at) {
    const std::size_t close = pattern.find('}', at);
    const std::string_view key =
        close == std::string_view::npos ? std::string_view() : pattern.substr(at + 1, close - at - 1);
    constexpr std::array<std::string_view, 8> kKeys{"step", "timestep", "layer", "head", "branch", "kind", "call", "*"};
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end() || ++wild > 8) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("the pattern '{}' may hold {{step}} {{timestep}} {{layer}} {{head}} {{branch}} {{kind}} "
                              "{{call}} and {{*}}, at most eight",
                              pattern));
    }
  }
  TensorPlace place;
  while (name.starts_with('/')) name.remove_prefix(1);
  while (pattern.starts_with('/')) pattern.remove_prefix(1);
  if (!fits(pattern, name, place)) return std::nullopt;
  return place;
}

}  // namespace sparsight
