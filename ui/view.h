// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QFlags>
#include <QIcon>
#include <QJsonObject>
#include <QString>
#include <QStringList>
#include <QWidget>
#include <cstdint>
#include <span>

namespace sparsight {

class Session;

/// What changed since the last call; merged and delivered once per turn of the event loop.
enum class Change : std::uint32_t {
  Trace = 1,      ///< another trace, or none
  Selection = 2,  ///< step, branch, layer, head
  Pair = 4,       ///< picked query / key pair
  Profile = 8,    ///< values, locks, role, another profile
  Runs = 16,      ///< method results
  Settings = 32,  ///< colour map, renderer, cache
  Theme = 64,     ///< light / dark, scale
};
Q_DECLARE_FLAGS(ChangeFlags, Change)
Q_DECLARE_OPERATORS_FOR_FLAGS(ChangeFlags)

/// Base of everything dockable. Lives on the GUI thread; heavy work goes through Session::jobs().
class View : public QWidget {
  Q_OBJECT
 public:
  View(Session& session, QWidget* parent);
  ~View() override;

  /// The shared state changed; refresh what is shown.
  virtual void sessionChanged(ChangeFlags changes) = 0;
  /// True when what is painted is final (no job of this view pending): render and the self-test wait for it.
  [[nodiscard]] virtual bool isSettled() const { return true; }
  /// View options (pooling, order, zoom, ...) for session files and `render`; unknown keys are ignored.
  [[nodiscard]] virtual QJsonObject saveState() const { return {}; }
  virtual void restoreState(const QJsonObject&) {}
  /// Two or three most useful keys, for the status bar.
  [[nodiscard]] virtual QString hint() const { return {}; }
  /// Short state for the status bar ("tiles 212 / 512 MB", "exact"), parts left to right; asked a few times a second
  /// while the view is visible.
  [[nodiscard]] virtual QStringList statusParts() const { return {}; }

 protected:
  [[nodiscard]] Session& session() const noexcept { return m_session; }

 private:
  Session& m_session;
};

enum class DockArea : std::uint8_t { Centre, Left, Right, Bottom };

/// One per file in ui/views, which ends with `const ViewInfo& <file>_info()`; CMake collects them.
struct ViewInfo {
  const char* id;     ///< stable: "map", "heads", "heatmap", ...
  const char* title;  ///< translatable source text
  DockArea area;
  int order;             ///< within its area
  const char* icon;      ///< resource name in resources/icons, without path and ".svg"
  const char* helpPage;  ///< in resources/docs, e.g. "views.md#attention-map"
  View* (*create)(Session& session, QWidget* parent);
  bool oneHead = false;  ///< shows the selected head and no other: `sparsight render --method` then runs on it alone
};
[[nodiscard]] std::span<const ViewInfo* const> allViews();
[[nodiscard]] const ViewInfo* viewById(QStringView id);

}  // namespace sparsight
