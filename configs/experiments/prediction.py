"""(k) A network that predicts the clean patch against one that predicts the velocity, narrower and wider than a patch.

python -m launch.experiment --name=prediction (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure

SCALES = (("XS", 1), ("M", 8))


def get_config() -> Experiment:
    arms = [
        Arm(
            f"{kind} {times}x",
            {**common.SIZES[size], "model.prediction": kind},
            times * common.UNIT,
            group=f"{kind}-prediction",
        )
        for kind in ("x", "v")
        for size, times in SCALES
    ]
    return Experiment(
        name="prediction",
        title="Predicting the clean patch or the velocity",
        claim="Where the width is below the numbers of a patch only x-prediction works (Li & He 2025).",
        question="How much worse is v-prediction at widths of 16 and 32 for patches of 96 numbers?",
        data={"balls": balls.UNIFORM},
        base=balls.recipe(),
        arms=arms,
        measures=("loss", "velocity"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in",), "velocity error, units/s"),
        ),
        compare=[(metric, f"x {times}x", f"v {times}x") for metric in ("velocity_in", "loss") for _, times in SCALES],
        floors=("balls",),
        limits=common.LIMITS,
    )
