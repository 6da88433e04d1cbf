// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_model.h"

#include <QRegularExpression>
#include <QSet>
#include <algorithm>
#include <limits>

#include "sparsight/kernels/error.h"
#include "ui/profile_document.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

std::optional<double> meanOf(const ProfileSummary& summary) {
  return summary.count > 0 ? std::optional<double>(summary.mean) : std::nullopt;
}

std::optional<bool> parseFlag(const QString& text) {
  static const QSet<QString> kYes{QStringLiteral("1"), QStringLiteral("yes"), QStringLiteral("true"),
                                  QStringLiteral("locked"), QStringLiteral("x")};
  static const QSet<QString> kNo{QString(), QStringLiteral("0"), QStringLiteral("no"), QStringLiteral("false"),
                                 QStringLiteral("-")};
  const QString key = text.trimmed().toLower();
  if (kYes.contains(key)) return true;
  if (kNo.contains(key)) return false;
  return std::nullopt;
}

/// Rows and cells of clipboard text; spreadsheets end the last row with a line break.
QVector<QStringList> splitTsv(QString text) {
  text.replace(QLatin1String("\r\n"), QLatin1String("\n")).replace(QLatin1Char('\r'), QLatin1Char('\n'));
  while (text.endsWith(QLatin1Char('\n'))) text.chop(1);
  QVector<QStringList> rows;
  const QStringList lines = text.split(QLatin1Char('\n'));
  for (const QString& line : lines) rows << line.split(QLatin1Char('\t'));
  return rows;
}

}  // namespace

ProfileModel::ProfileModel(ProfileDocument& document, QObject* parent)
    : QAbstractTableModel(parent), m_document(document) {
  connect(&document, &ProfileDocument::profileChanged, this, [this] { refresh(false); });
  // What was typed into another profile does not belong to this one.
  connect(&document, &ProfileDocument::profileReplaced, this, [this] { m_invalid.clear(); });
  refresh(true);
}

ProfileModel::~ProfileModel() = default;

void ProfileModel::setScope(const BudgetScope& scope) {
  if (scope == m_scope) return;
  m_scope = scope;
  refresh(false);
}

ProfileSummary ProfileModel::total() const { return budget::summarise(m_document.current(), m_scope); }

void ProfileModel::refresh(bool force) {
  const Profile& now = m_document.current();
  const Profile& saved = m_document.saved();
  // A scope of another profile may point outside of this one.
  if (m_scope.step && *m_scope.step >= now.steps()) m_scope.step.reset();
  if (m_scope.head && *m_scope.head >= now.heads()) m_scope.head.reset();
  const bool reset = force || now.layers() != static_cast<int>(m_layers.size());
  if (reset) m_invalid.clear();
  if (reset) beginResetModel();
  std::vector<ProfileSummary> layers, savedLayers;
  for (int l = 0; l < now.layers(); ++l) {
    layers.push_back(budget::summarise(now, l, m_scope));
    savedLayers.push_back(l < saved.layers() ? budget::summarise(saved, l, m_scope) : ProfileSummary{});
  }
  m_layers = std::move(layers);
  m_savedLayers = std::move(savedLayers);
  if (reset) {
    endResetModel();
  } else if (!m_layers.empty()) {
    Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, ColumnCount - 1));
    Q_EMIT headerDataChanged(Qt::Horizontal, KeptColumn, KeptColumn);
  }
}

int ProfileModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(m_layers.size());
}
int ProfileModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnCount; }

