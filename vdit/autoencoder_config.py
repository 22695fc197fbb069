"""Configuration of the causal_vae, which has a task of its own."""

from __future__ import annotations

import dataclasses

from vdit.errors import UserError


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """The causal_vae and what it is trained on (a run with task="autoencoder").

    Attributes:
      strides: frames, rows and columns of one latent.
      channels: of a latent.
      width: channels of the convolutions.
      encoder_blocks, decoder_blocks: residual blocks of either network.
      fine_width, fine_blocks: channels and number of the decoder's last blocks, at twice the rows and columns of the
        latents; with any, a latent's rows and columns are even.
      kl: weight of the KL divergence from a normal distribution, per latent number, beside the squared error per pixel.
      perceptual: weight of the distance between EfficientNet-Lite0's activations on the frames given back and the true
        ones (`efficientnet.feature_distance`), which is 0 to 4; 0 = none.
      edges: weight of the mean absolute error of the differences between neighbouring pixels, which keeps edges sharp
        and makes patches meet.
      initial_noise: standard deviation of the latents' noise at the start.
      crop: frames, rows and columns of a training crop; 1 + k strides[0] frames, sides multiples of the strides. A step
        takes data.rows_per_step of them.
    """

    strides: tuple[int, ...] = (4, 8, 8)
    channels: int = 16
    width: int = 96
    encoder_blocks: int = 1
    decoder_blocks: int = 4
    fine_width: int = 64
    fine_blocks: int = 0
    kl: float = 1e-6
    perceptual: float = 0.0
    edges: float = 0.0
    initial_noise: float = 0.03
    crop: tuple[int, ...] = (9, 64, 64)

    def __post_init__(self) -> None:
        for name in ("strides", "crop"):
            if len(getattr(self, name)) != 3 or min(getattr(self, name)) < 1:
                raise UserError(f"autoencoder.{name}={getattr(self, name)} is not three positive numbers (t, y, x)")
        for name in ("kl", "perceptual", "edges"):
            if getattr(self, name) < 0:
                raise UserError(f"autoencoder.{name}={getattr(self, name)} must not be negative")
        time, height, width = self.strides
        if self.fine_blocks and (height % 2 or width % 2):
            raise UserError(
                f"autoencoder.fine_blocks needs even rows and columns in autoencoder.strides={self.strides}"
            )
        if (self.crop[0] - 1) % time or self.crop[1] % height or self.crop[2] % width:
            raise UserError(f"autoencoder.crop={self.crop} is not 1 + k*{time} frames of multiples of {height}x{width}")
