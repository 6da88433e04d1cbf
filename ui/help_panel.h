// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QTextBlock>
#include <QTextBrowser>
#include <QTimer>
#include <QWidget>
#include <cstdint>
#include <memory>
#include <utility>

class QLineEdit;
class QToolButton;

namespace sparsight {

class NoteLabel;

/// The documentation in the program: Markdown pages of :/resources/docs with links, back, forward and search in the
/// page. Pages are also readable on their own in the repository. A page is read, styled, shown and laid out in turns of
/// the event loop; until then the one before it stays.
class HelpPanel : public QWidget {
  Q_OBJECT
 public:
  explicit HelpPanel(QWidget* parent = nullptr);
  ~HelpPanel() override;
  /// "views.md#heads": that heading goes to the top of the panel, and stays there while the panel changes its width,
  /// until somebody scrolls. An unknown page shows the index, an unknown anchor the page's top.
  void showPage(const QString& page);
  /// The page that was asked for last; isSettled() tells whether it is what pageText() is of.
  [[nodiscard]] QString currentPage() const;
  [[nodiscard]] QString pageText() const;
  [[nodiscard]] bool isSettled() const noexcept { return m_step == Step::None; }
  void focusSearch();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;
  void changeEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  /// What is left to do for the page that was asked for.
  enum class Step : std::uint8_t { None, Read, Style, Show, LayOut, LayOutRest };
  void load(const QString& page);
  void turn();
  void readPage();
  void showDocument();
  /// A part of the text; true: up to a screenful below the heading, or to the end.
  bool layOutPart(bool toTheEnd);
  void alignHeading();
  /// The look that documents have.
  [[nodiscard]] static std::pair<bool, double> madeFor();
  void navigate(int delta);
  void find(bool backwards);
  QTextBrowser* m_browser;
  QLineEdit* m_search;
  NoteLabel* m_found;
  QToolButton *m_back, *m_forward;
  QStringList m_history;
  int m_at = -1;
  Step m_step = Step::None;
  QTimer m_turn;
  std::unique_ptr<QTextDocument> m_document, m_next;  ///< the one that is shown; the one on its way
  QString m_shown, m_anchor;                          ///< the page of m_document; the heading to go to
  QTextBlock m_laidOut, m_heading;
  std::pair<bool, double> m_madeFor;  ///< that of m_next, or else m_document
  bool m_aligned = false;             ///< nobody has scrolled since
};

/// GitHub's anchor of a heading: "Attention map" -> "attention-map".
[[nodiscard]] QString headingAnchor(const QString& heading);

}  // namespace sparsight
