# SPDX-License-Identifier: Apache-2.0
"""Command line: load a diffusers pipeline, generate one video, capture its attention.

python -m sparsight_capture --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --prompt "a cat" --out cat.h5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from .core import __version__, capture
from .guard import CaptureError
from .select import PRESETS
from .tiny import FAMILIES, tiny


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sparsight_capture",
        description="Generates one video with a diffusers pipeline and captures its attention into a Sparsight trace.",
        epilog="Lists are '0,7,15', '0-4', 'all', 'middle', 'every:N', 'first:N', 'last:N', 'spread:N' or 'ends:N'.",
    )
    p.add_argument("--version", action="version", version=f"sparsight-capture {__version__}")
    tiny_names = ",".join(FAMILIES)
    p.add_argument(
        "--model",
        required=True,
        help=f"repository or folder of a diffusers pipeline, or tiny:{{{tiny_names}}}: random weights, nothing to download",
    )
    p.add_argument("--prompt", required=True)
    p.add_argument("--negative-prompt", default=None)
    p.add_argument("--out", required=True, help="the trace to write (.h5)")

    what = p.add_argument_group("what is captured")
    what.add_argument(
        "--preset",
        choices=list(PRESETS),
        help="survey (default): 4 steps x 5 layers; layer: one layer, every 5th step; tuning: 4 steps, every layer, 1/16 of "
        "the query rows",
    )
    what.add_argument("--steps", help="denoising steps, 0-based")
    what.add_argument("--layers")
    what.add_argument("--heads")
    what.add_argument("--rows", help="query rows: all, blocks:N[:SIZE] (1/N of them in runs of SIZE), stride:N")
    what.add_argument("--branches", default="cond", help="guidance branches: cond (default), uncond, all")
    what.add_argument("--cross", action="store_true", help="cross-attention too")
    what.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    what.add_argument("--no-values", action="store_true", help="leave V out; methods that need it will say so")
    what.add_argument("--check-data", action="store_true", help="store attention's output and row lse, for check --deep")
    what.add_argument("--anonymise", action="store_true", help="no prompt, seed, model name or preview frames in the file")

    file = p.add_argument_group("the file")
    file.add_argument(
        "--compression", type=int, default=0, metavar="0-9", help="gzip level; smaller by 15-30 %%, ten times slower"
    )
    file.add_argument("--split", choices=["auto", "step", "none"], default="auto")
    file.add_argument("--max-gib", type=float, default=0, help="refuse larger captures")
    file.add_argument("--overwrite", action="store_true")

    run = p.add_argument_group("the run (what is not given is the pipeline's own default)")
    run.add_argument("--height", type=int)
    run.add_argument("--width", type=int)
    run.add_argument("--frames", type=int, dest="num_frames")
    run.add_argument("--num-steps", type=int, dest="num_inference_steps")
    run.add_argument("--guidance", type=float, dest="guidance_scale")
    run.add_argument("--fps", type=float, default=0)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--torch-dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    run.add_argument("--device", help="cuda where there is one, else cpu")
    run.add_argument("--offload", choices=["none", "model", "sequential"], default="none", help="keep weights in main memory")
    run.add_argument("--video", help="also write the video here (.mp4)")
    return p


def load(a: argparse.Namespace) -> Tuple[Any, Dict[str, Any]]:
    """The pipeline, and the arguments of its call."""
    import torch

    if a.model.startswith("tiny:"):
        pipe, call = tiny(a.model[len("tiny:") :], a.prompt, a.negative_prompt or "", a.seed)
    else:
        from diffusers import DiffusionPipeline

        device = a.device or ("cuda" if torch.cuda.is_available() else "cpu")
        pipe = DiffusionPipeline.from_pretrained(a.model, torch_dtype=getattr(torch, a.torch_dtype))
        if a.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif a.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            pipe.to(device)
        call = {"prompt": a.prompt, "generator": torch.Generator("cpu").manual_seed(a.seed)}
        if a.negative_prompt is not None:
            call["negative_prompt"] = a.negative_prompt
    for name in ("height", "width", "num_frames", "num_inference_steps", "guidance_scale"):
        if getattr(a, name) is not None:
            call[name] = getattr(a, name)
    return pipe, call


def main(argv: Optional[List[str]] = None) -> int:
    """0: captured; 1: the capture failed, and why stands on stderr; 2: wrong arguments."""
    a = parser().parse_args(argv)
    try:
        if Path(a.out).exists() and not a.overwrite:  # before the weights are loaded
            raise FileExistsError(f"'{a.out}' exists; choose another name or pass --overwrite")
        pipe, call = load(a)
        run: Dict[str, Any] = {"prompt": a.prompt, "negative_prompt": a.negative_prompt, "seed": a.seed}
        with capture(
            pipe, a.out, preset=a.preset, steps=a.steps, layers=a.layers, heads=a.heads, rows=a.rows,
            branches=a.branches if a.branches in ("cond", "uncond", "all") else a.branches.split(","),
            kinds=("self", "joint", "cross") if a.cross else ("self", "joint"), dtype=a.dtype, values=not a.no_values,
            out=a.check_data and not a.no_values, lse=a.check_data, fps=a.fps, anonymise=a.anonymise, compression=a.compression,
            split=a.split, max_bytes=int(a.max_gib * 2**30), overwrite=a.overwrite, run=run,
        ):  # fmt: skip
            result = pipe(**call)
        if a.video and getattr(result, "frames", None) is not None:
            from diffusers.utils import export_to_video

            export_to_video(result.frames[0], a.video, fps=int(a.fps or 16))
    except (CaptureError, OSError, ValueError) as error:
        print(f"sparsight_capture: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
