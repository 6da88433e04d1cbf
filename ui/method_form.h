// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QStringList>
#include <QWidget>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sparsight/core/method.h"

class QGridLayout;
class QLabel;
class QToolButton;

namespace sparsight {

class NoteLabel;

/// A form made from a method's parameter specification: one row each with label, editor, reset, and the error in place.
/// Values that equal the default are not part of assignments(), so that a trace's family can choose its own defaults.
class MethodForm : public QWidget {
  Q_OBJECT
 public:
  explicit MethodForm(QWidget* parent = nullptr);

  /// Rebuilds the rows. `trace` may be nullptr: then the defaults of the specification.
  void setMethod(const Method& method, const TraceInfo* trace);
  /// The same for any parameters that live as long as the form; `defaults` over those of the specification.
  void setSpecs(std::span<const ParamSpec> specs, std::map<std::string, std::string, std::less<>> defaults);
  /// "k=v" of what the user changed.
  [[nodiscard]] QStringList assignments() const;
  void setAssignments(const QStringList& assignments);
  /// Whether every field can be used; the first bad one gets the focus on request.
  [[nodiscard]] bool isValid() const;
  void focusFirstError();
  /// Parsed and with the trace's defaults below. Throws Error as ParamSet::parse does.
  [[nodiscard]] ParamSet params() const;
  void resetAll();
  [[nodiscard]] bool isModified() const { return !assignments().isEmpty(); }

 Q_SIGNALS:
  void changed();

 private:
  struct Row {
    const ParamSpec* spec = nullptr;
    std::string defaultValue;
    QWidget* editor = nullptr;
    QToolButton* reset = nullptr;
    NoteLabel* error = nullptr;
    std::vector<QWidget*> widgets;  ///< all of the row, for folding
    bool advanced = false, valid = true;
  };
  void addRow(const ParamSpec& spec, const std::string& defaultValue, bool advanced);
  [[nodiscard]] static std::string valueOf(const Row& row);
  static void setValue(Row& row, const std::string& value);
  void edited(std::size_t index);
  void validate(Row& row);
  void updateFold();

  std::span<const ParamSpec> m_specs;
  std::map<std::string, std::string, std::less<>> m_defaults;
  std::vector<Row> m_rows;
  QGridLayout* m_layout;
  QToolButton* m_more = nullptr;
  QWidget* m_advanced = nullptr;
  bool m_folded = true;
};

}  // namespace sparsight
