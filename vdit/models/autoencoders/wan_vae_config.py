"""Sizes of Wan's video autoencoders, from published config.json."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vdit.errors import UserError
from vdit.io.files import parse_json

PIXEL_CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class WanVaeConfig:
    """Sizes; the defaults are those of Wan 2.1.

    Attributes:
      width: channels at full size, of the encoder.
      decoder_width: the same of the decoder; 0 takes `width`.
      multiples: of them at each halving of the sides.
      blocks: residual blocks at each size (the decoder has one more).
      halve_time: whether time is halved too, at each halving of the sides.
      channels: of a latent.
      mean, std: of each latent channel over the training data.
      residual: all that happens at one size is added to averages of its input, or copies of it (Wan 2.2).
      patch: side of the squares of pixels that become channels before anything else (Wan 2.2: 2).
    """

    width: int = 96
    decoder_width: int = 0
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    halve_time: tuple[bool, ...] = (False, True, True)
    channels: int = 16
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    residual: bool = False
    patch: int = 1

    @property
    def strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one latent."""
        side = self.patch * 2 ** len(self.halve_time)
        return 2 ** sum(self.halve_time), side, side

    @property
    def pixel_channels(self) -> int:
        """Channels of what the first convolution takes and the last one gives."""
        return PIXEL_CHANNELS * self.patch**2

    @classmethod
    def read(cls, path: Path) -> WanVaeConfig:
        """From a published config.json.

        Raises:
          UserError: if it is missing or of an autoencoder that is neither that of Wan 2.1 nor that of Wan 2.2.
        """
        try:
            values = parse_json(path.read_bytes(), path)
            if values["_class_name"] != "AutoencoderKLWan":
                raise ValueError(f"_class_name {values['_class_name']!r}")
            if values.get("attn_scales"):
                raise ValueError("attn_scales is set")
            config = cls(
                width=values["base_dim"],
                decoder_width=values.get("decoder_base_dim") or 0,
                multiples=tuple(values["dim_mult"]),
                blocks=values["num_res_blocks"],
                halve_time=tuple(values["temperal_downsample"]),
                channels=values["z_dim"],
                mean=tuple(values["latents_mean"]),
                std=tuple(values["latents_std"]),
                residual=bool(values.get("is_residual")),
                patch=values.get("patch_size") or 1,
            )
            for name in ("in_channels", "out_channels"):
                if values.get(name, PIXEL_CHANNELS) != config.pixel_channels:
                    raise ValueError(f"{name} {values.get(name)} with patch_size {config.patch}")
            if len(config.halve_time) != len(config.multiples) - 1:
                raise ValueError(f"{len(config.multiples)} dim_mult with {len(config.halve_time)} temperal_downsample")
            return config
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the config of a Wan 2.1 or 2.2 autoencoder ({error})") from error
