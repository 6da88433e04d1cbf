// SPDX-License-Identifier: Apache-2.0
#include "ui/help_shortcuts.h"

#include <QAction>
#include <QHeaderView>
#include <QLineEdit>
#include <QTreeWidget>
#include <QVBoxLayout>
#include <array>

#include "ui/theme.h"

namespace sparsight {
namespace {

struct ViewKey {
  const char *group, *keys, *what;
};
/// Keys that a view handles itself while it has the focus.
constexpr std::array kViewKeys{
    ViewKey{"Attention map", "Wheel", "Zoom at the cursor (Ctrl: fine)"},
    ViewKey{"Attention map", "Alt+Wheel / Shift+Wheel", "Zoom the key axis / the query axis only"},
    ViewKey{"Attention map", "Drag", "Pan"},
    ViewKey{"Attention map", "Ctrl+Drag", "Zoom to a rectangle"},
    ViewKey{"Attention map", "Right click", "Pick a cell: pins the readout"},
    ViewKey{"Attention map", "Arrows", "Move the picked cell"},
    ViewKey{"Attention map", "F / 0 / 1", "Fit / fit all / one cell per pixel"},
    ViewKey{"Attention map", "Alt+Left / Alt+Right", "Zoom history"},
    ViewKey{"Attention map", "M  G  A", "Minimap, grid lines, aspect lock"},
    ViewKey{"Attention map", "L  C  R", "Log or linear, next colour map, reset limits"},
    ViewKey{"Attention map", "PageUp / PageDown", "Layer"},
    ViewKey{"Attention map", "[  ]", "Head"},
    ViewKey{"Attention map", ",  .", "Denoising step"},
    ViewKey{"Heads", "Arrows, Home, End", "Move; Ctrl+Home first, Ctrl+End last"},
    ViewKey{"Heads", "Enter", "Show the head in the map"},
    ViewKey{"Trace", "Space", "Play through the denoising steps"},
    ViewKey{"Budget", "Drag a point", "Set a layer (Shift fine, Ctrl whole per cent)"},
    ViewKey{"Budget", "Up / Down", "1 % (Shift 5 %, Ctrl 0.1 %)"},
    ViewKey{"Budget", "L  B", "Lock the layer, brush"},
    ViewKey{"Budget", "F2, Ctrl+C, Ctrl+V, Ctrl+D", "Edit, copy, paste from a spreadsheet, fill down"},
};

}  // namespace

ShortcutSheet::ShortcutSheet(const QList<QAction*>& actions, QWidget* parent) : QDialog(parent) {
  setWindowTitle(tr("Keys"));
  setObjectName(QStringLiteral("shortcutSheet"));
  resize(560, 640);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  auto* search = new QLineEdit;
  search->setPlaceholderText(tr("Search keys and actions"));
  search->setClearButtonEnabled(true);
  column->addWidget(search);
  auto* tree = new QTreeWidget;
  tree->setColumnCount(2);
  tree->setHeaderHidden(true);
  tree->setRootIsDecorated(false);
  tree->setIndentation(8);
  tree->setFocusPolicy(Qt::NoFocus);
  tree->setSelectionMode(QAbstractItemView::NoSelection);
  tree->setAccessibleName(tr("Keys"));
  tree->setUniformRowHeights(true);
  const QSize roomy(0, QFontMetrics(fonts::base()).height() + Theme::kPad);
  column->addWidget(tree);

  const auto group = [tree, roomy](const QString& name) {
    for (int i = 0; i < tree->topLevelItemCount(); ++i)
      if (tree->topLevelItem(i)->data(0, Qt::UserRole).toString() == name) return tree->topLevelItem(i);
    auto* item = new QTreeWidgetItem(tree, {name});
    item->setData(0, Qt::UserRole, name);
    item->setFont(0, fonts::title());
    item->setFirstColumnSpanned(true);
    item->setSizeHint(0, roomy);
    return item;
  };
  for (const QAction* action : actions) {
    if (action->shortcut().isEmpty() || action->text().isEmpty()) continue;
    QString name = action->text();
    name.remove(QLatin1Char('&'));
    QStringList keys;
    for (const QKeySequence& key : action->shortcuts()) keys << key.toString(QKeySequence::NativeText);
    new QTreeWidgetItem(group(action->property("group").toString()), {name, keys.join(QStringLiteral("   "))});
  }
  for (const ViewKey& key : kViewKeys)
    new QTreeWidgetItem(group(tr("%1 (while it has the focus)").arg(QLatin1String(key.group))),
                        {QLatin1String(key.what), QLatin1String(key.keys)});
  tree->expandAll();
  tree->header()->setSectionResizeMode(0, QHeaderView::Stretch);
  tree->header()->setSectionResizeMode(1, QHeaderView::ResizeToContents);
  tree->header()->setStretchLastSection(false);
  connect(search, &QLineEdit::textChanged, this, [tree](const QString& text) {
    for (int i = 0; i < tree->topLevelItemCount(); ++i) {
      QTreeWidgetItem* top = tree->topLevelItem(i);
      int shown = 0;
      for (int j = 0; j < top->childCount(); ++j) {
        QTreeWidgetItem* row = top->child(j);
        const bool hit = row->text(0).contains(text, Qt::CaseInsensitive) ||
                         row->text(1).contains(text, Qt::CaseInsensitive) ||
                         top->text(0).contains(text, Qt::CaseInsensitive);
        row->setHidden(!hit);
        if (hit) ++shown;
      }
      top->setHidden(shown == 0);
    }
  });
}

}  // namespace sparsight
