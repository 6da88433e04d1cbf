# SPDX-License-Identifier: Apache-2.0
"""The capture against tiny pipelines with random weights, one per family: what is in the file is what attention saw."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, Dict

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("diffusers", reason="diffusers is not installed")

import sparsight_capture as sc  # noqa: E402
import sparsight_trace as st  # noqa: E402
from sparsight_capture.guard import CaptureError  # noqa: E402
from sparsight_capture.select import indices  # noqa: E402
from sparsight_capture.sink import Sink  # noqa: E402
from sparsight_capture.tensors import columns_of  # noqa: E402
from sparsight_capture.tiny import FAMILIES, tiny  # noqa: E402
from support import check_trace  # noqa: E402

torch.set_num_threads(1)
TEXT_FIRST = {"cogvideox"}
JOINT = {"hunyuanvideo", "hunyuanvideo-1.5", "cogvideox", "mochi"}


def run(path: Path, family: str, prompt: str = "a cat", negative: str = "ugly", call: Any = None, **options: Any):
    """One run of a tiny pipeline under capture: (the capture, the pipeline's result)."""
    pipe, arguments = tiny(family, prompt, negative)
    arguments.update(call or {})
    defaults = dict(steps="all", layers="all", branches="all", dtype="float32", out=True, overwrite=True, quiet=True)
    with sc.capture(pipe, path, **{**defaults, **options}) as c:
        result = pipe(**arguments)
    return c, result


def calls_of(path: Path) -> Dict[Any, Dict[str, Any]]:
    """Every call of a trace: {(step, branch, layer, kind): {"q": ..., attributes ...}}."""
    found: Dict[Any, Dict[str, Any]] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Group) and "scale" in node.attrs:
            a = dict(node.attrs)
            found[(int(a["step"]), a["branch"], int(a["layer"]), a["kind"])] = {**a, **{n: d[:] for n, d in node.items()}}

    with h5py.File(path) as f:
        for step in f["data"]:
            f["data"][step].visititems(visit)
    return found


def recomputed(call: Dict[str, Any]) -> np.ndarray:
    """softmax(scale q k^T + mask) v in float64, from the file alone."""
    q, k, v = (call[n].astype("f8") for n in "qkv")
    scores = np.einsum("hqd,hkd->hqk", q, k) * call["scale"]
    if "key_valid" in call:
        scores = np.where(call["key_valid"][None, None, :] != 0, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """After every test: no hook, wrapped method, function mode or chosen backend remains."""
    from torch.overrides import _get_current_function_mode

    dispatch = sys.modules.get("diffusers.models.attention_dispatch")  # before diffusers 0.35 there was none

    def state() -> Any:
        return torch.nn.functional.scaled_dot_product_attention, dispatch and dispatch._AttentionBackendRegistry._active_backend

    before = state()
    yield
    assert state() == before
    assert _get_current_function_mode() is None
    assert not [t for t in threading.enumerate() if t.name == "sparsight-capture-writer"]
    for o in gc.get_objects():
        if issubclass(type(o), torch.nn.Module):
            assert not o._forward_hooks and not o._forward_pre_hooks and "cache_context" not in o.__dict__


# --- every family -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_tensors_give_the_output_of_the_models_attention(tmp_path: Path, family: str):
    more = {"true_cfg_scale": 3.0} if family == "hunyuanvideo" else {}
    pipe, arguments = tiny(family, "a cat", "ugly")
    plain = pipe(**arguments, **more)[0]
    c, result = run(tmp_path / "t.h5", family, call=more, lse=True)
    for a, b in zip(plain, result[0]):  # the capture changes nothing
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        else:
            assert all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b))
    calls = calls_of(tmp_path / "t.h5")
    layers = 4 if family.startswith(("wan", "hunyuanvideo")) and family != "hunyuanvideo-1.5" else 2
    assert set(calls) == {
        (s, b, n, "joint" if family in JOINT else "self") for s in range(4) for b in ("cond", "uncond") for n in range(layers)
    }
    for call in calls.values():
        rows = np.flatnonzero(call["key_valid"]) if "key_valid" in call else slice(None)
        np.testing.assert_allclose(recomputed(call)[:, rows], call["out"][:, rows], atol=1e-5)
    assert c.report["complete"] and c.estimate is not None
    check_trace(tmp_path / "t.h5")


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_are_told_apart_with_and_without_guidance(tmp_path: Path, family: str):
    on = {"true_cfg_scale": 3.0} if family == "hunyuanvideo" else {}
    run(tmp_path / "a.h5", family, "a cat", "ugly", call=on)
    run(tmp_path / "b.h5", family, "ugly", "a cat", call=on)
    a, b = calls_of(tmp_path / "a.h5"), calls_of(tmp_path / "b.h5")
    keys = [key for key in a if key[0] == 0 and key[1] == "cond" and key[2] == 1]
    assert keys
    for step, _, layer, kind in keys:  # at step 0 the latents are the same, so only the text differs
        cond, uncond = (a[(step, branch, layer, kind)] for branch in ("cond", "uncond"))
        mirrored = b[(step, "uncond", layer, kind)]
        np.testing.assert_allclose(cond["k"], mirrored["k"], atol=1e-5)
        assert cond["n_k"] != uncond["n_k"] or np.abs(cond["k"] - uncond["k"]).max() > 1e-4

    off = {} if family in ("hunyuanvideo", "hunyuanvideo-1.5") else {"guidance_scale": 1.0}
    pipe, arguments = tiny(family, "a cat", "ugly")
    arguments.update(off)
    if family == "hunyuanvideo-1.5":
        pipe.guider.disable()
    with sc.capture(pipe, tmp_path / "c.h5", steps=0, layers="all", branches="all", dtype="float32", quiet=True):
        pipe(**arguments)
    c = calls_of(tmp_path / "c.h5")
    assert {key[1] for key in c} == {"cond"}
    for key in keys:
        np.testing.assert_allclose(c[key]["k"], a[key]["k"], atol=1e-5)
    with h5py.File(tmp_path / "a.h5") as f:
        batched = family in ("cogvideox", "ltx", "mochi")
        assert f["run"].attrs["guidance_mode"] == ("batched" if batched else "two_calls")
    with h5py.File(tmp_path / "c.h5") as f:
        assert f["run"].attrs["guidance_mode"] == ("embedded" if family == "hunyuanvideo" else "none")


