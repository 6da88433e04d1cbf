// SPDX-License-Identifier: Apache-2.0
#include "ui/settings.h"

#include <QFileInfo>
#include <QGuiApplication>
#include <QPalette>
#include <QSettings>
#include <QThread>
#include <algorithm>
#include <optional>
#include <utility>

#include "sparsight/core/job.h"

namespace sparsight {
namespace {
constexpr int kRecentLimit = 12;
constexpr auto kRecentKey = "recent/files";
std::optional<Settings> g_published;  // GUI thread only

QString themeName(Settings::ThemeChoice choice) {
  switch (choice) {
    case Settings::ThemeChoice::Light:
      return QStringLiteral("light");
    case Settings::ThemeChoice::Dark:
      return QStringLiteral("dark");
    case Settings::ThemeChoice::System:
      break;
  }
  return QStringLiteral("system");
}
}  // namespace

Settings Settings::load() {
  const QSettings store;
  Settings s;
  const QString theme = store.value(QStringLiteral("look/theme")).toString();
  s.theme = theme == QStringLiteral("light")  ? ThemeChoice::Light
            : theme == QStringLiteral("dark") ? ThemeChoice::Dark
                                              : ThemeChoice::System;
  const auto integer = [&store](const char* key, int fallback, int low, int high) {
    bool ok = false;
    const int value = store.value(QLatin1String(key)).toInt(&ok);
    return ok ? std::clamp(value, low, high) : fallback;
  };
  s.uiScalePercent = integer("look/scale", s.uiScalePercent, 80, 200);
  s.threads = integer("compute/threads", s.threads, 0, 1024);
  s.backend = store.value(QStringLiteral("compute/backend"), s.backend).toString();
  if (s.backend != QStringLiteral("cpu") && s.backend != QStringLiteral("cuda")) s.backend = QStringLiteral("auto");
  s.traceCacheMiB = integer("memory/traceCacheMiB", s.traceCacheMiB, 64, 1 << 20);
  s.tileCacheMiB = integer("memory/tileCacheMiB", s.tileCacheMiB, 32, 1 << 20);
  s.headMapsMiB = integer("memory/headMapsMiB", s.headMapsMiB, 64, 1 << 20);
  s.diskMapsMiB = integer("memory/diskMapsMiB", s.diskMapsMiB, 0, 1 << 20);
  s.makeReady = store.value(QStringLiteral("compute/makeReady"), s.makeReady).toBool();
  s.renderer = store.value(QStringLiteral("look/renderer"), s.renderer).toString();
  if (s.renderer != QStringLiteral("raster") && s.renderer != QStringLiteral("gl")) s.renderer = QStringLiteral("auto");
  s.colorMap = store.value(QStringLiteral("look/colorMap")).toString();
  s.reducedMotion = store.value(QStringLiteral("look/reducedMotion"), s.reducedMotion).toBool();
  s.singleKeyShortcuts = store.value(QStringLiteral("keys/singleLetters"), s.singleKeyShortcuts).toBool();
  s.restoreSession = store.value(QStringLiteral("session/restore"), s.restoreSession).toBool();
  return s;
}

void Settings::save() const {
  QSettings store;
  store.setValue(QStringLiteral("look/theme"), themeName(theme));
  store.setValue(QStringLiteral("look/scale"), uiScalePercent);
  store.setValue(QStringLiteral("compute/threads"), threads);
  store.setValue(QStringLiteral("compute/backend"), backend);
  store.setValue(QStringLiteral("memory/traceCacheMiB"), traceCacheMiB);
  store.setValue(QStringLiteral("memory/tileCacheMiB"), tileCacheMiB);
  store.setValue(QStringLiteral("memory/headMapsMiB"), headMapsMiB);
  store.setValue(QStringLiteral("memory/diskMapsMiB"), diskMapsMiB);
  store.setValue(QStringLiteral("compute/makeReady"), makeReady);
  store.setValue(QStringLiteral("look/renderer"), renderer);
  store.setValue(QStringLiteral("look/colorMap"), colorMap);
  store.setValue(QStringLiteral("look/reducedMotion"), reducedMotion);
  store.setValue(QStringLiteral("keys/singleLetters"), singleKeyShortcuts);
  store.setValue(QStringLiteral("session/restore"), restoreSession);
}

Settings Settings::current() { return g_published ? *g_published : load(); }

void Settings::publish() const { g_published = *this; }

void rememberLater(JobQueue& jobs, const QString& key, const QVariant& value) {
  JobSpec spec;
  spec.name = "Remember " + key.toStdString();
  spec.lane = Lane::Io;
  spec.supersedeTag = spec.name;  // the last one stays
  jobs.submit<bool>(
          std::move(spec),
          [key, value](JobContext&) {
            if (value.isValid())
              QSettings().setValue(key, value);
            else
              QSettings().remove(key);
            return true;
          },
          [](const Outcome<bool>&) {})
      .release();
}

int Settings::effectiveThreads() const { return threads > 0 ? threads : std::max(1, QThread::idealThreadCount() - 1); }

bool wantsDark(Settings::ThemeChoice choice) {
  if (choice != Settings::ThemeChoice::System) return choice == Settings::ThemeChoice::Dark;
  // Qt 6.4 has no colour scheme hint; the desktop's own palette, taken before ours is installed, tells.
  static const bool systemDark = [] {
    const QPalette palette = QGuiApplication::palette();
    return palette.color(QPalette::Window).lightness() < palette.color(QPalette::WindowText).lightness();
  }();
  return systemDark;
}

QStringList recentFiles() { return QSettings().value(QLatin1String(kRecentKey)).toStringList(); }

void addRecentFile(const QString& path) {
  const QString absolute = QFileInfo(path).absoluteFilePath();
  QStringList files = recentFiles();
  files.removeAll(absolute);
  files.prepend(absolute);
  while (files.size() > kRecentLimit) files.removeLast();
  QSettings().setValue(QLatin1String(kRecentKey), files);
}

void clearRecentFiles() { QSettings().remove(QLatin1String(kRecentKey)); }

}  // namespace sparsight
