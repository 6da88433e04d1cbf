// SPDX-License-Identifier: Apache-2.0
#include "ui/command_palette.h"

#include <QAction>
#include <QKeyEvent>
#include <QLineEdit>
#include <QListWidget>
#include <QPainter>
#include <QStyledItemDelegate>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/theme.h"

namespace sparsight {
namespace {

QString plainText(const QAction* action) {
  QString text = action->text();
  text.remove(QLatin1Char('&'));
  const QString group = action->property("group").toString();
  return group.isEmpty() ? text : group + QStringLiteral(": ") + text;
}

/// Name left, key right.
class RowDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    const Theme& theme = Theme::current();
    const bool selected = option.state & QStyle::State_Selected;
    const bool enabled = index.flags() & Qt::ItemIsEnabled;
    painter->save();
    painter->setRenderHint(QPainter::Antialiasing);
    if (selected) {
      painter->setPen(Qt::NoPen);
      painter->setBrush(theme.accent);
      painter->drawRoundedRect(QRectF(option.rect).adjusted(2, 1, -2, -1), 4, 4);
    }
    const QRect inner = option.rect.adjusted(Theme::kGroupGap, 0, -Theme::kGroupGap, 0);
    painter->setFont(fonts::base());
    painter->setPen(selected ? theme.onAccent : enabled ? theme.text : theme.disabled);
    painter->drawText(inner, Qt::AlignLeft | Qt::AlignVCenter, index.data().toString());
    painter->setPen(selected ? theme.onAccent : enabled ? theme.secondary : theme.disabled);
    painter->setFont(fonts::secondary());
    painter->drawText(inner, Qt::AlignRight | Qt::AlignVCenter, index.data(Qt::UserRole + 1).toString());
    painter->restore();
  }
  [[nodiscard]] QSize sizeHint(const QStyleOptionViewItem&, const QModelIndex&) const override {
    return {200, Theme::kControl + 2};
  }
};

}  // namespace

int CommandPalette::score(const QString& query, const QString& text) {
  if (query.isEmpty()) return 0;
  int total = 0, at = 0, run = 0;
  for (const QChar wanted : query) {
    if (wanted.isSpace()) {
      run = 0;
      continue;
    }
    int found = -1;
    for (int i = at; i < text.size(); ++i)
      if (text[i].toLower() == wanted.toLower()) {
        found = i;
        break;
      }
    if (found < 0) return -1;
    const bool wordStart = found == 0 || !text[found - 1].isLetterOrNumber();
    run = found == at && at > 0 ? run + 1 : 0;
    total += 1 + (wordStart ? 6 : 0) + std::min(run, 4) * 2;
    at = found + 1;
  }
  return std::max(0, total * 16 + 200 - static_cast<int>(text.size()));
}

CommandPalette::CommandPalette(QList<QAction*> actions, QWidget* parent)
    : QDialog(parent, Qt::Popup | Qt::FramelessWindowHint), m_actions(std::move(actions)) {
  setObjectName(QStringLiteral("commandPalette"));
  setProperty("role", QStringLiteral("popup"));
  setAttribute(Qt::WA_DeleteOnClose);
  resize(560, 420);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kPad, Theme::kPad, Theme::kPad, Theme::kPad);
  m_query = new QLineEdit;
  m_query->setPlaceholderText(tr("Type a command"));
  m_query->setAccessibleName(tr("Command"));
  m_query->installEventFilter(this);
  m_list = new QListWidget;
  m_list->setItemDelegate(new RowDelegate(m_list));
  m_list->setFocusPolicy(Qt::NoFocus);
  m_list->setUniformItemSizes(true);
  m_list->setAccessibleName(tr("Commands"));
  column->addWidget(m_query);
  column->addWidget(m_list, 1);
  connect(m_query, &QLineEdit::textChanged, this, &CommandPalette::filter);
  connect(m_query, &QLineEdit::returnPressed, this, &CommandPalette::run);
  connect(m_list, &QListWidget::itemClicked, this, &CommandPalette::run);
  filter();
  m_query->setFocus();
}

void CommandPalette::filter() {
  m_list->clear();
  std::vector<std::pair<int, QAction*>> hits;
  for (QAction* action : m_actions) {
    const int s = score(m_query->text(), plainText(action));
    if (s >= 0) hits.emplace_back(s, action);
  }
  std::stable_sort(hits.begin(), hits.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (const auto& [s, action] : hits) {
    auto* item = new QListWidgetItem(plainText(action), m_list);
    item->setData(Qt::UserRole, QVariant::fromValue<QObject*>(action));
    item->setData(Qt::UserRole + 1, action->shortcut().toString(QKeySequence::NativeText));
    if (!action->isEnabled()) item->setFlags(Qt::NoItemFlags);
  }
  for (int i = 0; i < m_list->count(); ++i)
    if (m_list->item(i)->flags() & Qt::ItemIsEnabled) {
      m_list->setCurrentRow(i);
      break;
    }
}

void CommandPalette::run() {
  const QListWidgetItem* item = m_list->currentItem();
  if (item == nullptr || !(item->flags() & Qt::ItemIsEnabled)) return;
  auto* action = qobject_cast<QAction*>(item->data(Qt::UserRole).value<QObject*>());
  close();
  // After the popup is gone, so that an action that opens a dialog gets the focus.
  if (action != nullptr) QMetaObject::invokeMethod(action, &QAction::trigger, Qt::QueuedConnection);
}

bool CommandPalette::eventFilter(QObject* watched, QEvent* event) {
  if (watched == m_query && event->type() == QEvent::KeyPress) {
    const auto* key = static_cast<QKeyEvent*>(event);
    const int delta = key->key() == Qt::Key_Down ? 1 : key->key() == Qt::Key_Up ? -1 : 0;
    if (delta != 0) {
      int row = m_list->currentRow() + delta;
      while (row >= 0 && row < m_list->count() && !(m_list->item(row)->flags() & Qt::ItemIsEnabled)) row += delta;
      if (row >= 0 && row < m_list->count()) m_list->setCurrentRow(row);
      return true;
    }
  }
  return QDialog::eventFilter(watched, event);
}

}  // namespace sparsight
