"""(b) 10%, 30% and 100% of the videos at three budgets: when do repeats stop helping?

python -m launch.experiment --name=data (with --dry_run: what it takes)
"""

from configs.experiments import common
from launch.experiment_spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    cells = (("S", 1), ("S", 4), ("M", 16))
    arms = [
        Arm(
            f"{fraction:.0%} {times}x",
            {**common.SIZES[size], "data.fraction": fraction},
            times * common.UNIT,
            group=f"{fraction:.0%} of the videos",
        )
        for fraction in (0.1, 0.3, 1.0)
        for size, times in cells
    ]
    return Experiment(
        name="data",
        title="A tenth, a third and all of the videos",
        claim="Up to about four epochs repeated data is nearly as good as new; later repeats are worth less and less "
        "(Muennighoff et al. 2023, for language).",
        question="At equal compute, what does training on 10% or 30% of the clips cost, and after how many epochs?",
        data={"fewer": ("data_pipelines.build", "--source=physics", "--limit=1200")},
        base=common.base(),
        arms=arms,
        measures=("loss", "velocity"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("epochs", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in",), "velocity error, units/s"),
        ),
        compare=[
            ("loss", f"{fraction} {times}x", f"100% {times}x") for times in (1, 4, 16) for fraction in ("10%", "30%")
        ],
        floors=("fewer",),
        notes=("repetition",),
        limits=("The largest set is a tenth of that of the other experiments, so that small budgets repeat it too.",),
    )
