// SPDX-License-Identifier: Apache-2.0
// One round of k-means, plain or in SVOO's profile space, of one head or of many at once.
#include <algorithm>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {

/// One head's round, with its places in the arrays of the batch.
struct CudaBackend::ClusterWork {
  const CudaHead* head = nullptr;
  const ClusterRequest* request = nullptr;
  Index dim = 0, clusters = 0, profile = 0;
  Index point0 = 0, cluster0 = 0, edge0 = 0, basis0 = 0, segment0 = 0, profile0 = 0;
  ClusterResult* result = nullptr;

  [[nodiscard]] Index points() const { return request->count; }
  [[nodiscard]] Index depth() const { return head->depth; }
  [[nodiscard]] Index profileDepth() const { return paddedCols(profile); }
  /// The points from the `first` on.
  [[nodiscard]] const void* rowsFrom(Index first) const {
    const DeviceBuffer& points = request->side == Side::Query ? head->queries() : head->k;
    return points.as<const std::byte>() +
           (request->first + first) * depth() * static_cast<Index>(itemSize(head->dtype));
  }
  /// True when both can share launches: the same types and the same arithmetic.
  [[nodiscard]] bool goesWith(const ClusterWork& other) const {
    return head->dtype == other.head->dtype && dim == other.dim && request->distance == other.request->distance &&
           (profile > 0) == (other.profile > 0);
  }
  /// Multiply-adds for one point.
  [[nodiscard]] double workPerPoint() const {
    return static_cast<double>(clusters) * static_cast<double>(profile > 0 ? profileDepth() : depth()) +
           static_cast<double>(profile) * static_cast<double>(depth());
  }
  /// Scratch of a point while its launch runs.
  [[nodiscard]] Index bytesPerPoint() const { return (profileDepth() + 4) * static_cast<Index>(sizeof(float)); }
  /// Scratch that the head needs however its points are cut.
  [[nodiscard]] Index bytes() const {
    return 12 * points() + 4 * clusters * (segmentsOf(points()) + dim + 3 * depth() + profileDepth() + 3) +
           4 * profile * (dim + 3 * depth());
  }
};

ClusterResult CudaBackend::cluster(const PreparedHead& prepared, const ClusterRequest& request,
                                   const Control& control) {
  const ClusterTask task{&prepared, request};
  return std::move(clusterAll({&task, 1}, control).front());
}

std::vector<ClusterResult> CudaBackend::clusterAll(std::span<const ClusterTask> tasks, const Control& control) {
  std::vector<ClusterWork> works;
  works.reserve(tasks.size());
  for (const ClusterTask& task : tasks) {
    ClusterWork work;
    work.head = &cast(*task.head);
    work.request = &task.request;
    detail::checkCluster(work.head->input(), task.request);
    work.dim = work.head->input().q.cols;
    work.clusters = static_cast<Index>(task.request.centroids.size()) / work.dim;
    work.profile = static_cast<Index>(task.request.basis.size()) / work.dim;
    works.push_back(work);
  }
  start();
  for (const ClusterTask& task : tasks) static_cast<void>(arrived(*task.head, control));
  std::vector<ClusterResult> results(tasks.size());
  for (std::size_t i = 0; i < works.size(); ++i) works[i].result = &results[i];
  // A batch that does not fit begins anew with half the memory; those before it are done.
  std::size_t done = 0;
  while (done < works.size()) {
    done += withSmallerBatches(Op::Cluster, [&](const LaunchLimits& limits) {
      std::size_t count = 0;
      Index bytes = 0;
      while (done + count < works.size() && count < kMostTasks && works[done + count].goesWith(works[done])) {
        bytes += works[done + count].bytes();
        if (count > 0 && bytes > limits.scratchBytes) break;
        ++count;
      }
      const Control part{control.stop, [&](double fraction) {
                           control.report((static_cast<double>(done) + fraction * static_cast<double>(count)) /
                                          static_cast<double>(works.size()));
                         }};
      clusterBatch(limits, std::span(works).subspan(done, count), part);
      return count;
    });
  }
  return results;
}

