// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QCoreApplication>
#include <QDir>
#include <QStandardPaths>
#include <QTemporaryDir>
#include <QTest>
#include <functional>
#include <memory>

#include "sparsight/core/synth.h"
#include "sparsight/kernels/executor.h"
#include "ui/session.h"

namespace sparsight::test {

/// A home of its own for settings, caches and journals, so that tests neither read nor touch the user's.
class PrivateHome {
 public:
  PrivateHome() {
    for (const char* name : {"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"}) {
      const QString path = m_dir.filePath(QString::fromLatin1(name).toLower());
      QDir().mkpath(path);
      qputenv(name, path.toLocal8Bit());
    }
    QCoreApplication::setOrganizationName(QStringLiteral("sparsight"));
    QCoreApplication::setApplicationName(QStringLiteral("sparsight"));
  }
  [[nodiscard]] QString file(const QString& name) const { return m_dir.filePath(name); }

 private:
  QTemporaryDir m_dir;
};

/// A trace of 2 steps, 2 layers, 3 heads, 4 x 4 x 6 tokens and 8 of text.
inline SynthSpec smallSpec() {
  SynthSpec spec;
  spec.frames = 4;
  spec.height = 4;
  spec.width = 6;
  spec.textTokens = 8;
  spec.layers = 2;
  spec.heads = 3;
  spec.steps = 2;
  spec.headDim = 16;
  return spec;
}
inline QString writeSmallTrace(const QString& path, const SynthSpec& spec = smallSpec()) {
  Executor executor(1);
  writeSyntheticTrace(path.toStdString(), spec, executor, {});
  return path;
}

/// Waits for a condition while the event loop runs.
inline bool eventually(const std::function<bool()>& done, int timeoutMs = 60'000) {
  return QTest::qWaitFor(done, timeoutMs);
}

}  // namespace sparsight::test
