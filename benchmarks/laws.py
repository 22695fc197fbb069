"""What the laws' intervals, exponents and warnings are worth, by simulation; writes its tables into docs/laws.md.

python -m benchmarks.laws                   all tables, some fifteen minutes of one core
python -m benchmarks.laws --only=coverage   one of faults, coverage, noises, huber, repetition, bias, noisy, speed
python -m benchmarks.laws --sets=20         fewer draws: a look, not written into the page
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags
from scipy import stats

from benchmarks.law_designs import ASYMMETRIC, BESIROGLU, CHINCHILLA, SYMMETRIC, Design, designs, isoflop, noisy_designs
from benchmarks.law_faults import faults, said
from benchmarks.pages import put, table
from vdit.command.run import no_arguments, run_main
from vdit.scaling.cleaning import clean
from vdit.scaling.laws.approaches.envelope import Envelope, fit_envelope
from vdit.scaling.laws.approaches.parabolas import IsoFlop, fit_isoflop
from vdit.scaling.laws.approaches.parametric import Fit, Form, fit_law, heavy_tails
from vdit.scaling.laws.checks.diagnose import diagnose, implausible_flops
from vdit.scaling.laws.checks.influence import influence, influence_warnings
from vdit.scaling.laws.extensions.arms import fit_arms
from vdit.scaling.laws.extensions.quality import fit_quality
from vdit.scaling.laws.extensions.repetition import RepetitionLaw, fit_repetition
from vdit.scaling.laws.law import NAMES, Interval, central
from vdit.scaling.runs import Table

PAGE = "laws.md"
SETS = 70  # draws at each noise: 210 of each design
LEAST_DRAWS = 50  # with an interval, to say how often it holds the truth
RANGE = (0.74, 0.86)  # where shares of 80% intervals that hold the truth should lie
NOISES = (0.002, 0.01, 0.03)
HEAVY = 0.004  # scale of heavy-tailed noise
DRAWS = 400  # bootstraps, and draws of approaches 1 and 2
ANY = "any of these"
# How warnings begin. Said of runs that follow the law, with normal noise at sound sizes, these are false:
FALSE = {
    "runs that seem to have diverged": "left out in all",
    "rows that repeat others": r"\d+ rows repeat",
    "implausible FLOPs": "flops are",
    "no cost law": "the runs show no cost law",
    "two minima": "two searches",
    "an exponent at its edge": r"(alpha|beta) ran",
    "coefficients that make up for each other": ".* make up for each other",
    "D goes with N": "D goes as",
    "E above a measured loss": r"E = .* is above",
    "large residuals": "residuals are large",
    "residuals with a trend": "residuals are not noise",
    "outliers": "outliers",
    "single runs": "a hangs on single runs",
    "grids off-centre": "grids are off-centre",
    "approaches that disagree": "approaches disagree",
}
# These are true of the design or of the draw.
TRUE = {
    "few runs": "only ",
    "a wide interval of a": "a is ill-determined",
    "E near 0": "the irreducible loss E",
    "budgets without a minimum": "approach 2: ",
    "grids that drift": "grids drift",
    "biased parabolas": "approach 2 is biased",
}


def _hit(interval: Interval | None, truth: float) -> float:
    return np.nan if interval is None else float(interval[0] <= truth <= interval[1])


def _third(design: Design, noise: float, seed: int) -> tuple[Fit, dict[str, float]]:
    """Approach 3 on one draw, and whether each of its intervals holds the truth (nan without one)."""
    runs, law = design.table(noise, seed), design.law
    fit = fit_law(runs.params, runs.tokens, runs.loss, flops=runs.flops, bootstraps=DRAWS, seed=seed)
    far = 100 * float(runs.flops.max())
    best = float(law.optimal_params(far))
    rng = np.random.default_rng(1_000_000 + seed)
    measured = float(law.loss(best, far / (6 * best))) * np.exp(rng.normal(0, noise))
    found = {name: _hit(fit.interval(name), float(getattr(law, name))) for name in NAMES}
    return fit, found | {
        "a, approach 3": _hit(fit.interval("a"), float(law.exponent())),
        "N_opt": _hit(central(fit.resamples.optimal_params(far)), best),
        "loss of a run": _hit(fit.predict(best, far / (6 * best), seed)[1], measured),
    }


def _one(design: Design, noise: float, seed: int) -> dict[str, float]:
    """Whether each interval of one draw holds the truth (nan without one), and which warnings it raises."""
    fit, third = _third(design, noise, seed)
    runs, a = design.table(noise, seed), float(design.law.exponent())
    columns = runs.flops, runs.params, runs.tokens, runs.loss
    second = fit_isoflop(*columns, budgets=runs.budgets, bootstraps=DRAWS, seed=seed, fit=fit)
    first = fit_envelope(*columns, bootstraps=DRAWS, seed=seed, fit=fit)
    approaches = {
        "a, approach 2": _hit(second.params.interval if second.params else None, a),
        "a, approach 1": _hit(first.params.interval if first.params else None, a),
    }
    found = {name: third[name] for name in (*NAMES, "a, approach 3")} | approaches | third
    lines = warnings_of(runs, fit, second, first)
    kinds = {name: float(any(re.match(start, line) for line in lines)) for name, start in (FALSE | TRUE).items()}
    return found | kinds | {ANY: max(kinds[name] for name in FALSE)}


def warnings_of(runs: Table, fit: Fit, second: IsoFlop, first: Envelope) -> list[str]:
    """All that a user would be warned of, from the reading of the table on."""
    rows = [
        {"run": name, "flops": c, "params": n, "tokens": d, "loss": y}
        for name, c, n, d, y in zip(runs.names, runs.flops, runs.params, runs.tokens, runs.loss, strict=True)
    ]
    read = [*clean(rows)[1], *filter(None, [implausible_flops(runs)])]
    return [*read, *diagnose(runs, fit, second, first), *influence_warnings(influence(runs, fit), fit)]


def _arms(design: Design, noise: float, seed: int) -> float:
    """Whether the interval of what a second arm saves (30%) holds it."""
    law = design.law
    other = dataclasses.replace(law, A=law.A * 0.7 ** (0.5 * law.alpha), B=law.B * 0.7 ** (0.5 * law.beta))
    runs = [design.table(noise, seed), dataclasses.replace(design, law=other).table(noise, 500_000 + seed)]
    n, d, loss = (np.concatenate([getattr(run, key) for run in runs]) for key in ("params", "tokens", "loss"))
    names = ["first"] * len(runs[0]) + ["second"] * len(runs[1])
    found = fit_arms(n, d, loss, names, reference="first", bootstraps=DRAWS, seed=seed)
    flops = float((6 * n * d).max())
    least = float(law.optimal_loss(flops))
    slope = other.alpha * other.beta / (other.alpha + other.beta)
    truth = 1 - ((least - other.E) / (float(other.optimal_loss(1.0)) - other.E)) ** (-1 / slope) / flops
    return _hit(found.saved("second", flops)["interval"], truth)


def _metric(noise: float, seed: int) -> dict[str, float]:
    """Whether the intervals of a metric's exponent and of its fitted floor hold them: six budgets, one seed."""
    rng = np.random.default_rng(seed)
    budgets = np.geomspace(1e12, 1e15, 6)
    runs = [
        {"flops": c, "budget": c, "loss": 1 / c, "error": (0.1 + 2e3 * c**-0.3) * np.exp(rng.normal(0, noise))}
        for c in budgets
    ]
    plain = [run | {"error": 2e3 * run["flops"] ** -0.3 * np.exp(rng.normal(0, noise))} for run in runs]
    floored = fit_quality(runs, "error", floor=None, bootstraps=DRAWS, seed=seed)
    return {
        "g": _hit(fit_quality(plain, "error", bootstraps=DRAWS, seed=seed).interval, 0.3),
        "g with a floor": _hit(floored.interval, 0.3),
        "floor": _hit(floored.floor_interval, 0.1),
    }


