// SPDX-License-Identifier: Apache-2.0
#include "ui/compare_runs.h"

#include <QPointer>
#include <QRegularExpression>
#include <algorithm>
#include <utility>

namespace sparsight {
namespace {

constexpr Index kPlansPerAnswer = Index{96} << 20;  // beyond: only the head that is looked at keeps its plan

QString text(std::string_view s) { return QString::fromUtf8(s.data(), static_cast<qsizetype>(s.size())); }

const Method* methodOf(const QString& id) {
  const std::string wanted = id.toStdString();
  for (const Method* method : allMethods())
    if (method->id() == wanted) return method;
  return nullptr;
}

HeadResult withoutPlan(const HeadReport& full) {
  auto light = std::make_shared<HeadReport>();
  light->id = full.id;
  light->plan = withoutArrays(full.plan);
  light->evaluation = full.evaluation;
  light->planMs = full.planMs;
  light->wouldBeDense = full.wouldBeDense;
  light->skippedReason = full.skippedReason;
  light->damaged = full.damaged;
  return light;
}

bool hasArrays(const Plan& plan) { return !plan.qBounds.empty(); }

QString number(double value) { return QString::number(value, 'g', 10); }

QString optionOf(const BudgetTarget& target) {
  const char* name = target.budget == Budget::Kept   ? "--at-kept"
                     : target.budget == Budget::Mass ? "--at-mass"
                                                     : "--at-error";
  return QLatin1String(name) + QLatin1Char(' ') + number(target.value);
}

/// A word that a shell takes as it is.
QString shellWord(QString word) {
  static const QRegularExpression plain(QStringLiteral("^[\\w@%+=:,./-]+$"));
  if (plain.match(word).hasMatch()) return word;
  return QLatin1Char('\'') + word.replace(QLatin1Char('\''), QStringLiteral("'\\''")) + QLatin1Char('\'');
}

}  // namespace

HeadSelection CompareQuestion::heads() const {
  HeadSelection selection;
  selection.branch = at.branch;
  selection.steps.ranges = {{at.step, at.step}};
  if (scope != CompareScope::Step) selection.layers.ranges = {{at.layer, at.layer}};
  if (scope == CompareScope::Head) selection.heads.ranges = {{at.head, at.head}};
  return selection;
}

QString CompareQuestion::where() const {
  switch (scope) {
    case CompareScope::Head:
      return QObject::tr("layer %1 head %2, step %3").arg(at.layer).arg(at.head).arg(at.step);
    case CompareScope::Layer:
      return QObject::tr("layer %1, step %2").arg(at.layer).arg(at.step);
    case CompareScope::Step:
      break;
  }
  return QObject::tr("step %1").arg(at.step);
}

CompareRuns::CompareRuns(Session& session, QObject* parent) : QObject(parent), m_session(session) {}

ParamSet CompareRuns::paramsOf(const QString& method) const { return m_session.givenParams(method); }

QString CompareRuns::keyOf(const QString& method) const {
  const Selection& at = m_question.at;
  QStringList parts{method, text(at.branch), QString::number(at.step)};
  if (m_question.scope != CompareScope::Step) parts << QStringLiteral("L%1").arg(at.layer);
  if (m_question.scope == CompareScope::Head) parts << QStringLiteral("H%1").arg(at.head);
  const Method* known = methodOf(method);
  const bool solved = m_question.target && known != nullptr && known->knob();
  if (solved) parts << optionOf(*m_question.target);
  if (m_question.warmup) parts << QStringLiteral("warmup");
  const ParamSet given = paramsOf(method);
  for (const auto& [name, value] : given.values())
    if (!solved || name != known->knob()->name) parts << text(name) + QLatin1Char('=') + text(value);
  return parts.join(QLatin1Char('|'));
}

CompareAnswerPtr CompareRuns::answer(const QString& method) const {
  const auto found = m_answers.find(keyOf(method));
  return found == m_answers.end() ? nullptr : found->second;
}

CompareRuns::State CompareRuns::state(const QString& method) const {
  const QString key = keyOf(method);
  if (const auto running = m_running.find(method); running != m_running.end() && running->second.key == key) {
    for (const JobStatus& status : m_session.jobs().status())
      if (status.id == running->second.job.id())
        return status.state == JobState::Queued ? State::Waiting : State::Running;
    return State::Waiting;
  }
  return m_answers.contains(key) ? State::Answered : State::Unknown;
}

double CompareRuns::progress(const QString& method) const {
  const auto running = m_running.find(method);
  if (running == m_running.end()) return 0;
  for (const JobStatus& status : m_session.jobs().status())
    if (status.id == running->second.job.id()) return status.fraction;
  return 0;
}

void CompareRuns::start(const QStringList& methods) {
  // Jobs of an older question go; those that are asked for again go on.
  for (auto it = m_running.begin(); it != m_running.end();)
    it = methods.contains(it->first) && it->second.key == keyOf(it->first) ? std::next(it) : m_running.erase(it);
  if (!m_session.trace()) return;
  for (const QString& method : methods) {
    const CompareAnswerPtr known = answer(method);
    if (m_running.contains(method) || (known && known->error.empty())) continue;
    submit(method);
  }
  Q_EMIT changed();
}

void CompareRuns::submit(const QString& method) {
  RunRequest request;
  request.methodId = method.toStdString();
  request.params = paramsOf(method);
  request.selection = m_question.heads();
  request.warmup = m_question.warmup;
  request.keepPlanArrays = false;  // onHead keeps those that are wanted
  const Method* known = methodOf(method);
  JobSpec spec;
  spec.name =
      tr("Compare: %1 on %2").arg(known != nullptr ? text(known->title()) : method, m_question.where()).toStdString();
  spec.lane = Lane::Compute;
  spec.userVisible = true;
  spec.supersedeTag = "compare/" + request.methodId;
  const QString key = keyOf(method);
  const auto trace = m_session.trace();
  const QPointer<CompareRuns> self(this);
  Running running;
  running.key = key;
  running.job = m_session.jobs().submit<CompareAnswerPtr>(
      std::move(spec),
      [trace, request, method, target = m_question.target,
       focus = m_session.selectedHead()](JobContext& context) -> CompareAnswerPtr {
        auto answer = std::make_shared<CompareAnswer>();
        answer->method = method;
        answer->given = request.params;
        Index bytes = 0;
        Compared compared =
            compareMethod(*trace, request, target, context.backend(), context.control(), [&](const HeadReport& head) {
              const Index size = planBytes(head.plan);
              const bool keep = (focus && head.id == *focus) || bytes + size <= kPlansPerAnswer;
              if (keep) bytes += size;
              answer->heads[head.id] = keep ? std::make_shared<const HeadReport>(head) : withoutPlan(head);
            });
        answer->sum = summarise(compared.report);
        answer->solution = std::move(compared.solution);
        answer->warnings = std::move(compared.report.warnings);
        return answer;
      },
      [self, trace, method, key](Outcome<CompareAnswerPtr> outcome) {
        if (!self || trace != self->m_session.trace()) return;
        if (auto* answer = std::get_if<CompareAnswerPtr>(&outcome))
          return self->finished(method, key, std::move(*answer));
        if (const auto* error = std::get_if<Error>(&outcome)) {
          auto failed = std::make_shared<CompareAnswer>();
          failed->method = method;
          failed->error = error->what();
          return self->finished(method, key, std::move(failed));
        }
        self->finished(method, key, nullptr);
      });
  m_running[method] = std::move(running);
}

void CompareRuns::finished(const QString& method, const QString& key, CompareAnswerPtr answer) {
  const auto running = m_running.find(method);
  // A newer question has replaced the job: what the old one says does not concern it.
  if (running != m_running.end() && running->second.key == key) {
    running->second.job.release();
    m_running.erase(running);
  }
  if (answer) {
    m_answers[key] = std::move(answer);
    std::erase(m_age, key);
    m_age.push_back(key);
    strip();
  }
  Q_EMIT changed();
}

void CompareRuns::strip() {
  Index bytes = 0;
  for (auto key = m_age.rbegin(); key != m_age.rend(); ++key) {
    CompareAnswerPtr& answer = m_answers[*key];
    Index own = 0;
    for (const auto& [id, head] : answer->heads)
      if (hasArrays(head->plan)) own += planBytes(head->plan);
    bytes += own;
    if (own == 0 || bytes <= m_planLimit || key == m_age.rbegin()) continue;
    auto light = std::make_shared<CompareAnswer>(*answer);
    for (auto& [id, head] : light->heads) head = withoutPlan(*head);
    answer = std::move(light);
    bytes -= own;
  }
}

void CompareRuns::cancel() {
  m_running.clear();
  Q_EMIT changed();
}

void CompareRuns::clear() {
  m_running.clear();
  m_answers.clear();
  m_age.clear();
  Q_EMIT changed();
}

QString CompareRuns::commandLine(const QStringList& methods) const {
  if (!m_session.trace()) return {};
  const Selection& at = m_question.at;
  QStringList words{QStringLiteral("sparsight-cli"),
                    QStringLiteral("compare"),
                    shellWord(text(m_session.trace()->info().path.string())),
                    QStringLiteral("--methods"),
                    methods.join(QLatin1Char(',')),
                    QStringLiteral("--step"),
                    QString::number(at.step)};
  if (m_question.scope != CompareScope::Step) words << QStringLiteral("--layer") << QString::number(at.layer);
  if (m_question.scope == CompareScope::Head) words << QStringLiteral("--head") << QString::number(at.head);
  if (!at.branch.empty()) words << QStringLiteral("--branch") << shellWord(text(at.branch));
  if (m_question.target) words << optionOf(*m_question.target).split(QLatin1Char(' '));
  if (m_question.warmup) words << QStringLiteral("--warmup") << QStringLiteral("on");
  QStringList params;
  for (const QString& method : methods) {
    const Method* known = methodOf(method);
    const bool solved = m_question.target && known != nullptr && known->knob();
    const ParamSet given = paramsOf(method);
    for (const auto& [name, value] : given.values()) {
      if (solved && name == known->knob()->name) continue;
      params << shellWord(method + QLatin1Char('.') + text(name) + QLatin1Char('=') + text(value));
    }
  }
  if (!params.isEmpty()) words << QStringLiteral("--param") << params;
  return words.join(QLatin1Char(' '));
}

}  // namespace sparsight
