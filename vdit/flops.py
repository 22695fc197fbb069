"""How much arithmetic a model does, counted from the segments it actually saw, and how many parameters do it.

One multiply-add is 2 FLOPs. A training step costs three forward passes (the backward pass is two), so training FLOPs
are 6 x the forward multiply-adds. Only matrix products are counted: norms, activations and softmax are not, and
neither is padding or recomputation (remat), so the count is that of the model, not of the implementation.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vdit.config import TIME_FEATURES, WAN_TIME_FEATURES, ModelConfig
from vdit.lora_config import BLOCK_MATRICES, OF_CAPTIONS, LoraConfig

POSITION_FEATURES = 24  # sines and cosines of a patch's place, added at the input, as in models.rotary
FLOPS_PER_TRAINING_MULTIPLY_ADD = 6  # 2 per multiply-add, 3 for forward and backward

NEWTON_SCHULZ = 5  # iterations of Muon, as in training.optimization.muon

Number = Any  # int, float or integer array: the counts broadcast over examples


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """The sizes that decide a model's arithmetic.

    Attributes:
      width: d, channels of a token.
      depth: number of transformer blocks.
      patch_size: P, numbers in one patch vector (time x height x width x channels).
      text_width: E, features of one caption token; 0 for a model without captions.
      mlp_ratio: width of the feed-forward layer over d.
      gated: True for SwiGLU, which has a third matrix.
      time_features: sinusoidal features of a diffusion time.
      position_features: sinusoidal features of a patch's place.
      cross: captions are not in the stream; patches attend to them and to one padding token (models.wan_dit).
      head_width: columns of a head, which are gains of its queries and keys.
      adapters: weights of adapters of one block that a patch and a caption token are multiplied by; (0, 0) where all
        weights are trained.
      condition: of the P numbers those that are not generated, see `ModelConfig.condition`.
      image: width of the features of an image, whose tokens count as caption tokens, see `ModelConfig.image`.
    """

    width: int
    depth: int
    patch_size: int
    text_width: int = 0
    mlp_ratio: float = 4.0
    gated: bool = False
    time_features: int = TIME_FEATURES
    position_features: int = POSITION_FEATURES
    cross: bool = False
    head_width: int = 0
    adapters: tuple[int, int] = (0, 0)
    condition: int = 0
    image: int = 0

    @property
    def block_weights(self) -> float:
        """Matrix weights of one block: 12 d^2 for the default ratio (4 d^2 attention, 8 d^2 feed-forward)."""
        return block_weights(self.width, self.mlp_ratio, self.gated)

    @property
    def time_weights(self) -> int:
        """Weights that run once per distinct time: features -> d, d -> 6 d for all layers, d -> 2 d for the output.

        With `cross` features -> d -> d and d -> 6 d.
        """
        return self.time_features * self.width + (7 if self.cross else 8) * self.width**2


def shape_of(model: ModelConfig, patch_size: int, text_width: int, lora: LoraConfig | None = None) -> ModelShape:
    """The sizes of a configured model on data with such patches and captions, and of its adapters if there are any."""
    shape = ModelShape(
        model.width, model.depth, patch_size, text_width, model.feed_forward, head_width=model.head_width
    )
    if lora:
        shape = dataclasses.replace(shape, adapters=_adapter_weights(model, lora))
    if model.family == "wan":
        return dataclasses.replace(
            shape,
            cross=True,
            time_features=WAN_TIME_FEATURES,
            position_features=0,
            condition=model.condition,
            image=model.image,
        )
    return shape


def _adapter_weights(model: ModelConfig, lora: LoraConfig) -> tuple[int, int]:
    """(of a patch, of a caption token): weights of the adapters of a block that it is multiplied by."""
    sizes = {"d": model.width, "f": model.feed_forward_width}
    of_matrix = {
        name: lora.rank * count * (sizes[inputs] + sizes[outputs])
        for name, (inputs, outputs, count) in BLOCK_MATRICES[model.family].items()
        if name in lora.chosen(model.family)
    }
    if model.family == "spacetime":
        return sum(of_matrix.values()), sum(of_matrix.values())
    of_captions = of_matrix.pop(OF_CAPTIONS, 0)
    return sum(of_matrix.values()), of_captions


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Parameter counts under both conventions.

    Attributes:
      without_embeddings: N of the scaling laws: all but the input, text and output projections.
      total: everything.
    """

    without_embeddings: int
    total: int


def block_weights(width: int, mlp_ratio: float = 4.0, gated: bool = False) -> float:
    """Matrix weights of a block: q, k, v and output (4 d^2), feed-forward in and out (2 r d^2, or 3 r d^2 gated)."""
    return (4 + (3 if gated else 2) * mlp_ratio) * width**2


