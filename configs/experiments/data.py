"""(b) 10%, 30% and 100% of the videos at three budgets, and 1% at two: when do repeats stop helping?

python -m launch.experiment --name=data (with --dry_run: what it takes)
"""

from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    cells = (("XS", 1), ("S", 1), ("S", 4), ("M", 16))  # two sizes at 1x, so that the law can tell N from D
    arms = [
        Arm(
            f"{fraction:.0%} {size} {times}x",
            {**common.SIZES[size], "data.fraction": fraction},
            times * common.UNIT,
            group=f"{fraction:.0%} of the videos" + (", S at 1x" if (size, times) == ("S", 1) else ""),
        )
        for fraction in (0.01, 0.1, 0.3, 1.0)
        for size, times in cells
        if times > 1 or fraction > 0.01
    ]
    return Experiment(
        name="data",
        title="1%, 10%, 30% and all of the videos",
        claim="Up to about four epochs repeated data is nearly as good as new; later repeats are worth less and less "
        "(Muennighoff et al. 2023, for language).",
        question="At equal compute, what does training on 1%, 10% or 30% of the clips cost, and after how many epochs?",
        data={"physics": common.PHYSICS},
        base=common.base(),
        arms=arms,
        measures=("loss", "velocity"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("epochs", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in",), "velocity error, units/s"),
        ),
        compare=[
            ("loss", f"{fraction} {size} {times}x", f"100% {size} {times}x")
            for size, times in cells
            for fraction in ("1%", "10%", "30%")
            if times > 1 or fraction != "1%"
        ],
        floors=("physics",),
        notes=("repetition",),
        limits=(
            *common.LIMITS,
            "Smaller shares are the same clips for every seed: no interval covers which clips are drawn.",
        ),
    )
