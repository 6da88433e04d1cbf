# SPDX-License-Identifier: Apache-2.0
"""Writes Sparsight traces (format 1.1, HDF5) from numpy arrays. One file, needs numpy and h5py only: copy it anywhere.

    import sparsight_trace as st

    with st.TraceWriter("trace.h5", st.Layout.of_video((21, 30, 52)), model={"num_layers": 30, "num_heads": 12}) as w:
        w.add_call(step=0, layer=7, q=q, k=k, v=v)  # [heads, tokens, channels], after QK-norm and RoPE

Tokens stand in the model's own order, frame-major (t, h, w); query rows may be a subset, keys and values may not.
The format is described in resources/docs/trace-format.md; ``sparsight-cli check FILE --deep`` validates a file.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

import h5py
import numpy as np

__version__ = "1.0"

FORMAT_VERSION = (1, 1)
SEGMENT_KINDS = {"video": 0, "text": 1, "image": 2, "audio": 3, "history": 4, "register": 5, "other": 255}
DTYPES = ("float16", "bfloat16", "float32")
FLOAT16_MAX = 65504.0
CHUNK_BYTES = 1 << 20
FOLD_BYTES = 1 << 30  # "auto": traces up to this size end as one file
MAX_TEXT_BYTES = 32 << 10  # HDF5 keeps attributes below 64 KiB in the object header
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
# What every step file must be readable by: HDF5 1.10, also after a crash (superblock 0 has no "open" flag).
_LIBVER = ("earliest", "v110")
_CHUNK_CACHE = 16 << 20  # HDF5's own 1 MiB holds no chunk of 1 MiB beside its bookkeeping

PathLike = Union[str, "os.PathLike[str]"]


class TraceError(ValueError):
    """Data that the trace format cannot hold, or a call that breaks its rules."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one kind; ``grid`` = (T, H, W) in tokens for video, None for the rest."""

    kind: str
    length: int
    grid: Optional[Tuple[int, int, int]] = None


@dataclass(frozen=True)
class Layout:
    """How the tokens of a call are laid out: segments in the model's order, without gaps."""

    segments: Tuple[Segment, ...]

    @staticmethod
    def of_video(grid: Sequence[int], text_len: int = 0, text_first: bool = False) -> Layout:
        """A video of ``grid`` = (T, H, W) tokens, with ``text_len`` text tokens before or after it."""
        t, h, w = (int(n) for n in grid)
        if min(t, h, w) < 1:
            raise TraceError(f"grid {tuple(grid)} must be three positive numbers: frames, rows, columns of tokens")
        video = Segment("video", t * h * w, (t, h, w))
        if text_len < 0:
            raise TraceError(f"text_len is {text_len}; it cannot be negative")
        if text_len == 0:
            return Layout((video,))
        text = Segment("text", int(text_len))
        return Layout((text, video) if text_first else (video, text))

    @property
    def n_tokens(self) -> int:
        return sum(s.length for s in self.segments)

    def start_of(self, kind: str) -> Optional[int]:
        """First token of the first segment of ``kind``, or None."""
        at = 0
        for s in self.segments:
            if s.kind == kind:
                return at
            at += s.length
        return None

    def length_of(self, kind: str) -> int:
        """Tokens of the first segment of ``kind``; 0 without one."""
        return next((s.length for s in self.segments if s.kind == kind), 0)

    @property
    def grid(self) -> Tuple[int, int, int]:
        """(T, H, W) of the first video segment."""
        for s in self.segments:
            if s.kind == "video" and s.grid is not None:
                return s.grid
        raise TraceError("the layout has no video segment with a grid")

    def check(self) -> None:
        """Raises TraceError where a segment breaks the format's rules."""
        for s in self.segments:
            if s.kind not in SEGMENT_KINDS:
                raise TraceError(f"segment kind '{s.kind}' is unknown; one of {', '.join(SEGMENT_KINDS)}")
            if s.length < 1:
                raise TraceError(f"{s.kind} segment has {s.length} tokens; leave an empty one out")
            if s.kind == "video" and s.grid is None:
                raise TraceError("a video segment needs its grid (T, H, W)")
            if s.grid is not None and int(np.prod(s.grid)) != s.length:
                raise TraceError(f"grid {s.grid} has {int(np.prod(s.grid))} cells, its segment {s.length} tokens")
        if not self.segments:
            raise TraceError("the layout has no tokens")


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """float array -> uint16 holding bfloat16 bits, rounded to nearest even. NaN is not expected."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 holding bfloat16 bits -> float32, exact."""
    return (bits.astype("<u4") << 16).view("<f4")


