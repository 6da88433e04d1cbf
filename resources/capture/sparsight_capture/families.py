# SPDX-License-Identifier: Apache-2.0
"""What differs between model families: where layers, text and the token grid are, and how guidance calls the model."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

Grid = Tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """Attention modules of one kind: ``pattern`` matches the whole module name, its group is the layer. Single-stream
    blocks follow the double-stream ones: ``after`` names the config entry that counts those."""

    pattern: str
    kind: str
    after: str = ""


@dataclass(frozen=True)
class Family:
    """``name``: of the model family; ``classes``: pattern of the transformer's class name.

    text: place of the text tokens in joint attention ("none": cross-attention only). batched: guidance runs as one call
    with the batch [uncond, cond]; otherwise as one call per branch, cond first. per_sample: the attention calls SDPA once
    per batch element. rope: pairing of channels.
    """

    name: str
    classes: str
    blocks: Tuple[Block, ...]
    text: str = "none"
    batched: bool = False
    per_sample: bool = False
    rope: str = "interleaved"


FAMILIES: Tuple[Family, ...] = (
    Family(
        "wan2.1",
        r"(Wan|WanVACE|WanAnimate|SkyReelsV2|ChronoEdit)Transformer3DModel",
        (Block(r"blocks\.(\d+)\.attn1", "self"), Block(r"blocks\.(\d+)\.attn2", "cross")),
    ),
    Family(
        "hunyuanvideo",
        r"HunyuanVideoTransformer3DModel",
        (
            Block(r"transformer_blocks\.(\d+)\.attn", "joint"),
            Block(r"single_transformer_blocks\.(\d+)\.attn", "joint", after="num_layers"),
        ),
        text="last",
    ),
    Family(
        "hunyuanvideo-1.5",
        r"HunyuanVideo15Transformer3DModel",
        (Block(r"transformer_blocks\.(\d+)\.attn", "joint"),),
        text="last",
    ),
    Family(
        "cogvideox",
        r"CogVideoXTransformer3DModel",
        (Block(r"transformer_blocks\.(\d+)\.attn1", "joint"),),
        text="first",
        batched=True,
    ),
    Family(
        "ltx",
        r"LTXVideoTransformer3DModel",
        (Block(r"transformer_blocks\.(\d+)\.attn1", "self"), Block(r"transformer_blocks\.(\d+)\.attn2", "cross")),
        batched=True,
    ),
    Family(
        "ltx2",
        r"LTX2VideoTransformer3DModel",
        (
            Block(r"transformer_blocks\.(\d+)\.attn1", "self"),
            Block(r"transformer_blocks\.(\d+)\.attn2", "cross"),
            Block(r"transformer_blocks\.(\d+)\.audio_attn1", "audio_self"),
            Block(r"transformer_blocks\.(\d+)\.audio_attn2", "audio_cross"),
            Block(r"transformer_blocks\.(\d+)\.audio_to_video_attn", "audio_to_video"),
            Block(r"transformer_blocks\.(\d+)\.video_to_audio_attn", "video_to_audio"),
        ),
        batched=True,
    ),
    Family(
        "mochi",
        r"MochiTransformer3DModel",
        (Block(r"transformer_blocks\.(\d+)\.attn1", "joint"),),
        text="last",
        batched=True,
        per_sample=True,
    ),
    Family(
        "cosmos",
        r"CosmosTransformer3DModel",
        (Block(r"transformer_blocks\.(\d+)\.attn1", "self"), Block(r"transformer_blocks\.(\d+)\.attn2", "cross")),
        rope="half",
    ),
)

# Any other model: every module that calls SDPA, its layer the first number in its name, its kind read off the shapes.
UNKNOWN = Family("unknown", r".*", (), text="last")


def family_of(transformer: Any) -> Family:
    """The family of a diffusers transformer by its class name; UNKNOWN for any other module."""
    name = type(transformer).__name__
    return next((f for f in FAMILIES if re.fullmatch(f.classes, name)), UNKNOWN)


@dataclass(frozen=True)
class Site:
    """One attention module. kind "": to be read off the shapes of the call."""

    module: str
    layer: int
    kind: str


def config_of(module: Any) -> Dict[str, Any]:
    """The model's configuration as a plain dict; empty for modules without one."""
    config = getattr(module, "config", None)
    return dict(config) if isinstance(config, Mapping) else {}


