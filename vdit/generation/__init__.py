"""Generation: requests of any size, length and mode, packed into rows and denoised together by one program.

`request` defines a request, `rows` packs requests into rows, `programs` holds what is compiled, `generator` runs it,
`latents` runs it between an autoencoder's encoder and decoder.
"""

from vdit.generation.generator import Generator
from vdit.generation.latents import LatentGenerator
from vdit.generation.request import Request, Settings, request_seed

__all__ = ["Generator", "LatentGenerator", "Request", "Settings", "request_seed"]
