// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QString>
#include <functional>

class QFileDialog;
class QWidget;

namespace sparsight {

// File dialogs without an event loop of their own: jobs, drops and quitting go on behind them. `chosen` is called with
// the path, once, and not at all when the dialog is cancelled or `parent` dies. They delete themselves.

/// One existing file.
QFileDialog* askForFile(QWidget* parent, const QString& title, const QString& start, const QString& filters,
                        std::function<void(const QString&)> chosen);
/// A file to write. confirmReplace: the dialog itself asks before an existing one is chosen.
QFileDialog* askWhereToSave(QWidget* parent, const QString& title, const QString& start, const QString& filters,
                            bool confirmReplace, std::function<void(const QString&)> chosen);

}  // namespace sparsight
