// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QPointF>
#include <QString>
#include <QVector>
#include <QWidget>
#include <optional>

namespace sparsight {

/// A small plot beside something larger: a few lines with names, an upright mark where one is now. Title on top, limits
/// at the axes; no interaction.
class SmallCurve : public QWidget {
  Q_OBJECT
 public:
  enum class Ink { First, Second, Accent, Faint };
  struct Line {
    QString name;  ///< in the legend; empty: not in it
    QVector<QPointF> points;
    Ink ink = Ink::First;
    bool dots = false;
  };
  struct Mark {
    double at = 0;  ///< x of an upright line, or y of a level one
    QString label;
    bool level = false;
  };
  struct Axis {
    double min = 0, max = 1;
    QString minLabel, maxLabel, name;
  };
  explicit SmallCurve(QWidget* parent = nullptr);
  void setPlot(const QString& title, const Axis& x, const Axis& y, const QVector<Line>& lines,
               const QVector<Mark>& marks = {});
  [[nodiscard]] const QVector<Line>& lines() const noexcept { return m_lines; }
  [[nodiscard]] const QVector<Mark>& marks() const noexcept { return m_marks; }
  [[nodiscard]] QPointF toPixel(QPointF value) const;
  [[nodiscard]] QSize sizeHint() const override { return {300, 150}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {150, 80}; }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  [[nodiscard]] QRectF plot() const;
  QString m_title;
  Axis m_x, m_y;
  QVector<Line> m_lines;
  QVector<Mark> m_marks;
};

/// Named bars side by side with a level to compare them with.
class SmallBars : public QWidget {
  Q_OBJECT
 public:
  struct Bar {
    QString name;
    double value = 0;
    int group = 0;  ///< -1, 0, +1
    bool marked = false;
  };
  explicit SmallBars(QWidget* parent = nullptr);
  /// groupNames: for -1, 0, +1; empty ones are not explained. asShares: 0 to 100 %.
  void setBars(const QString& title, const QVector<Bar>& bars, std::optional<double> threshold,
               const QVector<QString>& groupNames, bool asShares);
  [[nodiscard]] const QVector<Bar>& bars() const noexcept { return m_bars; }
  [[nodiscard]] QSize sizeHint() const override { return {420, 260}; }
  [[nodiscard]] QSize minimumSizeHint() const override { return {180, 120}; }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  QString m_title;
  QVector<Bar> m_bars;
  QVector<QString> m_groupNames;
  std::optional<double> m_threshold;
  bool m_asShares = false;
};

}  // namespace sparsight
