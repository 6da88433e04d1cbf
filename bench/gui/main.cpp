// SPDX-License-Identifier: Apache-2.0
// Plays a fixed sequence of inputs on the workbench and prints how long frames, handlers and answers took. Asserts
// nothing: machines differ. Run it under Xvfb or on a display, with nothing else on the machine.
#include <QComboBox>
#include <QCommandLineParser>
#include <QDir>
#include <QElapsedTimer>
#include <QFileInfo>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QProcess>
#include <QTemporaryDir>
#include <QThread>
#include <QWheelEvent>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "bench/gui/frame_recorder.h"
#include "sparsight/core/map_cache.h"
#include "sparsight/core/method.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/synth.h"
#include "ui/budget_curve.h"
#include "ui/canvas/tile_canvas.h"
#include "ui/frames_canvas.h"
#include "ui/main_window.h"
#include "ui/response_strip.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"
#include "ui/view.h"

using namespace sparsight;
using bench::FrameRecorder;
using bench::Times;

namespace {

constexpr int kFrameMs = 16;
constexpr QSize kWindow{1600, 1000};

FrameRecorder& recorder() { return *static_cast<FrameRecorder*>(qApp); }

double elapsed(const QElapsedTimer& clock) { return static_cast<double>(clock.nsecsElapsed()) / 1e6; }

void turn(int ms = 1) {
  QCoreApplication::processEvents(QEventLoop::AllEvents, ms);
  QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
}
bool waitUntil(const std::function<bool()>& done, int limitMs) {
  QElapsedTimer clock;
  clock.start();
  while (!done()) {
    if (clock.elapsed() > limitMs) return false;
    QCoreApplication::processEvents(QEventLoop::WaitForMoreEvents | QEventLoop::AllEvents, 5);
    QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
  }
  return true;
}
void rest(int ms) {
  QElapsedTimer clock;
  clock.start();
  while (clock.elapsed() < ms) {
    turn();
    QThread::usleep(200);
  }
}

/// Sends an input, waits for the next frame, then for the rest of a 60 Hz period. Adds input to paint to `times`.
void input(const std::function<void()>& send, Times& times) {
  QElapsedTimer clock;
  clock.start();
  const long before = recorder().frames();
  send();
  while (recorder().frames() == before && clock.elapsed() < 1000) turn();
  if (recorder().frames() > before) times.add(elapsed(clock));
  while (clock.elapsed() < kFrameMs) {
    turn();
    QThread::usleep(200);
  }
}

void report(const char* name, const Times& toPaint) {
  const FrameRecorder::Recording taken = recorder().take();
  std::printf("%s\n", name);
  taken.frames.print("frame");
  taken.framesCpu.print("frame, CPU");
  if (toPaint.count() > 0) toPaint.print("input to paint");
  taken.handlers.print("handler");
  taken.handlersCpu.print("handler, CPU");
  std::printf("  longest handler  %.2f ms: %s\n  of most CPU time %.2f ms: %s\n", taken.longestHandler,
              qPrintable(taken.longestName), taken.longestCpu, qPrintable(taken.longestCpuName));
  std::fflush(stdout);
}

void wheel(QWidget& widget, QPointF at, int notches) {
  QWheelEvent event(at, widget.mapToGlobal(at), {}, QPoint(0, 120 * notches), Qt::NoButton, Qt::NoModifier,
                    Qt::NoScrollPhase, false);
  QApplication::sendEvent(&widget, &event);
}
void mouse(QWidget& widget, QEvent::Type type, QPointF at, Qt::MouseButton button, Qt::MouseButtons buttons) {
  QMouseEvent event(type, at, widget.mapToGlobal(at), button, buttons, Qt::NoModifier);
  QApplication::sendEvent(&widget, &event);
}
void key(QWidget& widget, int code, Qt::KeyboardModifiers modifiers = Qt::NoModifier) {
  QKeyEvent event(QEvent::KeyPress, code, modifiers);
  QApplication::sendEvent(&widget, &event);
}

struct Bench {
  Session& session;
  MainWindow& window;
  TileCanvas& canvas;

