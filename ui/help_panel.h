// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QTextBrowser>
#include <QWidget>

class QLineEdit;
class QToolButton;

namespace sparsight {

class NoteLabel;

/// The documentation in the program: Markdown pages of :/resources/docs with links, back, forward and search in the
/// page. Pages are also readable on their own in the repository.
class HelpPanel : public QWidget {
  Q_OBJECT
 public:
  explicit HelpPanel(QWidget* parent = nullptr);
  /// "views.md#heads"; an unknown page shows the index, an unknown anchor the page's top.
  void showPage(const QString& page);
  /// The heading that the page was asked for goes to the top.
  void scrollToAnchor();
  [[nodiscard]] QString currentPage() const;
  [[nodiscard]] QString pageText() const;
  void focusSearch();

 protected:
  void changeEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  void load(const QString& page);
  void navigate(int delta);
  void find(bool backwards);
  QTextBrowser* m_browser;
  QLineEdit* m_search;
  NoteLabel* m_found;
  QToolButton *m_back, *m_forward;
  QStringList m_history;
  int m_at = -1;
};

/// GitHub's anchor of a heading: "Attention map" -> "attention-map".
[[nodiscard]] QString headingAnchor(const QString& heading);

}  // namespace sparsight
