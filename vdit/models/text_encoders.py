"""The text encoders by name."""

from __future__ import annotations

from collections.abc import Callable

from vdit.config import UserError
from vdit.models.minilm import load_minilm
from vdit.models.token_encoder import NoText, TextEncoder

TEXT_ENCODERS: dict[str, Callable[[], TextEncoder]] = {
    "minilm": load_minilm,
    "none": NoText,
}


def load_text_encoder(name: str) -> TextEncoder:
    """Loads a text encoder, fetching its weights if they are not in the cache.

    Raises:
      UserError: the name is unknown or the weights cannot be fetched.
    """
    if name not in TEXT_ENCODERS:
        raise UserError(f"no text encoder is called {name!r}; choose one of {', '.join(TEXT_ENCODERS)}")
    return TEXT_ENCODERS[name]()