def block_multiply_adds(width: int, tokens: Number, mlp_ratio: float = 4.0, gated: bool = False) -> Number:
    """Forward multiply-adds of one block over one segment, without modulation.

    Args:
      width: d.
      tokens: n, tokens of the segment that attend to each other (an integer or an array of them).
      mlp_ratio: feed-forward width over d.
      gated: SwiGLU.

    Returns:
      12 d^2 n + 2 n^2 d for ratio 4; the n^2 term is q k^T and the weighted sum of v over all heads.
    """
    n = np.asarray(tokens, np.float64)
    return block_weights(width, mlp_ratio, gated) * n + 2 * n * n * width


def forward_multiply_adds(shape: ModelShape, patches: Number, text_tokens: Number = 0, times: Number = 1) -> Number:
    """Forward multiply-adds of one example (a segment of a packed row), or of each of many.

    Args:
      shape: sizes of the model.
      patches: real patches of the example, given ones included.
      text_tokens: caption tokens in front of them.
      times: distinct diffusion times whose modulation is computed for it (adaLN-single computes one per distinct
        time of a row, not one per token).

    Returns:
      float64, broadcast over the arguments.
    """
    patches, text = np.asarray(patches, np.float64), np.asarray(text_tokens, np.float64)
    pairs = attending_pairs(shape.cross, patches, text)
    return _multiply_adds(shape, patches, text, pairs, np.asarray(times, np.float64))


def attending_pairs(cross: bool, patches: Number, text: Number) -> Number:
    """Pairs of query and key of one segment: n^2, or with `cross` patches to patches, captions and a padding token."""
    return patches**2 + patches * (text + 1) if cross else (patches + text) ** 2


def _multiply_adds(shape: ModelShape, patches: Number, text: Number, pairs: Number, times: Number) -> Number:
    """Linear in patches, caption tokens, pairs and distinct times, so it holds for one example and for sums of many."""
    return sum(_parts(shape, patches, text, pairs, times).values())


def _parts(shape: ModelShape, patches: Number, text: Number, pairs: Number, times: Number) -> dict[str, Number]:
    """Forward multiply-adds by what they are: attention, matrices of the blocks, projections out, in and of times.

    Those of adapters come last.
    """
    d = shape.width
    of_patch = of_text = shape.depth * shape.block_weights
    text_projection = shape.text_width * d
    if shape.cross:  # patches: queries and output of the second attention; captions: keys and values
        of_patch, of_text = of_patch + shape.depth * 2 * d**2, shape.depth * 2 * d**2
        text_projection += d**2
    patch_projection = (shape.patch_size + shape.position_features) * d
    return {
        "attention": shape.depth * 2 * d * pairs,
        "blocks": of_patch * patches + of_text * text,
        "out": (shape.patch_size - shape.condition) * d * patches,
        "in": patch_projection * patches + text_projection * text + shape.time_weights * times,
        "adapters": shape.depth * (shape.adapters[0] * patches + shape.adapters[1] * text),
    }


def forward_flops(
    width: int,
    depth: int,
    mlp_ratio: float,
    patch_size: int,
    patches: Number,
    text_tokens: Number,
    text_width: int,
    *,
    times: Number = 1,
    gated: bool = False,
) -> Number:
    """FLOPs (2 per multiply-add) of the forward pass of one example; see `forward_multiply_adds`."""
    shape = ModelShape(width, depth, patch_size, text_width, mlp_ratio, gated)
    return 2 * forward_multiply_adds(shape, patches, text_tokens, times)


def training_flops(shape: ModelShape, patches: Number, text_tokens: Number = 0, times: Number = 1) -> Number:
    """FLOPs of training on one example once: forward, and backward at twice its cost.

    With adapters the frozen matrices have no gradient, and nothing before the first block is differentiated.
    """
    patches, text = np.asarray(patches, np.float64), np.asarray(text_tokens, np.float64)
    pairs = attending_pairs(shape.cross, patches, text)
    return training_flops_of_sums(shape, patches, text, pairs, np.asarray(times, np.float64))


def training_flops_of_sums(shape: ModelShape, patches: Number, text: Number, pairs: Number, examples: Number) -> Any:
    """Training FLOPs of many examples from sums over them, which a run keeps as its account.

    Args:
      shape: sizes of the model.
      patches, text: real patches and caption tokens.
      pairs: sum of `attending_pairs` over the segments.
      examples: number of segments; each has one distinct time.
    """
    parts = _parts(shape, patches, text, pairs, examples)
    frozen = {"blocks": 4, "out": 4, "in": 2} if any(shape.adapters) else {}
    return sum(frozen.get(name, FLOPS_PER_TRAINING_MULTIPLY_ADD) * part for name, part in parts.items())


def batch_training_flops(shape: ModelShape, segments_BL: Any, text_index_BL: Any, times: Number = 1) -> float:
    """Training FLOPs of one step on packed rows, summed over their segments; padding costs nothing.

    Args:
      shape: sizes of the model.
      segments_BL, text_index_BL: as in `PackedBatch`.
      times: distinct times per example.
    """
    patches, text = segment_sizes(segments_BL, text_index_BL)
    return float(np.sum(training_flops(shape, patches, text, times)))


