"""The Kubernetes Job that builds on several machines: its pods, run here one after another, make the data set."""

import pathlib
import re

import yaml
from cli import runner
from PIL import Image

from data_pipelines.reading.store import Dataset

MANIFEST = pathlib.Path(__file__).parents[2] / "launch" / "build_job.yaml"


def test_its_pods_make_the_data_set(tmp_path: pathlib.Path, capfd) -> None:
    job = yaml.safe_load(MANIFEST.read_text())
    assert job["kind"] == "Job" and job["spec"]["completionMode"] == "Indexed"
    pods = job["spec"]["completions"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["python", "-m"]
    (tmp_path / "clips").mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16), (50 * i, 0, 0)).save(tmp_path / "clips" / f"{i}.png")
    places = {"gs://BUCKET/clips": tmp_path / "clips", "gs://BUCKET/data/clips": tmp_path / "out"}
    run = runner(capfd)
    for index in reversed(range(pods)):  # Kubernetes puts the index in an environment variable and in arguments
        args = [argument.replace("$(JOB_COMPLETION_INDEX)", str(index)) for argument in container["args"]]
        args = [re.sub(r"gs://\S+", lambda url: str(places[url[0]]), argument) for argument in args]
        done = run(container["command"][2], *args, "--text_encoder=none")
        assert done.status == 0, done.err
        assert (tmp_path / "out").exists() == (index == 0)
    assert sum(Dataset(tmp_path / "out").size(split) for split in Dataset(tmp_path / "out").splits) == 3