QVariant ProfileModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::TextAlignmentRole) {
    const bool left = section == NoteColumn || section == LayerColumn || section == LockColumn;
    return QVariant(static_cast<int>((left ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter));
  }
  if (role == Qt::ToolTipRole) {
    switch (section) {
      case KeptColumn:
        return tr("Mean over the chosen steps and heads. Type 24, =prev, *1.1 or +2 (points).");
      case MinColumn:
      case MaxColumn:
        return tr("Over the chosen steps and heads");
      case SavedColumn:
        return tr("Mean in the file as last saved or opened");
      case LockColumn:
        return tr("Locked layers are not changed by edits (L)");
      default:
        return {};
    }
  }
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case LayerColumn:
      return tr("Layer");
    case KeptColumn:
      switch (m_document.current().role) {
        case BudgetRole::KeptFloor:
          return tr("Kept floor %");
        case BudgetRole::TopMass:
          return tr("Top mass %");
        case BudgetRole::KeptTarget:
          break;
      }
      return tr("Kept %");
    case MinColumn:
      return tr("Min %");
    case MaxColumn:
      return tr("Max %");
    case SavedColumn:
      return tr("Saved %");
    case LockColumn:
      return tr("Locked");
    case NoteColumn:
      return tr("Note");
    default:
      return {};
  }
}

QVariant ProfileModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || index.row() >= rowCount()) return {};
  const int layer = index.row(), column = index.column();
  const ProfileSummary& summary = m_layers[static_cast<std::size_t>(layer)];
  const Profile& profile = m_document.current();
  const auto invalid = m_invalid.find({layer, column});
  const auto percent = [](bool has, double value) {
    return has ? budget::percentDigits(value) : QStringLiteral("\u2013");
  };
  switch (role) {
    case Qt::DisplayRole:
    case Qt::EditRole:
      if (invalid != m_invalid.end()) return invalid->second.first;
      switch (column) {
        case LayerColumn:
          return QStringLiteral("L%1").arg(layer);
        case KeptColumn:
          if (role == Qt::EditRole && summary.count == 0) return QString();
          return percent(summary.count > 0, summary.mean);
        case MinColumn:
          return percent(summary.count > 0, summary.min);
        case MaxColumn:
          return percent(summary.count > 0, summary.max);
        case SavedColumn: {
          const ProfileSummary& saved = m_savedLayers[static_cast<std::size_t>(layer)];
          return percent(saved.count > 0, saved.mean);
        }
        case LockColumn:
          return role == Qt::DisplayRole ? (profile.layerLocked(layer) ? tr("locked") : QString())
                                         : QVariant(profile.layerLocked(layer));
        case NoteColumn:
          return QString::fromStdString(profile.layerNote(layer));
        default:
          return {};
      }
    case Qt::TextAlignmentRole:
      return QVariant(static_cast<int>(
          (column >= KeptColumn && column <= SavedColumn ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter));
    case Qt::FontRole:
      return column >= KeptColumn && column <= SavedColumn ? fonts::tabular() : fonts::base();
    case Qt::ForegroundRole: {
      const Theme& theme = Theme::current();
      if (invalid != m_invalid.end()) return theme.error;
      if (column == MinColumn || column == MaxColumn || column == SavedColumn || column == LockColumn) {
        return theme.secondary;
      }
      return profile.layerLocked(layer) ? theme.secondary : theme.text;
    }
    case Qt::ToolTipRole:
      if (invalid != m_invalid.end()) return invalid->second.second;
      if (column == KeptColumn && summary.count > 0) {
        QString text = tr("Layer %1: kept %2 % (skipped %3 %), mean of %4 values")
                           .arg(layer)
                           .arg(budget::percentDigits(summary.mean), budget::percentDigits(1 - summary.mean))
                           .arg(summary.count);
        if (summary.holes > 0) text += tr(", %1 holes").arg(summary.holes);
        return text;
      }
      return {};
    case Qt::AccessibleTextRole:
      if (column == KeptColumn && invalid != m_invalid.end()) {
        return tr("Layer %1, not taken: %2").arg(layer).arg(invalid->second.second);
      }
      return {};
    case FractionRole:
      return summary.count > 0 ? QVariant(summary.mean) : QVariant();
    case InvalidTextRole:
      return invalid != m_invalid.end() ? QVariant(invalid->second.first) : QVariant();
    case InvalidReasonRole:
      return invalid != m_invalid.end() ? QVariant(invalid->second.second) : QVariant();
    case LockedRole:
      return profile.layerLocked(layer);
    default:
      return {};
  }
}

