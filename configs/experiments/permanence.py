"""(f) A ball passes behind a wall: does it come out where and when it should, by scale?

python -m launch.experiment --name=permanence (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure

NO_CAPTIONS = "--text_encoder=none"


def get_config() -> Experiment:
    scales = (("XS", 1), ("M", 6), ("L", 36))
    arms = [Arm(f"{times}x", common.SIZES[size], times * common.UNIT, group="scale") for size, times in scales]
    with_wall, without_wall = ("came_out_wall_in", "in_place_wall_in"), ("came_out_open_in", "in_place_open_in")
    return Experiment(
        name="permanence",
        title="A ball behind a wall",
        claim="Object permanence emerges with scale: what is hidden for a while comes back (OpenAI 2024, Sora).",
        question="In how many frames after the wall is the ball there, and in its place, and how "
        "much better is it without "
        "a wall?",
        data={
            "hidden": ("data_pipelines.build", "--source=physics-hidden", "--patch=2,4,4", "--limit=8000", NO_CAPTIONS)
        },
        base=balls.recipe(),
        arms=arms,
        measures=("loss", "permanence"),
        figures=(
            Figure("flops", ("came_out_wall_in", "came_out_open_in"), "share of frames with the ball", log_y=False),
            Figure("flops", ("in_place_wall_in", "in_place_open_in"), "share with the ball in place", log_y=False),
            Figure("flops", ("in_place_wall_out",), "in place, faster balls", log_y=False),
        ),
        compare=[(metric, "36x", "1x") for metric in (*with_wall, *without_wall, "in_place_wall_out")],
        limits=(
            *common.LIMITS,
            "One ball, one kind of wall, straight motion.",
        ),
    )
