"""(h) Images and videos together against videos alone.

python -m launch.experiment --name=images (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    size = common.SIZES["M"]
    arms = [
        Arm("videos", {**size, "data.path": "{videos}"}, 15 * common.UNIT, group="videos"),
        Arm(
            "videos and images",
            {**size, "data.path": "{videos},{stills}", "data.weights": (1.0, 1.0)},
            15 * common.UNIT,
            group="videos and images",
        ),
    ]
    return Experiment(
        name="images",
        title="Images and videos together",
        claim="Training on images and videos jointly makes better videos than training on videos "
        "alone (Ho et al. 2022).",
        question="With few videos and many images of other clips, at equal compute: which model has the lower loss on "
        "videos, and whose clips look more like true ones?",
        data={
            "videos": balls.clips("coloured", 400, captions=True),
            "others": (*balls.clips("coloured", 6000, captions=True), "--seed=1"),
            "stills": ("data_pipelines.derive", "--of={others}", "--stills"),
        },
        base=balls.recipe(text=0.7, two_groups=0.3),
        arms=arms,
        measures=("loss:videos", "velocity", "adherence", "distance"),
        figures=(
            Figure("arm", ("loss_videos",), "loss on videos", log_y=False),
            Figure("arm", ("adherence_colours", "adherence_number"), "share right", log_y=False),
            Figure("arm", ("kid",), "kernel distance", log_y=False),
        ),
        compare=[
            (metric, "videos and images", "videos")
            for metric in ("loss_videos", "velocity_in", "adherence_colours", "kid")
        ],
        floors=("videos",),
        limits=(
            *common.LIMITS,
            "The images are of the same world as the videos, so nothing is learned from them about other looks.",
        ),
    )
