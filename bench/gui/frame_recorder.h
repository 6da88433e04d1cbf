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
#include <ctime>
#include <functional>
#include <utility>
#include <vector>

namespace sparsight::bench {

/// Milliseconds, and how often.
class Times {
 public:
  void add(double ms) { m_values.push_back(ms); }
  void add(const Times& other) { m_values.insert(m_values.end(), other.m_values.begin(), other.m_values.end()); }
  [[nodiscard]] std::size_t count() const noexcept { return m_values.size(); }
  [[nodiscard]] double quantile(double q) const {
    if (m_values.empty()) return 0;
    if (m_values.size() == 1) return m_values.front();  // and GCC 13 sees no sort beyond the end of one
    std::vector<double> sorted = m_values;
    std::sort(sorted.begin(), sorted.end());
    // Nearest rank: a p99 of few values is their largest.
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(sorted.size())));
    return sorted[std::min(sorted.size(), std::max<std::size_t>(1, rank)) - 1];
  }
  [[nodiscard]] long above(double ms) const {
    return static_cast<long>(std::count_if(m_values.begin(), m_values.end(), [ms](double v) { return v > ms; }));
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

  /// Wall clock, and the processor time of the GUI thread in it: the difference is waiting, for the display or because
  /// the processor was somebody else's.
  struct Recording {
    Times frames, framesCpu, handlers, handlersCpu;
    double longestHandler = 0, longestCpu = 0;
    QString longestName, longestCpuName;

    /// The same played once more.
    void add(const Recording& other) {
      frames.add(other.frames);
      framesCpu.add(other.framesCpu);
      handlers.add(other.handlers);
      handlersCpu.add(other.handlersCpu);
      if (other.longestHandler > longestHandler) {
        longestHandler = other.longestHandler;
        longestName = other.longestName;
      }
      if (other.longestCpu > longestCpu) {
        longestCpu = other.longestCpu;
        longestCpuName = other.longestCpuName;
      }
    }
  };

  /// Prints every frame and handler that took more milliseconds of processor time, and when it began on the monotonic
  /// clock: what to look for in `perf script` after `perf record -k mono`.
  void printSlow(double ms) { m_slow = ms; }

  bool notify(QObject* receiver, QEvent* event) override {
    const QEvent::Type type = event->type();
    const bool paints = type == QEvent::Paint || type == QEvent::UpdateRequest;
    const QString name = m_depth == 0 ? nameOf(receiver, type) : QString();  // the receiver may be gone afterwards
    const bool frame = type == QEvent::UpdateRequest && m_updates == 0;
    if (frame)
      for (Awaited& each : m_awaited) each.shown = each.shown || each.ready();
    const Span start = Span::now();
    ++m_depth;
    if (type == QEvent::UpdateRequest) ++m_updates;
    const Span outer = std::exchange(m_painting, Span{});
    const bool result = QApplication::notify(receiver, event);
    --m_depth;
    const Span all = Span::now() - start;
    const Span painting = paints ? all : m_painting;
    // To the native window, which hands it on to the widget, or to the widget itself: either way one frame.
    if (type == QEvent::UpdateRequest && --m_updates == 0) {
      m_now.frames.add(all.wall);
      m_now.framesCpu.add(all.cpu);
      ++m_frames;
      if (all.cpu > m_slow) slow("frame", start, all, QString());
      for (Awaited& each : m_awaited)
        if (each.shown && each.at < 0) each.at = (start + all).wall;
    }
    m_painting = outer + painting;
    if (m_depth > 0) return result;
    m_painting = {};
    const Span handler = all - painting;
    m_now.handlers.add(handler.wall);
    m_now.handlersCpu.add(handler.cpu);
    if (handler.cpu > m_slow) slow("handler", start, handler, name);
    if (handler.wall > m_now.longestHandler) {
      m_now.longestHandler = handler.wall;
      m_now.longestName = name;
    }
    if (handler.cpu > m_now.longestCpu) {
      m_now.longestCpu = handler.cpu;
      m_now.longestCpuName = name;
    }
    return result;
  }

  Recording take() { return std::exchange(m_now, {}); }
  /// Looks out for the first frame at whose beginning `ready` holds: the one that paints what it asks for. Before the
  /// input, as that frame may come with it; forgets what was awaited before.
  void await(std::vector<std::function<bool()>> ready) {
    m_awaited.clear();
    for (auto& each : ready) m_awaited.push_back({std::move(each), false, -1});
  }
  /// When that frame was handed to the display, in milliseconds of now(); negative: not yet.
  [[nodiscard]] double shownAt(std::size_t i) const { return m_awaited.at(i).at; }
  [[nodiscard]] static double now() { return Span::now().wall; }
  /// Frames painted since the start.
  [[nodiscard]] long frames() const noexcept { return m_frames; }

 private:
  struct Span {
    double wall = 0, cpu = 0;  // milliseconds
    static Span now() {
      const auto read = [](clockid_t clock) {
        timespec t{};
        clock_gettime(clock, &t);
        return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
      };
      return {read(CLOCK_MONOTONIC), read(CLOCK_THREAD_CPUTIME_ID)};
    }
    friend Span operator-(const Span& a, const Span& b) { return {a.wall - b.wall, a.cpu - b.cpu}; }
    friend Span operator+(const Span& a, const Span& b) { return {a.wall + b.wall, a.cpu + b.cpu}; }
  };
  struct Awaited {
    std::function<bool()> ready;
    bool shown = false;
    double at = -1;
  };
  static void slow(const char* what, const Span& start, const Span& took, const QString& name) {
    std::printf("  slow %s: %.2f ms (CPU %.2f), from %.4f s %s\n", what, took.wall, took.cpu, start.wall / 1e3,
                qPrintable(name));
    std::fflush(stdout);
  }
  static QString nameOf(QObject* receiver, QEvent::Type type) {
    const char* key = QMetaEnum::fromType<QEvent::Type>().valueToKey(type);
    return QStringLiteral("%1 to %2 %3")
        .arg(key != nullptr ? QLatin1String(key) : QLatin1String("?"),
             QLatin1String(receiver->metaObject()->className()), receiver->objectName());
  }
  Recording m_now;
  int m_depth = 0, m_updates = 0;
  long m_frames = 0;
  double m_slow = 1e9;
  std::vector<Awaited> m_awaited;
  Span m_painting;
};

}  // namespace sparsight::bench
