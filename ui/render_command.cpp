// SPDX-License-Identifier: Apache-2.0
#include "ui/render_command.h"

#include <QApplication>
#include <QBuffer>
#include <QCommandLineParser>
#include <QFileInfo>
#include <QImageWriter>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <QPainter>
#include <QPdfWriter>
#include <QRegularExpression>
#include <QSettings>
#include <QSvgGenerator>
#include <QTemporaryDir>
#include <QThread>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "sparsight/core/files.h"
#include "sparsight/core/method.h"
#include "sparsight/core/profiling.h"
#include "ui/main_window.h"
#include "ui/session.h"
#include "ui/settings.h"
#include "ui/theme.h"
#include "ui/view_host.h"

namespace sparsight {
namespace {

constexpr int kOk = 0, kUsage = 2, kInput = 3, kDevice = 4, kInternal = 5;

constexpr const char* kHelp =
    R"(Usage: sparsight render FILE --view NAME --out F.png|F.svg|F.pdf [options]

A picture of a view or of the whole window, without a display. FILE is a trace (.h5), a profile (.csv, .json) or the
word "demo". The picture is taken when no job is left and everything is painted exactly; your own settings and layouts
neither show nor change. NAME is one of
  %NAMES%

  --out FILE             what to write; the ending says the format
  --size WxH             in points (default 1200x800; window: 1600x1000)
  --scale X              device pixels per point of a PNG (default 1)
  --theme light|dark     default light
  --step --layer --head --branch    what to show; default: the middle of what was captured
  --pair Q,K             the token pair to pick
  --method ID            run this method first
  --run head|layer|step|all   on what (default: head for map, frames, permutation, stepper and method, else step)
  --param k=v            a parameter of the method; may be repeated
  --profile FILE         the profile to show beside a trace. Without it, profile and curves of a trace measure one: the
                         exact density of every captured head (as sparsight-cli profile), on all rows up to 8,192 tokens,
                         else on 1,024
  --layout diagnose|tune|compare|teach     window: the arrangement of its panels (default diagnose)
  --front ID             window: a view to bring to the front; may be repeated
  --metric class|kept|mass|error|density     what the grid shows
  --set k=v              a view option as in session files, e.g. --set pooling=mean or --set viewport=[0,0,240,360] (first
                         query and key, how many of each); may be repeated. window: VIEW.k=v, as map.pooling=mean
  --title TEXT           the line above the picture; empty for none (a window has none)
  --timeout SECONDS      give up when the view is not final by then (default 300)
  --threads N, --backend auto|cpu|cuda
  --quiet                no line on stderr when done

The PNG carries view state and command line as text metadata.
)";

/// Names of the command line contract that are not a view's id, and where they lead.
struct ViewName {
  QString view, mode;  ///< view empty: the whole window
};
std::optional<ViewName> viewNamed(const QString& name) {
  if (name == QStringLiteral("window")) return ViewName{};
  if (name == QStringLiteral("grid")) return ViewName{QStringLiteral("heads"), {}};
  if (name == QStringLiteral("classes")) return ViewName{QStringLiteral("heads"), QStringLiteral("class")};
  if (name == QStringLiteral("profile")) return ViewName{QStringLiteral("heatmap"), {}};
  if (name == QStringLiteral("curves")) return ViewName{QStringLiteral("budget"), {}};
  if (viewById(name) != nullptr) return ViewName{name, {}};
  return std::nullopt;
}
QString viewNames() {
  QStringList names{QStringLiteral("window"), QStringLiteral("grid"), QStringLiteral("classes"),
                    QStringLiteral("profile"), QStringLiteral("curves")};
  for (const ViewInfo* info : allViews()) names << QLatin1String(info->id);
  return names.join(QStringLiteral(", "));
}

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

/// "true", "12", "0.5", "[1,2]" become what they look like; the rest stays text.
QJsonValue valueOf(const QString& text) {
  if (text.startsWith(QLatin1Char('['))) {
    const QJsonDocument list = QJsonDocument::fromJson(text.toUtf8());
    if (list.isArray()) return list.array();
  }
  if (text == QStringLiteral("true") || text == QStringLiteral("false")) return text == QStringLiteral("true");
  bool ok = false;
  const double number = text.toDouble(&ok);
  return ok ? QJsonValue(number) : QJsonValue(text);
}

struct Options {
  QString file, out, title, method, metric, branch, profile, layout, run, backend = QStringLiteral("auto");
  bool hasTitle = false, dark = false, quiet = false;
  ViewName view{};
  QSize size{1200, 800};
  double scale = 1;
  std::optional<int> step, layer, head;
  std::optional<PickedPair> pair;
  QStringList params, front;
  QJsonObject state;  ///< of the view; window: of each view by its id
  int timeoutSeconds = 300, threads = 0;

