# SPDX-License-Identifier: Apache-2.0
"""From the sampling thread to the file: a queue bounded in bytes, and one thread that writes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque, Optional, Tuple

from .guard import CaptureError


class Sink:
    """Runs jobs in order on a thread of its own. submit() waits while more than ``limit`` bytes are under way, so that a
    slow disk slows sampling down instead of filling the memory. The first exception ends the work; the next
    submit() and close() raise CaptureError from it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: Deque[Tuple[Callable[[], None], int]] = deque()
        self._bytes = 0
        self._closing = False
        self._error: Optional[BaseException] = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sparsight-capture-writer", daemon=True)
        self._thread.start()

    def reserve(self, size: int) -> None:
        """Waits until ``size`` bytes fit; to be called before their buffer is made, followed by submit() with it."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not self._bytes or self._bytes + size <= self._limit)
            self._raise()
            self._bytes += size

    def submit(self, job: Callable[[], None], size: int = 0) -> None:
        """Queues a job that holds ``size`` bytes, which reserve() has counted."""
        with self._changed:
            self._raise()
            self._jobs.append((job, size))
            self._changed.notify_all()

    def close(self) -> None:
        """Waits for the queued jobs and ends the thread. Raises what a job raised."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise CaptureError(f"writing the trace failed: {self._error}") from self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                job, size = self._jobs.popleft()
            try:
                job()
            except BaseException as error:  # handed to the sampling thread
                with self._changed:
                    self._error = error
                    self._jobs.clear()
                    self._changed.notify_all()
                return
            finally:
                del job  # its buffer goes before the bytes are free again
                with self._changed:
                    self._bytes -= size
                    self._changed.notify_all()
