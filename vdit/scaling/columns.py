"""Which column of a stranger's table is which: the usual spellings of N, D, C, loss and names, and their units."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vdit.errors import UserError

# Canonical column: spellings, the likeliest first, as words joined by "_" (see `_words`).
SPELLINGS: dict[str, tuple[str, ...]] = {
    "run": ("run", "name", "run_name", "run_id", "id", "label", "experiment_name"),
    "kind": (
        "kind", "held_out", "heldout", "holdout", "hold_out", "is_held_out", "is_heldout", "is_holdout", "is_test",
        "role", "split", "subset", "partition", "set", "extrapolation", "extrapolate", "used_for_fit", "in_fit",
        "is_fit", "is_train", "fitted",
    ),
    "params": (
        "params", "n", "n_params", "num_params", "nparams", "parameters", "num_parameters", "n_parameters",
        "parameters_count", "params_count", "model_size", "model_params", "active_params", "active_parameters",
        "non_embedding_params", "non_embedding_parameters", "params_non_embedding", "size", "params_total",
        "total_params",
    ),
    "tokens": (
        "tokens", "d", "n_tokens", "num_tokens", "ntokens", "total_tokens", "train_tokens", "training_tokens",
        "tokens_seen", "num_training_tokens", "tokens_trained", "tokens_count", "data", "data_size", "dataset_size",
        "data_tokens", "t",
    ),
    "flops": (
        "flops", "c", "compute", "train_flops", "training_flops", "total_flops", "flops_total", "training_compute",
        "train_compute", "total_compute", "compute_flops", "num_flops", "n_flops",
    ),
    "loss": (
        "loss", "l", "val_loss", "validation_loss", "eval_loss", "test_loss", "valid_loss", "final_loss", "loss_val",
        "loss_eval", "final_val_loss", "best_val_loss", "val_nll", "nll", "cross_entropy", "ce_loss", "loss_final",
        "l_val", "l_nats", "train_loss", "training_loss",
    ),
    "unique_tokens": ("unique_tokens", "u", "unique", "unique_data", "tokens_unique", "d_unique", "n_unique_tokens"),
    "budget": ("budget", "compute_budget", "flops_budget", "isoflop", "target_flops"),
    "seed": ("seed", "random_seed"),
    "state": ("state", "status"),
}  # fmt: skip
_PLURAL = {
    "param": "params", "parameter": "parameters", "token": "tokens", "tok": "tokens", "toks": "tokens", "flop": "flops",
    "emb": "embedding", "embed": "embedding", "nonembedding": "non_embedding", "nonembed": "non_embedding",
}  # fmt: skip
_LAST_WORDS = {"params": ("params", "parameters"), "tokens": ("tokens",), "flops": ("flops",), "loss": ("loss",)}
_OTHER_AMOUNTS = {"unique", "per", "s", "log", "ln", "log2", "log10"}  # words of a column that holds something else
_OTHER_LOSSES = {
    "std", "stderr", "se", "sem", "var", "low", "high", "ci", "interval", "scale", "weight", "ratio", "delta", "aux",
    "auxiliary", "z", "balance", "balancing", "router", "type", "name", "fn",
}  # fmt: skip
_SPEED = {"per", "device", "gpu", "chip", "second", "seconds", "sec", "achieved", "peak", "util"}
_SI = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21}
_AMOUNTS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_UNITS = {
    **_AMOUNTS, "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "mn": 1e6,
    "billion": 1e9, "billions": 1e9, "bn": 1e9, "g": 1e9, "trillion": 1e12, "trillions": 1e12,
}  # fmt: skip
_HELD_OUT = {"heldout", "holdout", "test", "true", "1", "yes", "extrapolation", "extrapolated", "unseen", "predict"}
_HELD_OUT |= {"y", "t", "heldoutrun", "evaluation", "eval", "outofsample", "oos"}
_SURELY_HELD_OUT = {"heldout", "heldoutrun", "holdout", "extrapolation", "extrapolated", "outofsample"}
_PERPLEXITY, _BITS = {"ppl", "perplexity"}, {"bpb", "bits"}  # a loss as its exponential, and in other units
_FITTED = {"grid", "train", "training", "fit", "fitted", "fitting", "calibration", "insample", "seen"}
_NOT_HELD_OUT = {*_FITTED, "false", "0", "no", "n", "f", "", "none", "nan"}
_VALIDATION = ("val", "valid", "validation", "dev")  # what a loss is of, or what a law is tried on
_SAYS_FITTED = {"used_for_fit", "in_fit", "is_fit", "is_train", "fitted"}  # columns that are true of fitted runs
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def _words(name: str) -> list[str]:
    """Lower-case words of a column's name, units in brackets last: "trainFLOPs (1e18)" is train, flops, 1e18."""
    name = re.sub(rf"10\s*\^?\s*([{_SUPERSCRIPTS}]+)", r"1e\1", name)
    name = unicodedata.normalize("NFKC", name)
    name = re.sub(r"(?:\bx|[×*·])?\s*10\s*(?:\^|\*\*)\s*\{?(\d+)\}?", r" 1e\1", name)
    name = re.sub(r"(?i)\bpf(?:lops?)?(?:/?s)?[-_ ]?days?\b", "petaflops days", name)
    name = re.sub(r"(?<=\w)\s*[(\[]\s*[NDCLUndclu]\s*[)\]]\s*$", "", name)  # the symbol, as in "Compute (C)"
    inside = " ".join(re.findall(r"[(\[]([^)\]]*)[)\]]", name))
    words = [_split(part) for part in (re.sub(r"[(\[][^)\]]*[)\]]", " ", name), inside)]
    units = [word for word in words[1] if _is_unit(word)]
    kept = [word for word in words[1] if word not in units and word not in ("in", "x")]
    return [*words[0], *kept, *units] if words[0] or kept else units


