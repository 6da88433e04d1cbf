// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QLabel>
#include <QSlider>
#include <QWidget>
#include <vector>

#include "sparsight/core/stages.h"
#include "ui/theme.h"

class QGridLayout;

namespace sparsight {

class NoteLabel;
class SectionLabel;

/// What a stage says: chapter, title, why, formula and its source, numbers.
class StagePanel : public QWidget {
  Q_OBJECT
 public:
  explicit StagePanel(QWidget* parent = nullptr);
  void setStage(const Stage& stage);
  void clear();
  /// Below everything: whose parameters were used.
  void setFootnote(const QString& text);
  /// The numbers as shown, "name<tab>value" per line.
  [[nodiscard]] QString numbersText() const;

 private:
  void addFact(const QString& name, const QString& value, FontRole role = FontRole::Tabular);
  struct Row {
    QLabel *name, *value;
    FontRole role;  // of the value
  };
  SectionLabel* m_chapter;
  QLabel *m_title, *m_text, *m_formula;
  NoteLabel *m_source, *m_note, *m_footnote;
  QGridLayout* m_grid;
  std::vector<Row> m_rows;
  std::size_t m_used = 0;
};

/// A slider over stages with a tick where a chapter begins: arrows go one on, PageUp and PageDown to the next chapter.
class StageSlider : public QSlider {
  Q_OBJECT
 public:
  explicit StageSlider(QWidget* parent = nullptr);
  void setChapters(std::vector<int> starts);
  /// Where the chapter after (before) the shown one begins.
  [[nodiscard]] int nextChapter() const;
  [[nodiscard]] int previousChapter() const;

 protected:
  void paintEvent(QPaintEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  std::vector<int> m_starts;
};

}  // namespace sparsight
