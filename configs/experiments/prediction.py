"""(k) A network that predicts the clean patch against one that predicts the velocity, narrower than a patch.

python -m launch.experiment --name=prediction (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Experiment

SCALES = (("XS", 1), ("M", 8))


def get_config() -> Experiment:
    values = {kind: {"model.prediction": kind} for kind in ("x", "v")}
    return Experiment(
        name="prediction",
        title="Predicting the clean patch or the velocity",
        claim="Where the width is below the numbers of a patch only x-prediction works (Li & He 2025).",
        question="How much worse is v-prediction at widths of 16 and 32 for patches of 96 numbers?",
        data={"balls": balls.UNIFORM},
        base=balls.recipe(),
        arms=common.contrast(values, SCALES, "{}-prediction"),
        measures=("loss", "velocity"),
        figures=common.FIGURES,
        compare=[(metric, f"x {times}x", f"v {times}x") for metric in ("velocity_in", "loss") for _, times in SCALES],
        floors=("balls",),
        limits=common.LIMITS,
    )
