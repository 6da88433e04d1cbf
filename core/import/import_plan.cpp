// SPDX-License-Identifier: Apache-2.0
// From tensors with names to attention calls: what the file says, what the user says, what the preset knows, and what
// then has to be assumed.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "import/byte_source.h"
#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using import::shapeText;

constexpr std::size_t kMostCalls = 1'000'000;
constexpr Index kMemoryLimit = Index{2} << 30;
constexpr std::size_t kMostPlanes = 3'000'000;  // heads of all tensors together; each takes some 100 bytes
constexpr std::size_t kMostPlaces = 500;        // that a form lists
// HunyuanVideo, of 20 double and 40 single blocks, is the one family of two sorts that makes videos.
constexpr int kHunyuanDoubleBlocks = 20;

[[noreturn]] void invalid(const std::string& message) { throw Error(ErrorCode::InvalidArgument, message); }

const char* roleName(TensorRole role) {
  return role == TensorRole::Query ? "q" : role == TensorRole::Key ? "k" : role == TensorRole::Value ? "v" : "";
}

std::optional<std::string> factOf(const Survey& survey, const char* name) {
  const auto found = survey.facts.find(name);
  return found == survey.facts.end() ? std::nullopt : std::optional(found->second);
}

/// "5,4,6", "[5, 4, 6]", "5x4x6"
std::vector<double> numbersIn(std::string_view text) {
  std::vector<double> numbers;
  std::size_t at = 0;
  while (at < text.size()) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc()) {
      ++at;
      continue;
    }
    numbers.push_back(value);
    at = static_cast<std::size_t>(end - text.data());
  }
  return numbers;
}

std::optional<double> realFact(const Survey& survey, const char* name) {
  const auto text = factOf(survey, name);
  const std::vector<double> numbers = text ? numbersIn(*text) : std::vector<double>();
  return numbers.size() == 1 && std::isfinite(numbers[0]) ? std::optional(numbers[0]) : std::nullopt;
}