@pytest.mark.parametrize("family", FAMILIES)
def test_video_tokens_stand_frame_by_frame_where_the_layout_says(tmp_path: Path, family: str):
    """Latents that vary along one axis only: V of layer 0, which has no position in it, must vary along that axis."""
    c, _ = run(tmp_path / "t.h5", family)
    pipe, arguments = tiny(family)
    channels = 4 if family == "hunyuanvideo-1.5" else pipe.transformer.config.in_channels
    patch = pipe.transformer.config.patch_size
    patch = patch if isinstance(patch, int) else patch[-1]
    t, h, w = c.report["grid"]
    for axis, n in enumerate((t, h, w)):
        shape = [1, 1, 1]
        shape[axis] = n
        field = torch.linspace(-1, 1, n).reshape(shape).expand(t, h, w)
        field = field.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        latents = field.expand(1, channels, *field.shape).clone()
        if family == "cogvideox":
            latents = latents.permute(0, 2, 1, 3, 4)
        elif family == "ltx":
            latents = latents.flatten(2).transpose(1, 2)
        run(tmp_path / "t.h5", family, call={"latents": latents}, steps=0, layers=0, branches="cond")
        (call,) = calls_of(tmp_path / "t.h5").values()
        with h5py.File(tmp_path / "t.h5") as f:
            start, length = (int(f["tokens"].attrs[name]) for name in ("video_start", "video_len"))
        v = call["v"][:, start : start + length].reshape(call["v"].shape[0], t, h, w, -1)
        for other in range(3):
            spread = np.ptp(v, axis=1 + other).max()
            assert (spread > 1e-3) == (other == axis), (axis, other, spread)


