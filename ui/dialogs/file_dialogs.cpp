// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/file_dialogs.h"

#include <QFileDialog>
#include <QFileInfo>
#include <utility>

namespace sparsight {
namespace {

QFileDialog* shown(QFileDialog* dialog, std::function<void(const QString&)> chosen) {
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  QObject::connect(dialog, &QFileDialog::fileSelected, dialog, [chosen = std::move(chosen)](const QString& path) {
    if (!path.isEmpty()) chosen(path);
  });
  dialog->open();
  return dialog;
}

}  // namespace

QFileDialog* askForFile(QWidget* parent, const QString& title, const QString& start, const QString& filters,
                        std::function<void(const QString&)> chosen) {
  auto* dialog = new QFileDialog(parent, title, start, filters);
  dialog->setFileMode(QFileDialog::ExistingFile);
  return shown(dialog, std::move(chosen));
}

QFileDialog* askWhereToSave(QWidget* parent, const QString& title, const QString& start, const QString& filters,
                            bool confirmReplace, std::function<void(const QString&)> chosen) {
  const QFileInfo at(start);
  auto* dialog = new QFileDialog(parent, title, at.isDir() ? start : at.absolutePath(), filters);
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setFileMode(QFileDialog::AnyFile);
  dialog->setOption(QFileDialog::DontConfirmOverwrite, !confirmReplace);
  if (!at.isDir()) dialog->selectFile(at.fileName());
  return shown(dialog, std::move(chosen));
}

}  // namespace sparsight
