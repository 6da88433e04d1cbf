// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QHash>
#include <QLabel>

namespace sparsight {

/// A label that wraps. QLabel lays its text out anew whenever it is asked for its height, and layouts ask dozens of
/// times; this one remembers.
class WrapLabel : public QLabel {
  Q_OBJECT
 public:
  explicit WrapLabel(QWidget* parent = nullptr);
  explicit WrapLabel(const QString& text, QWidget* parent = nullptr);
  [[nodiscard]] int heightForWidth(int width) const override;

 private:
  struct Known {
    QString text;
    QFont font;
    QMargins margins;
    int margin = 0, indent = 0;
    Qt::TextFormat format = Qt::AutoText;
    bool wraps = false;
    friend bool operator==(const Known&, const Known&) = default;
  };
  mutable Known m_known;
  mutable QHash<int, int> m_heights;  // by width
};

/// Small spaced caption above a group in a panel ("DENOISING STEP"); follows theme and scale.
class SectionLabel : public QLabel {
  Q_OBJECT
 public:
  explicit SectionLabel(const QString& text, QWidget* parent = nullptr);
};

/// A label in the theme's secondary colour and size; wraps on demand.
class NoteLabel : public WrapLabel {
  Q_OBJECT
 public:
  enum class Role { Secondary, Warning, Error };
  explicit NoteLabel(QWidget* parent = nullptr, bool wraps = true);
  void setRole(Role role);
};

/// One line that elides in the middle and tells the whole text as a tooltip.
class ElidedLabel : public QWidget {
  Q_OBJECT
 public:
  explicit ElidedLabel(QWidget* parent = nullptr);
  void setText(const QString& text);
  [[nodiscard]] const QString& text() const noexcept { return m_text; }
  void setBold(bool bold);
  void setAlignment(Qt::Alignment alignment);
  [[nodiscard]] QSize sizeHint() const override;
  [[nodiscard]] QSize minimumSizeHint() const override;

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  [[nodiscard]] QFont textFont() const;
  QString m_text;
  bool m_bold = false;
  Qt::Alignment m_alignment = Qt::AlignLeft | Qt::AlignVCenter;
};

}  // namespace sparsight
