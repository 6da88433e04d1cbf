# SPDX-License-Identifier: Apache-2.0
"""Subsets: which steps, layers, heads and query rows are captured."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
from sparsight_trace import Layout, TraceError, check_rows, row_blocks, row_stride

Selection = Union[str, int, Sequence[int]]

PRESETS: Dict[str, Dict[str, str]] = {
    # Early, middle and late steps, first to last layer: what a model's heads look like.
    "survey": {"steps": "spread:4", "layers": "ends:5", "heads": "all", "rows": "all"},
    # One layer over the whole run: how its heads change with the step.
    "layer": {"steps": "every:5", "layers": "middle", "heads": "all", "rows": "all"},
    # Every layer and head, few steps, 1/16 of the query rows: enough for measuring a budget profile.
    "tuning": {"steps": "spread:4", "layers": "all", "heads": "all", "rows": "blocks:16"},
}

_FORMS = '"all", "middle", "every:N", "first:N", "last:N", "spread:N", "ends:N", "0,7,15", "0-4"'


def indices(spec: Selection, total: int, what: str) -> List[int]:
    """The chosen indices of 0 .. total - 1, ascending.

    spec: a number, a list of numbers (negative ones count from the end) or one of the strings in the error below.
    "spread:N" takes the middles of N equal parts, "ends:N" N evenly spaced ones with the first and the last.
    ValueError, naming ``what``, for anything else and for an empty result.
    """
    chosen: Iterable[int]
    if isinstance(spec, str):
        chosen = _parse(spec.strip(), total, what)
    elif isinstance(spec, (int, np.integer)):
        chosen = [int(spec)]
    else:
        chosen = [int(i) for i in spec]
    result = set()
    for i in chosen:
        if not -total <= i < total:
            raise ValueError(f"{what}: {i} is outside 0 .. {total - 1}")
        result.add(i % total)
    if not result:
        raise ValueError(f"{what}: '{spec}' selects none of {total}")
    return sorted(result)


def _parse(spec: str, total: int, what: str) -> Iterable[int]:
    if spec == "all":
        return range(total)
    if spec == "middle":
        return [total // 2]
    match = re.fullmatch(r"(every|first|last|spread|ends):(\d+)", spec)
    if match and int(match.group(2)) > 0:
        n = min(int(match.group(2)), total)
        if match.group(1) == "every":
            return range(0, total, int(match.group(2)))
        if match.group(1) == "first":
            return range(n)
        if match.group(1) == "last":
            return range(total - n, total)
        if match.group(1) == "spread":
            return [int((i + 0.5) * total / n) for i in range(n)]
        return [round(i) for i in np.linspace(0, total - 1, n)]
    chosen: List[int] = []
    for part in spec.split(","):
        single = re.fullmatch(r"\s*(-?\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not single:
            raise ValueError(f"{what}: '{spec}' is none of {_FORMS}")
        low = int(single.group(1))
        chosen.extend(range(low, int(single.group(2)) + 1) if single.group(2) else [low])
    return chosen


class Rows:
    """Which query rows are stored: "all", "blocks:16" or "blocks:16:128" (1/16 of the video's rows in aligned runs of 64
    or 128), "stride:7", or a list of token numbers. Rows outside the video are always kept; keys are never subsampled."""

    def __init__(self, spec: Union[str, Sequence[int], np.ndarray], seed: int = 0) -> None:
        self.seed = seed
        self.fraction, self.block, self.stride = 1, 64, 1
        self.listed: Optional[np.ndarray] = None
        if not isinstance(spec, str):
            self.mode = "list"
            self.listed = np.asarray(spec)
            return
        match = re.fullmatch(r"(all)|blocks:(\d+)(?::(\d+))?|stride:(\d+)", spec.strip())
        if not match:
            raise ValueError(f'rows: \'{spec}\' is none of "all", "blocks:N", "blocks:N:SIZE", "stride:N"')
        self.mode = "all" if match.group(1) else "blocks" if match.group(2) else "stride"
        if self.mode == "blocks":
            self.fraction, self.block = int(match.group(2)), int(match.group(3) or 64)
        elif self.mode == "stride":
            self.stride = int(match.group(4))

    def of(self, layout: Layout) -> Optional[np.ndarray]:
        """Token of each stored row, int64 ascending; None: all."""
        try:
            if self.mode == "blocks":
                return row_blocks(layout, self.fraction, self.block, self.seed)
            if self.mode == "stride":
                return row_stride(layout, self.stride)
            return None if self.listed is None else check_rows(self.listed, layout.n_tokens)
        except TraceError as error:
            raise ValueError(str(error)) from error

    def describe(self) -> Dict[str, int]:
        """Attributes of /capture."""
        if self.mode == "blocks":
            return {"q_block": self.block, "q_seed": self.seed}
        return {"q_stride": self.stride} if self.mode == "stride" else {}


def with_preset(preset: Optional[str], **given: Any) -> Tuple[Any, ...]:
    """steps, layers, heads, rows: what was given, else the preset's ("survey" without one)."""
    name = preset or "survey"
    if name not in PRESETS:
        raise ValueError(f"preset '{name}' is unknown; one of {', '.join(PRESETS)}")
    return tuple(PRESETS[name][key] if given.get(key) is None else given[key] for key in ("steps", "layers", "heads", "rows"))
