# SPDX-License-Identifier: Apache-2.0
"""Work on tensors that needs no state: masks, row log sum exp, preview frames."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F

FRAME_SIDE = 384  # longest side of stored preview frames, pixels
MAX_FRAMES = 512


def columns_of(plane: torch.Tensor, self_like: bool) -> Tuple[torch.Tensor, bool]:
    """Keys that some row of the mask [n_q or 1, n_k] may see, and whether that says everything: every row sees all of them,
    apart from fully masked rows that are padding themselves. Looks at 1024 rows at a time."""
    if plane.shape[0] == 1:
        return plane[0], True
    pieces = plane.split(1024)
    valid = torch.stack([p.any(dim=0) for p in pieces]).any(dim=0)
    for number, piece in enumerate(pieces):
        full = (piece == valid).all(dim=1)
        empty = ~piece.any(dim=1)
        if self_like and plane.shape[0] == plane.shape[1]:
            own = valid[number * 1024 : number * 1024 + len(piece)]
            if not bool((full | (empty & ~own)).all()):
                return valid, False
        elif not bool(full.all()):
            return valid, False
    return valid, True


def row_lse(
    q: torch.Tensor, k: torch.Tensor, heads: Sequence[int], groups: int, scale: float, valid: Any, dense: Any
) -> np.ndarray:
    """log sum exp (natural) of every row's scores in float32, [heads, rows]; never a whole N x N array."""
    result = np.empty((len(heads), q.shape[1]), dtype="<f4")
    tile = max(1, (64 << 20) // (4 * k.shape[1]))
    keep = None if valid is None else torch.from_numpy(valid).to(q.device).bool()
    for i, head in enumerate(heads):
        keys = k[head // groups].float().T
        for at in range(0, q.shape[1], tile):
            scores = q[head, at : at + tile].float() @ keys * scale
            if keep is not None:
                scores = scores.masked_fill(~keep, -torch.inf)
            if dense is not None:
                scores = scores.masked_fill(~torch.from_numpy(dense[at : at + tile]).to(q.device).bool(), -torch.inf)
            result[i, at : at + tile] = torch.logsumexp(scores, dim=1).cpu().numpy()
    return result


def preview(video: torch.Tensor) -> np.ndarray:
    """[3, F, h, w] in 0 .. 1 -> uint8 [F, h', w', 3], made smaller to FRAME_SIDE pixels."""
    frames = video.detach().float().clamp(0, 1).permute(1, 0, 2, 3)[:MAX_FRAMES]
    side = max(frames.shape[2:])
    if side > FRAME_SIDE:
        size = tuple(max(1, round(n * FRAME_SIDE / side)) for n in frames.shape[2:])
        frames = F.interpolate(frames, size=size, mode="area")
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