def coverage(sets: int) -> dict[str, dict[float, dict[str, np.ndarray]]]:
    """Design -> noise -> quantity -> of each draw whether its interval held the truth, nan without one."""
    found: dict[str, dict[float, dict[str, np.ndarray]]] = {}
    for design in designs():
        found[design.name] = {}
        for number, noise in enumerate(NOISES):
            first = 10_000 * number  # noise of its own at each scale: the same, scaled, would count three times
            rows = [_one(design, noise, first + seed) for seed in range(sets)]
            cells = {name: np.array([row[name] for row in rows]) for name in rows[0]}
            cells["saved by an arm"] = np.array([_arms(design, noise, first + seed) for seed in range(0, sets, 2)])
            found[design.name][noise] = cells
    found["a metric at 6 budgets"] = {}
    for number, noise in enumerate(NOISES):
        rows = [_metric(noise, 10_000 * number + seed) for seed in range(sets)]
        found["a metric at 6 budgets"][noise] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def shares(cells: dict[float, dict[str, np.ndarray]], name: str) -> tuple[float, float]:
    """Share of a design's intervals, over all noises, that held the truth, and share of draws that had one."""
    drawn = np.concatenate([cell[name] for cell in cells.values()])
    with_one = np.isfinite(drawn)
    return float(drawn[with_one].mean()) if with_one.any() else float("nan"), float(with_one.mean())


