# SPDX-License-Identifier: Apache-2.0
"""Tiny pipelines with random weights, one per family: for trying the capture without a download, and for its tests.

Their videos are noise and their attention means nothing; token order, guidance and masks are those of the real models.
"""

from __future__ import annotations

import zlib
from typing import Any, Callable, Dict, Tuple

import torch

Call = Dict[str, Any]  # arguments of the pipeline's call


def _text(prompt: str, tokens: int, channels: int) -> torch.Tensor:
    """Embeddings [1, tokens, channels] that depend on the prompt only."""
    generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
    return torch.randn(1, tokens, channels, generator=generator)


def _mask(prompt: str, tokens: int) -> torch.Tensor:
    """Valid text tokens [1, tokens], as if a prompt had one token per letter and one for its end."""
    return torch.arange(tokens)[None] <= len(prompt)


def _wan(prompt: str, negative: str, two_experts: bool = False) -> Tuple[Any, Call]:
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    def expert() -> Any:
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=32,
            freq_dim=256, ffn_dim=32, num_layers=4, rope_max_seq_len=32, qk_norm="rms_norm_across_heads",
        )  # fmt: skip

    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    experts = {"transformer_2": expert(), "boundary_ratio": 0.875} if two_experts else {}
    pipe = WanPipeline(
        tokenizer=None, text_encoder=None, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), transformer=expert(),
        **experts,
    )  # fmt: skip
    return pipe, dict(prompt_embeds=_text(prompt, 16, 32), negative_prompt_embeds=_text(negative, 16, 32), guidance_scale=6.0)


def _hunyuanvideo(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=2, num_single_layers=2,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    pipe = HunyuanVideoPipeline(
        text_encoder=None, tokenizer=None, transformer=transformer, vae=None, text_encoder_2=None, tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )  # fmt: skip
    return pipe, dict(
        prompt_embeds=_text(prompt, 16, 16), pooled_prompt_embeds=_text(prompt, 1, 8)[0], prompt_attention_mask=_mask(prompt,
        16),
        negative_prompt_embeds=_text(negative, 16, 16), negative_pooled_prompt_embeds=_text(negative, 1, 8)[0],
        negative_prompt_attention_mask=_mask(negative, 16), guidance_scale=4.5,
    )  # fmt: skip


def _hunyuanvideo15(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )

    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2, num_refiner_layers=1,
        patch_size=1, patch_size_t=1, text_embed_dim=16, text_embed_2_dim=12, image_embed_dim=8, rope_axes_dim=(2, 2, 4),
        target_size=16, task_type="t2v",
    )  # fmt: skip
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(16, 16, 16, 16, 16), layers_per_block=1)
    pipe = HunyuanVideo15Pipeline(
        text_encoder=None, tokenizer=None, transformer=transformer, vae=vae, text_encoder_2=None, tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip
    return pipe, dict(
        prompt_embeds=_text(prompt, 12, 16), prompt_embeds_mask=_mask(prompt, 12), prompt_embeds_2=_text(prompt, 6, 12),
        prompt_embeds_mask_2=_mask(prompt, 6), negative_prompt_embeds=_text(negative, 12, 16),
        negative_prompt_embeds_mask=_mask(negative, 12),
        negative_prompt_embeds_2=_text(negative, 6, 12), negative_prompt_embeds_mask_2=_mask(negative, 6),
    )  # fmt: skip


def _cogvideox(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=32,
        num_layers=2, sample_width=12, sample_height=8, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=16, use_rotary_positional_embeddings=True,
    )  # fmt: skip
    pipe = CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=transformer, scheduler=CogVideoXDDIMScheduler()
    )
    return pipe, dict(prompt_embeds=_text(prompt, 16, 32), negative_prompt_embeds=_text(negative, 16, 32), guidance_scale=6.0)


def _ltx(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=2, caption_channels=32,
    )  # fmt: skip
    pipe = LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None, transformer=transformer
    )
    return pipe, dict(
        prompt_embeds=_text(prompt, 16, 32), prompt_attention_mask=_mask(prompt, 16), negative_prompt_embeds=_text(negative,
        16, 32),
        negative_prompt_attention_mask=_mask(negative, 16), guidance_scale=3.0,
    )  # fmt: skip


def _mochi(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    transformer = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        qk_norm="rms_norm", text_embed_dim=32, time_embed_dim=4, activation_fn="swiglu", max_sequence_length=16,
    )  # fmt: skip
    pipe = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None, transformer=transformer
    )
    return pipe, dict(
        prompt_embeds=_text(prompt, 16, 32), prompt_attention_mask=_mask(prompt, 16), negative_prompt_embeds=_text(negative,
        16, 32),
        negative_prompt_attention_mask=_mask(negative, 16), guidance_scale=4.5,
    )  # fmt: skip


def _cosmos(prompt: str, negative: str) -> Tuple[Any, Call]:
    from diffusers import CosmosTextToWorldPipeline, CosmosTransformer3DModel, EDMEulerScheduler

    class NoSafetyChecker:
        """The pipeline insists on one; there is no text here that it could look at."""

        def to(self, *_: Any) -> NoSafetyChecker:
            return self

        def check_text_safety(self, prompt: str) -> bool:
            return True

        def check_video_safety(self, video: Any) -> Any:
            return video

    transformer = CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, mlp_ratio=2,
        text_embed_dim=32,
        adaln_lora_dim=4, max_size=(4, 32, 32), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0), concat_padding_mask=False,
        extra_pos_embed_type=None,
    )  # fmt: skip
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras", num_train_timesteps=1000,
        prediction_type="epsilon", rho=7.0, final_sigmas_type="sigma_min",
    )  # fmt: skip
    pipe = CosmosTextToWorldPipeline(
        text_encoder=None, tokenizer=None, transformer=transformer, vae=None, scheduler=scheduler,
        safety_checker=NoSafetyChecker(),
    )  # fmt: skip
    return pipe, dict(prompt_embeds=_text(prompt, 16, 32), negative_prompt_embeds=_text(negative, 16, 32), guidance_scale=3.0)


FAMILIES: Dict[str, Callable[..., Tuple[Any, Call]]] = {
    "wan": _wan,
    "wan2.2": lambda prompt, negative: _wan(prompt, negative, two_experts=True),
    "hunyuanvideo": _hunyuanvideo,
    "hunyuanvideo-1.5": _hunyuanvideo15,
    "cogvideox": _cogvideox,
    "ltx": _ltx,
    "mochi": _mochi,
    "cosmos": _cosmos,
}


def tiny(family: str, prompt: str = "", negative: str = "", seed: int = 0) -> Tuple[Any, Call]:
    """A pipeline of ``family`` with random weights, and the arguments of its call: 9 frames of 64 x 96, 4 steps."""
    if family not in FAMILIES:
        raise ValueError(f"tiny:{family} is unknown; one of {', '.join(FAMILIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe, call = FAMILIES[family](prompt, negative)
    for name in ("transformer", "transformer_2", "vae"):
        module = getattr(pipe, name, None)
        if module is not None:
            module.eval()
    pipe.set_progress_bar_config(disable=True)
    size = dict(height=64, width=96, num_frames=9, num_inference_steps=4)
    if family == "ltx":
        size.update(height=128, width=192)
    output = "pil" if getattr(pipe, "vae", None) is not None else "latent"
    return pipe, {**size, "output_type": output, "generator": torch.Generator().manual_seed(seed), **call}
