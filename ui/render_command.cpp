// SPDX-License-Identifier: Apache-2.0
#include "ui/render_command.h"

#include <QApplication>
#include <QBuffer>
#include <QCommandLineParser>
#include <QFileInfo>
#include <QImageWriter>
#include <QJsonDocument>
#include <QJsonObject>
#include <QPainter>
#include <QPdfWriter>
#include <QRegularExpression>
#include <QSvgGenerator>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "sparsight/core/files.h"
#include "sparsight/core/method.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"
#include "ui/view_host.h"

namespace sparsight {
namespace {

constexpr int kOk = 0, kUsage = 2, kInput = 3, kDevice = 4, kInternal = 5;

constexpr const char* kHelp =
    R"(Usage: sparsight render FILE --view map|grid|profile|classes|curves --out F.png|F.svg|F.pdf [options]

A picture of a view, without a display and without a window. FILE is a trace (.h5), a profile (.csv, .json) or the word
"demo". Ids of the workbench's views (map, heads, heatmap, method, budget, jobs, trace) are accepted too.

  --out FILE             what to write; the ending says the format
  --size WxH             in points (default 1200x800)
  --scale X              device pixels per point of a PNG (default 1)
  --theme light|dark     default light
  --step --layer --head --branch    what to show; default: the middle of what was captured
  --method ID            run this method first (map: on the head; grid, classes: on the whole step)
  --param k=v            a parameter of the method; may be repeated
  --metric class|kept|mass|error|density     what the grid shows
  --set k=v              a view option as in session files, e.g. --set pooling=mean; may be repeated
  --title TEXT           the line above the picture; empty for none
  --timeout SECONDS      give up when the view is not final by then (default 300)
  --threads N, --backend auto|cpu|cuda
  --quiet                no line on stderr when done

The PNG carries view state and command line as text metadata.
)";

/// Names of the command line contract and where they lead.
struct ViewName {
  const char *name, *view, *mode;
};
constexpr ViewName kViewNames[] = {{"map", "map", ""},         {"grid", "heads", ""},    {"classes", "heads", "class"},
                                   {"profile", "heatmap", ""}, {"curves", "budget", ""}, {"heads", "heads", ""},
                                   {"heatmap", "heatmap", ""}, {"budget", "budget", ""}, {"method", "method", ""},
                                   {"jobs", "jobs", ""},       {"trace", "trace", ""}};
constexpr const char* kLaterViews[] = {"permutation", "frames", "compare"};

int fail(int code, const QString& message) {
  std::fprintf(stderr, "sparsight: %s\n", qPrintable(message));
  return code;
}

int exitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
      return kUsage;
    case ErrorCode::Io:
    case ErrorCode::Format:
    case ErrorCode::Unsupported:
    case ErrorCode::OutOfMemory:
      return kInput;
    case ErrorCode::Device:
      return kDevice;
    case ErrorCode::Internal:
      break;
  }
  return kInternal;
}

/// "true", "12", "0.5" become what they look like; the rest stays text.
QJsonValue valueOf(const QString& text) {
  if (text == QStringLiteral("true") || text == QStringLiteral("false")) return text == QStringLiteral("true");
  bool ok = false;
  const double number = text.toDouble(&ok);
  return ok ? QJsonValue(number) : QJsonValue(text);
}

struct Options {
  QString file, out, title, method, metric, branch, backend = QStringLiteral("auto");
  bool hasTitle = false, dark = false, quiet = false;
  ViewName view{};
  QSize size{1200, 800};
  double scale = 1;
  std::optional<int> step, layer, head;
  QStringList params;
  QJsonObject state;
  int timeoutSeconds = 300, threads = 0;
};

/// The offscreen platform says on every resize that it cannot pass size hints on; stderr is for errors of ours.
void onlyRealMessages(QtMsgType type, const QMessageLogContext&, const QString& message) {
  if (type == QtCriticalMsg || type == QtFatalMsg) std::fprintf(stderr, "sparsight: %s\n", qPrintable(message));
}