def _coverage_page(sets: int) -> str:
    found = coverage(sets)
    warned = [*FALSE, ANY, *TRUE]
    quantities = [name for name in next(iter(next(iter(found.values())).values())) if name not in warned]
    metric = next(cells for name, cells in found.items() if name.startswith("a metric"))
    named = [name for name in found if not name.startswith("a metric")]
    rows = [[quantity, *(_cell(*shares(found[name], quantity)) for name in named)] for quantity in quantities]
    alarms = [[warning, *(_rate(shares(found[name], warning)[0]) for name in named)] for warning in warned]
    rest = "; ".join(f"{name} {_cell(*shares(metric, name))}" for name in next(iter(metric.values())))
    return (
        f"{sets} draws of each design at each noise of the loss, {', '.join(f'{n:.1%}' for n in NOISES)}, taken"
        f" together; the standard error of a cell is {0.4 / np.sqrt(3 * sets):.3f}.\n\n"
        + table(["80% interval of", *named], rows)
        + f"\n\nA metric at six budgets, one seed each: {rest}. What an arm saves is from half of the draws.\n\n"
        + f'How often each warning is said of the same {3 * sets} draws. Those above "{ANY}" are false when said, those'
        + " below it are true of the design or of the draw:\n\n"
        + table(["warning", *named], alarms)
    )


def each_noise(sets: int) -> dict[str, dict[float, dict[str, np.ndarray]]]:
    """As `coverage`, of approach 3 alone, which takes a third of the time."""
    found: dict[str, dict[float, dict[str, np.ndarray]]] = {}
    for design in designs():
        found[design.name] = {}
        for number, noise in enumerate(NOISES):
            rows = [_third(design, noise, 10_000 * number + seed)[1] for seed in range(sets)]
            found[design.name][noise] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def _noises_page(sets: int) -> str:
    draws = 3 * sets  # of each design at each noise, as many as of all noises together in the other table
    found = each_noise(draws)
    quantities = next(iter(next(iter(found.values())).values()))
    rows = [[name, *(_cells(cells, name) for cells in found.values())] for name in quantities]
    given = [hits for cells in found.values() for cell in cells.values() for hits in cell.values()]
    return (
        f"{draws} draws of each design at each noise of the loss, {', '.join(f'{n:.1%}' for n in NOISES)}: the share at"
        f" each. {chance(given)}\n\n" + table(["80% interval of", *found], rows)
    )


def chance(hits: Sequence[np.ndarray]) -> str:
    """How many shares lie outside `RANGE`, and how many would by chance alone, were each 80% in truth."""
    hits = [drawn for held in hits if len(drawn := held[np.isfinite(held)]) >= LEAST_DRAWS]
    outside = sum(not RANGE[0] <= drawn.mean() <= RANGE[1] for drawn in hits)
    expected = 0.0
    for drawn in hits:
        inside = np.floor(RANGE[1] * len(drawn)), np.ceil(RANGE[0] * len(drawn)) - 1
        expected += 1 - float(np.diff(stats.binom.cdf(inside[::-1], len(drawn), 0.8))[0])
    error = np.sqrt(0.8 * 0.2 / max(map(len, hits)))
    return (
        f"The standard error of a share is {error:.3f}; {outside} of {len(hits)} shares lie outside {RANGE[0]:.2f} to"
        f" {RANGE[1]:.2f}, where chance alone would put {expected:.0f}; their mean is"
        f" {np.mean([drawn.mean() for drawn in hits]):.3f}."
    )


def _cells(cells: dict[float, dict[str, np.ndarray]], name: str) -> str:
    """The shares at each noise."""
    return " ".join(_cell(*shares({noise: cell}, name)) for noise, cell in cells.items())


def _rate(share: float) -> str:
    return f"{share:.1%}" if share else "0"


def _cell(share: float, with_one: float) -> str:
    if np.isnan(share) or with_one < 0.02:
        return "none"
    return f"{share:.2f}" + (f" ({with_one:.0%} have one)" if with_one < 0.995 else "")


