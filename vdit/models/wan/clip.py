"""CLIP's vision transformer (Radford et al. 2021, arXiv:2103.00020), inference only: features of a given image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from vdit.errors import UserError
from vdit.io.files import parse_json
from vdit.io.weights.safetensors import read_tensors
from vdit.models.wan.wan_image import IMAGE_TOKENS

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the channels, in [0, 1], of the images that CLIP was trained on."""

PREFIX = "vision_model."
UNUSED = tuple(
    f"{PREFIX}{name}" for name in ("post_layernorm.weight", "post_layernorm.bias", "embeddings.position_ids")
)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Sizes.

    Attributes:
      width, layers, heads, feed_forward: D, number of layers, H and F.
      side, patch: of the image and of its squares, in pixels.
      activation: of the feed-forward layers, of `ACTIVATIONS`.
      epsilon: of the norms.
    """

    width: int
    layers: int
    heads: int
    feed_forward: int
    side: int
    patch: int
    activation: str = "gelu"
    epsilon: float = 1e-5

    @property
    def tokens(self) -> int:
        """One for the whole image, then one for each square."""
        return 1 + (self.side // self.patch) ** 2

    @classmethod
    def read(cls, path: Path) -> ClipConfig:
        """From a published config.json.

        Raises:
          UserError: if it is missing, of another model, or of one with other numbers of tokens than Wan attends to.
        """
        try:
            values = parse_json(path.read_bytes(), path)
            if values["model_type"] != "clip_vision_model":
                raise ValueError(f"model_type {values['model_type']!r}")
            config = cls(
                width=values["hidden_size"],
                layers=values["num_hidden_layers"],
                heads=values["num_attention_heads"],
                feed_forward=values["intermediate_size"],
                side=values["image_size"],
                patch=values["patch_size"],
                activation=values.get("hidden_act", "quick_gelu"),
                epsilon=values.get("layer_norm_eps", 1e-5),
            )
            if config.activation not in ACTIVATIONS or config.tokens != IMAGE_TOKENS:
                raise ValueError(f"hidden_act {config.activation}, {config.tokens} tokens instead of {IMAGE_TOKENS}")
            return config
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the config of a CLIP image encoder ({error})") from error


def published_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every published tensor that is used; matrices are (out, in)."""
    d, f = (config.width,), (config.feed_forward,)
    shapes = {
        "embeddings.class_embedding": d,
        "embeddings.patch_embedding.weight": (*d, 3, config.patch, config.patch),
        "embeddings.position_embedding.weight": (config.tokens, *d),
        **_pair("pre_layrnorm", d),  # as published
    }
    for layer in range(config.layers - 1):
        name = f"encoder.layers.{layer}"
        shapes |= _pair(f"{name}.layer_norm1", d) | _pair(f"{name}.layer_norm2", d)
        for letter in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _pair(f"{name}.self_attn.{letter}", d, d)
        shapes |= _pair(f"{name}.mlp.fc1", f, d) | _pair(f"{name}.mlp.fc2", d, f)
    return {f"{PREFIX}{name}": shape for name, shape in shapes.items()}


def _pair(name: str, outputs: tuple[int, ...], inputs: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (*outputs, *inputs), f"{name}.bias": outputs}


def features(weights: Mapping[str, Array], pixels_BYXC: Array, config: ClipConfig) -> Array:
    """Features_BMD of images at the scale of `prepare`: the tokens before the last layer, which is what Wan takes."""

    def linear(name: str, x_BMD: Array) -> Array:
        return x_BMD @ weights[f"{PREFIX}{name}.weight"].T + weights[f"{PREFIX}{name}.bias"]

    def norm(name: str, x_BMD: Array) -> Array:
        centred = x_BMD - x_BMD.mean(-1, keepdims=True)
        unit = centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + config.epsilon)
        return unit * weights[f"{PREFIX}{name}.weight"] + weights[f"{PREFIX}{name}.bias"]

    embeddings = f"{PREFIX}embeddings."
    b, d, p, squares = len(pixels_BYXC), config.width, config.patch, config.side // config.patch
    squares_BLP = (
        pixels_BYXC.reshape(b, squares, p, squares, p, 3).transpose(0, 1, 3, 5, 2, 4).reshape(b, -1, 3 * p * p)
    )
    squares_BLD = squares_BLP @ weights[f"{embeddings}patch_embedding.weight"].reshape(d, -1).T
    first_B1D = jnp.broadcast_to(weights[f"{embeddings}class_embedding"], (b, 1, d))
    x_BMD = jnp.concatenate([first_B1D, squares_BLD], 1) + weights[f"{embeddings}position_embedding.weight"]
    x_BMD = norm("pre_layrnorm", x_BMD)
    for layer in range(config.layers - 1):
        name = f"encoder.layers.{layer}"
        h_BMD = norm(f"{name}.layer_norm1", x_BMD)
        q, k, v = (
            linear(f"{name}.self_attn.{letter}_proj", h_BMD).reshape(b, -1, config.heads, d // config.heads)
            for letter in "qkv"
        )
        mixed_BMD = jax.nn.dot_product_attention(q, k, v).reshape(x_BMD.shape)
        x_BMD += linear(f"{name}.self_attn.out_proj", mixed_BMD)
        hidden_BMF = ACTIVATIONS[config.activation](linear(f"{name}.mlp.fc1", norm(f"{name}.layer_norm2", x_BMD)))
        x_BMD += linear(f"{name}.mlp.fc2", hidden_BMF)
    return x_BMD


def prepare(image_YXC: np.ndarray, side: int) -> np.ndarray:
    """The middle square of an image at side x side, normalised, float32; as CLIPImageProcessor."""
    height, width, _ = image_YXC.shape
    size = side * width // min(height, width), side * height // min(height, width)
    resized = np.asarray(Image.fromarray(image_YXC).resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return (resized[top : top + side, left : left + side] - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """A CLIP vision transformer with its weights.

    Attributes:
      config: sizes.
      weights: by their published names, float32.
    """

    config: ClipConfig
    weights: Mapping[str, Array]

    def __call__(self, image_YXC: np.ndarray) -> np.ndarray:
        """Features_MD float32 of a uint8 image of any size."""
        pixels_BYXC = jnp.asarray(prepare(image_YXC, self.config.side)[None])
        run = jax.jit(lambda weights, pixels_BYXC: features(weights, pixels_BYXC, self.config))
        return np.asarray(run(self.weights, pixels_BYXC)[0])


def load_image_encoder(folder: Path) -> ImageEncoder:
    """The image encoder of a folder of published weights.

    Raises:
      UserError: if files are missing or do not fit each other.
    """
    config = ClipConfig.read(folder / "config.json")
    last = published_shapes(dataclasses.replace(config, layers=config.layers + 1))  # of no use, nor is what follows it
    tensors = read_tensors(folder, published_shapes(config), unused=[*last, *UNUSED])
    return ImageEncoder(config, {name: jnp.asarray(array, jnp.float32) for name, array in tensors.items()})
