// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sparsight/core/plan.h"
#include "sparsight/core/trace.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

enum class ParamType : std::uint8_t { Int, Real, Bool, Choice, Text, IntList };
/// One parameter: the GUI form, CLI flags, JSON keys and docs are made from it.
struct ParamSpec {
  std::string name;                  ///< stable key, e.g. "num_sampled_rows"
  std::vector<std::string> aliases;  ///< e.g. "kept"
  ParamType type = ParamType::Real;
  std::string defaultValue;         ///< as text, the form the CLI takes
  std::string unit;                 ///< "", "rows", "fraction", ...
  double minimum = 0, maximum = 0;  ///< numeric types; inclusive
  std::vector<std::string> choices;
  std::string meaning;   ///< one or two sentences, with the published meaning
  std::string source;    ///< paper equation or reference file
  bool perHead = false;  ///< a list "a,b,..." gives one value per selected head
  /// A further name whose value is 1 - this parameter: AdaSpa's `sparsity` is the removed fraction, `kept` the rest.
  std::string complement = {};

  // Read by the docs, the form and the command line as they are written here: name, default, range, unit, meaning,
  // source.
  static ParamSpec integer(std::string name, std::string defaultValue, double minimum, double maximum, std::string unit,
                           std::string meaning, std::string source);
  static ParamSpec real(std::string name, std::string defaultValue, double minimum, double maximum, std::string unit,
                        std::string meaning, std::string source);
  static ParamSpec choice(std::string name, std::string defaultValue, std::vector<std::string> choices,
                          std::string meaning, std::string source);
  static ParamSpec boolean(std::string name, std::string defaultValue, std::string meaning, std::string source);
  static ParamSpec integers(std::string name, std::string defaultValue, double minimum, double maximum,
                            std::string unit, std::string meaning, std::string source);
  static ParamSpec freeText(std::string name, std::string defaultValue, std::string unit, std::string meaning,
                            std::string source);
  [[nodiscard]] ParamSpec withAliases(std::vector<std::string> names) &&;
  [[nodiscard]] ParamSpec withComplement(std::string name) &&;
  [[nodiscard]] ParamSpec orWords(std::vector<std::string> words) &&;  ///< taken beside numbers: "none"
  [[nodiscard]] ParamSpec listedPerHead() &&;                          ///< perHead = true
};