def heavy_tailed(sets: int) -> dict[str, dict[str, np.ndarray]]:
    """Design -> coefficient -> of each draw whether the interval of Huber's loss held it: noise whose tails are heavy.

    The noise is Student's with two degrees of freedom, in proportion to the loss.
    """
    found = {}
    for design in designs():
        rows = []
        for seed in range(sets):
            rng = np.random.default_rng((2, len(design.params), seed))
            exact = design.law.loss(design.params, design.tokens)
            loss = exact * np.exp(HEAVY * rng.standard_t(2, len(exact)))
            fit = fit_law(design.params, design.tokens, loss, bootstraps=DRAWS, starts=8, form=Form("huber"), seed=seed)
            row = {name: _hit(fit.interval(name), float(getattr(design.law, name))) for name in NAMES}
            rows.append(row | {"a, approach 3": _hit(fit.interval("a"), float(design.law.exponent()))})
        found[design.name] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def _huber_page(sets: int) -> str:
    draws = 3 * sets  # as many as of all noises together in the other table
    found = heavy_tailed(draws)
    rows = []
    for quantity in next(iter(found.values())):
        cells = [hits[quantity] for hits in found.values()]
        rows.append([quantity, *(_cell(float(np.nanmean(c)), float(np.isfinite(c).mean())) for c in cells)])
    return (
        f"{draws} draws of each design, noise of Student's t with two degrees of freedom times {HEAVY:.1%}."
        f" {chance([hits for cells in found.values() for hits in cells.values()])}\n\n"
        + table(["80% interval of", *found], rows)
    )


def repetition(sets: int) -> dict[float, dict[str, np.ndarray]]:
    """Noise -> R* -> of each draw whether its interval held the truth: 75 runs, sizes at unique tokens and epochs."""
    law = RepetitionLaw(BESIROGLU, repeats=15.0, excess=5.0)
    n, unique, epochs = (
        grid.ravel()
        for grid in np.meshgrid(
            np.geomspace(1e7, 5e9, 5), np.geomspace(1e8, 1e10, 3), [1, 3, 10, 30, 100], indexing="ij"
        )
    )
    exact = law.loss(n, unique * epochs, unique)
    found = {}
    for number, noise in enumerate(NOISES):
        hits = []
        for seed in range(sets):
            rng = np.random.default_rng((7, 10_000 * number + seed))
            fit = fit_repetition(n, unique * epochs, unique, exact * np.exp(rng.normal(0, noise, len(n))))
            hits.append((_hit(fit.interval("repeats"), law.repeats), _hit(fit.interval("excess"), law.excess)))
        found[noise] = dict(zip(("R_D*", "R_N*"), np.array(hits).T, strict=True))
    return found


def _repetition_page(sets: int) -> str:
    found = repetition(sets)
    parts = {f"{noise:.1%}": {noise: cells} for noise, cells in found.items()} | {"all": found}
    rows = [[name, *(_cell(*shares(part, held)) for held in ("R_D*", "R_N*"))] for name, part in parts.items()]
    return f"{sets} draws of 75 runs at each noise.\n\n" + table(["noise", "R_D*", "R_N*"], rows)


# Error of D_opt at 1e24 FLOPs by parabolas through all sizes, in per cent: arXiv 2603.22339v2, appendix A and B.
PUBLISHED = {
    ("symmetric", "centred"): (0.0, 0.0, 0.0, 0.0), ("Chinchilla", "centred"): (-0.33, -1.30, -2.90, -5.10),
    ("asymmetric", "centred"): (-1.67, -6.50, -13.91, -23.12), ("symmetric", "drift"): (6.07, 5.17, 3.70, 1.69),
    ("Chinchilla", "drift"): (11.61, 9.83, 6.94, 3.05), ("asymmetric", "drift"): (34.57, 30.04, 22.97, 14.00),
}  # fmt: skip
WIDTHS = (2.0, 4.0, 8.0, 16.0)