  [[nodiscard]] bool isWindow() const { return view.view.isEmpty(); }
  /// Shows budgets and nothing else, so a trace alone leaves it empty.
  [[nodiscard]] bool needsProfile() const {
    return view.view == QStringLiteral("heatmap") || view.view == QStringLiteral("budget");
  }
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
    std::fputs(qPrintable(QString::fromLatin1(kHelp).replace(QStringLiteral("%NAMES%"), viewNames())), stdout);
    return kOk;
  }
  QCommandLineParser parser;
  for (const char* name :
       {"view",   "out", "size",  "scale",   "theme",   "step",    "layer",   "head",   "branch", "method", "param",
        "metric", "set", "title", "timeout", "threads", "backend", "profile", "layout", "front",  "run",    "pair"}) {
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
  if (viewName.isEmpty()) return fail(kUsage, QStringLiteral("--view is missing: %1").arg(viewNames()));
  const std::optional<ViewName> known = viewNamed(viewName);
  if (!known) return fail(kUsage, QStringLiteral("there is no view '%1': %2").arg(viewName, viewNames()));
  o.view = *known;
  if (o.isWindow()) o.size = QSize(1600, 1000);
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
  const auto oneOf = [&](const char* name, const QStringList& words) {
    QString given = value(name);
    if (isSet(name) && !words.contains(given))
      bad = QStringLiteral("--%1 takes %2, not '%3'").arg(QLatin1String(name), words.join(QStringLiteral(", ")), given);
    return given;
  };
  o.layout = oneOf("layout", {QStringLiteral("diagnose"), QStringLiteral("tune"), QStringLiteral("compare"),
                              QStringLiteral("teach")});
  o.run =
      oneOf("run", {QStringLiteral("head"), QStringLiteral("layer"), QStringLiteral("step"), QStringLiteral("all")});
  o.front = parser.values(QStringLiteral("front"));
  for (const QString& id : o.front)
    if (viewById(id) == nullptr) bad = QStringLiteral("--front: there is no view '%1'").arg(id);
  if (isSet("pair")) {
    static const QRegularExpression form(QStringLiteral("^(\\d{1,9}),(\\d{1,9})$"));
    const QRegularExpressionMatch m = form.match(value("pair"));
    if (!m.hasMatch())
      bad = QStringLiteral("--pair takes Q,K, two token numbers from 0 on, not '%1'").arg(value("pair"));
    o.pair = PickedPair{m.captured(1).toInt(), m.captured(2).toInt()};
  }
  if (!o.isWindow() && (isSet("layout") || isSet("front")))
    bad = QStringLiteral("--layout and --front need --view window");
  if (!o.run.isEmpty() && o.method.isEmpty()) bad = QStringLiteral("--run needs --method");
  if (!bad.isEmpty()) return fail(kUsage, bad);
  o.profile = value("profile");
  if (isSet("backend")) o.backend = value("backend");
  o.quiet = isSet("quiet");
  o.hasTitle = isSet("title");
  o.title = value("title");
  for (const QString& assignment : parser.values(QStringLiteral("set"))) {
    const qsizetype equals = assignment.indexOf(QLatin1Char('='));
    if (equals < 1) return fail(kUsage, QStringLiteral("--set takes key=value, not '%1'").arg(assignment));
    const QString key = assignment.left(equals);
    if (!o.isWindow()) {
      o.state[key] = valueOf(assignment.mid(equals + 1));
      continue;
    }
    const QString id = key.section(QLatin1Char('.'), 0, 0);
    if (!key.contains(QLatin1Char('.')) || viewById(id) == nullptr)
      return fail(kUsage,
                  QStringLiteral("--set of a window takes VIEW.key=value with a view's id, not '%1'").arg(assignment));
    QJsonObject of = o.state[id].toObject();
    of[key.section(QLatin1Char('.'), 1)] = valueOf(assignment.mid(equals + 1));
    o.state[id] = of;
  }
  // A picture has nobody to press the button.
  if (viewName == QStringLiteral("compare") && !o.state.contains(QStringLiteral("follow")))
    o.state[QStringLiteral("follow")] = true;
  if (!o.view.mode.isEmpty()) o.state[QStringLiteral("mode")] = o.view.mode;
  if (!o.metric.isEmpty()) {
    static const QStringList metrics{QStringLiteral("class"), QStringLiteral("kept"), QStringLiteral("mass"),
                                     QStringLiteral("error"), QStringLiteral("density")};
    if (!metrics.contains(o.metric))
      return fail(kUsage,
                  QStringLiteral("--metric takes %1, not '%2'").arg(metrics.join(QStringLiteral(", ")), o.metric));
    if (o.isWindow()) {
      QJsonObject heads = o.state[QStringLiteral("heads")].toObject();
      heads[QStringLiteral("mode")] = o.metric;
      o.state[QStringLiteral("heads")] = heads;
    } else {
      o.state[QStringLiteral("mode")] = o.metric;
    }
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

/// Everything that can go wrong after the options were read, with its exit code.
struct Failure {
  int code;
  QString message;
};

/// One picture: opens, selects, runs, waits, paints.
class Render {
 public:
  Render(const Options& options, QString command) : o(options), m_command(std::move(command)) {}

  void run() {
    JobQueueOptions jobs;
    jobs.threads = o.threads > 0 ? o.threads : QThread::idealThreadCount();
    jobs.backendId = o.backend.toStdString();
    m_session = std::make_unique<Session>(std::move(jobs));
    QObject::connect(m_session.get(), &Session::errorOccurred, [this](const QString& title, const QString& message) {
      m_problem = title + QStringLiteral(": ") + message;
    });
    QObject::connect(m_session.get(), &Session::traceWanted,
                     [this](const QString& path, const QString&, const QString& why) {
                       m_problem = path + QStringLiteral(": ") + why;
                     });
    if (o.isWindow()) makeWindow();
    m_demo = o.file == QStringLiteral("demo") && !QFileInfo::exists(o.file);
    if (m_demo) {
      m_session->openDemo();
      waitForOpening();
    } else {
      open(o.file);
    }
    if (!o.profile.isEmpty()) open(o.profile);
    if (o.needsProfile() && m_session->trace() && m_session->profile().isEmpty() && !m_demo && o.method.isEmpty())
      measureProfile();
    select();
    if (!o.method.isEmpty()) runMethod();
    show();
    writePicture(*m_picture, titled(), description(), m_command);
  }

 private:
  [[noreturn]] void fail(int code, const QString& message) const { throw Failure{code, message}; }
  /// Waits until `done`, an error, or the end of the user's patience.
  void await(const std::function<bool()>& done, const QString& what) {
    if (!waitFor([&] { return done() || !m_problem.isEmpty(); }, o.timeoutSeconds * 1000))
      fail(kInternal, QStringLiteral("%1 after %2 s; give more with --timeout").arg(what).arg(o.timeoutSeconds));
    if (!m_problem.isEmpty()) fail(kInput, m_problem);
  }

  void makeWindow() {
    Settings settings;
    settings.theme = o.dark ? Settings::ThemeChoice::Dark : Settings::ThemeChoice::Light;
    m_window = std::make_unique<MainWindow>(*m_session, settings);
    m_session->openProfile = nullptr;  // nobody can answer its questions
    m_window->resize(o.size);
    m_window->show();
    QApplication::setActiveWindow(m_window.get());
    m_window->setLayoutPreset(o.layout.isEmpty() ? QStringLiteral("diagnose") : o.layout);
  }

  void waitForOpening() {
    await([this] { return !m_session->isOpening(); }, QStringLiteral("%1 was not open").arg(o.file));
  }
  void open(const QString& file) {
    m_session->openFile(QFileInfo(file).absoluteFilePath());
    waitForOpening();
  }

  void measureProfile() {
    if (!o.quiet) std::fprintf(stderr, "%s has no profile beside it (--profile): measuring one\n", qPrintable(o.file));
    ProfilingRequest request;
    request.traces = {m_session->trace()->info().path};
    JobSpec spec;
    spec.name = "Measure a profile";
    const JobHandle job = m_session->jobs().submit<Profile>(
        std::move(spec),
        [request](JobContext& context) { return profileTraces(request, context.backend(), context.control()); },
        [this](Outcome<Profile> outcome) {
          if (const Error* error = std::get_if<Error>(&outcome))
            m_problem = QString::fromUtf8(error->what());
          else if (Profile* profile = std::get_if<Profile>(&outcome))
            m_session->profile().open(std::move(*profile), QString());
        });
    await([this] { return !m_session->profile().isEmpty(); }, QStringLiteral("the profile was not measured"));
    m_measured = true;
  }

  void select() {
    Selection at = m_session->selection();
    if (o.step) at.step = *o.step;
    if (o.layer) at.layer = *o.layer;
    if (o.head) at.head = *o.head;
    if (!o.branch.isEmpty()) at.branch = o.branch.toStdString();
    m_session->setSelection(at);
    const Selection& got = m_session->selection();
    if (got.step != at.step || got.layer != at.layer || got.head != at.head ||
        (m_session->trace() && got.branch != at.branch))
      fail(kUsage, QStringLiteral("%1 has no step %2, layer %3, head %4%5; sparsight-cli info lists what was captured")
                       .arg(o.file)
                       .arg(at.step)
                       .arg(at.layer)
                       .arg(at.head)
                       .arg(o.branch.isEmpty() ? QString() : QStringLiteral(", branch ") + o.branch));
    if (o.pair) m_session->setPair(*o.pair);
  }

  [[nodiscard]] bool showsOneHead() const { return !o.isWindow() && viewById(o.view.view)->oneHead; }

  void runMethod() {
    if (!m_session->trace()) fail(kUsage, QStringLiteral("--method needs a trace, %1 is a profile").arg(o.file));
    const Selection& at = m_session->selection();
    const Method& method = methodById(o.method.toStdString());
    RunRequest request;
    request.methodId = std::string(method.id());
    std::vector<std::string> assignments;
    for (const QString& param : o.params) assignments.push_back(param.toStdString());
    request.params = ParamSet::parse(method.params(), assignments);
    request.selection.branch = at.branch;
    const QString on = !o.run.isEmpty() ? o.run : showsOneHead() ? QStringLiteral("head") : QStringLiteral("step");
    if (on == QStringLiteral("head")) request.selection.heads.ranges = {{at.head, at.head}};
    if (on == QStringLiteral("head") || on == QStringLiteral("layer"))
      request.selection.layers.ranges = {{at.layer, at.layer}};
    if (on != QStringLiteral("all")) request.selection.steps.ranges = {{at.step, at.step}};
    m_session->setOverlayMethod(o.method);
    m_session->runMethod(std::move(request), QStringLiteral("Run %1").arg(o.method));
    await([this] { return m_session->lastReport(o.method) != nullptr; },
          QStringLiteral("%1 was not done").arg(o.method));
  }

  [[nodiscard]] Options titled() const {
    Options with = o;
    if (o.hasTitle) return with;
    const Selection& at = m_session->selection();
    QStringList parts{m_demo ? QStringLiteral("demo") : QFileInfo(o.file).fileName()};
    if (m_session->trace()) {
      if (showsOneHead()) parts << QStringLiteral("L%1 H%2").arg(at.layer).arg(at.head);
      parts << QStringLiteral("step index %1").arg(at.step);
      if (!at.branch.empty()) parts << QString::fromStdString(at.branch);
    }
    if (!o.method.isEmpty()) parts << o.method;
    if (m_measured) parts << QStringLiteral("measured exact density");
    with.title = parts.join(QStringLiteral(" \u00B7 "));
    return with;
  }

  void show() {
    constexpr ChangeFlags kEverything =
        ChangeFlags(Change::Trace) | Change::Selection | Change::Runs | Change::Profile | Change::Theme;
    std::vector<View*> views;
    if (m_window) {
      QCoreApplication::processEvents();  // the window hears of the trace before its views are arranged
      await([this] { return m_window->viewsAreTold(); }, QStringLiteral("the views did not take what was opened"));
      for (const QString& id : o.front) m_window->showView(id);
      for (const ViewInfo* info : allViews()) {
        View* view = m_window->view(QLatin1String(info->id));
        if (const QJsonObject state = o.state[QLatin1String(info->id)].toObject(); !state.isEmpty())
          view->restoreState(state);
        views.push_back(view);
      }
      m_picture = m_window.get();
    } else {
      m_host = std::make_unique<ViewHost>(*m_session, *viewById(o.view.view), o.size);
      m_host->setTitle(titled().title);
      m_host->show();
      if (!o.state.isEmpty()) m_host->view().restoreState(o.state);
      m_host->view().sessionChanged(kEverything);
      views.push_back(&m_host->view());
      m_picture = m_host.get();
    }
    if (!waitUntilSettled(views, *m_session, o.timeoutSeconds * 1000))
      fail(kInternal,
           QStringLiteral("the picture was not final after %1 s; give more with --timeout").arg(o.timeoutSeconds));
    if (!m_problem.isEmpty()) fail(kInput, m_problem);
    if (m_window) m_window->refreshStatus();
    if (QWidget* focused = QApplication::focusWidget(); m_host && focused != nullptr) focused->clearFocus();
  }

  [[nodiscard]] QJsonObject description() const {
    const Selection& at = m_session->selection();
    QJsonObject state;
    if (m_window)
      state = m_window->saveSession();
    else
      state = m_host->view().saveState();
    QJsonObject all{{QStringLiteral("file"), QFileInfo(o.file).absoluteFilePath()},
                    {QStringLiteral("view"), m_window ? QStringLiteral("window") : o.view.view},
                    {QStringLiteral("step"), at.step},
                    {QStringLiteral("layer"), at.layer},
                    {QStringLiteral("head"), at.head},
                    {QStringLiteral("branch"), QString::fromStdString(at.branch)},
                    {QStringLiteral("theme"), o.dark ? QStringLiteral("dark") : QStringLiteral("light")},
                    {QStringLiteral("state"), state}};
    if (m_demo) all[QStringLiteral("file")] = QStringLiteral("demo");
    if (!o.method.isEmpty()) {
      all[QStringLiteral("method")] = o.method;
      all[QStringLiteral("params")] = o.params.join(QLatin1Char(' '));
    }
    return all;
  }

  const Options& o;  // NOLINT(readability-identifier-naming): read on every line
  QString m_command, m_problem;
  bool m_demo = false, m_measured = false;
  std::unique_ptr<Session> m_session;  // before what looks at it
  std::unique_ptr<MainWindow> m_window;
  std::unique_ptr<ViewHost> m_host;
  QWidget* m_picture = nullptr;
};

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
    // As on a screen of that density: maps take finer tiles, lines and icons are drawn for it.
    QApplication::setHighDpiScaleFactorRoundingPolicy(Qt::HighDpiScaleFactorRoundingPolicy::PassThrough);
    qputenv("QT_SCALE_FACTOR", QByteArray::number(options.scale));
    qInstallMessageHandler(onlyRealMessages);
    int one = 1;
    char* name[] = {argv[0], nullptr};
    const QTemporaryDir home;  // settings, recent files and layouts of this picture alone
    QSettings::setPath(QSettings::NativeFormat, QSettings::UserScope, home.path());
    const QApplication app(one, name);
    Theme::apply(options.dark);
    Render(options, commandLine(argc, argv)).run();
    if (!options.quiet) std::fprintf(stderr, "wrote %s\n", qPrintable(options.out));
    return kOk;
  } catch (const Failure& failure) {
    return fail(failure.code, failure.message);
  } catch (const Error& error) {
    return fail(exitCodeOf(error.code()), QString::fromUtf8(error.what()));
  }
}

}  // namespace sparsight
