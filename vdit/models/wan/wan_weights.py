"""Published weights of the Wan 2.1 and 2.2 transformers (diffusers' layout), tensor by tensor as `wan_dit` has them.

A published matrix is (out, in). The published rotary rotates pairs 2i, 2i + 1 of a head, ours i
and K/2 + i; the columns of queries and keys are permuted for it, which leaves their products unchanged.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vdit.config import WAN_TIME_FEATURES, ModelConfig
from vdit.data import Interface
from vdit.errors import UserError
from vdit.io.files import parse_json
from vdit.io.weights.safetensors import open_tensors
from vdit.models.wan.wan_dit import EPSILON

CLASS = "WanTransformer3DModel"
MASK_CHANNELS = 4
"""Of each of a latent's frames one, which is 1 where it is known."""
EXPECTED = {
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": EPSILON,
    "freq_dim": WAN_TIME_FEATURES,
    "pos_embed_seq_len": None,
}
"""What a published config must say, if it says it; pos_embed_seq_len is of first and last frame to video."""


class Published(NamedTuple):
    """What a published config.json says.

    Attributes:
      model: our config of it.
      channels: of the latents that it takes: those that are generated, then those of what is known (image to video).
      generated: how many of them are generated.
      patch: extent of a patch in latents.
      text: caption features.
    """

    model: ModelConfig
    channels: int
    generated: int
    patch: tuple[int, int, int]
    text: int


