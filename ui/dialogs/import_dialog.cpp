// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/import_dialog.h"

#include <QButtonGroup>
#include <QDialogButtonBox>
#include <QFileInfo>
#include <QHeaderView>
#include <QLabel>
#include <QListWidget>
#include <QPushButton>
#include <QRadioButton>
#include <QTableWidget>
#include <QVBoxLayout>

#include "sparsight/kernels/error.h"
#include "ui/budget_edit.h"
#include "ui/icons.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kSampleRows = 6;

QString keptText(double kept) {
  return ImportDialog::tr("kept %1 % (skipped %2 %)").arg(budget::percentDigits(kept), budget::percentDigits(1 - kept));
}

}  // namespace

CsvReadings readBothWays(std::string_view text, const std::string& name) {
  CsvReadings out;
  try {
    out.kept = parseSvooCsv(text, name, ValueConvention::Kept);
    out.skipped = parseSvooCsv(text, name, ValueConvention::Skipped);
  } catch (const Error& error) {
    out.error = QString::fromStdString(error.what());
  }
  return out;
}

bool looksSkipped(const Profile& profile) {
  const ProfileSummary summary = summarise(profile);
  return summary.count > 0 && summary.mean > 0.5;
}

ImportDialog::ImportDialog(const QString& path, std::shared_ptr<const CsvReadings> readings, const Profile* open,
                           QWidget* parent)
    : QDialog(parent), m_readings(std::move(readings)) {
  setObjectName(QStringLiteral("importDialog"));
  setWindowTitle(tr("Import profile"));
  resize(640, 560);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  layout->setSpacing(Theme::kGroupGap);
  const bool usable = m_readings->kept.has_value() && m_readings->skipped.has_value();

  auto* title = new QLabel(QFileInfo(path).fileName(), this);
  fonts::give(title, FontRole::Title);
  layout->addWidget(title);
  auto* facts = new QLabel(this);
  facts->setWordWrap(true);
  layout->addWidget(facts);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel, this);
  buttons->button(QDialogButtonBox::Cancel)->setIcon(QIcon());  // the only icon of the row would be on the wrong button
  m_choice = new QButtonGroup(this);

  if (usable) {
    const Profile& kept = m_readings->kept->profile;
    const Profile& skipped = m_readings->skipped->profile;
    facts->setText(
        tr("%1 steps, %2 layers, %3 heads. What do its numbers mean? Files differ, and the wrong reading turns "
           "the method upside down.")
            .arg(kept.steps())
            .arg(kept.layers())
            .arg(kept.heads()));
    const auto choice = [&](ValueConvention convention, const QString& text, const Profile& profile,
                            const QString& name) {
      auto* button = new QRadioButton(text, this);
      button->setObjectName(name);
      m_choice->addButton(button, static_cast<int>(convention));
      layout->addWidget(button);
      auto* mean = new QLabel(tr("Mean over the file: %1").arg(keptText(summarise(profile).mean)), this);
      mean->setIndent(24);
      mean->setProperty("role", QStringLiteral("secondary"));
      layout->addWidget(mean);
      return button;
    };
    QRadioButton* asKept = choice(ValueConvention::Kept,
                                  tr("Kept density, as in SVOO's files (their column is called Sparsity all the same)"),
                                  kept, QStringLiteral("import.kept"));
    QRadioButton* asSkipped = choice(ValueConvention::Skipped, tr("Skipped fraction: share of keys that is left out"),
                                     skipped, QStringLiteral("import.skipped"));
    (looksSkipped(kept) ? asSkipped : asKept)->setChecked(true);
    if (looksSkipped(kept)) {
      auto* hint =
          new QLabel(tr("The numbers average above one half, which would save little: they are probably skipped "
                        "fractions."),
                     this);
      hint->setWordWrap(true);
      hint->setProperty("role", QStringLiteral("warning"));
      layout->addWidget(hint);
    }

    auto* table = new QTableWidget(0, 4, this);
    table->setObjectName(QStringLiteral("import.samples"));
    table->setHorizontalHeaderLabels({tr("Cell"), tr("Number in the file"), tr("Read as kept"), tr("Read as skipped")});
    table->verticalHeader()->hide();
    table->setEditTriggers(QAbstractItemView::NoEditTriggers);
    table->setSelectionMode(QAbstractItemView::NoSelection);
    table->setFocusPolicy(Qt::NoFocus);
    table->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
    table->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
    const Index cells = kept.cellCount();
    for (int i = 0; i < kSampleRows && cells > 0; ++i) {
      // Spread over the file: the first rows alone are all of layer 0.
      const Index at = cells * i / kSampleRows;
      const CellId cell{static_cast<int>(at / (Index{kept.layers()} * kept.heads())),
                        static_cast<int>(at / kept.heads() % kept.layers()), static_cast<int>(at % kept.heads())};
      const auto value = kept.at(cell), other = skipped.at(cell);
      const int row = table->rowCount();
      table->insertRow(row);
      const auto put = [&](int column, const QString& text) {
        auto* item = new QTableWidgetItem(text);
        item->setFont(fonts::tabular());
        table->setItem(row, column, item);
      };
      put(0, tr("step index %1, L%2, H%3").arg(cell.step).arg(cell.layer).arg(cell.head));
      put(1, value ? QString::number(*value, 'g', 6) : tr("missing"));
      put(2, value ? tr("kept %1 %").arg(budget::percentDigits(*value)) : QString());
      put(3, other ? tr("kept %1 %").arg(budget::percentDigits(*other)) : QString());
    }
    table->setMinimumHeight(160);
    layout->addWidget(table);

    if (open != nullptr && open->steps() == kept.steps() && open->layers() == kept.layers() &&
        open->heads() == kept.heads()) {
      auto* diff = new QLabel(this);
      diff->setObjectName(QStringLiteral("import.diff"));
      const auto describe = [diff, open, this] {
        const ProfileDiff d = diffProfiles(profile(), *open);
        diff->setText(d.changed + d.onlyA + d.onlyB == 0
                          ? tr("Equal to the open profile.")
                          : tr("Against the open profile: %1 of %2 cells differ, by %3 points on average, %4 at most.")
                                .arg(formatCount(d.changed + d.onlyA + d.onlyB), formatCount(open->cellCount()),
                                     formatNumber(d.meanAbs * 100), formatNumber(d.maxAbs * 100)));
      };
      connect(m_choice, &QButtonGroup::idToggled, diff, describe);
      describe();
      layout->addWidget(diff);
    }
    auto* import = buttons->addButton(tr("Import"), QDialogButtonBox::AcceptRole);
    import->setDefault(true);
  } else {
    facts->setText(tr("This file cannot be read as a profile:"));
  }

  auto* issues = new QListWidget(this);
  issues->setObjectName(QStringLiteral("import.issues"));
  issues->setSelectionMode(QAbstractItemView::NoSelection);
  issues->setWordWrap(true);
  issues->setIconSize(QSize(16, 16));
  if (usable) {
    for (const CsvIssue& issue : m_readings->kept->issues) {
      QString where;
      if (issue.line > 0) where = tr("line %1").arg(issue.line);
      if (issue.column > 0) where += tr(", column %1").arg(issue.column);
      const QString text = QString::fromStdString(issue.message);
      issues->addItem(new QListWidgetItem(themedIcon(issue.error ? QStringLiteral("error") : QStringLiteral("warning")),
                                          where.isEmpty() ? text : where + QStringLiteral(": ") + text));
    }
    if (issues->count() == 0) {
      issues->addItem(
          new QListWidgetItem(themedIcon(QStringLiteral("info")), tr("No remarks: complete, sorted, no duplicates.")));
    }
  } else {
    issues->addItem(new QListWidgetItem(themedIcon(QStringLiteral("error")), m_readings->error));
  }
  issues->setMinimumHeight(64);
  layout->addWidget(issues, 1);
  layout->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::accepted, this, &QDialog::accept);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
}

ValueConvention ImportDialog::convention() const {
  return m_choice->checkedId() == static_cast<int>(ValueConvention::Skipped) ? ValueConvention::Skipped
                                                                             : ValueConvention::Kept;
}

void ImportDialog::setConvention(ValueConvention convention) {
  if (auto* button = m_choice->button(static_cast<int>(convention))) button->setChecked(true);
}

const Profile& ImportDialog::profile() const {
  return convention() == ValueConvention::Skipped ? m_readings->skipped->profile : m_readings->kept->profile;
}

}  // namespace sparsight
