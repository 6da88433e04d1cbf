# SPDX-License-Identifier: Apache-2.0
"""sparsight_trace: what it writes is what was given, sparsight-cli accepts it, and it refuses what the format cannot hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import sparsight_trace as st
from support import check_trace

GRID = (3, 4, 6)
HEADS, DIM = 2, 8


def tensors(n: int, seed: int = 0, heads: int = HEADS, dim: int = DIM, dtype: str = "f4"):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((heads, n, dim)).astype(dtype) for _ in range(3))


def attention(q, k, v, scale, valid=None):
    scores = np.einsum("hqd,hkd->hqk", q.astype("f8"), k.astype("f8")) * scale
    if valid is not None:
        scores = np.where(valid[None, None, :] != 0, scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    return (weights / total) @ v.astype("f8"), (np.log(total) + peak)[..., 0]


@pytest.mark.parametrize("dtype", st.DTYPES)
@pytest.mark.parametrize("text_first", [False, True])
def test_joint_trace_passes_the_deep_check(tmp_path: Path, dtype: str, text_first: bool):
    layout = st.Layout.of_video(GRID, text_len=5, text_first=text_first)
    valid = np.ones(layout.n_tokens, dtype="u1")
    padding = layout.start_of("text") + 3
    valid[padding : padding + 2] = 0
    path = tmp_path / "t.h5"
    with st.TraceWriter(
        path, layout, model={"num_layers": 4, "num_heads": HEADS}, run={"timesteps": [999.0, 500.0]}, dtype=dtype
    ) as w:
        for step in (0, 1):
            q, k, v = tensors(layout.n_tokens, seed=step)
            out, lse = attention(q, k, v, DIM**-0.5, valid)
            w.add_call(step=step, layer=3, kind="joint", q=q, k=k, v=v, out=out.astype("f4"), lse=lse, key_valid=valid)
    check_trace(path)
    with h5py.File(path) as f:
        call = f["data/step_0001/cond/layer_003/joint"]
        stored = call["q"][:]
        stored = st.from_bfloat16(stored) if dtype == "bfloat16" else stored.astype("f4")
        tolerance = {"float32": 0, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
        np.testing.assert_allclose(stored, q, rtol=tolerance, atol=tolerance)
        assert call.attrs["timestep"] == 500.0
        assert f["tokens"].attrs["text_start"] == (0 if text_first else 72)
        assert f.attrs["complete"] == 1


def test_branches_of_another_length_carry_their_own_layout(tmp_path: Path):
    path = tmp_path / "t.h5"
    short = st.Layout.of_video(GRID, text_len=2)
    with st.TraceWriter(path, st.Layout.of_video(GRID, text_len=5)) as w:
        for branch, layout in (("cond", w.layout), ("uncond", short)):
            q, k, v = tensors(layout.n_tokens)
            w.add_call(step=0, layer=0, kind="joint", branch=branch, q=q, k=k, v=v, layout=layout)
    check_trace(path)
    with h5py.File(path) as f:
        assert f["data/step_0000/uncond/layer_000/joint"].attrs["n_tokens"] == 74
        assert "n_tokens" not in f["data/step_0000/cond/layer_000/joint"].attrs


def test_rows_in_blocks_are_aligned_seeded_and_keep_the_text(tmp_path: Path):
    layout = st.Layout.of_video((5, 16, 16), text_len=7)
    rows = st.row_blocks(layout, fraction=4, block=64, seed=3)
    video = rows[rows < 1280]
    assert set(range(1280, 1287)) <= set(rows.tolist())
    assert len(video) == 5 * 64 and (video.reshape(5, 64)[:, 0] % 64 == 0).all()
    assert np.array_equal(rows, st.row_blocks(layout, 4, 64, seed=3))
    assert not np.array_equal(rows, st.row_blocks(layout, 4, 64, seed=4))
    q, k, v = tensors(layout.n_tokens)
    with st.TraceWriter(tmp_path / "t.h5", layout, q_rows=rows, q_mode="blocks", q_info={"q_block": 64, "q_seed": 3}) as w:
        w.add_call(step=0, layer=0, kind="joint", q=q[:, rows], k=k, v=v)
    check_trace(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as f:
        assert f["capture"].attrs["q_mode"] == "blocks" and np.array_equal(f["capture/q_rows"][:], rows)


def test_a_stride_that_repeats_columns_is_refused():
    with pytest.raises(st.TraceError, match="coprime"):
        st.row_stride(st.Layout.of_video((5, 16, 16)), 4)
    assert len(st.row_stride(st.Layout.of_video((5, 16, 16)), 5)) == 256


def test_gqa_a_dense_mask_and_frames(tmp_path: Path):
    layout = st.Layout.of_video(GRID)
    q, _, _ = tensors(72, heads=4)
    _, k, v = tensors(72, heads=2)
    mask = np.tril(np.ones((72, 72)))
    path = tmp_path / "t.h5"
    with st.TraceWriter(path, layout, compression=1) as w:
        w.add_call(step=2, layer=1, q=q, k=k, v=v, mask=mask)
        w.set_frames(np.zeros((9, 16, 24, 3), dtype="u1"), fps=8)
    check_trace(path)


def test_values_beyond_float16_are_stored_as_bfloat16(tmp_path: Path):
    q, k, v = tensors(72)
    k[0, 3, 2] = 1e5
    with st.TraceWriter(tmp_path / "t.h5", st.Layout.of_video(GRID)) as w:
        w.add_call(step=0, layer=0, q=q, k=k, v=v)
        assert len(w.warnings) == 1
    check_trace(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as f:
        call = f["data/step_0000/cond/layer_000/self"]
        assert {call[n].attrs["dtype"] for n in "qkv"} == {"bfloat16"}
        assert call.attrs["absmax"][1] == pytest.approx(1e5)
        assert st.from_bfloat16(call["k"][:])[0, 3, 2] == pytest.approx(1e5, rel=2**-8)


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -1.00390625, 3.3895314e38], dtype="f4")
    assert st.from_bfloat16(st.to_bfloat16(values)).tolist()[:4] == [1.0, 1.0, 1.015625, -1.0]


def test_steps_become_files_of_their_own_and_small_traces_one(tmp_path: Path):
    q, k, v = tensors(72)
    for split, expected in (("step", {"t.h5", "t.step_0000.h5", "t.step_0004.h5"}), ("auto", {"t.h5"}), ("none", {"t.h5"})):
        folder = tmp_path / split
        folder.mkdir()
        with st.TraceWriter(folder / "t.h5", st.Layout.of_video(GRID), split=split) as w:
            for step in (0, 4):
                w.add_call(step=step, layer=0, q=q, k=k, v=v)
        assert {p.name for p in folder.iterdir()} == expected
        check_trace(folder / "t.h5")


def test_a_full_disk_leaves_the_steps_in_their_own_files(tmp_path: Path, monkeypatch):
    q, k, v = tensors(72)
    monkeypatch.setattr("sparsight_trace.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with st.TraceWriter(tmp_path / "t.h5", st.Layout.of_video(GRID)) as w:
        w.add_call(step=0, layer=0, q=q, k=k, v=v)
    assert {p.name for p in tmp_path.iterdir()} == {"t.h5", "t.step_0000.h5"}
    check_trace(tmp_path / "t.h5")


def test_overwriting_needs_consent_and_takes_the_old_parts_away(tmp_path: Path):
    q, k, v = tensors(72)
    layout = st.Layout.of_video(GRID)
    with st.TraceWriter(tmp_path / "t.h5", layout, split="step") as w:
        w.add_call(step=7, layer=0, q=q, k=k, v=v)
    (tmp_path / "t.step_by_step.h5").write_text("someone else's")
    with pytest.raises(FileExistsError):
        st.TraceWriter(tmp_path / "t.h5", layout)
    with st.TraceWriter(tmp_path / "t.h5", layout, overwrite=True) as w:
        w.add_call(step=1, layer=0, q=q, k=k, v=v)
    assert {p.name for p in tmp_path.iterdir()} == {"t.h5", "t.step_by_step.h5"}


@pytest.mark.parametrize("how", ["SIGKILL", "exception"])
def test_what_was_finished_before_a_crash_stays_readable(tmp_path: Path, how: str):
    script = f"""
        import os, signal, sys
        import numpy as np
        import sparsight_trace as st
        a = np.ones((2, 72, 8), dtype="f4")
        with st.TraceWriter("t.h5", st.Layout.of_video((3, 4, 6))) as w:
            w.add_call(step=0, layer=0, q=a, k=a, v=a)
            w.add_call(step=1, layer=0, q=a, k=a, v=a)
            w.begin_call(step=2, layer=0, heads=[0, 1], n_q=72, n_k=72, head_dim=8)
            w.put("q", 0, a)
            if {how!r} == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of memory")
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=env, capture_output=True)
    assert run.returncode == (-signal.SIGKILL if how == "SIGKILL" else 1), run.stderr
    text = check_trace(tmp_path / "t.h5", complete=False)
    assert "did not end cleanly" in text
    with h5py.File(tmp_path / "t.h5") as f:
        assert f.attrs["complete"] == 0
        assert {"step_0000", "step_0001"} <= set(f["data"])
        assert np.all(f["data/step_0001/cond/layer_000/self/q"][:] == 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(q=np.ones((2, 72))), "expected \\[heads, tokens, channels\\]"),
        (dict(k=np.ones((2, 71, 8)), v=np.ones((2, 71, 8))), "keys cannot be a subset"),
        (dict(q=np.ones((2, 70, 8))), "say which with q_rows"),
        (dict(q=np.full((2, 72, 8), np.nan)), "NaN"),
        (dict(q=np.ones((2, 72, 8), dtype="i4")), "float16, float32"),
        (dict(heads=[0, 0]), "ids must differ"),
        (dict(heads=[0, 9]), "the model has 2"),
        (dict(scale=0.0), "scale"),
        (dict(step=9), "beyond the 2 timesteps"),
        (dict(branch="a/b"), "without '/'"),
        (dict(key_valid=np.ones(3)), "key_valid"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, change, message):
    ones = np.ones((2, 72, 8), dtype="f4")
    given = {**dict(step=0, layer=0, q=ones, k=ones, v=ones), **change}
    writer = st.TraceWriter(tmp_path / "t.h5", st.Layout.of_video(GRID), model={"num_heads": 2}, run={"timesteps": [2.0, 1.0]})
    with pytest.raises(st.TraceError, match=message):
        writer.add_call(**given)
    writer.add_call(step=0, layer=0, q=ones, k=ones, v=ones)  # and the writer goes on
    writer.close()
    check_trace(tmp_path / "t.h5")
