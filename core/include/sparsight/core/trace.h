// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/content_hash.h"
#include "sparsight/core/tokens.h"
#include "sparsight/kernels/backend.h"

namespace sparsight {

/// One attention call: a layer's attention at a denoising step (0-based index) in one guidance branch.
struct CallId {
  int step = 0;
  std::string branch;  ///< "cond", "uncond", "batched", ...
  int layer = 0;
  std::string kind = "self";  ///< "self", "joint", "cross", ...
  int call = 0;               ///< further calls of that kind in the same layer: self.1, ...
  auto operator<=>(const CallId&) const = default;
};
struct HeadId {
  CallId call;
  int head = 0;
  auto operator<=>(const HeadId&) const = default;
};

/// What is known of a captured call without reading its tensors.
struct CallInfo {
  CallId id;
  std::string component;  ///< "transformer", "transformer_2"
  std::string module;
  std::string path;  ///< HDF5 path, for messages
  double timestep = 0, sigma = 0;
  double scale = 0;        ///< factor on q k^T
  std::vector<int> heads;  ///< head ids, in storage order
  int kvHeads = 0;         ///< stored K/V heads (GQA: fewer than heads)
  DType dtype = DType::F16;
  Index nQ = 0, nK = 0, headDim = 0, valueDim = 0;
  bool hasV = false, hasOut = false, hasLse = false;
  bool hasKeyValid = false, hasDenseMask = false;
  bool qSubset = false;   ///< only some query rows are stored
  bool available = true;  ///< false: chunks never written or the part file is missing
  std::string unavailableReason;
  std::vector<int> unavailableHeads;  ///< head ids whose data was never written, ascending; all of them: !available
  std::vector<float> absmax;          ///< q, k, v as stated by the writer; may be empty
  TokenLayout layout;                 ///< effective layout of this call (overrides applied)

  /// Was this head written at all? One that was not is a hole of the capture, not a damaged file.
  [[nodiscard]] bool isAvailable(int head) const noexcept {
    return available && !std::binary_search(unavailableHeads.begin(), unavailableHeads.end(), head);
  }
};

struct ModelInfo {
  std::string family, className, repoId, revision, attention, qkNorm, rope;
  int numLayers = 0, numHeads = 0, numKvHeads = 0, headDim = 0;
};
struct RunInfo {
  std::string pipelineClass, prompt, negativePrompt, guidanceMode, scheduler, computeDtype, attentionBackend;
  std::int64_t seed = 0;
  int height = 0, width = 0, numFrames = 0, numInferenceSteps = 0;
  double fps = 0, guidanceScale = 0;
  std::vector<double> timesteps, sigmas;  ///< the full schedule
};
struct FramesInfo {
  int count = 0, height = 0, width = 0;
  double fps = 0;
};

struct TraceInfo {
  std::filesystem::path path;
  int versionMajor = 1, versionMinor = 0;
  std::string writer, uuid, createdUtc, software;
  bool complete = true;
  ModelInfo model;
  RunInfo run;
  TokenLayout layout;           ///< global; a call may override
  std::vector<CallInfo> calls;  ///< sorted by id
  std::optional<FramesInfo> frames;
  std::vector<std::string> warnings;         ///< one line each
  std::vector<std::filesystem::path> parts;  ///< files beside `path` that external links name and that were opened
  bool hasSyntheticTruth = false;

  [[nodiscard]] const CallInfo* find(const CallId& id) const noexcept;
  [[nodiscard]] std::vector<int> steps() const;  ///< captured, ascending, unique
  [[nodiscard]] std::vector<int> layers() const;
  [[nodiscard]] std::vector<int> heads() const;
  [[nodiscard]] std::vector<std::string> branches() const;
  [[nodiscard]] std::string defaultBranch() const;  ///< "cond" if present, else the first
  /// The call shown for (step, branch, layer): kind "self" or "joint" first, call 0; nullptr if not captured.
  [[nodiscard]] const CallInfo* callAt(int step, std::string_view branch, int layer) const noexcept;
};

/// Everything needed to compute on one head. `input` borrows from `keepAlive`.
struct HeadData {
  HeadId id;
  AttentionIn input;  ///< queryValid is derived from keyValid for self-attention
  TokenLayout layout;
  std::vector<Index> qRows;  ///< model token of each stored query row; empty = identity
  std::string family;        ///< of the model, for method rules
  std::shared_ptr<const void> keepAlive;
  Index bytes = 0;
  std::vector<std::string> warnings;  ///< of the sample check: all-zero keys or values, values above absmax

