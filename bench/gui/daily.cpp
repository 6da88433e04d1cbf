// SPDX-License-Identifier: Apache-2.0
#include "bench/gui/daily.h"

#include <QAction>
#include <QDialog>
#include <QDir>
#include <QFileInfo>
#include <QPushButton>
#include <functional>
#include <string>

#include "bench/gui/player.h"
#include "sparsight/core/map_cache.h"
#include "sparsight/core/method.h"
#include "sparsight/core/profile.h"
#include "sparsight/core/synth.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/view.h"

namespace sparsight::bench {
namespace {

constexpr int kLimitMs = 600'000;
const char* const kMethods[] = {"svg", "adaspa", "svg2", "svoo"};

/// A trace of 4 layers of 12 heads at two steps, of few tokens: lists and tables are long, computing is short.
QString writeManyHeads(const QString& folder, Executor& executor) {
  SynthSpec spec;
  spec.layers = 4;
  spec.heads = 12;
  spec.steps = 2;
  spec.frames = 4;
  spec.height = 12;
  spec.width = 16;
  spec.headDim = 32;
  QString file = QDir(folder).filePath(QStringLiteral("many-heads.h5"));
  writeSyntheticTrace(file.toStdString(), spec, executor, {});
  return file;
}

class Daily {
 public:
  Daily() {
    m_session.setMapCache(openUserMapCache());
    m_window.resize(kWindow);
    m_window.setLayoutPreset(QStringLiteral("diagnose"));
    m_window.show();
    rest(500);
    recorder().take();
  }

  int play(const QString& trace, const QString& folder) {
    const QString manyHeads = writeManyHeads(folder, m_session.jobs().executor());
    const QString profile = QDir(folder).filePath(QStringLiteral("daily.csv"));
    writeProfile(profile);
    recorder().take();

    if (!open(trace)) return 1;
    end("open a trace");
    act([this] { m_session.closeTrace(); });
    end("close it");
    if (!open(trace)) return 1;
    end("open it again");
    if (!open(manyHeads)) return 1;
    end("open another over it: 96 heads");
    m_window.openFiles({profile});
    if (!waitUntil([&] { return !m_session.profile().isEmpty(); }, kLimitMs)) return 1;
    end("open a profile of 18,000 cells");

    for (int i = 0; i < 24; ++i) {
      move(0, 0, i % 12 < 11 ? 1 : -11);
      rest(40);
    }
    end("walk over 24 heads");
    for (int i = 0; i < 6; ++i) {
      move(i % 2 == 0 ? 1 : -1, 0, 0);
      rest(60);
      move(0, i % 2 == 0 ? 1 : -1, 0);
      rest(60);
    }
    end("another step, another layer, 6 times");

    layouts();
    for (const ViewInfo* info : allViews()) {
      for (int i = 0; i < 2; ++i) {
        show(QLatin1String(info->id));
        rest(100);
        if (i == 0) show(QStringLiteral("map"));
        rest(100);
      }
      end(qPrintable(QStringLiteral("show the view %1").arg(QLatin1String(info->id))));
    }
    preset("diagnose");
    show(QStringLiteral("map"));
    end("back to the map");

    for (int i = 0; i < 4; ++i) {
      trigger(i % 2 == 0 ? "theme.light" : "theme.dark");
      rest(200);
    }
    end("theme, 4 changes");
    for (const char* size : {"view.larger", "view.larger", "view.normal"}) {
      trigger(size);
      rest(200);
    }
    end("size of the interface, 3 changes");
    dialogs();

    for (const char* method : kMethods)
      if (!run(method, QStringLiteral("12"))) return 1;
    const QString results = QDir(folder).filePath(QStringLiteral("daily-results.h5"));
    m_session.saveRuns(QStringLiteral("svg"), results, false);
    if (!waitUntil([&] { return QFileInfo::exists(results) && m_session.jobs().idle(); }, kLimitMs)) return 1;
    end("save results");
    act([this] { m_session.closeTrace(); });
    if (!open(manyHeads)) return 1;
    end("close it with its results, open it again");
    m_window.openFiles({results});
    if (!waitUntil([&] { return m_session.runs().methods().contains(QStringLiteral("svg")); }, kLimitMs)) return 1;
    end("open results");
    if (!compare()) return 1;
    if (!open(trace)) return 1;
    end("open the long trace over it");
    for (const char* method : kMethods)
      if (!run(method, QString())) return 1;
    act([this] { m_session.closeTrace(); });
    act([this] { m_session.profile().close(); });
    end("close everything");
    return 0;
  }

