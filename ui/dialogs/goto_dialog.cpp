// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/goto_dialog.h"

#include <QCoreApplication>
#include <QDialogButtonBox>
#include <QLineEdit>
#include <QPushButton>
#include <QRegularExpression>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("GotoDialog", text); }

QString rangeText(const std::vector<int>& values) {
  if (values.empty()) return tr("none");
  const bool contiguous = values.back() - values.front() + 1 == static_cast<int>(values.size());
  if (contiguous)
    return values.size() == 1 ? QString::number(values.front()) : tr("%1 to %2").arg(values.front()).arg(values.back());
  QStringList list;
  for (const int v : values) list << QString::number(v);
  return list.size() <= 12 ? list.join(QStringLiteral(", "))
                           : tr("%1 values from %2 to %3").arg(list.size()).arg(list.front(), list.back());
}

/// The layout of the selected call, else the trace's.
const TokenLayout* layoutOf(const Session& session) {
  if (!session.trace()) return nullptr;
  const Selection& at = session.selection();
  const CallInfo* call = session.trace()->info().callAt(at.step, at.branch, at.layer);
  return call != nullptr ? &call->layout : &session.trace()->info().layout;
}

}  // namespace

std::optional<GotoTarget> parseGoto(const QString& text, const Session& session, QString* error) {
  const auto fail = [error](const QString& message) {
    if (error != nullptr) *error = message;
    return std::nullopt;
  };
  GotoTarget target;
  QString rest = text.trimmed();
  rest.replace(QStringLiteral("\u2192"), QStringLiteral("->"));
  rest.replace(QRegularExpression(QStringLiteral("[ \\x{202F}\\x{00A0}](?=\\d{3}\\b)")),
               QString());  // "32 760" as we print it
  if (rest.isEmpty()) return fail(tr("for example L12 H3 S20, q=1234 k=88, frame 3 row 10 col 4"));

  static const QRegularExpression place(QStringLiteral("^(?:f(?:rame)?)\\s*=?\\s*(\\d+)[\\s,]*(?:r(?:ow)?)\\s*=?\\s*("
                                                       "\\d+)[\\s,]*(?:c(?:ol(?:umn)?)?)\\s*=?\\s*(\\d+)"),
                                        QRegularExpression::CaseInsensitiveOption);
  static const QRegularExpression number(
      QStringLiteral("^(layer|head|step|query|key|l|h|s|q|k)\\s*=?\\s*(\\d+)(?![\\d.])"),
      QRegularExpression::CaseInsensitiveOption);
  static const QRegularExpression forKey(QStringLiteral("^(?:k(?:ey)?\\s*=?\\s*)(?=f)|^->"),
                                         QRegularExpression::CaseInsensitiveOption);
  static const QRegularExpression forQuery(QStringLiteral("^q(?:uery)?\\s*=?\\s*(?=f)"),
                                           QRegularExpression::CaseInsensitiveOption);
  const TokenLayout* layout = layoutOf(session);
  bool nextIsKey = false;
  while (!rest.isEmpty()) {
    QRegularExpressionMatch m = forKey.match(rest);
    if (m.hasMatch()) {
      nextIsKey = true;
      rest = rest.mid(m.capturedLength()).trimmed();
      continue;
    }
    m = forQuery.match(rest);
    if (m.hasMatch()) {
      nextIsKey = false;
      rest = rest.mid(m.capturedLength()).trimmed();
      continue;
    }
    m = place.match(rest);
    if (m.hasMatch()) {
      const Segment* video = layout == nullptr ? nullptr : layout->video();
      if (video == nullptr) return fail(tr("there is no video grid here; use q= and k="));
      const qlonglong f = m.captured(1).toLongLong(), r = m.captured(2).toLongLong(), c = m.captured(3).toLongLong();
      if (f >= video->frames || r >= video->height || c >= video->width)
        return fail(tr("the grid has frames 0 to %1, rows 0 to %2, columns 0 to %3")
                        .arg(video->frames - 1)
                        .arg(video->height - 1)
                        .arg(video->width - 1));
      const Index token = video->start + (f * video->height + r) * video->width + c;
      if (nextIsKey || target.query.has_value())
        target.key = token;
      else
        target.query = token;
      rest = rest.mid(m.capturedLength());
    } else {
      m = number.match(rest);
      if (!m.hasMatch())
        return fail(tr("\u201C%1\u201D is not understood; for example L12 H3 S20, q=1234 k=88, frame 3 row 10 col 4")
                        .arg(rest.left(24)));
      bool ok = false;
      const qlonglong value = m.captured(2).toLongLong(&ok);
      const QChar what = m.captured(1).at(0).toLower();
      if (what == QLatin1Char('q') || what == QLatin1Char('k')) {
        if (layout == nullptr) return fail(tr("tokens need an open trace"));
        if (!ok || value >= layout->tokenCount)
          return fail(tr("tokens go from 0 to %1").arg(formatCount(layout->tokenCount - 1)));
        (what == QLatin1Char('q') ? target.query : target.key) = value;
      } else {
        const std::vector<int> there = what == QLatin1Char('l')   ? session.selectableLayers()
                                       : what == QLatin1Char('h') ? session.selectableHeads()
                                                                  : session.selectableSteps();
        const QString name = what == QLatin1Char('l')   ? tr("layers")
                             : what == QLatin1Char('h') ? tr("heads")
                                                        : tr("step indices");
        if (!ok || value > 1'000'000 || std::find(there.begin(), there.end(), static_cast<int>(value)) == there.end())
          return fail(tr("there is no %1: %2 %3").arg(m.captured(0).trimmed(), name, rangeText(there)));
        (what == QLatin1Char('l')   ? target.layer
         : what == QLatin1Char('h') ? target.head
                                    : target.step) = static_cast<int>(value);
      }
      rest = rest.mid(m.capturedLength());
    }
    rest.remove(QRegularExpression(QStringLiteral("^[\\s,;]+")));
  }
  return target;
}