def row_blocks(layout: Layout, fraction: int, block: int = 64, seed: int = 0) -> np.ndarray:
    """Query rows in aligned runs of ``block`` tokens: about 1/``fraction`` of the video's runs, spread evenly over it and
    drawn at random within each stratum; every row outside the video is kept. Returns int64, strictly increasing."""
    if fraction < 1 or block < 1:
        raise TraceError(f"rows blocks:{fraction}:{block}: both numbers must be positive")
    rng = np.random.default_rng(seed)
    keep = np.ones(layout.n_tokens, dtype=bool)
    at = 0
    for s in layout.segments:
        if s.kind == "video":
            keep[at : at + s.length] = False
            runs = -(-s.length // block)
            wanted = max(1, -(-runs // fraction))
            edges = np.linspace(0, runs, wanted + 1).astype(np.int64)
            for low, high in zip(edges[:-1], edges[1:]):
                run = int(rng.integers(low, max(high, low + 1)))
                keep[at + run * block : min(at + (run + 1) * block, at + s.length)] = True
        at += s.length
    return np.flatnonzero(keep).astype(np.int64)


def row_stride(layout: Layout, stride: int) -> np.ndarray:
    """Every ``stride``-th video row and every other row. int64, strictly increasing. TraceError when the stride shares a
    factor with the width or the tokens of a frame, because it would meet the same columns again and again."""
    if stride < 1:
        raise TraceError(f"rows stride:{stride}: the stride must be positive")
    _, h, w = layout.grid
    if stride > 1 and (np.gcd(stride, w) != 1 or np.gcd(stride, h * w) != 1):
        raise TraceError(f"rows stride:{stride} shares a factor with the {h} x {w} frame; use a coprime one or blocks")
    keep = np.ones(layout.n_tokens, dtype=bool)
    at = 0
    for s in layout.segments:
        if s.kind == "video":
            keep[at : at + s.length] = np.arange(s.length) % stride == 0
        at += s.length
    return np.flatnonzero(keep).astype(np.int64)


class TraceWriter:
    """Writes one trace, call by call, into one file per denoising step; the main file links the finished steps.

    Nothing stands under ``path`` before the first step is finished. A process that dies leaves a trace with
    ``complete`` = 0 that holds the finished steps. close() ends it with ``complete`` = 1, and folds the steps into one
    file where that is cheap.

    model, run: attributes of /model and /run (see the format); "timesteps" and "sigmas" of ``run`` are arrays.
    dtype: what float arrays are stored as; a call whose values exceed float16 is stored as bfloat16.
    q_rows: token of each stored query row, the same for every call whose layout is ``layout``.
    compression: 0 (none) or the level of shuffle + gzip.
    split: "auto" (one file up to 1 GiB), "step" (one per step), "none" (one file; a crash leaves nothing).
    """

    def __init__(
        self,
        path: PathLike,
        layout: Layout,
        *,
        model: Optional[Mapping[str, Any]] = None,
        run: Optional[Mapping[str, Any]] = None,
        dtype: str = "float16",
        q_rows: Optional[np.ndarray] = None,
        q_mode: str = "list",
        q_info: Optional[Mapping[str, int]] = None,
        padded_frames_front: int = 0,
        compression: int = 0,
        split: str = "auto",
        overwrite: bool = False,
        writer: str = f"sparsight_trace {__version__}",
        software: Optional[Mapping[str, Any]] = None,
    ) -> None:
        layout.check()
        if dtype not in DTYPES:
            raise TraceError(f"dtype '{dtype}' is unknown; one of {', '.join(DTYPES)}")
        if split not in ("auto", "step", "none"):
            raise TraceError(f"split '{split}' is unknown; auto, step or none")
        if not 0 <= compression <= 9:
            raise TraceError(f"compression {compression} is outside 0 .. 9")
        self.path = Path(path)
        self.layout = layout
        self.model = dict(model or {})
        self.run = dict(run or {})
        self.dtype = dtype
        self.q_mode = "all" if q_rows is None else q_mode
        self.q_info = dict(q_info or {})
        self.q_rows = None if q_rows is None else check_rows(q_rows, layout.n_tokens)
        self.padded_frames_front = padded_frames_front
        self.compression = compression
        self.split = split
        self.writer = writer
        self.software = dict(software or {})
        self.bytes_written = 0  # tensor bytes, before compression
        self.warnings: List[str] = []
        self._uuid = str(uuid.uuid4())
        self._created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._frames: Optional[np.ndarray] = None
        self._fps = 0.0
        self._part: Optional[h5py.File] = None  # the open step's file; with split "none" the only one
        self._part_step: Optional[int] = None
        self._done: Dict[int, Path] = {}
        self._call: Optional[h5py.Group] = None
        self._call_state: Dict[str, Any] = {}
        self.calls: Set[Tuple[int, str, int, str, int]] = set()  # written: step, branch, layer, kind, call
        self._sets: Dict[str, set] = {"steps": set(), "layers": set(), "heads": set(), "branches": set(), "kinds": set()}
        self._has = {"v": True, "out": True, "lse": True}
        self._closed = False
        self._claim(overwrite)

    # --- files --------------------------------------------------------------------------------------------------------
    def _claim(self, overwrite: bool) -> None:
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"the folder '{self.path.parent}' does not exist")
        old = [p for p in self.path.parent.glob(glob_escape(self.path.stem) + ".step_*.h5") if self._is_part(p)]
        old += [self.path] if self.path.exists() else []
        if old and not overwrite:
            raise FileExistsError(f"'{old[0]}' exists; choose another name or pass overwrite=True")
        for p in old:
            p.unlink()

    def _is_part(self, path: Path) -> bool:
        return re.fullmatch(re.escape(self.path.stem) + r"\.step_\d{4,}\.h5", path.name) is not None

    def part_path(self, step: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.step_{step:04d}.h5")

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    def _file_for(self, step: int) -> h5py.File:
        if self.split == "none":
            if self._part is None:
                self._part = h5py.File(self._temporary, "w", libver=_LIBVER, rdcc_nbytes=_CHUNK_CACHE)
            return self._part
        if self._part_step != step:
            self.end_step()
            self._part = h5py.File(
                self.part_path(step), "a" if step in self._done else "w", libver=_LIBVER, rdcc_nbytes=_CHUNK_CACHE
            )
            self._part_step = step
        assert self._part is not None
        return self._part

    def end_step(self) -> None:
        """Closes the file of the step being written; from here on a crash cannot take it away."""
        if self.split == "none" or self._part is None or self._part_step is None:
            return
        self._require_no_call()
        self._part.close()
        self._done[self._part_step] = self.part_path(self._part_step)
        self._part = self._part_step = None
        self._write_main(complete=False)

    def _write_main(self, complete: bool) -> None:
        """The main file anew, under its name at once or not at all."""
        fold = complete and self.split == "auto" and self._can_fold()
        with h5py.File(self._temporary, "w", libver=_LIBVER) as f:
            self._write_header(f)
            data = f.create_group("data")
            for step, part in sorted(self._done.items()):
                name = f"step_{step:04d}"
                if fold:
                    with h5py.File(part, "r") as source:
                        source.copy(f"data/{name}", data, name=name)
                else:
                    data[name] = h5py.ExternalLink(part.name, f"/data/{name}")
            self._write_tail(f, complete)
        os.replace(self._temporary, self.path)
        if fold:
            for part in self._done.values():
                part.unlink()
            self._done.clear()

    def _can_fold(self) -> bool:
        """Small enough for one file, and the disk holds it twice for a moment."""
        size = sum(p.stat().st_size for p in self._done.values())
        return size <= FOLD_BYTES and size * 1.1 < shutil.disk_usage(self.path.parent).free

    def close(self, complete: bool = True) -> None:
        """Ends the trace. complete = False: what is there stays readable, marked as not complete."""
        if self._closed:
            return
        self._closed = True
        if self._call is not None:  # an exception inside a call: that call is not kept
            self._drop_call()
        if self.split != "none":
            self.end_step()
            if self._sets["steps"]:
                self._write_main(complete)
            return
        if self._part is None:
            return
        if complete:
            self._write_header(self._part)
            self._write_tail(self._part, True)
        self._part.close()
        self._part = None
        if complete:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink()

    def discard(self) -> None:
        """Removes everything this writer made."""
        self._closed = True
        self._call = None
        if self._part is not None:
            name = Path(self._part.filename)
            self._part.close()
            self._part = None
            name.unlink()
        for p in [*self._done.values(), self.path, self._temporary]:
            if p.exists():
                p.unlink()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self.close(complete=kind is None)

    # --- header -------------------------------------------------------------------------------------------------------
    def _write_header(self, f: h5py.File) -> None:
        f.attrs["format"] = "sparsight-trace"
        f.attrs["format_version"] = np.array(FORMAT_VERSION, dtype="<i4")
        f.attrs["writer"] = self.writer
        f.attrs["uuid"] = self._uuid
        f.attrs["created_utc"] = self._created
        f.attrs["complete"] = np.uint8(0)
        f.attrs["software"] = json.dumps({"h5py": h5py.__version__, "numpy": np.__version__, **self.software})
        put_attributes(f.create_group("model"), self.model, datasets=("config_json",))
        put_attributes(f.create_group("run"), self.run, datasets=("timesteps", "sigmas"))
        layout = self.layout
        tokens = f.create_group("tokens")
        tokens.attrs["n_tokens"] = np.int64(layout.n_tokens)
        tokens.attrs["order"] = "thw"
        tokens.attrs["padded_frames_front"] = np.int32(self.padded_frames_front)
        if [s.kind for s in layout.segments].count("video") == 1:
            tokens.attrs["grid"] = np.array(layout.grid, dtype="<i4")
            tokens.attrs["video_start"] = np.int64(layout.start_of("video") or 0)
            tokens.attrs["video_len"] = np.int64(layout.length_of("video"))
        tokens.attrs["text_start"] = np.int64(layout.start_of("text") or 0)
        tokens.attrs["text_len"] = np.int64(layout.length_of("text"))
        segments = tokens.create_group("segments")
        lengths = [s.length for s in layout.segments]
        segments["kind"] = np.array([SEGMENT_KINDS[s.kind] for s in layout.segments], dtype="u1")
        segments["start"] = np.cumsum([0, *lengths[:-1]]).astype("<i8")
        segments["length"] = np.array(lengths, dtype="<i8")
        segments["grid"] = np.array([s.grid or (0, 0, 0) for s in layout.segments], dtype="<i4")

    def _write_tail(self, f: h5py.File, complete: bool) -> None:
        capture = f.create_group("capture")
        capture.attrs["stage"] = "post_rope"
        for name in ("steps", "layers", "heads"):
            capture.attrs[name] = np.array(sorted(self._sets[name]), dtype="<i4")
        for name in ("branches", "kinds"):
            capture.attrs.create(name, sorted(self._sets[name]), dtype=h5py.string_dtype())
        for name in ("v", "out", "lse"):
            capture.attrs["has_" + name] = np.uint8(self._has[name])
        capture.attrs["q_mode"] = self.q_mode
        for name, value in self.q_info.items():
            capture.attrs[name] = np.int64(value)
        capture.attrs["k_mode"] = "all"
        if self.q_rows is not None:
            capture["q_rows"] = self.q_rows
        if self._frames is not None:
            shape = self._frames.shape
            rgb = f.create_dataset(
                "frames/rgb", data=self._frames, chunks=(1, *shape[1:]), compression="gzip", compression_opts=4
            )
            rgb.attrs["fps"] = float(self._fps)
        f.flush()
        f.attrs["complete"] = np.uint8(1 if complete else 0)

    def set_frames(self, rgb: np.ndarray, fps: float = 0.0) -> None:
        """Preview frames of the decoded video, uint8 [F, h, w, 3]; fps = 0: not known."""
        rgb = np.asarray(rgb)
        if rgb.ndim != 4 or rgb.shape[3] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
            raise TraceError(f"frames are {rgb.dtype} {list(rgb.shape)}, expected uint8 [frames, height, width, 3]")
        self._frames, self._fps = rgb, fps

    # --- calls --------------------------------------------------------------------------------------------------------
    def _require_no_call(self) -> None:
        if self._call is not None:
            raise TraceError("end the open call first")

    def begin_call(
        self,
        *,
        step: int,
        layer: int,
        heads: Sequence[int],
        n_q: int,
        n_k: int,
        head_dim: int,
        value_dim: int = 0,
        kv_heads: Optional[int] = None,
        branch: str = "cond",
        kind: str = "self",
        call: int = 0,
        component: str = "transformer",
        module: str = "",
        scale: Optional[float] = None,
        timestep: Optional[float] = None,
        sigma: float = 0.0,
        dtype: Optional[str] = None,
        layout: Optional[Layout] = None,
        q_rows: Optional[np.ndarray] = None,
        key_valid: Optional[np.ndarray] = None,
        mask: Optional[np.ndarray] = None,
        out: bool = False,
        lse: bool = False,
    ) -> None:
        """Opens one attention call whose tensors arrive head by head with put(). Most callers want add_call().

        heads: ids, in storage order; kv_heads: stored K/V heads where fewer (GQA). value_dim = 0: no V.
        scale: factor on q k^T, head_dim ** -0.5 if None. layout: where it differs from the trace's.
        key_valid: [n_k], 0 = padding. mask: [n_q, n_k], 0 = masked, only where it differs between rows.
        """
        self._require_no_call()
        self._check_call(step, layer, heads, branch, kind)
        kv_heads = len(heads) if kv_heads is None else kv_heads
        if min(n_q, n_k, head_dim) < 1 or kv_heads < 1 or len(heads) % kv_heads:
            raise TraceError(
                f"{len(heads)} heads, {kv_heads} K/V heads, q [{n_q}, {head_dim}], k [{n_k}, {head_dim}]: "
                "no size may be zero and the K/V heads must divide the heads"
            )
        key = (step, branch, layer, kind, call)
        if key in self.calls:
            raise TraceError(f"step {step}, {branch}, layer {layer}, {kind} was written before; give another 'call'")
        scale = float(head_dim) ** -0.5 if scale is None else float(scale)
        if not (np.isfinite(scale) and scale > 0):
            raise TraceError(f"scale is {scale}; it must be finite and positive")
        dtype = self.dtype if dtype is None else dtype
        effective = self.layout if layout is None else layout
        if [s for s in effective.segments if s.kind != "text"] != [s for s in self.layout.segments if s.kind != "text"]:
            raise TraceError("calls may differ in their text only; a call with another video belongs into another trace")
        own_layout = effective.n_tokens != self.layout.n_tokens or effective.length_of("text") != self.layout.length_of("text")
        if kind in ("self", "joint") and n_k != effective.n_tokens:
            raise TraceError(f"k has {n_k} tokens, the layout {effective.n_tokens}; keys cannot be a subset")
        rows = self._rows_of(n_q, effective, kind, own_layout, q_rows)
        valid = None if key_valid is None else np.ascontiguousarray(np.asarray(key_valid) != 0, dtype="u1")
        dense = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0, dtype="u1")
        if valid is not None and valid.shape != (n_k,):
            raise TraceError(f"key_valid has shape {list(valid.shape)}, expected [{n_k}]")
        if dense is not None and dense.shape != (n_q, n_k):
            raise TraceError(f"mask has shape {list(dense.shape)}, expected [{n_q}, {n_k}]")
        if timestep is None:
            schedule = self.run.get("timesteps")
            timestep = float(schedule[step]) if schedule is not None and step < len(schedule) else 0.0

        leaf = kind if call == 0 else f"{kind}.{call}"
        path = f"data/step_{step:04d}/{branch}/layer_{layer:03d}/{leaf}"
        group = self._file_for(step).create_group(path)
        attributes: Dict[str, Any] = {
            "step": np.int32(step), "timestep": float(timestep), "sigma": float(sigma), "branch": branch,
            "layer": np.int32(layer), "module": module, "component": component, "kind": kind, "call": np.int32(call),
            "scale": scale, "heads": np.array(heads, dtype="<i4"), "n_q": np.int64(n_q), "n_k": np.int64(n_k),
            "mask": "dense" if dense is not None else "none" if valid is None else "key_valid",
        }  # fmt: skip
        if own_layout:
            attributes["n_tokens"] = np.int64(effective.n_tokens)
            attributes["text_start"] = np.int64(effective.start_of("text") or 0)
            attributes["text_len"] = np.int64(effective.length_of("text"))
        for name, value in attributes.items():
            group.attrs[name] = value
        if valid is not None:
            group["key_valid"] = valid
        if dense is not None:
            group["mask"] = dense
        if rows is not None:
            group["q_rows"] = rows
        self._call = group
        self._call_state = {"dtype": dtype, "absmax": np.zeros(3, dtype="<f4"), "key": key, "heads": list(heads), "left": {}}
        self._create("q", len(heads), n_q, head_dim, dtype)
        self._create("k", kv_heads, n_k, head_dim, dtype)
        if value_dim:
            self._create("v", kv_heads, n_k, value_dim, dtype)
        if out:
            if not value_dim:
                raise TraceError("out without v cannot be checked; store both")
            self._create("out", len(heads), n_q, value_dim, dtype)
        if lse:
            group.create_dataset("lse", shape=(len(heads), n_q), dtype="<f4")
            self._call_state["left"]["lse"] = set(range(len(heads)))
        for name, there in (("v", value_dim > 0), ("out", out), ("lse", lse)):
            self._call_state["has_" + name] = there

    def _check_call(self, step: int, layer: int, heads: Sequence[int], branch: str, kind: str) -> None:
        if step < 0 or layer < 0:
            raise TraceError(f"step {step}, layer {layer}: both count from 0")
        schedule = self.run.get("timesteps")
        if schedule is not None and step >= len(schedule):
            raise TraceError(f"step {step} is beyond the {len(schedule)} timesteps of the run")
        if not branch or not kind or "/" in branch or "/" in kind:
            raise TraceError(f"branch '{branch}', kind '{kind}': names without '/', not empty")
        if len(set(heads)) != len(heads) or not heads or min(heads) < 0:
            raise TraceError(f"heads {list(heads)}: ids must differ and count from 0")
        total = int(self.model.get("num_heads", 0))
        if total and max(heads) >= total:
            raise TraceError(f"head {max(heads)}: the model has {total}")

    def _rows_of(
        self, n_q: int, layout: Layout, kind: str, own_layout: bool, q_rows: Optional[np.ndarray]
    ) -> Optional[np.ndarray]:
        if q_rows is not None:
            rows = check_rows(q_rows, layout.n_tokens)
            if len(rows) != n_q:
                raise TraceError(f"q has {n_q} rows, q_rows lists {len(rows)}")
            same = not own_layout and self.q_rows is not None and np.array_equal(rows, self.q_rows)
            return None if same else rows
        if kind not in ("self", "joint") or n_q == layout.n_tokens:
            return None
        if own_layout or self.q_rows is None or len(self.q_rows) != n_q:
            raise TraceError(f"q has {n_q} rows of {layout.n_tokens} tokens; say which with q_rows")
        return None

    def _create(self, name: str, heads: int, tokens: int, channels: int, dtype: str) -> None:
        assert self._call is not None
        item = ITEM_BYTES[dtype]
        rows = 128
        while rows * 2 * channels * item <= CHUNK_BYTES:
            rows *= 2
        while rows > 1 and rows * channels * item > CHUNK_BYTES:
            rows //= 2
        filters: Dict[str, Any] = {}
        if self.compression:
            filters = {"compression": "gzip", "compression_opts": self.compression, "shuffle": True}
        dataset = self._call.create_dataset(
            name,
            shape=(heads, tokens, channels),
            dtype={"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}[dtype],
            chunks=(1, min(rows, tokens), channels),
            **filters,
        )
        dataset.attrs["dims"] = "head,token,channel"
        dataset.attrs["dtype"] = dtype
        self._call_state["left"][name] = set(range(heads))

    def put(self, name: str, position: int, array: np.ndarray, absmax: Optional[float] = None) -> None:
        """Writes heads of ``name`` ("q", "k", "v", "out": [h, tokens, channels]; "lse": [h, tokens]) from storage
        position ``position`` on. uint16 arrays are taken as bfloat16 bits, float arrays are converted. With ``absmax``
        the array is of the storage type already, and its values are not looked at again."""
        if self._call is None:
            raise TraceError("begin a call first")
        dataset = self._call[name]
        state = self._call_state
        if name == "lse":
            stored = np.asarray(array, dtype="<f4")
        else:
            if absmax is None:
                stored, absmax = convert(array, state["dtype"], name)
            elif array.dtype.itemsize != dataset.dtype.itemsize or array.dtype.kind != dataset.dtype.kind:
                raise TraceError(f"{name} is {array.dtype}, the call stores {dataset.dtype}")
            else:
                stored = array
            if name in ("q", "k", "v"):
                index = ("q", "k", "v").index(name)
                state["absmax"][index] = max(state["absmax"][index], absmax)
        if stored.shape[1:] != dataset.shape[1:] or position + len(stored) > len(dataset):
            raise TraceError(f"{name}: {list(stored.shape)} at head {position} does not fit {list(dataset.shape)}")
        dataset[position : position + len(stored)] = stored
        state["left"][name] -= set(range(position, position + len(stored)))
        self.bytes_written += stored.nbytes

    def end_call(self) -> None:
        """Ends the open call; every head of every tensor must have been put."""
        if self._call is None:
            raise TraceError("begin a call first")
        state = self._call_state
        missing = {name: sorted(left) for name, left in state["left"].items() if left}
        if missing:
            raise TraceError(f"the call ends without heads {missing}")
        self._call.attrs["absmax"] = state["absmax"]
        self._call.file.flush()
        step, branch, layer, kind, _ = state["key"]
        self.calls.add(state["key"])
        for name, values in (
            ("steps", [step]), ("branches", [branch]), ("layers", [layer]), ("kinds", [kind]), ("heads", state["heads"]),
        ):  # fmt: skip
            self._sets[name].update(values)
        for name in self._has:
            self._has[name] = self._has[name] and state["has_" + name]
        self._call = None

    def _drop_call(self) -> None:
        assert self._call is not None
        path, file = self._call.name, self._call.file
        self._call = None
        del file[path]

    def add_call(
        self,
        *,
        step: int,
        layer: int,
        q: np.ndarray,
        k: np.ndarray,
        v: Optional[np.ndarray] = None,
        heads: Optional[Sequence[int]] = None,
        out: Optional[np.ndarray] = None,
        lse: Optional[np.ndarray] = None,
        **more: Any,
    ) -> None:
        """Writes one attention call. q [heads, rows, D]; k, v [heads or K/V heads, tokens, D]; out [heads, rows, Dv];
        lse [heads, rows], natural log. heads: ids, 0, 1, ... if None. Further arguments as in begin_call()."""
        q, k = np.asarray(q), np.asarray(k)
        v = None if v is None else np.asarray(v)
        for name, array in (("q", q), ("k", k), ("v", v), ("out", out)):
            if array is not None and np.ndim(array) != 3:
                raise TraceError(f"{name} has shape {list(np.shape(array))}, expected [heads, tokens, channels]")
        if k.shape[2] != q.shape[2] or (v is not None and v.shape[:2] != k.shape[:2]):
            raise TraceError(f"q {list(q.shape)}, k {list(k.shape)}, v {None if v is None else list(v.shape)} do not fit")
        heads = list(range(len(q))) if heads is None else list(heads)
        if len(heads) != len(q):
            raise TraceError(f"q has {len(q)} heads, 'heads' lists {len(heads)}")
        arrays = [a for a in (q, k, v, out) if a is not None]
        dtype = storage_type(self.dtype, arrays)
        if dtype != self.dtype and all(a.dtype != np.uint16 for a in arrays):
            self.warnings.append(f"step {step}, layer {layer}: values beyond float16, stored as bfloat16")
        self.begin_call(
            step=step, layer=layer, heads=heads, n_q=q.shape[1], n_k=k.shape[1], head_dim=q.shape[2],
            value_dim=0 if v is None else v.shape[2], kv_heads=len(k), dtype=dtype, out=out is not None,
            lse=lse is not None, **more,
        )  # fmt: skip
        try:
            for name, array in (("q", q), ("k", k), ("v", v), ("out", out), ("lse", lse)):
                if array is not None:
                    self.put(name, 0, array)
            self.end_call()
        except BaseException:
            if self._call is not None:
                self._drop_call()
            raise


def glob_escape(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def check_rows(rows: np.ndarray, n_tokens: int) -> np.ndarray:
    """Rows as int64, or TraceError where they do not increase strictly or leave [0, n_tokens)."""
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise TraceError("q_rows is a list of token numbers, not empty")
    rows = rows.astype("<i8")
    if rows[0] < 0 or rows[-1] >= n_tokens or np.any(np.diff(rows) <= 0):
        raise TraceError(f"q_rows must increase strictly within 0 .. {n_tokens - 1}")
    return rows


def storage_type(wanted: str, arrays: Sequence[np.ndarray]) -> str:
    """The type that holds all arrays of a call: bfloat16 where one holds its bits or float16 would overflow."""
    if any(a.dtype == np.uint16 for a in arrays):
        return "bfloat16"
    if wanted == "float16" and any(a.dtype != np.float16 and a.size and np.abs(a).max() > FLOAT16_MAX for a in arrays):
        return "bfloat16"
    return wanted


def convert(array: np.ndarray, dtype: str, name: str) -> Tuple[np.ndarray, float]:
    """The array in storage type and its largest absolute value; TraceError for NaN, infinities and overflow."""
    array = np.asarray(array)
    stored: Optional[np.ndarray] = None
    if array.dtype == np.uint16:
        values = from_bfloat16(array)
        if dtype == "bfloat16":
            stored = np.ascontiguousarray(array, dtype="<u2")
        else:
            stored = values.astype("<f2" if dtype == "float16" else "<f4")
    elif not np.issubdtype(array.dtype, np.floating):
        raise TraceError(f"{name} is {array.dtype}; give float16, float32 or bfloat16 bits as uint16")
    else:
        values = array
        if dtype == "bfloat16":
            stored = to_bfloat16(array)
    absmax = float(max(values.max(), -values.min())) if values.size else 0.0
    if not np.isfinite(absmax):
        raise TraceError(f"{name} holds NaN or infinite values")
    if dtype == "float16" and absmax > FLOAT16_MAX:
        raise TraceError(f"{name} reaches {absmax:.6g}, float16 ends at 65504; store bfloat16 or float32")
    if stored is None:
        stored = np.ascontiguousarray(array, dtype="<f2" if dtype == "float16" else "<f4")
    return stored, absmax


def put_attributes(group: h5py.Group, values: Mapping[str, Any], datasets: Sequence[str]) -> None:
    """Attributes of plain values (None: left out), and datasets for the names in ``datasets``."""
    for name, value in values.items():
        if value is None:
            continue
        if name in datasets:
            if isinstance(value, str):
                group.create_dataset(name, data=value, dtype=h5py.string_dtype())
            else:
                group[name] = np.asarray(value, dtype="<f8")
        elif isinstance(value, str):
            raw = value.encode()
            group.attrs[name] = value if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore")
        elif isinstance(value, (bool, np.bool_)):
            group.attrs[name] = np.uint8(value)
        elif isinstance(value, (int, np.integer)):
            group.attrs[name] = np.int64(value)
        elif isinstance(value, (float, np.floating)):
            group.attrs[name] = float(value)
        else:
            group.attrs[name] = np.asarray(value, dtype="<i4")