Qt::ItemFlags ProfileModel::flags(const QModelIndex& index) const {
  if (!index.isValid()) return Qt::NoItemFlags;
  Qt::ItemFlags flags = Qt::ItemIsEnabled | Qt::ItemIsSelectable | Qt::ItemNeverHasChildren;
  const bool locked = m_document.current().layerLocked(index.row());
  if ((index.column() == KeptColumn && !locked) || index.column() == NoteColumn || index.column() == LockColumn) {
    flags |= Qt::ItemIsEditable;
  }
  return flags;
}

void ProfileModel::setInvalid(int row, int column, const QString& text, const QString& reason) {
  m_invalid[{row, column}] = {text, reason};
  const QModelIndex at = index(row, column);
  Q_EMIT dataChanged(at, at);
  Q_EMIT message(QStringLiteral("L%1: %2").arg(row).arg(reason), true);
}

void ProfileModel::discardInvalid(const QModelIndex& at) {
  if (m_invalid.erase({at.row(), at.column()}) > 0) Q_EMIT dataChanged(at, at);
}

bool ProfileModel::setKept(int row, const QString& text) {
  const std::size_t i = static_cast<std::size_t>(row);
  const auto previous = row > 0 ? meanOf(m_layers[i - 1]) : std::nullopt;
  const budget::TypedValue typed = budget::parseTyped(text, meanOf(m_layers[i]), previous);
  if (!typed.fraction) {
    setInvalid(row, KeptColumn, text, typed.error);
    return true;
  }
  m_invalid.erase({row, KeptColumn});
  // The shown text is rounded: confirming it unchanged must not edit.
  if (text.trimmed() == budget::percentDigits(m_layers[i].mean) && m_layers[i].count > 0) {
    Q_EMIT dataChanged(index(row, KeptColumn), index(row, KeptColumn));
    return true;
  }
  const auto before = meanOf(m_layers[i]);
  budget::LayerEdit edit = budget::setLayerMeans(m_document.current(), {{row, *typed.fraction}}, m_scope, m_spread);
  m_document.apply(edit.edit);
  Q_EMIT dataChanged(index(row, KeptColumn), index(row, KeptColumn));
  QString line = before ? tr("L%1 kept %2 -> %3 %")
                              .arg(row)
                              .arg(budget::percentDigits(*before))
                              .arg(budget::percentDigits(*typed.fraction))
                        : tr("L%1 kept %2 %").arg(row).arg(budget::percentDigits(*typed.fraction));
  if (!typed.note.isEmpty()) line += QStringLiteral("  (") + typed.note + QLatin1Char(')');
  if (edit.clampedCells > 0) line += tr("  (%1 cells at the limit)").arg(edit.clampedCells);
  Q_EMIT message(line, false);
  return true;
}

bool ProfileModel::setData(const QModelIndex& at, const QVariant& value, int role) {
  if (!at.isValid() || role != Qt::EditRole || !flags(at).testFlag(Qt::ItemIsEditable)) return false;
  const int row = at.row();
  switch (at.column()) {
    case KeptColumn:
      return setKept(row, value.toString());
    case LockColumn: {
      const auto wanted =
          value.userType() == QMetaType::Bool ? std::optional<bool>(value.toBool()) : parseFlag(value.toString());
      if (!wanted) {
        setInvalid(row, LockColumn, value.toString(), tr("Type yes or no"));
        return true;
      }
      m_invalid.erase({row, static_cast<int>(LockColumn)});
      if (*wanted != m_document.current().layerLocked(row)) {
        m_document.apply(budget::toggleLocks(m_document.current(), {row}));
      }
      return true;
    }
    case NoteColumn: {
      const std::string note = value.toString().simplified().toStdString();
      const std::string before = m_document.current().layerNote(row);
      if (note != before) {
        const bool locked = m_document.current().layerLocked(row);
        ProfileEdit edit;
        edit.label = tr("Note on L%1").arg(row).toStdString();
        edit.layers.push_back({row, locked, locked, before, note});
        m_document.apply(edit);
      }
      return true;
    }
    default:
      return false;
  }
}

