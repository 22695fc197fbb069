"""(c) Native sizes against square crops at equal compute: is the subject in the frame, and what of other sizes?

python -m launch.experiment --name=native (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    size = common.SIZES["M"]
    base = balls.recipe(text=0.7, two_groups=0.3)
    base["data"]["row_tokens"] = 432
    arms = [
        Arm(name, {**size, "data.path": "{" + data + "}"}, 15 * common.UNIT, group=name)
        for name, data in (("native sizes", "native"), ("square crops", "square"))
    ]
    return Experiment(
        name="native",
        title="Native sizes against square crops",
        claim="Training on videos at their native aspect ratio improves framing: models trained on square crops show "
        "subjects partly out of view (OpenAI 2024, Sora).",
        question="At equal compute, which model shows the balls of a caption whole at the data's own sizes, and what "
        "is either's loss at sizes that the other was trained on?",
        data={
            "native": balls.clips("coloured; sides=16,20,24,32; walls=false", 8000, captions=True),
            "square": ("data_pipelines.derive", "--of={native}", "--square=16"),
        },
        base=base,
        arms=arms,
        measures=("loss", "loss:native", "loss:square", "framing", "adherence:native"),
        figures=(
            Figure("arm", ("subject_in_frame",), "share of balls shown whole", log_y=False),
            Figure("arm", ("loss_native", "loss_square"), "loss, native and square"),
        ),
        compare=[
            (metric, "native sizes", "square crops")
            for metric in ("subject_in_frame", "loss_native", "loss_square", "adherence_number")
        ],
        notes=("boxes",),
        limits=(
            *common.LIMITS,
            "A crop changes the scale of clips whose shorter side is not that of the crop, besides cutting them.",
        ),
    )
