# SPDX-License-Identifier: Apache-2.0
"""Budgets per denoising step, layer and head for SparseVideo, which itself takes one value for all of them.

    import json, sparsight_sparsevideo
    config = json.load(open("budget.json"))
    handle = sparsight_sparsevideo.apply_budget(pipe, "svg2", config, "budget.profile.json", key="min_kc_ratio")
    ...
    handle.restore()

Only SparseVideo's own plug-in point is used (its method registry); nothing of it is patched or edited.
"""

import json
import warnings

#: Keys that take one value per head; for the others the mean over the heads is taken.
PER_HEAD = ("min_kc_ratio",)


class _LayerConfig(dict):
    """One layer's view of a method's configuration: `key` follows the denoising step, all else is as given."""

    def __init__(self, config, key, by_step, tracker):
        super().__init__(config)
        self._key, self._by_step, self._tracker = key, by_step, tracker
        self._said = False

    def _now(self):
        step = max(int(self._tracker.step), 1)  # SparseVideo counts from 1
        if step > len(self._by_step) and not self._said:
            self._said = True
            warnings.warn(
                f"the budget has {len(self._by_step)} denoising steps and the pipeline is at step {step}: "
                "the last step's values are held"
            )
        return self._by_step[min(step, len(self._by_step)) - 1]

    def __getitem__(self, name):
        return self._now() if name == self._key else super().__getitem__(name)

    def get(self, name, default=None):
        return self._now() if name == self._key else super().get(name, default)


def budget_table(profile, key, branches=1):
    """[layers][steps] of what `key` is to be: a list of branches * heads values, or their mean over the heads.

    `profile` is a parsed Sparsight profile (values[step][layer][head], fractions). `branches`: guidance branches that
    a pipeline runs in one batch (CogVideoX: 2). Raises ValueError for a file of another kind or one with holes.
    """
    if profile.get("format") != "sparsight-profile" or profile.get("format_version", [0])[0] != 1:
        raise ValueError("not a Sparsight profile of version 1")
    values = profile["values"]
    if any(v is None for step in values for layer in step for v in layer):
        raise ValueError("the profile has cells without a value; export it with --fill")
    if key in PER_HEAD:
        return [[list(step[layer]) * branches for step in values] for layer in range(profile["layers"])]
    return [[sum(step[layer]) / len(step[layer]) for step in values] for layer in range(profile["layers"])]


def budgeted_method(method, profile, key, branches=1):
    """A subclass of SparseVideo's method whose `key` comes from `profile`, and the name it is registered under."""
    from sparsevideo import _registry

    base = _registry.get_method_class(method)
    table = budget_table(profile, key, branches)

    class Budgeted(base):
        def create_processor(self, layer_idx, total_layers, original_processor, step_tracker):
            # Wan2.2 under DiffSynth counts both experts' layers in one row; each has the profile's.
            if total_layers not in (len(table), 2 * len(table)):
                raise ValueError(f"the budget has {len(table)} layers, the model {total_layers}")
            whole = self.config
            self.config = _LayerConfig(whole, key, table[layer_idx % len(table)], step_tracker)
            try:
                return super().create_processor(layer_idx, total_layers, original_processor, step_tracker)
            finally:
                self.config = whole

    Budgeted.__name__ = f"Budgeted{base.__name__}"
    name = f"{method}_budgeted"
    _registry.register_method(name, cls=Budgeted)
    return Budgeted, name


def apply_budget(pipe, method, config, profile, key, branches=1):
    """Like sparsevideo.apply(pipe, method, config), with `key` from a profile (a path or a parsed one).

    Returns SparseVideo's handle: handle.restore() undoes it.
    """
    import sparsevideo

    if not isinstance(profile, dict):
        with open(profile, encoding="utf-8") as file:
            profile = json.load(file)
    _, name = budgeted_method(method, profile, key, branches)
    return sparsevideo.apply(pipe, method=name, config=config)
