"""Fits scaling laws to a table of finished runs: `python -m vdit.scaling.fit RUNS [--json]`.

RUNS is csv, tsv, JSON lines, parquet or an export of wandb; columns are recognised by their usual names. Chinchilla's
approaches 1 (envelope), 2 (parabolas) and 3 (parametric), what they cannot tell, how they hang on choices, what they
predict (--predict=1e21), what repeated data is worth where runs repeat it (a column unique_tokens), arms beside each
other (--arms=optimizer), and a power law of any column against compute (--metrics=velocity_in). See docs/laws.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from vdit.command.run import run_main
from vdit.errors import UserError


def pairs(name: str, given: Sequence[str]) -> dict[str, str]:
    """key=value flags as a dict.

    Raises:
      UserError: of one without "=".
    """
    for item in given:
        if "=" not in item:
            raise UserError(f"--{name}={item} is not NAME=VALUE; write it as --{name}=params=N,tokens=D")
    return dict(item.split("=", 1) for item in given)


def positive(name: str, given: Sequence[str]) -> list[float]:
    """Positive numbers of a flag.

    Raises:
      UserError: of anything else.
    """
    found = []
    for item in given:
        try:
            found.append(float(item))
        except ValueError:
            found.append(float("nan"))
        if not 0 < found[-1] < float("inf"):
            raise UserError(f"--{name}={item} is not a positive number")
    return found


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) != 2:
        raise UserError("give one file: python -m vdit.scaling.fit RUNS.csv [--json] [--predict=C]")
    values = flags.FLAGS
    columns, base = pairs("columns", values.columns), pairs("base_law", values.base_law)
    budgets = positive("predict", values.predict)
    served = positive("served", [values.served] if values.served else [])
    irreducible = positive("irreducible", [values.irreducible] if values.irreducible else [])
    floor = (
        None if values.floor == "fit" else 0.0 if values.floor in ("", "0") else positive("floor", [values.floor])[0]
    )

    import json

    from vdit.scaling.columns import SPELLINGS
    from vdit.scaling.laws.approaches.parametric import Form
    from vdit.scaling.laws.law import NAMES, Law
    from vdit.scaling.loading import load
    from vdit.scaling.reporting import fit_words
    from vdit.scaling.result import Asked, report

    if unknown := set(columns) - set(SPELLINGS):
        raise UserError(f"--columns={','.join(sorted(unknown))}=...: only {', '.join(SPELLINGS)} can be said")
    if base and set(base) != set(NAMES):
        raise UserError(f"--base_law needs all of {', '.join(NAMES)}, such as A=406,B=411,E=1.69,alpha=.34,beta=.28")
    law = Law(*positive("base_law", [base[name] for name in NAMES])) if base else None
    form = Form(values.estimator, values.delta, values.tied, irreducible[0] if irreducible else None)
    loaded = load(argv[1], values.drop_highest, values.flops, columns=columns, where=values.where)
    there = dict.fromkeys(name for run in loaded.runs for name in run)
    for flag, names in (("arms", [values.arms] if values.arms else []), ("metrics", values.metrics)):
        if missing := [name for name in names if name not in there]:
            raise UserError(f"--{flag}={missing[0]}: there is no column {missing[0]}; there are {', '.join(there)}")
    asked = Asked(
        form, values.metrics, floor, budgets, served[0] if served else 0.0, values.arms, values.reference,
        values.shared, law,
    )  # fmt: skip
    found = report(loaded, values.bootstraps, values.seed, asked)
    print(json.dumps(found, indent=1, allow_nan=False) if values.json else fit_words.describe(found))


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_bool("json", False, "print one JSON object")
    flags.DEFINE_list("columns", [], "which column is which, as params=N,tokens=D,flops=C,loss=L")
    flags.DEFINE_string("where", "", "fit only runs that meet this, as 'tokens/params > 1 and loss < 5'")
    flags.DEFINE_integer("drop_highest", 0, "leave out this many runs of highest loss", lower_bound=0)
    flags.DEFINE_enum("flops", "counted", ("counted", "6nd"), "what C is: the column flops, or 6 N D")
    flags.DEFINE_enum("estimator", "auto", ("auto", "huber", "squares"), "of approach 3; auto goes by the residuals")
    flags.DEFINE_float("delta", 1e-3, "of Huber's loss", lower_bound=1e-9)
    flags.DEFINE_bool("tied", False, "alpha = beta")
    flags.DEFINE_string("irreducible", "", "E, where it is known")
    flags.DEFINE_list("base_law", [], "law of data seen once, for repetition: A=406,B=411,E=1.69,alpha=.34,beta=.28")
    flags.DEFINE_list("predict", [], "budgets C at which to say the best N, D, the loss and the metrics")
    flags.DEFINE_string("served", "", "tokens that the model will serve: the best size when inference is paid for too")
    flags.DEFINE_string("arms", "", "column that tells arms apart: what each saves in compute")
    flags.DEFINE_string("reference", "", "the arm that others are compared with (default: that of most runs)")
    flags.DEFINE_bool("shared", True, "arms share E, alpha and beta")
    flags.DEFINE_list("metrics", [], "columns to fit a power law in C to, at the best size of each budget")
    flags.DEFINE_string("floor", "0", "best possible value of the metrics, such as that of true clips; 'fit' fits it")
    flags.DEFINE_integer("bootstraps", 4000, "draws for the intervals", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the resampling")
    run_main(main)
