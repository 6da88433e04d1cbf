// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QWidget>
#include <functional>
#include <utility>
#include <vector>

class QVBoxLayout;

namespace sparsight {

/// Messages in place, above the work area: what happened, where, how to mend it, and the buttons that help. Never
/// modal; each is dismissed by its cross or Esc. The newest is on top, at most kLimit are kept.
class BannerStack : public QWidget {
  Q_OBJECT
 public:
  enum class Kind { Info, Warning, Error };
  using Buttons = std::vector<std::pair<QString, std::function<void()>>>;
  static constexpr int kLimit = 3;

  explicit BannerStack(QWidget* parent = nullptr);
  /// The same title and message again moves the one there to the top instead of doubling it. A button's function runs
  /// after its banner is gone.
  void post(Kind kind, const QString& title, const QString& message, Buttons buttons = {});
  void clear();
  [[nodiscard]] int count() const;
  [[nodiscard]] QString topText() const;

 protected:
  void keyPressEvent(QKeyEvent* event) override;

 private:
  void dismiss(QWidget* banner);
  QVBoxLayout* m_layout;
};

}  // namespace sparsight
