// SPDX-License-Identifier: Apache-2.0
#include "cuda/uploader.h"

#include <chrono>
#include <utility>

#include "cuda/backend_impl.h"

namespace sparsight::cuda {

Uploader::Upload::~Upload() {
  if (m_sent == nullptr) return;
  static_cast<void>(cudaEventDestroy(m_sent));
  static_cast<void>(cudaGetLastError());
}

void Uploader::Upload::cancel() noexcept {
  m_stop.request_stop();
  std::unique_lock lock(m_mutex);
  if (!m_started) {
    m_started = m_done = true;
    m_error = std::make_exception_ptr(Cancelled{});
    return;
  }
  m_changed.wait(lock, [&] { return m_done; });
  if (m_sent == nullptr) return;
  static_cast<void>(cudaEventSynchronize(m_sent));
  static_cast<void>(cudaGetLastError());
}

void Uploader::Upload::arriveBefore(const Stream& stream, const Control& control) {
  {
    std::unique_lock lock(m_mutex);
    while (!m_changed.wait_for(lock, std::chrono::milliseconds(20), [&] { return m_done; })) control.checkpoint();
    if (m_error) std::rethrow_exception(m_error);
  }
  check(cudaStreamWaitEvent(stream.get(), m_sent, 0), "wait for an upload");
}

void Uploader::Upload::run(std::optional<Stream>& stream, std::optional<Staging>& staging) noexcept {
  {
    const std::lock_guard lock(m_mutex);
    if (std::exchange(m_started, true)) return;  // cancelled before its turn
  }
  std::exception_ptr error;
  try {
    check(cudaSetDevice(kDevice), "select the device");
    if (!stream) stream.emplace();
    if (!staging) staging.emplace(*stream);
    check(cudaEventCreateWithFlags(&m_sent, cudaEventDisableTiming), "create an event");
    m_copies(*staging, Control{m_stop.get_token(), {}});
    check(cudaEventRecord(m_sent, stream->get()), "upload a head");
  } catch (...) {
    error = std::current_exception();
    // The target may be freed next.
    if (stream) static_cast<void>(cudaStreamSynchronize(stream->get()));
    static_cast<void>(cudaGetLastError());
  }
  m_copies = {};
  // Notified under the lock: whoever waits may destroy this as soon as it is free.
  const std::lock_guard lock(m_mutex);
  m_error = error;
  m_done = true;
  m_changed.notify_all();
}

Uploader::~Uploader() {
  m_thread.request_stop();
  {
    const std::lock_guard lock(m_mutex);
    if (const auto upload = m_running.lock()) upload->m_stop.request_stop();
  }
  if (m_thread.joinable()) m_thread.join();
  for (const std::weak_ptr<Upload>& waiting : m_waiting) {
    if (const auto upload = waiting.lock()) upload->cancel();
  }
}

std::shared_ptr<Uploader::Upload> Uploader::start(Copies copies) {
  auto upload = std::make_shared<Upload>(std::move(copies));
  {
    const std::lock_guard lock(m_mutex);
    m_waiting.push_back(upload);
  }
  if (!m_thread.joinable()) {
    m_thread = std::jthread([this](const std::stop_token& stop) { work(stop); });
  }
  m_changed.notify_one();
  return upload;
}

void Uploader::work(const std::stop_token& stop) {
  std::optional<Stream> stream;
  std::optional<Staging> staging;  // after the stream: destroyed first
  while (true) {
    std::weak_ptr<Upload> next;
    {
      std::unique_lock lock(m_mutex);
      if (!m_changed.wait(lock, stop, [&] { return !m_waiting.empty(); })) return;
      next = std::move(m_waiting.front());
      m_waiting.pop_front();
    }
    const auto upload = next.lock();
    if (!upload) continue;
    {
      const std::lock_guard lock(m_mutex);
      m_running = upload;
    }
    upload->run(stream, staging);
  }
}

}  // namespace sparsight::cuda
