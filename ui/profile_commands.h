// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QUndoCommand>
#include <functional>

#include "sparsight/core/profile.h"

namespace sparsight {

/// One entry of the undo list: a ProfileEdit and how to apply one to the document.
class EditCommand : public QUndoCommand {
 public:
  struct Options {
    int mergeId = -1;       ///< -1: never merged
    int gesture = 0;        ///< serial of the press-to-release gesture; 0: none
    bool replaces = false;  ///< within the gesture: takes the place of the earlier edit instead of following it
    bool applied = false;   ///< the values are in the document already; the first redo only records
    qint64 timeMs = 0;      ///< of a monotonic clock, for bursts
    int burstMs = 0;        ///< equal mergeIds at most this far apart become one entry
  };
  using Apply = std::function<void(const ProfileEdit&)>;

  EditCommand(Apply apply, ProfileEdit edit, Options options);

  void undo() override;
  void redo() override;
  [[nodiscard]] int id() const override { return m_options.mergeId; }
  bool mergeWith(const QUndoCommand* other) override;

  [[nodiscard]] const ProfileEdit& edit() const noexcept { return m_edit; }
  [[nodiscard]] int gesture() const noexcept { return m_options.gesture; }

 private:
  Apply m_apply;
  ProfileEdit m_edit;
  Options m_options;
};

/// `edit` without cells and layers that end as they began.
[[nodiscard]] ProfileEdit withoutNoOps(ProfileEdit edit);

}  // namespace sparsight
