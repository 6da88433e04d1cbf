// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/open_in_turns.h"

#include <QApplication>
#include <QDialog>
#include <QElapsedTimer>
#include <QLayout>
#include <QPointer>
#include <QTimer>
#include <utility>
#include <vector>

namespace sparsight {
namespace {

constexpr qint64 kTurnNs = 1'000'000;

class Opening : public QObject {
 public:
  Opening(QWidget* window, const QString& name, std::function<QDialog*()> make, Blocks blocks)
      : QObject(window), m_make(std::move(make)), m_blocks(blocks) {
    setObjectName(name);
    QTimer::singleShot(0, this, &Opening::turn);
  }

 private:
  enum class Step { Make, List, Style, LayOut, Inner, Window, Show, Done };

  void turn() {
    QElapsedTimer clock;
    clock.start();
    while (m_step != Step::Done) {
      if (m_step != Step::Make && !m_dialog) break;  // none to open, or gone before it was seen
      const Step taken = m_step;
      take();
      // Only styling can be cut where we like; each of the others is a few milliseconds of its own.
      const bool whole = taken != Step::List && taken != Step::Style;
      if (m_step != Step::Done && (whole || clock.nsecsElapsed() > kTurnNs))
        return QTimer::singleShot(0, this, &Opening::turn);
    }
    setObjectName(QString());  // another may come
    deleteLater();
  }
  void take() {
    switch (m_step) {
      case Step::Make:
        m_dialog = m_make();
        m_step = Step::List;
        if (!m_dialog) break;
        m_dialog->setAttribute(Qt::WA_DeleteOnClose);
        if (m_blocks == Blocks::Window) m_dialog->setWindowModality(Qt::WindowModal);
        // Ended by the program before it is seen: closing what is hidden deletes nothing, and it must not come up.
        connect(m_dialog, &QDialog::finished, this, [this] {
          m_dialog->deleteLater();
          m_dialog.clear();
        });
        break;
      case Step::List:
        m_unstyled.emplace_back(m_dialog.data());
        for (QWidget* part : m_dialog->findChildren<QWidget*>()) m_unstyled.emplace_back(part);
        m_step = Step::Style;
        break;
      case Step::Style:
        // From the inside out: a widget that is styled styles what is in it.
        if (m_unstyled.back()) m_unstyled.back()->ensurePolished();
        m_unstyled.pop_back();
        if (m_unstyled.empty()) m_step = Step::LayOut;
        break;
      case Step::LayOut:
        if (QLayout* layout = m_dialog->layout()) layout->activate();
        if (!m_dialog->testAttribute(Qt::WA_Resized)) {
          m_dialog->adjustSize();
          m_dialog->setAttribute(Qt::WA_Resized, false);  // nobody chose that size
        }
        m_step = Step::Inner;
        break;
      case Step::Inner:
        // Lays out what is in it as showing it would, and paints next to nothing.
        static_cast<void>(m_dialog->grab(QRect(0, 0, 1, 1)));
        m_step = Step::Window;
        break;
      case Step::Window:
        m_dialog->winId();
        m_step = Step::Show;
        break;
      case Step::Show:
        m_step = Step::Done;
        if (m_blocks == Blocks::Window)
          m_dialog->open();
        else
          m_dialog->show();
        break;
      case Step::Done:
        break;
    }
  }
  std::function<QDialog*()> m_make;
  Blocks m_blocks;
  Step m_step = Step::Make;
  QPointer<QDialog> m_dialog;
  std::vector<QPointer<QWidget>> m_unstyled;
};

}  // namespace

void openInTurns(QWidget* window, const QString& name, std::function<QDialog*()> make, Blocks blocks) {
  const QString key = QStringLiteral("opening.") + name;
  if (window->findChild<QObject*>(key, Qt::FindDirectChildrenOnly) != nullptr) return;
  new Opening(window, key, std::move(make), blocks);
}

}  // namespace sparsight
