# SPDX-License-Identifier: Apache-2.0
"""Exports against the runtime itself: SparseVideo's own checks, CSV reader and method classes take what we write.

Needs torch and sparsevideo (PyPI), no GPU; skipped without them. SPARSIGHT_CLI names the program.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

sparsevideo = pytest.importorskip("sparsevideo", reason="the sparsevideo package is not installed")

CLI = os.environ.get("SPARSIGHT_CLI", str(pathlib.Path(__file__).parents[2] / "build/release/bin/sparsight-cli"))
STEPS, LAYERS, HEADS = 50, 30, 12


def value(step, layer, head):
    return ((step * LAYERS + layer) * HEADS + head) % 97 / 100


@pytest.fixture()
def profile(tmp_path):
    """A profile of every role, in our own form."""

    def make(role):
        path = tmp_path / f"{role}.json"
        values = [[[value(s, l, h) for h in range(HEADS)] for l in range(LAYERS)] for s in range(STEPS)]
        document = {"format": "sparsight-profile", "format_version": [1, 0], "role": role, "steps": STEPS,
                    "layers": LAYERS, "heads": HEADS, "values": values}
        path.write_text(json.dumps(document))
        return path

    return make


def export(profile, out, *params, model="wan21-t2v-1.3b"):
    command = [CLI, "export", str(profile), "--to", "sparsevideo", "--model", model, "--out", str(out), "--quiet"]
    for param in params:
        command += ["--param", param]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize("method, role", [("svg1", "kept_target"), ("svg2", "kept_floor"), ("svoo", "kept_floor"),
                                          ("svg2", "top_mass"), ("svoo", "top_mass")])
def test_the_runtime_accepts_the_configuration_and_every_key_is_explicit(profile, tmp_path, method, role):
    config = export(profile(role), tmp_path / "out.json", f"method={method}")
    assert sparsevideo.normalize_method_config(method, config) == config
    defaults = sparsevideo.default_method_config(method, model_key="wan21-t2v-1.3b", num_inference_steps=STEPS)
    assert set(defaults) <= set(config)


def test_models_get_the_runtimes_own_values(profile, tmp_path):
    """What the budget does not say is what SparseVideo itself would use for that model."""
    budget = {"svg1": "sparsity", "svg2": "min_kc_ratio", "svoo": "min_kc_ratio"}
    ours = {"sparsity_csv_path", "use_dynamic_min_kc_ratio", "dynamic_min_kc_ratio_min", "dynamic_min_kc_ratio_max"}
    for model in ("wan21-t2v-1.3b", "cogvideox-t2v", "cogvideox-i2v", "ltx-video", "mochi-1", "allegro",
                  "easyanimate-v5-t2v-12b"):
        for method, key in budget.items():
            config = export(profile("kept_target" if method == "svg1" else "kept_floor"), tmp_path / "m.json",
                            f"method={method}", model=model)
            own = sparsevideo.default_method_config(method, model_key=model, num_inference_steps=STEPS)
            for name, expected in own.items():
                if name not in ours | {key}:
                    assert config[name] == expected, (model, method, name)


def test_svoo_reads_the_whole_grid(profile, tmp_path):
    from sparsevideo.methods.svoo.ops import load_sparsity_lookup

    config = export(profile("kept_floor"), tmp_path / "svoo.json")
    assert config["use_dynamic_min_kc_ratio"] is True
    lookup = load_sparsity_lookup(config["sparsity_csv_path"])
    assert len(lookup) == STEPS * LAYERS * HEADS
    assert lookup[(1, 0, 0)] == value(0, 0, 0)  # steps from 1, layers and heads from 0
    assert lookup[(STEPS, LAYERS - 1, HEADS - 1)] == value(STEPS - 1, LAYERS - 1, HEADS - 1)
    with open(config["sparsity_csv_path"], encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["Step", "Layer", "Head", "Sparsity"]


@pytest.mark.parametrize("method, role, key", [("svg2", "kept_floor", "min_kc_ratio"),
                                               ("svg2", "top_mass", "top_p_kmeans"),
                                               ("svg1", "kept_target", "sparsity")])
def test_the_adapter_gives_each_layer_and_step_its_own_value(profile, tmp_path, monkeypatch, method, role, key):
    config = export(profile(role), tmp_path / "budget.json", f"method={method}")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("sparsight_sparsevideo", None)
    import sparsight_sparsevideo as adapter

    table = json.loads((tmp_path / "budget.profile.json").read_text())
    budgeted, name = adapter.budgeted_method(method, table, key)
    assert name in sparsevideo.list_methods()
    info = types.SimpleNamespace(model_type="wan", model_key="wan21-t2v-1.3b", pipeline_backend="diffusers")
    instance = budgeted(config=config, model_info=info)
    tracker = types.SimpleNamespace(step=0, timestep=0.0)
    seen = {}
    base = sparsevideo._registry.get_method_class(method)
    original = base.create_processor

    def spy(self, layer_idx, *rest):
        seen[layer_idx] = self.config
        return original(self, layer_idx, *rest)

    monkeypatch.setattr(base, "create_processor", spy)
    for layer in range(LAYERS):
        instance.create_processor(layer, LAYERS, None, tracker)
    for step in (1, 7, STEPS):
        tracker.step = step
        for layer in (0, 13, LAYERS - 1):
            expected = [value(step - 1, layer, h) for h in range(HEADS)]
            if key != "min_kc_ratio":
                expected = sum(expected) / HEADS
            assert seen[layer][key] == pytest.approx(expected)
            assert seen[layer].get(key) == pytest.approx(expected)
            others = {k: v for k, v in config.items() if k != key}
            assert {k: seen[layer][k] for k in others} == others
    assert instance.config[key] == config[key]  # the shared one is untouched
    tracker.step = STEPS + 1
    with pytest.warns(UserWarning, match="held"):
        assert seen[0][key] == pytest.approx(seen[0][key])
    with pytest.raises(ValueError, match="layers"):
        instance.create_processor(0, LAYERS + 1, None, tracker)