def attention_area(lengths: Any, block_q: int, block_k: int) -> int:
    """Query-key pairs that attention in blocks works on in one row: executed blocks times the area of a block.

    A query block runs against every key block that holds a token of one of its own segments, which for contiguous
    segments is one range of blocks. Blocks of padding alone are not run. The ideal is the sum of n^2.

    Args:
      lengths: tokens of the row's segments in order, from slot 0 without gaps.
      block_q, block_k: tokens of a query block and of a key block.
    """
    ends = np.cumsum(lengths)
    if not len(ends) or not ends[-1]:
        return 0
    first_slot = np.arange(0, ends[-1], block_q)
    last_slot = np.minimum(first_slot + block_q, ends[-1]) - 1
    starts = ends - lengths
    begin = starts[np.searchsorted(ends, first_slot, side="right")] // block_k
    end = (ends[np.searchsorted(ends, last_slot, side="right")] - 1) // block_k
    return int((end - begin + 1).sum()) * block_q * block_k


def muon_flops(model: ModelConfig) -> float:
    """FLOPs of Muon's Newton-Schulz iterations for all matrices of the blocks; every device does all of them.

    An iteration of m x n, m <= n, takes 2 m^2 n twice (the Gram matrix, its polynomial times x) and 2 m^3 (its square).
    """
    sizes = {"d": model.width, "f": model.feed_forward_width}
    total = 0.0
    for inputs, outputs, count in BLOCK_MATRICES[model.family].values():
        m, n = sorted((sizes[inputs], sizes[outputs]))
        total += count * NEWTON_SCHULZ * (4.0 * m * m * n + 2.0 * m**3)
    return model.depth * total


def attention_flops(width: int, area: Number, matmuls: Number) -> Number:
    """FLOPs of attention of all heads of one layer: `matmuls` products over `area` pairs, each over a head's width.

    Forward takes 2 (scores, mix); backward 4 in the model's count, 5 where the scores are computed again, 7 where the
    gradient of the queries is a kernel of its own.
    """
    return 2.0 * matmuls * np.asarray(area, np.float64) * width


def segment_sizes(segments_BL: Any, text_index_BL: Any) -> tuple[np.ndarray, np.ndarray]:
    """(patches, caption tokens) of every example of packed rows, in order, int64."""
    segments_BL, is_text_BL = np.asarray(segments_BL), np.asarray(text_index_BL) >= 0
    patches, text = [], []
    for segments_L, is_text_L in zip(segments_BL, is_text_BL, strict=True):
        count = int(segments_L.max(initial=0)) + 1
        everything = np.bincount(segments_L, minlength=count)[1:]
        words = np.bincount(segments_L[is_text_L], minlength=count)[1:]
        patches.append(everything - words)
        text.append(words)
    return np.concatenate(patches), np.concatenate(text)


def flops_6nd(parameters: Number, tokens: Number) -> Number:
    """The 6 N D convention (Kaplan et al. 2020): no attention term, no caption tokens, no projections."""
    return 6.0 * np.asarray(parameters, np.float64) * np.asarray(tokens, np.float64)


def parameters(shape: ModelShape) -> Parameters:
    """Parameters of the model, for planning before one is built.

    N is that of `models.transformer.parameter_counts`, which counts a real model: blocks with the gains of queries and
    keys, the shared time MLP with its biases, and a table of 6 d offsets per layer. Left out are the biases of the
    projections in and out, and with `cross` all biases and gains.
    """
    tables = shape.depth * 6 * shape.width
    if not shape.cross:
        tables += shape.depth * 2 * shape.head_width + 8 * shape.width
    second = (4 + 2 * bool(shape.image)) * shape.width**2 if shape.cross else 0  # its second attention
    without = round(shape.depth * (shape.block_weights + second) + shape.time_weights + tables)
    inputs = 2 * shape.patch_size - shape.condition + shape.position_features + shape.text_width
    inputs += shape.cross * shape.width + shape.image
    return Parameters(without, without + inputs * shape.width + shape.image**2)


def dit_multiply_adds(width: int, depth: int, patch: int, *, latent: int = 32, channels: int = 4) -> float:
    """The figure that the DiT paper (Peebles & Xie 2022, table 1) prints as "Gflops", which are multiply-adds.

    layers x (12 d^2 n + 2 n^2 d + 6 d^2) + the projections in and out (out has twice the channels: mean and variance),
    and 3 n d a layer for elementwise work that a profiler counts. That last term is inferred, not documented: without
    it the last printed digit of XL/2, XL/4 and L/4 is off by one or two, with it all twelve agree, and so does the
    512-pixel XL/2 (524.6).

    Args:
      width: d.
      depth: blocks.
      patch: side of a patch in latent pixels.
      latent: side of the latent image.
      channels: latent channels.
    """
    n, patch_size = (latent // patch) ** 2, patch * patch * channels
    elementwise = 3 * n * width
    blocks = depth * (block_multiply_adds(width, n) + 6 * width**2 + elementwise)
    return float(blocks + 3 * n * patch_size * width)
