"""(d) Packing against padding and bucketing at equal wall time.

python -m launch.experiment --name=packing (with --dry_run: what it takes)
"""

from configs import balls
from configs.experiments import common
from launch.experiments.spec import Arm, Experiment, Figure


def get_config() -> Experiment:
    kinds = (("packed", 0), ("16 buckets", 16), ("padded", 1))
    # rows hold several of the longest examples, and captions never fill first: else padding wastes what no batch would
    rows = {"data.row_tokens": 800, "data.row_text": 8, "data.row_examples": 40}
    arms = [
        Arm(name, {**common.SIZES["M"], **rows, "data.buckets": buckets}, seconds=40, group=name)
        for name, buckets in kinds
    ]
    return Experiment(
        name="packing",
        title="Packing against padding and bucketing",
        claim="Packing examples of all sizes into full rows buys more training for the same time "
        "than padding them to one "
        "size (Dehghani et al. 2023, NaViT).",
        question="After the same wall time on the same machine, which way of filling rows has the lower loss?",
        data={"lengths": balls.clips("uniform; sides=12,16,20,24; frames=7,9,13,17")},
        base=balls.recipe(),
        arms=arms,
        measures=("loss", "velocity"),
        figures=(
            Figure("arm", ("loss",), "validation loss", log_y=False),
            Figure("arm", ("tokens",), "patches seen", log_y=False),
            Figure("arm", ("velocity_in",), "velocity error, units/s", log_y=False),
        ),
        compare=[
            (metric, "packed", other)
            for metric in ("loss", "tokens", "train_seconds")
            for other in ("16 buckets", "padded")
        ],
        floors=("lengths",),
        notes=("fill",),
        limits=(
            *common.LIMITS,
            "Padded and bucketed rows have as many slots as packed ones, so they waste a little more than batches of "
            "shapes of their own would (see how full rows are); what padding wastes depends on the spread of the "
            "balls' sizes.",
            "Steps follow from a speed measured once, compilation left out; other work on the machine at that time "
            "would tilt the comparison.",
        ),
    )
