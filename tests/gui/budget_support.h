// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QApplication>
#include <QDir>
#include <QImage>
#include <QSettings>
#include <QTemporaryDir>
#include <QTest>
#include <cmath>
#include <cstdlib>

#include "sparsight/core/profile.h"
#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view.h"

namespace sparsight::test {

/// Keeps the user's settings, caches and journals out of the tests and the tests out of theirs.
struct PrivateHome {
  QTemporaryDir dir;
  PrivateHome() {
    const QByteArray home = dir.path().toLocal8Bit();
    qputenv("XDG_STATE_HOME", home + "/state");
    qputenv("XDG_CACHE_HOME", home + "/cache");
    qputenv("XDG_CONFIG_HOME", home + "/config");
    qputenv("HOME", home);
    QSettings::setPath(QSettings::NativeFormat, QSettings::UserScope, dir.path() + QStringLiteral("/config"));
    QCoreApplication::setOrganizationName(QStringLiteral("sparsight-test"));
    QCoreApplication::setApplicationName(QStringLiteral("sparsight-test"));
  }
};

/// A profile as the real ones look: high at both ends, heads far apart, values with four decimals.
inline Profile makeProfile(int steps, int layers, int heads) {
  Profile profile(steps, layers, heads, BudgetRole::KeptFloor);
  for (int s = 0; s < steps; ++s) {
    for (int l = 0; l < layers; ++l) {
      for (int h = 0; h < heads; ++h) {
        const double x = layers > 1 ? static_cast<double>(l) / (layers - 1) : 0;
        const double mean = 0.10 + 0.45 * std::pow(1 - x, 4) + 0.25 * std::pow(x, 6);
        const double spread = 0.5 + 1.0 * std::fmod(h * 0.618 + l * 0.31, 1.0);
        const double value = mean * spread * (1.15 - 0.3 * s / std::max(1, steps));
        profile.set({s, l, h}, std::round(std::min(1.0, value) * 1e4) / 1e4);
      }
    }
  }
  return profile;
}

/// A view with the session's changes delivered, as the main window does it.
inline std::unique_ptr<View> makeView(Session& session, const char* id) {
  const ViewInfo* info = viewById(QString::fromLatin1(id));
  if (info == nullptr) return nullptr;
  std::unique_ptr<View> view(info->create(session, nullptr));
  QObject::connect(&session, &Session::changed, view.get(),
                   [v = view.get()](ChangeFlags changes) { v->sessionChanged(changes); });
  return view;
}

/// Saves a picture of the widget when SPARSIGHT_SHOTS names a folder: for looking at what was made.
inline void shot(QWidget& widget, const char* name) {
  const QByteArray folder = qgetenv("SPARSIGHT_SHOTS");
  if (folder.isEmpty()) return;
  QTest::qWait(30);
  widget.grab().save(QDir(QString::fromLocal8Bit(folder)).filePath(QLatin1String(name) + QStringLiteral(".png")));
}

/// A published profile, or empty where the data folder is absent.
inline QString realProfile(const char* name) {
  const QString path = QStringLiteral(SPARSIGHT_TEST_DATA "/profiles/") + QLatin1String(name);
  return QFile::exists(path) ? path : QString();
}

}  // namespace sparsight::test

/// Like QTEST_MAIN, in a home of its own.
#define SPARSIGHT_GUI_TEST_MAIN(TestClass)                                  \
  int main(int argc, char** argv) {                                         \
    const sparsight::test::PrivateHome home;                                \
    QApplication app(argc, argv);                                           \
    sparsight::Theme::apply(!qEnvironmentVariableIsSet("SPARSIGHT_LIGHT")); \
    TestClass test;                                                         \
    return QTest::qExec(&test, argc, argv);                                 \
  }
