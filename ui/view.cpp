// SPDX-License-Identifier: Apache-2.0
#include "ui/view.h"

#include "ui/theme.h"

namespace sparsight {

View::View(Session& session, QWidget* parent) : QWidget(parent), m_session(session) {
  setProperty("role", QStringLiteral("panel"));
  Theme::makePart(this);
}
View::~View() = default;

const ViewInfo* viewById(QStringView id) {
  for (const ViewInfo* info : allViews())
    if (id == QLatin1String(info->id)) return info;
  return nullptr;
}

}  // namespace sparsight
