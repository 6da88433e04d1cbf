// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/profile.h"
#include "sparsight/core/trace.h"
#include "sparsight/core/trace_writer.h"
#include "sparsight/kernels/executor.h"

namespace sparsight {

// --- what is inside a foreign file -----------------------------------------------------------------------------------

/// Which of attention's inputs a tensor is. QueryRows: the token of each stored query row, where not all are stored.
/// KeyValid: which keys count. Mask: which keys count, for each query row or for all.
enum class TensorRole : std::uint8_t { None, Query, Key, Value, QueryRows, KeyValid, Mask };
/// Element types that can be read: into float16, bfloat16 or float32 without loss, float64 rounded to float32.
enum class SourceType : std::uint8_t { F16, BF16, F32, F64 };
[[nodiscard]] std::size_t sourceItemSize(SourceType type) noexcept;
/// "float16", "bfloat16", "float32" or "float64".
[[nodiscard]] const char* sourceTypeName(SourceType type) noexcept;

/// Where in a run a tensor belongs, as names and attributes say it; unset: they do not.
struct TensorPlace {
  TensorRole role = TensorRole::None;
  std::optional<int> step, layer, head, call;
  std::optional<double> timestep;
  std::string branch, kind;
  /// "single" or "double" where blocks of two sorts are numbered apart ("single_transformer_blocks.3"); else empty.
  std::string stack;
  friend bool operator==(const TensorPlace&, const TensorPlace&) = default;
};

/// One tensor of a file, its data unread.
struct FoundTensor {
  std::filesystem::path file;      ///< relative to the folder that was opened; the file's name for a single file
  std::string name;                ///< inside the file; empty where the file is one tensor
  std::vector<Index> shape;        ///< as stored
  std::string dtype;               ///< as the file calls it
  std::optional<SourceType> type;  ///< nullopt: no input of attention has this type
  bool sixteenBits = false;        ///< 2-byte elements without a meaning of their own (uint16, opaque)
  int wholeBytes = 0;              ///< size of whole numbers and truth values; 0: the elements are something else
  std::string axes;                ///< letters of ImportOptions::axes where the file says them; else empty
  TensorPlace place;

  /// "step951/layer3.pt: q" or "q".
  [[nodiscard]] std::string label() const;
};

/// An opened file: its tensors, and one plane of one tensor at a time.
class TensorFile {
 public:
  virtual ~TensorFile() = default;
  [[nodiscard]] const std::vector<FoundTensor>& tensors() const noexcept { return m_tensors; }
  /// What the file states beside tensors: "grid" = "5,4,6", "timestep" = "951", ...
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& facts() const noexcept { return m_facts; }
  /// Copies the plane that two axes span at `index` (its entries for these axes are ignored) to out
  /// [shape[rowAxis], shape[columnAxis]], row-major, in the tensor's element type and this machine's byte order.
  /// rowAxis = shape.size(): one row. Stops with Cancelled between slabs. Throws Error{Io|Format}.
  virtual void readPlane(std::size_t tensor, std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis,
                         std::span<std::byte> out, const Control& control) = 0;

