// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "measure.h"

namespace sparsight::bench {

/// A head whose keys (and queries) are a mixture of 300 Gaussians: points as k-means meets them. fp32 or bf16.
[[nodiscard]] std::shared_ptr<const BenchHead> makeMixtureHead(Index tokens, Index dim, DType dtype);

/// Start of k-means: `clusters` different keys of the head, drawn by `seed`. [clusters, dim]
[[nodiscard]] std::vector<float> startCentroids(const BenchHead& head, Index clusters, unsigned seed);

/// A trace with one call of `heads` equal heads, one contiguous run per dataset or chunks as captures have them.
void writeBenchTrace(const std::filesystem::path& target, const BenchHead& head, int heads, bool contiguous = true);

/// `--write_inputs=FOLDER [--tokens=32760] [--dim=128] [--dtype=bf16]` writes what the cases of that shape compute on,
/// for programs that are measured beside this one: q.bin, k.bin, v.bin and points.bin (row-major, as stored),
/// start-k<clusters>-s<seed>.bin (fp32), trace.h5 and inputs.json. Returns the exit code, or nullopt where the first
/// argument is another one. Throws Error{Io}.
[[nodiscard]] std::optional<int> writeInputs(int argc, char** argv);

}  // namespace sparsight::bench
