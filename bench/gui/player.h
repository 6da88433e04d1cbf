// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QElapsedTimer>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPointF>
#include <QWheelEvent>
#include <QWidget>
#include <functional>

#include "bench/gui/frame_recorder.h"
#include "bench/gui/report.h"

namespace sparsight::bench {

constexpr int kFrameMs = 16;
constexpr QSize kWindow{1600, 1000};

/// The application.
FrameRecorder& recorder();

double elapsed(const QElapsedTimer& clock);  ///< milliseconds
/// The event loop: once, until something is so (false: not within the limit), for a while.
void turn(int ms = 1);
bool waitUntil(const std::function<bool()>& done, int limitMs);
void rest(int ms);

/// Sends an input, waits for the next frame, then for the rest of a 60 Hz period. Adds input to paint to `times`.
void input(const std::function<void()>& send, Times& times);

void wheel(QWidget& widget, QPointF at, int notches);
void mouse(QWidget& widget, QEvent::Type type, QPointF at, Qt::MouseButton button, Qt::MouseButtons buttons);
void key(QWidget& widget, int code, Qt::KeyboardModifiers modifiers = Qt::NoModifier);

}  // namespace sparsight::bench