def test_text_is_first_in_cogvideox_and_last_and_padded_in_hunyuanvideo(tmp_path: Path):
    run(tmp_path / "a.h5", "cogvideox", "a cat", steps=0, layers=0, branches="cond")
    run(tmp_path / "b.h5", "cogvideox", "a dog", steps=0, layers=0, branches="cond")
    (a,), (b,) = (calls_of(tmp_path / n).values() for n in ("a.h5", "b.h5"))
    changed = np.abs(a["v"] - b["v"]).max(axis=(0, 2)) > 1e-6
    assert changed[:16].all() and not changed[16:].any()
    with h5py.File(tmp_path / "a.h5") as f:
        assert f["tokens"].attrs["text_start"] == 0 and f["tokens"].attrs["text_len"] == 16

    run(tmp_path / "h.h5", "hunyuanvideo", steps=0, layers=[0, 3], branches="cond")
    for call in calls_of(tmp_path / "h.h5").values():
        assert call["key_valid"].tolist() == [1] * (288 + 6) + [0] * 10  # "a cat" and its end
    modules = {key[2]: call["module"] for key, call in calls_of(tmp_path / "h.h5").items()}
    assert modules == {0: "transformer_blocks.0.attn", 3: "single_transformer_blocks.1.attn"}
    with h5py.File(tmp_path / "h.h5") as f:
        assert f["tokens"].attrs["text_start"] == 288 and f["model"].attrs["num_layers"] == 4


def test_mochi_branches_have_texts_of_their_own_length(tmp_path: Path):
    run(tmp_path / "t.h5", "mochi", steps=0, layers=0)
    calls = calls_of(tmp_path / "t.h5")
    video = 2 * 4 * 6
    assert calls[(0, "cond", 0, "joint")]["n_k"] == video + 6
    assert calls[(0, "uncond", 0, "joint")]["n_k"] == video + 5


def test_both_experts_of_wan22_are_named(tmp_path: Path):
    run(tmp_path / "t.h5", "wan2.2", branches="cond", layers=1)
    calls = calls_of(tmp_path / "t.h5")
    components = [calls[(step, "cond", 1, "self")]["component"] for step in range(4)]
    assert components[0] == "transformer" and components[-1] == "transformer_2"
    with h5py.File(tmp_path / "t.h5") as f:
        assert f["model"].attrs["family"] == "wan2.2"


def test_what_the_pipeline_was_asked_for_is_in_the_file(tmp_path: Path):
    run(tmp_path / "t.h5", "wan", steps=[1], layers=0, fps=16, run={"prompt": "a cat"})
    with h5py.File(tmp_path / "t.h5") as f:
        r, m = dict(f["run"].attrs), dict(f["model"].attrs)
        assert (r["height"], r["width"], r["num_frames"], r["num_inference_steps"]) == (64, 96, 9, 4)
        assert (r["prompt"], r["seed"], r["guidance_scale"], r["fps"]) == ("a cat", 0, 6.0, 16.0)
        assert (m["num_layers"], m["num_heads"], m["head_dim"], list(m["vae_stride"])) == (4, 2, 12, [4, 8, 8])
        assert f["frames/rgb"].shape == (9, 64, 96, 3) and f["frames/rgb"].attrs["fps"] == 16
        assert f["frames/rgb"][:].std() > 0
        assert len(f["run/timesteps"]) == 4
        assert f["data/step_0001/cond/layer_000/self"].attrs["timestep"] == f["run/timesteps"][1]


def test_anonymise_leaves_no_trace_of_the_user(tmp_path: Path):
    run(tmp_path / "t.h5", "wan", steps=0, layers=0, run={"prompt": "my secret idea", "seed": 4711}, anonymise=True)
    assert b"secret" not in (tmp_path / "t.h5").read_bytes()
    with h5py.File(tmp_path / "t.h5") as f:
        assert "seed" not in f["run"].attrs and "frames" not in f and "repo_id" not in f["model"].attrs
    check_trace(tmp_path / "t.h5")


# --- subsets ----------------------------------------------------------------------------------------------------------
def test_subsets_are_parts_of_the_whole(tmp_path: Path):
    run(tmp_path / "all.h5", "hunyuanvideo")
    run(
        tmp_path / "part.h5",
        "hunyuanvideo",
        steps="every:2",
        layers=[0, -1],
        heads=[1],
        rows="blocks:4:16",
        branches="cond",
        out=False,
    )
    whole, part = calls_of(tmp_path / "all.h5"), calls_of(tmp_path / "part.h5")
    assert {(k[0], k[2]) for k in part} == {(0, 0), (0, 3), (2, 0), (2, 3)}
    with h5py.File(tmp_path / "part.h5") as f:
        rows = f["capture/q_rows"][:]
        assert f["capture"].attrs["q_mode"] == "blocks"
    assert set(range(288, 304)) <= set(rows.tolist()) and len(rows) < 120
    for key, call in part.items():
        assert call["heads"].tolist() == [1]
        np.testing.assert_array_equal(call["q"], whole[key]["q"][1:2, rows])
        np.testing.assert_array_equal(call["k"], whole[key]["k"][1:2])
    check_trace(tmp_path / "part.h5")


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("all", list(range(10))), ("every:4", [0, 4, 8]), ("first:2", [0, 1]), ("last:2", [8, 9]), ("middle", [5]),
        ("spread:2", [2, 7]), ("ends:3", [0, 4, 9]), ("0,7-9", [0, 7, 8, 9]), (3, [3]), ([0, -1], [0, 9]),
    ],
)  # fmt: skip
def test_selections(spec: Any, expected: Any):
    assert indices(spec, 10, "layers") == expected


