"""Configuration: frozen and validated dataclasses. `config_dict` makes them from what a file and flags say."""

from __future__ import annotations

import dataclasses
import itertools
import math

from vdit.autoencoder_config import AutoencoderConfig
from vdit.errors import UserError
from vdit.expressions import parse_condition
from vdit.io.names import expand_fields
from vdit.lora_config import LoraConfig

TIME_FEATURES = 128
"""Width of the sinusoidal features of a diffusion time."""

WAN_TIME_FEATURES = 256
"""The same of Wan's transformer."""


ATTENTION_BACKENDS = ("auto", "chunked", "splash", "gpu", "reference")
ATTENTION_OF_PLATFORM = {"cpu": "chunked", "tpu": "splash", "gpu": "gpu"}
"""What "auto" is on a platform; elsewhere "chunked", which runs anywhere."""
ATTENTION_BLOCKS = {"chunked": 64, "splash": 512}
"""Tokens of a chunk or block of a backend where model.attention_block is 0."""
SIBLING = "../"
"""Begins a train.branch_from that is relative to the folder in which the run's workdir lies."""
REMAT_POLICIES = ("none", "blocks", "attention", "offload")
TRACKERS = ("tensorboard", "wandb", "trackio")


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{field}={value!r} is not one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """What a run reads from a step on, until its next stage begins.

    Attributes:
      step: first step of the stage.
      max_area: examples whose frames hold more patches than this are left out; 0 = no limit.
      max_frames: as DataConfig.max_frames; 0 = as there.
      weights: as DataConfig.weights; empty = as there.
    """

    step: int = 0
    max_area: int = 0
    max_frames: int = 0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("step", "max_area", "max_frames"):
            if getattr(self, name) < 0:
                raise UserError(f"data.stages has {name}={getattr(self, name)}; it must not be negative")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read and how it is packed.

    Attributes:
      path: data set directory, as written by data_pipelines.build; several, separated by commas, are mixed.
      split: split to train on.
      row_tokens, row_examples, row_text: slots, examples and caption tokens that a row can hold.
      rows_per_step: rows of one step, over all devices.
      max_frames: longer clips are cut to windows of at most this many frames, which cover them over the epochs; 0 =
        whole clips. Latents are cut when they are built: here it counts frames of latents, and must not cut any.
      captions: caption kinds, one drawn at random per example and epoch; empty = all of the data set.
      pack_window: examples among which the plan packs best-fit.
      buckets: 0 packs best-fit; n sorts examples into n buckets of length, and a row holds as many of one bucket as
        would fit were they all as long as its longest: 1 is padding to the longest. For comparison only.
      fraction: share of the examples of split that is trained on; smaller shares are part of larger ones.
      weights: how often an epoch holds each example, by data set, such as (1, 0.25); empty = once.
      stages: limits and weights by step, the first from step 0; empty = the same throughout.
      filter: condition on columns of the index that examples must meet, such as "motion > 0.1 and height >= 256"; empty
        = all. Columns: frames, height, width (of what is stored), fps, seconds, aspect, and what the build measured.
        Validation is not filtered.
      strata: a column and weights, such as "motion: 0.5, 1, 2": the examples of each data set are divided into as many
        parts of equal number by their quantile of the column, each repeated by its weight; empty = one part.
      autoencoder, text_encoder: names of what must have made the data set; empty = any.
    """

    path: str = ""
    split: str = "train"
    row_tokens: int = 2048
    row_examples: int = 64
    row_text: int = 1024
    rows_per_step: int = 2
    max_frames: int = 0
    captions: tuple[str, ...] = ()
    pack_window: int = 4096
    buckets: int = 0
    fraction: float = 1.0
    weights: tuple[float, ...] = ()
    stages: tuple[StageConfig, ...] = ()
    filter: str = ""
    strata: str = ""
    autoencoder: str = ""
    text_encoder: str = ""

    def __post_init__(self) -> None:
        expand_fields(self, "path", "autoencoder", "text_encoder")
        for weights in (self.weights, *(stage.weights for stage in self.stages)):
            if weights and len(weights) != len(self.paths):
                raise UserError(f"data.weights={weights} should have one number for each of data.path={self.path!r}")
            if weights and not (min(weights) >= 0 and 0 < max(weights) < float("inf")):
                raise UserError(f"data.weights={weights} must not be negative, and one must be greater than 0")
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.fraction={self.fraction:g} is not a share of the data: above 0, at most 1")
        if self.filter:
            parse_condition(self.filter, "data.filter")
        self.strata_weights()
        steps = [stage.step for stage in self.stages]
        if steps and (steps[0] or any(a >= b for a, b in itertools.pairwise(steps))):
            raise UserError(f"data.stages begin at steps {steps}; the first must begin at 0, each later than the last")

    def strata_weights(self) -> tuple[str, tuple[float, ...]]:
        """The column and the weights of `strata`; ("", (1.0,)) if there are none.

        Raises:
          UserError: if it is not a column, a colon and numbers.
        """
        if not self.strata:
            return "", (1.0,)
        column, _, listed = self.strata.partition(":")
        try:
            weights = tuple(float(weight) for weight in listed.split(","))
        except ValueError:
            weights = ()
        if not (column.strip() and weights and min(weights) >= 0 and 0 < max(weights) < float("inf")):
            raise UserError(
                f"data.strata={self.strata!r} should be a column and weights, not negative and one of them above 0, "
                "such as 'motion: 0.5, 1, 2'"
            )
        return column.strip(), weights

    @property
    def paths(self) -> tuple[str, ...]:
        """The directories that `path` names."""
        return tuple(path.strip() for path in self.path.split(",") if path.strip())


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the network.

    Attributes:
      family: "spacetime" is the SpacetimeTransformer; "wan" that of Wan, whose published weights init_from takes.
      width, depth: model width D and number of blocks.
      head_width: width K of one attention head; width / head_width heads.
      feed_forward: feed-forward width over model width; 2.7 at width 5120 is 13,824.
      base_width: width at which the learning rate is stated (muP).
      base_depth: the same for depth: what a block adds to its tokens is multiplied by base_depth / depth, so that the
        rate holds at every depth (CompleteP, Dey et al. 2025); 0 = off.
      condition: numbers at the end of every patch vector that are not generated but say what is known of the clip, for
        Wan's image to video; the weights of init_from decide.
      image: width of the features of a given image that Wan 2.1's image to video attends to; they decide that too.
      prediction: what the network puts out: the clean patch "x" (Li & He 2025) or the velocity "v".
      dtype: compute dtype; parameters are float32.
      remat: "none" keeps all activations; "blocks" keeps each block's input and recomputes the rest in the backward
        pass; "attention" keeps attention outputs as well; "offload" is "attention" with all that is kept in the host's
        memory.
      keep_weights: where remat is not "none", gathered weights of blocks are kept for the backward pass too: two bytes
        a parameter more (in bfloat16), and they are gathered once a step instead of twice.
      attention: backend, see models.attention: "auto" takes that of the devices, "chunked" is for CPU, "splash" for
        TPU, "gpu" for GPU, "reference" for tests.
      attention_block: tokens of a chunk of the backend; 0 takes its own (64 for chunked, 512 for splash).
      context: how rows over mesh.context attend: "all_to_all", "ring" or "auto", see models.attention.
    """

    family: str = "spacetime"
    width: int = 64
    depth: int = 4
    head_width: int = 32
    feed_forward: float = 4.0
    base_width: int = 64
    base_depth: int = 0
    condition: int = 0
    image: int = 0
    prediction: str = "x"
    dtype: str = "float32"
    remat: str = "none"
    keep_weights: bool = False
    attention: str = "auto"
    attention_block: int = 0
    context: str = "auto"

    def __post_init__(self) -> None:
        if self.width % self.head_width:
            raise UserError(f"model.width={self.width} is not a multiple of model.head_width={self.head_width}")
        _one_of("model.family", self.family, ("spacetime", "wan"))
        if self.base_depth < 0 or (self.base_depth and self.family == "wan"):
            raise UserError(f"model.base_depth={self.base_depth} must be 0, or above it where model.family=spacetime")
        _one_of("model.prediction", self.prediction, ("x", "v"))
        _one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        _one_of("model.remat", self.remat, REMAT_POLICIES)
        _one_of("model.attention", self.attention, ATTENTION_BACKENDS)
        _one_of("model.context", self.context, ("auto", "all_to_all", "ring"))

    @property
    def heads(self) -> int:
        return self.width // self.head_width

    def backend(self, platform: str) -> str:
        """The attention backend on a platform, as `jax.Device.platform` names it: what "auto" stands for there."""
        return ATTENTION_OF_PLATFORM.get(platform, "chunked") if self.attention == "auto" else self.attention

    @property
    def branch_scale(self) -> float:
        """What the outputs of attention and feed-forward are multiplied by when they are added."""
        return self.base_depth / self.depth if self.base_depth else 1.0

    @property
    def feed_forward_width(self) -> int:
        return round(self.feed_forward * self.width)