void applyGoto(const GotoTarget& target, Session& session) {
  Selection next = session.selection();
  if (target.step) next.step = *target.step;
  if (target.layer) next.layer = *target.layer;
  if (target.head) next.head = *target.head;
  session.setSelection(next);
  if (target.query || target.key) {
    PickedPair pair = session.pair();
    if (target.query) pair.query = *target.query;
    if (target.key) pair.key = *target.key;
    // One half alone: pick the token's own cell on the diagonal.
    if (pair.query < 0) pair.query = pair.key;
    if (pair.key < 0) pair.key = pair.query;
    session.setPair(pair);
  }
}

GotoDialog::GotoDialog(Session& session, QWidget* parent) : QDialog(parent), m_session(session) {
  setWindowTitle(QDialog::tr("Go to"));
  setObjectName(QStringLiteral("gotoDialog"));
  setMinimumWidth(420);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  column->setSpacing(Theme::kPad);
  m_line = new QLineEdit;
  m_line->setObjectName(QStringLiteral("gotoLine"));
  m_line->setPlaceholderText(QStringLiteral("L12 H3 S20    q=1234 k=88    frame 3 row 10 col 4"));
  m_line->setAccessibleName(QDialog::tr("Go to"));
  m_answer = new NoteLabel;
  m_answer->setMinimumHeight(34);
  m_answer->setAlignment(Qt::AlignTop | Qt::AlignLeft);
  column->addWidget(m_line);
  column->addWidget(m_answer);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Ok | QDialogButtonBox::Cancel);
  buttons->button(QDialogButtonBox::Ok)->setText(QDialog::tr("Go"));
  buttons->button(QDialogButtonBox::Ok)->setProperty("primary", true);
  column->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, [this] {
    if (!m_target) return;
    applyGoto(*m_target, m_session);
    accept();
  });
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
  connect(m_line, &QLineEdit::textChanged, this, &GotoDialog::check);
  check();
}

void GotoDialog::check() {
  QString error;
  m_target = parseGoto(m_line->text(), m_session, &error);
  const bool bad = !m_target && !m_line->text().trimmed().isEmpty();
  m_answer->setRole(bad ? NoteLabel::Role::Error : NoteLabel::Role::Secondary);
  if (!m_target) {
    m_answer->setText(error);
    return;
  }
  QStringList parts;
  if (m_target->step) parts << tr("step index %1 (%2)").arg(*m_target->step).arg(ordinal(*m_target->step + 1));
  if (m_target->layer) parts << tr("layer %1").arg(*m_target->layer);
  if (m_target->head) parts << tr("head %1").arg(*m_target->head);
  const TokenLayout* layout = layoutOf(m_session);
  const auto token = [&](const char* name, Index t) {
    QString text = QStringLiteral("%1 %2").arg(QLatin1String(name), formatCount(t));
    if (layout != nullptr) text += QStringLiteral(" (%1)").arg(QString::fromStdString(layout->describe(t)));
    return text;
  };
  if (m_target->query) parts << token("query", *m_target->query);
  if (m_target->key) parts << token("key", *m_target->key);
  m_answer->setText(parts.join(QStringLiteral(" \u00B7 ")));
}

}  // namespace sparsight