/// The options, or an exit code with the reason already printed.
std::optional<int> parse(int argc, char** argv, Options& o) {
  QStringList arguments;
  for (int i = 1; i < argc; ++i) arguments << QString::fromLocal8Bit(argv[i]);
  if (arguments.contains(QStringLiteral("--help")) || arguments.contains(QStringLiteral("-h"))) {
    std::fputs(kHelp, stdout);
    return kOk;
  }
  QCommandLineParser parser;
  for (const char* name : {"view", "out", "size", "scale", "theme", "step", "layer", "head", "branch", "method",
                           "param", "metric", "set", "title", "timeout", "threads", "backend"}) {
    QCommandLineOption option{QLatin1String(name)};
    option.setValueName(QStringLiteral("value"));
    parser.addOption(option);
  }
  parser.addOption(QCommandLineOption{QStringLiteral("quiet")});
  if (!parser.parse(arguments)) return fail(kUsage, parser.errorText());
  const QStringList files = parser.positionalArguments();  // the first is "sparsight render"'s own argv[0]
  if (files.size() != 1) return fail(kUsage, QStringLiteral("render takes one FILE (see sparsight render --help)"));
  o.file = files.front();
  const auto value = [&parser](const char* name) { return parser.value(QLatin1String(name)); };
  const auto isSet = [&parser](const char* name) { return parser.isSet(QLatin1String(name)); };
  const QString viewName = value("view");
  if (viewName.isEmpty())
    return fail(kUsage, QStringLiteral("--view is missing: map, grid, profile, classes or curves"));
  for (const char* later : kLaterViews)
    if (viewName == QLatin1String(later))
      return fail(kUsage, QStringLiteral("--view %1 is not in this version").arg(viewName));
  const auto known = std::find_if(std::begin(kViewNames), std::end(kViewNames),
                                  [&](const ViewName& v) { return viewName == QLatin1String(v.name); });
  if (known == std::end(kViewNames) || viewById(QString::fromLatin1(known->view)) == nullptr)
    return fail(kUsage, QStringLiteral("there is no view '%1': map, grid, profile, classes or curves").arg(viewName));
  o.view = *known;
  o.out = value("out");
  const QString suffix = QFileInfo(o.out).suffix().toLower();
  if (suffix != QStringLiteral("png") && suffix != QStringLiteral("svg") && suffix != QStringLiteral("pdf"))
    return fail(kUsage, QStringLiteral("--out takes a file ending in .png, .svg or .pdf, not '%1'").arg(o.out));
  if (isSet("size")) {
    static const QRegularExpression form(QStringLiteral("^(\\d{2,5})x(\\d{2,5})$"));
    const QRegularExpressionMatch m = form.match(value("size"));
    o.size = QSize(m.captured(1).toInt(), m.captured(2).toInt());
    if (!m.hasMatch() || o.size.width() < 64 || o.size.height() < 64 || o.size.width() > 16384 ||
        o.size.height() > 16384)
      return fail(kUsage, QStringLiteral("--size takes WxH from 64x64 to 16384x16384, not '%1'").arg(value("size")));
  }
  if (isSet("scale")) {
    bool ok = false;
    o.scale = value("scale").toDouble(&ok);
    if (!ok || o.scale < 0.5 || o.scale > 8 || o.scale * std::max(o.size.width(), o.size.height()) > 32000)
      return fail(
          kUsage,
          QStringLiteral("--scale takes 0.5 to 8 (and at most 32000 pixels a side), not '%1'").arg(value("scale")));
  }
  if (isSet("theme")) {
    if (value("theme") != QStringLiteral("light") && value("theme") != QStringLiteral("dark"))
      return fail(kUsage, QStringLiteral("--theme takes light or dark, not '%1'").arg(value("theme")));
    o.dark = value("theme") == QStringLiteral("dark");
  }
  QString bad;
  const auto number = [&](const char* name, int low) -> std::optional<int> {
    if (!isSet(name)) return std::nullopt;
    bool ok = false;
    const int n = value(name).toInt(&ok);
    if (!ok || n < low)
      bad = QStringLiteral("--%1 takes a whole number from %2 on, not '%3'")
                .arg(QLatin1String(name))
                .arg(low)
                .arg(value(name));
    return n;
  };
  o.step = number("step", 0);
  o.layer = number("layer", 0);
  o.head = number("head", 0);
  o.threads = number("threads", 0).value_or(0);
  o.timeoutSeconds = number("timeout", 1).value_or(o.timeoutSeconds);
  if (!bad.isEmpty()) return fail(kUsage, bad);
  o.branch = value("branch");
  o.method = value("method");
  o.metric = value("metric");
  o.params = parser.values(QStringLiteral("param"));
  if (!o.params.isEmpty() && o.method.isEmpty()) return fail(kUsage, QStringLiteral("--param needs --method"));
  if (isSet("backend")) o.backend = value("backend");
  o.quiet = isSet("quiet");
  o.hasTitle = isSet("title");
  o.title = value("title");
  for (const QString& assignment : parser.values(QStringLiteral("set"))) {
    const qsizetype equals = assignment.indexOf(QLatin1Char('='));
    if (equals < 1) return fail(kUsage, QStringLiteral("--set takes key=value, not '%1'").arg(assignment));
    o.state[assignment.left(equals)] = valueOf(assignment.mid(equals + 1));
  }
  if (o.view.mode[0] != '\0') o.state[QStringLiteral("mode")] = QLatin1String(o.view.mode);
  if (!o.metric.isEmpty()) {
    static const QStringList metrics{QStringLiteral("class"), QStringLiteral("kept"), QStringLiteral("mass"),
                                     QStringLiteral("error"), QStringLiteral("density")};
    if (!metrics.contains(o.metric))
      return fail(kUsage,
                  QStringLiteral("--metric takes %1, not '%2'").arg(metrics.join(QStringLiteral(", ")), o.metric));
    o.state[QStringLiteral("mode")] = o.metric;
  }
  return std::nullopt;
}

