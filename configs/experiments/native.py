"""(c) Native sizes against square crops at equal compute: is the subject in the frame, and what of other sizes?

python -m launch.experiment --name=native (with --dry_run: what it takes)
"""

from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    size = common.SIZES["M"]
    text = {"text": 0.7, "two_groups": 0.3}
    arms = [
        Arm(name, {**size, "data.path": "{" + data + "}"}, 8 * common.UNIT, group=name)
        for name, data in (("native sizes", "physics"), ("square crops", "square"))
    ]
    return Experiment(
        name="native",
        title="Native sizes against square crops",
        claim="Training on videos at their native aspect ratio improves framing: models trained on square crops show "
        "subjects partly out of view (OpenAI 2024, Sora).",
        question="At equal compute, which model shows the balls of a caption whole at the data's "
        "own sizes, and what is "
        "either's loss at sizes that the other was trained on?",
        data={
            "physics": common.PHYSICS,
            "square": ("data_pipelines.derive", "--of={physics}", "--square=32"),
        },
        base=common.base(**text),
        arms=arms,
        measures=("loss", "loss:physics", "loss:square", "framing", "adherence:physics"),
        figures=(
            Figure("arm", ("subject_in_frame",), "share of balls shown whole", log_y=False),
            Figure("arm", ("loss_physics", "loss_square"), "loss, native and square"),
        ),
        compare=[
            (metric, "native sizes", "square crops")
            for metric in ("subject_in_frame", "loss_physics", "loss_square", "adherence_number")
        ],
        notes=("boxes",),
        limits=(
            *common.LIMITS,
            "A crop changes the scale of clips whose shorter side is not that of the crop, besides cutting them.",
        ),
        minutes=45,
    )
