# SPDX-License-Identifier: Apache-2.0
"""The capture itself: which call is which, and its tensors on their way to the writer.

Nothing of torch or diffusers is patched: a TorchFunctionMode sees scaled_dot_product_attention, module hooks name the
caller, and both end with the context. On the pipeline's own objects two methods are wrapped for the duration
(``transformer.cache_context`` to learn the guidance branch, ``video_processor.postprocess_video`` for preview frames).
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from sparsight_trace import DTYPES, FLOAT16_MAX, ITEM_BYTES, Layout, Segment, TraceWriter
from torch.overrides import TorchFunctionMode

from .families import (
    UNKNOWN,
    Family,
    Grid,
    Site,
    config_of,
    family_of,
    forward_arguments,
    grid_of,
    model_facts,
    sites_of,
    vae_stride,
)
from .guard import CaptureError, Estimate, estimate, obstacles, size_text
from .pipeline import native_attention, number_of, pipeline_locals, replaced, schedule_of, text_of
from .select import Rows, Selection, indices, with_preset
from .sink import Sink
from .tensors import columns_of, preview, row_lse

__version__ = "1.0"

SELF_KINDS = ("self", "joint")
PIECE_BYTES = 128 << 20  # of one copy from the device
MAX_DENSE_MASK = 256 << 20
_SDPA = F.scaled_dot_product_attention
_NUMPY_TYPE = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

Branches = Union[str, Sequence[str]]


class _Mode(TorchFunctionMode):
    """Hands every scaled_dot_product_attention to the capture after it ran; everything else passes."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is _SDPA:
            self._capture._on_attention(args, kwargs or {}, result)
        return result


class _Model:
    """One transformer of the pipeline, and where its forward pass is."""

    def __init__(self, module: torch.nn.Module, component: str, family: Family) -> None:
        self.module, self.component, self.family = module, component, family
        self.sites = sites_of(module, family)
        self.config = config_of(module)
        self.facts = model_facts(module, family, self.sites)
        self.stack: List[str] = []
        self.layers: Set[int] = set()  # chosen
        self.context: Optional[str] = None  # name given to cache_context

    def layer_count(self) -> int:
        return int(self.facts["num_layers"])


