"""Which column of a stranger's table is which: the usual spellings of N, D, C, loss and names, and their units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vdit.errors import UserError

# Canonical column: spellings, the likeliest first, as words joined by "_" (see `_words`).
SPELLINGS: dict[str, tuple[str, ...]] = {
    "run": ("run", "name", "run_name", "run_id", "id", "label", "experiment_name"),
    "kind": ("kind", "held_out", "heldout", "holdout", "is_held_out", "role", "split"),
    "params": (
        "params", "n", "n_params", "num_params", "nparams", "parameters", "num_parameters", "n_parameters",
        "parameter_count", "param_count", "params_count", "model_size", "model_params", "non_embedding_params",
        "non_embedding_parameters", "params_non_embedding", "size", "params_total", "total_params",
    ),
    "tokens": (
        "tokens", "d", "n_tokens", "num_tokens", "ntokens", "total_tokens", "train_tokens", "training_tokens",
        "tokens_seen", "num_training_tokens", "tokens_trained", "token_count", "data", "data_size", "dataset_size",
        "data_tokens", "t",
    ),
    "flops": (
        "flops", "c", "flop", "compute", "train_flops", "training_flops", "train_flop", "training_flop", "total_flops",
        "total_flop", "flops_total", "training_compute", "train_compute", "total_compute", "compute_flops", "num_flops",
        "n_flops",
    ),
    "loss": (
        "loss", "l", "val_loss", "validation_loss", "eval_loss", "test_loss", "valid_loss", "final_loss", "loss_val",
        "loss_eval", "final_val_loss", "best_val_loss", "val_nll", "nll", "cross_entropy", "ce_loss", "loss_final",
        "train_loss", "training_loss",
    ),
    "unique_tokens": ("unique_tokens", "u", "unique", "unique_data", "tokens_unique", "d_unique", "n_unique_tokens"),
    "budget": ("budget", "compute_budget", "flops_budget", "flop_budget", "isoflop", "target_flops"),
    "seed": ("seed", "random_seed"),
    "state": ("state", "status"),
}  # fmt: skip
_LAST_WORDS = {"params": ("params", "parameters"), "tokens": ("tokens",), "flops": ("flops", "flop"), "loss": ("loss",)}
_SPEED = {"per", "device", "gpu", "chip", "second", "seconds", "sec", "achieved", "peak", "util"}
_SI = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21}
_AMOUNTS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_UNITS = {
    **_AMOUNTS, "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "mn": 1e6,
    "billion": 1e9, "billions": 1e9, "bn": 1e9, "g": 1e9, "trillion": 1e12, "trillions": 1e12,
}  # fmt: skip
_HELD_OUT = {"heldout", "holdout", "test", "true", "1", "yes", "extrapolation"}
_NOT_HELD_OUT = {"grid", "train", "training", "fit", "fitted", "false", "0", "no", ""}


def _words(name: str) -> list[str]:
    """Lower-case words of a column's name: "trainFLOPs (1e18)" is train, flops, 1e18."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[a-z0-9]+", apart.lower())


def _unit(name: str, words: list[str]) -> tuple[float, list[str]]:
    """The factor that a name says its numbers are to be taken times, and the words without it."""
    factor, kept = 1.0, []
    for place, word in enumerate(words):
        scaled = re.fullmatch(r"([kmgtpez])(?:iga|era|eta|xa|ega|ilo)?flops?", word)
        if scaled:
            factor *= _SI[scaled[1]]
            kept.append("flops")
        elif place and place == len(words) - 1 and (word in _UNITS or re.fullmatch(r"1e\d+", word)):
            factor *= _UNITS[word] if word in _UNITS else float(word)
        else:
            kept.append(word)
    return (factor, kept) if kept else (1.0, words)


def recognise(names: Iterable[str], given: Mapping[str, str] | None = None) -> dict[str, tuple[str, float]]:
    """The column that each canonical one is to be read from, and the unit of its numbers.

    A column given by hand counts first, then the canonical name itself, a usual spelling of the whole name, of what
    stands behind its last "/" or ".", and for N, D, C and loss a name that ends in the word; a loss of validation or
    evaluation comes before others.

    Args:
      names: of the table's columns.
      given: canonical name -> column, as --columns has it.

    Raises:
      UserError: if a given column is not there.
    """
    names = list(names)
    given = dict(given or {})
    for wanted, name in given.items():
        if name not in names:
            raise UserError(f"--columns={wanted}={name}: there is no column {name}; there are {', '.join(names)}")
    found = {wanted: (name, 1.0) for wanted, name in given.items()}
    taken = set(given.values())
    for wanted in SPELLINGS:
        if wanted in found:
            continue
        ranked = sorted(
            (rank, place, name, factor)
            for place, name in enumerate(names)
            if name not in taken and (spelt := _rank(wanted, name)) is not None
            for rank, factor in [spelt]
        )
        if ranked:
            found[wanted] = (ranked[0][2], ranked[0][3])
            taken.add(ranked[0][2])
    return found


def _rank(wanted: str, name: str) -> tuple[float, float] | None:
    """How unlike a name is to mean a column (0 is the same), and its unit; None if it cannot."""
    if name == wanted:
        return 0, 1.0
    factor, words = _unit(name, _words(name))
    if wanted == "flops" and (_SPEED & set(words) or (words == ["flops"] and 1 < factor <= 1e12)):
        return None  # tflops alone is a speed
    _, last = _unit(name, _words(re.split(r"[/.]", name)[-1]))
    spellings = SPELLINGS[wanted]
    for penalty, spelt in ((1, words), (50, last)):
        if "_".join(spelt) in spellings:
            return penalty + spellings.index("_".join(spelt)), factor
    if words and words[-1] in _LAST_WORDS.get(wanted, ()) and not {"unique", "per", "embedding", "s"} & set(words):
        evaluated = bool({"val", "eval", "validation", "test", "valid", "macro"} & set(words))
        return (100 if evaluated else 110), factor
    return None


def amount(text: str, decimal_comma: bool = False) -> float | None:
    """A number as tables have it: 1.5e9, 1,500,000, 1.5B, or 4,65 where columns are parted by ";"; else None."""
    text = text.strip()
    if decimal_comma and re.fullmatch(r"-?\d+,\d+([eE][-+]?\d+)?", text):
        text = text.replace(",", ".")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    scaled = re.fullmatch(r"(-?[\d.]+(?:[eE][-+]?\d+)?)\s*([kKmMbBtT])", text)
    try:
        return float(scaled[1]) * _AMOUNTS[scaled[2].lower()] if scaled else float(text)
    except ValueError:
        return None


def kind_of(value: Any, column: str) -> str:
    """What a run is for: grid or heldout in any spelling, other kinds as they are."""
    word = re.sub(r"[^a-z0-9]", "", str(value).lower().removesuffix(".0"))
    if word in _HELD_OUT:
        return "heldout"
    if word in _NOT_HELD_OUT:
        return "grid"
    return "grid" if column != "kind" and word in ("val", "valid", "validation") else str(value)
