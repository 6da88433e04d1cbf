// SPDX-License-Identifier: Apache-2.0
#include "ui/budget_empty.h"

#include <QHBoxLayout>
#include <QVBoxLayout>

#include "ui/profile_actions.h"
#include "ui/section_label.h"
#include "ui/session.h"
#include "ui/style.h"
#include "ui/theme.h"

namespace sparsight {

NoProfilePage::NoProfilePage(Session& session, const QString& text, QWidget* parent)
    : QWidget(parent), m_session(session) {
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(Theme::kEdge, Theme::kPad, Theme::kEdge, Theme::kPad);
  layout->setSpacing(Theme::kPad);
  layout->addStretch(2);
  auto* title = new WrapLabel(text, this);
  fonts::give(title, FontRole::Title);
  title->setAlignment(Qt::AlignHCenter);
  layout->addWidget(title);
  m_why = new WrapLabel(this);
  m_why->setProperty("role", QStringLiteral("secondary"));
  m_why->setAlignment(Qt::AlignHCenter);
  layout->addWidget(m_why);
  layout->addSpacing(Theme::kUnit);
  auto* row = new QHBoxLayout;
  row->setSpacing(Theme::kPad);
  row->addStretch();
  const auto button = [&](const QString& label, const char* name, const QString& tip, auto slot) {
    auto* made = new QPushButton(label, this);
    made->setObjectName(QLatin1String(name));
    made->setToolTip(tip);
    connect(made, &QPushButton::clicked, this, [this, slot] { slot(m_session, window()); });
    row->addWidget(made);
    return made;
  };
  m_create =
      button(tr("New profile from this trace"), "noProfile.create",
             tr("Every step, layer and head of the trace's model at 25 % kept"), &profile_actions::createFromTrace);
  m_open = button(tr("Open profile..."), "noProfile.open", tr("An SVOO CSV or a Sparsight profile"),
                  &profile_actions::openDialog);
  m_measure = button(tr("Profile this trace (SVOO)"), "noProfile.measure",
                     tr("Measures the exact density of every captured head"), &profile_actions::profileTrace);
  row->addStretch();
  layout->addLayout(row);
  layout->addStretch(3);
  refresh();
}

NoProfilePage::~NoProfilePage() = default;

void NoProfilePage::refresh() {
  const bool trace = m_session.trace() != nullptr;
  m_create->setVisible(trace);
  m_measure->setVisible(trace);
  m_why->setText(trace ? tr("No profile is open. Start one from this trace, measure it, or open a file.")
                       : tr("No profile is open. A CSV or JSON profile can be opened without a trace."));
  for (auto* button : {m_create, m_open}) {
    setLook(button, "primary", button == (trace ? m_create : m_open));
  }
}

}  // namespace sparsight
