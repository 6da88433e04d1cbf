// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "sparsight/core/response.h"
#include "ui/budget_edit.h"
#include "ui/session.h"

class QMenu;
class QTimer;
class QToolButton;

namespace sparsight {

class CaptionCombo;
class ElidedLabel;
class ProfileModel;
class SmallCurve;

/// What the edited budgets lead to, by lookup in response curves: a line of numbers, the choice of the method that the
/// curves are of, and the button that measures them. Curves are read from and kept in the files beside the trace that
/// `sparsight-cli curve` uses.
class ResponseStrip : public QWidget {
  Q_OBJECT
 public:
  ResponseStrip(Session& session, ProfileModel& model, QWidget* parent = nullptr);
  ~ResponseStrip() override;

  enum class Scope { Head, Layer, Step, All };
  void measure(Scope scope);
  void sessionChanged(ChangeFlags changes);
  /// The scope of the model changed.
  void scopeChanged();
  [[nodiscard]] bool isSettled() const;
  [[nodiscard]] QString method() const;
  void setMethod(const QString& id);
  [[nodiscard]] const ResponseTable& table() const noexcept { return m_table; }
  /// "mass 0.941 → 0.962 | err 0.031 → 0.019" of what the edit under way (or just made) changed; `layer`: whose numbers
  /// when it changed several. Empty: it changed nothing that curves know, or there are none.
  [[nodiscard]] QString consequence(int layer);
  /// The line as shown.
  [[nodiscard]] QString text() const;
  /// The curve of the selected head with its budget marked; false: there is none.
  [[nodiscard]] bool plot(SmallCurve& curve) const;

 Q_SIGNALS:
  void changed();  ///< other curves, or other numbers

 private:
  [[nodiscard]] RunRequest requestFor(Scope scope) const;
  void readFiles();
  void receive(const std::vector<HeadCurve>& curves);
  void settle();
  void updateText();
  [[nodiscard]] bool usable() const;
  [[nodiscard]] const LayerPredictions& predict(const Profile& profile) const;

  Session& m_session;
  ProfileModel& m_model;
  CaptionCombo* m_method;
  QToolButton* m_measure;
  QMenu* m_menu;
  ElidedLabel* m_text;
  QTimer* m_settle;
  ResponseTable m_table;
  LayerPredictions m_settled;  // before the next edit
  struct Predicted {
    Profile of;
    BudgetScope scope;
    LayerPredictions value;
  };
  mutable std::list<Predicted> m_predicted;  // of m_table, newest first: an edit asks for before and after many times
  const Trace* m_of = nullptr;
  std::string m_branch;
  std::set<std::string> m_known;  // files that were looked at
  QString m_problem;
  bool m_reading = false, m_measuring = false;
  JobHandle m_readJob, m_measureJob;
};

}  // namespace sparsight
