"""(a) 1x, 4x, 32x and 64x compute: loss, velocity error and KID, and the last loss predicted before it is run.

python -m launch.experiment --name=compute (with --dry_run: what it takes)
"""

from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure, isoflop_arms


def get_config() -> Experiment:
    sizes, unit = common.SIZES, common.UNIT
    tried = ((1, "XS S M"), (2, "XS S M L"), (4, "XS S M L"), (8, "S M L XL"), (16, "S M L XL"))
    grid = isoflop_arms(
        [(times, {size: sizes[size] for size in of.split()}) for times, of in tried],
        "grid {size} {budget}x",
        unit=unit,
        seeds=(0,),
        measures=(),
    )
    best = [
        Arm("1x", sizes["XS"], unit, group="best size"),
        Arm("4x", sizes["S"], 4 * unit, group="best size"),
        Arm("32x", sizes["XL"], 32 * unit, group="best size"),
        Arm("64x", sizes["XL"], 64 * unit, group="best size", kind="heldout"),
    ]
    return Experiment(
        name="compute",
        title="Quality against compute: 1x, 4x, 32x, 64x",
        claim="Sample quality of a video diffusion transformer improves as training compute grows (OpenAI 2024, Sora).",
        question="How far do loss, velocity error and kernel distance fall over 64 times the "
        "compute, and does a law of runs of at most a quarter of it predict the last loss?",
        data={"physics": common.PHYSICS},
        base=common.base(),
        arms=[*grid, *best],
        measures=("loss", "velocity", "distance"),
        figures=(
            Figure("flops", ("loss",), "validation loss"),
            Figure("flops", ("velocity_in", "velocity_out"), "velocity error, units/s"),
            Figure("flops", ("kid", "kid_floor"), "kernel distance", log_y=False),
        ),
        compare=[
            (metric, times, "1x")
            for times in ("32x", "64x")
            for metric in ("loss", "velocity_in", "velocity_out", "kid")
        ],
        laws=(("velocity_in", ""), ("velocity_out", "")),
        floors=("physics",),
        notes=("prediction",),
        limits=(
            *common.LIMITS,
            "KID is measured with features of single photographs, on frames of balls.",
            "The loss at 32x was known before, from `make study`; what is predicted is 64x. The law and the last value "
            "that is carried forward are of the grid alone, which ends at 16x.",
        ),
        minutes=75,
    )
