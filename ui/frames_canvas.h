// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QImage>
#include <QRectF>
#include <QWidget>
#include <optional>
#include <stop_token>
#include <vector>

#include "sparsight/core/palette.h"
#include "sparsight/core/tokens.h"
#include "sparsight/core/trace.h"
#include "ui/color_map.h"

namespace sparsight {

/// The preview frames of a trace in grey, at most 640 pixels wide; empty: it has none. For a job lane.
[[nodiscard]] std::vector<QImage> previewImages(const Trace& trace, std::stop_token stop);

/// The tokens of a video folded back to frames x rows x columns, each coloured by one value; text tokens as a strip
/// below. Values come by model token. Paints and reports clicks, knows nothing of traces.
class FramesCanvas : public QWidget {
  Q_OBJECT
 public:
  explicit FramesCanvas(QWidget* parent = nullptr);

  /// A layout without a video grid shows nothing.
  void setLayoutOf(const TokenLayout& layout);
  /// Pictures as previewImages makes them, one per video frame of any number; empty: plain ground. Latent frame t of T
  /// shows picture
  /// round(t (F - 1) / (T - 1)): the first and last agree whatever the temporal compression.
  void setPreview(std::vector<QImage> pictures);
  /// [tokens] probabilities (NaN: masked) and, where a method's plan is shown, [tokens] 0 = skipped; empty: no plan.
  void setValues(std::vector<float> values, std::vector<std::uint8_t> kept);
  /// [tokens] a colour for each instead of values, transparent: none; empty: values again.
  void setTokenColors(std::vector<QRgb> colors);
  void setColors(const ColorSettings& colors);
  void setPreviewShown(bool shown);
  /// Whether the values are probabilities, whose sum stands above each frame.
  void setMassShown(bool shown);
  /// Model tokens, -1: none.
  void setMarks(Index query, Index key);
  /// Shown in the middle instead of everything else; empty: data.
  void setMessage(const QString& title, const QString& text);

  [[nodiscard]] const std::vector<float>& values() const noexcept { return m_values; }
  [[nodiscard]] const std::vector<QRgb>& tokenColors() const noexcept { return m_painted; }
  [[nodiscard]] const std::vector<std::uint8_t>& kept() const noexcept { return m_kept; }
  [[nodiscard]] Index tokenAt(const QPointF& position) const;
  /// Where a token is painted; empty when it is not (no grid).
  [[nodiscard]] QRectF rectOf(Index token) const;
  [[nodiscard]] QSize minimumSizeHint() const override { return {160, 120}; }

 Q_SIGNALS:
  void hovered(sparsight::Index token);  ///< -1: none
  void queryPicked(sparsight::Index token);
  void keyPicked(sparsight::Index token);
  /// Arrow keys: columns, rows, frames.
  void queryMoved(int columns, int rows, int frames);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  void place();
  void stale();
  void recolor();
  void paintFrames(QPainter& painter) const;
  [[nodiscard]] QRectF frameRect(int frame) const;
  void paintMark(QPainter& painter, Index token, const QColor& color, const QString& name) const;

  TokenLayout m_layout;
  std::vector<QImage> m_preview;
  std::vector<float> m_values;
  std::vector<QRgb> m_painted;
  std::vector<std::uint8_t> m_kept;
  std::vector<double> m_frameMass;
  double m_textMass = 0;
  std::vector<QImage> m_heat;  // one per frame, [rows x columns]
  QImage m_textHeat;           // [1 x text tokens]
  ColorSettings m_colors;
  std::optional<ColorLut> m_lut;      // of m_colors and the theme
  std::vector<std::uint8_t> m_alpha;  // on the video, by value code
  QImage m_still;                     // as painted last, without hover and marks; null: to be painted anew
  bool m_previewShown = true, m_massShown = true, m_focusRing = false, m_stale = false;
  Index m_query = -1, m_key = -1, m_hover = -1;
  QString m_title, m_message;
  // Geometry
  int m_columns = 1;
  QSizeF m_frame;  // of one frame's picture
  qreal m_left = 0, m_top = 0;
  QRectF m_textBar;
};

}  // namespace sparsight