  [[nodiscard]] Index queryToken(Index row) const noexcept {
    return qRows.empty() ? row : qRows[static_cast<std::size_t>(row)];
  }
  /// Indices of stored query rows that are valid (not padding), ascending.
  [[nodiscard]] std::vector<Index> validRows() const;
  [[nodiscard]] Index validKeyCount() const noexcept;
};

/// A head without the values of Q and K: enough to look for what was once computed from them.
struct HeadOutline {
  HeadData head;              ///< `input.q`, `input.k`: shape and type, data == nullptr; no V
  ContentHash queries, keys;  ///< matrixHash() of Q and K as loadScores() would give them
};

/// Synthetic ground truth: class per (step, layer, head) and the legend.
struct SyntheticTruth {
  int steps = 0, layers = 0, heads = 0;
  std::vector<std::int8_t> classOf;  ///< [S, L, H], indices of captured steps and layers
  std::vector<std::string> classes;
};
struct FramesRgb {
  FramesInfo info;
  std::vector<std::uint8_t> rgb;  ///< [F, h, w, 3]
};

struct TraceOptions {
  Index cacheBytes = Index{1} << 30;  ///< LRU of loaded heads
  Index memoryLimitBytes = 0;         ///< refuse heads larger than this; 0 = 3/4 of physical memory
  int readThreads = 0;                ///< read one head's contiguous storage together; 0 = up to 4 of the cores
};

/// A captured trace, immutable after open. Any thread may call load(). Contiguous storage is read by several
/// threads at once; the HDF5 library, which reads all else, by one at a time.
class Trace {
 public:
  virtual ~Trace() = default;
  [[nodiscard]] virtual const TraceInfo& info() const noexcept = 0;
  /// Reads one head (raw read, no conversion) or takes it from the LRU. Throws Error{Io|Format|OutOfMemory|...} naming
  /// file, dataset and mend; Cancelled on stop. NaN or infinite values in the first read are an Error{Format}.
  /// A head that was not captured is an Error{InvalidArgument} that says what there is.
  [[nodiscard]] virtual HeadData load(const HeadId& id, std::stop_token stop = {}) const = 0;
  /// The same without V where that saves reading it: all that maps and row statistics need.
  [[nodiscard]] virtual HeadData loadScores(const HeadId& id, std::stop_token stop = {}) const {
    return load(id, stop);
  }
  /// Reads Q and K of a head once, through memory of a fixed small size. nullopt where that saves nothing (they are in
  /// memory, or stored so that reading takes their whole size): then loadScores() is the way. Errors like loadScores(),
  /// but values are not looked at.
  [[nodiscard]] virtual std::optional<HeadOutline> outline(const HeadId& id, std::stop_token stop = {}) const {
    static_cast<void>(id), static_cast<void>(stop);
    return std::nullopt;
  }
  [[nodiscard]] virtual std::optional<FramesRgb> frames() const = 0;
  [[nodiscard]] virtual std::optional<SyntheticTruth> truth() const = 0;
  /// Stored row LSE [Nq] of a head, if the trace has it.
  [[nodiscard]] virtual std::optional<std::vector<float>> storedLse(const HeadId& id) const = 0;
  /// Stored attention output [Nq * Dv] of a head as float32, if the trace has it.
  [[nodiscard]] virtual std::optional<std::vector<float>> storedOut(const HeadId& id) const = 0;
};

/// Does this error of load(id) mean damaged data (malformed, unreadable), rather than a head that was never captured?
[[nodiscard]] bool isDamage(const TraceInfo& trace, const HeadId& id, const Error& error) noexcept;

/// Opens a trace file (trace v1.x) reading metadata only. Throws Error{Io|Format|Unsupported}.
[[nodiscard]] std::unique_ptr<Trace> openTrace(const std::filesystem::path& path, const TraceOptions& options = {});

/// What kind of file this is, by content: "trace", "plan", "results", "profile-csv", "profile-json"; anything else
/// throws Error{Io|Format}.
[[nodiscard]] std::string sniffFormat(const std::filesystem::path& path);

struct Finding {
  /// Mismatch: a deep check computed something else than what is stored.
  enum class Level : std::uint8_t { Info, Warning, Error, Mismatch } level = Level::Info;
  std::string where;    ///< dataset or attribute path
  std::string message;  ///< what and how to mend
};
/// Every rule of the format on every dataset, all tensors read; deep also recomputes `lse` and `out` of sampled rows
/// with the backend. Throws only where nothing can be checked (no HDF5 file, no trace, unknown version) and on stop.
[[nodiscard]] std::vector<Finding> checkTrace(const std::filesystem::path& path, bool deep, Backend* backend,
                                              const Control& control);

}  // namespace sparsight
