// SPDX-License-Identifier: Apache-2.0
#include "bench/gui/player.h"

#include <QThread>

namespace sparsight::bench {

FrameRecorder& recorder() { return *static_cast<FrameRecorder*>(qApp); }

double elapsed(const QElapsedTimer& clock) { return static_cast<double>(clock.nsecsElapsed()) / 1e6; }

void turn(int ms) {
  QCoreApplication::processEvents(QEventLoop::AllEvents, ms);
  QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
}

bool waitUntil(const std::function<bool()>& done, int limitMs) {
  QElapsedTimer clock;
  clock.start();
  while (!done()) {
    if (clock.elapsed() > limitMs) return false;
    QCoreApplication::processEvents(QEventLoop::WaitForMoreEvents | QEventLoop::AllEvents, 5);
    QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
  }
  return true;
}

void rest(int ms) {
  QElapsedTimer clock;
  clock.start();
  while (clock.elapsed() < ms) {
    turn();
    QThread::usleep(200);
  }
}

void input(const std::function<void()>& send, Times& times) {
  QElapsedTimer clock;
  clock.start();
  const long before = recorder().frames();
  send();
  constexpr int kPatienceMs = 150;  // an input that changes nothing is not painted
  while (recorder().frames() == before && clock.elapsed() < kPatienceMs) turn();
  if (recorder().frames() > before) times.add(elapsed(clock));
  while (clock.elapsed() < kFrameMs) {
    turn();
    QThread::usleep(200);
  }
}

void wheel(QWidget& widget, QPointF at, int notches) {
  QWheelEvent event(at, widget.mapToGlobal(at), {}, QPoint(0, 120 * notches), Qt::NoButton, Qt::NoModifier,
                    Qt::NoScrollPhase, false);
  QApplication::sendEvent(&widget, &event);
}

void mouse(QWidget& widget, QEvent::Type type, QPointF at, Qt::MouseButton button, Qt::MouseButtons buttons) {
  QMouseEvent event(type, at, widget.mapToGlobal(at), button, buttons, Qt::NoModifier);
  QApplication::sendEvent(&widget, &event);
}

void key(QWidget& widget, int code, Qt::KeyboardModifiers modifiers) {
  QKeyEvent event(QEvent::KeyPress, code, modifiers);
  QApplication::sendEvent(&widget, &event);
}

}  // namespace sparsight::bench
