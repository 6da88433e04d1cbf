# SPDX-License-Identifier: Apache-2.0
"""Every family's tiny model from the pipeline to what a runtime loads, and old dumps of the same tensors back to a trace."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("diffusers", reason="diffusers is not installed")

from sparsight_capture.tiny import FAMILIES  # noqa: E402
from support import CLI, check_trace  # noqa: E402
from test_capture import calls_of, run  # noqa: E402

GUI = os.environ.get("SPARSIGHT_GUI", str(Path(CLI).parent / "sparsight"))


def tool(program: str, *arguments: Any) -> str:
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(map(str, arguments))}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_from_the_pipeline_to_a_runtime(tmp_path: Path, family: str):
    trace, profile, edited = tmp_path / "trace.h5", tmp_path / "p.json", tmp_path / "edited.json"
    run(trace, family, branches="cond" if family not in ("mochi",) else "all")
    check_trace(trace)
    info = json.loads(tool(CLI, "info", "--json", trace))
    assert info["captured"] and info["tokens"]["grid"]

    # Looked at: the workbench's own views, without a display.
    if Path(GUI).exists():
        for view in ("map", "grid", "frames"):
            picture = tmp_path / f"{view}.png"
            tool(GUI, "render", trace, "--view", view, "--out", picture, "--size", "640x480")
            assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 2000

    # Analysed: every head under a method, and the profile that it leads to.
    rows = json.loads(tool(CLI, "run", trace, "--method", "oracle_block", "--param", "kept=0.5", "--json", "--quiet"))["rows"]
    assert rows and all(0 < row["kept_fraction"] <= 1 and 0 < row["kept_mass"] <= 1 + 1e-6 for row in rows)
    tool(CLI, "profile", trace, "--out", profile, "--quiet")
    tool(CLI, "export", profile, "--to", "json", "--fill", "nearest", "--out", edited)

    # Edited: the last layer keeps half of what was measured.
    budget = json.loads(edited.read_text())
    for step in budget["values"]:
        step[-1] = [value / 2 for value in step[-1]]
    edited.write_text(json.dumps(budget))
    assert json.loads(tool(CLI, "info", "--json", edited))["holes"] == 0

    # Exported, and read again as it was.
    config = tmp_path / "run.json"
    tool(CLI, "export", edited, "--to", "sparsevideo", "--param", "method=svg2", "--out", config)
    assert json.loads(config.read_text())["num_inference_steps"] == budget["steps"]
    back = tmp_path / "back.json"
    tool(CLI, "convert", config, back)
    assert json.loads(back.read_text())["values"] == budget["values"]


@pytest.mark.parametrize("family", ["wan", "cogvideox", "hunyuanvideo"])
def test_the_same_tensors_as_a_dump_become_the_same_trace(tmp_path: Path, family: str):
    if not Path(CLI).exists():
        pytest.skip(f"{CLI} is not built (./dev build)")
    trace, dump, again = tmp_path / "trace.h5", tmp_path / "dump", tmp_path / "again.h5"
    run(trace, family, branches="cond")
    calls = {key: call for key, call in calls_of(trace).items() if key[3] in ("self", "joint")}
    for (step, _, layer, _), call in calls.items():
        folder = dump / f"step{step}"
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: torch.from_numpy(call[name])[None].transpose(1, 2).contiguous().transpose(1, 2) for name in "qkv"}
        torch.save(tensors, folder / f"layer{layer}.pt")
    tokens = json.loads(tool(CLI, "info", "--json", trace))["tokens"]
    options = ["--grid", ",".join(map(str, tokens["grid"])), "--text", tokens["text_len"], "--axes", "BHND"]
    if tokens["text_len"] and tokens["text_start"] == 0:
        options.append("--text-first")
    tool(CLI, "convert", dump, again, "--quiet", *options)
    assert "0 errors" in tool(CLI, "check", "--deep", again)
    copies = calls_of(again)
    assert len(copies) == len(calls)
    for key, call in calls.items():
        copy = copies[key]
        for name in "qkv":
            np.testing.assert_array_equal(copy[name], call[name])
        np.testing.assert_allclose(copy["scale"], call["scale"], rtol=1e-6)
    copied = json.loads(tool(CLI, "info", "--json", again))["tokens"]
    assert {n: copied[n] for n in ("n_tokens", "grid", "text_start", "text_len")} == {
        n: tokens[n] for n in ("n_tokens", "grid", "text_start", "text_len")
    }