void CudaBackend::clusterBatch(const LaunchLimits& limits, std::span<ClusterWork> works, const Control& control) {
  const Drain drain(m_stream);
  const ClusterWork& kind = works.front();
  const DType dtype = kind.head->dtype;
  const Index dim = kind.dim;
  const Index depth = kind.depth();
  const bool profiled = kind.profile > 0;
  const bool split = splitsFloats(dtype, m_path);
  const Nearness nearness = kind.request->distance == Distance::Euclid   ? Nearness::Euclid
                            : kind.request->distance == Distance::Cosine ? Nearness::Cosine
                                                                         : Nearness::Dot;
  const auto tasks = static_cast<Index>(works.size());

  // Places in the arrays of the batch, and what a launch may hold: the rows of one head, or several whole heads.
  Index points = 0;
  Index clusters = 0;
  Index bases = 0;
  Index segments = 0;
  Index centreProfiles = 0;
  Index mostPoints = 0;
  Index mostClusters = 0;
  Index mostBasis = 0;
  Index mostProfile = 0;
  double work = 0;
  Index bytesPerPoint = 0;
  for (ClusterWork& w : works) {
    w.point0 = points;
    w.cluster0 = clusters;
    w.edge0 = clusters + (&w - works.data());
    w.basis0 = bases;
    w.segment0 = segments;
    w.profile0 = centreProfiles;
    points += w.points();
    clusters += w.clusters;
    bases += w.profile;
    segments += segmentsOf(w.points()) * w.clusters;
    centreProfiles += w.clusters * w.profileDepth();
    mostPoints = std::max(mostPoints, w.points());
    mostClusters = std::max(mostClusters, w.clusters);
    mostBasis = std::max(mostBasis, w.profile);
    mostProfile = std::max(mostProfile, w.profileDepth());
    work = std::max(work, w.workPerPoint());
    bytesPerPoint = std::max(bytesPerPoint, w.bytesPerPoint());
  }
  const Index panel = std::min(rowsPerLaunch(limits, mostPoints, work, bytesPerPoint), mostPoints);
  const double fit = std::min(limits.work / std::max(work, 1.0),
                              static_cast<double>(limits.scratchBytes) / static_cast<double>(bytesPerPoint)) /
                     static_cast<double>(mostPoints);
  const Index group =
      panel < mostPoints ? 1 : std::max<Index>(1, static_cast<Index>(std::min<double>(fit, kMostTasks)));
  const Index together = std::min(group, tasks) * panel;

  reserve<float>(m_scratch.pointSquares, together, "cluster");
  reserve<float>(m_scratch.profiles, together * mostProfile, "profiles of the points");
  reserve<std::int32_t>(m_scratch.labels, points, "cluster");
  reserve<float>(m_scratch.nearest, points, "cluster");
  reserve<std::int32_t>(m_scratch.members, points, "cluster");
  reserve<std::uint32_t>(m_scratch.segments, segments, "cluster");
  reserve<std::int32_t>(m_scratch.memberFirst, clusters + tasks, "cluster");
  reserve<float>(m_scratch.means, clusters * dim, "centroids");
  reserve<float>(m_scratch.centres, clusters * depth, "centroids");
  reserve<float>(m_scratch.centreSquares, clusters, "centroids");
  reserve<float>(m_scratch.centreProfiles, centreProfiles, "profiles of the centroids");
  reserve<float>(m_scratch.basis, bases * dim, "basis");
  reserve<float>(m_scratch.basisRows, bases * depth, "basis");
  if (split) reserve<std::uint16_t>(m_scratch.parts, (profiled ? bases : clusters) * 3 * depth, "parts of the factors");

  const auto forTasks = [&](auto& batch, const auto& make) {
    for (Index i = 0; i < tasks; ++i) batch.tasks[i] = make(works[at(i)]);
  };
  beginTiming();
  for (const ClusterWork& w : works) {
    m_staging.upload(m_scratch.means.as<float>() + w.cluster0 * dim, w.request->centroids.data(),
                     w.clusters * dim * static_cast<Index>(sizeof(float)), control, "upload the centroids");
    if (profiled) {
      m_staging.upload(m_scratch.basis.as<float>() + w.basis0 * dim, w.request->basis.data(),
                       w.profile * dim * static_cast<Index>(sizeof(float)), control, "upload the basis");
    }
  }
  // Padded, and split where tensor cores multiply points with them: the centroids, or with a basis that.
  const auto spread = [&](bool basis) {
    Batch<SpreadParams> batch{};
    forTasks(batch, [&](const ClusterWork& w) {
      const Index first = basis ? w.basis0 : w.cluster0;
      SpreadParams params{};
      params.rows = (basis ? m_scratch.basis : m_scratch.means).as<const float>() + first * dim;
      params.count = static_cast<std::int32_t>(basis ? w.profile : w.clusters);
      params.dim = static_cast<std::int32_t>(dim);
      params.depth = static_cast<std::int32_t>(depth);
      params.padded = (basis ? m_scratch.basisRows : m_scratch.centres).as<float>() + first * depth;
      if (split && basis == profiled) params.parts = m_scratch.parts.as<std::uint16_t>() + first * 3 * depth;
      return params;
    });
    check(launchSpread(batch, tasks, (basis ? mostBasis : mostClusters) * depth, m_stream.get()), "cluster: factors");
  };
  spread(false);
  if (profiled) spread(true);

  // What points are multiplied with.
  const auto factorOf = [&](const ClusterWork& w) {
    const Index first = profiled ? w.basis0 : w.cluster0;
    return split ? static_cast<const void*>(m_scratch.parts.as<std::uint16_t>() + first * 3 * depth)
                 : static_cast<const void*>((profiled ? m_scratch.basisRows : m_scratch.centres).as<float>() +
                                            first * depth);
  };
  const auto profilesOf = [&](const ClusterWork& w, const void* rows, Index count, const void* factor, Index repeats,
                              float* out) {
    ScoreRowsParams params{};
    params.in = {rows, factor, static_cast<std::int32_t>(depth), static_cast<std::int32_t>(repeats)};
    params.rowCount = static_cast<std::int32_t>(count);
    params.keyCount = static_cast<std::int32_t>(w.profile);
    params.keysPerBlock = static_cast<std::int32_t>(scoreStride(w.profile));
    params.sign = 1.0F;
    params.scores = out;
    params.stride = w.profileDepth();
    return params;
  };
  if (profiled) {
    Batch<ScoreRowsParams> batch{};
    forTasks(batch, [&](const ClusterWork& w) {
      return profilesOf(w, m_scratch.centres.as<float>() + w.cluster0 * depth, w.clusters,
                        m_scratch.basisRows.as<float>() + w.basis0 * depth, 1,
                        m_scratch.centreProfiles.as<float>() + w.profile0);
    });
    check(launchProfiles(DType::F32, Path::Portable, batch, tasks, mostClusters, m_stream.get()), "cluster: profiles");
  }
  if (nearness != Nearness::Dot) {
    Batch<SquaresParams> batch{};
    forTasks(batch, [&](const ClusterWork& w) {
      return SquaresParams{profiled ? m_scratch.centreProfiles.as<float>() + w.profile0
                                    : m_scratch.centres.as<float>() + w.cluster0 * depth,
                           static_cast<std::int32_t>(w.clusters),
                           static_cast<std::int32_t>(profiled ? w.profileDepth() : depth),
                           m_scratch.centreSquares.as<float>() + w.cluster0};
    });
    check(launchSquares(DType::F32, batch, tasks, mostClusters, m_stream.get()), "cluster: norms");
  }

  Index launch = 0;
  Index assigned = 0;
  for (Index task0 = 0; task0 < tasks; task0 += group) {
    const Index count = std::min(group, tasks - task0);
    const Index longest = group > 1 ? panel : works[at(task0)].points();
    for (Index first = 0; first < longest; first += panel, ++launch) {
      control.checkpoint();
      Batch<ScoreRowsParams> profiles{};
      Batch<SquaresParams> squares{};
      Batch<AssignParams> assign{};
      Index most = 0;
      for (Index i = 0; i < count; ++i) {
        const ClusterWork& w = works[at(task0 + i)];
        const Index n = std::min(panel, w.points() - first);
        most = std::max(most, n);
        assigned += n;
        float* const ownProfiles = m_scratch.profiles.as<float>() + i * panel * mostProfile;
        float* const ownSquares = m_scratch.pointSquares.as<float>() + i * panel;
        const void* const rows = w.rowsFrom(first);
        if (profiled) profiles.tasks[i] = profilesOf(w, rows, n, factorOf(w), split ? 3 : 1, ownProfiles);
        squares.tasks[i] = {profiled ? ownProfiles : rows, static_cast<std::int32_t>(n),
                            static_cast<std::int32_t>(profiled ? w.profileDepth() : depth), ownSquares};
        AssignParams& params = assign.tasks[i];
        params.in = profiled ? Operands{ownProfiles, m_scratch.centreProfiles.as<float>() + w.profile0,
                                        static_cast<std::int32_t>(w.profileDepth()), 1}
                             : Operands{rows, factorOf(w), static_cast<std::int32_t>(depth), split ? 3 : 1};
        params.rowCount = static_cast<std::int32_t>(n);
        params.clusters = static_cast<std::int32_t>(w.clusters);
        params.nearness = nearness;
        params.pointSquares = ownSquares;
        params.centreSquares = m_scratch.centreSquares.as<const float>() + w.cluster0;
        params.labels = m_scratch.labels.as<std::int32_t>() + w.point0 + first;
        params.nearest = m_scratch.nearest.as<float>() + w.point0 + first;
      }
      const DType compared = profiled ? DType::F32 : dtype;
      if (profiled) check(launchProfiles(dtype, m_path, profiles, count, most, m_stream.get()), "cluster: profiles");
      if (nearness != Nearness::Dot) {
        check(launchSquares(compared, squares, count, most, m_stream.get()), "cluster: norms");
      }
      check(launchAssign(compared, profiled ? Path::Portable : m_path, assign, count, most, m_stream.get()),
            "cluster: labels");
      paceLaunches(launch, "cluster");
      control.report(0.9 * static_cast<double>(assigned) / static_cast<double>(points));
    }
  }
  control.checkpoint();

  // Members side by side, ascending within a cluster: the sums are those of the CPU, addition by addition.
  Batch<SortParams> sort{};
  forTasks(sort, [&](const ClusterWork& w) {
    return SortParams{m_scratch.labels.as<const std::int32_t>() + w.point0,
                      static_cast<std::int32_t>(w.points()),
                      static_cast<std::int32_t>(w.clusters),
                      m_scratch.segments.as<std::uint32_t>() + w.segment0,
                      m_scratch.memberFirst.as<std::int32_t>() + w.edge0,
                      m_scratch.members.as<std::int32_t>() + w.point0};
  });
  check(launchCount(sort, tasks, mostPoints, m_stream.get()), "cluster: members");
  check(launchSegments(sort, tasks, mostClusters, m_stream.get()), "cluster: members");
  check(launchFirstMembers(sort, tasks, m_stream.get()), "cluster: members");
  check(launchMembers(sort, tasks, mostPoints, m_stream.get()), "cluster: members");
  Batch<MeansParams> means{};
  forTasks(means, [&](const ClusterWork& w) {
    return MeansParams{w.rowsFrom(0),
                       static_cast<std::int32_t>(depth),
                       static_cast<std::int32_t>(dim),
                       m_scratch.members.as<const std::int32_t>() + w.point0,
                       m_scratch.memberFirst.as<const std::int32_t>() + w.edge0,
                       static_cast<std::int32_t>(w.clusters),
                       m_scratch.means.as<float>() + w.cluster0 * dim};
  });
  check(launchMeans(dtype, means, tasks, mostClusters, m_stream.get()), "cluster: means");
  endTiming();

  std::vector<std::vector<std::int32_t>> memberFirst(works.size());
  for (std::size_t i = 0; i < works.size(); ++i) {
    const ClusterWork& w = works[i];
    ClusterResult& result = *w.result;
    result.labels.resize(at(w.points()));
    result.nearest.resize(at(w.points()));
    result.means.resize(at(w.clusters * dim));
    memberFirst[i].resize(at(w.clusters) + 1);
    download(result.labels, m_scratch.labels.as<std::int32_t>() + w.point0, "read the labels");
    download(result.nearest, m_scratch.nearest.as<float>() + w.point0, "read the distances");
    download(result.means, m_scratch.means.as<float>() + w.cluster0 * dim, "read the centroids");
    download(memberFirst[i], m_scratch.memberFirst.as<std::int32_t>() + w.edge0, "read the sizes");
  }
  m_stream.wait("cluster");
  for (std::size_t i = 0; i < works.size(); ++i) {
    std::vector<Index>& sizes = works[i].result->sizes;
    sizes.resize(at(works[i].clusters));
    for (std::size_t c = 0; c < sizes.size(); ++c) sizes[c] = memberFirst[i][c + 1] - memberFirst[i][c];
  }
  control.report(1.0);
}

}  // namespace sparsight::cuda
