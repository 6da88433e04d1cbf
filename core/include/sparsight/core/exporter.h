// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/method.h"
#include "sparsight/core/profile.h"

namespace sparsight {

/// A model that an export target knows by name; 0 = any number of them.
struct ExportModel {
  std::string key, title;
  int steps = 0, layers = 0, heads = 0;
};

struct ExportInput {
  const Profile& profile;  ///< as it is open, holes included
  std::string name;        ///< of the profile, for messages and headers
  std::string model;       ///< key of one of the exporter's models; empty: not said
  ParamSet params;         ///< of the exporter's params(), parsed
  /// What to do with cells without a value; nullopt: the target's own way (runtimes refuse, our JSON keeps them).
  std::optional<FillPolicy> fill;
  double fillValue = 0;
  std::filesystem::path out;  ///< the main file; companions lie beside it
};

struct ExportFile {
  std::filesystem::path path;
  std::string content;
  bool executable = false;
};

/// Everything an export would write and say, made without touching the disk: what a preview shows is what is written.
struct ExportOutput {
  std::vector<ExportFile> files;      ///< the main file first
  std::vector<std::string> load;      ///< lines that load it, one per model that fits
  std::vector<std::string> notes;     ///< what was decided and what the runtime does with it
  std::vector<std::string> warnings;  ///< what will not do as the user may expect
  Index filled = 0, holes = 0;        ///< cells filled, cells left without a value
  double mean = 0;                    ///< of the values that are written
};

/// A runtime or file format that budgets are exported to. const, one static instance per file in core/exporters.
class Exporter {
 public:
  virtual ~Exporter() = default;
  [[nodiscard]] virtual std::string_view id() const noexcept = 0;       ///< "svoo-csv"
  [[nodiscard]] virtual std::string_view title() const noexcept = 0;    ///< for people
  [[nodiscard]] virtual std::string_view summary() const noexcept = 0;  ///< one line
  [[nodiscard]] virtual std::string_view suffix() const noexcept = 0;   ///< of the main file, "csv"
  [[nodiscard]] virtual std::span<const ParamSpec> params() const noexcept { return {}; }
  [[nodiscard]] virtual std::vector<ExportModel> models() const { return {}; }
  /// Parameter values that a model's own configuration has, under the user's.
  [[nodiscard]] virtual std::map<std::string, std::string, std::less<>> defaultsFor(std::string_view) const {
    return {};
  }
  /// Place in lists for people; the most asked for come first.
  [[nodiscard]] virtual int order() const noexcept { return 50; }
  /// False: cells without a value have a place in the format.
  [[nodiscard]] virtual bool wantsWholeGrid() const noexcept { return true; }
  /// Throws Error{InvalidArgument} that says what does not fit and how to mend it.
  [[nodiscard]] virtual ExportOutput prepare(const ExportInput& input) const = 0;
};

/// All exporters, generated from the files in core/exporters; sorted by file name.
[[nodiscard]] std::span<const Exporter* const> allExporters();
/// Throws Error{InvalidArgument} listing the known ids.
[[nodiscard]] const Exporter& exporterById(std::string_view id);
/// prepare() with the model's defaults merged, its key and grid checked and notes on what no runtime reads. Throws
/// Error{InvalidArgument}.
[[nodiscard]] ExportOutput prepareExport(const Exporter& exporter, ExportInput input);
/// Each file atomically, the main one last: it never stands without its companions. Throws Error{Io}.
void writeExport(const ExportOutput& output);

// For exporters.

/// The profile with its holes filled as asked; counts go to `output`. Throws Error{InvalidArgument} where holes remain
/// and the target does not take them.
[[nodiscard]] Profile completeForExport(const Exporter& exporter, const ExportInput& input, ExportOutput& output);
/// Beside the main file: "run.csv" for "run.sh" and ".csv".
[[nodiscard]] std::filesystem::path companionOf(const std::filesystem::path& main, std::string_view ending);
/// As a POSIX shell would need it.
[[nodiscard]] std::string shellWord(const std::string& text);
/// For a script's comment: a file's name may hold line ends, which would begin a command.
[[nodiscard]] std::string commentText(std::string text);
/// Absolute, for lines that run in another folder.
[[nodiscard]] std::string absolutePath(const std::filesystem::path& path);

/// Mean, smallest and largest value of the cells that a runtime reads, which are those behind its dense warm-up.
struct BudgetSpread {
  double mean = 0, minimum = 0, maximum = 0;
  Index cells = 0;
};
[[nodiscard]] BudgetSpread spreadBehind(const Profile& profile, int denseSteps, int denseLayers);

}  // namespace sparsight
