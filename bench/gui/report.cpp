// SPDX-License-Identifier: Apache-2.0
#include "bench/gui/report.h"

#include <QDateTime>
#include <QFile>
#include <QJsonDocument>
#include <QProcess>
#include <QRegularExpression>
#include <QSaveFile>
#include <QSysInfo>
#include <QThread>
#include <cstdio>

#include "bench/gui/player.h"

namespace sparsight::bench {
namespace {

constexpr double kHandlerGoal = 4, kFrameGoal = 8;  // milliseconds

double rounded(double ms) { return std::round(ms * 1000) / 1000; }

QJsonObject toJson(const Times& times) {
  return {{QStringLiteral("n"), static_cast<qint64>(times.count())},
          {QStringLiteral("p50"), rounded(times.quantile(0.5))},
          {QStringLiteral("p95"), rounded(times.quantile(0.95))},
          {QStringLiteral("p99"), rounded(times.quantile(0.99))},
          {QStringLiteral("max"), rounded(times.quantile(1.0))}};
}

QString textOf(const QString& path) {
  QFile file(path);
  return file.open(QIODevice::ReadOnly) ? QString::fromUtf8(file.readAll()) : QString();
}

QJsonObject machine() {
  const QString cpus = textOf(QStringLiteral("/proc/cpuinfo"));
  const auto value = [&cpus](const char* key) {
    const QRegularExpression line(QStringLiteral("^%1\\s*:\\s*(.*)$").arg(QLatin1String(key)),
                                  QRegularExpression::MultilineOption);
    return line.match(cpus).captured(1);
  };
  return {{QStringLiteral("system"), QSysInfo::prettyProductName()},
          {QStringLiteral("kernel"), QSysInfo::kernelVersion()},
          {QStringLiteral("cores"), QThread::idealThreadCount()},
          {QStringLiteral("cpu"), value("model name")},
          {QStringLiteral("cpu_family"), value("cpu family")},
          {QStringLiteral("cpu_model"), value("model")},
          {QStringLiteral("load"), textOf(QStringLiteral("/proc/loadavg")).section(QLatin1Char(' '), 0, 2)}};
}

/// Of the sources this was built from; empty without git.
QString commit() {
  QProcess git;
  git.start(QStringLiteral("git"),
            {QStringLiteral("-C"), QStringLiteral(SPARSIGHT_SOURCE_DIR), QStringLiteral("describe"),
             QStringLiteral("--always"), QStringLiteral("--dirty"), QStringLiteral("--exclude=*")});
  if (!git.waitForFinished(5000) || git.exitCode() != 0) return {};
  return QString::fromUtf8(git.readAllStandardOutput()).trimmed();
}

}  // namespace

Report& report() {
  static Report all;
  return all;
}

void Report::section(const QString& name, const Times& toPaint) { section(name, recorder().take(), toPaint); }

void Report::section(const QString& name, const FrameRecorder::Recording& taken, const Times& toPaint) {
  std::printf("%s\n", qPrintable(name));
  taken.frames.print("frame");
  taken.framesCpu.print("frame, CPU");
  if (toPaint.count() > 0) toPaint.print("input to paint");
  taken.handlers.print("handler");
  taken.handlersCpu.print("handler, CPU");
  std::printf("  longest handler  %.2f ms: %s\n  of most CPU time %.2f ms: %s\n", taken.longestHandler,
              qPrintable(taken.longestName), taken.longestCpu, qPrintable(taken.longestCpuName));
  std::fflush(stdout);
  const auto both = [](const Times& wall, const Times& cpu, double goal) {
    return QJsonObject{{QStringLiteral("wall"), toJson(wall)},
                       {QStringLiteral("cpu"), toJson(cpu)},
                       {QStringLiteral("above_goal"), static_cast<qint64>(wall.above(goal))},
                       {QStringLiteral("cpu_above_goal"), static_cast<qint64>(cpu.above(goal))}};
  };
  QJsonObject entry{{QStringLiteral("name"), name},
                    {QStringLiteral("frame"), both(taken.frames, taken.framesCpu, kFrameGoal)},
                    {QStringLiteral("handler"), both(taken.handlers, taken.handlersCpu, kHandlerGoal)},
                    {QStringLiteral("longest_handler"), taken.longestName},
                    {QStringLiteral("longest_handler_cpu"), taken.longestCpuName}};
  if (toPaint.count() > 0) entry[QStringLiteral("input_to_paint")] = toJson(toPaint);
  m_sections << entry;
}

void Report::figure(const QString& name, double ms, const QString& note) {
  Times one;
  one.add(ms);
  figure(name, one, note);
}

void Report::figure(const QString& name, const Times& times, const QString& note) {
  if (times.count() == 0) return;
  if (times.count() == 1)
    std::printf("%s: %.1f ms", qPrintable(name), times.quantile(1.0));
  else
    std::printf("%s: median %.1f ms, largest %.1f of %zu", qPrintable(name), times.quantile(0.5), times.quantile(1.0),
                times.count());
  std::printf("%s\n", note.isEmpty() ? "" : qPrintable(QStringLiteral(" (%1)").arg(note)));
  std::fflush(stdout);
  QJsonObject entry = toJson(times);
  entry[QStringLiteral("name")] = name;
  if (!note.isEmpty()) entry[QStringLiteral("note")] = note;
  m_figures << entry;
}

void Report::fact(const QString& name, const QJsonValue& value) { m_facts[name] = value; }

bool Report::write(const QString& file) const {
  QJsonObject run = m_facts;
  run[QStringLiteral("arguments")] = QJsonArray::fromStringList(QCoreApplication::arguments().mid(1));
  run[QStringLiteral("qt")] = QString::fromLatin1(qVersion());
  const QJsonObject whole{{QStringLiteral("format"), QStringLiteral("sparsight-bench-gui")},
                          {QStringLiteral("version"), 1},
                          {QStringLiteral("unit"), QStringLiteral("ms")},
                          {QStringLiteral("date"), QDateTime::currentDateTimeUtc().toString(Qt::ISODate)},
                          {QStringLiteral("commit"), commit()},
                          {QStringLiteral("machine"), machine()},
                          {QStringLiteral("run"), run},
                          {QStringLiteral("sections"), m_sections},
                          {QStringLiteral("figures"), m_figures}};
  QSaveFile out(file);
  if (!out.open(QIODevice::WriteOnly)) return false;
  out.write(QJsonDocument(whole).toJson());
  return out.commit();
}

}  // namespace sparsight::bench
