"""(a) 1x, 5x, 20x and 40x compute: loss and velocity error, and the last of both predicted before it is run.

python -m launch.experiment --name=compute (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure, isoflop_arms

GRID = (
    (1, (8, 12, 16, 24, 32)),
    (2.5, (12, 16, 24, 32, 48)),
    (5, (12, 16, 24, 32, 48)),
    (10, (16, 24, 32, 48, 64)),
)


def get_config() -> Experiment:
    sizes, unit = common.SIZES, common.UNIT
    grid = isoflop_arms(
        [(times, common.sizes(*widths)) for times, widths in GRID],
        "grid {size} {budget}x",
        unit=unit,
        seeds=(0,),
        measures=(),
    )
    best = [
        Arm("1x", sizes["XS"], unit, group="best size"),
        Arm("5x", sizes["M"], 5 * unit, group="best size"),
        Arm("20x", sizes["L"], 20 * unit, group="best size", kind="heldout"),
        Arm("40x", sizes["L"], 40 * unit, group="best size", kind="heldout"),
    ]
    return Experiment(
        name="compute",
        title="Quality against compute: 1x, 5x, 20x, 40x",
        claim="Sample quality of a video diffusion transformer improves as training compute grows (OpenAI 2024, Sora).",
        question="How far do loss and velocity error fall over 40 times the compute, and does a law of runs at up to "
        "10x predict the loss at 20x and 40x?",
        data={"balls": balls.UNIFORM},
        base=balls.recipe(),
        arms=[*grid, *best],
        measures=("loss", "velocity"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in", "velocity_fast", "velocity_small"), "velocity error, units/s"),
            Figure("flops", ("lost_in",), "share of balls lost", log_y=False),
        ),
        compare=[
            (metric, times, "1x")
            for times in ("5x", "20x", "40x")
            for metric in ("loss", "velocity_in", "velocity_slow", "velocity_fast", "velocity_small")
        ],
        laws=(("velocity_in", ""), ("velocity_fast", "")),
        floors=("balls",),
        notes=("prediction",),
        limits=common.LIMITS,
    )
