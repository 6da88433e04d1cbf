// SPDX-License-Identifier: Apache-2.0
#include "ui/budget_table.h"

#include <QApplication>
#include <QClipboard>
#include <QHeaderView>
#include <QItemSelectionModel>
#include <QKeyEvent>
#include <QLineEdit>
#include <QMouseEvent>
#include <QPainter>
#include <QStyledItemDelegate>
#include <array>
#include <utility>

#include "ui/icons.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

class Delegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;

  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    const QVariant reason = index.data(ProfileModel::InvalidReasonRole);
    QStyleOptionViewItem cell = option;
    initStyleOption(&cell, index);
    const QString text = std::exchange(cell.text, QString());
    cell.state &= ~QStyle::State_HasFocus;
    QApplication::style()->drawControl(QStyle::CE_ItemViewItem, &cell, painter, cell.widget);
    if (index.column() == ProfileModel::LockColumn && !reason.isValid()) {
      if (index.data(ProfileModel::LockedRole).toBool()) {
        const QPixmap lock = tintedPixmap(QStringLiteral("lock"), 16, Theme::current().secondary,
                                          painter->device()->devicePixelRatioF());
        painter->drawPixmap(QPointF(option.rect.left() + 8, option.rect.center().y() - 7.5), lock);
      }
    } else {
      painter->save();
      painter->setFont(cell.font);
      painter->setPen(cell.palette.color(QPalette::Text));
      const QRect room = option.rect.adjusted(8, 0, -8, 0);  // in line with the header's padding
      painter->drawText(room, static_cast<int>(cell.displayAlignment | Qt::TextSingleLine),
                        QFontMetrics(cell.font).elidedText(text, Qt::ElideRight, room.width()));
      painter->restore();
    }
    if (option.state & QStyle::State_HasFocus) {
      painter->save();
      painter->setPen(QPen(Theme::current().accent, 2));
      painter->drawRect(option.rect.adjusted(1, 1, -1, -1));
      painter->restore();
    }
    if (!reason.isValid()) return;
    const Theme& theme = Theme::current();
    painter->save();
    painter->setRenderHint(QPainter::Antialiasing);
    painter->setPen(QPen(theme.error, 2));
    painter->setBrush(Qt::NoBrush);
    painter->drawRect(QRectF(option.rect).adjusted(1, 1, -1, -1));
    const QPixmap icon =
        tintedPixmap(QStringLiteral("warning"), 16, theme.error, painter->device()->devicePixelRatioF());
    painter->drawPixmap(QPointF(option.rect.left() + 6, option.rect.center().y() - 7.5), icon);
    painter->restore();
  }

  QWidget* createEditor(QWidget* parent, const QStyleOptionViewItem&, const QModelIndex& index) const override {
    if (index.column() == ProfileModel::LockColumn) return nullptr;  // toggled, not typed
    auto* editor = new QLineEdit(parent);
    editor->setFrame(false);
    editor->setAlignment(static_cast<Qt::Alignment>(index.data(Qt::TextAlignmentRole).toInt()));
    return editor;
  }

  bool editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option,
                   const QModelIndex& index) override {
    if (index.column() == ProfileModel::LockColumn && event->type() == QEvent::MouseButtonRelease &&
        static_cast<QMouseEvent*>(event)->button() == Qt::LeftButton && option.rect.width() > 0) {
      return model->setData(index, !index.data(ProfileModel::LockedRole).toBool());
    }
    return QStyledItemDelegate::editorEvent(event, model, option, index);
  }
};

}  // namespace

BudgetTable::BudgetTable(ProfileModel& model, QWidget* parent) : QTableView(parent), m_model(model) {
  setObjectName(QStringLiteral("budget.table"));
  setAccessibleName(tr("Budget table"));
  setModel(&model);
  setItemDelegate(new Delegate(this));
  setSelectionMode(QAbstractItemView::ExtendedSelection);
  setSelectionBehavior(QAbstractItemView::SelectItems);
  setEditTriggers(QAbstractItemView::DoubleClicked | QAbstractItemView::EditKeyPressed |
                  QAbstractItemView::AnyKeyPressed);
  setShowGrid(false);
  setAlternatingRowColors(true);
  setTabKeyNavigation(false);
  setFrameShape(QFrame::NoFrame);
  setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  setVerticalScrollMode(QAbstractItemView::ScrollPerPixel);
  verticalHeader()->hide();
  verticalHeader()->setDefaultSectionSize(24);
  QHeaderView* header = horizontalHeader();
  fonts::give(header, FontRole::Secondary);
  header->setHighlightSections(false);
  header->setSectionResizeMode(ProfileModel::NoteColumn, QHeaderView::Stretch);
  header->setMinimumSectionSize(32);
  connect(&model, &QAbstractItemModel::headerDataChanged, this, &BudgetTable::fitColumns);
  connect(&model, &QAbstractItemModel::modelReset, this, &BudgetTable::fitColumns);
  fitColumns();
}