 protected:
  std::vector<FoundTensor> m_tensors;
  std::map<std::string, std::string, std::less<>> m_facts;
};

/// The beginning of a file, by which formats know their own.
struct SourceHead {
  std::filesystem::path path;
  std::string suffix;  ///< lower case, with the dot
  std::string bytes;   ///< the first 4 KiB
  std::uint64_t size = 0;
  [[nodiscard]] bool startsWith(std::string_view magic) const { return std::string_view(bytes).starts_with(magic); }
};
/// Throws Error{Io}.
[[nodiscard]] SourceHead readHead(const std::filesystem::path& path);

/// How a profile is made from a file that lacks facts; 0: as the file has it.
struct ProfileImportOptions {
  int steps = 0, layers = 0, heads = 0;
  std::vector<double> timesteps;  ///< of the schedule, for files that name steps by their timestep
};
struct ProfileImport {
  Profile profile;
  std::vector<std::string> assumed, warnings;  ///< one line each
};

/// A foreign file format. const, one static instance per file in core/importers.
class Importer {
 public:
  virtual ~Importer() = default;
  [[nodiscard]] virtual std::string_view id() const noexcept = 0;        ///< "safetensors"
  [[nodiscard]] virtual std::string_view title() const noexcept = 0;     ///< for people
  [[nodiscard]] virtual std::string_view summary() const noexcept = 0;   ///< one line
  [[nodiscard]] virtual std::string_view suffixes() const noexcept = 0;  ///< "*.npy *.npz", for file dialogs
  /// Of two that match, the one with the larger number reads the file: 2 known by content, 1 by its name, 0 not ours.
  [[nodiscard]] virtual int match(const SourceHead& head) const = 0;
  /// False: the file holds tensors. True: it holds budgets or densities, readProfile() reads it.
  [[nodiscard]] virtual bool isProfile() const noexcept { return false; }
  /// Reads what is inside, not the data. `scratch`: a folder for temporary files (compressed members), removed with
  /// the TensorFile; empty: only the survey is wanted. Throws Error{Io|Format|Unsupported}.
  [[nodiscard]] virtual std::unique_ptr<TensorFile> open(const std::filesystem::path& path,
                                                         const std::filesystem::path& scratch) const;
  [[nodiscard]] virtual ProfileImport readProfile(const std::filesystem::path& path,
                                                  const ProfileImportOptions& options) const;
};

/// All importers, generated from the files in core/importers; sorted by file name.
[[nodiscard]] std::span<const Importer* const> allImporters();
/// By content, else by name; nullptr: nobody's (also for our own traces, plans, results and profiles).
[[nodiscard]] const Importer* importerFor(const std::filesystem::path& path);
/// Would surveySource or readProfile of an importer take this? Looks at a folder's files until one is known, and at one
/// file's head. Stops with Cancelled between files. Throws Error{Io|InvalidArgument}.
[[nodiscard]] bool isImportable(const std::filesystem::path& path, const Control& control = {});

/// Everything found in a file or folder.
struct Survey {
  std::filesystem::path source;
  bool folder = false;
  std::vector<std::string> formats;  ///< ids of the importers that read something, sorted
  std::vector<FoundTensor> tensors;  ///< by file, then as the file lists them
  std::map<std::string, std::string, std::less<>> facts;
  std::vector<std::string> warnings;  ///< files that could not be read and why, one line each
  double bytes = 0;                   ///< of the tensors that have a role
};
/// Opens a file, or all files of a folder (at most 4 levels deep); in a folder, damaged files are named in warnings and
/// skipped. `only`: of a folder, these files alone. Throws Error{Io|Format|Unsupported} where nothing can be imported.
[[nodiscard]] Survey surveySource(const std::filesystem::path& path, const Control& control = {},
                                  std::span<const std::filesystem::path> only = {});

/// What a name says: "step_0012/cond/layer_007/self/q", "blocks.7.attn1.to_q", "sparse_qkv_layer3_ts951".
[[nodiscard]] TensorPlace placeFromName(std::string_view name);
/// Matches a name with "{step}", "{timestep}", "{layer}", "{head}", "{branch}", "{kind}", "{call}" and "{*}" in
/// `pattern`; nullopt: it does not fit. Throws Error{InvalidArgument} for an unknown placeholder.
[[nodiscard]] std::optional<TensorPlace> placeFromPattern(std::string_view pattern, std::string_view name);

// --- from what is inside to a trace ----------------------------------------------------------------------------------

/// Facts of a published model at one setting, where a file lacks them.
struct ImportPreset {
  const char* key;    ///< "wan2.1-14b-720p"
  const char* title;  ///< "Wan2.1 14B, 720 x 1280, 81 frames"
  const char* family;
  const char* className;
  int layers, heads, headDim;
  std::array<int, 3> grid;  ///< frames, rows, columns of video tokens
  int text;                 ///< text tokens in self-attention; 0: none
  bool textFirst;
  bool textVaries;  ///< only the prompt's tokens take part: up to `text`
  std::array<int, 3> patch, vae;
  int steps;         ///< of its default schedule
  bool twoPasses;    ///< guidance by two calls: conditional, then unconditional
  const char* rope;  ///< "interleaved", "half" or "none"
};
[[nodiscard]] std::span<const ImportPreset> importPresets() noexcept;
/// Throws Error{InvalidArgument} listing the keys.
[[nodiscard]] const ImportPreset& importPresetByKey(std::string_view key);

/// What the user says; unset: from the file, the preset, or assumed (and then recorded).
struct ImportOptions {
  std::string preset;
  std::optional<std::array<int, 3>> grid;
  std::optional<Index> text;
  std::optional<bool> textFirst;
  std::string family, kind, component;
  std::optional<double> scale;        ///< factor on q k^T
  std::vector<std::string> branches;  ///< one for all calls without a name, or one per batch entry
  std::optional<int> step, layer;     ///< of tensors whose name does not say it
  std::optional<int> steps;           ///< of the whole run
  std::vector<double> timesteps;      ///< the full schedule
  /// One letter per axis: S step, L layer, B batch, H head, N token, D channel; empty: by shape.
  std::string axes;
  /// Of q, k, v, query rows, valid keys and masks (TensorRole), see placeFromPattern; empty: by name, but where one of
  /// the first three is said, q, k and v have no other names.
  std::array<std::string, 6> patterns;
  bool cross = false;               ///< cross-attention too, where names say that it is; else it is left out
  std::optional<int> doubleBlocks;  ///< of a model whose single blocks follow: single block 0 is this layer
  std::optional<SourceType> raw16;  ///< what 2-byte elements without a type are
  std::optional<DType> dtype;       ///< stored type; nullopt: the narrowest that holds every value as it is
  int deflate = 0;
  Index memoryLimitBytes = 0;  ///< for one head's q, k and v; 0: 2 GiB
};

/// A way to lay out N tokens.
struct GridProposal {
  std::array<int, 3> grid{};
  Index text = 0;
  bool textFirst = false;
  std::string preset;  ///< its key; empty: a factorisation only
  std::string title;   ///< for people
};
/// Presets whose tokens (and heads and channels, where not 0) fit, then factorisations with the shape of a video, best
/// first. At most `limit`.
[[nodiscard]] std::vector<GridProposal> proposeGrids(Index tokens, int heads = 0, int headDim = 0,
                                                     std::size_t limit = 8);

/// One head's plane of one tensor.
struct PlaneSource {
  std::size_t tensor = 0;  ///< in Survey::tensors
  SourceType type = SourceType::F32;
  std::vector<Index> index;
  std::size_t rowAxis = 0, columnAxis = 0;
};
struct PlannedCall {
  CallHeader header;
  std::vector<PlaneSource> q, k, v;  ///< per stored head; v empty: none
  /// The token of each query row; which keys count, [nK]; or for each query row, [nQ, nK]. Read when the call is
  /// written.
  std::optional<PlaneSource> rows, keyValid, mask;
};
/// Everything a conversion will do and has taken for granted, before a byte is written.
struct ImportPlan {
  TraceHeader header;
  TraceWriterOptions options;
  std::vector<PlannedCall> calls;
  std::vector<std::string> assumed;   ///< recorded in the trace, one line each
  std::vector<std::string> warnings;  ///< tensors left out and why
  double bytes = 0;                   ///< of the tensors as they will be written
  Index memoryLimitBytes = 0;         ///< for a mask that differs between queries
};
/// Throws Error{InvalidArgument} that says what is missing, proposes values, and names the option; Error{Format} for
/// tensors that do not fit each other.
[[nodiscard]] ImportPlan planImport(const Survey& survey, const ImportOptions& options);

/// Where a tensor belongs by the patterns of `options`, and for what they leave open by its name. Throws
/// Error{InvalidArgument} for patterns that are none.
[[nodiscard]] TensorPlace placeOf(const FoundTensor& found, const ImportOptions& options);

/// What a form shows while facts are missing.
struct ImportDraft {
  std::optional<ImportPlan> plan;
  std::string problem;  ///< one line; empty with a plan
  Index tokens = 0;     ///< of a call, 0: unknown
  int heads = 0, headDim = 0;
  std::vector<GridProposal> grids;
  std::vector<TensorPlace> places;  ///< of the survey's first 500 tensors; empty where a pattern is none
};
[[nodiscard]] ImportDraft draftImport(const Survey& survey, const ImportOptions& options);

/// Streams the planned calls into a trace, one head in memory at a time. Nothing is left behind unless it finishes.
void runImport(const Survey& survey, const ImportPlan& plan, const std::filesystem::path& out, const Control& control);

/// What a trace's own record says about its conversion; nullopt: it was captured or generated.
struct ImportRecord {
  std::string source;  ///< name of the file or folder
  std::vector<std::string> formats, assumed, warnings;
};
[[nodiscard]] std::optional<ImportRecord> importRecord(const TraceInfo& trace);

}  // namespace sparsight
