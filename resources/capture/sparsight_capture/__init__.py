# SPDX-License-Identifier: Apache-2.0
"""Captures the attention of video diffusion transformers into Sparsight traces.

    import sparsight_capture

    with sparsight_capture.capture(pipe, "trace.h5", steps="every:10", layers=[0, 7, 15, 29]) as c:
        video = pipe(prompt="a cat", num_frames=81)

See resources/docs/capture.md.
"""

from .core import Capture, __version__, capture, capture_module
from .guard import CaptureError, Estimate
from .select import PRESETS

__all__ = ["Capture", "CaptureError", "Estimate", "PRESETS", "__version__", "capture", "capture_module"]
