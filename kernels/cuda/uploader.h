// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "cuda/device_memory.h"

namespace sparsight::cuda {

/// Copies to the device that go on beside the kernels of other heads: by a thread of their own, on a stream of their
/// own, through page-locked buffers of their own. Thread, stream and buffers come with the first copy.
class Uploader {
 public:
  /// Makes the copies of one head; polls the control.
  using Copies = std::function<void(Staging&, const Control&)>;

  /// One head's copies under way.
  class Upload {
   public:
    explicit Upload(Copies copies) : m_copies(std::move(copies)) {}
    ~Upload();
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;
    /// Neither source nor target is touched once this returns. Whoever owns them calls it before they go.
    void cancel() noexcept;
    /// Makes what follows on `stream` wait for the copies; the calling thread waits until all are on their way. Throws
    /// what stopped them, Cancelled on stop.
    void arriveBefore(const Stream& stream, const Control& control);

   private:
    friend class Uploader;
    void run(std::optional<Stream>& stream, std::optional<Staging>& staging) noexcept;

    Copies m_copies;
    std::stop_source m_stop;
    cudaEvent_t m_sent = nullptr;
    std::mutex m_mutex;
    std::condition_variable m_changed;
    bool m_started = false, m_done = false;
    std::exception_ptr m_error;
  };

  Uploader() = default;
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  [[nodiscard]] std::shared_ptr<Upload> start(Copies copies);

 private:
  void work(const std::stop_token& stop);

  std::mutex m_mutex;
  std::condition_variable_any m_changed;
  std::deque<std::weak_ptr<Upload>> m_waiting;
  std::weak_ptr<Upload> m_running;
  std::jthread m_thread;
};

}  // namespace sparsight::cuda
