"""(e) The balls' physics by kind, in and out of distribution, by scale.

python -m launch.experiment --name=physics (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure

KINDS = ("uniform", "parabola", "collision")
WORLD = "parabola; kinds=uniform,parabola,collision; colours=red,blue; frames=9,11,13"


def get_config() -> Experiment:
    scales = (("XS", 1), ("M", 6), ("L", 36))
    arms = [Arm(f"{times}x", common.SIZES[size], times * common.UNIT, group="all kinds") for size, times in scales]
    return Experiment(
        name="physics",
        title="Does the error of simple physics fall with scale?",
        claim="Scaling up reduces the error in distribution; out of distribution it stays where it "
        "is (Kang et al. 2025).",
        question="Does the velocity error of uniform motion, parabolas and collisions fall with compute, for speeds "
        "and radii of the training range and outside it?",
        data={"kinds": balls.clips(WORLD, 8000)},
        base=balls.recipe(),
        arms=arms,
        measures=("loss", "velocity", "kinds"),
        figures=(
            Figure("flops", ("velocity_in", "velocity_fast", "velocity_small"), "velocity error, units/s"),
            Figure("flops", tuple(f"velocity_{kind}_in" for kind in KINDS), "in distribution, units/s"),
            Figure("flops", tuple(f"velocity_{kind}_out" for kind in KINDS), "out of distribution, units/s"),
        ),
        compare=[(f"velocity_{side}", "36x", "1x") for side in ("in", "slow", "fast", "small")],
        laws=tuple((f"velocity_{kind}_{side}", "") for kind in KINDS for side in ("in", "out")),
        floors=("kinds",),
        limits=(
            *common.LIMITS,
            "One data set for all kinds; Kang et al. trained a model for each.",
        ),
    )
