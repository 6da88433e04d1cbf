// SPDX-License-Identifier: Apache-2.0
#include "ui/dialogs/about_dialog.h"

#include <QDialogButtonBox>
#include <QGridLayout>
#include <QLabel>
#include <QPainter>
#include <QPushButton>
#include <QSvgRenderer>

#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kIcon = 64, kTextWidth = 380;

class AppIcon : public QWidget {
 public:
  AppIcon() { setFixedSize(kIcon, kIcon); }

 protected:
  void paintEvent(QPaintEvent*) override {
    QPainter painter(this);
    m_picture.render(&painter, QRectF(rect()));
  }

 private:
  QSvgRenderer m_picture{QStringLiteral(":/resources/icons/sparsight.svg")};
};

}  // namespace

AboutDialog::AboutDialog(const BackendInfo& backend, QWidget* parent) : QDialog(parent) {
  setObjectName(QStringLiteral("aboutDialog"));
  setWindowTitle(tr("About Sparsight"));
  auto* grid = new QGridLayout(this);
  grid->setContentsMargins(Theme::kEdge, Theme::kEdge, Theme::kEdge, Theme::kEdge);
  grid->setHorizontalSpacing(Theme::kEdge);
  grid->setVerticalSpacing(Theme::kPad);
  grid->addWidget(new AppIcon, 0, 0, 2, 1, Qt::AlignTop);
  auto* name = new QLabel(QStringLiteral("Sparsight %1").arg(QLatin1String(SPARSIGHT_VERSION)));
  fonts::give(name, FontRole::Title);
  grid->addWidget(name, 0, 1);
  const auto text = [](const std::string& s) { return QString::fromStdString(s); };
  auto* about = new WrapLabel(
      tr("Attention microscope for video diffusion transformers.\n\nComputes on: %1\n%2\nQt %3\n\nSources: "
         "Apache-2.0. Binaries that contain Qt Charts: GPL-3.")
          .arg(text(backend.deviceName), text(backend.detail), QLatin1String(qVersion())));
  about->setTextFormat(Qt::PlainText);
  about->setFixedWidth(kTextWidth);
  about->setTextInteractionFlags(Qt::TextSelectableByMouse);
  grid->addWidget(about, 1, 1);
  grid->setRowStretch(1, 1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close);
  grid->addWidget(buttons, 2, 0, 1, 2);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
}

}  // namespace sparsight
