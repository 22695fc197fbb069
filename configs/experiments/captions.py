"""(g) Short against detailed captions: what do generated clips show of what is asked for?

python -m launch.experiment --name=captions (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    arms = [
        Arm(f"{kind} captions", {**common.SIZES["M"], "data.captions": (kind,)}, 20 * common.UNIT, group=kind)
        for kind in ("short", "detailed")
    ]
    return Experiment(
        name="captions",
        title="Short against detailed captions",
        claim="Training on highly descriptive captions improves text fidelity and quality (OpenAI "
        "2024, Sora; Betker et al. "
        "2023).",
        question="At equal compute, do models trained on detailed captions show the number, colours "
        "and directions that "
        "are asked for more often, prompted by either kind?",
        data={"described": ("data_pipelines.build", "--source=physics-described", "--patch=2,4,4", "--limit=8000")},
        base=balls.recipe(text=0.9, two_groups=0.1),
        arms=arms,
        measures=("loss", "adherence"),
        figures=(
            Figure(
                "arm",
                tuple(f"adherence_{what}_from_detailed" for what in ("number", "colours", "directions")),
                "share right, detailed prompts",
                log_y=False,
            ),
            Figure(
                "arm",
                tuple(f"adherence_{what}_from_short" for what in ("number", "colours", "directions")),
                "share right, short prompts",
                log_y=False,
            ),
        ),
        compare=[
            (f"adherence_{what}_from_{kind}", "detailed captions", "short captions")
            for kind in ("detailed", "short")
            for what in ("number", "colours", "directions")
        ],
        limits=(
            *common.LIMITS,
            "Captions are made from the simulator by rule; none is wrong, and the two kinds differ in what they say.",
        ),
    )
