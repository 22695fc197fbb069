"""Signs of life of a worker process: whoever decodes calls `beat` for every frame."""

from __future__ import annotations

from collections.abc import Callable

_listeners: list[Callable[[], None]] = []


def beat() -> None:
    """Reports that work makes progress."""
    for listener in _listeners:
        listener()


def listen(listener: Callable[[], None]) -> None:
    """Has `listener`, and no earlier one, called at every beat."""
    _listeners[:] = [listener]