class Capture:
    """A capture under way; made by capture() and capture_module().

    path: of the trace. report: after the end, what was captured (dict). estimate: after the first forward call.
    """

    def __init__(
        self,
        models: Sequence[_Model],
        path: Union[str, Path],
        *,
        pipe: Any,
        steps: Selection,
        layers: Selection,
        heads: Selection,
        rows: Rows,
        branches: Branches,
        kinds: Sequence[str],
        dtype: str,
        values: bool,
        out: bool,
        lse: bool,
        sample: int,
        grid: Optional[Sequence[int]],
        text_first: Optional[bool],
        frames: bool,
        fps: float,
        anonymise: bool,
        compression: int,
        split: str,
        queue_bytes: int,
        max_bytes: int,
        overwrite: bool,
        run: Optional[Mapping[str, Any]],
        quiet: bool,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype '{dtype}' is unknown; one of {', '.join(DTYPES)}")
        if out and not values:
            raise ValueError("out needs values=True")
        for what, spec in (("steps", steps), ("layers", layers), ("heads", heads)):
            if isinstance(spec, str):  # a typing error shows here, not after the text was encoded
                indices(spec, 4096, what)
        self.path = Path(path)
        self.report: Dict[str, Any] = {}
        self.estimate: Optional[Estimate] = None
        self.warnings: List[str] = []
        self._models = list(models)
        self._pipe = pipe
        self._steps_spec, self._layers_spec, self._heads_spec, self._rows = steps, layers, heads, rows
        self._branches = {branches} if isinstance(branches, str) else set(branches)
        self._kinds = set(kinds)
        self._dtype, self._values, self._out, self._lse = dtype, values, out, lse
        self._sample = sample
        self._grid_given: Optional[Grid] = None if grid is None else (int(grid[0]), int(grid[1]), int(grid[2]))
        self._text_first = text_first
        self._want_frames = frames and not anonymise
        self._fps = fps
        self._anonymise = anonymise
        self._compression, self._split, self._overwrite = compression, split, overwrite
        self._queue_bytes, self._max_bytes = queue_bytes, max_bytes
        self._run_given = dict(run or {})
        self._quiet = quiet

        self._stack = contextlib.ExitStack()
        self._active: Optional[_Model] = None  # its forward pass is to be captured
        self._grid: Optional[Grid] = None
        self._samples: Dict[str, int] = {}  # branch -> batch element of the current forward pass
        self._counts: Dict[Tuple[str, ...], int] = {}
        self._masks: Dict[int, Tuple[torch.Tensor, Any]] = {}
        self._rows_of: Dict[int, Optional[np.ndarray]] = {}
        self._step = -1
        self._clock: Optional[float] = None
        self._first_clock: Optional[float] = None
        self._pass_in_step = 0
        self._orders: Set[int] = set()  # of this step's passes, where only their text tells the branch
        self._embeddings: List[Tuple[float, ...]] = []
        self._steps: Set[int] = set()
        self._schedule: List[float] = []
        self._run: Dict[str, Any] = {}
        self._videos = 0  # of the run; 0: not known
        self._guided = False
        self._seen_branches: Set[str] = set()
        self._written: Set[Tuple[int, str, int, str, int]] = set()
        self._lengths: Set[int] = set()  # query tokens of an unknown model's calls
        self._seen_calls = 0  # of SDPA inside a model, wanted or not
        self._forwards = 0
        self._second_run = False
        self._writer: Optional[TraceWriter] = None
        self._sink: Optional[Sink] = None
        self._frames: Optional[np.ndarray] = None
        self._components: Dict[int, _Model] = {}  # which transformer ran at a captured step

    # --- begin and end ------------------------------------------------------------------------------------------------
    def __enter__(self) -> Capture:
        problems = [p for m in self._models for p in obstacles(m.module, m.component if self._pipe is not None else "model")]
        if _SDPA is not F.scaled_dot_product_attention:
            problems.append("torch.nn.functional.scaled_dot_product_attention was replaced after this package was imported")
        if not isinstance(_SDPA, type(len)):
            problems.append("another package replaced torch's scaled_dot_product_attention; start without it")
        if problems:
            raise CaptureError("this cannot be captured: " + "; ".join(problems))
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"the folder '{self.path.parent}' does not exist")
        if self.path.exists() and not self._overwrite:
            raise FileExistsError(f"'{self.path}' exists; choose another name or overwrite=True (--overwrite)")
        with contextlib.ExitStack() as stack:
            for model in self._models:
                self._hook(stack, model)
            stack.enter_context(native_attention([m.module for m in self._models]))
            if self._want_frames:
                self._hook_frames(stack)
            stack.enter_context(_Mode(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._active = None
        self._stack.close()
        failed = value is not None
        try:
            if self._sink is not None:
                self._sink.close()
            if failed:
                self._finish(complete=False)
                return
        except Exception as error:
            with contextlib.suppress(Exception):  # what the disk still takes
                self._finish(complete=False)
            if not failed:
                raise error if isinstance(error, CaptureError) else CaptureError(f"'{self.path}': {error}") from error
            return
        if not self._written:
            if self._writer is not None:
                self._writer.discard()
            raise CaptureError(self._why_nothing())
        missing = self._missing()
        if missing:
            self._warn(f"{len(missing)} of the chosen calls never came (first: {missing[0]}); the trace is marked incomplete")
        self._finish(complete=not missing)

    def _finish(self, complete: bool) -> None:
        """Closes the file and fills the report. What the writer thread could not write is not kept."""
        if self._writer is None:
            return
        writer = self._writer
        writer.run.update(self._guidance())
        if self._fps and not writer.run.get("fps"):
            writer.run["fps"] = self._fps
        if self._frames is not None:
            writer.set_frames(self._frames, float(self._run.get("fps") or self._fps))
        writer.close(complete=complete)
        self.warnings.extend(writer.warnings)
        self.report = {
            "path": str(self.path),
            "complete": complete,
            "calls": len(writer.calls),
            "steps": sorted({c[0] for c in writer.calls}),
            "branches": sorted({c[1] for c in writer.calls}),
            "layers": sorted({c[2] for c in writer.calls}),
            "grid": list(self._grid or ()),
            "bytes": writer.bytes_written,
            "warnings": list(self.warnings),
        }
        self._say(f"{self.path}: {len(writer.calls)} attention calls, {size_text(writer.bytes_written)}"
                  + ("" if complete else ", not complete"))  # fmt: skip

    def _missing(self) -> List[str]:
        found = {(step, branch, layer) for step, branch, layer, _, _ in self._written}
        wanted_branches = {b for b in self._seen_branches if self._wants_branch(b)}
        steps = self._steps if self._pipe is not None else self._steps.intersection(range(self._step + 1))
        return [
            f"step {step}, {branch}, layer {layer}"
            for step in sorted(steps)
            for branch in sorted(wanted_branches)
            for layer in sorted(self._components.get(step, self._models[0]).layers)
            if (step, branch, layer) not in found
        ]

    def _why_nothing(self) -> str:
        names = ", ".join(m.component for m in self._models)
        if not self._forwards and self._pipe is None:
            return "nothing was captured: the model never ran inside the context. Call it there, on the same thread"
        if not self._forwards:
            return (
                f"nothing was captured: {names} never ran inside the context. Run the pipeline inside it, on the same thread, "
                "and give the pipeline that runs"
            )
        if not any(self._wants_branch(b) for b in self._seen_branches):
            there, asked = sorted(self._seen_branches), sorted(self._branches)
            return f"nothing was captured: the run has the branches {there}, asked for {asked}"
        if self._step >= 0 and self._steps and max(range(self._step + 1), default=0) < min(self._steps):
            return f"nothing was captured: the run ended after step {self._step}, the first chosen one is {min(self._steps)}"
        if not self._seen_calls:
            return (
                f"nothing was captured: {names} ran {self._forwards} times without calling scaled_dot_product_attention from "
                "an attention module. An own attention kernel (flash-attn, xformers, sage, flex), a replaced processor or a "
                "compiled region hides the calls: use the model's plain processors and eager mode"
            )
        seen = f"; they had {sorted(self._lengths)} tokens, the grid {self._grid} {math.prod(self._grid or ())}"
        return (
            f"nothing was captured: none of the {self._seen_calls} attention calls of {names} is of kind "
            f"{sorted(self._kinds)} in the chosen layers" + (seen if self._lengths else "")
        )

    # --- hooks --------------------------------------------------------------------------------------------------------
    def _hook(self, stack: contextlib.ExitStack, model: _Model) -> None:
        module = model.module

        def push(name: str) -> Callable[..., None]:
            return lambda *_: model.stack.append(name)

        def pop(*_: Any) -> None:
            if model.stack:
                model.stack.pop()

        for name, sub in module.named_modules():
            if name in model.sites and name:
                stack.callback(sub.register_forward_pre_hook(push(name)).remove)
                stack.callback(sub.register_forward_hook(pop).remove)
        before = module.register_forward_pre_hook(lambda m, a, k: self._before_forward(model, a, k), with_kwargs=True)
        stack.callback(before.remove)
        stack.callback(module.register_forward_hook(lambda *_: self._after_forward(model)).remove)
        if hasattr(type(module), "cache_context"):
            original: Any = module.cache_context

            @contextlib.contextmanager
            def named_context(*args: Any, **kwargs: Any) -> Any:  # newer versions pass more than the name
                name = args[0] if args else kwargs.get("name")
                model.context = name if isinstance(name, str) else None
                try:
                    with original(*args, **kwargs) as value:
                        yield value
                finally:
                    model.context = None

            stack.enter_context(replaced(module, "cache_context", named_context))

    def _hook_frames(self, stack: contextlib.ExitStack) -> None:
        processor = getattr(self._pipe, "video_processor", None)
        if processor is None or not hasattr(processor, "postprocess_video"):
            return
        original = processor.postprocess_video

        def postprocess_video(*args: Any, **kwargs: Any) -> Any:
            video = kwargs.get("video", args[0] if args else None)
            if self._frames is None and isinstance(video, torch.Tensor) and video.dim() == 5:
                self._frames = preview(video[min(self._sample, len(video) - 1)] / 2 + 0.5)
            return original(*args, **kwargs)

        stack.enter_context(replaced(processor, "postprocess_video", postprocess_video))

    def add_frames(self, video: Any, fps: float = 0.0) -> None:
        """Preview frames of the decoded video, when the pipeline does not show them by itself: a list of images, an array
        [F, h, w, 3] (uint8, or float in 0 .. 1) or a tensor [3, F, h, w]. To be called inside the context."""
        if isinstance(video, torch.Tensor):
            self._frames = preview(video)
        else:
            stacked = np.stack([np.asarray(image) for image in video])
            scaled = stacked.astype("f4") / (255 if stacked.dtype == np.uint8 else 1)
            self._frames = preview(torch.from_numpy(scaled).permute(3, 0, 1, 2))
        self._fps = fps or self._fps

    # --- one forward pass of a transformer ----------------------------------------------------------------------------
    def _before_forward(self, model: _Model, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._active = None
        model.stack.clear()
        self._counts.clear()
        self._masks.clear()
        self._forwards += 1
        arguments = forward_arguments(model.module, args, kwargs)
        new_step = self._tick(arguments)
        if new_step:
            self._end_step()
            self._pass_in_step = 0
            self._orders.clear()
            if self._step == 0:
                self._plan(model, arguments)
        self._samples = self._branches_of(model, arguments)
        self._pass_in_step += 1
        self._seen_branches.update(self._samples)
        if self._second_run or self._step not in self._steps:
            return
        self._components[self._step] = model
        if any(self._wants_branch(b) for b in self._samples):
            grid = self._grid_given or grid_of(model.family, model.config, arguments)
            if grid is None:
                raise CaptureError(
                    f"the token grid of {type(model.module).__name__} does not show: pass grid=(T, H, W) in tokens"
                )
            if self._grid is not None and grid != self._grid:
                raise CaptureError(f"the grid changed from {self._grid} to {grid} within the run; a trace holds one video")
            self._grid = grid
            self._active = model

    def _after_forward(self, model: _Model) -> None:
        self._active = None
        self._masks.clear()

    def _tick(self, arguments: Mapping[str, Any]) -> bool:
        """Counts the denoising step; True when this forward pass is the first of a new one."""
        if self._pipe is None:
            self._step += 1
            return True
        clock = getattr(self._pipe, "_current_timestep", None)
        if clock is None:  # pipelines without it: what the model is told, which may be rounded
            clock = arguments.get("timestep")
        value = float(clock.flatten()[0]) if isinstance(clock, torch.Tensor) else float(clock if clock is not None else 0)
        if value == self._clock:
            return False
        if self._step > 0 and value == self._first_clock and not self._second_run:
            self._second_run = True
            self._warn("the pipeline ran again inside the context; only its first run is captured")
        self._clock = value
        if self._second_run:
            return False
        if self._step < 0:
            self._first_clock = value
        self._step += 1
        return True

    def _branches_of(self, model: _Model, arguments: Mapping[str, Any]) -> Dict[str, int]:
        """Guidance branches of this forward pass, and the batch element of each."""
        hidden = arguments.get("hidden_states")
        batch = int(hidden.shape[0]) if isinstance(hidden, torch.Tensor) and hidden.dim() > 2 else 1
        name = (model.context or "").replace("pred_", "", 1)
        # The videos under way tell whether this batch is one branch of them or several, one behind the other.
        videos = self._videos or (batch // 2 if model.family.batched and self._guided and batch % 2 == 0 else batch)
        sample = min(self._sample, videos - 1)
        if batch > videos and batch % videos == 0:
            names = ["uncond", "cond", *(f"pass_{i}" for i in range(2, batch // videos))]
            return {names[i]: i * videos + sample for i in range(batch // videos)}
        if name and name != "cond_uncond":
            return {name: sample}
        return {self._branch_by_order(arguments): sample}

    def _branch_by_order(self, arguments: Mapping[str, Any]) -> str:
        """Conditional first, in every pipeline known to call twice; later steps are recognised by their text."""
        text = arguments.get("encoder_hidden_states")
        order = self._pass_in_step
        if isinstance(text, torch.Tensor) and text.numel():
            flat = text.detach().float()
            mark = (float(text.shape[1]) if text.dim() > 1 else 0.0, float(flat.mean()), float(flat.std(unbiased=False)))
            if mark in self._embeddings and self._embeddings.index(mark) not in self._orders:
                order = self._embeddings.index(mark)
            elif self._step == 0:
                self._embeddings.append(mark)
                order = len(self._embeddings) - 1
        self._orders.add(order)
        return ("cond", "uncond")[order] if order < 2 else f"pass_{order}"

    def _wants_branch(self, branch: str) -> bool:
        return "all" in self._branches or branch in self._branches

    # --- the plan, known with the first forward pass ------------------------------------------------------------------
    def _plan(self, model: _Model, arguments: Mapping[str, Any]) -> None:
        called = pipeline_locals(self._pipe) if self._pipe is not None else {}
        latents = called.get("latents")
        self._videos = int(latents.shape[0]) if isinstance(latents, torch.Tensor) else 0
        guided = called.get("do_classifier_free_guidance", getattr(self._pipe, "do_classifier_free_guidance", False))
        self._guided = bool(guided) or getattr(getattr(self._pipe, "guider", None), "num_conditions", 1) > 1
        self._schedule = schedule_of(self._pipe, called)
        self._run = self._run_facts(called)
        total = len(self._schedule) or 1
        if self._pipe is None:  # an open number of forward calls
            self._steps = set(indices(self._steps_spec, 1 << 16, "steps")) if self._steps_spec != "all" else set(range(1 << 16))
        else:
            self._steps = set(indices(self._steps_spec, total, "steps"))
        for m in self._models:
            if m.layer_count() == 0:
                raise CaptureError(f"{type(m.module).__name__} has no attention module that this package finds")
            m.layers = set(indices(self._layers_spec, m.layer_count(), "layers"))
        self._estimate(model, arguments)

    def _estimate(self, model: _Model, arguments: Mapping[str, Any]) -> None:
        grid = self._grid_given or grid_of(model.family, model.config, arguments)
        heads, dim = int(model.facts["num_heads"]), int(model.facts["head_dim"])
        if grid is None or not heads or not dim or self._pipe is None:
            return  # an unknown model: nothing to reckon with before its first attention call
        texts = [arguments.get(n) for n in ("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")]
        text_len = sum(int(t.shape[1]) for t in texts if isinstance(t, torch.Tensor) and t.dim() == 3)
        layout = Layout.of_video(grid, text_len if model.family.text != "none" else 0)
        rows = self._rows.of(layout)
        n_q = layout.n_tokens if rows is None else len(rows)
        chosen = len(indices(self._heads_spec, heads, "heads"))
        values = layout.n_tokens * (2 if self._values else 1)
        per_call = chosen * (n_q + values + (n_q if self._out else 0)) * dim * ITEM_BYTES[self._dtype]
        branches = 2 if self._guided and ("all" in self._branches or len(self._branches) > 1) else 1
        calls = len(self._steps) * len(model.layers) * branches
        self.estimate = estimate(self.path.parent, calls, per_call, self._compression)
        self._say(f"{self.path}: {self.estimate}")
        self.estimate.check(self.path.parent, self._max_bytes)

    def _run_facts(self, called: Mapping[str, Any]) -> Dict[str, Any]:
        """Attributes of /run, read off the pipeline's call; what the caller stated wins."""
        pipe = self._pipe
        if pipe is None:
            return {"guidance_mode": "none", **self._run_given}
        generator = called.get("generator")
        generator = generator[0] if isinstance(generator, (list, tuple)) and generator else generator
        scheduler: Any = getattr(pipe, "scheduler", None)
        facts: Dict[str, Any] = {
            "pipeline_class": type(pipe).__name__,
            "prompt": text_of(called.get("prompt")),
            "negative_prompt": text_of(called.get("negative_prompt")),
            "seed": int(generator.initial_seed()) if isinstance(generator, torch.Generator) else None,
            "num_inference_steps": len(self._schedule),
            "guidance_scale": number_of(called.get("guidance_scale")),
            "scheduler": type(scheduler).__name__ if scheduler is not None else "",
            "compute_dtype": str(getattr(self._models[0].module, "dtype", "")).replace("torch.", ""),
            "attention_backend": "native",
            "timesteps": self._schedule or None,
            "fps": self._fps or number_of(called.get("frame_rate")) or number_of(called.get("fps")),
        }
        for name in ("height", "width", "num_frames"):
            value = called.get(name)
            facts[name] = int(value) if isinstance(value, (int, float)) else None
        sigmas = getattr(scheduler, "sigmas", None)
        if isinstance(sigmas, torch.Tensor) and len(sigmas) >= len(self._schedule) == len(scheduler.timesteps):
            facts["sigmas"] = sigmas[: len(self._schedule)].double().cpu().numpy()
        facts.update(self._run_given)
        if self._anonymise:
            for name in ("prompt", "negative_prompt", "seed"):
                facts.pop(name, None)
        return facts

    def _guidance(self) -> Dict[str, str]:
        model = self._models[0]
        if {"cond", "uncond"} <= self._seen_branches:
            together = len(self._samples) > 1
            return {"guidance_mode": "batched" if together else "two_calls"}
        return {"guidance_mode": "embedded" if model.config.get("guidance_embeds") else "none"}

    # --- one attention call -------------------------------------------------------------------------------------------
    def _on_attention(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor) -> None:
        model = self._active
        if model is None:
            return
        name = model.stack[-1] if model.stack else ("" if "" in model.sites else None)
        if name is None:
            return
        self._seen_calls += 1
        site = model.sites[name]

        def argument(position: int, key: str, default: Any = None) -> Any:
            return kwargs[key] if key in kwargs else args[position] if len(args) > position else default

        q, k, v = argument(0, "query"), argument(1, "key"), argument(2, "value")
        site = self._named(model, site, q, k)
        if site.kind not in self._kinds or site.layer not in model.layers:
            return
        if q.dim() != 4:
            raise CaptureError(f"{name}: query has shape {list(q.shape)}, expected [batch, heads, tokens, channels]")
        expected = int(model.facts["num_heads"])
        if expected and site.kind in SELF_KINDS and q.shape[1] != expected:
            raise CaptureError(f"{name}: query has {q.shape[1]} heads, the configuration says {expected}")
        samples = self._samples
        if model.family.per_sample:  # one call per batch element, each with its own text
            index = self._count(("sample", name))
            samples = {b: i for b, i in self._samples.items() if i == index}
            q, k, v, result = (t[:1] for t in (q, k, v, result))
        number = 0 if model.family.per_sample else self._count((str(site.layer), site.kind))
        for branch, index in samples.items():
            if self._wants_branch(branch):
                element = 0 if q.shape[0] == 1 else index
                one = (q[element], k[element], v[element], result[element])
                self._capture_one(model, site, branch, number, element, one, argument)

    def _count(self, key: Tuple[str, ...]) -> int:
        number = self._counts.get(key, 0)
        self._counts[key] = number + 1
        return number

    def _named(self, model: _Model, site: Site, q: torch.Tensor, k: torch.Tensor) -> Site:
        """Of unknown models: the kind that the shapes tell; "other" for self-attention over fewer tokens than the video's."""
        if site.kind:
            return site
        video, n_q, n_k = math.prod(self._grid or ()), q.shape[-2], k.shape[-2]
        self._lengths.add(n_q)
        kind = "cross" if n_q != n_k else "other" if n_q < video else "self" if n_q == video else "joint"
        return Site(site.module, site.layer, kind)

    def _layout(self, model: _Model, site: Site, n_tokens: int) -> Layout:
        """Where text and video lie in a call of n_tokens."""
        assert self._grid is not None
        extra = n_tokens - math.prod(self._grid)
        if extra < 0:
            raise CaptureError(
                f"{site.module} has {n_tokens} tokens, fewer than the {self._grid} grid's {math.prod(self._grid)}: pass the "
                "right grid=(T, H, W)"
            )
        if site.kind == "joint" or extra == 0:
            first = self._text_first if self._text_first is not None else model.family.text == "first"
            return Layout.of_video(self._grid, extra, text_first=first)
        self._warn(f"{site.module}: {extra} tokens beside the {self._grid} grid; taken as conditioning before the video")
        video = Layout.of_video(self._grid).segments
        return Layout((Segment("other", extra), *video))

    def _capture_one(
        self,
        model: _Model,
        site: Site,
        branch: str,
        number: int,
        element: int,
        tensors: Tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
        argument: Callable[..., Any],
    ) -> None:
        """tensors: q [H, Nq, D], k and v [Hkv, Nk, D], result [H, Nq, Dv] of one guidance branch."""
        key = (self._step, branch, site.layer, site.kind, number)
        if key in self._written:
            self._warn(f"step {self._step}, {branch}: the model ran more than once at this step; the first pass is kept")
            return
        q, k, v, result = (t.detach() for t in tensors)
        self_like = site.kind in SELF_KINDS
        layout = self._layout(model, site, k.shape[1]) if self_like else None
        if self._writer is None:
            self._open(model, q, layout or Layout.of_video(self._grid or (1, 1, 1)))
        writer, sink = self._writer, self._sink
        assert writer is not None and sink is not None
        rows = self._rows_for(layout) if layout is not None else None
        heads = indices(self._heads_spec, q.shape[0], "heads")
        scale = argument(6, "scale")
        mask = argument(3, "attn_mask")
        causal = bool(argument(5, "is_causal", False))
        valid, dense = self._mask(mask, causal, element, q.shape[1], k.shape[1], rows, self_like)
        if rows is not None:
            index = torch.from_numpy(rows).to(q.device)
            q, result = q.index_select(1, index), result.index_select(1, index)
        groups = q.shape[0] // k.shape[0]
        all_heads = len(heads) == q.shape[0]
        kv_heads = list(range(k.shape[0])) if all_heads else [h // groups for h in heads]
        ends = [(q, heads), (k, kv_heads)] + ([(v, kv_heads)] if self._values else [])
        absmax = self._absmax(site, [t if all_heads else t[list(h)] for t, h in ends])
        stored = "bfloat16" if self._dtype == "float16" and max(absmax) > FLOAT16_MAX else self._dtype
        if stored != self._dtype:
            self._warn(f"{site.module}: values up to {max(absmax):.4g} exceed float16, stored as bfloat16")
        arguments: Dict[str, Any] = dict(
            step=self._step, layer=site.layer, heads=heads, n_q=q.shape[1], n_k=k.shape[1], head_dim=q.shape[2],
            value_dim=v.shape[2] if self._values else 0, kv_heads=len(kv_heads), branch=branch, kind=site.kind, call=number,
            component=model.component, module=site.module, scale=q.shape[2] ** -0.5 if scale is None else float(scale),
            sigma=self._sigma(), dtype=stored, layout=layout, q_rows=rows if layout is not None else None,
            key_valid=valid, mask=dense, out=self._out, lse=self._lse,
        )  # fmt: skip
        sink.submit(lambda: writer.begin_call(**arguments))
        self._send("q", q, heads, stored, absmax[0])
        self._send("k", k, kv_heads, stored, absmax[1])
        if self._values:
            self._send("v", v, kv_heads, stored, absmax[2])
        if self._out:
            self._send("out", result, heads, stored, 0.0)
        if self._lse:
            weights = row_lse(q, k, heads, groups, arguments["scale"], valid, dense)
            sink.submit(lambda: writer.put("lse", 0, weights))
        sink.submit(writer.end_call)
        self._written.add(key)

    def _send(self, name: str, tensor: torch.Tensor, heads: Sequence[int], dtype: str, absmax: float) -> None:
        """Chosen heads of [H, N, D] to the writer, in pieces; returns once they have left the tensor."""
        writer, sink = self._writer, self._sink
        assert writer is not None and sink is not None
        target = _NUMPY_TYPE[dtype]
        per_head = tensor.shape[1] * tensor.shape[2] * ITEM_BYTES[dtype]
        step = max(1, PIECE_BYTES // per_head)
        for at in range(0, len(heads), step):
            # Indexing copies: whatever the model writes in place afterwards does not reach the file.
            part = tensor[list(heads[at : at + step])].to(target).contiguous()
            size = part.numel() * part.element_size()
            sink.reserve(size)
            event: Optional[torch.cuda.Event] = None
            if part.is_cuda:
                host = torch.empty(part.shape, dtype=target, pin_memory=True)
                host.copy_(part, non_blocking=True)
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(part.device))
            else:
                host = part.cpu()

            def write(host: torch.Tensor = host, event: Any = event, at: int = at) -> None:
                if event is not None:
                    event.synchronize()
                array = host.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else host.numpy()
                writer.put(name, at, array, absmax=absmax)

            sink.submit(write, size)

    def _absmax(self, site: Site, tensors: Sequence[torch.Tensor]) -> List[float]:
        ends = [torch.stack(tuple(t.aminmax())).float() for t in tensors]
        values = torch.stack(ends).abs().amax(dim=1).tolist()
        if not all(math.isfinite(x) for x in values):
            raise CaptureError(f"step {self._step}, {site.module}: query, key or value holds NaN or infinite values")
        return [*values, 0.0][:3]

    def _rows_for(self, layout: Layout) -> Optional[np.ndarray]:
        if layout.n_tokens not in self._rows_of:
            self._rows_of[layout.n_tokens] = self._rows.of(layout)
        return self._rows_of[layout.n_tokens]

    def _mask(
        self, mask: Optional[torch.Tensor], causal: bool, element: int, n_q: int, n_k: int, rows: Any, self_like: bool
    ) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
        """key_valid [n_k] or a dense mask [rows, n_k], uint8; (None, None) where nothing is masked."""
        if causal:
            mask = torch.ones(n_q, n_k, dtype=torch.bool).tril()
        if mask is None:
            return None, None
        mask = mask.detach()
        while mask.dim() < 4:
            mask = mask.unsqueeze(0)
        one = mask[element if mask.shape[0] > 1 else 0]
        if one.shape[0] > 1 and not all(bool((one[0] == other).all()) for other in one[1:]):
            raise CaptureError("the attention mask differs between heads, which a trace cannot hold")
        plane = one[0]
        if plane.dtype != torch.bool:
            kept = plane > -1e4
            if bool((plane[kept] != 0).any()):
                raise CaptureError("the attention adds a bias to its scores, which a trace cannot hold")
            plane = kept
        plane = plane.expand(plane.shape[0], n_k)
        valid, by_keys = columns_of(plane, self_like)
        if by_keys:
            return (None if bool(valid.all()) else valid.to(torch.uint8).cpu().numpy()), None
        chosen = plane.expand(n_q, n_k) if rows is None else plane.expand(n_q, n_k)[torch.from_numpy(rows).to(plane.device)]
        if chosen.numel() > MAX_DENSE_MASK:
            raise CaptureError(
                f"a dense mask of {size_text(chosen.numel())} per call is too large for a trace: fewer query rows"
            )
        return None, chosen.to(torch.uint8).cpu().numpy()

    def _sigma(self) -> float:
        sigmas = self._run.get("sigmas")
        return float(sigmas[self._step]) if sigmas is not None and self._step < len(sigmas) else 0.0

    def _end_step(self) -> None:
        if self._sink is not None and self._writer is not None:
            self._sink.submit(self._writer.end_step)

    def _open(self, model: _Model, q: torch.Tensor, layout: Layout) -> None:
        facts = dict(model.facts)
        facts["num_heads"] = facts["num_heads"] or int(q.shape[0])
        facts["head_dim"] = int(q.shape[2])
        facts["num_kv_heads"] = facts["num_kv_heads"] or facts["num_heads"]
        if self._pipe is not None:
            facts["vae_stride"] = vae_stride(self._pipe)
            if model.family.name == "wan2.1" and (len(self._models) > 1 or facts["vae_stride"][1] == 16):
                facts["family"] = "wan2.2"
            name = str(getattr(self._pipe, "name_or_path", "") or getattr(self._pipe.config, "_name_or_path", "") or "")
            if name and not self._anonymise:
                facts["repo_id"] = Path(name).name if Path(name).exists() or Path(name).is_absolute() else name
            config = {n: x for n, x in model.config.items() if n != "_name_or_path"}
            facts["config_json"] = json.dumps(config, default=str)
        software = {"python": platform.python_version(), "torch": torch.__version__}
        if "diffusers" in sys.modules:
            software["diffusers"] = sys.modules["diffusers"].__version__
        rows = self._rows_for(layout)
        self._writer = TraceWriter(
            self.path, layout, model=facts, run=self._run, dtype=self._dtype, q_rows=rows, q_mode=self._rows.mode,
            q_info=self._rows.describe(), padded_frames_front=self._padded_front(model), compression=self._compression,
            split=self._split, overwrite=self._overwrite, writer=f"sparsight-capture {__version__}", software=software,
        )  # fmt: skip
        self._sink = Sink(self._queue_bytes)

    def _padded_front(self, model: _Model) -> int:
        """CogVideoX 1.5 fills an odd number of latent frames up at the front."""
        patch, frames = model.facts["patch_size"][0], self._run.get("num_frames")
        stride = 0 if self._pipe is None else vae_stride(self._pipe)[0]
        if model.family.name != "cogvideox" or patch < 2 or not stride or not frames:
            return 0
        return 1 if ((frames - 1) // stride + 1) % patch else 0

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self._say("warning: " + text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            print("sparsight_capture: " + text, file=sys.stderr, flush=True)


# --- what users call --------------------------------------------------------------------------------------------------
def capture(
    pipe: Any,
    path: Union[str, Path],
    *,
    preset: Optional[str] = None,
    steps: Optional[Selection] = None,
    layers: Optional[Selection] = None,
    heads: Optional[Selection] = None,
    rows: Union[str, Sequence[int], np.ndarray, None] = None,
    branches: Branches = "cond",
    kinds: Sequence[str] = SELF_KINDS,
    dtype: str = "float16",
    values: bool = True,
    out: bool = False,
    lse: bool = False,
    sample: int = 0,
    seed: int = 0,
    grid: Optional[Sequence[int]] = None,
    text_first: Optional[bool] = None,
    frames: bool = True,
    fps: float = 0.0,
    anonymise: bool = False,
    compression: int = 0,
    split: str = "auto",
    queue_bytes: int = 1 << 30,
    max_bytes: int = 0,
    overwrite: bool = False,
    run: Optional[Mapping[str, Any]] = None,
    quiet: bool = False,
) -> Capture:
    """Captures the attention of a diffusers pipeline's next run: ``with capture(pipe, "trace.h5") as c: pipe(...)``.

    preset: "survey" (default), "layer" or "tuning"; steps, layers, heads, rows override it (see select.py for the forms).
    branches: "cond" (default), "all", or names. kinds: of attention; "cross" is possible too.
    dtype: stored type; calls with values beyond float16 are stored as bfloat16, with a warning.
    values, out, lse: store V (methods need it), SDPA's result, the rows' log sum exp (both for checking).
    sample: element of the batch. seed: of rows="blocks:N". grid, text_first: only for models this package does not know.
    frames: preview frames of the result, at most 384 pixels wide; fps: of the video.
    anonymise: no prompt, seed, model name or preview frames in the file.
    compression: 0 or the gzip level. split: "auto", "step" or "none" (see TraceWriter).
    queue_bytes: memory between sampling and disk. max_bytes: refuse larger captures (0: the free disk decides).
    run: attributes of /run that the pipeline does not show.
    Raises CaptureError where the capture cannot be made, at the end also where nothing was captured.
    """
    chosen = with_preset(preset, steps=steps, layers=layers, heads=heads, rows=rows)
    found = [(n, getattr(pipe, n, None)) for n in ("transformer", "transformer_2")]
    models = [_Model(m, n, family_of(m)) for n, m in found if isinstance(m, torch.nn.Module)]
    if not models:
        raise CaptureError(f"{type(pipe).__name__} has no transformer; for another torch model use capture_module()")
    return Capture(
        models, path, pipe=pipe, steps=chosen[0], layers=chosen[1], heads=chosen[2], rows=Rows(chosen[3], seed),
        branches=branches, kinds=kinds, dtype=dtype, values=values, out=out, lse=lse, sample=sample, grid=grid,
        text_first=text_first, frames=frames, fps=fps, anonymise=anonymise, compression=compression, split=split,
        queue_bytes=queue_bytes, max_bytes=max_bytes, overwrite=overwrite, run=run, quiet=quiet,
    )  # fmt: skip


def capture_module(
    module: torch.nn.Module,
    path: Union[str, Path],
    grid: Sequence[int],
    *,
    text_first: bool = False,
    steps: Selection = "all",
    layers: Selection = "all",
    heads: Selection = "all",
    rows: Union[str, Sequence[int], np.ndarray] = "all",
    kinds: Sequence[str] = SELF_KINDS,
    dtype: str = "float16",
    values: bool = True,
    out: bool = False,
    lse: bool = False,
    sample: int = 0,
    seed: int = 0,
    compression: int = 0,
    split: str = "auto",
    queue_bytes: int = 1 << 30,
    overwrite: bool = False,
    run: Optional[Mapping[str, Any]] = None,
    quiet: bool = False,
) -> Capture:
    """Captures any torch model that calls scaled_dot_product_attention; every forward call of ``module`` is one step.

    grid: (T, H, W) of the video tokens; what a call has beyond them is text, before (text_first) or after the video.
    The layer of a call is the first number in its module's name. Further arguments as in capture().
    """
    model = _Model(module, "transformer", UNKNOWN)
    return Capture(
        [model], path, pipe=None, steps=steps, layers=layers, heads=heads, rows=Rows(rows, seed), branches="all", kinds=kinds,
        dtype=dtype, values=values, out=out, lse=lse, sample=sample, grid=grid, text_first=text_first, frames=False, fps=0.0,
        anonymise=False, compression=compression, split=split, queue_bytes=queue_bytes, max_bytes=0, overwrite=overwrite,
        run=run, quiet=quiet,
    )  # fmt: skip