std::optional<int> wholeFact(const Survey& survey, const char* name) {
  const auto value = realFact(survey, name);
  return value && *value >= 0 && *value < 1e9 ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

std::optional<std::array<int, 3>> gridFact(const Survey& survey) {
  const auto text = factOf(survey, "grid");
  const std::vector<double> numbers = text ? numbersIn(*text) : std::vector<double>();
  if (numbers.size() != 3) return std::nullopt;
  std::array<int, 3> grid{};
  for (std::size_t i = 0; i < 3; ++i) {
    if (!(numbers[i] >= 1 && numbers[i] <= 1e6)) return std::nullopt;
    grid[i] = static_cast<int>(numbers[i]);
  }
  return grid;
}

Index volume(const std::array<int, 3>& grid) { return Index{grid[0]} * grid[1] * grid[2]; }

/// A call while it is being put together.
struct Key {
  std::optional<int> step;
  std::optional<double> timestep;
  std::string branch;
  int layer = 0;
  std::string kind;
  int call = 0;
  [[nodiscard]] auto tie() const { return std::tie(step, timestep, branch, layer, kind, call); }
  friend bool operator<(const Key& a, const Key& b) { return a.tie() < b.tie(); }
};
struct HeadPlane {
  int head = 0;
  bool named = false;  ///< by the tensor's name, not by its place in an axis
  PlaneSource source;
};
struct Roles {
  std::array<std::vector<HeadPlane>, 3> planes;
  Index batch = 0, batches = 1;  ///< this call's entry of the tensors' batch
};
/// What comes beside queries and keys.
struct Beside {
  std::size_t tensor;
  TensorPlace place;
  bool used = false;
};
/// Patterns say which tensors are q, k and v.
bool inputsAreMapped(const ImportOptions& options) {
  return std::any_of(options.patterns.begin(), options.patterns.begin() + 3,
                     [](const std::string& p) { return !p.empty(); });
}
bool isInput(TensorRole role) {
  return role == TensorRole::Query || role == TensorRole::Key || role == TensorRole::Value;
}

class Planner {
 public:
  Planner(const Survey& survey, const ImportOptions& options) : m_survey(survey), m_options(options) {}

  ImportPlan plan() {
    if (!m_options.preset.empty()) m_preset = &importPresetByKey(m_options.preset);
    choose();
    collect();
    formCalls();
    layOut();
    describe();
    finish();
    return std::move(m_plan);
  }
  // What a form can show although the plan failed.
  Index tokens = 0;
  int heads = 0, headDim = 0;

 private:
  void assume(std::string line) {
    if (std::find(m_plan.assumed.begin(), m_plan.assumed.end(), line) == m_plan.assumed.end())
      m_plan.assumed.push_back(std::move(line));
  }
  void warn(std::string line) { m_plan.warnings.push_back(std::move(line)); }

  /// Which tensors are q, k and v, where they belong, and of which type they are.
  void choose() {
    const bool mapped = inputsAreMapped(m_options);
    std::size_t unused = 0, cross = 0, refiner = 0;
    std::string example;
    for (std::size_t i = 0; i < m_survey.tensors.size(); ++i) {
      const FoundTensor& found = m_survey.tensors[i];
      const TensorPlace place = placeOf(found, m_options);
      if (place.role == TensorRole::None) {
        if (unused++ == 0) example = found.label();
        continue;
      }
      if (place.kind == "cross" && m_options.kind.empty() && !m_options.cross) {
        ++cross;
        continue;
      }
      if (place.kind == "refiner" && m_options.kind.empty()) {  // HunyuanVideo's, over text alone
        ++refiner;
        continue;
      }
      if (!isInput(place.role)) {
        m_beside.push_back({i, place});
        continue;
      }
      std::optional<SourceType> type = found.type;
      if (!type && found.sixteenBits) {
        type = m_options.raw16;
        if (!type) {
          invalid(
              fmt::format("{} is {}, 2 bytes without a meaning of their own; say what they are: --raw16 bfloat16 "
                          "(or float16)",
                          found.label(), import::printable(found.dtype)));
        }
      }
      if (!type) {
        throw Error(ErrorCode::Unsupported,
                    fmt::format("{} is {}; queries, keys and values are float16, bfloat16, float32 or float64. Convert "
                                "it, or leave it out with --map",
                                found.label(), import::printable(found.dtype)));
      }
      m_chosen.push_back({i, place, *type});
    }
    if (m_chosen.empty()) {
      std::string names;
      for (std::size_t i = 0; i < std::min<std::size_t>(6, m_survey.tensors.size()); ++i) {
        names += fmt::format("{}{} {}", i == 0 ? "" : ", ", m_survey.tensors[i].label(),
                             shapeText(m_survey.tensors[i].shape));
      }
      invalid(
          fmt::format("{}: no tensor is {}; there are {}{}. Say which: --map q=NAME --map k=NAME --map v=NAME, with "
                      "{{step}} {{layer}} {{head}} where names differ",
                      m_survey.source.string(), mapped ? "named as --map says" : "named like a query or key",
                      names.empty() ? "none" : names, m_survey.tensors.size() > 6 ? ", ..." : ""));
    }
    if (unused > 0)
      warn(unused == 1 ? fmt::format("{} is not used", example)
                       : fmt::format("{} tensors are not used (the first: {})", unused, example));
    if (cross > 0) warn(fmt::format("{} tensors of cross-attention are left out (--cross takes them too)", cross));
    if (refiner > 0) warn(fmt::format("{} tensors of the text's refiner are left out", refiner));
    joinStacks();
    countKeyHeads();
  }

  /// Blocks of two sorts are numbered apart: the single ones come after the double ones.
  void joinStacks() {
    int after = -1;
    bool any = false;
    for (const Chosen& chosen : m_chosen) {
      if (!chosen.place.layer) continue;
      if (chosen.place.stack == "single")
        any = true;
      else
        after = std::max(after, *chosen.place.layer);
    }
    if (!any) return;
    const std::string family = !m_options.family.empty() ? m_options.family
                               : m_preset != nullptr     ? std::string(m_preset->family)
                                                         : factOf(m_survey, "family").value_or("");
    int first = after + 1;
    std::string why = after < 0 ? "no double block is there" : fmt::format("the double blocks end at {}", after);
    if (m_options.doubleBlocks) {
      first = *m_options.doubleBlocks;
      why.clear();
    } else if (family == "hunyuanvideo") {
      first = kHunyuanDoubleBlocks;
      why = "HunyuanVideo has 20 double blocks";
    }
    if (after >= first) {
      invalid(fmt::format("{}: holds double block {}, but single block 0 would be layer {}; say --double-blocks N",
                          m_survey.source.string(), after, first));
    }
    if (!why.empty()) {
      assume(fmt::format("single block 0 is layer {}: single blocks follow the double ones, and {} (--double-blocks N)",
                         first, why));
    }
    const auto shift = [&](TensorPlace& place) {
      if (place.stack == "single" && place.layer) place.layer = *place.layer + first;
    };
    for (Chosen& chosen : m_chosen) shift(chosen.place);
    for (Beside& beside : m_beside) shift(beside.place);
  }

  /// Keys are never a subset, so that their axes tell those of a few query rows.
  void countKeyHeads() {
    if (!m_options.axes.empty()) return;
    Index count = 0;
    for (const Chosen& chosen : m_chosen) {
      const FoundTensor& found = m_survey.tensors[chosen.tensor];
      if (chosen.place.role != TensorRole::Key || (found.shape.size() != 3 && found.shape.size() != 4)) continue;
      const std::size_t at = axesOf(found, chosen.place).find('H');
      const Index own = at == std::string::npos ? 0 : found.shape[at];
      if (count != 0 && own != count) return;
      count = own;
    }
    m_keyHeads = count;
  }

  /// Letters of a tensor's axes.
  std::string axesOf(const FoundTensor& found, const TensorPlace& place) {
    const std::size_t rank = found.shape.size();
    const auto check = [&](const std::string& axes, const char* from) {
      std::set<char> letters(axes.begin(), axes.end());
      if (axes.size() != rank || letters.size() != rank || !letters.contains('N') || !letters.contains('D') ||
          axes.find_first_not_of("SLBHND") != std::string::npos) {
        invalid(
            fmt::format("{}: {} '{}' do not fit shape {}: one letter per axis of S (step), L (layer), B (batch), H "
                        "(head), N (token), D (channel), with N and D",
                        found.label(), from, axes, shapeText(found.shape)));
      }
      return axes;
    };
    if (!m_options.axes.empty()) return check(m_options.axes, "--axes");
    if (!found.axes.empty() && found.axes.size() == rank) return check(found.axes, "its axes");
    if (rank == 2) return "ND";
    if (rank != 3 && rank != 4) {
      invalid(
          fmt::format("{} has shape {}; say what its axes are: --axes, one letter per axis of S (step), L (layer), B "
                      "(batch), H (head), N (token), D (channel), for example SLHND",
                      found.label(), shapeText(found.shape)));
    }
    const std::string batch = rank == 4 ? "B" : "";
    const Index a = found.shape[rank - 3], b = found.shape[rank - 2];
    // A fact first: the number of tokens, then of heads.
    const Index knownHeads = m_preset != nullptr ? m_preset->heads : wholeFact(m_survey, "num_heads").value_or(0);
    const Index known = knownTokens();
    if (place.head && a == 1 && b != 1) return batch + "HND";
    if (a != b) {
      if (known > 0 && (a == known || b == known)) return batch + (b == known ? "HND" : "NHD");
      if (knownHeads > 0 && (a == knownHeads) != (b == knownHeads)) return batch + (a == knownHeads ? "HND" : "NHD");
      if (m_keyHeads > 0 && (a == m_keyHeads) != (b == m_keyHeads)) return batch + (a == m_keyHeads ? "HND" : "NHD");
      const bool headsFirst = a < b;
      assume(fmt::format("shapes like {} are read as {}{}, {}, channels: tokens are the longer axis",
                         shapeText(found.shape), rank == 4 ? "batch, " : "", headsFirst ? "heads" : "tokens",
                         headsFirst ? "tokens" : "heads"));
      return batch + (headsFirst ? "HND" : "NHD");
    }
    invalid(fmt::format("{} has shape {}: which axis is the heads'? Say --axes {}HND or --axes {}NHD", found.label(),
                        shapeText(found.shape), batch, batch));
  }

  [[nodiscard]] Index knownTokens() const {
    std::optional<std::array<int, 3>> grid = m_options.grid;
    if (!grid) grid = gridFact(m_survey);
    if (grid) {
      const Index text = m_options.text ? *m_options.text : Index{wholeFact(m_survey, "text_len").value_or(0)};
      return volume(*grid) + text;
    }
    if (m_preset != nullptr && !m_preset->textVaries) return volume(m_preset->grid) + m_preset->text;
    return 0;
  }

  /// One entry per (call, role, head).
  void collect() {
    for (const Chosen& chosen : m_chosen) {
      const FoundTensor& found = m_survey.tensors[chosen.tensor];
      static_cast<void>(import::checkedCount(found.shape, found.label()));
      if (std::any_of(found.shape.begin(), found.shape.end(), [](Index n) { return n == 0; })) {
        throw Error(ErrorCode::Format, fmt::format("{} is empty (shape {})", found.label(), shapeText(found.shape)));
      }
      const std::string axes = axesOf(found, chosen.place);
      const auto axis = [&](char letter) {
        const std::size_t at = axes.find(letter);
        return at == std::string::npos ? std::optional<std::size_t>() : std::optional(at);
      };
      const auto extent = [&](char letter) { return axis(letter) ? found.shape[*axis(letter)] : Index{1}; };
      if (extent('S') * extent('L') > Index{100'000} || extent('B') > 64 || extent('H') > 65536) {
        invalid(fmt::format("{}: shape {} as {} gives more calls or heads than any model has; check --axes",
                            found.label(), shapeText(found.shape), axes));
      }
      if (extent('B') > 1 && static_cast<Index>(m_options.branches.size()) != extent('B')) {
        invalid(fmt::format(
            "{} holds a batch of {} (shape {}); name its entries: --branch {} (CogVideoX, LTX and Mochi "
            "put the unconditional one first)",
            found.label(), extent('B'), shapeText(found.shape), extent('B') == 2 ? "uncond,cond" : "a,b,..."));
      }
      for (Index s = 0; s < extent('S'); ++s) {
        for (Index l = 0; l < extent('L'); ++l) {
          for (Index b = 0; b < extent('B'); ++b) {
            Key key = keyOf(chosen.place, axis('S').has_value(), axis('L').has_value());
            if (axis('S')) key.step = static_cast<int>(s);
            if (axis('S')) key.timestep.reset();
            if (axis('L')) key.layer = static_cast<int>(l);
            if (extent('B') > 1) key.branch = m_options.branches[static_cast<std::size_t>(b)];
            Roles& roles = m_calls[key];
            auto& planes = roles.planes[static_cast<std::size_t>(chosen.place.role) - 1];
            roles.batch = b;
            roles.batches = extent('B');
            m_planes += static_cast<std::size_t>(extent('H'));
            if (m_calls.size() > kMostCalls || m_planes > kMostPlanes)
              invalid("more attention calls than any capture has; check --axes and --map");
            for (Index h = 0; h < extent('H'); ++h) {
              HeadPlane plane;
              plane.named = !axis('H') || (chosen.place.head && extent('H') == 1);
              plane.head = plane.named ? chosen.place.head.value_or(0) : static_cast<int>(h);
              plane.source.tensor = chosen.tensor;
              plane.source.type = chosen.type;
              plane.source.index.assign(found.shape.size(), 0);
              const auto put = [&](char letter, Index value) {
                if (axis(letter)) plane.source.index[*axis(letter)] = value;
              };
              put('S', s);
              put('L', l);
              put('B', b);
              put('H', h);
              plane.source.rowAxis = *axis('N');
              plane.source.columnAxis = *axis('D');
              planes.push_back(std::move(plane));
            }
          }
        }
      }
    }
  }

  Key keyOf(const TensorPlace& place, bool stepAxis, bool layerAxis) {
    Key key;
    key.step = place.step;
    if (!key.step) key.timestep = place.timestep;
    if (!key.step && !key.timestep) {
      key.step = m_options.step;
      if (!key.step) {
        key.step = 0;
        m_noStep = m_noStep || !stepAxis;
      }
    }
    key.layer = place.layer ? *place.layer : m_options.layer.value_or(0);
    m_noLayer = m_noLayer || (!place.layer && !m_options.layer && !layerAxis);
    key.branch = place.branch;
    key.kind = !m_options.kind.empty() ? m_options.kind : place.kind;
    key.call = place.call.value_or(0);
    return key;
  }

  [[nodiscard]] Index extentOf(const PlaneSource& source, bool rows) const {
    return m_survey.tensors[source.tensor].shape[rows ? source.rowAxis : source.columnAxis];
  }

  std::string nameOf(const Key& key) const {
    return fmt::format("{}, layer {}{}",
                       key.step ? fmt::format("step {}", *key.step) : fmt::format("timestep {:g}", *key.timestep),
                       key.layer, key.branch.empty() ? "" : ", " + key.branch);
  }

  void formCalls() {
    std::size_t incomplete = 0;
    std::string example;
    for (auto& [key, together] : m_calls) {
      auto& roles = together.planes;
      if (roles[0].empty() || roles[1].empty()) {
        if (incomplete++ == 0)
          example = fmt::format("{} has no {}", nameOf(key), roles[0].empty() ? "queries" : "keys");
        continue;
      }
      for (std::size_t r = 0; r < roles.size(); ++r) {
        auto& planes = roles[r];
        std::stable_sort(planes.begin(), planes.end(),
                         [](const HeadPlane& a, const HeadPlane& b) { return a.head < b.head; });
        for (std::size_t i = 0; i < planes.size(); ++i) {
          const FoundTensor& found = m_survey.tensors[planes[i].source.tensor];
          if (i > 0 && planes[i].head == planes[i - 1].head) {
            invalid(fmt::format(
                "{} and {} are both {} of {}, head {}; tell them apart with --map, or import them one by one",
                m_survey.tensors[planes[i - 1].source.tensor].label(), found.label(),
                roleName(static_cast<TensorRole>(r + 1)), nameOf(key), planes[i].head));
          }
          if (extentOf(planes[i].source, true) != extentOf(planes[0].source, true) ||
              extentOf(planes[i].source, false) != extentOf(planes[0].source, false)) {
            throw Error(ErrorCode::Format, fmt::format("{}: heads of {} differ in shape", found.label(), nameOf(key)));
          }
        }
      }
      PlannedCall call;
      CallHeader& header = call.header;
      header.id.layer = key.layer;
      header.id.branch = key.branch;
      header.id.kind = key.kind;
      header.id.call = key.call;
      header.id.step = key.step.value_or(-1);
      header.timestep = key.timestep.value_or(0);
      header.component = m_options.component.empty() ? "transformer" : m_options.component;
      header.nQ = extentOf(roles[0][0].source, true);
      header.nK = extentOf(roles[1][0].source, true);
      header.headDim = extentOf(roles[0][0].source, false);
      const std::string where = m_survey.tensors[roles[0][0].source.tensor].label();
      if (extentOf(roles[1][0].source, false) != header.headDim) {
        throw Error(ErrorCode::Format, fmt::format("{}: queries of {} have {} channels, its keys {}", where,
                                                   nameOf(key), header.headDim, extentOf(roles[1][0].source, false)));
      }
      takeBeside(key, together, call, where);
      header.kvHeads = static_cast<int>(roles[1].size());
      if (roles[0].size() % roles[1].size() != 0 || (!roles[2].empty() && roles[2].size() != roles[1].size())) {
        throw Error(ErrorCode::Format, fmt::format("{}: {} has {} query, {} key and {} value heads", where, nameOf(key),
                                                   roles[0].size(), roles[1].size(), roles[2].size()));
      }
      if (!roles[2].empty()) {
        header.valueDim = extentOf(roles[2][0].source, false);
        if (extentOf(roles[2][0].source, true) != header.nK) {
          throw Error(ErrorCode::Format, fmt::format("{}: {} has {} keys and {} values", where, nameOf(key), header.nK,
                                                     extentOf(roles[2][0].source, true)));
        }
      }
      for (const HeadPlane& plane : roles[0]) header.heads.push_back(plane.head);
      for (std::size_t i = 0; i < roles[1].size(); ++i) {
        const bool same = roles[1].size() != roles[0].size() || roles[1][i].head == roles[0][i].head;
        const bool sameV = roles[2].empty() || roles[2][i].head == roles[1][i].head;
        if (!same || !sameV) {
          throw Error(ErrorCode::Format,
                      fmt::format("{}: {} has other heads for queries than for keys or values", where, nameOf(key)));
        }
      }
      const auto sources = [](std::vector<HeadPlane>& planes) {
        std::vector<PlaneSource> out;
        for (HeadPlane& plane : planes) out.push_back(std::move(plane.source));
        return out;
      };
      call.q = sources(roles[0]);
      call.k = sources(roles[1]);
      call.v = sources(roles[2]);
      checkMemory(header, where);
      m_plan.calls.push_back(std::move(call));
    }
    if (m_plan.calls.empty()) {
      invalid(fmt::format(
          "{}: no attention call is whole ({}); queries and keys are needed. Check --map, or import the folder that "
          "holds them all",
          m_survey.source.string(), example));
    }
    if (incomplete > 0)
      warn(fmt::format("{} calls are left out because queries or keys are missing (the first: {})", incomplete,
                       example));
    for (const auto& [tensor, place, used] : m_beside) {
      if (!used) warn(fmt::format("{} belongs to no call and is not used", m_survey.tensors[tensor].label()));
    }
    const auto whole = std::find_if(m_plan.calls.begin(), m_plan.calls.end(),
                                    [](const PlannedCall& call) { return call.header.id.kind != "cross"; });
    if (whole != m_plan.calls.end()) {
      tokens = whole->header.nK;
    } else {  // cross-attention alone: its queries are the tokens
      const CallHeader& first = m_plan.calls.front().header;
      tokens = m_plan.calls.front().rows ? std::max(first.nQ, knownTokens()) : first.nQ;
    }
    headDim = static_cast<int>(m_plan.calls.front().header.headDim);
    for (const PlannedCall& call : m_plan.calls) heads = std::max(heads, call.header.heads.back() + 1);
  }

  /// What comes beside queries and keys: which rows are there, which keys count.
  void takeBeside(const Key& key, const Roles& roles, PlannedCall& call, const std::string& where) {
    const CallHeader& header = call.header;
    const bool cross = key.kind == "cross";
    const Index nQ = header.nQ, nK = header.nK;
    if (cross || nQ != nK) {
      Beside* rows = besideOf(key, TensorRole::QueryRows);
      if (cross && rows != nullptr && rows->place.kind.empty() && !isRunOf(m_survey.tensors[rows->tensor], nQ))
        rows = nullptr;  // of the self-attention beside it
      if (rows != nullptr) {
        const FoundTensor& found = m_survey.tensors[rows->tensor];
        if (found.wholeBytes == 0 || !isRunOf(found, nQ)) {
          throw Error(ErrorCode::Format,
                      fmt::format("{} is {} {}; the rows of {} are whole numbers, [{}]", found.label(),
                                  import::printable(found.dtype), shapeText(found.shape), nameOf(key), nQ));
        }
        rows->used = true;
        call.rows = planeOf(*rows, {}, found.shape.size(), runAxis(found, nQ));
      }
    }
    if (!cross && nQ != nK && !call.rows) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: {} has {} queries and {} keys. If these are some of the tokens' queries, save which "
                              "ones beside them, as q_rows (whole numbers from 0, rising, [{}]), or name them: --map "
                              "rows=NAME; if this is cross-attention, say --kind cross",
                              where, nameOf(key), nQ, nK, nQ));
    }
    if (!cross && nQ > nK) {
      throw Error(ErrorCode::Format, fmt::format("{}: {} has {} queries, more than its {} keys; check --axes and --map",
                                                 where, nameOf(key), nQ, nK));
    }
    if (Beside* valid = besideOf(key, TensorRole::KeyValid)) takeMask(key, roles, call, *valid);
    if (Beside* mask = besideOf(key, TensorRole::Mask); mask != nullptr && !call.keyValid)
      takeMask(key, roles, call, *mask);
  }

  /// The tensor of this role that says most about the call; nullptr: none.
  Beside* besideOf(const Key& key, TensorRole role) {
    Beside* best = nullptr;
    int most = -1;
    bool tie = false;
    for (Beside& each : m_beside) {
      const TensorPlace& p = each.place;
      if (p.role != role) continue;
      const auto fits = [](const auto& said, const auto& own) { return !said || (own && *said == *own); };
      // What names no kind belongs to self-attention, but rows may be shared.
      const bool kindDiffers =
          m_options.kind.empty() &&
          (p.kind.empty() ? key.kind == "cross" && role != TensorRole::QueryRows : p.kind != key.kind);
      if (!fits(p.step, key.step) || (!p.step && !fits(p.timestep, key.timestep)) || kindDiffers ||
          (p.layer && *p.layer != key.layer) || (!p.branch.empty() && p.branch != key.branch) ||
          (p.call && *p.call != key.call)) {
        continue;
      }
      const int score = (p.step || p.timestep ? 1 : 0) + (p.layer ? 1 : 0) + (p.branch.empty() ? 0 : 1) +
                        (p.kind.empty() ? 0 : 1) + (p.call ? 1 : 0);
      tie = tie || score == most;
      if (score > most) {
        best = &each;
        most = score;
        tie = false;
      }
    }
    if (tie) {
      invalid(fmt::format("{}: two tensors could be the {} of {}; name one: --map {}=NAME",
                          m_survey.tensors[best->tensor].label(),
                          role == TensorRole::QueryRows  ? "query rows"
                          : role == TensorRole::KeyValid ? "valid keys"
                                                         : "mask",
                          nameOf(key),
                          role == TensorRole::QueryRows  ? "rows"
                          : role == TensorRole::KeyValid ? "valid"
                                                         : "mask"));
    }
    return best;
  }

  static bool isRunOf(const FoundTensor& found, Index count) {
    Index all = 1;
    for (const Index extent : found.shape) {
      if (extent != 1 && extent != count) return false;
      all = all > count ? all : all * extent;
    }
    return !found.shape.empty() && all == count;
  }
  static std::size_t runAxis(const FoundTensor& found, Index count) {
    const auto at = std::find(found.shape.begin(), found.shape.end(), count);
    return static_cast<std::size_t>(at - found.shape.begin());
  }
  [[nodiscard]] PlaneSource planeOf(const Beside& beside, std::vector<Index> index, std::size_t rowAxis,
                                    std::size_t columnAxis) const {
    const FoundTensor& found = m_survey.tensors[beside.tensor];
    index.resize(found.shape.size(), 0);
    return {beside.tensor, found.type.value_or(SourceType::F32), std::move(index), rowAxis, columnAxis};
  }

  /// [keys], [queries | 1, keys], [batch | 1, ...] of these, or [batch | 1, 1, queries | 1, keys].
  void takeMask(const Key& key, const Roles& roles, PlannedCall& call, Beside& beside) {
    const FoundTensor& found = m_survey.tensors[beside.tensor];
    const std::vector<Index>& shape = found.shape;
    const Index nQ = call.header.nQ, nK = call.header.nK;
    const auto refuse = [&](const std::string& why) {
      throw Error(
          ErrorCode::Unsupported,
          fmt::format("{} {}: {}; {} has {} queries and {} keys. A trace holds which keys count, [{}], or which "
                      "count for each query, [{}, {}], the same for all heads; leave it out with --map mask=none",
                      found.label(), shapeText(shape), why, nameOf(key), nQ, nK, nK, nQ, nK));
    };
    if (beside.place.role == TensorRole::KeyValid ? found.wholeBytes == 0 : !found.type && found.wholeBytes == 0)
      refuse(fmt::format("its type {} says no yes or no", found.dtype));
    if (shape.empty() || shape.size() > 4 || shape.back() != nK) refuse("its last axis is not the keys'");
    const std::size_t last = shape.size() - 1;
    std::vector<Index> index(shape.size(), 0);
    bool perQuery = false;
    std::size_t lead = last;  // axes before it: batch, then heads
    if (last >= 1) {
      const Index before = shape[last - 1];
      const bool entries = last == 1 && before == roles.batches && before > 1 && before != nQ;
      if (!entries) {
        if (before != 1 && before != nQ) refuse("the axis before the last is not the queries'");
        perQuery = before == nQ && nQ > 1;
        lead = last - 1;
      }
    }
    if (lead == 2 && shape[1] != 1) refuse("it differs between heads");
    if (lead >= 1 && shape[0] != 1) {
      if (shape[0] != roles.batches) refuse("its first axis is not the batch's");
      index[0] = roles.batch;
    }
    beside.used = true;
    if (perQuery)
      call.mask = planeOf(beside, std::move(index), last - 1, last);
    else
      call.keyValid = planeOf(beside, std::move(index), shape.size(), last);
  }

  void checkMemory(const CallHeader& header, const std::string& where) const {
    const Index limit = m_options.memoryLimitBytes > 0 ? m_options.memoryLimitBytes : kMemoryLimit;
    // Three planes in the source's type, at most 8 bytes per element.
    const double bytes = 8.0 * (static_cast<double>(header.nQ) * static_cast<double>(header.headDim) +
                                static_cast<double>(header.nK) * static_cast<double>(header.headDim + header.valueDim));
    if (bytes > static_cast<double>(limit)) {
      throw Error(ErrorCode::OutOfMemory,
                  fmt::format("{}: one head needs {:.1f} GiB, more than the limit of {:.1f} GiB; check "
                              "--axes, or raise --memory-limit",
                              where, bytes / 0x1p30, static_cast<double>(limit) / 0x1p30));
    }
  }

  /// Grid and text range.
  void layOut() {
    std::array<int, 3> grid{};
    const auto fileGrid = gridFact(m_survey);
    std::optional<Index> text = m_options.text;
    if (!text) {
      if (const auto fact = wholeFact(m_survey, "text_len")) text = *fact;
    }
    std::optional<bool> first = m_options.textFirst;
    if (!first) {
      if (const auto start = wholeFact(m_survey, "text_start"); start && text.value_or(0) > 0) first = *start == 0;
    }
    if (m_options.grid) {
      grid = *m_options.grid;
      if (std::any_of(grid.begin(), grid.end(), [](int n) { return n < 1 || n > 1'000'000; })) {
        invalid(fmt::format("--grid {},{},{}: frames, rows and columns of tokens, each at least 1", grid[0], grid[1],
                            grid[2]));
      }
    } else if (fileGrid) {
      grid = *fileGrid;
    } else if (m_preset != nullptr) {
      grid = presetGrid(text);
    } else {
      invalid(fmt::format("{}: how do the {} tokens of a call lie? {}", m_survey.source.string(), tokens, proposals()));
    }
    if (m_preset != nullptr) {
      if (!text && !m_preset->textVaries) text = m_preset->text;
      if (!first) first = m_preset->textFirst;
    }
    const Index video = volume(grid);
    if (!text) {
      text = tokens - video;
      if (*text > 0) assume(fmt::format("the {} tokens beyond the video's {} are text", *text, video));
    }
    if (*text < 0 || video + *text != tokens) {
      invalid(fmt::format("{}: a call has {} tokens, but the grid {} x {} x {} has {}{}. {}", m_survey.source.string(),
                          tokens, grid[0], grid[1], grid[2], video,
                          *text > 0 ? fmt::format(", with {} of text {}", *text, video + *text) : std::string(),
                          proposals()));
    }
    if (*text > 0 && !first) {
      first = false;
      assume("text comes after the video (--text-first if before)");
    }
    m_text = *text;
    const auto layoutOf = [&](Index textLength) {
      TokenLayout layout;
      layout.tokenCount = video + textLength;
      Segment videoSegment{SegmentKind::Video, 0, video, grid[0], grid[1], grid[2]};
      Segment textSegment{SegmentKind::Text, video, textLength, 0, 0, 0};
      if (first.value_or(false) && textLength > 0) {
        textSegment.start = 0;
        videoSegment.start = textLength;
        layout.segments = {textSegment, videoSegment};
      } else {
        layout.segments = {videoSegment};
        if (textLength > 0) layout.segments.push_back(textSegment);
      }
      return layout;
    };
    m_plan.header.layout = layoutOf(m_text);
    for (PlannedCall& call : m_plan.calls) {
      const bool cross = call.header.id.kind == "cross";
      if (cross && !call.rows && call.header.nQ != tokens) {
        throw Error(ErrorCode::Format,
                    fmt::format("{}: cross-attention of layer {} has {} queries, a call has {} tokens; import its size "
                                "alone, or save which tokens they are beside them as q_rows",
                                m_survey.source.string(), call.header.id.layer, call.header.nQ, tokens));
      }
      if (cross || call.header.nK == tokens) continue;
      const Index rest = call.header.nK - video;
      if (m_text == 0 || rest < 0) {
        throw Error(ErrorCode::Format,
                    fmt::format("{}: layer {} has {} tokens, others {}; import calls of one size at a time",
                                m_survey.source.string(), call.header.id.layer, call.header.nK, tokens));
      }
      call.header.layout = layoutOf(rest);
    }
  }

  [[nodiscard]] std::string proposals() const {
    const std::vector<GridProposal> found = proposeGrids(tokens, heads, headDim, 5);
    if (found.empty())
      return fmt::format("Say --grid T,H,W (frames, rows, columns of tokens) and --text N; {} has no shape of a video",
                         tokens);
    std::string text = "Say ";
    for (std::size_t i = 0; i < found.size(); ++i) {
      const GridProposal& p = found[i];
      if (i > 0) text += ", or ";
      if (!p.preset.empty()) {
        text += fmt::format("--preset {}", p.preset);
      } else {
        text += fmt::format("--grid {},{},{}", p.grid[0], p.grid[1], p.grid[2]);
        if (p.text > 0) text += fmt::format(" --text {}{}", p.text, p.textFirst ? " --text-first" : "");
      }
    }
    return text;
  }

  /// The preset's grid, or with another number of frames.
  std::array<int, 3> presetGrid(const std::optional<Index>& text) {
    std::array<int, 3> grid = m_preset->grid;
    const Index area = Index{grid[1]} * grid[2];
    if (m_preset->textVaries && !text) {
      const Index rest = tokens - volume(grid);
      if (rest >= 0 && rest <= m_preset->text) return grid;
    } else {
      const Index video = tokens - text.value_or(m_preset->text);
      if (video == volume(grid)) return grid;
      if (video > 0 && video % area == 0 && video / area <= 1000) {
        grid[0] = static_cast<int>(video / area);
        assume(fmt::format("{} frames of tokens, since {} tokens are no {} of {}", grid[0], tokens, m_preset->grid[0],
                           m_preset->key));
        return grid;
      }
    }
    invalid(fmt::format("{}: a call has {} tokens, which do not fit {} ({} x {} x {}{}). {}", m_survey.source.string(),
                        tokens, m_preset->key, m_preset->grid[0], m_preset->grid[1], m_preset->grid[2],
                        m_preset->text > 0
                            ? fmt::format(" and {}{} of text", m_preset->textVaries ? "up to " : "", m_preset->text)
                            : "",
                        proposals()));
  }

  /// Model, run, and what each call lacks.
  void describe() {
    TraceHeader& header = m_plan.header;
    int layers = 0, most = 0;
    for (const PlannedCall& call : m_plan.calls) {
      layers = std::max(layers, call.header.id.layer + 1);
      most = std::max(most, call.header.heads.back() + 1);
      if (m_preset != nullptr && (call.header.headDim != m_preset->headDim)) {
        invalid(fmt::format("{}: heads have {} channels, those of {} {}; choose another preset, or none and --grid",
                            m_survey.source.string(), call.header.headDim, m_preset->key, m_preset->headDim));
      }
    }
    if (m_preset != nullptr && (layers > m_preset->layers || most > m_preset->heads)) {
      invalid(fmt::format(
          "{}: holds layer {} and head {}, but {} has {} layers of {} heads; choose another preset, or "
          "none and --grid",
          m_survey.source.string(), layers - 1, most - 1, m_preset->key, m_preset->layers, m_preset->heads));
    }
    ModelInfo& model = header.model;
    model.family = !m_options.family.empty() ? m_options.family
                   : m_preset != nullptr     ? std::string(m_preset->family)
                                             : factOf(m_survey, "family").value_or("unknown");
    if (m_preset != nullptr) {
      model.className = m_preset->className;
      model.rope = m_preset->rope;
      header.patchSize = m_preset->patch;
      header.vaeStride = m_preset->vae;
      assume(fmt::format("layers, heads and schedule length of {} ({})", m_preset->key, m_preset->title));
    }
    model.attention = m_text > 0 ? "joint" : "self";
    model.headDim = headDim;
    const auto count = [&](const char* fact, int preset, int seen, const char* what) {
      if (const auto said = wholeFact(m_survey, fact); said && *said >= seen) return *said;
      if (preset > 0) return preset;
      assume(fmt::format("the model has {} {}{}, as many as the file shows", seen, what, seen == 1 ? "" : "s"));
      return seen;
    };
    model.numLayers = count("num_layers", m_preset != nullptr ? m_preset->layers : 0, layers, "layer");
    model.numHeads = count("num_heads", m_preset != nullptr ? m_preset->heads : 0, most, "head");
    model.numKvHeads = std::max(1, model.numHeads * m_plan.calls.front().header.kvHeads /
                                       static_cast<int>(m_plan.calls.front().header.heads.size()));
    nameSteps();
    nameBranches();
    double scale = 0;
    if (m_options.scale) {
      scale = *m_options.scale;
      if (!(scale > 0) || !std::isfinite(scale)) invalid(fmt::format("--scale {}: a factor above 0 on q k^T", scale));
    } else if (const auto said = realFact(m_survey, "scale"); said && *said > 0) {
      scale = *said;
    }
    if (m_noLayer) assume("layer 0, since names do not say the layer (--layer N)");
    bool assumedScale = false;
    for (PlannedCall& call : m_plan.calls) {
      CallHeader& h = call.header;
      h.scale = scale > 0 ? scale : 1 / std::sqrt(static_cast<double>(h.headDim));
      assumedScale = assumedScale || scale <= 0;
      if (h.id.kind.empty()) h.id.kind = m_text > 0 ? "joint" : "self";
    }
    if (assumedScale) assume(fmt::format("scores are scaled by 1/sqrt({})", headDim));
    assume("queries and keys are those that attention saw (after norm and rotary embedding)");
  }

  void nameSteps() {
    std::set<double, std::greater<>> timesteps;
    int last = -1;
    for (const PlannedCall& call : m_plan.calls) {
      if (call.header.id.step < 0)
        timesteps.insert(call.header.timestep);
      else
        last = std::max(last, call.header.id.step);
    }
    RunInfo& run = m_plan.header.run;
    run.timesteps = m_options.timesteps;
    if (!timesteps.empty() && last >= 0) {
      invalid(fmt::format("{}: some tensors name their step and others their timestep; import them apart",
                          m_survey.source.string()));
    }
    std::map<double, int> stepOf;
    if (!timesteps.empty() && !m_options.timesteps.empty()) {
      for (const double t : timesteps) {
        const auto nearest = std::min_element(m_options.timesteps.begin(), m_options.timesteps.end(),
                                              [&](double a, double b) { return std::abs(a - t) < std::abs(b - t); });
        if (std::abs(*nearest - t) > 1)
          invalid(fmt::format("--timesteps holds nothing near {:g}, which the file names", t));
        stepOf[t] = static_cast<int>(nearest - m_options.timesteps.begin());
      }
    } else if (timesteps.size() == 1 && m_options.step) {
      stepOf[*timesteps.begin()] = *m_options.step;
    } else if (!timesteps.empty()) {
      int next = 0;
      std::string list;
      for (const double t : timesteps) {
        if (next < 6) list += fmt::format("{}{:g} = step {}", next == 0 ? "" : ", ", t, next);
        stepOf[t] = next++;
      }
      assume(fmt::format("steps are numbered in the order of their timesteps: {}{} (--timesteps gives the schedule)",
                         list, next > 6 ? ", ..." : ""));
    }
    for (PlannedCall& call : m_plan.calls) {
      CallHeader& h = call.header;
      if (h.id.step < 0)
        h.id.step = stepOf.at(h.timestep);
      else if (!m_options.timesteps.empty() && h.id.step < static_cast<int>(m_options.timesteps.size()))
        h.timestep = m_options.timesteps[static_cast<std::size_t>(h.id.step)];
      last = std::max(last, h.id.step);
    }
    if (m_noStep) assume("step 0, since names do not say the step (--step N)");
    int steps = m_options.steps.value_or(0);
    if (steps == 0) steps = static_cast<int>(m_options.timesteps.size());
    if (steps == 0) steps = wholeFact(m_survey, "num_inference_steps").value_or(0);
    if (steps == 0 && m_preset != nullptr) steps = m_preset->steps;
    if (steps > 0 && last >= steps) {
      invalid(
          fmt::format("{}: holds step index {}, but the run has {} steps; say --steps N, or, where names hold "
                      "timesteps, --map q=step{{timestep}}/... and so on",
                      m_survey.source.string(), last, steps));
    }
    run.numInferenceSteps = steps;
  }

  void nameBranches() {
    const bool dumped = std::any_of(m_plan.calls.begin(), m_plan.calls.end(),
                                    [](const PlannedCall& c) { return c.header.timestep > 0; }) &&
                        std::find(m_survey.formats.begin(), m_survey.formats.end(), "torch") != m_survey.formats.end();
    std::set<CallId> seen;
    for (PlannedCall& call : m_plan.calls) {
      std::string& branch = call.header.id.branch;
      if (branch.empty() && m_options.branches.size() == 1) branch = m_options.branches.front();
      if (branch.empty() && dumped && (m_preset != nullptr ? m_preset->twoPasses : m_text == 0)) {
        branch = "uncond";
        assume(
            "branch uncond: SVG and SVOO write both passes of a step to one file, and the unconditional one comes last "
            "(--branch cond if the run had no guidance)");
      }
      if (branch.empty()) {
        branch = "cond";
        assume("branch cond, since names do not say it (--branch NAME)");
      }
      const std::string& kind = call.header.id.kind;
      if (branch.find('/') != std::string::npos || kind.find('/') != std::string::npos) {
        invalid(fmt::format("branch '{}' and kind '{}' are names without '/'", branch, kind));
      }
      if (!seen.insert(call.header.id).second) {
        invalid(fmt::format("{}: two calls are step {}, layer {}, {}; import them apart, or tell them apart with --map",
                            m_survey.source.string(), call.header.id.step, call.header.id.layer, branch));
      }
    }
  }

  void finish() {
    std::set<SourceType> types;
    for (const Chosen& chosen : m_chosen) types.insert(chosen.type);
    DType dtype = types.size() == 1 && types.count(SourceType::F16) == 1    ? DType::F16
                  : types.size() == 1 && types.count(SourceType::BF16) == 1 ? DType::BF16
                                                                            : DType::F32;
    if (m_options.dtype) {
      dtype = *m_options.dtype;
    } else if (types.count(SourceType::F64) == 1) {
      warn("float64 is rounded to float32, the widest type of a trace");
    }
    m_plan.options.dtype = dtype;
    m_plan.options.deflate = m_options.deflate;
    m_plan.memoryLimitBytes = m_options.memoryLimitBytes > 0 ? m_options.memoryLimitBytes : kMemoryLimit;
    std::sort(m_plan.calls.begin(), m_plan.calls.end(),
              [](const PlannedCall& a, const PlannedCall& b) { return a.header.id < b.header.id; });
    for (const PlannedCall& call : m_plan.calls) {
      const CallHeader& h = call.header;
      m_plan.bytes +=
          (static_cast<double>(h.heads.size()) * static_cast<double>(h.nQ * h.headDim) +
           static_cast<double>(h.kvHeads) * static_cast<double>(h.nK) * static_cast<double>(h.headDim + h.valueDim)) *
          static_cast<double>(itemSize(dtype));
    }
    m_plan.header.run.computeDtype = types.size() == 1 ? sourceTypeName(*types.begin()) : "";
    m_plan.header.writer = "sparsight " SPARSIGHT_VERSION;
    nlohmann::ordered_json record;
    record["source"] =
        (m_survey.source.has_filename() ? m_survey.source : m_survey.source.parent_path()).filename().string();
    record["formats"] = m_survey.formats;
    record["assumed"] = m_plan.assumed;
    std::vector<std::string> warnings = m_survey.warnings;
    warnings.insert(warnings.end(), m_plan.warnings.begin(), m_plan.warnings.end());
    record["warnings"] = warnings;
    m_plan.header.software = nlohmann::ordered_json{{"import", record}}.dump(
        -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  struct Chosen {
    std::size_t tensor;
    TensorPlace place;
    SourceType type;
  };
  const Survey& m_survey;
  const ImportOptions& m_options;
  const ImportPreset* m_preset = nullptr;
  std::vector<Chosen> m_chosen;
  std::map<Key, Roles> m_calls;
  ImportPlan m_plan;
  std::vector<Beside> m_beside;
  std::size_t m_planes = 0;
  Index m_text = 0, m_keyHeads = 0;
  bool m_noStep = false, m_noLayer = false;
};

}  // namespace