def _split(text: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text)
    return [part for word in re.findall(r"[a-z0-9]+", apart.lower()) for part in _PLURAL.get(word, word).split("_")]


def _is_unit(word: str) -> bool:
    return word in _UNITS or bool(re.fullmatch(r"1?e\d+", word))


def _unit(words: list[str]) -> tuple[float, list[str]]:
    """The factor that a name says its numbers are to be taken times, and the words without it."""
    factor, kept = 1.0, []
    for place, word in enumerate(words):
        scaled = re.fullmatch(r"([kmgtpez])(?:iga|era|eta|xa|ega|ilo)?flops?", word)
        if scaled:
            factor *= _SI[scaled[1]]
            kept.append("flops")
        elif kept and word in ("day", "days") and "flops" in kept:  # FLOP/s-days, as Kaplan et al. count
            factor *= 86_400
            kept = [other for other in kept if other != "s"]
        elif place and place == len(words) - 1 and _is_unit(word):
            factor *= _UNITS[word] if word in _UNITS else float("1" + word.removeprefix("1"))
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
    factor, words = _unit(_words(name))
    held = set(words)
    if wanted == "flops" and (_SPEED & held or (words == ["flops"] and 1 < factor <= 1e12)):
        return None  # tflops alone is a speed
    amounts = wanted in ("params", "tokens", "flops")
    if (amounts and held & _OTHER_AMOUNTS) or (wanted == "loss" and held & _OTHER_LOSSES):
        return None
    trained = 200 if wanted == "loss" and held & {"train", "training"} else 0  # the last choice
    _, last = _unit(_words(re.split(r"[/.]", name)[-1]))
    spellings = SPELLINGS[wanted]
    for penalty, spelt in ((1, words), (50, last)):
        if "_".join(spelt) in spellings:
            return penalty + trained + spellings.index("_".join(spelt)), factor
    if wanted == "kind" and re.search("held_?out|hold_?out", "_".join(words)):
        return 150, 1.0
    if wanted == "loss" and held & (_PERPLEXITY | _BITS):
        return 120 + trained + 50 * bool(held & _PERPLEXITY), factor
    ends = words and words[-1] in _LAST_WORDS.get(wanted, ())
    begins = wanted == "loss" and words[:1] == ["loss"]  # loss of a data set, or in nats
    if (ends or begins) and ("embedding" not in held or "non" in held):
        evaluated = bool({"val", "eval", "validation", "test", "valid", "macro"} & held)
        return (100 if evaluated else 110) + trained + 5 * (not ends), factor
    return None


def amount(text: str, decimal_comma: bool = False) -> float | None:
    """A number as tables have it: 1.5e9, 1,500,000, 1.5B, 3 x 10^20, or 4,65 where columns are parted by ";"."""
    text = re.sub(r"\s*[x×*·]\s*10\s*\^\s*\{?([-+]?\d+)\}?", r"e\1", text.strip())
    if decimal_comma and re.fullmatch(r"-?\d+,\d+([eE][-+]?\d+)?", text):
        text = text.replace(",", ".")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    scaled = re.fullmatch(r"(-?[\d.]+(?:[eE][-+]?\d+)?)\s*([a-zA-Z]+)", text)
    try:
        if scaled and (factor := _UNITS.get(scaled[2].lower())):
            return float(scaled[1]) * factor
        return float(text)
    except ValueError:
        return None


def _bare(value: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value).lower().removesuffix(".0"))


def held_out_column(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> str | None:
    """A column of any name that says of some rows that they are held out."""
    for name in names:
        if any(isinstance(value := row.get(name), str) and _bare(value) in _SURELY_HELD_OUT for row in rows):
            return name
    return None


def is_perplexity(name: str) -> bool:
    """Whether a column holds exponentials of the loss."""
    return bool(_PERPLEXITY & set(_words(name)))


def kinds_of(values: Sequence[Any], column: str) -> list[str]:
    """What each run is for: grid or heldout in any spelling, other kinds as they are.

    A column such as `split` may say what a loss is of: rows that all say "validation" are fitted. Beside rows that say
    "train" they are held out.
    """
    words = [_bare(value) for value in values]
    fitted, held_out = "grid", "heldout"
    if any(word.isdigit() and word not in ("0", "1") for word in words):  # folds or the like, no yes and no
        return [str(value) for value in values]
    if "_".join(_words(column)) in _SAYS_FITTED:
        fitted, held_out = held_out, fitted
    tried = held_out if _FITTED & set(words) else fitted
    found = []
    for word, value in zip(words, values, strict=True):
        if word in _HELD_OUT:
            found.append(held_out)
        elif word in _NOT_HELD_OUT:
            found.append(fitted)
        elif word in _VALIDATION and column != "kind":
            found.append(tried)
        else:
            found.append(str(value))
    return found
