// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QApplication>
#include <QElapsedTimer>
#include <QEvent>
#include <QMetaEnum>
#include <algorithm>
#include <vector>

namespace sparsight::test {

/// An application that times what its event loop delivers. An event's time is what it took itself and in events it sent
/// on, without painting: that is how long it kept the window from reacting.
class EventClock : public QApplication {
 public:
  using QApplication::QApplication;

  struct Entry {
    double ms = 0;
    QString what;
  };

  bool notify(QObject* receiver, QEvent* event) override {
    const QEvent::Type type = event->type();
    const bool paints = type == QEvent::Paint || type == QEvent::UpdateRequest;
    const QString name = m_depth == 0 ? nameOf(receiver, type) : QString();  // the receiver may be gone afterwards
    QElapsedTimer clock;
    clock.start();
    ++m_depth;
    const double outer = std::exchange(m_painting, 0.0);
    const bool result = QApplication::notify(receiver, event);
    --m_depth;
    const double all = static_cast<double>(clock.nsecsElapsed()) / 1e6;
    const double painting = paints ? all : m_painting;
    m_painting = outer + painting;
    if (m_depth > 0) return result;
    m_painting = 0;
    m_longestPaint = std::max(m_longestPaint, painting);
    ++m_events;
    m_entries.push_back({all - painting, name});
    std::push_heap(m_entries.begin(), m_entries.end(), shorter);
    if (m_entries.size() > kKept) {
      std::pop_heap(m_entries.begin(), m_entries.end(), shorter);
      m_entries.pop_back();
    }
    return result;
  }

  void restart() {
    m_entries.clear();
    m_events = 0;
    m_longestPaint = 0;
  }
  /// Longest first; at most a handful.
  [[nodiscard]] std::vector<Entry> longest() const {
    std::vector<Entry> sorted = m_entries;
    std::sort(sorted.begin(), sorted.end(), [](const Entry& a, const Entry& b) { return a.ms > b.ms; });
    return sorted;
  }
  [[nodiscard]] int events() const noexcept { return m_events; }
  [[nodiscard]] double longestPaint() const noexcept { return m_longestPaint; }

 private:
  static constexpr std::size_t kKept = 5;
  static bool shorter(const Entry& a, const Entry& b) { return a.ms > b.ms; }  // the shortest on top of the heap
  static QString nameOf(QObject* receiver, QEvent::Type type) {
    const char* key = QMetaEnum::fromType<QEvent::Type>().valueToKey(type);
    return QStringLiteral("%1 to %2 %3")
        .arg(key != nullptr ? QLatin1String(key) : QLatin1String("?"),
             QLatin1String(receiver->metaObject()->className()), receiver->objectName());
  }
  std::vector<Entry> m_entries;
  int m_depth = 0, m_events = 0;
  double m_painting = 0, m_longestPaint = 0;
};

}  // namespace sparsight::test