TensorPlace placeOf(const FoundTensor& found, const ImportOptions& options) {
  const auto& patterns = options.patterns;
  TensorPlace place = found.place;
  for (std::size_t r = 0; r < patterns.size(); ++r) {
    if (patterns[r].empty()) continue;
    auto fit = placeFromPattern(patterns[r], found.name);
    if (!fit) {
      fit = placeFromPattern(patterns[r], found.file.generic_string() + (found.name.empty() ? "" : "/" + found.name));
    }
    if (!fit) continue;
    TensorPlace& said = *fit;  // what the pattern leaves open, the names may say
    if (!said.step && !said.timestep) {
      said.step = place.step;
      said.timestep = place.timestep;
    }
    if (!said.layer) {
      said.layer = place.layer;
      said.stack = place.stack;
    }
    if (!said.head) said.head = place.head;
    if (!said.call) said.call = place.call;
    if (said.branch.empty()) said.branch = place.branch;
    if (said.kind.empty()) said.kind = place.kind;
    said.role = static_cast<TensorRole>(r + 1);
    return said;
  }
  // Names hold for what no pattern is said of.
  const bool ruled = isInput(place.role) ? inputsAreMapped(options)
                                         : place.role != TensorRole::None &&
                                               !patterns[static_cast<std::size_t>(place.role) - 1].empty();
  if (ruled) place.role = TensorRole::None;
  return place;
}

