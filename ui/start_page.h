// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>

class QLabel;
class QProgressBar;
class QPushButton;
class QVBoxLayout;

namespace sparsight {

class NoteLabel;
class Session;

/// What the window shows while nothing is open: the demo, open, generate, recent files, and a place to drop a file.
/// While something is being opened it shows that, with Cancel.
class StartPage : public QWidget {
  Q_OBJECT
 public:
  explicit StartPage(Session& session, QWidget* parent = nullptr);
  void refreshRecent();
  /// A file is being dragged over the window.
  void setDropHighlighted(bool on);

 Q_SIGNALS:
  void openRequested();
  void demoRequested();
  void synthRequested();
  void fileRequested(const QString& path);

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  void refreshProgress();
  Session& m_session;
  QWidget* m_card;
  QVBoxLayout* m_recent;
  QWidget* m_recentBox;
  QPushButton *m_demo, *m_open, *m_synth;
  QWidget* m_progressBox;
  NoteLabel* m_progressText;
  QProgressBar* m_bar;
  QPushButton* m_cancel;
  QLabel *m_title, *m_drop;
  bool m_highlight = false;
};

}  // namespace sparsight
