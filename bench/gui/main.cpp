// SPDX-License-Identifier: Apache-2.0
// Plays a fixed sequence of inputs on the workbench and prints how long frames, handlers and answers took. Asserts
// nothing: machines differ. Run it under Xvfb or on a display, with nothing else on the machine.
#include <QComboBox>
#include <QCommandLineParser>
#include <QDir>
#include <QFileInfo>
#include <QProcess>
#include <QTemporaryDir>
#include <QThread>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "bench/gui/daily.h"
#include "bench/gui/player.h"
#include "bench/gui/report.h"
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
using namespace sparsight::bench;

namespace {

struct Bench {
  Session& session;
  MainWindow& window;
  TileCanvas& canvas;

  bool settled(int limitMs = 600'000) const {
    return waitUntil([&] { return session.jobs().idle() && window.view(QStringLiteral("map"))->isSettled(); }, limitMs);
  }
  [[nodiscard]] QPointF centre() const { return QRectF(canvas.plotRect()).center(); }
  FrameRecorder::Recording zoom(QPointF at, int notches, Times& times) const {
    for (int i = 0; i < std::abs(notches); ++i) {
      input([&] { wheel(canvas, at, notches > 0 ? 1 : -1); }, times);
    }
    return recorder().take();
  }
  FrameRecorder::Recording pan(int moves, Times& times) const {
    QPointF at = centre();
    mouse(canvas, QEvent::MouseButtonPress, at, Qt::LeftButton, Qt::LeftButton);
    for (int i = 1; i <= moves; ++i) {
      // A slow circle: fresh tiles on all sides.
      const double angle = i * 0.05;
      at = centre() + QPointF(std::sin(angle), 1 - std::cos(angle)) * 160;
      input([&] { mouse(canvas, QEvent::MouseMove, at, Qt::NoButton, Qt::LeftButton); }, times);
    }
    mouse(canvas, QEvent::MouseButtonRelease, at, Qt::LeftButton, Qt::NoButton);
    return recorder().take();
  }
  void hover(const QString& name, int moves) const {
    Times times;
    for (int i = 0; i < moves; ++i) {
      const QPointF at = centre() + QPointF(2 * i - moves, i % 40);
      input([&] { mouse(canvas, QEvent::MouseMove, at, Qt::NoButton, Qt::NoButton); }, times);
    }
    report().section(name, times);
  }
  /// In, around and out again, at several places: each pass finds fresh tiles. `before` runs ahead of each.
  void explore(const QString& when, const std::function<void()>& before = {}) const {
    struct Part {
      FrameRecorder::Recording taken;
      Times times;
    };
    Part in, deep, out, half;
    const QPointF places[] = {{40, 30}, {-190, 120}, {210, -160}, {-90, -230}};
    for (const QPointF& place : places) {
      if (before) before();
      canvas.fitAll();
      rest(100);
      recorder().take();
      const QPointF at = centre() + place;
      in.taken.add(zoom(at, 36, in.times));
      deep.taken.add(pan(120, deep.times));
      out.taken.add(zoom(at, -18, out.times));
      half.taken.add(pan(120, half.times));
      out.taken.add(zoom(at, -18, out.times));
    }
    report().section(QStringLiteral("zoom in, 4 x 36 notches") + when, in.taken, in.times);
    report().section(QStringLiteral("pan at token level, 4 x 120 moves") + when, deep.taken, deep.times);
    report().section(QStringLiteral("zoom out, 4 x 36 notches") + when, out.taken, out.times);
    report().section(QStringLiteral("pan half way, 4 x 120 moves") + when, half.taken, half.times);
    hover(QStringLiteral("hover, 120 moves") + when, 120);
  }
  /// To a head; prints when something of it, and all of it, was painted.
  void switchHead(const char* name, int layers, int heads) const {
    recorder().take();
    const auto before = canvas.map();
    const auto changed = [&] { return canvas.map() != nullptr && canvas.map() != before; };
    recorder().await({[&] { return changed() && canvas.hasPicture(); },
                      [&] { return changed() && canvas.hasPicture() && !canvas.isApproximate(); }});
    const double start = FrameRecorder::now();
    session.moveSelection(0, layers, heads);
    waitUntil(changed, 60'000);
    const double mapAt = FrameRecorder::now() - start;
    waitUntil([&] { return recorder().shownAt(0) >= 0; }, 60'000);
    const double first = recorder().shownAt(0) - start;
    const QString said = canvas.precisionText();
    waitUntil([&] { return recorder().shownAt(1) >= 0; }, 600'000);
    const double exact = recorder().shownAt(1) - start;
    recorder().await({});
    report().figure(QStringLiteral("%1: head").arg(QLatin1String(name)), mapAt);
    report().figure(QStringLiteral("%1: first picture").arg(QLatin1String(name)), first, said);
    report().figure(QStringLiteral("%1: exact").arg(QLatin1String(name)), exact,
                    canvas.map()->fromCache() ? QStringLiteral("from disk") : QString());
    const bool done = settled();
    if (!done) std::printf("  (did not settle)\n");
    report().section(QStringLiteral("%1: events").arg(QLatin1String(name)));
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
  report().figure(QStringLiteral("start of the process to the painted start page"), times,
                  QStringLiteral("files in the page cache"));
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
  report().section("what-if: drag of a budget point, 120 moves", drag);
  Times keys;
  for (int i = 0; i < 40; ++i) input([&] { key(*curve, i % 2 == 0 ? Qt::Key_Up : Qt::Key_Down); }, keys);
  rest(300);
  report().section("what-if: 40 key presses", keys);
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
  QString file = QDir(folder).filePath(QStringLiteral("bench-%1.h5").arg(tokens));
  if (QFileInfo::exists(file)) return file;
  Executor executor(0);
  writeSyntheticTrace(file.toStdString(), spec, executor, {});
  return file;
}

int play(const QString& trace, bool quick) {
  JobQueueOptions options;
  Session session(options);
  session.setMapCache(openUserMapCache());
  MainWindow window(session, Settings());
  window.resize(kWindow);
  window.setLayoutPreset(QStringLiteral("diagnose"));  // whatever the parts before left
  window.show();
  waitUntil([] { return recorder().frames() > 0; }, 5000);
  rest(500);
  report().section("start page");
  auto* canvas = window.view(QStringLiteral("map"))->findChild<TileCanvas*>();
  Bench bench{session, window, *canvas};
  std::printf("painter %s, %d computing thread(s)\n", qPrintable(canvas->rendererDescription()),
              session.jobs().executor().threads());
  report().fact(QStringLiteral("painter"), canvas->rendererDescription());
  report().fact(QStringLiteral("threads"), session.jobs().executor().threads());

  const auto picture = [&] { return canvas->map() != nullptr && canvas->hasPicture(); };
  recorder().await({picture, [&] { return picture() && !canvas->isApproximate(); }});
  double start = FrameRecorder::now();
  window.openFiles({trace});
  if (!waitUntil([] { return recorder().shownAt(0) >= 0; }, 60'000)) return 1;
  report().figure(QStringLiteral("open a trace: first picture"), recorder().shownAt(0) - start,
                  canvas->precisionText());
  waitUntil([] { return recorder().shownAt(1) >= 0; }, 600'000);
  report().figure(QStringLiteral("open a trace: exact"), recorder().shownAt(1) - start);
  report().fact(QStringLiteral("tokens"), static_cast<qint64>(canvas->map()->rows()));
  bench.settled();
  report().section("open a trace");
  canvas->setFocus();

  bench.explore(QString());

  canvas->fitAll();
  rest(300);
  recorder().take();
  Times palette, range, pooling, overlay;
  for (int i = 0; i < 20; ++i) input([&] { key(*canvas, Qt::Key_C); }, palette);
  report().section("colour map, 20 changes", palette);
  for (int i = 0; i < 60; ++i) {
    ColorSettings colors = canvas->colors();
    colors.range.minimum *= i % 2 == 0 ? 1.1 : 1 / 1.1;
    input([&] { canvas->setColors(colors); }, range);
  }
  report().section("range, 60 changes", range);
  for (int i = 0; i < 20; ++i) input([&] { canvas->setReduce(i % 2 == 0 ? Reduce::Mean : Reduce::Max); }, pooling);
  report().section("pooling, 20 changes", pooling);
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
    report().section("SVG on this head");
    QComboBox* box = nullptr;
    for (QComboBox* each : window.view(QStringLiteral("map"))->findChildren<QComboBox*>())
      if (each->accessibleName() == QStringLiteral("overlay")) box = each;
    if (box != nullptr && box->count() > 1) {
      for (int i = 0; i < 20; ++i) input([&] { box->setCurrentIndex(i % 2); }, overlay);
      report().section("overlay, 20 changes", overlay);
    }
  }

  bench.switchHead("next head, never seen", 0, 1);
  bench.switchHead("back: in memory", 0, -1);
  bench.switchHead("forth: in memory", 0, 1);
  rest(500);
  session.closeTrace();
  waitUntil([&] { return session.jobs().idle(); }, 60'000);
  rest(200);
  recorder().await({picture});
  start = FrameRecorder::now();
  window.openFiles({trace});
  waitUntil([] { return recorder().shownAt(0) >= 0; }, 600'000);
  report().figure(QStringLiteral("opened again: first picture"), recorder().shownAt(0) - start,
                  canvas->precisionText() + (canvas->map()->fromCache() ? QStringLiteral(", from disk") : QString()));
  recorder().await({});
  bench.settled();
  report().section("closed and opened again");
  bench.switchHead("next head: from disk", 0, 1);

  if (!quick) {
    // Heads of the other layer, computed while the map is used.
    RunRequest request;
    request.methodId = "dense";
    request.evaluate.rows = 0;
    bench.explore(QStringLiteral(", heads being computed"), [&] {
      for (int i = 0; session.jobs().idle() && i < 3; ++i)
        session.runMethod(request, QStringLiteral("Every head, densely"));
      rest(200);
    });
    std::printf("  (still computing: %s)\n", session.jobs().idle() ? "no" : "yes");
  }
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
  report().section("on the frames: shown");
  auto* frames = view->findChild<FramesCanvas*>();
  const auto hover = [](QWidget& widget, const char* name) {
    Times times;
    const QPointF centre = QRectF(widget.rect()).center();
    for (int i = 0; i < 120; ++i) {
      const QPointF at = centre + QPointF(3 * i - 180, i % 40 * 3);
      input([&] { mouse(widget, QEvent::MouseMove, at, Qt::NoButton, Qt::NoButton); }, times);
    }
    report().section(name, times);
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
  report().section("on the frames: another query, 20 keys", moves);

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
  report().section("SVG2 on this head");
  window.showView(QStringLiteral("permutation"));
  view = window.view(QStringLiteral("permutation"));
  settled();
  rest(500);
  report().section("permutation: shown");
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
        const bool outlined = trace->outline({call.id, head}).has_value();
        const double hashed = lap();
        HeadData data = trace->loadScores({call.id, head});
        const double read = lap();
        AttentionMap map(std::move(data));
        map.setCache(cache);
        const double made = lap();
        const bool found = map.restore({});
        const double restored = lap();
        std::printf("  hashed%s %.1f ms, read %.1f, made %.1f, %s %.1f", outlined ? "" : " (not)", hashed, read, made,
                    found ? "restored" : "looked for", restored);
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
                                QStringLiteral("start, budget, daily, map, or tokens or head, which a whole run "
                                               "leaves out"),
                                QStringLiteral("PART"));
  const QCommandLineOption json(QStringLiteral("json"),
                                QStringLiteral("Write the figures there too, with date, commit and machine"),
                                QStringLiteral("FILE"));
  const QCommandLineOption start(QStringLiteral("start-page"), QStringLiteral("Only paint the start page (internal)"));
  const QCommandLineOption slow(QStringLiteral("slow"),
                                QStringLiteral("Also print every frame and handler of more CPU milliseconds, and when"),
                                QStringLiteral("MS"));
  parser.addOptions({trace, tokens, folder, quick, only, json, start, slow});
  parser.process(app);
  if (parser.isSet(start)) return paintStartPage();
  if (parser.isSet(slow)) recorder().printSlow(parser.value(slow).toDouble());
  Theme::apply(true);
  QApplication::setQuitOnLastWindowClosed(false);
  const QString part = parser.value(only);
  const auto wanted = [&part](const char* name) { return part.isEmpty() || part == QLatin1String(name); };
  if (wanted("start")) coldStart(argv[0]);
  recorder().take();
  if (wanted("budget")) whatIf(home.path());
  recorder().take();
  int result = 0;
  if (wanted("daily") || wanted("map") || part == QStringLiteral("tokens") || part == QStringLiteral("head")) {
    const QString file =
        parser.isSet(trace) ? parser.value(trace) : makeTrace(parser.value(folder), parser.value(tokens).toLongLong());
    if (part == QStringLiteral("head"))
      result = playHead(file, home.path());
    else if (part == QStringLiteral("tokens"))
      result = playTokens(file);
    if (wanted("daily") && result == 0) result = playDaily(file, home.path());
    if (wanted("map") && result == 0) result = play(file, parser.isSet(quick));
  }
  if (parser.isSet(json) && !report().write(parser.value(json))) {
    std::fprintf(stderr, "cannot write %s\n", qPrintable(parser.value(json)));
    return 1;
  }
  return result;
}
