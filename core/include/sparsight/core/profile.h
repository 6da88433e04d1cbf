// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/kernels/executor.h"
#include "sparsight/kernels/types.h"

namespace sparsight {

/// What a method does with a value: SVOO's lower bound on kept clusters, a kept fraction to reach, or a mass (top-p).
enum class BudgetRole : std::uint8_t { KeptFloor, KeptTarget, TopMass };
/// "kept_floor", "kept_target" or "top_mass": the names in files.
[[nodiscard]] std::string_view budgetRoleName(BudgetRole role) noexcept;

/// Largest grid a profile may have; files that claim more are refused before anything is allocated. The largest
/// published profile has 80,000 cells.
inline constexpr Index kMaxProfileCells = Index{1} << 22;

/// Where the numbers come from; goes into the JSON form.
struct Provenance {
  std::string source;  ///< "svoo-csv", "offline profiling", "edited", ...
  std::string program;
  std::vector<std::string> traceIds;
  std::map<std::string, std::string> parameters;
  std::string model;
  friend bool operator==(const Provenance&, const Provenance&) = default;
};
struct CellId {
  int step = 0, layer = 0, head = 0;  ///< 0-based
  auto operator<=>(const CellId&) const = default;
};

/// Budgets step x layer x head, each a kept fraction (or mass) in [0, 1] or a hole. A value type.
class Profile {
 public:
  Profile() = default;
  /// All holes, nothing locked. Throws Error{InvalidArgument} for sizes below 1 or more than kMaxProfileCells cells.
  Profile(int steps, int layers, int heads, BudgetRole role);

  [[nodiscard]] int steps() const noexcept { return m_steps; }
  [[nodiscard]] int layers() const noexcept { return m_layers; }
  [[nodiscard]] int heads() const noexcept { return m_heads; }
  [[nodiscard]] bool contains(CellId cell) const noexcept;
  [[nodiscard]] std::optional<double> at(CellId cell) const;  ///< nullopt: a hole (or outside)
  /// Throws Error{InvalidArgument} outside the grid and for values that are not in [0, 1]. Locks bind editing, not
  /// this.
  void set(CellId cell, std::optional<double> value);
  [[nodiscard]] Index holeCount() const noexcept;
  [[nodiscard]] Index cellCount() const noexcept;

  [[nodiscard]] bool layerLocked(int layer) const noexcept;
  void setLayerLocked(int layer, bool locked);
  [[nodiscard]] std::string layerNote(int layer) const;
  void setLayerNote(int layer, std::string note);

  BudgetRole role = BudgetRole::KeptTarget;
  Provenance provenance;
  /// Line ending of the CSV this came from ("\r\n" or "\n"): re-saving an unedited file is byte-identical.
  std::string lineEnding = "\r\n";

  friend bool operator==(const Profile&, const Profile&) = default;

 private:
  [[nodiscard]] std::size_t index(CellId cell) const noexcept;
  int m_steps = 0, m_layers = 0, m_heads = 0;
  std::vector<double> m_values;  // NaN never stored: holes are -1
  std::vector<bool> m_locked;
  std::map<int, std::string> m_notes;
};

/// Mean, minimum and maximum over a set of cells; count excludes holes.
struct ProfileSummary {
  double mean = 0, min = 0, max = 0;
  Index count = 0, holes = 0;
};
[[nodiscard]] ProfileSummary summarise(const Profile& profile);
[[nodiscard]] ProfileSummary summariseLayer(const Profile& profile, int layer, std::optional<int> step = {});

/// How much of the variance of all values the means of a grouping explain (0..1): where the profile's structure lies.
struct VarianceShares {
  double byLayer = 0, byLayerAndHead = 0, byStep = 0;
};
[[nodiscard]] VarianceShares varianceShares(const Profile& profile);

/// What SVOO's runtime makes of a floor profile: only values of steps >= denseSteps and layers >= denseLayers are read
/// (live); each is clipped to [low, high] and keeps at least trunc(value * clusters) key clusters.
struct ClipStatistics {
  Index live = 0;
  double atLow = 0, atHigh = 0, between = 0;  ///< fractions of the live values: <= low, >= high, strictly between
  double meanFloorClusters = 0;
};
[[nodiscard]] ClipStatistics clipStatistics(const Profile& profile, int denseSteps, int denseLayers, double low,
                                            double high, int clusters = 1024);

/// Ranges of cells an edit touches; inclusive.
struct CellRange {
  int step0 = 0, step1 = 0, layer0 = 0, layer1 = 0, head0 = 0, head1 = 0;
  [[nodiscard]] static CellRange all(const Profile& p) noexcept {
    return {0, p.steps() - 1, 0, p.layers() - 1, 0, p.heads() - 1};
  }
};
/// An invertible edit: undo is data. Locked layers are never touched by the builders below.
struct ProfileEdit {
  struct Cell {
    CellId cell;
    std::optional<double> before, after;
    friend bool operator==(const Cell&, const Cell&) = default;
  };
  struct LayerMeta {  ///< lock or note change
    int layer = 0;
    bool lockedBefore = false, lockedAfter = false;
    std::string noteBefore, noteAfter;
    friend bool operator==(const LayerMeta&, const LayerMeta&) = default;
  };
  std::string label;  ///< "Set kept of L12-L18 to 24 %"
  std::vector<Cell> cells;
  std::vector<LayerMeta> layers;

