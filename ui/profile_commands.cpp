// SPDX-License-Identifier: Apache-2.0
#include "ui/profile_commands.h"

#include <utility>

namespace sparsight {

EditCommand::EditCommand(Apply apply, ProfileEdit edit, Options options)
    : QUndoCommand(QString::fromStdString(edit.label)),
      m_apply(std::move(apply)),
      m_edit(std::move(edit)),
      m_options(options) {}

void EditCommand::undo() { m_apply(m_edit.inverse()); }

void EditCommand::redo() {
  if (std::exchange(m_options.applied, false)) return;
  m_apply(m_edit);
}

bool EditCommand::mergeWith(const QUndoCommand* other) {
  const auto* next = dynamic_cast<const EditCommand*>(other);
  if (next == nullptr || next->id() != id() || next->m_options.gesture != m_options.gesture) return false;
  if (m_options.gesture == 0 && next->m_options.timeMs - m_options.timeMs > m_options.burstMs) return false;
  m_edit = withoutNoOps(next->m_options.replaces ? next->m_edit : m_edit.mergedWith(next->m_edit));
  m_edit.label = next->m_edit.label;
  m_options.timeMs = next->m_options.timeMs;
  setText(next->text());
  // Dragged back to where it began: the entry disappears from the list.
  if (m_edit.empty()) setObsolete(true);
  return true;
}

ProfileEdit withoutNoOps(ProfileEdit edit) {
  std::erase_if(edit.cells, [](const ProfileEdit::Cell& cell) { return cell.before == cell.after; });
  std::erase_if(edit.layers, [](const ProfileEdit::LayerMeta& meta) {
    return meta.lockedBefore == meta.lockedAfter && meta.noteBefore == meta.noteAfter;
  });
  return edit;
}

}  // namespace sparsight