@dataclasses.dataclass(frozen=True)
class Modes:
    """The mix of ways to prompt that is trained: shares of examples, in sum 1. What is not named has share 0.

    A mode is which patches are given (see `vdit.diffusion.conditioning`). Numbers of groups are drawn evenly.

    Attributes:
      text: nothing.
      first_frame: the first frame.
      two_groups: the first frame and the group after it.
      head, tail: any number of groups at the start, at the end.
      last_frame: the last group.
      first_last: the first frame and the last group.
      connect: any number of groups at both ends.
      box: all but a box of patches, the same in every group.
      reference: the last group, moved to a time outside the clip: a picture of what the clip shows.
    """

    text: float = 0.0
    first_frame: float = 0.0
    two_groups: float = 0.0
    head: float = 0.0
    tail: float = 0.0
    last_frame: float = 0.0
    first_last: float = 0.0
    connect: float = 0.0
    box: float = 0.0
    reference: float = 0.0

    def __post_init__(self) -> None:
        shares = dataclasses.asdict(self)
        if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            named = ", ".join(f"{name}={share:g}" for name, share in shares.items() if share)
            raise UserError(f"diffusion.modes must be shares that sum to 1, not {named or 'all 0'}")


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    """Rectified flow: times, given-masks and caption dropout.

    Attributes:
      logit_mean, logit_std: times are sigmoid(normal(mean, std)) before the shift (Esser et al. 2024).
      size_shift: shift times towards noise for larger clips (Open-Sora 2.0).
      shift: shift them by this factor as well, for every size: t' = a t / (1 + (a - 1) t) (Esser et al. 2024).
      given_shift: another such factor where patches are given: the first frames nearly determine what comes next, but
        only at the noisiest times must the model infer it from them and not from the noised clip itself.
      times: low and high; only times between them are trained, as for one expert of two (Wan 2.2 A14B), for whose
        weights init_from sets it.
      input_std: standard deviation of the data, by which the network's input is brought to unit variance at every
        time (Karras et al. 2022); 0 = off, -1 = measured from the training data.
      modes: which patches are given, in which share of the examples.
      forcing: share of examples in which every group has a time of its own (diffusion forcing, Chen et al. 2024), so
        that later groups can be sampled noisier than earlier ones.
      caption_dropout: share of captions replaced by the learned null caption, for guidance.
      least_time: the clean prediction is divided by at least this time to give a velocity.
      mean: value of each channel, in [-1, 1], that counts as zero; empty takes the mean of the training data.
    """

    logit_mean: float = 0.0
    logit_std: float = 1.0
    size_shift: bool = True
    shift: float = 1.0
    given_shift: float = 1.0
    times: tuple[float, ...] = (0.0, 1.0)
    input_std: float = 0.0
    modes: Modes = Modes(text=0.4, first_frame=0.2, two_groups=0.4)
    forcing: float = 0.0
    caption_dropout: float = 0.1
    least_time: float = 0.05
    mean: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("forcing", "caption_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"diffusion.{name}={getattr(self, name):g} is not a share from 0 to 1")
        for name in ("shift", "given_shift"):
            if getattr(self, name) <= 0:
                raise UserError(f"diffusion.{name}={getattr(self, name):g} must be positive; 1 shifts nothing")
        if not (len(self.times) == 2 and 0 <= self.times[0] < self.times[1] <= 1):
            raise UserError(f"diffusion.times={self.times} is not two times 0 <= low < high <= 1")
        if self.input_std < 0 and self.input_std != -1:
            raise UserError(f"diffusion.input_std={self.input_std:g} must not be negative; -1 measures it")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon under muP, constant rate with warm-up and a linear cool-down (Hagele et al. 2024).

    Attributes:
      method: "adamw", or "muon" for the matrices of the blocks and AdamW for the rest.
      learning_rate: peak rate of AdamW at model.base_width.
      muon_rate: peak rate of Muon at every width: about how much an update moves a matrix's outputs.
      warmup, cooldown: steps of the linear rise at the start and the linear fall to 0 at the end.
      beta1, beta2: decay of the running means of the gradient and of its square.
      weight_decay: decoupled decay of matrices, relative to the rate.
      clip: largest global norm of the gradient.
      adaptive_clip: standard deviations above its running mean at which the gradient's norm is clipped as well (2.5 is
        usual); 0 = off.
      ema: decay of the averaged parameters, which are evaluated and sampled.
      accumulate: parts, one after another, in which a step does the rows of each device; the gradient is the same, the
        activations of one part are in memory at a time.
    """

    method: str = "adamw"
    learning_rate: float = 3e-3
    muon_rate: float = 0.02
    warmup: int = 50
    cooldown: int = 0
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    adaptive_clip: float = 0.0
    ema: float = 0.99
    accumulate: int = 1

    def __post_init__(self) -> None:
        _one_of("optimizer.method", self.method, ("adamw", "muon"))
        if self.accumulate < 1:
            raise UserError(f"optimizer.accumulate={self.accumulate} must be at least 1")
        if self.adaptive_clip < 0:
            raise UserError(f"optimizer.adaptive_clip={self.adaptive_clip} must not be negative")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 (one axis at most) takes what is left of the devices.

    Attributes:
      replica: copies of the model, each with rows of its own; over several slices this axis crosses them.
      fsdp: shards of parameters and optimiser state, each with rows of its own.
      context: shards of the tokens of a row, and of parameters and optimiser state.
      tensor: shards of heads and feed-forward.
    """

    replica: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1

    def sizes(self, devices: int) -> tuple[int, ...]:
        """Sizes of the axes, in their order, over that many devices.

        Raises:
          UserError: if they do not multiply to the number of devices.
        """
        sizes = dataclasses.asdict(self)
        free = [name for name, size in sizes.items() if size == -1]
        if len(free) > 1 or any(size < 1 for name, size in sizes.items() if name not in free):
            raise UserError(f"mesh sizes {sizes} must be positive, one of them may be -1")
        if free:
            rest = math.prod(size for size in sizes.values() if size != -1)
            sizes[free[0]] = max(1, devices // rest)
        if math.prod(sizes.values()) != devices:
            raise UserError(f"config.mesh {sizes} needs {math.prod(sizes.values())} devices, there are {devices}")
        return tuple(sizes.values())


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of a run and what it writes.

    Attributes:
      steps: the run ends after this step.
      log_every, checkpoint_every, evaluate_every: in steps; evaluate_every=0 evaluates at the end only, -1 never.
      keep: newest checkpoints kept.
      keep_steps: checkpoints that are written and never deleted: where branches leave a trunk.
      branch_from: workdir of a trunk; the run starts from its checkpoint at steps - optimizer.cooldown. "../NAME" is
        the folder NAME beside the run's own.
      spike: a step is bad if its log loss is this many standard deviations above its running mean, or not finite (then
        nothing is updated). After five bad steps the run resumes from its last good checkpoint and skips the rows
        since; 0 = only steps that are not finite are bad.
      accept_new_data: resume a run whose data set, or mixture, has changed since it began.
      profile: steps between which an xprof trace is written, such as (10, 13); () = none (docs/metrics.md).
      tracker: where curves can be looked at: tensorboard, wandb or trackio, several with commas; empty = nowhere.
      sample_clips: clips that every evaluation generates for the trackers and the workdir's samples/; 0 = none.
    """

    steps: int = 1000
    log_every: int = 20
    checkpoint_every: int = 200
    evaluate_every: int = 0
    keep: int = 2
    keep_steps: tuple[int, ...] = ()
    branch_from: str = ""
    spike: float = 6.0
    accept_new_data: bool = False
    profile: tuple[int, ...] = ()
    tracker: str = "tensorboard"
    sample_clips: int = 0

    def __post_init__(self) -> None:
        expand_fields(self, "branch_from")
        for name in self.trackers:
            _one_of("train.tracker", name, TRACKERS)
        if self.sample_clips < 0:
            raise UserError(f"train.sample_clips={self.sample_clips} must not be negative")
        for name in ("steps", "log_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)} must be at least 1")
        if self.spike < 0:
            raise UserError(f"train.spike={self.spike} must not be negative")
        if len(self.profile) not in (0, 2):
            raise UserError("train.profile takes two steps, such as (10, 13)")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that `tracker` names."""
        return tuple(name.strip() for name in self.tracker.split(",") if name.strip())


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """The data that `vdit.plan` expects where data.path holds none yet; training takes all of it from the data set.

    Attributes:
      clips: sizes of clips in pixels, frames x height x width, such as "81x720x1280"; "1x256x256:3" is three times as
        frequent as one without a number.
      words: caption tokens of each clip.
      stride: frames, rows and columns of pixels that one latent stands for; (1, 1, 1) plans for pixels.
      patch: latents of one patch in time, height and width.
      channels: channels of a latent (or pixel).
      text_width: width of the caption features.
    """

    clips: tuple[str, ...] = ()
    words: int = 64
    stride: tuple[int, ...] = (4, 8, 8)
    patch: tuple[int, ...] = (1, 2, 2)
    channels: int = 16
    text_width: int = 4096

    def __post_init__(self) -> None:
        for name in ("stride", "patch"):
            if len(getattr(self, name)) != 3 or min(getattr(self, name)) < 1:
                raise UserError(f"plan.{name}={getattr(self, name)} should be (time, height, width), each at least 1")


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run.

    Attributes:
      seed: of initial weights, noise and the order of the data.
      init_from: where parameters come from instead (with lora, those under the adapters): the workdir of a run, a
        folder or file that vdit.export wrote, or, for model.family "wan", published weights (a folder, or a hub id
        OWNER/NAME@REVISION), which decide the sizes of the model.
      task: "diffusion", or "autoencoder", which trains the causal_vae and leaves model and diffusion aside.
      lora: adapters to train instead of all weights; None, or no field of it set, trains all.
    """

    seed: int = 0
    init_from: str = ""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig = TrainConfig()
    plan: PlanConfig = PlanConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    task: str = "diffusion"
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        expand_fields(self, "init_from")
        _one_of("task", self.task, ("diffusion", "autoencoder"))
        if self.lora:
            self.lora.chosen(self.model.family)
            if self.task != "diffusion":
                raise UserError(f"config.lora is for task=diffusion, not {self.task}; leave it out")
            if self.optimizer.method != "adamw":
                raise UserError("AdamW trains the adapters of config.lora; set optimizer.method=adamw")
        elif self.init_from and self.train.branch_from:
            raise UserError("init_from and train.branch_from both say where parameters come from; give one")
