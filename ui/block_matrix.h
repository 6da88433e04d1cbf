// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QImage>
#include <QWidget>
#include <memory>
#include <vector>

#include "sparsight/core/stages.h"

namespace sparsight {

/// Blocks pooled to what a screen can show: the largest value and the kept share of every cell. For a job lane.
struct PooledBlocks {
  Index rows = 0, columns = 0;
  std::vector<float> values, kept;  ///< [rows, columns]; NaN: none; kept empty: nothing chosen yet
  double low = 0, high = 1;         ///< limits of the colours; values that span decades are divided by the upper one
};
[[nodiscard]] PooledBlocks poolBlocks(const BlockPicture& picture, Index most = 512);

/// A matrix of blocks of one stage: queries down, keys right, skipped ones dimmed. Reports the row under the pointer,
/// and which row the arrow keys chose.
class BlockMatrix : public QWidget {
  Q_OBJECT
 public:
  explicit BlockMatrix(QWidget* parent = nullptr);
  /// nullptr: nothing. `stage` has a block picture.
  void setStage(std::shared_ptr<const Stage> stage, PooledBlocks pooled);
  void setRow(Index row);
  [[nodiscard]] Index row() const noexcept { return m_row; }
  [[nodiscard]] QRectF rowRect(Index row) const;
  /// "query cluster 12, key cluster 30: 0.0123, kept".
  [[nodiscard]] QString readout(Index row, Index column) const;
  [[nodiscard]] QSize sizeHint() const override { return {420, 420}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {180, 160}; }

 Q_SIGNALS:
  void rowPicked(sparsight::Index row);
  void readoutChanged(const QString& text);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  [[nodiscard]] const BlockPicture* picture() const { return m_stage && m_stage->blocks ? &*m_stage->blocks : nullptr; }
  [[nodiscard]] QRectF plot() const;
  void recolor();
  std::shared_ptr<const Stage> m_stage;
  PooledBlocks m_pooled;
  QImage m_image;
  Index m_row = -1;
};

}  // namespace sparsight
