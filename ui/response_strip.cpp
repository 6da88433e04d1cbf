// SPDX-License-Identifier: Apache-2.0
#include "ui/response_strip.h"

#include <QHBoxLayout>
#include <QMenu>
#include <QPointer>
#include <QTimer>
#include <QToolButton>
#include <algorithm>
#include <cmath>
#include <utility>

#include "sparsight/core/method.h"
#include "ui/map_header.h"
#include "ui/profile_model.h"
#include "ui/section_label.h"
#include "ui/small_chart.h"
#include "ui/theme.h"

namespace sparsight {
namespace {

QString qs(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

QString digits(double value) { return QString::number(value, 'f', 3); }

QString numbersOf(const Prediction& p) {
  QString out = QObject::tr("mass %1").arg(digits(p.mass));
  if (p.error) out += QObject::tr(" | err %1").arg(digits(*p.error));
  return out;
}

bool differ(const Prediction& a, const Prediction& b) {
  return a.covered != b.covered || std::abs(a.kept - b.kept) > 1e-12 || std::abs(a.mass - b.mass) > 1e-12;
}

QString arrow(const QString& name, double before, double after) {
  return QStringLiteral("%1 %2 \u2192 %3").arg(name, digits(before), digits(after));
}

/// Curves with the files they came from, or that hold none.
struct Found {
  std::vector<HeadCurve> curves;
  std::vector<std::string> files;
  QString problem;
};

}  // namespace

ResponseStrip::ResponseStrip(Session& session, ProfileModel& model, QWidget* parent)
    : QWidget(parent),
      m_session(session),
      m_model(model),
      m_method(new CaptionCombo(tr("curves of"), this)),
      m_measure(new QToolButton(this)),
      m_menu(new QMenu(this)),
      m_text(new ElidedLabel(this)),
      m_settle(new QTimer(this)) {
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(Theme::kPad);
  for (const Method* method : allMethods())
    if (method->knob()) m_method->addItem(qs(method->title()), qs(method->id()));
  m_method->select(QStringLiteral("svg2"));
  m_method->setObjectName(QStringLiteral("response.method"));
  m_method->setToolTip(tr("The method whose response curves predict what a budget leads to"));
  m_measure->setObjectName(QStringLiteral("response.measure"));
  m_measure->setProperty("framed", true);
  m_measure->setPopupMode(QToolButton::InstantPopup);
  m_measure->setMenu(m_menu);
  const std::pair<Scope, QString> scopes[] = {{Scope::Head, tr("this head")},
                                              {Scope::Layer, tr("this layer")},
                                              {Scope::Step, tr("this step")},
                                              {Scope::All, tr("everything captured")}};
  for (const auto& [scope, name] : scopes) {
    QAction* action = m_menu->addAction(name);
    action->setObjectName(QStringLiteral("response.measure.%1").arg(static_cast<int>(scope)));
    connect(action, &QAction::triggered, this, [this, scope = scope] { measure(scope); });
  }
  m_text->setObjectName(QStringLiteral("response.text"));
  row->addWidget(m_text, 1);
  row->addWidget(m_method);
  row->addWidget(m_measure);
  m_settle->setSingleShot(true);
  m_settle->setInterval(0);
  connect(m_settle, &QTimer::timeout, this, &ResponseStrip::settle);
  ProfileDocument& document = session.profile();
  connect(&document, &ProfileDocument::profileChanged, m_settle, qOverload<>(&QTimer::start));
  connect(&document.undoStack(), &QUndoStack::indexChanged, m_settle, qOverload<>(&QTimer::start));
  connect(m_method, &QComboBox::currentIndexChanged, this, [this] { setMethod(method()); });
  updateText();
}

ResponseStrip::~ResponseStrip() = default;

bool ResponseStrip::isSettled() const { return !m_reading && !m_measuring && !m_settle->isActive(); }

QString ResponseStrip::method() const { return m_method->currentData().toString(); }

void ResponseStrip::setMethod(const QString& id) {
  m_method->select(id);
  m_table = {};
  m_predicted.clear();
  m_known.clear();
  m_problem.clear();
  m_measureJob.cancel();
  m_measuring = false;
  readFiles();
  settle();
}

/// Masses are no kept fractions: a curve is not looked up by them.
bool ResponseStrip::usable() const {
  return !m_session.profile().isEmpty() && m_session.profile().current().role != BudgetRole::TopMass;
}

RunRequest ResponseStrip::requestFor(Scope scope) const {
  const Selection& at = m_session.selection();
  RunRequest request;
  request.methodId = method().toStdString();
  request.selection.branch = at.branch;
  const auto only = [](int value) { return Selector{{{value, value}}}; };
  if (scope == Scope::Head) request.selection.heads = only(at.head);
  if (scope == Scope::Head || scope == Scope::Layer) request.selection.layers = only(at.layer);
  if (scope != Scope::All) request.selection.steps = only(at.step);
  return request;
}

void ResponseStrip::sessionChanged(ChangeFlags changes) {
  if (!(changes & (ChangeFlags(Change::Trace) | Change::Selection | Change::Profile))) return;
  const Selection& at = m_session.selection();
  if (m_of != m_session.trace().get() || m_branch != at.branch) {
    m_of = m_session.trace().get();
    m_branch = at.branch;
    setMethod(method());
    return;
  }
  if (changes & Change::Selection) {
    readFiles();
    Q_EMIT changed();
  }
  updateText();
}

void ResponseStrip::scopeChanged() { settle(); }

/// What was measured before, in this window or by `sparsight-cli curve`, for the places one may ask for.
void ResponseStrip::readFiles() {
  const auto trace = m_session.trace();
  if (!trace) return;
  std::vector<RunRequest> requests;
  for (const Scope scope : {Scope::All, Scope::Step, Scope::Layer, Scope::Head}) requests.push_back(requestFor(scope));
  JobSpec spec;
  spec.name = "Read response curves";
  spec.lane = Lane::Io;
  spec.supersedeTag = "response/read";
  using Result = std::shared_ptr<Found>;
  m_reading = true;
  const QPointer<ResponseStrip> self(this);
  m_readJob = m_session.jobs().submit<Result>(
      spec,
      [trace, requests, known = m_known](JobContext& context) {
        auto found = std::make_shared<Found>();
        for (const RunRequest& request : requests) {
          context.checkpoint();
          std::filesystem::path file;
          try {
            file = curvePath(*trace, request, kCurvePoints);
          } catch (const Error&) {
            continue;  // nothing was captured there
          }
          if (known.contains(file.string())) continue;
          std::error_code ignored;
          if (!std::filesystem::exists(file, ignored)) continue;
          found->files.push_back(file.string());
          try {
            const std::vector<HeadCurve> curves = readCurves(file);
            found->curves.insert(found->curves.end(), curves.begin(), curves.end());
          } catch (const Error& error) {
            found->problem = QString::fromUtf8(error.what());
          }
        }
        return found;
      },
      [self, trace, id = method()](Outcome<Result> outcome) {
        if (!self || std::holds_alternative<Cancelled>(outcome)) return;
        self->m_reading = false;
        const auto* found = std::get_if<Result>(&outcome);
        if (found == nullptr || self->m_session.trace() != trace || self->method() != id) return self->updateText();
        self->m_known.insert((*found)->files.begin(), (*found)->files.end());
        self->m_problem = (*found)->problem;
        self->receive((*found)->curves);
      });
}

void ResponseStrip::measure(Scope scope) {
  const auto trace = m_session.trace();
  if (!trace) return;
  const RunRequest request = requestFor(scope);
  const Selection& at = m_session.selection();
  const QString where = scope == Scope::Head ? tr("layer %1 head %2, step %3").arg(at.layer).arg(at.head).arg(at.step)
                        : scope == Scope::Layer ? tr("layer %1, step %2").arg(at.layer).arg(at.step)
                        : scope == Scope::Step  ? tr("step %1").arg(at.step)
                                                : tr("all captured heads");
  JobSpec spec;
  spec.name = tr("Response curves of %1: %2").arg(m_method->currentText(), where).toStdString();
  spec.lane = Lane::Compute;
  spec.supersedeTag = "response/measure";
  spec.userVisible = true;
  using Result = std::shared_ptr<KeptCurves>;
  m_measuring = true;
  m_problem.clear();
  const QPointer<ResponseStrip> self(this);
  m_measureJob = m_session.jobs().submit<Result>(
      spec,
      [trace, request](JobContext& context) {
        return std::make_shared<KeptCurves>(
            keptCurves(*trace, request, kCurvePoints, context.backend(), context.control()));
      },
      [self, trace, id = method(), name = QString::fromStdString(spec.name)](Outcome<Result> outcome) {
        if (!self || self->m_session.trace() != trace || self->method() != id) return;
        self->m_measuring = false;
        if (const auto* error = std::get_if<Error>(&outcome)) {
          Q_EMIT self->m_session.errorOccurred(tr("%1 failed").arg(name), QString::fromUtf8(error->what()));
        } else if (const auto* kept = std::get_if<Result>(&outcome)) {
          for (const std::string& warning : (*kept)->warnings) self->m_problem = QString::fromStdString(warning);
          return self->receive((*kept)->curves);
        }
        self->updateText();
      });
  updateText();
}

void ResponseStrip::receive(const std::vector<HeadCurve>& curves) {
  m_table.add(curves);
  m_predicted.clear();
  settle();
  Q_EMIT changed();
}

const LayerPredictions& ResponseStrip::predict(const Profile& profile) const {
  constexpr std::size_t kKept = 2;
  const BudgetScope& scope = m_model.scope();
  const auto known = std::find_if(m_predicted.begin(), m_predicted.end(),
                                  [&](const Predicted& p) { return p.scope == scope && p.of == profile; });
  if (known != m_predicted.end()) {
    m_predicted.splice(m_predicted.begin(), m_predicted, known);
  } else {
    m_predicted.push_front({profile, scope, m_table.predict(profile, scope.step, scope.head)});
    if (m_predicted.size() > kKept) m_predicted.pop_back();
  }
  return m_predicted.front().value;
}

/// An edit is over: what comes next is compared with what is now.
void ResponseStrip::settle() {
  m_settle->stop();
  if (!usable() || m_table.size() == 0) {
    m_settled = {};
  } else if (!m_session.profile().inGesture()) {
    m_settled = predict(m_session.profile().current());
  }
  updateText();
  Q_EMIT changed();
}

QString ResponseStrip::consequence(int layer) {
  if (!usable() || m_table.size() == 0) return {};
  ProfileDocument& document = m_session.profile();
  const LayerPredictions before = document.inGesture() ? predict(document.gestureStart()) : m_settled;
  const LayerPredictions now = predict(document.current());
  if (document.inGesture()) m_settled = now;  // nothing tells when a gesture ends
  if (before.layers.size() != now.layers.size()) return {};
  std::vector<int> moved;
  for (std::size_t i = 0; i < now.layers.size(); ++i)
    if (differ(before.layers[i], now.layers[i])) moved.push_back(static_cast<int>(i));
  if (moved.empty()) return {};
  if (std::find(moved.begin(), moved.end(), layer) == moved.end()) layer = moved.front();
  const Prediction& a = before.layers[static_cast<std::size_t>(layer)];
  const Prediction& b = now.layers[static_cast<std::size_t>(layer)];
  QString out = arrow(tr("mass"), a.mass, b.mass);
  if (a.error && b.error) out += QStringLiteral(" | ") + arrow(tr("err"), *a.error, *b.error);
  if (b.covered < b.cells) out += tr(" (%1 of %2 cells)").arg(formatCount(b.covered), formatCount(b.cells));
  return out;
}

QString ResponseStrip::text() const { return m_text->text(); }

void ResponseStrip::updateText() {
  const bool open = m_session.trace() != nullptr;
  setVisible(open && !m_session.profile().isEmpty());
  m_measure->setEnabled(open && !m_measuring);
  m_measure->setText(m_measuring ? tr("Measuring...") : tr("Measure response curves"));
  m_measure->setToolTip(
      m_measuring ? tr("In the jobs view: progress and Cancel")
                  : tr("Runs the method at %1 settings of its budget on heads of the open trace: kept fraction against "
                       "kept mass and output error. Kept beside the trace, as sparsight-cli curve does")
                        .arg(kCurvePoints));
  m_measure->setAccessibleName(m_measure->text());
  if (!open || m_session.profile().isEmpty()) return;
  const Profile& profile = m_session.profile().current();
  QString line;
  if (!usable()) {
    line = tr("This profile holds masses (top-p), not kept fractions: response curves cannot be looked up by them.");
  } else if (m_table.size() == 0) {
    line =
        m_reading
            ? tr("Looking for response curves...")
            : tr("No response curves of %1 yet: measure them to see what an edit costs.").arg(m_method->currentText());
  } else {
    const LayerPredictions now = predict(profile);
    line = now.total.covered > 0 ? tr("predicted %1").arg(numbersOf(now.total)) : tr("no curve in this scope");
    const int layer = m_session.selection().layer;
    if (layer >= 0 && layer < static_cast<int>(now.layers.size()) &&
        now.layers[static_cast<std::size_t>(layer)].covered > 0)
      line += tr("  \u00b7  L%1 %2").arg(layer).arg(numbersOf(now.layers[static_cast<std::size_t>(layer)]));
    line += tr("  \u00b7  curves for %1 of %2 cells").arg(formatCount(now.total.covered), formatCount(now.total.cells));
  }
  if (!m_problem.isEmpty()) line += QStringLiteral("  \u26a0 ") + m_problem;
  m_text->setText(line);
}

bool ResponseStrip::plot(SmallCurve& curve) const {
  const Selection& at = m_session.selection();
  const HeadCurve* own = m_table.find({at.step, at.layer, at.head});
  if (own == nullptr || !usable()) return false;
  SmallCurve::Line mass{tr("kept mass"), {}, SmallCurve::Ink::First, false};
  SmallCurve::Line error{tr("output error"), {}, SmallCurve::Ink::Second, false};
  double top = 1;
  for (const CurvePoint& point : own->points) {
    mass.points.push_back({point.kept, point.mass});
    if (!point.error) continue;
    error.points.push_back({point.kept, *point.error});
    top = std::max(top, *point.error);
  }
  QVector<SmallCurve::Line> lines{mass};
  if (!error.points.isEmpty()) lines.push_back(error);
  QVector<SmallCurve::Mark> marks;
  QString title = tr("L%1 H%2").arg(at.layer).arg(at.head);
  const Profile& profile = m_session.profile().current();
  if (const std::optional<double> value = profile.at({at.step, at.layer, at.head})) {
    const CurvePoint point = own->at(*value);
    marks.push_back({*value, budget::percentDigits(*value) + QStringLiteral(" %"), false});
    // Beside the names: a title of one line would not hold them in a narrow column.
    title += tr(" at kept %1 %").arg(budget::percentDigits(*value));
    lines[0].name = tr("mass %1").arg(digits(point.mass));
    if (point.error && lines.size() > 1) lines[1].name = tr("error %1").arg(digits(*point.error));
  }
  curve.setPlot(title, {0, 1, QStringLiteral("0"), QStringLiteral("100 %"), tr("kept")},
                {0, top, QStringLiteral("0"), formatNumber(top), {}}, lines, marks);
  return true;
}

}  // namespace sparsight