@pytest.mark.parametrize("spec", ["odd", "every:0", "10", [12], "", []])
def test_selections_that_select_nothing_are_refused(spec: Any):
    with pytest.raises(ValueError, match="layers"):
        indices(spec, 10, "layers")


@pytest.mark.parametrize("preset", sc.PRESETS)
def test_presets(tmp_path: Path, preset: str):
    c, _ = run(tmp_path / "t.h5", "wan", preset=preset, steps=None, layers=None, branches="cond")
    assert c.report["complete"]
    check_trace(tmp_path / "t.h5")


def test_cross_attention_on_request(tmp_path: Path):
    run(tmp_path / "t.h5", "wan", kinds=("self", "cross"), steps=0, layers=2)
    calls = calls_of(tmp_path / "t.h5")
    assert calls[(0, "cond", 2, "cross")]["n_k"] == 16 and calls[(0, "cond", 2, "self")]["n_k"] == 72
    check_trace(tmp_path / "t.h5")


# --- types ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype, tolerance", [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_sixteen_bit_types(tmp_path: Path, dtype: str, tolerance: float):
    run(tmp_path / "a.h5", "ltx", steps=1, layers=0)
    run(tmp_path / "b.h5", "ltx", steps=1, layers=0, dtype=dtype)
    exact, stored = calls_of(tmp_path / "a.h5"), calls_of(tmp_path / "b.h5")
    for key, call in stored.items():
        q = st.from_bfloat16(call["q"]) if dtype == "bfloat16" else call["q"].astype("f4")
        np.testing.assert_allclose(q, exact[key]["q"], rtol=tolerance, atol=tolerance)
    check_trace(tmp_path / "b.h5")


def test_values_beyond_float16_become_bfloat16(tmp_path: Path):
    pipe, arguments = tiny("wan")
    with torch.no_grad():
        pipe.transformer.blocks[1].attn1.to_v.weight.mul_(1e7)
    with sc.capture(pipe, tmp_path / "t.h5", steps=0, layers=[0, 1], quiet=True) as c:
        pipe(**arguments)
    types = {key[2]: call["q"].dtype for key, call in calls_of(tmp_path / "t.h5").items()}
    assert types == {0: np.dtype("f2"), 1: np.dtype("u2")}
    assert any("bfloat16" in w for w in c.warnings)
    check_trace(tmp_path / "t.h5")


def test_nan_stops_the_capture_at_once(tmp_path: Path):
    pipe, arguments = tiny("wan")
    with torch.no_grad():
        pipe.transformer.blocks[2].attn1.to_k.weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="blocks.2.attn1.*NaN"):
        with sc.capture(pipe, tmp_path / "t.h5", steps="all", layers="all", quiet=True):
            pipe(**arguments)


# --- failures ---------------------------------------------------------------------------------------------------------
def expect_error(tmp_path: Path, pipe: Any, arguments: Any, message: str, **options: Any) -> None:
    with pytest.raises(CaptureError, match=message):
        with sc.capture(pipe, tmp_path / "t.h5", quiet=True, **options):
            if arguments is not None:
                pipe(**arguments)
    assert not list(tmp_path.glob("*.h5*"))


def test_a_capture_of_nothing_is_an_error_that_says_why(tmp_path: Path):
    pipe, arguments = tiny("wan")
    expect_error(tmp_path, pipe, None, "never ran")
    expect_error(tmp_path, pipe, {**arguments, "guidance_scale": 1.0}, "has the branches", branches="uncond")
    expect_error(tmp_path, pipe, arguments, "none of the", kinds=("audio_self",))

    class OwnKernel(torch.nn.Module):  # as flash-attn or sage: no SDPA anywhere
        def forward(self, *args: Any, **kwargs: Any):
            return kwargs["hidden_states"]

    for block in pipe.transformer.blocks:
        block.attn1.processor = block.attn2.processor = lambda attn, hidden_states, *a, **k: hidden_states
    expect_error(tmp_path, pipe, arguments, "without calling scaled_dot_product_attention")


