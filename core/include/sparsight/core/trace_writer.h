// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/trace.h"

namespace sparsight {

struct TraceWriterOptions {
  DType dtype = DType::F16;      ///< tensors of another type are converted, rounding to nearest even
  int deflate = 0;               ///< 0: no filter; 1..9: byte shuffle + deflate of that level
  bool contiguous = false;       ///< one run per dataset instead of chunks (no compression then)
  bool bfloat16AsFloat = false;  ///< bfloat16 as a true HDF5 float instead of uint16 + attribute
};

/// What a trace says once. Lists of captured steps, layers, heads, branches and kinds are collected from the calls.
struct TraceHeader {
  ModelInfo model;
  RunInfo run;
  TokenLayout layout;
  std::string writer;           ///< program and version
  std::string uuid;             ///< empty: a random one
  std::string createdUtc;       ///< ISO 8601; empty: now
  std::string software = "{}";  ///< JSON
  std::array<int, 3> patchSize{1, 1, 1}, vaeStride{1, 1, 1};
};

/// One attention call about to be written.
struct CallHeader {
  CallId id;
  std::string component = "transformer";
  std::string module;
  double timestep = 0, sigma = 0;
  double scale = 0;        ///< factor on q k^T
  std::vector<int> heads;  ///< ids, in storage order
  int kvHeads = 0;         ///< 0: as many as heads
  Index nQ = 0, nK = 0, headDim = 0;
  Index valueDim = 0;                       ///< 0: without V
  std::span<const std::uint8_t> keyValid;   ///< [nK] or empty
  std::span<const std::uint8_t> denseMask;  ///< [nQ * nK] or empty
  std::span<const Index> qRows;             ///< [nQ] token of each row; empty: all rows
  std::optional<TokenLayout> layout;        ///< where this call's tokens differ from the header's
  bool lse = false, out = false;            ///< will be written
};

/// Writes a trace of format version 1.1, head by head, so that memory stays at one head. The file appears under its
/// name only with finish() (`complete` = 1); without it nothing is left behind. Not thread-safe. Throws
/// Error{InvalidArgument} for calls that break the format's rules and for values that the type cannot hold, Error{Io}
/// when the disk cannot take it (space is reserved before it is written).
class TraceWriter {
 public:
  TraceWriter(const std::filesystem::path& target, const TraceHeader& header, const TraceWriterOptions& options = {});
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  void beginCall(const CallHeader& call);
  /// position: in CallHeader::heads. q [nQ, headDim], out [nQ, valueDim], lse [nQ] natural log.
  void writeQuery(std::size_t position, const MatrixView& q);
  void writeLse(std::size_t position, std::span<const float> lse);
  void writeOut(std::size_t position, const MatrixView& out);
  /// position: stored K/V head. k [nK, headDim], v [nK, valueDim] (empty without V).
  void writeKeyValue(std::size_t position, const MatrixView& k, const MatrixView& v);
  /// Error{InvalidArgument} if a head is missing.
  void endCall();

  /// Preview video, [count, height, width, 3].
  void writeFrames(const FramesRgb& frames);
  void writeTruth(const SyntheticTruth& truth);
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> m_impl;
};

}  // namespace sparsight