/// Whole command line as one line that a shell takes back.
QString commandLine(int argc, char** argv) {
  QStringList words{QStringLiteral("sparsight")};
  static const QRegularExpression plain(QStringLiteral("^[\\w@%+=:,./-]+$"));
  for (int i = 1; i < argc; ++i) {
    QString word = QString::fromLocal8Bit(argv[i]);
    if (!plain.match(word).hasMatch())
      word = QLatin1Char('\'') + word.replace(QLatin1Char('\''), QStringLiteral("'\\''")) + QLatin1Char('\'');
    words << word;
  }
  return words.join(QLatin1Char(' '));
}

void writePicture(QWidget& widget, const Options& o, const QJsonObject& description, const QString& command) {
  const std::filesystem::path target(o.out.toStdString());
  const QString suffix = QFileInfo(o.out).suffix().toLower();
  const QString json = QString::fromUtf8(QJsonDocument(description).toJson(QJsonDocument::Compact));
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  if (suffix == QStringLiteral("png")) {
    QImage image((QSizeF(widget.size()) * o.scale).toSize(), QImage::Format_ARGB32_Premultiplied);
    image.setDevicePixelRatio(o.scale);
    image.fill(Theme::current().panel);
    widget.render(&image);
    image.setText(QStringLiteral("Software"), QStringLiteral("sparsight %1").arg(QStringLiteral(SPARSIGHT_VERSION)));
    image.setText(QStringLiteral("sparsight-state"), json);
    image.setText(QStringLiteral("sparsight-command"), command);
    image.convertTo(QImage::Format_RGB32);
    QImageWriter writer(&buffer, "png");
    if (!writer.write(image))
      throw Error(ErrorCode::Internal, "the PNG could not be encoded: " + writer.errorString().toStdString());
  } else if (suffix == QStringLiteral("svg")) {
    QSvgGenerator svg;
    svg.setOutputDevice(&buffer);
    svg.setSize(widget.size());
    svg.setViewBox(QRect(QPoint(0, 0), widget.size()));
    svg.setResolution(96);
    svg.setTitle(o.title);
    svg.setDescription(command + QLatin1Char('\n') + json);
    QPainter painter(&svg);
    widget.render(&painter);
  } else {
    QPdfWriter pdf(&buffer);
    pdf.setTitle(o.title);
    pdf.setCreator(command);
    pdf.setResolution(96);
    pdf.setPageMargins(QMarginsF(0, 0, 0, 0));
    pdf.setPageSize(
        QPageSize(QSizeF(widget.width(), widget.height()) * 0.75, QPageSize::Point, {}, QPageSize::ExactMatch));
    QPainter painter(&pdf);
    widget.render(&painter);
  }
  buffer.close();
  writeFileAtomically(target, std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())));
}