  bool settled(int limitMs = 600'000) const {
    return waitUntil([&] { return session.jobs().idle() && window.view(QStringLiteral("map"))->isSettled(); }, limitMs);
  }
  void zoom(const char* name, int notches) const {
    const QPointF centre = QRectF(canvas.plotRect()).center() + QPointF(40, 30);
    Times times;
    for (int i = 0; i < std::abs(notches); ++i) {
      input([&] { wheel(canvas, centre, notches > 0 ? 1 : -1); }, times);
    }
    report(name, times);
  }
  void pan(const char* name, int moves) const {
    const QPointF centre = QRectF(canvas.plotRect()).center();
    Times times;
    QPointF at = centre;
    mouse(canvas, QEvent::MouseButtonPress, at, Qt::LeftButton, Qt::LeftButton);
    for (int i = 1; i <= moves; ++i) {
      // A slow circle: fresh tiles on all sides.
      const double angle = i * 0.05;
      at = centre + QPointF(std::sin(angle), 1 - std::cos(angle)) * 160;
      input([&] { mouse(canvas, QEvent::MouseMove, at, Qt::NoButton, Qt::LeftButton); }, times);
    }
    mouse(canvas, QEvent::MouseButtonRelease, at, Qt::LeftButton, Qt::NoButton);
    report(name, times);
  }
  void hover(const char* name, int moves) const {
    Times times;
    const QPointF centre = QRectF(canvas.plotRect()).center();
    for (int i = 0; i < moves; ++i) {
      const QPointF at = centre + QPointF(2 * i - moves, i % 40);
      input([&] { mouse(canvas, QEvent::MouseMove, at, Qt::NoButton, Qt::NoButton); }, times);
    }
    report(name, times);
  }
  /// In, around and out again.
  void explore(const char* when) const {
    const auto name = [&](const char* what) { return std::string(what) + when; };
    canvas.fitAll();
    rest(100);
    recorder().take();
    zoom(name("zoom in, 36 notches").c_str(), 36);
    pan(name("pan at token level, 240 moves").c_str(), 240);
    zoom(name("zoom out, 18 notches").c_str(), -18);
    pan(name("pan half way, 240 moves").c_str(), 240);
    zoom(name("zoom out, 18 notches").c_str(), -18);
    hover(name("hover, 120 moves").c_str(), 120);
  }
  /// To a head; prints when something of it, and all of it, was painted.
  void switchHead(const char* name, int layers, int heads) const {
    recorder().take();
    const auto before = canvas.map();
    QElapsedTimer clock;
    clock.start();
    session.moveSelection(0, layers, heads);
    const bool other = waitUntil([&] { return canvas.map() != nullptr && canvas.map() != before; }, 60'000);
    const double mapAt = elapsed(clock);
    double first = -1, exact = -1;
    const auto painted = [&] {
      const long frame = recorder().frames();
      waitUntil([&] { return recorder().frames() > frame; }, 50);
      return elapsed(clock);
    };
    if (other && waitUntil([&] { return canvas.hasPicture(); }, 600'000)) {
      first = painted();
    }
    const QString said = canvas.precisionText();
    if (waitUntil([&] { return !canvas.isApproximate(); }, 600'000)) exact = painted();
    std::printf("%s: head %.1f ms, first picture %.1f ms (%s), exact %.1f ms\n", name, mapAt, first, qPrintable(said),
                exact);
    const bool done = settled();
    if (!done) std::printf("  (did not settle)\n");
    report("  events", {});
  }
};

int paintStartPage() {
  const Settings settings = Settings::load();
  Theme::apply(true);
  Session session;
  session.setMapCache(openUserMapCache());
  MainWindow window(session, settings);
  window.resize(kWindow);
  window.show();
  const bool painted = waitUntil([] { return recorder().frames() > 0; }, 20'000);
  std::printf("painted\n");
  std::fflush(stdout);
  std::quick_exit(painted ? 0 : 1);
}

void coldStart(const char* program) {
  Times times;
  for (int i = 0; i < 7; ++i) {
    QElapsedTimer clock;
    clock.start();
    QProcess child;
    child.start(QString::fromLocal8Bit(program), {QStringLiteral("--start-page")});
    if (!child.waitForReadyRead(30'000)) return;
    times.add(elapsed(clock));
    child.waitForFinished();
  }
  std::printf("start of the process to the painted start page (files in the page cache)\n");
  times.print("start");
  std::fflush(stdout);
}

/// Edits of a big profile with response curves at hand, in a window of their own.
void whatIf(const QString& folder) {
  JobQueueOptions options;
  options.threads = 2;
  Session session(options);
  MainWindow window(session, Settings());
  window.resize(kWindow);
  window.show();
  SynthSpec spec;
  spec.layers = 30;
  spec.heads = 12;
  spec.steps = 1;
  spec.frames = 4;
  spec.height = 8;
  spec.width = 8;
  spec.headDim = 16;
  const QString file = QDir(folder).filePath(QStringLiteral("whatif.h5"));
  writeSyntheticTrace(file.toStdString(), spec, session.jobs().executor(), {});
  window.openFiles({file});
  if (!waitUntil([&] { return session.trace() != nullptr; }, 60'000)) return;
  Profile profile(50, 30, 12, BudgetRole::KeptTarget);
  for (int step = 0; step < 50; ++step)
    for (int layer = 0; layer < 30; ++layer)
      for (int head = 0; head < 12; ++head) profile.set({step, layer, head}, 0.2 + 0.01 * layer + 0.005 * head);
  session.profile().open(profile, QString(), QStringLiteral("bench"));
  window.setLayoutPreset(QStringLiteral("tune"));
  window.showView(QStringLiteral("budget"));
  rest(500);
  auto* strip = window.findChild<ResponseStrip*>();
  auto* curve = window.findChild<BudgetCurve*>();
  if (strip == nullptr || curve == nullptr) return;
  strip->setMethod(QStringLiteral("oracle_block"));
  strip->measure(ResponseStrip::Scope::All);
  waitUntil([&] { return strip->isSettled() && session.jobs().idle(); }, 600'000);
  rest(500);
  recorder().take();
  Times drag;
  const QPointF point = curve->pointOf(12);
  mouse(*curve, QEvent::MouseButtonPress, point, Qt::LeftButton, Qt::LeftButton);
  for (int i = 1; i <= 120; ++i) {
    const QPointF at = point - QPointF(0, 40 * std::sin(i * 0.1));
    input([&] { mouse(*curve, QEvent::MouseMove, at, Qt::NoButton, Qt::LeftButton); }, drag);
  }
  mouse(*curve, QEvent::MouseButtonRelease, point, Qt::LeftButton, Qt::NoButton);
  rest(300);
  std::printf("profile of 18,000 cells, response curves of %zu heads\n", strip->table().size());
  report("what-if: drag of a budget point, 120 moves", drag);
  Times keys;
  for (int i = 0; i < 40; ++i) input([&] { key(*curve, i % 2 == 0 ? Qt::Key_Up : Qt::Key_Down); }, keys);
  rest(300);
  report("what-if: 40 key presses", keys);
}

QString makeTrace(const QString& folder, qint64 tokens) {
  SynthSpec spec;
  spec.textTokens = 0;
  spec.layers = 2;
  spec.heads = 3;
  spec.steps = 1;
  spec.headDim = 128;
  spec.dtype = DType::BF16;
  if (tokens == 118'800) {
    spec.frames = 33, spec.height = 45, spec.width = 80;
  } else if (tokens == 32'760) {
    spec.frames = 21, spec.height = 30, spec.width = 52;
  } else {
    spec.frames = 9, spec.height = 16, spec.width = 24, spec.headDim = 64;
  }
  const QString file = QDir(folder).filePath(QStringLiteral("bench-%1.h5").arg(tokens));
  if (QFileInfo::exists(file)) return file;
  Executor executor(0);
  writeSyntheticTrace(file.toStdString(), spec, executor, {});
  return file;
}

int play(const QString& trace, const QString& folder, bool quick) {
  JobQueueOptions options;
  Session session(options);
  session.setMapCache(openUserMapCache());
  MainWindow window(session, Settings());
  window.resize(kWindow);
  window.setLayoutPreset(QStringLiteral("diagnose"));  // whatever the parts before left
  window.show();
  waitUntil([] { return recorder().frames() > 0; }, 5000);
  rest(500);
  report("start page", {});
  auto* canvas = window.view(QStringLiteral("map"))->findChild<TileCanvas*>();
  Bench bench{session, window, *canvas};
  std::printf("painter %s, %d computing thread(s)\n", qPrintable(canvas->rendererDescription()),
              session.jobs().executor().threads());

  QElapsedTimer clock;
  clock.start();
  window.openFiles({trace});
  if (!waitUntil([&] { return canvas->map() != nullptr && canvas->hasPicture(); }, 600'000)) return 1;
  long frame = recorder().frames();
  waitUntil([&] { return recorder().frames() > frame; }, 1000);
  std::printf("open: first picture %.1f ms (%s)\n", elapsed(clock), qPrintable(canvas->precisionText()));
  bench.settled();
  std::printf("open: exact %.1f ms, %lld x %lld tokens\n", elapsed(clock),
              static_cast<long long>(canvas->map()->rows()), static_cast<long long>(canvas->map()->cols()));
  report("open a trace", {});
  canvas->setFocus();

  bench.explore("");

  canvas->fitAll();
  rest(300);
  recorder().take();
  Times palette, range, pooling, overlay;
  for (int i = 0; i < 20; ++i) input([&] { key(*canvas, Qt::Key_C); }, palette);
  report("colour map, 20 changes", palette);
  for (int i = 0; i < 60; ++i) {
    ColorSettings colors = canvas->colors();
    colors.range.minimum *= i % 2 == 0 ? 1.1 : 1 / 1.1;
    input([&] { canvas->setColors(colors); }, range);
  }
  report("range, 60 changes", range);
  for (int i = 0; i < 20; ++i) input([&] { canvas->setReduce(i % 2 == 0 ? Reduce::Mean : Reduce::Max); }, pooling);
  report("pooling, 20 changes", pooling);
  if (!quick) {
    // SVG on this head alone: an overlay to switch.
    RunRequest request;
    request.methodId = "svg";
    request.selection.branch = session.selection().branch;
    request.selection.steps = Selector::parse(std::to_string(session.selection().step));
    request.selection.layers = Selector::parse(std::to_string(session.selection().layer));
    request.selection.heads = Selector::parse(std::to_string(session.selection().head));
    session.setOverlayMethod(QStringLiteral("svg"));
    session.runMethod(request, QStringLiteral("SVG on this head"));
    waitUntil([&] { return session.lastReport(QStringLiteral("svg")) != nullptr; }, 600'000);
    bench.settled();
    report("SVG on this head", {});
    QComboBox* box = nullptr;
    for (QComboBox* each : window.view(QStringLiteral("map"))->findChildren<QComboBox*>())
      if (each->accessibleName() == QStringLiteral("overlay")) box = each;
    if (box != nullptr && box->count() > 1) {
      for (int i = 0; i < 20; ++i) input([&] { box->setCurrentIndex(i % 2); }, overlay);
      report("overlay, 20 changes", overlay);
    }
  }

  bench.switchHead("next head, never seen", 0, 1);
  bench.switchHead("back: in memory", 0, -1);
  bench.switchHead("forth: in memory", 0, 1);
  rest(500);
  session.closeTrace();
  waitUntil([&] { return session.jobs().idle(); }, 60'000);
  rest(200);
  window.openFiles({trace});
  clock.restart();
  waitUntil([&] { return canvas->map() != nullptr && canvas->hasPicture(); }, 600'000);
  std::printf("opened again: first picture %.1f ms (%s%s)\n", elapsed(clock), qPrintable(canvas->precisionText()),
              canvas->map() != nullptr && canvas->map()->fromCache() ? ", from disk" : "");
  bench.settled();
  bench.switchHead("next head: from disk", 0, 1);
  report("closed and opened again", {});

  if (!quick) {
    // Heads of the other layer, computed while the map is used.
    RunRequest request;
    request.methodId = "dense";
    request.evaluate.rows = 0;
    session.runMethod(request, QStringLiteral("Every head, densely"));
    rest(200);
    bench.explore(", heads being computed");
    std::printf("  (still computing: %s)\n", session.jobs().idle() ? "no" : "yes");
  }
  static_cast<void>(folder);
  return 0;
}

/// Views that colour every token: the frames (another row for each query), and the permutation (another cluster under
/// the mouse).
int playTokens(const QString& trace) {
  Session session;
  session.setMapCache(openUserMapCache());
  MainWindow window(session, Settings());
  window.resize(kWindow);
  window.setLayoutPreset(QStringLiteral("diagnose"));
  window.show();
  window.openFiles({trace});
  auto* canvas = window.view(QStringLiteral("map"))->findChild<TileCanvas*>();
  if (!waitUntil([&] { return canvas->map() != nullptr && canvas->hasPicture() && session.jobs().idle(); }, 600'000))
    return 1;
  window.showView(QStringLiteral("frames"));
  View* view = window.view(QStringLiteral("frames"));
  const auto settled = [&] { return waitUntil([&] { return view->isSettled() && session.jobs().idle(); }, 600'000); };
  settled();
  rest(500);
  report("on the frames: shown", {});
  auto* frames = view->findChild<FramesCanvas*>();
  const auto hover = [](QWidget& widget, const char* name) {
    Times times;
    const QPointF centre = QRectF(widget.rect()).center();
    for (int i = 0; i < 120; ++i) {
      const QPointF at = centre + QPointF(3 * i - 180, i % 40 * 3);
      input([&] { mouse(widget, QEvent::MouseMove, at, Qt::NoButton, Qt::NoButton); }, times);
    }
    report(name, times);
  };
  hover(*frames, "on the frames: hover, 120 moves");
  Times moves;
  for (int i = 0; i < 20; ++i) {
    QElapsedTimer clock;
    clock.start();
    const std::vector<float> before = frames->values();
    key(*frames, i % 2 == 0 ? Qt::Key_Right : Qt::Key_Left);
    if (!waitUntil([&] { return frames->values() != before; }, 60'000)) break;
    const long frame = recorder().frames();
    waitUntil([&] { return recorder().frames() > frame; }, 100);
    moves.add(elapsed(clock));
  }
  settled();
  report("on the frames: another query, 20 keys", moves);

  RunRequest request;
  request.methodId = "svg2";
  request.selection.branch = session.selection().branch;
  request.selection.steps = Selector::parse(std::to_string(session.selection().step));
  request.selection.layers = Selector::parse(std::to_string(session.selection().layer));
  request.selection.heads = Selector::parse(std::to_string(session.selection().head));
  request.params = ParamSet::parse(methodById("svg2").params(), {"kmeans_iter_init=2"});  // only to have clusters
  request.evaluate.rows = 256;
  session.setOverlayMethod(QStringLiteral("svg2"));
  session.runMethod(request, QStringLiteral("SVG2 on this head"));
  if (!waitUntil([&] { return session.lastReport(QStringLiteral("svg2")) != nullptr; }, 600'000)) return 1;
  settled();
  report("SVG2 on this head", {});
  window.showView(QStringLiteral("permutation"));
  view = window.view(QStringLiteral("permutation"));
  settled();
  rest(500);
  report("permutation: shown", {});
  hover(*view->findChild<FramesCanvas*>(), "permutation: hover, 120 moves");
  return 0;
}

/// What stands between a click on a head and its picture, without a window: stage by stage, on as many threads as the
/// window would use and on all.
int playHead(const QString& file, const QString& folder) {
  for (const int threads : {std::max(1, QThread::idealThreadCount() - 1), QThread::idealThreadCount()}) {
    Executor executor(threads);
    const auto backend = createBackend("cpu", executor);
    const auto trace = openTrace(file.toStdString());
    const auto cache =
        std::make_shared<MapCache>(QDir(folder).filePath(QStringLiteral("heads")).toStdString(), kDefaultMapCacheBytes);
    std::printf("%d thread(s)\n", threads);
    int left = 4;
    for (const CallInfo& call : trace->info().calls) {
      for (const int head : call.heads) {
        if (left-- <= 0) break;
        QElapsedTimer clock;
        clock.start();
        const auto lap = [&clock] {
          const double ms = elapsed(clock);
          clock.restart();
          return ms;
        };
        HeadData data = trace->loadScores({call.id, head}, {});
        const double read = lap();
        AttentionMap map(std::move(data));
        map.setCache(cache);
        const double made = lap();
        const bool found = map.restore({});
        const double restored = lap();
        std::printf("  read %.1f ms, made %.1f, %s %.1f", read, made, found ? "restored" : "looked for", restored);
        if (!found) {
          map.preview(*backend, {});
          std::printf(", preview %.1f", lap());
        }
        if (!found && left == 3) {
          map.build(*backend, {});
          std::printf(", exact %.1f", lap());
          map.remember();
          std::printf(", remembered %.1f", lap());
        }
        for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
          for (int z = map.coarseLevel(); z <= map.maxLevel(); ++z)
            for (Index y = 0; y < map.tileRows(z); ++y)
              for (Index x = 0; x < map.tileCols(z); ++x)
                static_cast<void>(makeMapTile(*map.coarseTile({z, x, y, reduce})));
        }
        std::printf(", coded for painting %.1f\n", lap());
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  QTemporaryDir home;
  if (argc < 2 || std::strcmp(argv[1], "--start-page") != 0) {
    // A home of its own: neither the user's settings nor caches take part.
    for (const char* name : {"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"}) {
      const QString path = home.filePath(QString::fromLatin1(name).toLower());
      QDir().mkpath(path);
      qputenv(name, path.toLocal8Bit());
    }
  }
  QApplication::setHighDpiScaleFactorRoundingPolicy(Qt::HighDpiScaleFactorRoundingPolicy::PassThrough);
  FrameRecorder app(argc, argv);
  QCoreApplication::setOrganizationName(QStringLiteral("sparsight"));
  QCoreApplication::setApplicationName(QStringLiteral("sparsight"));
  QCommandLineParser parser;
  parser.setApplicationDescription(
      QStringLiteral("Plays pan, zoom, colour, head and budget changes on the workbench and prints frame times, input "
                     "to paint and handler times. SPARSIGHT_RENDERER=raster|gl chooses the painter."));
  parser.addHelpOption();
  const QCommandLineOption trace(QStringLiteral("trace"), QStringLiteral("This trace instead of a generated one"),
                                 QStringLiteral("FILE"));
  const QCommandLineOption tokens(QStringLiteral("tokens"), QStringLiteral("3456, 32760 (default) or 118800"),
                                  QStringLiteral("N"), QStringLiteral("32760"));
  const QCommandLineOption folder(QStringLiteral("folder"), QStringLiteral("Where the generated trace is kept"),
                                  QStringLiteral("DIR"), home.path());
  const QCommandLineOption quick(QStringLiteral("quick"), QStringLiteral("Without method runs"));
  const QCommandLineOption only(QStringLiteral("only"),
                                QStringLiteral("start, budget, map, or tokens or head, which a whole run leaves out"),
                                QStringLiteral("PART"));
  const QCommandLineOption start(QStringLiteral("start-page"), QStringLiteral("Only paint the start page (internal)"));
  const QCommandLineOption slow(QStringLiteral("slow"),
                                QStringLiteral("Also print every frame and handler of more CPU milliseconds, and when"),
                                QStringLiteral("MS"));
  parser.addOptions({trace, tokens, folder, quick, only, start, slow});
  parser.process(app);
  if (parser.isSet(start)) return paintStartPage();
  if (parser.isSet(slow)) recorder().printSlow(parser.value(slow).toDouble());
  Theme::apply(true);
  QApplication::setQuitOnLastWindowClosed(false);
  const QString part = parser.value(only);
  if (part.isEmpty() || part == QStringLiteral("start")) coldStart(argv[0]);
  recorder().take();
  if (part.isEmpty() || part == QStringLiteral("budget")) whatIf(home.path());
  recorder().take();
  if (!part.isEmpty() && part != QStringLiteral("map") && part != QStringLiteral("tokens") &&
      part != QStringLiteral("head"))
    return 0;
  const QString file =
      parser.isSet(trace) ? parser.value(trace) : makeTrace(parser.value(folder), parser.value(tokens).toLongLong());
  if (part == QStringLiteral("head")) return playHead(file, home.path());
  if (part == QStringLiteral("tokens")) return playTokens(file);
  return play(file, home.path(), parser.isSet(quick));
}
