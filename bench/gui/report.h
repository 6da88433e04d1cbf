// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QJsonArray>
#include <QJsonObject>
#include <QString>

#include "bench/gui/frame_recorder.h"

namespace sparsight::bench {

/// What was measured, printed as it comes and kept for a file.
class Report {
 public:
  /// What the recorder took since the last section.
  void section(const QString& name, const Times& toPaint = {});
  void section(const char* name, const Times& toPaint = {}) { section(QString::fromUtf8(name), toPaint); }
  void section(const QString& name, const FrameRecorder::Recording& taken, const Times& toPaint = {});
  /// One duration or several of the same, in milliseconds; `note` says what it was.
  void figure(const QString& name, double ms, const QString& note = {});
  void figure(const QString& name, const Times& times, const QString& note = {});
  /// Something about the run: "painter", "threads".
  void fact(const QString& name, const QJsonValue& value);
  /// The whole as JSON, with date, commit and machine. False: it could not be written.
  [[nodiscard]] bool write(const QString& file) const;

 private:
  QJsonArray m_sections, m_figures;
  QJsonObject m_facts;
};

/// The one of this run.
Report& report();

}  // namespace sparsight::bench