QString ProfileModel::copyTsv(const QModelIndexList& indexes) const {
  if (indexes.isEmpty()) return {};
  int row0 = std::numeric_limits<int>::max(), row1 = 0, col0 = row0, col1 = 0;
  QSet<QPair<int, int>> chosen;
  for (const QModelIndex& at : indexes) {
    row0 = std::min(row0, at.row());
    row1 = std::max(row1, at.row());
    col0 = std::min(col0, at.column());
    col1 = std::max(col1, at.column());
    chosen.insert({at.row(), at.column()});
  }
  QString out;
  for (int r = row0; r <= row1; ++r) {
    for (int c = col0; c <= col1; ++c) {
      if (c > col0) out += QLatin1Char('\t');
      if (!chosen.contains({r, c})) continue;
      const QModelIndex at = index(r, c);
      if (c == KeptColumn && !m_invalid.contains({r, c}) && m_layers[static_cast<std::size_t>(r)].count > 0) {
        // More digits than are shown, so that a round trip through a spreadsheet loses nothing of the mean.
        out += QString::number(m_layers[static_cast<std::size_t>(r)].mean * 100, 'g', 10);
      } else if (c >= KeptColumn && c <= SavedColumn && m_layers[static_cast<std::size_t>(r)].count == 0) {
        continue;
      } else {
        out += data(at, Qt::DisplayRole).toString().replace(QLatin1Char('\t'), QLatin1Char(' '));
      }
    }
    out += QLatin1Char('\n');
  }
  return out;
}

bool ProfileModel::pasteTsv(const QModelIndex& topLeft, const QString& text) {
  if (!topLeft.isValid() || text.isEmpty()) return false;
  const QVector<QStringList> rows = splitTsv(text);
  const Profile& profile = m_document.current();

  // Fractions or percent: one decision for the whole column, from all of its plain numbers.
  static const QRegularExpression kPlain(QStringLiteral("^\\s*[0-9]*[.,]?[0-9]+\\s*$"));
  int plain = 0;
  bool allSmall = true, anyPositive = false;
  for (const QStringList& row : rows) {
    const int at = KeptColumn - topLeft.column();
    if (at < 0 || at >= row.size() || !kPlain.match(row[at]).hasMatch()) continue;
    const double v = QString(row[at].trimmed()).replace(QLatin1Char(','), QLatin1Char('.')).toDouble();
    ++plain;
    allSmall = allSmall && v <= 1;
    anyPositive = anyPositive || v > 0;
  }
  const bool asFraction = plain > 0 && allSmall && anyPositive;

  std::map<int, double> targets;
  ProfileEdit meta;
  int bad = 0, beyond = 0, readOnly = 0, locked = 0;
  QString firstBad, note;
  for (int r = 0; r < rows.size(); ++r) {
    const int layer = topLeft.row() + r;
    if (layer >= rowCount()) {
      ++beyond;
      continue;
    }
    for (int c = 0; c < rows[r].size(); ++c) {
      const int column = topLeft.column() + c;
      const QString& cell = rows[r][c];
      if (column == KeptColumn) {
        if (cell.trimmed().isEmpty()) continue;
        if (profile.layerLocked(layer)) {
          ++locked;
          continue;
        }
        const auto i = static_cast<std::size_t>(layer);
        std::optional<double> previous;
        if (layer > 0) {
          const auto pasted = targets.find(layer - 1);
          previous = pasted != targets.end() ? std::optional<double>(pasted->second) : meanOf(m_layers[i - 1]);
        }
        const budget::TypedValue typed = budget::parseTyped(cell, meanOf(m_layers[i]), previous, asFraction);
        if (typed.fraction) {
          targets[layer] = *typed.fraction;
          m_invalid.erase({layer, column});
          if (note.isEmpty()) note = typed.note;
        } else {
          m_invalid[{layer, column}] = {cell, typed.error};
          if (bad++ == 0) firstBad = QStringLiteral("L%1: %2").arg(layer).arg(typed.error);
        }
      } else if (column == LockColumn || column == NoteColumn) {
        const bool lockedBefore = profile.layerLocked(layer);
        const std::string noteBefore = profile.layerNote(layer);
        auto entry = std::find_if(meta.layers.begin(), meta.layers.end(),
                                  [&](const ProfileEdit::LayerMeta& m) { return m.layer == layer; });
        if (entry == meta.layers.end()) {
          meta.layers.push_back({layer, lockedBefore, lockedBefore, noteBefore, noteBefore});
          entry = meta.layers.end() - 1;
        }
        if (column == NoteColumn) {
          entry->noteAfter = cell.simplified().toStdString();
        } else if (const auto flag = parseFlag(cell)) {
          entry->lockedAfter = *flag;
        } else {
          m_invalid[{layer, column}] = {cell, tr("Type yes or no")};
          if (bad++ == 0) firstBad = QStringLiteral("L%1: %2").arg(layer).arg(tr("Type yes or no"));
        }
      } else if (column < ColumnCount) {
        ++readOnly;
      }
    }
  }
  ProfileEdit edit;
  Index clamped = 0;
  if (!targets.empty()) {
    std::vector<int> layers;
    for (const auto& [layer, value] : targets) layers.push_back(layer);
    budget::LayerEdit made = budget::setLayerMeans(profile, targets, m_scope, m_spread,
                                                   tr("Paste kept of %1").arg(budget::layerNames(layers)));
    clamped = made.clampedCells;
    edit = std::move(made.edit);
  } else {
    edit.label = tr("Paste").toStdString();
  }
  edit.layers = std::move(meta.layers);
  m_document.apply(edit);
  if (rowCount() > 0) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, ColumnCount - 1));

  QStringList said;
  if (!targets.empty()) said << tr("pasted %1 layers").arg(targets.size());
  if (asFraction) said << tr("read as fractions (all at most 1): 0.24 = 24 %");
  if (!note.isEmpty()) said << note;
  if (locked > 0) said << tr("%1 locked layers left alone").arg(locked);
  if (beyond > 0) said << tr("%1 rows beyond the last layer ignored").arg(beyond);
  if (targets.empty() && edit.layers.empty() && bad == 0 && readOnly > 0) said << tr("these columns cannot be changed");
  if (clamped > 0) said << tr("%1 cells at the limit").arg(clamped);
  if (bad > 0) said << tr("%1 cells not taken, first %2").arg(bad).arg(firstBad);
  Q_EMIT message(said.join(QStringLiteral("; ")), bad > 0);
  return true;
}