BudgetTable::~BudgetTable() = default;

void BudgetTable::fitColumns() {
  // As wide as header and widest number, so that a narrow panel still shows the lock and the beginning of the note.
  const QFontMetrics title(fonts::secondary()), digits(fonts::tabular());
  constexpr int kPadding = 18;
  for (int column = 0; column < ProfileModel::NoteColumn; ++column) {
    const int head = title.horizontalAdvance(m_model.headerData(column, Qt::Horizontal, Qt::DisplayRole).toString());
    const int widest = column == ProfileModel::LockColumn    ? 16
                       : column == ProfileModel::LayerColumn ? digits.horizontalAdvance(QStringLiteral("L99"))
                                                             : digits.horizontalAdvance(QStringLiteral("100.0"));
    setColumnWidth(column, std::max(head, widest) + kPadding);
  }
}

std::set<int> BudgetTable::selectedLayers() const {
  std::set<int> out;
  const QItemSelection chosen = selectionModel()->selection();
  for (const QItemSelectionRange& range : chosen) {
    for (int row = range.top(); row <= range.bottom(); ++row) out.insert(row);
  }
  return out;
}

void BudgetTable::selectLayers(const std::set<int>& layers, int current) {
  const int column = currentIndex().isValid() ? currentIndex().column() : static_cast<int>(ProfileModel::KeptColumn);
  QItemSelection selection;
  for (const int layer : layers) selection.select(m_model.index(layer, column), m_model.index(layer, column));
  if (current >= 0) {
    selectionModel()->setCurrentIndex(m_model.index(current, column), QItemSelectionModel::NoUpdate);
    scrollTo(m_model.index(current, column));
  }
  selectionModel()->select(selection, QItemSelectionModel::ClearAndSelect);
}

void BudgetTable::copy() {
  const QModelIndexList chosen = selectionModel()->selectedIndexes();
  if (!chosen.isEmpty()) QApplication::clipboard()->setText(m_model.copyTsv(chosen));
}

void BudgetTable::paste() {
  QModelIndex topLeft = currentIndex();
  const QModelIndexList chosen = selectionModel()->selectedIndexes();
  for (const QModelIndex& at : chosen) {
    if (at.row() < topLeft.row() || (at.row() == topLeft.row() && at.column() < topLeft.column())) topLeft = at;
  }
  m_model.pasteTsv(topLeft, QApplication::clipboard()->text());
}

void BudgetTable::fillDown() { m_model.fillDown(selectionModel()->selectedIndexes()); }

bool BudgetTable::event(QEvent* event) {
  // The window has actions on some of these keys; in a focused table they mean cells.
  if (event->type() == QEvent::ShortcutOverride) {
    const auto* key = static_cast<QKeyEvent*>(event);
    if (key->matches(QKeySequence::Copy) || key->matches(QKeySequence::Paste) ||
        (key->modifiers() == Qt::ControlModifier && key->key() == Qt::Key_D) ||
        (key->modifiers() == Qt::NoModifier && !key->text().isEmpty())) {
      event->accept();
    }
  }
  return QTableView::event(event);
}

void BudgetTable::keyPressEvent(QKeyEvent* event) {
  const QModelIndex at = currentIndex();
  if (event->matches(QKeySequence::Copy)) {
    copy();
  } else if (event->matches(QKeySequence::Paste)) {
    paste();
  } else if (event->modifiers() == Qt::ControlModifier && event->key() == Qt::Key_D) {
    fillDown();
  } else if (event->key() == Qt::Key_Space && at.isValid() && at.column() == ProfileModel::LockColumn) {
    m_model.setData(at, !at.data(ProfileModel::LockedRole).toBool());
  } else if (event->key() == Qt::Key_Escape && at.data(ProfileModel::InvalidReasonRole).isValid()) {
    m_model.discardInvalid(at);
  } else if (state() != EditingState && (event->key() == Qt::Key_Return || event->key() == Qt::Key_Enter) &&
             at.isValid() && at.column() != ProfileModel::LockColumn) {
    edit(at);
  } else {
    QTableView::keyPressEvent(event);
  }
}

void BudgetTable::selectionChanged(const QItemSelection& selected, const QItemSelection& deselected) {
  QTableView::selectionChanged(selected, deselected);
  Q_EMIT layersSelected();
}

}  // namespace sparsight
