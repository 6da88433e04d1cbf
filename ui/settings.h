// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QByteArray>
#include <QJsonObject>
#include <QString>
#include <QStringList>
#include <QVariant>

namespace sparsight {

class JobQueue;

/// What the user chose, kept in the user's configuration directory. A value: load, change, save.
struct Settings {
  enum class ThemeChoice { System, Light, Dark };
  ThemeChoice theme = ThemeChoice::System;
  int uiScalePercent = 100;  ///< 80 to 200
  int threads = 0;           ///< 0: all cores but one
  QString backend = QStringLiteral("auto");
  int traceCacheMiB = 1024;                   ///< loaded heads
  int tileCacheMiB = 512;                     ///< map tiles
  int headMapsMiB = 384;                      ///< heads whose maps were looked at or made ready
  int diskMapsMiB = 512;                      ///< exact maps kept on disk; 0: none
  bool makeReady = true;                      ///< the next heads, while nothing else is to be done
  QString renderer = QStringLiteral("auto");  ///< "auto", "raster", "gl"; from the next start
  QString colorMap;                           ///< empty: by theme
  bool reducedMotion = false;
  bool singleKeyShortcuts = true;  ///< single letters in maps and grids
  bool restoreSession = true;

  [[nodiscard]] static Settings load();  ///< from the file
  void save() const;                     ///< waits for the disk
  /// Those of the running program: what publish() was given last, else load().
  [[nodiscard]] static Settings current();
  void publish() const;
  /// Threads of the computing core: all but one core, at least 1, unless chosen.
  [[nodiscard]] int effectiveThreads() const;
  friend bool operator==(const Settings&, const Settings&) = default;
};

/// Remembers a value beside the settings, by a job: writing the file waits for the disk. An invalid value forgets.
void rememberLater(JobQueue& jobs, const QString& key, const QVariant& value);

/// Light or dark, as the choice and, for System, the desktop's palette say.
[[nodiscard]] bool wantsDark(Settings::ThemeChoice choice);

/// Recent files, newest first; traces and profiles in one list, the start page shows what each is.
[[nodiscard]] QStringList recentFiles();
void addRecentFile(const QString& path);
void clearRecentFiles();

}  // namespace sparsight
