// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight {

/// Cluster sizes as bars, largest first; the shown cluster stands out. Reports which bar the pointer or the arrow keys
/// are on.
class ClusterSizes : public QWidget {
  Q_OBJECT
 public:
  explicit ClusterSizes(QWidget* parent = nullptr);
  /// Tokens per cluster, by cluster number.
  void setSizes(std::vector<Index> sizes, const QString& what);
  void setCurrent(Index cluster);  ///< -1: none
  [[nodiscard]] Index current() const noexcept { return m_current; }
  /// "256 clusters: 1 to 96 tokens, median 12, 3 empty".
  [[nodiscard]] QString summary() const;
  [[nodiscard]] QRectF barRect(Index cluster) const;
  [[nodiscard]] QSize sizeHint() const override { return {260, 120}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {140, 80}; }

 Q_SIGNALS:
  void pointed(sparsight::Index cluster);  ///< -1: none

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  [[nodiscard]] QRectF plot() const;
  [[nodiscard]] Index clusterAt(const QPointF& position) const;
  std::vector<Index> m_sizes, m_order;  // order: rank -> cluster
  std::vector<Index> m_rank;
  QString m_what;
  Index m_current = -1;
};

}  // namespace sparsight
