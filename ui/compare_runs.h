// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QObject>
#include <QString>
#include <QStringList>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sparsight/core/compare.h"
#include "ui/session.h"

namespace sparsight {

/// The heads a comparison is about: the selected one, its layer, or all of its step.
enum class CompareScope : std::uint8_t { Head, Layer, Step };

/// What is compared: which heads, and at which equal budget (none: each method at its own setting).
struct CompareQuestion {
  CompareScope scope = CompareScope::Head;
  Selection at;
  std::optional<BudgetTarget> target;
  bool warmup = false;  ///< the first steps and layers stay dense, as each method's rule says

  [[nodiscard]] HeadSelection heads() const;
  [[nodiscard]] QString where() const;  ///< "layer 3 head 2, step 20"
};

/// One method's side of a comparison.
struct CompareAnswer {
  QString method;
  ParamSet given;     ///< parameters it was asked with
  std::string error;  ///< not empty: the method could not be compared at all, and why
  RunSummary sum;
  std::optional<Solution> solution;  ///< nullopt: no target, or no knob to move
  std::vector<std::string> warnings;
  std::map<HeadId, HeadResult> heads;  ///< beyond a limit without their plans' arrays
};
using CompareAnswerPtr = std::shared_ptr<const CompareAnswer>;

/// Runs the methods of a comparison as jobs and keeps what they gave, apart from the session's own results: a run at a
/// solved budget must not replace the one the user made. Answers stay until the trace changes; plans beyond a limit
/// lose their arrays, oldest first.
class CompareRuns : public QObject {
  Q_OBJECT
 public:
  enum class State : std::uint8_t { Unknown, Waiting, Running, Answered };
  explicit CompareRuns(Session& session, QObject* parent = nullptr);

  void setQuestion(const CompareQuestion& question) { m_question = question; }
  [[nodiscard]] const CompareQuestion& question() const noexcept { return m_question; }
  /// Of the question asked now; nullptr: not known.
  [[nodiscard]] CompareAnswerPtr answer(const QString& method) const;
  [[nodiscard]] State state(const QString& method) const;
  [[nodiscard]] double progress(const QString& method) const;  ///< 0..1 while running
  /// Compares those of `methods` that have no answer yet; stops what an older question is still running.
  void start(const QStringList& methods);
  void cancel();
  void clear();  ///< another trace
  [[nodiscard]] bool isBusy() const noexcept { return !m_running.empty(); }
  /// Memory for plans of all answers.
  void setPlanLimit(Index bytes) { m_planLimit = bytes; }

  /// The parameters a method is compared with: those of its last run in the method view, else none (the family's
  /// defaults).
  [[nodiscard]] ParamSet paramsOf(const QString& method) const;
  /// The same comparison as a command line.
  [[nodiscard]] QString commandLine(const QStringList& methods) const;

 Q_SIGNALS:
  void changed();

 private:
  struct Running {
    QString key;
    JobHandle job;
  };
  [[nodiscard]] QString keyOf(const QString& method) const;
  void submit(const QString& method);
  void finished(const QString& method, const QString& key, CompareAnswerPtr answer);
  void strip();

  Session& m_session;
  CompareQuestion m_question;
  std::map<QString, CompareAnswerPtr> m_answers;  // by key
  std::vector<QString> m_age;                     // keys, oldest first
  std::map<QString, Running> m_running;           // by method
  Index m_planLimit = Index{384} << 20;
};

}  // namespace sparsight
