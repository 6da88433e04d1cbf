// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QDialog>
#include <memory>
#include <optional>
#include <string>

#include "sparsight/core/profile.h"

class QButtonGroup;
class QDialogButtonBox;

namespace sparsight {

/// A foreign CSV under both conventions, read on the Io lane.
struct CsvReadings {
  std::optional<CsvImport> kept, skipped;  ///< empty: refused, see error
  QString error;                           ///< of the reading as kept density
};
[[nodiscard]] CsvReadings readBothWays(std::string_view text, const std::string& name);
/// Mean above one half: a budget profile that keeps that much saves nothing, so the numbers are probably skipped
/// fractions.
[[nodiscard]] bool looksSkipped(const Profile& profile);

/// Asks what the numbers of a file mean, showing both readings of the same rows, what the reader noticed, and how it
/// differs from the open profile.
class ImportDialog : public QDialog {
  Q_OBJECT
 public:
  /// `open` is the profile shown now, for the difference; nullptr: none.
  ImportDialog(const QString& path, std::shared_ptr<const CsvReadings> readings, const Profile* open, QWidget* parent);

  [[nodiscard]] ValueConvention convention() const;
  void setConvention(ValueConvention convention);
  [[nodiscard]] const Profile& profile() const;

 private:
  std::shared_ptr<const CsvReadings> m_readings;
  QButtonGroup* m_choice = nullptr;
};

}  // namespace sparsight
