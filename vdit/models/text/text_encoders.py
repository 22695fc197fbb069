"""The text encoders by name."""

from __future__ import annotations

from collections.abc import Callable

from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.models.text.token_encoder import NoText, TextEncoder


def _minilm() -> TextEncoder:
    from vdit.models.text.minilm import load_minilm  # here, as a build without captions does without JAX

    return load_minilm()


TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {
    "minilm": _minilm,
    "none": NoText,
}
"""Encoders that a name alone says all of."""

WITH_WEIGHTS = ("t5", "umt5")
"""Kinds that take published weights: "umt5:FOLDER" or "umt5:OWNER/NAME@REVISION"."""


def load_text_encoder(name: str) -> TextEncoder:
    """Loads a text encoder, fetching its weights if they are not in the cache.

    Args:
      name: of `TEXT_ENCODERS`, or a kind of `WITH_WEIGHTS`, a colon, and a folder of weights or a hub id; the weights
        of these are sharded over all devices.

    Raises:
      UserError: the name is unknown, or the weights cannot be had or are of another kind.
    """
    if name in TEXT_ENCODERS:
        return TEXT_ENCODERS[name]()
    kind, _, where = name.partition(":")
    if kind not in WITH_WEIGHTS or not where:
        known = [*TEXT_ENCODERS, *(f"{kind}:WEIGHTS" for kind in WITH_WEIGHTS)]
        raise UserError(f"no text encoder is called {name!r}; choose one of {', '.join(known)}")
    from vdit.models.text.t5 import load_t5
    from vdit.parallel.mesh import make_mesh

    return load_t5(kind, where, make_mesh(MeshConfig(replica=1, fsdp=-1)))
