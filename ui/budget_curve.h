// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QLineEdit>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "ui/chart_widget.h"
#include "ui/profile_model.h"

namespace sparsight {

/// The layer curve of a ProfileModel, to be edited by mouse and keyboard:
/// drag a point (Shift fine, Ctrl snaps to 1 %, Alt scales the selection around its mean), drag an empty place for a
/// selection rectangle, Ctrl+click adds, double-click or Enter types, right-drag smooths the layers passed over
/// (farther down or up = stronger), B paints. Up/Down 1 %, with Shift 5 %, with Ctrl 0.1 %; Left/Right go, with Shift
/// select; L locks; Esc takes the running drag back. Every drag is one undo entry.
class BudgetCurve : public ChartWidget {
  Q_OBJECT
 public:
  explicit BudgetCurve(ProfileModel& model, QWidget* parent = nullptr);
  ~BudgetCurve() override;

  void setCurrentLayer(int layer);  ///< -1: none; shown with a ring
  [[nodiscard]] int currentLayer() const noexcept { return m_current; }
  [[nodiscard]] const std::set<int>& selectedLayers() const noexcept { return m_selected; }
  void setSelectedLayers(const std::set<int>& layers);
  void setBrush(bool on);
  [[nodiscard]] bool brush() const noexcept { return m_brush; }
  /// Asked after every edit for what it leads to, shown behind "kept 18.0 -> 24.0 %"; empty: nothing to say.
  void setConsequence(std::function<QString(int layer)> consequence) { m_consequence = std::move(consequence); }
  void setTarget(std::optional<double> target);  ///< dashed line; nullopt: none
  void applyTheme();                             ///< also recolours
  void toggleLock();
  /// Opens the number field on the current layer.
  void typeValue();
  /// Where a layer's point is, in widget pixels.
  [[nodiscard]] QPointF pointOf(int layer) const;

 Q_SIGNALS:
  void layerPicked(int layer);
  void selectionChanged();
  void brushChanged(bool on);
  void readout(const QString& text, bool isError);  ///< "L17 kept 18.0 -> 24.0 %"

 protected:
  void paintOverlay(QPainter& painter) override;
  void resizeEvent(QResizeEvent* event) override;
  void showEvent(QShowEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  bool event(QEvent* event) override;
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  enum class Drag { None, Points, Marquee, Brush, Smooth };
  void rebuild();
  [[nodiscard]] int layerAt(QPointF position) const;  ///< the point under the mouse, or -1
  [[nodiscard]] int nearestLayer(double x) const;
  void dragPoints(QPointF position, Qt::KeyboardModifiers modifiers);
  void paintWithBrush(QPointF from, QPointF to);
  void smooth(QPointF position);
  void nudge(double delta, int mergeId);
  void finishTyping(bool accept);
  void endDrag();
  [[nodiscard]] std::vector<int> editedLayers() const;
  void showReadout(const QString& text, bool isError = false, QPointF at = {});

  bool m_stale = false;
  ProfileModel& m_model;
  std::function<QString(int)> m_consequence;
  std::set<int> m_selected, m_selectedBefore;
  int m_current = -1, m_hover = -1;
  bool m_brush = false;
  std::optional<double> m_target;
  Drag m_drag = Drag::None;
  bool m_moved = false;
  int m_pressedLayer = -1;
  QPointF m_press, m_last;
  std::map<int, double> m_startMeans, m_brushed;
  QLineEdit* m_editor = nullptr;
  int m_editedLayer = -1;
  QString m_readout, m_editorNote;
  bool m_readoutIsError = false;
  QPointF m_readoutAt;
};

}  // namespace sparsight
