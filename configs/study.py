"""The study of `make study`: a gliding ball at four budgets and a held-out one, a bouncing one, and a film.

python -m launch.study --out=study (with --dry_run: what it takes; with --full: a larger row of the grid)
"""

from configs import balls, film_latents
from configs.experiments.common import sizes
from launch.experiments.spec import Arm, Experiment, Packing, Report, isoflop_arms
from vdit.training.record.identity import flat

SIZES = sizes(8, 12, 16, 24, 32, 48, 64, 96, 128)
GRID = (
    (4e10, sizes(8, 12, 16, 24, 32)),
    (2e11, sizes(12, 16, 24, 32, 48)),
    (1e12, sizes(24, 32, 48, 64, 96)),
    (5e12, sizes(32, 48, 64, 96)),
)
HELD_OUT = 2e13
CLIPS = 60000
"""Of each world. The held-out run sees them four times, at which repeats are worth almost as much as new clips
(Muennighoff et al. 2023)."""
FULL = (2e13, sizes(48, 64, 96, 128))
"""FULL=1 adds this row to the grid and holds out a larger budget."""
FULL_HELD_OUT = 1e14
BOUNCES = ((4e10, "w16d2"), (2e11, "w32d2"), (1e12, "w48d2"), (5e12, "w64d2"), (2e13, "w96d2"))
"""Budgets and sizes of the runs on bouncing balls: about the best sizes of the gliding one."""
FILM = {
    **{**flat(film_latents.get_config().to_dict()), "data.path": "{film}"},
    **{"train.steps": 400, "train.keep_steps": (), "optimizer.cooldown": 100},
}
"""The model of weights/film, trained a fifth as long, on latents of the shipped autoencoder."""


def get_config(length: str = "") -> Experiment:
    full = length == "full"
    largest = FULL_HELD_OUT if full else HELD_OUT
    return Experiment(
        name="study",
        title="How quality scales with compute: a gliding ball and a film, on a CPU",
        claim="The loss of a video diffusion transformer is a law of its parameters and its data.",
        question="Does a law of runs at four budgets predict the loss at a larger one?",
        data={
            "balls": balls.clips("uniform", CLIPS),
            "bounce": balls.clips("bounce", CLIPS),
            "film": (
                *("data_pipelines.build", "--source=film", "--autoencoder=causal_vae:weights/film_autoencoder"),
                *("--max_tokens=28", "--max_frames=17", "--hop=4"),
            ),
        },
        base=balls.recipe(),
        arms=(
            *isoflop_arms((*GRID, FULL) if full else GRID, "grid-{size}-{budget:.3g}", samples="continued"),
            *(
                Arm(
                    f"bounce-{size}-{budget:.3g}",
                    {**SIZES[size], "data.path": "{bounce}"},
                    budget,
                    group="bounce",
                    measures=("velocity:bounce",),
                    samples="continued",
                )
                for budget, size in BOUNCES
            ),
            Arm("film", FILM, steps=FILM["train.steps"], kind="film", measures=(), samples="captioned"),
            Arm(
                "heldout-{size}-{budget:.3g}",
                budget=largest,
                kind="heldout",
                choices=tuple(SIZES.values()),
                samples="continued",
            ),
        ),
        measures=("velocity",),
        floors=("balls", "bounce"),
        seeds=(0,),
        trunks=True,
        report=Report(
            packing={
                "balls": Packing("{balls}"),
                "film": Packing("{film}", FILM),
            },
            measures={
                "velocity": {
                    "title": "velocity error",
                    "heading": "Does it learn the physics?",
                    "unit": "units/s",
                    "text": "of the balls in generated clips, against the simulator's truth, over clips.",
                    "better": "lower",
                },
                "lost": {"title": "share of balls lost in generated clips", "better": "lower"},
                "bounce_velocity": {
                    "title": "velocity error of bouncing balls",
                    "heading": "Does it learn that balls bounce?",
                    "unit": "units/s",
                    "text": "of clips of bouncing balls, by models that are trained on such clips.",
                    "better": "lower",
                },
                "bounce_lost": {"title": "share of bouncing balls lost", "better": "lower"},
            },
            samples={
                "compute": {"heading": "The same seed at more compute"},
                "bounce": {"heading": "The same seed at more compute, with walls"},
                "film": {"heading": "The film", "smooth": True},
            },
        ),
        limits=(
            "Models that a CPU can train. Published exponents for image and video diffusion run from 0.36 to 0.57;"
            " nothing here says that the exponent of these models holds at theirs.",
            "The film's validation shots come from the same film, some from the same sets as training shots: its"
            " losses and samples are optimistic.",
        ),
        minutes=150 if full else 45,
    )
