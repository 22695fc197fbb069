"""Comparisons with PyTorch, run by `make parity`; without PyTorch they are left out, and a run of them alone fails."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
