"""(e, second part) Pairs of colours never seen together, by the number of pairs seen.

python -m launch.experiment --name=combinations (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from data_pipelines.sources.physics.variants import TEMPLATES
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    name = "templates{}".format
    data = {
        name(count): (
            "data_pipelines.build",
            f"--source=physics-templates{count}",
            "--patch=2,4,4",
            "--limit=6000",
            "--text_encoder=none",
        )
        for count in reversed(TEMPLATES)  # the first is what is measured
    }
    arms = [
        Arm(
            f"{count} pairs {times}x",
            {**common.SIZES["M"], "data.path": "{" + name(count) + "}"},
            times * common.UNIT,
            group=f"{count} pairs",
        )
        for count in TEMPLATES
        for times in (2, 10)
    ]
    measured = name(TEMPLATES[-1])
    return Experiment(
        name="combinations",
        title="Combinations never seen together",
        claim="More combinations in training, not more clips of the same ones, help with unseen "
        "combinations (Kang et al. "
        "2025: 67%, 18% and 10% abnormal with 6, 30 and 60 templates).",
        question="With equal clips and compute, does the error on pairs of colours that never met "
        "fall with the number of "
        "pairs that did?",
        data=data,
        base=balls.recipe(),
        arms=arms,
        measures=("velocity", f"loss:{measured}"),
        figures=(
            Figure("arm", ("velocity_out", "velocity_in"), "velocity error, units/s", log_y=False),
            Figure("arm", ("lost_out", "lost_in"), "share of balls lost", log_y=False),
        ),
        compare=[
            ("velocity_out", f"{TEMPLATES[-1]} pairs 10x", f"{TEMPLATES[0]} pairs 10x"),
            ("lost_out", f"{TEMPLATES[-1]} pairs 10x", f"{TEMPLATES[0]} pairs 10x"),
        ],
        floors=(measured,),
        limits=(
            *common.LIMITS,
            "A template is a pair of colours: what is combined is looks, not kinds of motion.",
            f"In distribution is measured on the pairs of the largest set, {TEMPLATES[-1]}, of which smaller sets have "
            "seen only some.",
        ),
    )