def sites_of(module: Any, family: Family) -> Dict[str, Site]:
    """Attention modules by name. Known families: those in blocks (not refiners or encoders) under their kind, the rest
    as kind "other". Unknown models: every module with a processor, or every module where none has one."""
    config = config_of(module)
    named = [(name, m) for name, m in module.named_modules() if name]
    attentions = [name for name, m in named if hasattr(m, "processor")]
    if family is not UNKNOWN:
        return {name: _known_site(name, family, config) for name in attentions}
    names = attentions or [name for name, _ in named] or [""]
    sites: Dict[str, Site] = {}
    for order, name in enumerate(names):
        number = re.search(r"(?:^|\.)(\d+)(?=\.|$)", name)
        sites[name] = Site(name, int(number.group(1)) if number else (order if attentions else 0), "")
    return sites


def _known_site(name: str, family: Family, config: Dict[str, Any]) -> Site:
    for block in family.blocks:
        match = re.fullmatch(block.pattern, name)
        if match:
            return Site(name, int(match.group(1)) + (int(config.get(block.after, 0)) if block.after else 0), block.kind)
    return Site(name, -1, "other")


def forward_arguments(module: Any, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
    """The arguments of module.forward by name, however they were passed."""
    try:
        bound = inspect.signature(module.forward).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):
        return dict(kwargs)
    named: Dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if name == "kwargs" and isinstance(value, dict):
            named.update(value)
        else:
            named[name] = value
    return named


def patch_of(config: Mapping[str, Any]) -> Grid:
    """Patch size (t, h, w) in latent cells."""
    patch = config.get("patch_size", 1)
    if isinstance(patch, (list, tuple)):
        return (1, int(patch[0]), int(patch[1])) if len(patch) == 2 else (int(patch[0]), int(patch[1]), int(patch[2]))
    return int(config.get("patch_size_t") or 1), int(patch), int(patch)


def grid_of(family: Family, config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Optional[Grid]:
    """Token grid (T, H, W) of a forward call, from the latents' shape; None where it does not show."""
    hidden = arguments.get("hidden_states")
    shape = tuple(getattr(hidden, "shape", ()))
    t, h, w = patch_of(config)
    if len(shape) == 5:
        frames, rows, columns = (shape[1] if family.name == "cogvideox" else shape[2]), shape[3], shape[4]
    elif len(shape) == 3 and all(arguments.get(n) is not None for n in ("num_frames", "height", "width")):
        frames, rows, columns = (int(arguments[n]) for n in ("num_frames", "height", "width"))
    else:
        return None
    return max(1, frames // t), max(1, rows // h), max(1, columns // w)


def model_facts(module: Any, family: Family, sites: Mapping[str, Site]) -> Dict[str, Any]:
    """Attributes of /model that the module tells by itself."""
    config = config_of(module)
    layers = [s.layer for s in sites.values() if s.kind in ("self", "joint", "") and s.layer >= 0]
    facts: Dict[str, Any] = {
        "family": family.name,
        "class_name": type(module).__name__,
        "num_layers": max(layers) + 1 if layers else 0,
        "num_heads": int(config.get("num_attention_heads") or config.get("num_heads") or 0),
        "num_kv_heads": int(config.get("num_key_value_heads") or config.get("num_attention_heads") or 0),
        "head_dim": int(config.get("attention_head_dim") or 0),
        "attention": "joint" if any(s.kind == "joint" for s in sites.values()) else "self",
        "patch_size": list(patch_of(config)),
        "qk_norm": str(config.get("qk_norm") or ""),
        "rope": family.rope if family is not UNKNOWN else "",
    }
    if family.name == "cogvideox" and not config.get("use_rotary_positional_embeddings", True):
        facts["rope"] = "none"
    return facts


def vae_stride(pipe: Any) -> List[int]:
    """(t, h, w) of the video autoencoder, as the pipeline states it; 0 where it does not."""

    def first(*names: str) -> int:
        return next((int(getattr(pipe, n)) for n in names if isinstance(getattr(pipe, n, None), int)), 0)

    t = first("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
    s = first("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor")
    return [t, s, s]