def test_what_breaks_a_capture_is_said_before_the_run(tmp_path: Path):
    pipe, _ = tiny("wan")
    pipe.transformer.blocks[0].compile()
    expect_error(tmp_path, pipe, None, "compiled")
    pipe, _ = tiny("wan")
    pipe.transformer = torch.compile(pipe.transformer)
    expect_error(tmp_path, pipe, None, "compiled")
    pipe, _ = tiny("wan")
    pipe.transformer.train()
    expect_error(tmp_path, pipe, None, "training mode")
    from diffusers import FirstBlockCacheConfig

    pipe, _ = tiny("wan")
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    expect_error(tmp_path, pipe, None, "disable_cache")
    from diffusers.hooks import apply_first_block_cache

    pipe, _ = tiny("wan")
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.2))  # past the model's own book-keeping
    expect_error(tmp_path, pipe, None, "disable_cache")


def test_a_replaced_attention_function_is_said(tmp_path: Path, monkeypatch: Any):
    pipe, _ = tiny("wan")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: None)  # as sage's drop-in does
    expect_error(tmp_path, pipe, None, "scaled_dot_product_attention was replaced")


def test_another_attention_backend_is_set_aside_and_comes_back(tmp_path: Path):
    pipe, arguments = tiny("wan")
    for module in pipe.transformer.modules():
        if hasattr(module, "processor"):
            module.processor._attention_backend = "sage"  # not installed here: would raise if it were used
    with sc.capture(pipe, tmp_path / "t.h5", quiet=True):
        pipe(**arguments)
    assert pipe.transformer.blocks[0].attn1.processor._attention_backend == "sage"


def test_a_capture_too_large_ends_before_the_first_layer(tmp_path: Path, monkeypatch: Any):
    pipe, arguments = tiny("wan")
    ran = []
    handle = pipe.transformer.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    expect_error(tmp_path, pipe, arguments, "the limit is 1.0 KiB", max_bytes=1024)
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("sparsight_capture.guard.shutil.disk_usage", lambda _: usage)
    expect_error(tmp_path, pipe, arguments, "1.0 MiB free")
    handle.remove()
    assert not ran


