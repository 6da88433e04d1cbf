# SPDX-License-Identifier: Apache-2.0
"""What is read off a diffusers pipeline, and what is changed on its objects for the duration of a capture."""

from __future__ import annotations

import contextlib
import sys
from types import FrameType
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Any:
    """An attribute of one object for the duration; the class is not touched."""
    had = name in owner.__dict__
    old = owner.__dict__.get(name)
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if had:
            owner.__dict__[name] = old
        else:
            del owner.__dict__[name]


@contextlib.contextmanager
def native_attention(modules: Sequence[torch.nn.Module]) -> Any:
    """diffusers' own dispatcher takes torch's attention, whatever was chosen for the models or by environment."""
    dispatch = sys.modules.get("diffusers.models.attention_dispatch")
    holders = [h for module in modules for m in module.modules() for h in (m, getattr(m, "processor", None))]
    holders = [h for h in holders if h is not None and getattr(h, "_attention_backend", None) is not None]
    with contextlib.ExitStack() as stack:
        for holder in {id(h): h for h in holders}.values():
            stack.enter_context(replaced(holder, "_attention_backend", None))
        if dispatch is not None and hasattr(dispatch, "attention_backend"):
            stack.enter_context(dispatch.attention_backend("native"))
        yield


def pipeline_locals(pipe: Any) -> Dict[str, Any]:
    """Local variables of the pipeline's running __call__: prompt, size, schedule. Empty when it is not on the stack."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is pipe:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def schedule_of(pipe: Any, called: Mapping[str, Any]) -> List[float]:
    """Timesteps of the run, one per denoising step (schedulers of second order list some twice in a row)."""
    steps = called.get("timesteps")
    if steps is None or len(steps) == 0:
        steps = getattr(getattr(pipe, "scheduler", None), "timesteps", None)
    values = [] if steps is None else [float(t) for t in steps]
    return [t for i, t in enumerate(values) if i == 0 or t != values[i - 1]]


def text_of(value: Any) -> Optional[str]:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def number_of(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) else None
