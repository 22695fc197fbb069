"""The committed experiments make sense, and what makes none is refused."""

import pytest
from small_experiment import small

from launch.experiments import spec
from launch.experiments.pages.notes import NOTES
from launch.experiments.runs.measures import MEASURES
from launch.experiments.spec import Arm
from launch.sweeps.expand import merged
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError


@pytest.mark.parametrize("name", spec.names())
def test_committed_experiments_make_sense(name):
    found = spec.load(name)
    assert len(found.seeds) >= 3 and found.minutes <= 75
    for arm in found.arms:
        fields = {"data.path": "{data}", **arm.fields}
        assert isinstance(build(merged(dict(found.base), fields), Config), Config)
        path = str(arm.fields.get("data.path", ""))
        assert set(path.strip("{}").split("},{")) <= {"", *found.data}
    for measure in found.measures:
        kind, _, of = measure.partition(":")
        assert kind in MEASURES and of in ("", *found.data)
    assert set(found.notes) <= set(NOTES) and set(found.floors) <= set(found.data)
    small = spec.shrunk(found, 100)
    assert sum(arm.budget for arm in small.arms) == pytest.approx(sum(arm.budget for arm in found.arms) / 100)


def test_data_sets_of_one_name_are_made_by_one_command():
    made = {}
    for name in spec.names():
        for data, command in spec.load(name).data.items():
            assert made.setdefault(data, tuple(command)) == tuple(command), data


def test_all_claims_of_the_study_are_there():
    wanted = {"compute", "data", "native", "packing", "physics", "combinations", "permanence", "captions", "images"}
    wanted |= {"optimiser", "prediction", "recipe", "curation"}
    assert wanted == set(spec.names())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1)}, "2 seeds; an interval over seeds needs 3"),
        ({"compare": [("loss", "half", "none")]}, "not both arms"),
        ({"arms": [Arm("half", {}, 1.0, choices=[{"model.width": 8}])]}, "need model.width and model.depth"),
        ({"arms": [Arm("half", {}, 1.0, kind="whole")]}, "of no kind of arm, grid, heldout"),
        ({"arms": [Arm("half")]}, "one of budget, seconds and steps"),
        ({"arms": [Arm("half", {}, 1.0), Arm("half", {}, 2.0)]}, "two arms have one name"),
    ],
)
def test_experiments_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        small(**changes)
    with pytest.raises(UserError, match="is not one of .*physics"):
        spec.load("nothing")
