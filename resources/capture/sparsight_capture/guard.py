# SPDX-License-Identifier: Apache-2.0
"""What would break a capture, found before the run; how large it will be, and whether the disk can take it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List

PLAIN_BYTES_PER_SECOND = 500e6
GZIP_BYTES_PER_SECOND = 45e6  # shuffle + gzip 1 on one core, measured on 16-bit attention tensors
PROBE_ABOVE = 1 << 30
# Names that diffusers gives the hooks of its caches; the one for text keys recomputes all attention.
_CACHE_HOOK = re.compile(r"(?!text_kv).*cache|fbc_|pyramid_attention_broadcast|taylorseer")


class CaptureError(RuntimeError):
    """The capture cannot be made, or what was captured is not what was asked for. Says what to do."""


def obstacles(module: Any, name: str) -> List[str]:
    """Reasons why the attention calls of ``module`` would not be seen, or not all, each with its way out."""
    found: List[str] = []
    compiled = type(module).__name__ == "OptimizedModule" or any(
        getattr(m, "_compiled_call_impl", None) is not None or type(m).__name__ == "OptimizedModule" for m in module.modules()
    )
    if compiled:
        found.append(f"{name} is compiled, and compiled regions hide their attention calls: load it without torch.compile")
    hooks = {h for m in module.modules() for h in getattr(getattr(m, "_diffusers_hook", None), "hooks", {})}
    if getattr(module, "is_cache_enabled", False) or any(_CACHE_HOOK.match(h) for h in hooks):
        found.append(f"{name} has a cache that skips layers: call {name}.disable_cache(), or load it without the cache")
    if _parallel(module) or any(h.startswith("cp_") for h in hooks):
        found.append(f"{name} runs context-parallel, so every GPU holds a part of the tokens: capture on one GPU")
    if module.training:
        found.append(f"{name} is in training mode (checkpointing calls attention twice): call {name}.eval()")
    return found


def _parallel(module: Any) -> bool:
    parts = [p for m in module.modules() for p in (m, getattr(m, "processor", None))]
    return any(getattr(p, "_parallel_config", None) is not None for p in parts)


@dataclass
class Estimate:
    """Size and time of a capture. calls: attention calls; tensor_bytes: before compression; free_bytes: on the disk."""

    calls: int
    bytes_per_call: int
    free_bytes: int
    write_seconds: float

    @property
    def tensor_bytes(self) -> int:
        return self.calls * self.bytes_per_call

    def __str__(self) -> str:
        return (
            f"{self.calls} attention calls of {size_text(self.bytes_per_call)}: {size_text(self.tensor_bytes)}, about "
            f"{time_text(self.write_seconds)} of writing; {size_text(self.free_bytes)} free"
        )

    def check(self, folder: Path, limit: int) -> None:
        """CaptureError where the capture exceeds ``limit`` bytes (0: none) or the free space."""
        smaller = "fewer steps, layers or heads, or rows='blocks:16'"
        if limit and self.tensor_bytes > limit:
            raise CaptureError(f"the capture needs {size_text(self.tensor_bytes)}, the limit is {size_text(limit)}: {smaller}")
        spare = 256 << 20
        if self.tensor_bytes + spare > self.free_bytes:
            raise CaptureError(
                f"the capture needs {size_text(self.tensor_bytes)}, '{folder}' has {size_text(self.free_bytes)} free: {smaller}"
            )


def estimate(folder: Path, calls: int, bytes_per_call: int, compression: int) -> Estimate:
    """Estimate of ``calls`` calls written to ``folder``; large ones measure the disk with 64 MiB."""
    speed = GZIP_BYTES_PER_SECOND if compression else PLAIN_BYTES_PER_SECOND
    total = calls * bytes_per_call
    free = shutil.disk_usage(folder).free
    if not compression and PROBE_ABOVE < total < free:
        speed = _measure(folder)
    return Estimate(calls, bytes_per_call, free, total / speed)


def _measure(folder: Path) -> float:
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as f:
        start = time.perf_counter()
        for _ in range(64):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())
        return 64 * len(block) / max(1e-3, time.perf_counter() - start)


def size_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def time_text(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