bool ProfileModel::fillDown(const QModelIndexList& indexes) {
  std::map<int, std::vector<int>> rowsOf;
  for (const QModelIndex& at : indexes) rowsOf[at.column()].push_back(at.row());
  const Profile& profile = m_document.current();
  ProfileEdit edit;
  std::vector<int> filled;
  for (auto& [column, rows] : rowsOf) {
    std::sort(rows.begin(), rows.end());
    if (rows.size() < 2 || (column != KeptColumn && column != NoteColumn)) continue;
    const int source = rows.front();
    const auto i = static_cast<std::size_t>(source);
    if (column == KeptColumn && m_layers[i].count > 0) {
      std::map<int, double> targets;
      for (std::size_t r = 1; r < rows.size(); ++r) targets[rows[r]] = m_layers[i].mean;
      ProfileEdit made = budget::setLayerMeans(profile, targets, m_scope, m_spread).edit;
      edit.cells = std::move(made.cells);
    }
    for (std::size_t r = 1; r < rows.size(); ++r) {
      const int row = rows[r];
      filled.push_back(row);
      if (column == NoteColumn) {
        const bool locked = profile.layerLocked(row);
        edit.layers.push_back({row, locked, locked, profile.layerNote(row), profile.layerNote(source)});
      } else {
        m_invalid.erase({row, column});
      }
    }
  }
  if (filled.empty()) {
    Q_EMIT message(tr("Fill down: select at least two rows of Kept %"), true);
    return false;
  }
  edit.label = tr("Fill down %1").arg(budget::layerNames(filled)).toStdString();
  m_document.apply(edit);
  return true;
}

}  // namespace sparsight
