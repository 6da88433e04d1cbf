// SPDX-License-Identifier: Apache-2.0
#include "ui/self_test.h"

#include <QApplication>
#include <QElapsedTimer>
#include <QOffscreenSurface>
#include <QOpenGLContext>
#include <QOpenGLFunctions>
#include <QSurfaceFormat>
#include <cstdio>
#include <optional>

#include "ui/session.h"
#include "ui/theme.h"
#include "ui/view_host.h"

namespace sparsight {
namespace {

constexpr int kTimeoutMs = 180'000;
/// A panel with text alone has dozens of colours from antialiasing; one that painted nothing has one or two.
constexpr int kFewestColors = 8;

struct GlInfo {
  QString version, renderer;
};

std::optional<GlInfo> probeGl() {
  QSurfaceFormat format;
  format.setVersion(3, 3);
  format.setProfile(QSurfaceFormat::CoreProfile);
  QOpenGLContext context;
  context.setFormat(format);
  if (!context.create()) return std::nullopt;
  QOffscreenSurface surface;
  surface.setFormat(context.format());
  surface.create();
  if (!surface.isValid() || !context.makeCurrent(&surface)) return std::nullopt;
  const auto text = [&context](GLenum name) {
    const auto* bytes = reinterpret_cast<const char*>(context.functions()->glGetString(name));
    return bytes == nullptr ? QString() : QString::fromLatin1(bytes);
  };
  GlInfo info{text(GL_VERSION), text(GL_RENDERER)};
  context.doneCurrent();
  return info;
}

bool testView(Session& session, const ViewInfo& info, const char* painter) {
  qputenv("SPARSIGHT_RENDERER", painter);
  QElapsedTimer clock;
  clock.start();
  ViewHost host(session, info, QSize(1000, 640));
  host.show();
  host.view().sessionChanged(ChangeFlags(Change::Trace) | Change::Selection | Change::Runs | Change::Profile |
                             Change::Theme);
  const bool settled = waitUntilSettled({&host.view()}, session, kTimeoutMs);
  const int colors = countColors(host.grab().toImage());
  const bool painted = colors >= kFewestColors;
  std::printf("view %-8s %-6s %s, %d colours, %.1f s\n", info.id, painter,
              !settled  ? "NOT FINAL"
              : painted ? "painted"
                        : "NOTHING PAINTED",
              colors, static_cast<double>(clock.elapsed()) / 1000);
  std::fflush(stdout);
  return settled && painted;
}

}  // namespace

int runSelfTest(int argc, char** argv) {
  const bool noDisplay = qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM") && qEnvironmentVariableIsEmpty("DISPLAY") &&
                         qEnvironmentVariableIsEmpty("WAYLAND_DISPLAY");
  if (noDisplay) qputenv("QT_QPA_PLATFORM", "offscreen");
  const QApplication app(argc, argv);
  Theme::apply(true);
  std::printf("sparsight %s, Qt %s, platform %s\n", SPARSIGHT_VERSION, qVersion(),
              qPrintable(QGuiApplication::platformName()));
  const bool canGl = QGuiApplication::platformName() != QStringLiteral("offscreen");
  const std::optional<GlInfo> gl = canGl ? probeGl() : std::nullopt;
  if (gl)
    std::printf("OpenGL %s, renderer %s\n", qPrintable(gl->version), qPrintable(gl->renderer));
  else
    std::printf("OpenGL: no 3.3 context could be made; raster painter only\n");

  JobQueueOptions options;
  Session session(options);
  for (const BackendEntry& entry : compiledBackends()) {
    std::string why;
    const bool usable = entry.probe(why);
    std::printf("backend %.*s: %s%s%s\n", static_cast<int>(entry.id.size()), entry.id.data(),
                usable ? "usable" : "not usable", why.empty() ? "" : ", ", why.c_str());
  }
  const BackendInfo backend = session.jobs().backendInfo();
  std::printf("computes on %s: %s%s%s, %d thread(s)\n", backend.id.c_str(), backend.deviceName.c_str(),
              backend.detail.empty() ? "" : ", ", backend.detail.c_str(), session.jobs().executor().threads());
  std::fflush(stdout);

  QString failure;
  QObject::connect(&session, &Session::errorOccurred, [&failure](const QString& title, const QString& message) {
    failure = title + QStringLiteral(": ") + message;
  });
  session.openDemo();
  if (!waitFor([&] { return session.trace() != nullptr || !failure.isEmpty(); }, kTimeoutMs) || !failure.isEmpty()) {
    std::fprintf(stderr, "sparsight: the demo did not open: %s\n",
                 failure.isEmpty() ? "no answer" : qPrintable(failure));
    return 3;
  }
  // The map's overlay, the head grid's values and the result table need a run.
  RunRequest request;
  request.methodId = "svg";
  request.selection.branch = session.selection().branch;
  request.selection.steps.ranges = {{session.selection().step, session.selection().step}};
  session.setOverlayMethod(QStringLiteral("svg"));
  session.runMethod(std::move(request), QStringLiteral("Run SVG on the demo"));
  if (!waitFor([&] { return session.lastReport(QStringLiteral("svg")) != nullptr || !failure.isEmpty(); },
               kTimeoutMs) ||
      !failure.isEmpty()) {
    std::fprintf(stderr, "sparsight: SVG did not run on the demo: %s\n",
                 failure.isEmpty() ? "no answer" : qPrintable(failure));
    return 5;
  }
  bool ok = true;
  for (const ViewInfo* info : allViews()) {
    ok = testView(session, *info, "raster") && ok;
    if (gl && info->area == DockArea::Centre) ok = testView(session, *info, "gl") && ok;
  }
  if (!failure.isEmpty()) {
    std::fprintf(stderr, "sparsight: %s\n", qPrintable(failure));
    ok = false;
  }
  std::printf("%s\n", ok ? "ok" : "FAILED");
  return ok ? 0 : 1;
}

}  // namespace sparsight
