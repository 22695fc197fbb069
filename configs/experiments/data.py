"""(b) 20, 200, 2,000 and 20,000 clips at three budgets: when is motion learned, and when are clips memorised?

python -m launch.experiment --name=data (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure

FRACTIONS = {0.001: "20 clips", 0.01: "200 clips", 0.1: "2,000 clips", 1.0: "20,000 clips"}


def get_config() -> Experiment:
    cells = (("XS", 1), ("S", 1), ("S", 3), ("M", 10))  # two sizes at 1x, so that the law can tell N from D
    arms = [
        Arm(
            f"{clips} {size} {times}x",
            {**common.SIZES[size], "data.fraction": fraction},
            times * common.UNIT,
            group=clips + (", S at 1x" if (size, times) == ("S", 1) else ""),
        )
        for fraction, clips in FRACTIONS.items()
        for size, times in cells
    ]
    return Experiment(
        name="data",
        title="20 to 20,000 clips",
        claim="Diffusion models repeat data well (Prabhudesai et al. 2025), and learn the rule before they memorise: "
        "the time to the first falls with capacity, that to the second grows with the data.",
        question="At equal compute, what does training on 20, 200 or 2,000 clips in place of 20,000 cost on new ones?",
        data={"balls": balls.UNIFORM},
        base=balls.recipe(),
        arms=arms,
        measures=("loss", "velocity"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("epochs", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in",), "velocity error, units/s"),
        ),
        compare=[
            (metric, f"{clips} {size} {times}x", f"{FRACTIONS[1.0]} {size} {times}x")
            for metric in ("loss", "velocity_in")
            for size, times in cells[1:]
            for fraction, clips in FRACTIONS.items()
            if fraction < 1
        ],
        floors=("balls",),
        notes=("repetition",),
        limits=(
            *common.LIMITS,
            "Smaller shares are the same clips for every seed: no interval covers which clips are drawn.",
        ),
    )