int renderTo(const Options& o, const QString& command) {
  Theme::apply(o.dark);
  QString failure;
  JobQueueOptions jobs;
  jobs.threads = o.threads > 0 ? o.threads : QThread::idealThreadCount();
  jobs.backendId = o.backend.toStdString();
  Session session(std::move(jobs));
  QObject::connect(&session, &Session::errorOccurred, [&failure](const QString& title, const QString& message) {
    failure = title + QStringLiteral(": ") + message;
  });
  const int timeoutMs = o.timeoutSeconds * 1000;
  bool opened = false;
  QObject::connect(&session, &Session::fileOpened, [&opened](const QString&) { opened = true; });
  const bool demo = o.file == QStringLiteral("demo") && !QFileInfo::exists(o.file);
  if (demo)
    session.openDemo();
  else
    session.openFile(QFileInfo(o.file).absoluteFilePath());
  if (!waitFor([&] { return opened || !failure.isEmpty(); }, timeoutMs))
    return fail(
        kInternal,
        QStringLiteral("%1 was not open after %2 s; give more with --timeout").arg(o.file).arg(o.timeoutSeconds));
  if (!failure.isEmpty()) return fail(kInput, failure);

  Selection at = session.selection();
  if (o.step) at.step = *o.step;
  if (o.layer) at.layer = *o.layer;
  if (o.head) at.head = *o.head;
  if (!o.branch.isEmpty()) at.branch = o.branch.toStdString();
  const Selection asked = at;
  session.setSelection(at);
  const Selection& got = session.selection();
  if (got.step != asked.step || got.layer != asked.layer || got.head != asked.head ||
      (session.trace() && got.branch != asked.branch))
    return fail(kUsage,
                QStringLiteral("%1 has no step %2, layer %3, head %4%5; sparsight-cli info lists what was captured")
                    .arg(o.file)
                    .arg(asked.step)
                    .arg(asked.layer)
                    .arg(asked.head)
                    .arg(o.branch.isEmpty() ? QString() : QStringLiteral(", branch ") + o.branch));

  const ViewInfo& info = *viewById(QString::fromLatin1(o.view.view));
  const bool wholeStep = qstrcmp(o.view.view, "map") != 0 && qstrcmp(o.view.view, "method") != 0;
  if (!o.method.isEmpty()) {
    if (!session.trace()) return fail(kUsage, QStringLiteral("--method needs a trace, %1 is a profile").arg(o.file));
    const Method& method = methodById(o.method.toStdString());
    RunRequest request;
    request.methodId = std::string(method.id());
    std::vector<std::string> assignments;
    for (const QString& param : o.params) assignments.push_back(param.toStdString());
    request.params = ParamSet::parse(method.params(), assignments);
    request.selection.branch = got.branch;
    request.selection.steps.ranges = {{got.step, got.step}};
    if (!wholeStep) {
      request.selection.layers.ranges = {{got.layer, got.layer}};
      request.selection.heads.ranges = {{got.head, got.head}};
    }
    session.setOverlayMethod(o.method);
    session.runMethod(std::move(request), QStringLiteral("Run %1").arg(o.method));
    if (!waitFor([&] { return session.lastReport(o.method) != nullptr || !failure.isEmpty(); }, timeoutMs))
      return fail(
          kInternal,
          QStringLiteral("%1 was not done after %2 s; give more with --timeout").arg(o.method).arg(o.timeoutSeconds));
    if (!failure.isEmpty()) return fail(kInput, failure);
  }

  Options titled = o;
  if (!o.hasTitle) {
    QStringList parts{demo ? QStringLiteral("demo") : QFileInfo(o.file).fileName()};
    if (session.trace()) {
      if (!wholeStep) parts << QStringLiteral("L%1 H%2").arg(got.layer).arg(got.head);
      parts << QStringLiteral("step index %1").arg(got.step);
      if (!got.branch.empty()) parts << QString::fromStdString(got.branch);
    }
    if (!o.method.isEmpty()) parts << o.method;
    titled.title = parts.join(QStringLiteral(" \u00B7 "));
  }
  ViewHost host(session, info, o.size);
  host.setTitle(titled.title);
  host.show();
  if (!o.state.isEmpty()) host.view().restoreState(o.state);
  host.view().sessionChanged(ChangeFlags(Change::Trace) | Change::Selection | Change::Runs | Change::Profile |
                             Change::Theme);
  if (!waitUntilSettled(host.view(), session, timeoutMs))
    return fail(kInternal,
                QStringLiteral("the picture was not final after %1 s; give more with --timeout").arg(o.timeoutSeconds));
  if (!failure.isEmpty()) return fail(kInput, failure);

  QJsonObject description{{QStringLiteral("file"), QFileInfo(o.file).absoluteFilePath()},
                          {QStringLiteral("view"), QLatin1String(o.view.view)},
                          {QStringLiteral("step"), got.step},
                          {QStringLiteral("layer"), got.layer},
                          {QStringLiteral("head"), got.head},
                          {QStringLiteral("branch"), QString::fromStdString(got.branch)},
                          {QStringLiteral("theme"), o.dark ? QStringLiteral("dark") : QStringLiteral("light")},
                          {QStringLiteral("state"), host.view().saveState()}};
  if (demo) description[QStringLiteral("file")] = QStringLiteral("demo");
  if (!o.method.isEmpty()) {
    description[QStringLiteral("method")] = o.method;
    description[QStringLiteral("params")] = o.params.join(QLatin1Char(' '));
  }
  writePicture(host, titled, description, command);
  if (!o.quiet) std::fprintf(stderr, "wrote %s\n", qPrintable(o.out));
  return kOk;
}

}  // namespace

int runRender(int argc, char** argv) {
  Options options;
  try {
    if (const std::optional<int> code = parse(argc, argv, options)) return *code;
    if (options.file != QStringLiteral("demo") || QFileInfo::exists(options.file))
      static_cast<void>(sniffFormat(options.file.toStdString()));
    if (!options.method.isEmpty()) static_cast<void>(methodById(options.method.toStdString()));
    // No display is needed, and none is used even where there is one: the same picture everywhere.
    qputenv("QT_QPA_PLATFORM", "offscreen");
    qputenv("SPARSIGHT_RENDERER", "raster");
    qunsetenv("QT_SCALE_FACTOR");
    qInstallMessageHandler(onlyRealMessages);
    int one = 1;
    char* name[] = {argv[0], nullptr};
    const QApplication app(one, name);
    return renderTo(options, commandLine(argc, argv));
  } catch (const Error& error) {
    return fail(exitCodeOf(error.code()), QString::fromUtf8(error.what()));
  }
}

}  // namespace sparsight
