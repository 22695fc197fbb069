"""The RayJob that builds on a cluster: its entrypoint, run here, makes the data set; its versions are those tested."""

import pathlib
import re
import shlex

import pytest
import yaml
from cli import runner
from PIL import Image

from data_pipelines.reading.store import Dataset

ROOT = pathlib.Path(__file__).parents[2]
SPEC = yaml.safe_load((ROOT / "launch" / "build_rayjob.yaml").read_text())["spec"]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.nightly)])
def test_its_entrypoint_makes_the_data_set(tmp_path: pathlib.Path, capfd, engine: str) -> None:
    python, flag, module, *args = shlex.split(SPEC["entrypoint"])
    assert (python, flag, args[0]) == ("python", "-m", "--engine=ray")
    (tmp_path / "clips").mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (50 * i, 0, 0)).save(tmp_path / "clips" / f"{i}.png")
    places = {"gs://BUCKET/clips": tmp_path / "clips", "gs://BUCKET/data/clips": tmp_path / "out"}
    args = [re.sub(r"gs://\S+", lambda url: str(places[url[0]]), argument) for argument in args]
    done = runner(capfd)(module, *args, f"--engine={engine}", "--text_encoder=none")
    assert done.status == 0, done.err
    assert sum(Dataset(tmp_path / "out").size(split) for split in Dataset(tmp_path / "out").splits) == 3


def test_versions_agree() -> None:
    cluster = SPEC["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert f"FROM rayproject/ray:{cluster['rayVersion']}-py311" in (ROOT / "docker" / "ray.Dockerfile").read_text()
    assert "--constraint constraints.txt" in (ROOT / "docker" / "ray.Dockerfile").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {each["image"] for group in groups for each in group["template"]["spec"]["containers"]}
    assert len(images) == 1