  [[nodiscard]] bool empty() const noexcept { return cells.empty() && layers.empty(); }
  /// All or nothing: throws Error{InvalidArgument} for a cell or layer outside the profile before anything is changed.
  void apply(Profile& profile) const;
  /// Label "Undo: ..." (and back again).
  [[nodiscard]] ProfileEdit inverse() const;
  /// this, then `next`, as one edit with the label of `next`; cells that end where they began are left out.
  [[nodiscard]] ProfileEdit mergedWith(const ProfileEdit& next) const;
};
namespace edits {
/// All throw Error{InvalidArgument} for values that leave [0, 1] (nothing is clamped silently) and for empty ranges or
/// ones that reach outside the grid. An edit that changes nothing (all locked, same values) is empty() but has its
/// label. Computed values are rounded to 9 decimals, so that binary noise (0.30000000000000004) does not reach the
/// files.
[[nodiscard]] ProfileEdit set(const Profile& p, const CellRange& range, double value);
/// scale, add: holes stay holes. With clamp, cells held at 0 or 1 are counted in the label.
[[nodiscard]] ProfileEdit scale(const Profile& p, const CellRange& range, double factor, bool clamp = false);
[[nodiscard]] ProfileEdit add(const Profile& p, const CellRange& range, double delta, bool clamp = false);
/// Mean over the layers within `radius` at the same step and head; neighbours outside the range and locked ones count,
/// holes do not and stay holes.
[[nodiscard]] ProfileEdit smooth(const Profile& p, const CellRange& range, int radius = 1);
/// Copies, holes included, for the steps and heads of range (copyStep: layers and heads).
[[nodiscard]] ProfileEdit copyLayer(const Profile& p, int fromLayer, int toLayer, const CellRange& range);
[[nodiscard]] ProfileEdit copyStep(const Profile& p, int fromStep, int toStep, const CellRange& range);
[[nodiscard]] ProfileEdit fillHoles(const Profile& p, const CellRange& range, double value);
/// Moves a layer's mean over the steps and heads of range to `mean` by the same delta for all its cells; cells that
/// would leave [0, 1] are held at the border, the others make up for them, and their number stands in the label.
[[nodiscard]] ProfileEdit setLayerMean(const Profile& p, int layer, const CellRange& range, double mean);
[[nodiscard]] ProfileEdit lockLayer(const Profile& p, int layer, bool locked);
[[nodiscard]] ProfileEdit noteLayer(const Profile& p, int layer, const std::string& note);
}  // namespace edits

/// Cell-wise a - b on the union of both grids; holes where either is missing. meanAbs, maxAbs and pearson are over the
/// cells both have (pearson 0 where it is undefined).
struct ProfileDiff {
  int steps = 0, layers = 0, heads = 0;
  std::vector<std::optional<double>> delta;  ///< [S, L, H]
  Index changed = 0, onlyA = 0, onlyB = 0;
  double meanAbs = 0, maxAbs = 0;
  double pearson = 0;
};
[[nodiscard]] ProfileDiff diffProfiles(const Profile& a, const Profile& b);

/// What SVOO's launch scripts use for a model: the shape of its published profile and which of its values can matter.
struct SvooModel {
  std::string_view key;     ///< of the offline script, e.g. "wan21_t2v_14b"
  std::string_view title;   ///< "Wan2.1 14B T2V"
  std::string_view script;  ///< launch script and its environment, as typed
  int steps = 0, layers = 0, heads = 0;
  int denseSteps = 0, denseLayers = 0;  ///< first steps and layers that run dense: their values are never read
  double clipLow = 0, clipHigh = 0;     ///< dynamic_min_kc_ratio_min / _max
};
/// The seven models with a published profile.
[[nodiscard]] std::span<const SvooModel> svooModels() noexcept;
/// Titles of the models with this many layers and heads, joined by " or "; empty: none known.
[[nodiscard]] std::string modelsOfGrid(int layers, int heads);

/// How a foreign file's numbers are meant.
enum class ValueConvention : std::uint8_t { Kept, Skipped };
struct CsvIssue {
  int line = 0, column = 0;  ///< 1-based
  bool error = false;
  std::string message;
};
struct CsvImport {
  Profile profile;
  std::vector<CsvIssue> issues;  ///< warnings (holes, duplicates, BOM, LF, order); errors throw
};
/// SVOO's Step,Layer,Head,Sparsity CSV (Step 1-based, the value is a kept density). Throws Error{Format} with line and
/// column for malformations; tolerates and reports BOM, LF, duplicates (last wins), holes, disorder, further columns
/// and values outside 0..1 (left as holes, unless the whole file looks like percentages: then an error that says so).
[[nodiscard]] CsvImport readSvooCsv(const std::filesystem::path& path,
                                    ValueConvention convention = ValueConvention::Kept);
[[nodiscard]] CsvImport parseSvooCsv(std::string_view text, const std::string& name,
                                     ValueConvention convention = ValueConvention::Kept);
/// Exact SVOO form. Holes are an Error{InvalidArgument} that counts them, or rows left out: SVOO then takes its
/// fallback.
[[nodiscard]] std::string formatSvooCsv(const Profile& profile, bool leaveOutHoles = false);
/// A value as Python's repr writes it, the form of SVOO's files: shortest decimal that reads back the same, "0.0",
/// "0.7".
[[nodiscard]] std::string formatProfileValue(double value);

/// Own versioned JSON (schema in resources/profile.schema.json). Values and holes round-trip exactly. A newer minor
/// version is read, a newer major one is Error{Unsupported}; malformations are Error{Format} with line and column or
/// key path.
[[nodiscard]] Profile parseProfileJson(std::string_view text, const std::string& name);
[[nodiscard]] std::string formatProfileJson(const Profile& profile);
/// By content: CSV or JSON. CSV warnings go to `issues`.
[[nodiscard]] Profile readProfile(const std::filesystem::path& path, std::vector<CsvIssue>* issues = nullptr);
/// By extension (.csv, .json); atomic.
void writeProfile(const std::filesystem::path& path, const Profile& profile);

/// Nearest: the nearest step of the same layer and head (ties: the earlier). Hold: the step before, and the first known
/// value before that. Both take the nearest filled layer, then head, where a layer and head has no value at any step.
enum class FillPolicy : std::uint8_t { Refuse, Nearest, Hold, Value };
/// Returns a profile without holes, or throws Error{InvalidArgument} counting holes and printing the ready option.
[[nodiscard]] Profile fillForExport(const Profile& profile, FillPolicy policy, double value = 0);

/// Crash journal of unsaved edits in the user's state directory: append-only, one JSON line per edit, fsynced.
class EditJournal {
 public:
  /// key identifies the document (path or "untitled-<n>"). Does not touch the disk until the first edit.
  explicit EditJournal(std::string key, std::filesystem::path directory = {});
  void begin(const Profile& base);  ///< (re)start: the base profile, edits empty
  void append(const ProfileEdit& edit);
  void clear();  ///< saved or discarded
  struct Recovered {
    std::string key;
    std::filesystem::path file;
    Profile base, current;
    Index edits = 0;
  };
  /// Journals left behind by a crash (a live process's lock excludes it).
  /// Journals of this program that are unreadable are skipped; a torn last line is dropped.
  [[nodiscard]] static std::vector<Recovered> findLeftovers(std::filesystem::path directory = {});
  /// Removes a leftover after it was restored or declined.
  static void discard(const Recovered& leftover) noexcept;
  ~EditJournal();
  EditJournal(const EditJournal&) = delete;
  EditJournal& operator=(const EditJournal&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight
