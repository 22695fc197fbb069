"""Latents for Wan's image to video: those of a clip, and behind them what is known of it, which is its first frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.models.autoencoders.wan_vae import load_wan_vae


def load_wan_i2v(where: str) -> Autoencoder:
    """The autoencoder of `load_wan_vae`, whose latents have what is known of the clip behind them.

    It is a mask for every frame of a latent, 1 if that is known, and the latents of the first frame and grey ones.
    """
    inner = load_wan_vae(where)
    time = inner.strides[0]

    @jax.jit
    def encode(weights: Any, video_BTYXC: Array, past: Any) -> tuple[Array, Any]:
        clips = {"clip": video_BTYXC, "known": video_BTYXC if past is None else jnp.zeros_like(video_BTYXC)}
        out = {name: inner.encoder(weights, clip, past and past[name]) for name, clip in clips.items()}
        latents, known = (out[name][0] for name in clips)
        mask = jnp.full((*latents.shape[:-1], time), past is None, latents.dtype)
        return jnp.concatenate([latents, mask, known], -1), {name: left for name, (_, left) in out.items()}

    @jax.jit
    def decode(weights: Any, latents_BTYXC: Array, past: Any) -> tuple[Array, Any]:
        return inner.decoder(weights, latents_BTYXC[..., : inner.channels], past)

    return dataclasses.replace(
        inner,
        name=f"wan_i2v:{where}",
        channels=2 * inner.channels + time,
        condition=inner.channels + time,
        encoder=encode,
        decoder=decode,
    )