def read_config(path: Path, model: ModelConfig) -> Published:
    """What a published config.json says, in `model` the sizes.

    Raises:
      UserError: if the file is missing or of a transformer that this is not, such as VACE's.
    """
    try:
        values = parse_json(path.read_bytes(), path)
        if values["_class_name"] != CLASS:
            raise ValueError(f"_class_name {values['_class_name']!r}")
        for name, expected in EXPECTED.items():
            if values.get(name, expected) != expected:
                raise ValueError(f"{name} {values[name]!r} instead of {expected!r}")
        channels, patch = values["in_channels"], tuple(values["patch_size"])
        generated = values.get("out_channels") or channels
        # Of image to video there are as many channels again of what is known, and the masks of a latent's frames.
        if channels not in (generated, 2 * generated + MASK_CHANNELS) or patch[0] != 1:
            raise ValueError(f"in_channels {channels}, out_channels {generated}, patch_size {patch}")
        heads, head_width = values["num_attention_heads"], values["attention_head_dim"]
        image, added = values.get("image_dim"), values.get("added_kv_proj_dim")
        if added != (heads * head_width if image else None):
            raise ValueError(f"image_dim {image} with added_kv_proj_dim {added}")
        config = dataclasses.replace(
            model,
            width=heads * head_width,
            depth=int(values["num_layers"]),
            head_width=head_width,
            feed_forward=values["ffn_dim"] / (heads * head_width),
            base_width=heads * head_width,
            condition=(channels - generated) * int(np.prod(patch)),
            image=image or 0,
            prediction="v",
        )
        return Published(config, channels, generated, patch, values["text_dim"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the config of a Wan 2.1 or 2.2 transformer ({error!r})") from error


@dataclasses.dataclass(frozen=True)
class PublishedWeight:
    """A weight of ours and the published tensors that are stacked to make it.

    Attributes:
      names: published; "{}" stands for the layer, the leading axis of ours.
      inputs, outputs: dimensions of ours; a matrix (outputs, inputs) is transposed, a vector has no inputs.
      rotated: of the tensors, how many hold queries or keys that are rotated by their position.
      shape: of a published tensor, if it is not the matrix or vector; a convolution's kernel is (out, in, t, y, x).
      split: of the inputs of a convolution, how many come first, in all of the patch (the rest follow likewise).
    """

    names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rotated: int = 0
    shape: tuple[int, ...] = ()
    split: int = 0

    @property
    def published_shape(self) -> tuple[int, ...]:
        rows, columns = (int(np.prod(sizes)) for sizes in (self.outputs, self.inputs))
        return self.shape or ((rows, columns) if self.inputs else (rows,))

    def stack(self, get: Callable[[str], np.ndarray], layer: int) -> np.ndarray:
        """Ours, of one layer."""
        arrays = []
        for number, name in enumerate(self.names):
            array = get(name.format(layer))
            if array.ndim == 5:
                rows = [part.reshape(len(part), -1) for part in np.split(np.moveaxis(array, 1, -1), [self.split], -1)]
                array = np.concatenate(rows, -1)
            if self.inputs:
                array = array.reshape(len(array), -1).T
            array = array.reshape(*self.inputs, *self.outputs)
            if number < self.rotated:
                array = np.concatenate([array[..., 0::2], array[..., 1::2]], -1)
            arrays.append(array)
        return arrays[0] if len(arrays) == 1 else np.stack(arrays, len(self.inputs))

    def unstack(self, matrix: np.ndarray) -> list[np.ndarray]:
        """The published matrices, of one layer, from ours: the inverse of `stack`."""
        axis = len(self.inputs)
        arrays = []
        for number in range(len(self.names)):
            array = matrix if len(self.names) == 1 else matrix.take(number, axis)
            if number < self.rotated:
                array = np.stack(np.split(array, 2, -1), -1).reshape(array.shape)
            arrays.append(array.reshape(-1, int(np.prod(self.outputs))).T)
        return arrays


def _weights(published: Published) -> dict[str, PublishedWeight]:
    """All weights, by their names in `wan_dit`."""
    config, channels, generated, patch, text = published
    d, f, (h, k) = (config.width,), (config.feed_forward_width,), (config.heads, config.head_width)
    taken, given_back = ((count * int(np.prod(patch)),) for count in (channels, generated))
    weights: dict[str, PublishedWeight] = {}

    def linear(ours: str, bias: str, published: str, inputs: Any, outputs: Any, of: str = "", rotated: int = 0) -> None:
        names = [published + letter for letter in of] or [published]
        weights[ours] = PublishedWeight(tuple(f"{name}.weight" for name in names), inputs, outputs, rotated)
        weights[bias] = PublishedWeight(tuple(f"{name}.bias" for name in names), (), outputs, rotated)

    embedder, block = "condition_embedder.", "blocks.{}."
    linear("patch_in", "patch_bias", "patch_embedding", taken, d)
    kernel = (*d, channels, *patch)
    weights["patch_in"] = dataclasses.replace(weights["patch_in"], shape=kernel, split=generated)
    linear("text_in", "text_bias", embedder + "text_embedder.linear_1", (text,), d)
    linear("text_mid", "text_mid_bias", embedder + "text_embedder.linear_2", d, d)
    linear("time_in", "time_bias", embedder + "time_embedder.linear_1", (WAN_TIME_FEATURES,), d)
    linear("time_mid", "time_mid_bias", embedder + "time_embedder.linear_2", d, d)
    linear("modulation", "modulation_bias", embedder + "time_proj", d, (6 * d[0],))
    linear("out", "out_bias", "proj_out", d, given_back)
    weights["final"] = PublishedWeight(("scale_shift_table",), (), (2, *d), shape=(1, 2, *d))

    linear("blocks.qkv", "blocks.qkv_bias", block + "attn1.to_", d, (h, k), "qkv", rotated=2)
    linear("blocks.out", "blocks.out_bias", block + "attn1.to_out.0", (h, k), d)
    linear("blocks.text_q", "blocks.text_q_bias", block + "attn2.to_q", d, (h, k))
    linear("blocks.text_kv", "blocks.text_kv_bias", block + "attn2.to_", d, (h, k), "kv")
    linear("blocks.text_out", "blocks.text_out_bias", block + "attn2.to_out.0", (h, k), d)
    linear("blocks.text_norm", "blocks.text_norm_bias", block + "norm2", (), d)
    linear("blocks.up", "blocks.up_bias", block + "ffn.net.0.proj", d, f)
    linear("blocks.down", "blocks.down_bias", block + "ffn.net.2", f, d)
    for ours, attention, rotated in (("qk_gain", "attn1", 2), ("text_gain", "attn2", 0)):
        names = tuple(f"{block}{attention}.norm_{letter}.weight" for letter in "qk")
        weights[f"blocks.{ours}"] = PublishedWeight(names, (), (h, k), rotated)
    weights["blocks.table"] = PublishedWeight((block + "scale_shift_table",), (), (6, *d), shape=(1, 6, *d))
    if config.image:
        i, image = (config.image,), embedder + "image_embedder."
        linear("image.norm_in", "image.norm_in_bias", image + "norm1", (), i)
        linear("image.up", "image.up_bias", image + "ff.net.0.proj", i, i)
        linear("image.down", "image.down_bias", image + "ff.net.2", i, d)
        linear("image.norm_out", "image.norm_out_bias", image + "norm2", (), d)
        keys = [f"{block}attn2.add_{letter}_proj" for letter in "kv"]
        weights["blocks.image_kv"] = PublishedWeight(tuple(f"{name}.weight" for name in keys), d, (h, k))
        weights["blocks.image_kv_bias"] = PublishedWeight(tuple(f"{name}.bias" for name in keys), (), (h, k))
        weights["blocks.image_gain"] = PublishedWeight((block + "attn2.norm_added_k.weight",), (), (h, k))
    return weights


def block_matrices(config: ModelConfig) -> dict[str, PublishedWeight]:
    """The matrices of a block, by their names in `wan_dit`."""
    blocks = {
        name.removeprefix("blocks."): weight for name, weight in _weights(Published(config, 1, 1, (1, 1, 1), 1)).items()
    }
    return {name: weight for name, weight in blocks.items() if weight.inputs and weight.names[0].startswith("blocks.")}


def _layers(name: str, config: ModelConfig) -> range:
    return range(config.depth if name.startswith("blocks.") else 1)


def published_shapes(published: Published) -> dict[str, tuple[int, ...]]:
    """Shape of every published tensor."""
    return {
        tensor.format(layer): weight.published_shape
        for name, weight in _weights(published).items()
        for layer in _layers(name, published.model)
        for tensor in weight.names
    }


@contextlib.contextmanager
def open_published(folder: Path, config: ModelConfig, interface: Interface) -> Iterator[Callable[[str], np.ndarray]]:
    """Opens a folder with a published config.json and safetensors.

    Args:
      folder: the folder.
      config: as `read_config` gives it.
      interface: of the data set.

    Yields:
      name of one of our weights, such as "blocks.qkv" -> the array, in the dtype of the files.

    Raises:
      UserError: if the files do not hold exactly this transformer's tensors, or the data set's patches or captions are
        not such as it takes.
    """
    published = read_config(folder / "config.json", config)
    channels, patch, text = published.channels, published.patch, published.text
    kind = "wan_i2v" if published.model.condition else "wan"
    if interface != Interface(channels * int(np.prod(patch)), text):
        raise UserError(
            f"{folder} takes patches of {patch[1]}x{patch[2]} latents of {channels} channels and captions of {text} "
            f"features, the data set has {interface.patch} numbers a patch and {interface.text} features; "
            f"build it with the autoencoder ({kind}:PIPELINE) and text encoder of the weights"
        )
    weights, shapes = _weights(published), published_shapes(published)
    unused = [f"blocks.{layer}.attn2.norm_added_q.weight" for layer in range(config.depth)]  # of no effect
    with open_tensors(folder, shapes, unused) as get:

        def ours(name: str) -> np.ndarray:
            arrays = [weights[name].stack(get, layer) for layer in _layers(name, config)]
            return np.stack(arrays) if name.startswith("blocks.") else arrays[0]

        yield ours
