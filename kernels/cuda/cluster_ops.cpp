// SPDX-License-Identifier: Apache-2.0
// One round of k-means, plain or in SVOO's profile space.
#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {
namespace {

/// Rows of `dim` floats as they are multiplied: zero-padded to `depth`.
std::vector<float> padRows(std::span<const float> rows, Index dim, Index depth) {
  const Index count = static_cast<Index>(rows.size()) / dim;
  std::vector<float> out(at(count * depth), 0.0F);
  for (Index r = 0; r < count; ++r) std::copy_n(rows.begin() + r * dim, dim, out.begin() + r * depth);
  return out;
}

/// The same as three bfloat16 parts per row, side by side.
std::vector<std::uint16_t> splitRows(std::span<const float> rows, Index dim, Index depth) {
  const Index count = static_cast<Index>(rows.size()) / dim;
  std::vector<std::uint16_t> out(at(count * 3 * depth), 0);
  for (Index r = 0; r < count; ++r) {
    for (Index c = 0; c < dim; ++c) {
      std::uint16_t parts[3];
      splitFloat(rows[at(r * dim + c)], parts);
      for (Index i = 0; i < 3; ++i) out[at((r * 3 + i) * depth + c)] = parts[i];
    }
  }
  return out;
}

}  // namespace

ClusterResult CudaBackend::cluster(const PreparedHead& prepared, const ClusterRequest& request,
                                   const Control& control) {
  const CudaHead& head = cast(prepared);
  detail::checkCluster(head.input(), request);
  start();
  const Index dim = head.input().q.cols;
  const Index depth = head.depth;
  const Index clusters = static_cast<Index>(request.centroids.size()) / dim;
  const Index profile = static_cast<Index>(request.basis.size()) / dim;
  const Index profileDepth = paddedCols(profile);
  const bool split = splitsFloats(head.dtype, m_path);
  const DeviceBuffer& points = request.side == Side::Query ? head.q : head.k;
  const std::byte* const firstPoint =
      points.as<const std::byte>() + request.first * depth * static_cast<Index>(itemSize(head.dtype));
  const Nearness nearness = request.distance == Distance::Euclid   ? Nearness::Euclid
                            : request.distance == Distance::Cosine ? Nearness::Cosine
                                                                   : Nearness::Dot;

  return withSmallerBatches(Op::Cluster, [&](const LaunchLimits& limits) {
    const Drain drain(m_stream);
    // What points are multiplied with: the centroids, or with a basis that first. Split where tensor cores do it.
    const auto uploadFactor = [&](DeviceBuffer& buffer, std::span<const float> rows) {
      if (split) {
        uploadTable(buffer, splitRows(rows, dim, depth), control, "upload the centroids");
      } else {
        uploadTable(buffer, padRows(rows, dim, depth), control, "upload the centroids");
      }
    };
    const auto product = [&](DType dtype, Path path, Operands in, Index rows, DeviceBuffer& out) {
      ScoreRowsParams params{};
      params.in = in;
      params.rowCount = static_cast<std::int32_t>(rows);
      params.keyCount = static_cast<std::int32_t>(profile);
      params.keysPerBlock = static_cast<std::int32_t>(std::max<Index>(256, (profile / 65535 + 1) * kTileKeys));
      params.sign = 1.0F;
      params.scores = out.as<float>();
      params.stride = profileDepth;
      check(launchFloatScoreRows(dtype, path, params, m_stream.get()), "cluster: profiles");
    };
    const auto squares = [&](DType dtype, const void* rows, Index count, Index width, DeviceBuffer& out) {
      check(launchSquares(dtype,
                          {rows, static_cast<std::int32_t>(count), static_cast<std::int32_t>(width), out.as<float>()},
                          m_stream.get()),
            "cluster: norms");
    };

    const Index perPoint = profileDepth * static_cast<Index>(sizeof(float)) + 16;
    const double workPerPoint =
        static_cast<double>(clusters) * static_cast<double>(profile > 0 ? profileDepth : depth) +
        static_cast<double>(profile) * static_cast<double>(depth);
    const Index panel = std::min(rowsPerLaunch(limits, request.count, workPerPoint, perPoint), request.count);
    reserve<float>(m_scratch.pointSquares, panel, "cluster");
    reserve<std::int32_t>(m_scratch.labels, request.count, "cluster");
    reserve<float>(m_scratch.nearest, request.count, "cluster");
    reserve<float>(m_scratch.centreSquares, clusters, "cluster");
    reserve<std::int32_t>(m_scratch.members, request.count, "cluster");
    reserve<std::int32_t>(m_scratch.memberFirst, clusters + 1, "cluster");
    reserve<float>(m_scratch.means, clusters * dim, "cluster");
    reserve<float>(m_scratch.profiles, panel * profileDepth, "profiles of the points");
    reserve<float>(m_scratch.centreProfiles, clusters * profileDepth, "profiles of the centroids");

    beginTiming();
    // Norms, and profiles of the centroids, are of the float32 numbers themselves.
    const std::vector<float> centroids = padRows(request.centroids, dim, depth);
    uploadTable(m_scratch.centres, centroids, control, "upload the centroids");
    if (profile > 0) {
      uploadTable(m_scratch.basis, padRows(request.basis, dim, depth), control, "upload the basis");
      product(DType::F32, Path::Portable,
              {m_scratch.centres.as<void>(), m_scratch.basis.as<void>(), static_cast<std::int32_t>(depth), 1}, clusters,
              m_scratch.centreProfiles);
      squares(DType::F32, m_scratch.centreProfiles.as<void>(), clusters, profileDepth, m_scratch.centreSquares);
      uploadFactor(m_scratch.basisParts, request.basis);
    } else {
      squares(DType::F32, m_scratch.centres.as<void>(), clusters, depth, m_scratch.centreSquares);
      uploadFactor(m_scratch.basisParts, request.centroids);
    }
    const std::int32_t repeats = split ? 3 : 1;
    Index launch = 0;
    for (Index first = 0; first < request.count; first += panel, ++launch) {
      control.checkpoint();
      const Index n = std::min(panel, request.count - first);
      const std::byte* const rows = firstPoint + first * depth * static_cast<Index>(itemSize(head.dtype));
      AssignParams params{};
      params.rowCount = static_cast<std::int32_t>(n);
      params.clusters = static_cast<std::int32_t>(clusters);
      params.nearness = nearness;
      params.pointSquares = m_scratch.pointSquares.as<const float>();
      params.centreSquares = m_scratch.centreSquares.as<const float>();
      params.labels = m_scratch.labels.as<std::int32_t>() + first;
      params.nearest = m_scratch.nearest.as<float>() + first;
      const Operands direct{rows, m_scratch.basisParts.as<void>(), static_cast<std::int32_t>(depth), repeats};
      if (profile > 0) {
        product(head.dtype, m_path, direct, n, m_scratch.profiles);
        squares(DType::F32, m_scratch.profiles.as<void>(), n, profileDepth, m_scratch.pointSquares);
        params.in = {m_scratch.profiles.as<void>(), m_scratch.centreProfiles.as<void>(),
                     static_cast<std::int32_t>(profileDepth), 1};
        check(launchAssign(DType::F32, Path::Portable, params, m_stream.get()), "cluster: labels");
      } else {
        if (nearness != Nearness::Dot) squares(head.dtype, rows, n, depth, m_scratch.pointSquares);
        params.in = direct;
        check(launchAssign(head.dtype, m_path, params, m_stream.get()), "cluster: labels");
      }
      paceLaunches(launch, "cluster");
      control.report(0.9 * static_cast<double>(first + n) / static_cast<double>(request.count));
    }
    ClusterResult result;
    result.labels.resize(at(request.count));
    result.nearest.resize(at(request.count));
    download(result.labels, m_scratch.labels.as<void>(), "read the labels");
    download(result.nearest, m_scratch.nearest.as<void>(), "read the distances");
    m_stream.wait("cluster");

    // Members side by side, ascending within a cluster: the sums are those of the CPU, addition by addition.
    result.sizes.assign(at(clusters), 0);
    for (const std::int32_t label : result.labels) ++result.sizes[at(label)];
    std::vector<std::int32_t> memberFirst(at(clusters) + 1, 0);
    for (Index c = 0; c < clusters; ++c) {
      memberFirst[at(c + 1)] = memberFirst[at(c)] + static_cast<std::int32_t>(result.sizes[at(c)]);
    }
    std::vector<std::int32_t> members(result.labels.size());
    std::vector<std::int32_t> next(memberFirst.begin(), memberFirst.end() - 1);
    for (Index i = 0; i < request.count; ++i) {
      members[at(next[at(result.labels[at(i)])]++)] = static_cast<std::int32_t>(i);
    }
    control.checkpoint();
    result.means.assign(request.centroids.begin(), request.centroids.end());
    uploadTable(m_scratch.members, members, control, "upload the members");
    uploadTable(m_scratch.memberFirst, memberFirst, control, "upload the members");
    uploadTable(m_scratch.means, result.means, control, "upload the centroids");
    check(launchMeans(head.dtype,
                      {firstPoint, static_cast<std::int32_t>(depth), static_cast<std::int32_t>(dim),
                       m_scratch.members.as<const std::int32_t>(), m_scratch.memberFirst.as<const std::int32_t>(),
                       m_scratch.means.as<float>()},
                      clusters, m_stream.get()),
          "cluster: means");
    endTiming();
    download(result.means, m_scratch.means.as<void>(), "read the centroids");
    m_stream.wait("cluster");
    control.report(1.0);
    return result;
  });
}

}  // namespace sparsight::cuda
