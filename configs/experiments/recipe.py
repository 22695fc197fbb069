"""(l) The recipe of configs/balls.py without each of its parts: which of them make small models learn motion?

python -m launch.experiment --name=recipe (with --dry_run: what it takes)
"""

from typing import Any

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure
from vdit.palette import COLOURS

SIDES = "sides=16,24"
WITHOUT: dict[str, dict[str, Any]] = {
    "Muon": {"optimizer.method": "adamw"},
    "unit inputs": {"diffusion.input_std": 0.0},
    "late times": {"diffusion.given_shift": 1.0},
    "small patches": {"data.path": "{coarse}", "data.row_tokens": 55},
    "one colour": {"data.path": "{colours}"},
}
"""What each arm lacks. Patches of four times the area fill a row with as many clips, in a quarter of the tokens."""


def get_config() -> Experiment:
    budget, size = 6 * common.UNIT, common.SIZES["M"]
    base = balls.recipe()
    base["data"]["row_tokens"] = 220
    arms = [
        Arm("recipe", size, budget),
        *(Arm(f"without {part}", {**size, **fields}, budget) for part, fields in WITHOUT.items()),
    ]
    world = f"uniform; {SIDES}"
    coarse = tuple(part.replace("--patch=2,4,4", "--patch=2,8,8") for part in balls.clips(world))
    return Experiment(
        name="recipe",
        title="What makes a small model learn motion",
        claim="Muon, inputs at unit variance, times near noise where frames are given, small patches and a world of "
        "one colour are each needed.",
        question="How much larger is the velocity error without each of them, at equal compute?",
        data={
            "even": balls.clips(world),
            "coarse": coarse,
            "colours": balls.clips(f"{world}; colours={','.join(COLOURS)}"),
        },
        base=base,
        arms=arms,
        measures=("velocity",),
        figures=(Figure("arm", ("velocity_in",), "velocity error, units/s", log_y=False),),
        compare=[("velocity_in", f"without {part}", "recipe") for part in WITHOUT],
        floors=("even",),
        limits=common.LIMITS,
    )
