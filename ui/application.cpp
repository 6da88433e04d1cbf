// SPDX-License-Identifier: Apache-2.0
#include "ui/application.h"

#include <QApplication>
#include <QCommandLineParser>
#include <QFileInfo>
#include <QIcon>
#include <QJsonObject>
#include <QMessageLogContext>
#include <QTimer>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>

#include "ui/help_panel.h"
#include "ui/main_window.h"
#include "ui/render_command.h"
#include "ui/self_test.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

constexpr int kUsage = 2, kInput = 3, kDevice = 4, kInternal = 5;

constexpr const char* kHelp =
    R"(Usage: sparsight [FILE ... | --demo] [--step S --layer L --head H] [--view ID] [--session FILE]
       sparsight render FILE --view map|grid|profile|classes|curves|frames|permutation|stepper|compare|window --out F.png|F.svg|F.pdf [options]
       sparsight --self-test

Opens traces, results and plans of runs (.h5) and budget profiles (.csv, .json) in the workbench; without a file, the start page with the demo.

  --step S, --layer L, --head H   what to select (0-based; step index 10 is the 11th step)
  --view ID                       the view to bring to the front: map, heads, heatmap, method, budget, jobs
  --demo                          open the bundled demo (generated once into the cache directory)
  --session FILE                  restore this session and write it back on exit
  --self-test                     open every view on the demo with both painters, print devices, exit 0 if each painted
  --version, --help

'sparsight render --help' lists the options of pictures without a window. Computing without a window: sparsight-cli.
)";

int fail(int code, const QString& message) {
  std::fprintf(stderr, "sparsight: %s\n", qPrintable(message));
  return code;
}

bool has(int argc, char** argv, std::string_view option) {
  for (int i = 1; i < argc; ++i)
    if (option == argv[i]) return true;
  return false;
}

/// QApplication aborts without a display; a sentence is better.
bool displayMissing() {
  if (!qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM")) return false;
#ifdef Q_OS_LINUX
  return qEnvironmentVariableIsEmpty("DISPLAY") && qEnvironmentVariableIsEmpty("WAYLAND_DISPLAY");
#else
  return false;
#endif
}

void nameApplication() {
  QCoreApplication::setApplicationName(QStringLiteral("sparsight"));
  QCoreApplication::setOrganizationName(QStringLiteral("sparsight"));
  QCoreApplication::setApplicationVersion(QStringLiteral(SPARSIGHT_VERSION));
}

int runWindow(int argc, char** argv) {
  if (displayMissing())
    return fail(
        kDevice,
        QStringLiteral("no display: set DISPLAY or WAYLAND_DISPLAY; 'sparsight render' and sparsight-cli need none"));
  QApplication::setHighDpiScaleFactorRoundingPolicy(Qt::HighDpiScaleFactorRoundingPolicy::PassThrough);
  QApplication app(argc, argv);
  QApplication::setWindowIcon(QIcon(QStringLiteral(":/resources/icons/sparsight.svg")));

  QCommandLineParser parser;
  const auto option = [&parser](const char* name, const char* value) {
    QCommandLineOption o{QLatin1String(name)};
    o.setValueName(QLatin1String(value));
    parser.addOption(o);
  };
  for (const char* name : {"step", "layer", "head"}) option(name, "N");
  option("view", "ID");
  option("session", "FILE");
  parser.addOption(QCommandLineOption{QStringLiteral("demo")});
  if (!parser.parse(QApplication::arguments())) return fail(kUsage, parser.errorText());
  QJsonObject selection;
  for (const char* name : {"step", "layer", "head"}) {
    const QString key = QLatin1String(name);
    if (!parser.isSet(key)) continue;
    bool ok = false;
    const int value = parser.value(key).toInt(&ok);
    if (!ok || value < 0)
      return fail(kUsage, QStringLiteral("--%1 takes a number from 0 on, not '%2'").arg(key, parser.value(key)));
    selection[key] = value;
  }
  const QString wantedView = parser.value(QStringLiteral("view"));
  if (!wantedView.isEmpty() && viewById(wantedView) == nullptr) {
    QStringList known;
    for (const ViewInfo* info : allViews()) known << QLatin1String(info->id);
    return fail(kUsage,
                QStringLiteral("there is no view '%1'; known: %2").arg(wantedView, known.join(QStringLiteral(", "))));
  }
  QStringList files = parser.positionalArguments();
  for (const QString& file : files)
    if (!QFileInfo::exists(file)) return fail(kInput, QStringLiteral("%1 does not exist").arg(file));

  const Settings settings = Settings::load();
  if (qEnvironmentVariableIsEmpty("SPARSIGHT_RENDERER") && settings.renderer != QStringLiteral("auto"))
    qputenv("SPARSIGHT_RENDERER", settings.renderer.toLatin1());
  fonts::setScale(settings.uiScalePercent / 100.0);
  Theme::apply(wantsDark(settings.theme));

  JobQueueOptions jobs;
  jobs.threads = settings.effectiveThreads();
  jobs.backendId = settings.backend.toStdString();
  Session session(std::move(jobs));
  TraceOptions trace;
  trace.cacheBytes = static_cast<Index>(settings.traceCacheMiB) << 20;
  session.setTraceOptions(trace);
  session.setMapCache(std::make_shared<MapCache>(userMapCacheDir(), static_cast<Index>(settings.diskMapsMiB) << 20));
  session.setMapCacheLimit(static_cast<Index>(settings.diskMapsMiB) << 20);
  MainWindow window(session, settings);
  const QString sessionFile = parser.isSet(QStringLiteral("session")) ? parser.value(QStringLiteral("session"))
                                                                      : MainWindow::defaultSessionFile();
  window.setSessionFile(sessionFile);
  window.show();
  window.offerRecovery();
  const bool demo = files.isEmpty() && parser.isSet(QStringLiteral("demo"));
  if (!demo && files.isEmpty() && (settings.restoreSession || parser.isSet(QStringLiteral("session")))) {
    if (parser.isSet(QStringLiteral("session")) && QFileInfo::exists(sessionFile) &&
        !QFileInfo(sessionFile).isReadable())
      return fail(kInput, QStringLiteral("%1 cannot be read").arg(sessionFile));
    window.restoreSessionFile(sessionFile, selection);
  }
  if (!selection.isEmpty()) window.setPendingSelection(selection);
  window.openFiles(files);
  if (demo) session.openDemo();
  if (!wantedView.isEmpty())
    QObject::connect(&session, &Session::fileOpened, &window, [&window, wantedView] {
      QTimer::singleShot(0, &window, [&window, wantedView] { window.showView(wantedView); });
    });
  return QApplication::exec();
}

}  // namespace

int runGui(int argc, char** argv) {
  try {
    nameApplication();
    const bool render = argc > 1 && std::strcmp(argv[1], "render") == 0;
    if (render) return runRender(argc, argv);
    if (has(argc, argv, "--help") || has(argc, argv, "-h")) {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (has(argc, argv, "--version")) {
      std::printf("sparsight %s (Qt %s)\n", SPARSIGHT_VERSION, qVersion());
      return 0;
    }
    if (has(argc, argv, "--self-test")) return runSelfTest(argc, argv);
    return runWindow(argc, argv);
  } catch (const Error& error) {
    return fail(kInternal, QString::fromUtf8(error.what()));
  } catch (const std::exception& error) {
    return fail(kInternal, QStringLiteral("internal error: %1").arg(QString::fromUtf8(error.what())));
  }
}

}  // namespace sparsight
