// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QString>
#include <functional>

class QDialog;
class QWidget;

namespace sparsight {

enum class Blocks { Window, Nothing };

/// Makes a dialog, styles it, lays it out, gives it its native window and shows it, in turns of the event loop, so that
/// no turn takes the time of all; it is not seen before it is whole. `make` runs in the next turn and may return none;
/// the dialog deletes itself when it is closed. While one of that name is on its way to `window`, as of a key that
/// repeats, a call does nothing.
void openInTurns(QWidget* window, const QString& name, std::function<QDialog*()> make, Blocks blocks = Blocks::Window);

}  // namespace sparsight