def _bias_page(_: int) -> str:
    laws = {"symmetric": SYMMETRIC, "Chinchilla": CHINCHILLA, "asymmetric": ASYMMETRIC}
    rows = []
    for (surface, centring), published in PUBLISHED.items():
        law = laws[surface]
        truth = 1e24 / (6 * float(law.optimal_params(1e24)))
        for width, theirs in zip(WIDTHS, published, strict=True):
            drift = 1 / 3 if centring == "drift" else 1.0
            design = isoflop("", law, np.geomspace(1e17, 1e21, 5), 15, width, drift)
            runs = design.table(0.0, 0)
            fit = fit_law(runs.params, runs.tokens, runs.loss, bootstraps=0)
            found = fit_isoflop(runs.flops, runs.params, runs.tokens, runs.loss, bootstraps=20, fit=fit)
            ours = float(found.tokens(np.array(1e24))) if found.tokens else float("nan")
            exact = 1e24 / (6 * float(fit.law.optimal_params(1e24)))
            rows.append(
                [
                    f"{surface} ({law.alpha:g}, {law.beta:g})", centring, f"{width:g}", f"{theirs:+.2f}%",
                    f"{ours / truth - 1:+.2%}",
                    f"{found.params.exponent - law.exponent():+.4f}" if found.params else "",
                    f"{exact / truth - 1:+.2%}",
                ]
            )  # fmt: skip
    header = ["law (alpha, beta)", "sizes", "within a factor", "published, all sizes", "here, near the best run",
              "of it the exponent a", "approach 3"]  # fmt: skip
    return table(header, rows)


def noisy(repeats: int) -> dict[str, np.ndarray]:
    """Relative errors of the exponent by each estimator."""
    truth = float(ASYMMETRIC.exponent())
    found: dict[str, list[float]] = {"squares": [], "huber": [], "auto": []}
    for *_, n, d, losses_KR in noisy_designs(repeats):
        for loss in losses_KR:
            fits = {name: fit_law(n, d, loss, bootstraps=0, starts=4, form=Form(name)) for name in ("squares", "huber")}
            heavy = heavy_tails(loss - np.exp(np.log(loss) - fits["squares"].residuals_R))
            fits["auto"] = fits["huber" if heavy else "squares"]
            for name, fit in fits.items():
                found[name].append(float(fit.law.exponent()) / truth - 1)
    return {name: np.array(errors) for name, errors in found.items()}


def _noisy_page(sets: int) -> str:
    names = {"squares": "least squares of L", "huber": "Huber loss of log L", "auto": "`auto`: by the residuals"}
    rows = [
        [names[name], f"{np.abs(errors).max():.1%}", f"{np.exp(np.log(np.abs(errors)).mean()):.2%}", ""]
        for name, errors in noisy(min(256, sets * 256 // SETS)).items()
    ]
    published = [("variable projection", 34.2, 1.09), ("log-sum-exp, log loss", 44.2, 1.26),
                 ("least squares, 5 coefficients", 73.6, 1.11), ("approach 2", 715.5, 4.84),
                 ("5 coefficients, one random start", 296.0, 16.2)]  # fmt: skip
    rows += [[name, f"{most:.1f}%", f"{mean:.2f}%", "published"] for name, most, mean in published]
    return table(["estimator", "greatest error of a", "geometric mean of a (published: of a and b)", ""], rows)


def _speed_page(_: int) -> str:
    def seconds(work: Callable[[], object]) -> str:
        start = time.process_time()
        work()
        return f"{time.process_time() - start:.1f}"

    def law(count: int, bootstraps: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        n, d = 10 ** rng.uniform(7, 9.5, count), 10 ** rng.uniform(8.5, 11, count)
        loss = BESIROGLU.loss(n, d) * np.exp(rng.standard_t(2, count) * 0.005)
        return lambda: fit_law(n, d, loss, bootstraps=bootstraps)

    rows = [[f"{bootstraps:,} bootstraps of {count:,} runs", seconds(law(count, bootstraps))]
            for count, bootstraps in ((121, 4000), (245, 4000), (2000, 1000))]  # fmt: skip
    return table(["approach 3", "processor seconds"], rows)


def _faults_page(_: int) -> str:
    found = []
    for fault, rows, asked, starts in faults():
        lines = [line for line in said(rows, asked) if line.startswith(starts)]
        found.append([fault, "; ".join(f"`{' '.join(line.split())}`" for line in lines) or "nothing"])
    return table(["fault", "what is printed"], found, words=(1,))


PAGES = {
    "faults": _faults_page, "coverage": _coverage_page, "noises": _noises_page, "huber": _huber_page,
    "repetition": _repetition_page, "bias": _bias_page, "noisy": _noisy_page, "speed": _speed_page,
}  # fmt: skip


def main(argv: list[str]) -> None:
    """Entry point."""
    no_arguments(argv)
    values = flags.FLAGS
    for name in [values.only] if values.only else PAGES:
        text = PAGES[name](values.sets)
        print(text, flush=True)
        if values.sets >= SETS:
            put(PAGE, f"python -m benchmarks.laws --only={name}", text)


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_enum("only", None, list(PAGES), "one table")
    flags.DEFINE_integer("sets", SETS, "draws of each design", lower_bound=1)
    run_main(main)