def test_an_error_of_the_disk_reaches_the_caller(tmp_path: Path, monkeypatch: Any):
    pipe, arguments = tiny("wan")

    def full(self: Any, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(st.TraceWriter, "put", full)
    with pytest.raises(CaptureError, match="No space left"):
        with sc.capture(pipe, tmp_path / "t.h5", quiet=True):
            pipe(**arguments)


def test_an_exception_in_the_run_keeps_the_finished_steps(tmp_path: Path):
    pipe, arguments = tiny("wan")

    def stop(p: Any, step: int, timestep: Any, kwargs: Any) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return kwargs

    with pytest.raises(KeyboardInterrupt):
        with sc.capture(pipe, tmp_path / "t.h5", steps="all", layers="all", quiet=True):
            pipe(**arguments, callback_on_step_end=stop)
    assert {key[0] for key in calls_of(tmp_path / "t.h5")} == {0, 1, 2}
    check_trace(tmp_path / "t.h5", complete=False)


def test_a_killed_run_leaves_the_finished_steps(tmp_path: Path):
    script = """
        import os, signal, sparsight_capture
        from sparsight_capture.tiny import tiny
        pipe, call = tiny("wan")
        def stop(p, step, timestep, kwargs):
            if step == 3: os.kill(os.getpid(), signal.SIGKILL)
            return kwargs
        with sparsight_capture.capture(pipe, "t.h5", steps="all", layers="all", quiet=True) as c:
            pipe(**call, callback_on_step_end=stop)
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=env, capture_output=True)
    assert ended.returncode == -9, ended.stderr
    assert {0, 1} <= {key[0] for key in calls_of(tmp_path / "t.h5")}
    check_trace(tmp_path / "t.h5", complete=False)


def test_a_second_run_inside_the_context_is_not_mixed_in(tmp_path: Path):
    pipe, arguments = tiny("ltx", "a cat")
    other = tiny("ltx", "a dog")[1]
    with sc.capture(pipe, tmp_path / "a.h5", steps="all", layers="all", dtype="float32", quiet=True):
        pipe(**arguments)
    with sc.capture(pipe, tmp_path / "b.h5", steps="all", layers="all", dtype="float32", quiet=True) as c:
        arguments["generator"].manual_seed(0)
        pipe(**arguments)
        pipe(**other)
    assert any("ran again" in w for w in c.warnings)
    a, b = calls_of(tmp_path / "a.h5"), calls_of(tmp_path / "b.h5")
    assert set(a) == set(b) and all(np.array_equal(a[k]["q"], b[k]["q"]) for k in a)


def test_a_typing_error_shows_before_the_run(tmp_path: Path):
    pipe, _ = tiny("wan")
    with pytest.raises(ValueError, match="layers: 'evry:2' is none of"):
        sc.capture(pipe, tmp_path / "t.h5", layers="evry:2")
    with pytest.raises(ValueError, match="preset 'all' is unknown"):
        sc.capture(pipe, tmp_path / "t.h5", preset="all")


def test_an_existing_file_is_kept(tmp_path: Path):
    (tmp_path / "t.h5").write_text("precious")
    pipe, _ = tiny("wan")
    with pytest.raises(FileExistsError):
        with sc.capture(pipe, tmp_path / "t.h5", quiet=True):
            pass
    assert (tmp_path / "t.h5").read_text() == "precious"


# --- any torch model --------------------------------------------------------------------------------------------------
class Layer(torch.nn.Module):
    def __init__(self, heads: int = 4, kv_heads: int = 2, dim: int = 8) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, dim
        self.qkv = torch.nn.Linear(16, (heads + 2 * kv_heads) * dim)
        self.proj = torch.nn.Linear(heads * dim, 16)

    def forward(self, x: Any, **attention: Any) -> Any:
        parts = (
            self.qkv(x).unflatten(-1, (-1, self.dim)).transpose(1, 2).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        )
        out = torch.nn.functional.scaled_dot_product_attention(*parts, enable_gqa=True, **attention)
        return self.proj(out.transpose(1, 2).flatten(2))


class Net(torch.nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, x: Any, **attention: Any) -> Any:
        for layer in self.layers:
            x = x + layer(x, **attention)
        return x


def capture_net(path: Path, steps: int = 1, tokens: int = 24, attention: Any = None, **options: Any) -> Dict[Any, Any]:
    net = Net().eval()
    defaults = dict(grid=(2, 3, 4), dtype="float32", out=True, lse=True, overwrite=True, quiet=True)
    with sc.capture_module(net, path, **{**defaults, **options}):
        for step in range(steps):
            with torch.no_grad():
                net(torch.randn(1, tokens, 16, generator=torch.Generator().manual_seed(step)), **(attention or {}))
    check_trace(path)
    return calls_of(path)


def test_any_module_with_gqa(tmp_path: Path):
    calls = capture_net(tmp_path / "t.h5", steps=3, layers=[0, 2])
    assert set(calls) == {(s, "cond", n, "self") for s in range(3) for n in (0, 2)}
    assert calls[(0, "cond", 2, "self")]["q"].shape == (4, 24, 8) and calls[(0, "cond", 2, "self")]["k"].shape == (2, 24, 8)
    some = capture_net(tmp_path / "t.h5", steps=1, heads=[1, 2])[(0, "cond", 0, "self")]
    np.testing.assert_array_equal(some["k"], calls[(0, "cond", 0, "self")]["k"])  # head 1 uses K 0, head 2 uses K 1
    assert some["module"] == "layers.0"


def test_a_model_in_training_mode_is_refused_by_what_the_user_calls_it(tmp_path: Path):
    with pytest.raises(sc.CaptureError, match=r"call model\.eval\(\)"):
        with sc.capture_module(Net(), tmp_path / "t.h5", grid=(2, 3, 4), quiet=True):
            pass
    with pytest.raises(sc.CaptureError, match="the model never ran"):
        with sc.capture_module(Net().eval(), tmp_path / "t.h5", grid=(2, 3, 4), quiet=True):
            pass


@pytest.mark.parametrize("text_first", [False, True])
def test_tokens_beyond_the_grid_are_text(tmp_path: Path, text_first: bool):
    calls = capture_net(tmp_path / "t.h5", tokens=29, text_first=text_first)
    assert {key[3] for key in calls} == {"joint"}
    with h5py.File(tmp_path / "t.h5") as f:
        assert f["tokens"].attrs["text_start"] == (0 if text_first else 24) and f["tokens"].attrs["text_len"] == 5


def test_masks_keep_their_meaning(tmp_path: Path):
    padding = torch.ones(1, 1, 1, 24, dtype=torch.bool)
    padding[..., 20:] = False
    for mask in (padding, padding.expand(1, 1, 24, 24), torch.zeros(1, 1, 1, 24).masked_fill(~padding, -torch.inf)):
        call = capture_net(tmp_path / "t.h5", attention={"attn_mask": mask})[(0, "cond", 0, "self")]
        assert call["mask"] == "key_valid" and call["key_valid"].tolist() == [1] * 20 + [0] * 4
    call = capture_net(tmp_path / "t.h5", attention={"is_causal": True})[(0, "cond", 0, "self")]
    assert np.array_equal(call["mask"], np.tril(np.ones((24, 24))))
    call = capture_net(tmp_path / "t.h5", attention={"attn_mask": torch.ones(24, 24, dtype=torch.bool)})[(0, "cond", 0, "self")]
    assert call["mask"] == "none"
    call = capture_net(tmp_path / "t.h5", attention={"scale": 0.5})[(0, "cond", 0, "self")]
    assert call["scale"] == 0.5
    with pytest.raises(CaptureError, match="bias"):
        capture_net(tmp_path / "t.h5", attention={"attn_mask": torch.randn(24, 24)})
    with pytest.raises(CaptureError, match=r"they had \[24\] tokens, the grid \(9, 9, 9\) 729"):
        capture_net(tmp_path / "t.h5", grid=(9, 9, 9))


def test_masks_of_padded_rows_and_columns_are_masks_of_keys():
    valid = torch.arange(3000) < 2500
    both = valid[:, None] & valid[None, :]
    columns, by_keys = columns_of(both, self_like=True)
    assert by_keys and torch.equal(columns, valid)
    both[2600, 3] = True
    assert not columns_of(both, self_like=True)[1]


class BarePipe:
    """A pipeline as far as the capture needs one: a transformer, a schedule, and guidance as a batch of two."""

    config: Dict[str, Any] = {}

    def __init__(self, transformer: Any, inputs: Any, shape: Any) -> None:
        self.transformer, self._inputs, self._shape = transformer, inputs, shape
        self.scheduler = type("Scheduler", (), {"timesteps": torch.tensor([900.0, 500.0, 100.0])})()

    @torch.no_grad()
    def __call__(self) -> None:
        latents = torch.randn(self._shape, generator=torch.Generator().manual_seed(0))
        for t in self.scheduler.timesteps:
            self._current_timestep = t
            self.transformer(**self._inputs(torch.cat([latents] * 2), t))
        self._current_timestep = None


def test_an_unknown_pipeline_is_captured_with_its_names(tmp_path: Path):
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = torch.nn.ModuleList(Layer(kv_heads=4) for _ in range(2))
            for stage in self.stages:
                stage.processor = None

        def forward(self, hidden_states: Any, timestep: Any) -> Any:
            x = hidden_states.flatten(2).transpose(1, 2)
            for stage in self.stages:
                x = x + stage(x)
            return x.transpose(1, 2).unflatten(2, hidden_states.shape[2:])

    pipe = BarePipe(Odd().eval(), lambda both, t: dict(hidden_states=both, timestep=t), (1, 16, 2, 3, 4))
    with sc.capture(pipe, tmp_path / "t.h5", steps="all", layers="all", branches="all", quiet=True):
        pipe()
    calls = calls_of(tmp_path / "t.h5")
    assert set(calls) == {(s, b, n, "self") for s in range(3) for b in ("cond", "uncond") for n in range(2)}
    assert calls[(1, "cond", 1, "self")]["module"] == "stages.1" and calls[(1, "cond", 1, "self")]["timestep"] == 500
    check_trace(tmp_path / "t.h5")


def test_ltx2_keeps_video_and_audio_apart(tmp_path: Path):
    diffusers = pytest.importorskip("diffusers", minversion="0.37", reason="LTX-2 is newer")
    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, audio_in_channels=4,
        audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4, audio_cross_attention_dim=8,
        num_layers=2, caption_channels=16,
    ).eval()  # fmt: skip

    def inputs(both: Any, t: Any) -> Dict[str, Any]:
        text = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(1))
        return dict(
            hidden_states=both, audio_hidden_states=both[:, :2], encoder_hidden_states=text, audio_encoder_hidden_states=text,
            timestep=t.expand(2), num_frames=2, height=4, width=4, audio_num_frames=2, return_dict=False,
        )  # fmt: skip

    kinds = ("self", "cross", "audio_self", "audio_cross", "audio_to_video", "video_to_audio")
    pipe = BarePipe(transformer, inputs, (1, 32, 4))
    with sc.capture(pipe, tmp_path / "t.h5", steps=0, layers=1, kinds=kinds, out=True, quiet=True):
        pipe()
    calls = {key[3]: call for key, call in calls_of(tmp_path / "t.h5").items()}
    sizes = {kind: (int(call["n_q"]), int(call["n_k"])) for kind, call in calls.items()}
    assert sizes == {
        "self": (32, 32), "cross": (32, 8), "audio_self": (2, 2), "audio_cross": (2, 8), "audio_to_video": (32, 2),
        "video_to_audio": (2, 32),
    }  # fmt: skip
    check_trace(tmp_path / "t.h5")


def test_image_to_video_asks_image_and_text_one_after_the_other(tmp_path: Path):
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=32, freq_dim=256, ffn_dim=32,
        num_layers=2, rope_max_seq_len=32, image_dim=4, added_kv_proj_dim=24,
    ).eval()  # fmt: skip

    def inputs(both: Any, t: Any) -> Dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        return dict(
            hidden_states=both, timestep=t.expand(2), encoder_hidden_states=torch.randn(2, 512, 32, generator=generator),
            encoder_hidden_states_image=torch.randn(2, 257, 4, generator=generator),
        )  # fmt: skip

    pipe = BarePipe(transformer, inputs, (1, 16, 3, 4, 6))
    with sc.capture(pipe, tmp_path / "t.h5", steps=0, layers=0, kinds=("self", "cross"), quiet=True):
        pipe()
    with h5py.File(tmp_path / "t.h5") as f:
        layer = f["data/step_0000/cond/layer_000"]
        assert {name: int(call.attrs["n_k"]) for name, call in layer.items()} == {"self": 18, "cross": 257, "cross.1": 512}
    check_trace(tmp_path / "t.h5")


# --- the queue --------------------------------------------------------------------------------------------------------
def test_the_queue_holds_no_more_than_its_bytes():
    sink = Sink(limit=100)
    gate, under_way, peak = threading.Event(), [0], [0]

    def produce() -> None:
        for _ in range(6):
            sink.reserve(40)
            under_way[0] += 40
            peak[0] = max(peak[0], under_way[0])

            def job() -> None:
                gate.wait()
                under_way[0] -= 40

            sink.submit(job, 40)

    producer = threading.Thread(target=produce)
    producer.start()
    producer.join(0.2)
    assert producer.is_alive() and under_way[0] == 80  # a third does not fit while the writer stands still
    gate.set()
    producer.join()
    sink.close()
    assert peak[0] <= 100 and under_way[0] == 0


def test_one_item_larger_than_the_queue_still_passes():
    sink = Sink(limit=10)
    done = []
    sink.reserve(1000)
    sink.submit(lambda: done.append(1), 1000)
    sink.close()
    assert done == [1]


# --- the command line -------------------------------------------------------------------------------------------------
def test_the_command_line_captures_and_explains(tmp_path: Path, capsys: Any):
    from sparsight_capture.__main__ import main

    out = str(tmp_path / "t.h5")
    base = ["--model", "tiny:wan", "--prompt", "a cat", "--out", out]
    assert main([*base, "--layers", "0,3", "--check-data", "--frames", "17", "--fps", "8"]) == 0
    assert "attention calls" in capsys.readouterr().err
    check_trace(tmp_path / "t.h5")
    with h5py.File(out) as f:
        assert f["run"].attrs["prompt"] == "a cat" and f["tokens"].attrs["grid"].tolist() == [5, 4, 6]
        assert f["frames/rgb"].shape[0] == 17
    assert main(base) == 1
    assert "exists" in capsys.readouterr().err
    assert main([*base, "--overwrite", "--steps", "99"]) == 1
    assert "steps: 99 is outside 0 .. 3" in capsys.readouterr().err
    assert main(["--model", "tiny:nothing", "--prompt", "", "--out", out, "--overwrite"]) == 1
    assert "one of wan" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main(["--model", "tiny:wan"])
    assert usage.value.code == 2
