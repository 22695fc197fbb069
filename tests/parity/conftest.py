"""Comparisons with PyTorch, run by `make parity`; without PyTorch they are left out, and a run of them alone fails."""

import importlib.util

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def stir():
    """Gives a network of PyTorch random weights that keep the signal's size, and norms that do something."""
    import torch

    def fill(model) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
                tensor.uniform_(0.7, 1.4, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1, generator=generator)
            elif tensor.ndim:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)

    return fill
