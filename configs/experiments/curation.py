"""Training on the half of a film's shots with most motion, with least, and on all of them, at equal compute.

python -m launch.experiment --name=curation (with --dry_run: what it takes)
"""

from configs import film
from launch.experiments.spec import Arm, Experiment, Figure

BUDGET = 2.5e11
"""Training FLOPs of a run."""
ARMS = {"all shots": "", "half with most motion": "motion: 0, 1", "half with least motion": "motion: 1, 0"}
"""`data.strata` of each arm."""


def get_config() -> Experiment:
    recipe = film.get_config().to_dict()
    recipe["data"].pop("path")
    recipe["model"] = {"width": 32, "depth": 2, "head_width": 16}
    recipe["data"] |= {"row_tokens": 512, "row_text": 256}
    recipe["diffusion"]["modes"] = {"first_frame": 0.5, "two_groups": 0.5}
    recipe["optimizer"] = {"method": "muon", "learning_rate": 8e-3, "warmup": 20}
    recipe["train"] = {"log_every": 50, "checkpoint_every": 1000, "keep": 1}
    return Experiment(
        name="curation",
        title="The half of a film with most motion",
        claim="Leaving out clips in which little moves makes better video models of the same compute (Blattmann et al. "
        "2023, Stable Video Diffusion, drop clips of low optical flow).",
        question="At equal compute, does training on the half of the film's shots with most motion, by the column that "
        "the build measures, change the loss on shots that are held out, given their first frames?",
        data={"film": ("data_pipelines.build", "--source=film")},
        base=recipe,
        arms=[Arm(name, {"data.strata": strata}, BUDGET, group=name) for name, strata in ARMS.items()],
        measures=("loss",),
        figures=(Figure("arm", ("loss",), "loss on held-out shots", log_y=False),),
        compare=[("loss", "half with most motion", other) for other in ("all shots", "half with least motion")],
        notes=("boxes",),
        limits=(
            "One film of 127 shots, 13 of them held out; some of these share a set with training shots.",
            "The models are small, and the half is read twice as often as the whole: with more data, or more compute, "
            "the answer may be another.",
            "The loss is that of all held-out shots, moving or not, and says little about how motion looks.",
        ),
        minutes=10,
    )
