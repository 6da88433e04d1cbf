// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QStringList>
#include <QWidget>
#include <cstdint>
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

  /// `trace` may be nullptr: then the defaults of the specification. Rows of the method before are used again, since
  /// making one takes half a millisecond.
  void setMethod(const Method& method, const TraceInfo* trace);
  /// The same for any parameters that live as long as the form; `defaults` over those of the specification.
  void setSpecs(std::span<const ParamSpec> specs, std::map<std::string, std::string, std::less<>> defaults);
  /// Makes the rows that these parameters need and does not show them: a later setSpecs is quick.
  void prepare(std::span<const ParamSpec> specs);
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

 protected:
  void changeEvent(QEvent* event) override;

 private:
  enum class Editor : std::uint8_t { Choice, Check, Line };
  struct Row {
    const ParamSpec* spec = nullptr;  ///< nullptr: not in use
    std::string defaultValue;
    Editor kind = Editor::Line;
    QWidget *box = nullptr, *editor = nullptr;
    QLabel* label = nullptr;
    QToolButton* reset = nullptr;
    NoteLabel* error = nullptr;
    bool advanced = false, valid = true;
  };
  [[nodiscard]] static Editor editorOf(ParamType type);
  /// A row that is not in use, made where there is none.
  Row& takeRow(Editor kind, bool advanced);
  Row& makeRow(Editor kind, bool advanced);
  void dress(Row& row, const ParamSpec& spec, const std::string& defaultValue, int line);
  static void fitWidth(const Row& row);
  void undress(Row& row);
  [[nodiscard]] static std::string valueOf(const Row& row);
  static void setValue(Row& row, const std::string& value);
  void edited(Row& row);
  void validate(Row& row);
  void updateFold();

  std::span<const ParamSpec> m_specs;
  std::map<std::string, std::string, std::less<>> m_defaults;
  std::vector<std::unique_ptr<Row>> m_pool;
  std::vector<Row*> m_rows;  ///< in use, in the order of the specification
  QGridLayout* m_layout;
  QToolButton* m_more = nullptr;
  QWidget* m_advanced = nullptr;
  bool m_folded = true;
};

}  // namespace sparsight