 private:
  static void writeProfile(const QString& file) {
    Profile profile(50, 30, 12, BudgetRole::KeptTarget);
    for (int step = 0; step < 50; ++step)
      for (int layer = 0; layer < 30; ++layer)
        for (int head = 0; head < 12; ++head) profile.set({step, layer, head}, 0.1 + 0.005 * layer + 0.005 * head);
    sparsight::writeProfile(file.toStdString(), profile);
  }

  bool settle() {
    const auto done = [this] {
      if (!m_session.jobs().idle() || !m_window.viewsAreTold()) return false;
      for (const ViewInfo* info : allViews())
        if (const View* view = m_window.view(QLatin1String(info->id)); view->isVisible() && !view->isSettled())
          return false;
      return true;
    };
    // What comes after the last job: idle preparations, delayed layouts.
    return waitUntil(done, kLimitMs) && (rest(600), waitUntil(done, kLimitMs));
  }
  void end(const char* name) {
    if (!settle()) std::printf("  (did not settle)\n");
    report().section(QStringLiteral("daily: ") + QLatin1String(name));
  }
  bool open(const QString& file) {
    const auto before = m_session.trace();
    m_window.openFiles({file});
    return waitUntil([&] { return m_session.trace() != nullptr && m_session.trace() != before; }, kLimitMs);
  }
  /// As one event, as a click or a key is one.
  void act(const std::function<void()>& what) {
    bool done = false;
    QMetaObject::invokeMethod(
        &m_window,
        [&] {
          what();
          done = true;
        },
        Qt::QueuedConnection);
    waitUntil([&] { return done; }, kLimitMs);
  }
  void trigger(const char* action) {
    if (QAction* found = m_window.actionByName(QLatin1String(action))) act([found] { found->trigger(); });
  }
  void move(int steps, int layers, int heads) {
    act([&] { m_session.moveSelection(steps, layers, heads); });
  }
  void show(const QString& view) {
    act([&] { m_window.showView(view); });
  }
  void preset(const char* name) { trigger(("layout." + std::string(name)).c_str()); }

  void layouts() {
    for (const char* name : {"tune", "compare", "teach"}) {
      for (int i = 0; i < 2; ++i) {  // the first time nothing is stored for it
        preset(name);
        rest(150);
        preset("diagnose");
        rest(150);
      }
      end(qPrintable(QStringLiteral("layout %1 and back, 2 times").arg(QLatin1String(name))));
    }
  }

  void dialogs() {
    for (const char* action : {"file.settings", "go.to", "go.palette", "profile.export", "help.view", "help.keys",
                               "file.generate", "help.about"}) {
      for (int i = 0; i < 2; ++i) {
        trigger(action);
        rest(250);
        for (QWidget* shown : QApplication::topLevelWidgets())
          if (shown != &m_window && shown->isVisible()) act([shown] { shown->close(); });
        rest(100);
      }
      end(qPrintable(QStringLiteral("dialog %1, 2 times").arg(QLatin1String(action))));
    }
    preset("diagnose");
    end("away from the help");
  }

  /// On the selected head, or on the first `heads` of its layer.
  bool run(const char* method, const QString& heads) {
    RunRequest request;
    request.methodId = method;
    const Selection& at = m_session.selection();
    request.selection.branch = at.branch;
    request.selection.steps = Selector::parse(std::to_string(at.step));
    request.selection.layers = Selector::parse(std::to_string(at.layer));
    if (heads.isEmpty()) {
      request.selection.heads = Selector::parse(std::to_string(at.head));
      request.evaluate.rows = 256;
      if (std::string_view(method) == "svg2" || std::string_view(method) == "svoo")
        request.params = ParamSet::parse(methodById(method).params(), {"kmeans_iter_init=2"});  // only to have clusters
    }
    m_session.setOverlayMethod(QLatin1String(method));
    m_session.runMethod(request, QLatin1String(method));
    const auto before = m_session.lastReport(QLatin1String(method));
    if (!waitUntil([&] { return m_session.lastReport(QLatin1String(method)) != before; }, kLimitMs)) return false;
    end(qPrintable(QStringLiteral("run %1 on %2")
                       .arg(QLatin1String(method),
                            heads.isEmpty() ? QStringLiteral("a head") : heads + QStringLiteral(" heads"))));
    return true;
  }

  bool compare() {
    preset("compare");
    end("layout compare, with results");
    auto* start = m_window.view(QStringLiteral("compare"))->findChild<QPushButton*>(QStringLiteral("compareRun"));
    if (start == nullptr) return false;
    act([start] { start->click(); });
    end("compare five methods on a head");
    move(0, 0, 1);
    end("compare: the next head");
    preset("diagnose");
    end("back from it");
    return true;
  }

  Session m_session;
  MainWindow m_window{m_session, Settings()};
};

}  // namespace

int playDaily(const QString& trace, const QString& folder) { return Daily().play(trace, folder); }

}  // namespace sparsight::bench
