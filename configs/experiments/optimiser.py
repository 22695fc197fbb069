"""(j) Muon against AdamW at three budgets: does the optimiser move the coefficient or the exponent?

python -m launch.experiment --name=optimiser (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Experiment

SCALES = (("XS", 1), ("S", 4), ("M", 16))


def get_config() -> Experiment:
    values = {"Muon": {"optimizer.method": "muon"}, "AdamW": {"optimizer.method": "adamw"}}
    return Experiment(
        name="optimiser",
        title="Muon against AdamW",
        claim="Muon reaches a lower loss than AdamW at equal compute (Jordan et al. 2024, for language models).",
        question="By how much at each of three budgets, and does the ratio change with compute?",
        data={"balls": balls.UNIFORM},
        base=balls.recipe(),
        arms=common.contrast(values, SCALES),
        measures=("loss", "velocity"),
        figures=common.FIGURES,
        compare=[
            (metric, f"Muon {times}x", f"AdamW {times}x")
            for metric in ("velocity_in", "loss")
            for _, times in reversed(SCALES)
        ],
        floors=("balls",),
        limits=(*common.LIMITS, "AdamW has the rate that was chosen for the other parameters of the Muon runs."),
    )
