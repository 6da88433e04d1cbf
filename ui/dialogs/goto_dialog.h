// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <QString>
#include <optional>

#include "ui/session.h"

class QLabel;
class QLineEdit;

namespace sparsight {

class NoteLabel;

/// Where a "go to" text points; what it does not name stays as it is.
struct GotoTarget {
  std::optional<int> step, layer, head;
  std::optional<Index> query, key;
};
/// Grammar, parts in any order, separated by blanks or commas: `L12 H3 S20`, `layer 12`, `q=1234 k=88`,
/// `frame 3 row 10 col 4` or `f3 r10 c4` (the query; a second one, or one after `->`, is the key). On failure `error`
/// says what was not understood or does not exist there.
[[nodiscard]] std::optional<GotoTarget> parseGoto(const QString& text, const Session& session, QString* error);
/// Selects what the target names.
void applyGoto(const GotoTarget& target, Session& session);

/// One line: type, see what it means, Enter.
class GotoDialog : public QDialog {
  Q_OBJECT
 public:
  GotoDialog(Session& session, QWidget* parent);

 private:
  void check();
  Session& m_session;
  QLineEdit* m_line;
  NoteLabel* m_answer;
  std::optional<GotoTarget> m_target;
};

}  // namespace sparsight
