// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QLabel>
#include <QPushButton>
#include <QWidget>

namespace sparsight {

class Session;

/// What a view of the profile shows while there is none: what would be here and the buttons that help.
class NoProfilePage : public QWidget {
  Q_OBJECT
 public:
  NoProfilePage(Session& session, const QString& text, QWidget* parent = nullptr);
  ~NoProfilePage() override;
  /// Call when the trace changed.
  void refresh();

 private:
  Session& m_session;
  QPushButton *m_create = nullptr, *m_measure = nullptr, *m_open = nullptr;
  QLabel* m_why = nullptr;
};

}  // namespace sparsight
