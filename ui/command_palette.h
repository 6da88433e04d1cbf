// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <QList>

class QAction;
class QLineEdit;
class QListWidget;

namespace sparsight {

/// Every action by name: type a few letters, Enter runs it. What cannot run now is shown and says so by being grey.
class CommandPalette : public QDialog {
  Q_OBJECT
 public:
  CommandPalette(QList<QAction*> actions, QWidget* parent);
  /// Letters of `query` in order within `text`; higher is better, negative: no match. Word starts and runs count more.
  [[nodiscard]] static int score(const QString& query, const QString& text);

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void filter();
  void run();
  QList<QAction*> m_actions;
  QLineEdit* m_query;
  QListWidget* m_list;
};

}  // namespace sparsight
