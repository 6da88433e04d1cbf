// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "clustering.h"
#include "sparsight/core/stages.h"

namespace sparsight {

/// The stages that clustering methods have in common. Everything is reported as it is computed; nothing is computed
/// for it beyond counting what moved. Does nothing where nobody watches.
class ClusterStages {
 public:
  ClusterStages(const MethodInput& input, const ClusterGeometry& geometry) : m_input(input), m_geometry(geometry) {}
  [[nodiscard]] bool watched() const noexcept { return m_input.stages != nullptr; }

  /// `from`: of which earlier step the centroids are; -1: made of `tokens`.
  void seeds(Side side, const std::vector<Index>& tokens, Index centroids, int from, const std::string& how) const;
  /// One round of k-means.
  void round(Side side, const Clustering& now, double shift, bool stopped, Index rounds, const std::string& distance);
  /// One half of a round of co-clustering; `plan`: what would be kept if it ended here (nullptr: no query clusters
  /// yet).
  void half(Side side, const CoClustering& now, Index rounds, std::shared_ptr<const Plan> plan);
  /// Labels and sizes kept from an earlier step.
  void reused(const Clustering& q, const Clustering& k, int step) const;
  void scores(const Clustering& q, const Clustering& k, const std::vector<double>& probabilities, bool weighted,
              const std::string& source) const;
  void selection(const Clustering& q, const Clustering& k, const std::vector<double>& probabilities, const TopPMap& map,
                 double topP, Index floor, const std::string& text, const std::string& source) const;
  /// The last stage: permuted, kept blocks; the estimate beside what is really kept.
  void permuted(const TopPMap& map) const;

 private:
  [[nodiscard]] TokenPicture picture(Side side, const Clustering& clusters) const;
  [[nodiscard]] Index changed(Side side, const Clustering& now);
  [[nodiscard]] BlockPicture blocks(const Clustering& q, const Clustering& k,
                                    const std::vector<double>& probabilities) const;
  void show(Stage stage) const { (*m_input.stages)(std::move(stage)); }

  const MethodInput& m_input;
  const ClusterGeometry& m_geometry;
  std::vector<std::int32_t> m_before[2];  // labels by side
};

}  // namespace sparsight
