// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QApplication>
#include <QElapsedTimer>
#include <QEvent>
#include <QMetaEnum>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

namespace sparsight::bench {

/// Milliseconds, and how often.
class Times {
 public:
  void add(double ms) { m_values.push_back(ms); }
  [[nodiscard]] std::size_t count() const noexcept { return m_values.size(); }
  [[nodiscard]] double quantile(double q) const {
    if (m_values.empty()) return 0;
    std::vector<double> sorted = m_values;
    std::sort(sorted.begin(), sorted.end());
    // Nearest rank: a p99 of few values is their largest.
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(sorted.size())));
    return sorted[std::min(sorted.size(), std::max<std::size_t>(1, rank)) - 1];
  }
  void print(const char* what) const {
    static constexpr std::array<double, 8> kEdges{1, 2, 4, 8, 16.7, 33.3, 66.7, 1e9};
    std::printf("  %-16s %6zu  p50 %7.2f  p95 %7.2f  p99 %7.2f  max %7.2f   |", what, count(), quantile(0.5),
                quantile(0.95), quantile(0.99), quantile(1.0));
    double low = -1;
    for (const double edge : kEdges) {
      const auto n = std::count_if(m_values.begin(), m_values.end(), [&](double v) { return v > low && v <= edge; });
      if (edge > 1e6)
        std::printf(" >66.7: %td", n);
      else
        std::printf(" <=%g: %td", edge, n);
      low = edge;
    }
    std::printf("\n");
  }

 private:
  std::vector<double> m_values;
};

/// An application that times what its event loop delivers: whole frames (the UpdateRequest that paints a window and
/// hands it to the display), and everything else (handlers), without the painting in it.
class FrameRecorder : public QApplication {
 public:
  using QApplication::QApplication;

  struct Recording {
    Times frames, handlers;
    double longestHandler = 0;
    QString longestName;
  };

  bool notify(QObject* receiver, QEvent* event) override {
    const QEvent::Type type = event->type();
    const bool paints = type == QEvent::Paint || type == QEvent::UpdateRequest;
    const QString name = m_depth == 0 ? nameOf(receiver, type) : QString();  // the receiver may be gone afterwards
    QElapsedTimer clock;
    clock.start();
    ++m_depth;
    if (type == QEvent::UpdateRequest) ++m_updates;
    const double outer = std::exchange(m_painting, 0.0);
    const bool result = QApplication::notify(receiver, event);
    --m_depth;
    const double all = static_cast<double>(clock.nsecsElapsed()) / 1e6;
    const double painting = paints ? all : m_painting;
    // To the native window, which hands it on to the widget, or to the widget itself: either way one frame.
    if (type == QEvent::UpdateRequest && --m_updates == 0) {
      m_now.frames.add(all);
      ++m_frames;
    }
    m_painting = outer + painting;
    if (m_depth > 0) return result;
    m_painting = 0;
    const double handler = all - painting;
    m_now.handlers.add(handler);
    if (handler > m_now.longestHandler) {
      m_now.longestHandler = handler;
      m_now.longestName = name;
    }
    return result;
  }

  Recording take() { return std::exchange(m_now, {}); }
  /// Frames painted since the start.
  [[nodiscard]] long frames() const noexcept { return m_frames; }

 private:
  static QString nameOf(QObject* receiver, QEvent::Type type) {
    const char* key = QMetaEnum::fromType<QEvent::Type>().valueToKey(type);
    return QStringLiteral("%1 to %2 %3")
        .arg(key != nullptr ? QLatin1String(key) : QLatin1String("?"),
             QLatin1String(receiver->metaObject()->className()), receiver->objectName());
  }
  Recording m_now;
  int m_depth = 0, m_updates = 0;
  long m_frames = 0;
  double m_painting = 0;
};

}  // namespace sparsight::bench
