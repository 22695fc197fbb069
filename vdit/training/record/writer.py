"""A workdir has one run that writes it: its first process holds the `vdit.io.storage.lock` and tells the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from vdit.errors import UserError
from vdit.io.storage.lock import one_writer


@contextlib.contextmanager
def one_run(workdir: epath.PathLike) -> Iterator[None]:
    """Keeps other runs from writing the workdir; all processes of a run enter it together.

    Raises:
      UserError: in all of them, if another run writes it.
    """
    with contextlib.ExitStack() as held:
        refusal: UserError | None = None
        if jax.process_index() == 0:
            try:
                held.enter_context(one_writer(workdir))
            except UserError as error:
                refusal = error
        if jax.process_count() > 1:
            refused = multihost_utils.broadcast_one_to_all(np.int32(refusal is not None))
            if refused and refusal is None:
                refusal = UserError(f"{workdir} is written by another run, says process 0 of this one")
        if refusal:
            raise refusal
        yield