ImportPlan planImport(const Survey& survey, const ImportOptions& options) { return Planner(survey, options).plan(); }

ImportDraft draftImport(const Survey& survey, const ImportOptions& options) {
  ImportDraft draft;
  Planner planner(survey, options);
  try {
    draft.plan = planner.plan();
  } catch (const Error& error) {
    draft.problem = error.what();
  }
  try {
    for (std::size_t i = 0; i < std::min(kMostPlaces, survey.tensors.size()); ++i)
      draft.places.push_back(placeOf(survey.tensors[i], options));
  } catch (const Error&) {
    draft.places.clear();  // the same as the problem above
  }
  draft.tokens = planner.tokens;
  draft.heads = planner.heads;
  draft.headDim = planner.headDim;
  draft.grids = proposeGrids(draft.tokens, draft.heads, draft.headDim, 12);
  return draft;
}

std::optional<ImportRecord> importRecord(const TraceInfo& trace) {
  const auto json = nlohmann::json::parse(trace.software, nullptr, false);
  if (!json.is_object() || !json.contains("import") || !json["import"].is_object()) return std::nullopt;
  const nlohmann::json& record = json["import"];
  const auto lines = [&](const char* name) {
    std::vector<std::string> out;
    if (record.contains(name) && record[name].is_array()) {
      for (const auto& line : record[name]) {
        if (line.is_string()) out.push_back(line.get<std::string>());
      }
    }
    return out;
  };
  ImportRecord out;
  if (record.contains("source") && record["source"].is_string()) out.source = record["source"].get<std::string>();
  out.formats = lines("formats");
  out.assumed = lines("assumed");
  out.warnings = lines("warnings");
  return out;
}

}  // namespace sparsight
