// SPDX-License-Identifier: Apache-2.0
#include "ui/banner.h"

#include <QHBoxLayout>
#include <QKeyEvent>
#include <QLabel>
#include <QPainter>
#include <QPushButton>
#include <QToolButton>
#include <QVBoxLayout>

#include "ui/icons.h"
#include "ui/section_label.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

/// One message. Paints its own surface, so that it follows the theme.
class Banner : public QWidget {
 public:
  Banner(BannerStack::Kind kind, const QString& title, const QString& message, QWidget* parent)
      : QWidget(parent), m_kind(kind), m_text(title + QLatin1Char('\n') + message) {
    setFocusPolicy(Qt::StrongFocus);
    setAccessibleName(title);
    setAccessibleDescription(message);
    row = new QHBoxLayout(this);
    row->setContentsMargins(Theme::kEdge + 24, Theme::kPad, Theme::kPad, Theme::kPad);
    row->setSpacing(Theme::kPad);
    auto* text = new QVBoxLayout;
    text->setSpacing(2);
    auto* titleLabel = new WrapLabel(title);
    fonts::give(titleLabel, FontRole::Title);
    titleLabel->setTextFormat(Qt::PlainText);
    text->addWidget(titleLabel);
    if (!message.isEmpty()) {
      auto* body = new WrapLabel(message);
      body->setTextFormat(Qt::PlainText);
      body->setTextInteractionFlags(Qt::TextSelectableByMouse);
      text->addWidget(body);
    }
    row->addLayout(text, 1);
  }
  [[nodiscard]] const QString& text() const noexcept { return m_text; }
  QHBoxLayout* row;

 protected:
  void paintEvent(QPaintEvent*) override {
    QPainter painter(this);
    const Theme& theme = Theme::current();
    const QColor tone = m_kind == BannerStack::Kind::Error     ? theme.error
                        : m_kind == BannerStack::Kind::Warning ? theme.warning
                                                               : theme.accent;
    painter.fillRect(rect(), theme.raised);
    painter.fillRect(QRect(0, 0, 3, height()), tone);
    painter.setPen(theme.line);
    painter.drawLine(0, height() - 1, width(), height() - 1);
    const QString icon = m_kind == BannerStack::Kind::Error     ? QStringLiteral("error")
                         : m_kind == BannerStack::Kind::Warning ? QStringLiteral("warning")
                                                                : QStringLiteral("info");
    painter.drawPixmap(Theme::kEdge, Theme::kPad + 1, tintedPixmap(icon, 16, tone, devicePixelRatioF()));
  }

 private:
  BannerStack::Kind m_kind;
  QString m_text;
};

}  // namespace

BannerStack::BannerStack(QWidget* parent) : QWidget(parent), m_layout(new QVBoxLayout(this)) {
  m_layout->setContentsMargins(0, 0, 0, 0);
  m_layout->setSpacing(0);
  setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Maximum);
  hide();
}

void BannerStack::post(Kind kind, const QString& title, const QString& message, Buttons buttons) {
  auto* banner = new Banner(kind, title, message, this);
  banner->setObjectName(QStringLiteral("banner"));
  for (int i = m_layout->count() - 1; i >= 0; --i) {
    auto* old = static_cast<Banner*>(m_layout->itemAt(i)->widget());
    if (old->text() == banner->text()) dismiss(old);
  }
  for (auto& [label, function] : buttons) {
    auto* button = new QPushButton(label, banner);
    connect(button, &QPushButton::clicked, this, [this, banner, action = std::move(function)] {
      dismiss(banner);
      if (action) action();
    });
    banner->row->addWidget(button, 0, Qt::AlignTop);
  }
  auto* close = new QToolButton(banner);
  close->setObjectName(QStringLiteral("bannerClose"));
  close->setIcon(themedIcon(QStringLiteral("close")));
  close->setAccessibleName(tr("Dismiss"));
  close->setToolTip(tr("Dismiss (Esc)"));
  connect(close, &QToolButton::clicked, this, [this, banner] { dismiss(banner); });
  banner->row->addWidget(close, 0, Qt::AlignTop);
  m_layout->insertWidget(0, banner);
  while (m_layout->count() > kLimit) dismiss(m_layout->itemAt(m_layout->count() - 1)->widget());
  show();
}

void BannerStack::dismiss(QWidget* banner) {
  m_layout->removeWidget(banner);
  banner->hide();
  banner->deleteLater();
  if (m_layout->count() == 0) hide();
}

void BannerStack::clear() {
  while (m_layout->count() > 0) dismiss(m_layout->itemAt(0)->widget());
}

int BannerStack::count() const { return m_layout->count(); }

QString BannerStack::topText() const {
  return m_layout->count() == 0 ? QString() : static_cast<const Banner*>(m_layout->itemAt(0)->widget())->text();
}

void BannerStack::keyPressEvent(QKeyEvent* event) {
  if (event->key() == Qt::Key_Escape && m_layout->count() > 0) {
    dismiss(m_layout->itemAt(0)->widget());
    return;
  }
  QWidget::keyPressEvent(event);
}

}  // namespace sparsight
