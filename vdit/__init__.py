"""vdit: spacetime-patch diffusion transformers, built to study how the quality of generated video scales."""

__version__ = "0.1.0"