/// Parameter values as text by canonical name. parse checks types, ranges, choices and names.
class ParamSet {
 public:
  ParamSet() = default;
  /// assignments "k=v". Throws Error{InvalidArgument} naming parameter, range and value.
  static ParamSet parse(std::span<const ParamSpec> specs, const std::vector<std::string>& assignments);
  void set(std::string_view name, std::string value) { m_values[std::string(name)] = std::move(value); }
  [[nodiscard]] bool has(std::string_view name) const;          ///< given explicitly
  [[nodiscard]] std::string text(std::string_view name) const;  ///< given or default
  [[nodiscard]] double real(std::string_view name, std::size_t headIndex = 0) const;
  [[nodiscard]] Index integer(std::string_view name, std::size_t headIndex = 0) const;
  [[nodiscard]] bool flag(std::string_view name) const;
  [[nodiscard]] std::vector<Index> integers(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& values() const noexcept { return m_values; }
  void setDefaults(std::map<std::string, std::string, std::less<>> defaults) { m_defaults = std::move(defaults); }
  friend bool operator==(const ParamSet&, const ParamSet&) = default;

 private:
  std::map<std::string, std::string, std::less<>> m_values, m_defaults;
};

/// Whose mask and warm-up rules hold (svg/models/{wan,hyvideo,cog}): they differ in rounding, sinks and text.
enum class ModelRule : std::uint8_t { Wan, Hunyuan, CogVideoX };
[[nodiscard]] std::string_view modelRuleName(ModelRule rule) noexcept;  ///< "wan", "hunyuan", "cogvideox"
/// `asked` = wan | hunyuan | cogvideox | auto. auto goes by family (wan*, cosmos*, ltx* -> wan; hunyuan* -> hunyuan;
/// cogvideox*, easyanimate* -> cogvideox), else by the text: none -> wan, last -> hunyuan, first -> cogvideox.
[[nodiscard]] ModelRule resolveModelRule(std::string_view asked, std::string_view family, const TokenLayout& layout);

/// Cosmos has Wan's masks, but its own script values and timestep unit.
[[nodiscard]] bool isCosmosFamily(std::string_view family);

/// Parameters every method has: variant, model_rule, first_times_fp, first_layers_fp. Put in front of a method's own.
/// `variants` are those between which the method differs; the first is the default.
[[nodiscard]] std::vector<ParamSpec> withCommonParams(std::vector<ParamSpec> own,
                                                      std::vector<std::string> variants = {"reference", "sparsevideo"});

/// The input of a head as computed on: with includePadding the validity flags are dropped (a dense mask stays).
[[nodiscard]] AttentionIn effectiveInput(const HeadData& head, bool includePadding);

/// Random draws given from outside (--draws): reproducible against other implementations.
struct Draws {
  std::vector<Index> sampledRows;                ///< [n]
  std::vector<std::vector<Index>> initQ, initK;  ///< [H][K]; H = selected heads, or all heads of the model
};

class Profile;
struct Stage;
/// Takes the stages of a decision in their order (stages.h).
using StageSink = std::function<void(Stage)>;

/// One head to plan, with its place in the run.
struct MethodInput {
  const HeadData& head;
  const PreparedHead& prepared;
  const ParamSet& params;
  std::uint64_t seed = 0;
  std::size_t headIndex = 0;        ///< position within the selected heads (per-head parameters, draws)
  int stepOrdinal = 0;              ///< position of this step within the captured steps of the run
  int numSteps = 0, numLayers = 0;  ///< of the model's schedule (0 = unknown)
  std::vector<double> timesteps;    ///< full schedule; may be empty
  const Draws* draws = nullptr;
  bool includePadding = false;
  const Profile* profile = nullptr;   ///< read by the run from the parameter sparsity_csv_path; null: none
  std::size_t selectedHeads = 1;      ///< of this call
  int numHeads = 0;                   ///< of the model (0 = unknown)
  bool dense = false;                 ///< warm-up is on and keeps this call dense: only survey and observeDense see it
  const StageSink* stages = nullptr;  ///< plan() and survey() tell it how they decide; nullptr: nobody watches
};

/// What a method carries from step to step within one (branch, layer), or within one layer for all branches: centroids,
/// LSE, masks.
class MethodState {
 public:
  virtual ~MethodState() = default;
};

/// Which steps and layers warm-up makes dense, resolved to numbers.
struct WarmupGate {
  int denseSteps = 0, denseLayers = 0;  ///< steps [0, denseSteps) and layers [0, denseLayers) are dense
  std::string text;                     ///< "steps 0-9 of 50 dense, layer 0 of 40 dense"
  [[nodiscard]] bool dense(int step, int layer) const noexcept { return step < denseSteps || layer < denseLayers; }
};

/// "steps 0-9 of 50 dense, layer 0 of 40 dense"; a total of 0 is unknown.
[[nodiscard]] std::string warmupText(int denseSteps, int steps, int denseLayers, int layers);

/// A method plans; backends execute. const, one static instance per file in core/methods.
class Method {
 public:
  virtual ~Method() = default;
  [[nodiscard]] virtual std::string_view id() const noexcept = 0;       ///< stable, goes into files
  [[nodiscard]] virtual std::string_view title() const noexcept = 0;    ///< for people: "SVG"
  [[nodiscard]] virtual std::string_view summary() const noexcept = 0;  ///< one line
  [[nodiscard]] virtual std::span<const ParamSpec> params() const noexcept = 0;
  /// Defaults for this trace (family), by name; merged under the user's values. The base class gives the warm-up
  /// fractions of the launch scripts; overrides start from its result.
  [[nodiscard]] virtual std::map<std::string, std::string, std::less<>> defaultsFor(const TraceInfo& trace,
                                                                                    const ParamSet& given) const;
  /// Dense warm-up resolved to step and layer numbers. reference: steps [0, floor(fraction * steps)) and those whose
  /// timestep still lies above the threshold made from it, layers [0, floor(fraction * layers)); CogVideoX: the raw
  /// timestep rule t > 1000 (1 - fraction) and layer < layers * fraction; sparsevideo: at least one layer when the
  /// fraction is above 0. Source: *_inference.py of Sparse-VideoGen, _warmup of SparseVideo.
  [[nodiscard]] virtual WarmupGate warmup(const TraceInfo& trace, const ParamSet& params) const;
  /// Parameters as used where the call or the draws decide them (clamped cluster counts, counts that follow the
  /// draws), by name; the rest stays as given.
  [[nodiscard]] virtual std::map<std::string, std::string, std::less<>> adjusted(const TokenLayout& layout,
                                                                                 const ParamSet& params,
                                                                                 const Draws* draws) const;
  [[nodiscard]] virtual std::unique_ptr<MethodState> newState() const { return nullptr; }
  /// True: one state per layer; the run then walks the branches of a step one after the other.
  [[nodiscard]] virtual bool sharesBranches(const ParamSet&) const { return false; }
  /// True: before the first plan of a call, survey() sees every captured head of it, selected or not, because a head's
  /// plan depends on the others (AdaSpa's levels).
  [[nodiscard]] virtual bool surveys(const ParamSet&) const { return false; }
  virtual void survey(const MethodInput&, MethodState*, Backend&, const Control&) const {}
  /// A head that the warm-up gate made dense: a chance to keep what later steps start from (centroids, LSE).
  virtual void observeDense(const MethodInput&, MethodState*, Backend&, const Control&) const {}
  /// True: planAhead() gains something where the backend works on several heads at once.
  [[nodiscard]] virtual bool plansAhead() const noexcept { return false; }
  /// Several heads of one call before their plan() or observeDense(): does their work in common launches and keeps it
  /// in the state. Changes no result. A head that it cannot handle is left to plan(), which says why.
  virtual void planAhead(std::span<const MethodInput>, MethodState*, Backend&, const Control&) const {}
  /// The parameter that moves the budget, for comparisons at an equal one; nullopt: the method has none.
  struct Knob {
    std::string name;
    bool moreKeepsMore = true;  ///< false: larger values keep less
  };
  [[nodiscard]] virtual std::optional<Knob> knob() const { return std::nullopt; }
  /// True: plan() reports its stages to MethodInput::stages, so that it can be walked through.
  [[nodiscard]] virtual bool hasStages() const noexcept { return false; }
  /// Throws Error{Unsupported} with the reason for a head it cannot handle.
  [[nodiscard]] virtual Plan plan(const MethodInput& input, MethodState* state, Backend& backend,
                                  const Control& control) const = 0;
};

/// How a parameter is named to people in tables: the published names `sparsity` mean the kept fraction in one method
/// and the removed one in another, so both are shown as `kept`. Other parameters as they are.
[[nodiscard]] std::string shownName(const Method& method, std::string_view param);
[[nodiscard]] double shownValue(const Method& method, std::string_view param, double value);

/// All methods, generated from the files in core/methods; sorted by id.
[[nodiscard]] std::span<const Method* const> allMethods();
/// Throws Error{InvalidArgument} listing the known ids.
[[nodiscard]] const Method& methodById(std::string_view id);

}  // namespace sparsight
