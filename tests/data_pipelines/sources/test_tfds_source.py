"""Prepared TFDS data sets of several kinds, made here without TensorFlow, become data sets of vdit."""

import io
import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from fake_source import FakeEncoder
from make_files import quadrants
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options, digest
from data_pipelines.reading.store import Dataset
from data_pipelines.sources import tfds_source
from vdit.errors import UserError

features = tfds.features


def png(picture: np.ndarray) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    file.seek(0)
    return file


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    FEATURES: dict = {}
    SPLITS = {"train": 5}
    url_infos = {}  # nothing is downloaded; without this TFDS looks for a package around this file

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict(self.FEATURES))

    def _split_generators(self, _):
        return {split: self._generate_examples(count) for split, count in self.SPLITS.items()}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, self.example(i)


class Pictures(_Builder, skip_registration=True):
    name = "pictures"
    FEATURES = {
        "image": features.Image(shape=(None, None, 3)),
        "label": features.ClassLabel(names=["red_cat", "dog"]),
        "text": features.Text(),
    }
    SPLITS = {"train": 4, "validation": 2}

    def example(self, i):
        return {"image": png(quadrants(40 + i, 64)), "label": i % 2, "text": f"picture {i}"}


class Labelled(_Builder, skip_registration=True):
    name = "labelled"
    FEATURES = {"image": features.Image(shape=(None, None, 1)), "label": features.ClassLabel(names=["red_cat", "dog"])}

    def example(self, i):
        return {"image": png(np.full((24, 16), 10 * i, np.uint8)), "label": i % 2}


class Videos(_Builder, skip_registration=True):
    name = "videos"
    FEATURES = {
        "clip": features.Tensor(shape=(None, 16, 24, 4), dtype=np.uint8),
        "fps": np.float32,
        "caption_short": features.Text(),
        "caption_long": features.Text(),
    }

    def example(self, i):
        clip = np.full((10, 16, 24, 4), (i, 50, 100, 255), np.uint8)
        return {"clip": clip, "fps": 8.0, "caption_short": f"video {i}", "caption_long": f"a longer video {i}"}


class Rateless(_Builder, skip_registration=True):
    name = "rateless"
    FEATURES = {"video": features.Tensor(shape=(None, 16, 24, 3), dtype=np.uint8), "note": features.Text()}

    def example(self, i):
        return {"video": np.full((10, 16, 24, 3), i, np.uint8), "note": "x"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    for builder in (Pictures, Labelled, Videos, Rateless):
        builder(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def make(data_dir: pathlib.Path, out: pathlib.Path, name: str, **options) -> Dataset:
    build(BuildArgs(f"tfds:{name}", str(out / name), Options(data_dir=str(data_dir), **options)), FakeEncoder())
    return Dataset(out / name)


def test_images_with_texts(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dataset = make(data_dir, tmp_path, "pictures")
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 4, "val": 2}
    examples = [dataset.example("train", i) for i in range(4)]
    captions = {example["caption_caption"]: example["video"].shape for example in examples}
    assert captions == {f"picture {i}": (1, 40 if i < 4 else 48, 64, 3) for i in range(4)}
    np.testing.assert_allclose(examples[0]["video"][0, 4, 4], [200, 30, 30], atol=3)
    assert "tensorflow" not in sys.modules


def test_grey_images_with_labels(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dataset = make(data_dir, tmp_path, "labelled", limit=3)
    examples = [dataset.example("train", i) for i in range(dataset.size("train"))]
    assert len(examples) == 3 and {example["caption_caption"] for example in examples} <= {"red cat", "dog"}
    for example in examples:
        assert len(np.unique(example["video"])) == 1 and example["video"].shape == (1, 24, 16, 3)


def test_videos_with_several_captions(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dataset = make(data_dir, tmp_path, "videos", fps=4.0)
    assert sorted(dataset.meta["captions"]) == ["long", "short"]
    for i in range(5):
        example = dataset.example("train", i)
        number = int(example["caption_short"].split()[-1])
        assert example["caption_long"] == f"a longer video {number}" and example["fps"] == 4
        np.testing.assert_array_equal(example["video"], np.full((5, 16, 24, 3), (number, 50, 100), np.uint8))


def test_the_features_can_be_named(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dataset = make(data_dir, tmp_path, "pictures", text_feature="label", video_feature="image")
    assert {dataset.example("train", i)["caption_caption"] for i in range(4)} == {"red cat", "dog"}
    assert make(data_dir, tmp_path, "rateless", fps=6.0).index("train").fps.tolist() == [6.0] * 5
    directory = str(data_dir / "videos" / "1.0.0")  # a data set's own directory will do as well
    build(BuildArgs(f"tfds:{directory}", str(tmp_path / "own")), FakeEncoder())
    assert Dataset(tmp_path / "own").size("train") == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", {}, "tfds:nothing is not prepared in .*; prepare it, or name its place with --data_dir"),
        ("pictures", {"video_feature": "film"}, "--video_feature=film is not a feature; there are image, label, text"),
        ("pictures", {"text_feature": "film"}, "--text_feature=film is not a feature"),
        ("rateless", {}, "gives the frame rate; set it with --fps"),
    ],
)
def test_what_cannot_be_read(data_dir: pathlib.Path, tmp_path: pathlib.Path, name, options, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(data_dir, tmp_path, name, **options)
    assert "\n" not in str(caught.value)


def test_a_damaged_example_costs_itself(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A picture that is none: a rejection, and the others are stored."""

    class Broken(Labelled, skip_registration=True):
        name = "broken"

        def example(self, i):
            good = super().example(i)
            return good if i != 2 else {**good, "image": io.BytesIO(b"\x89PNG\r\n\x1a\nnothing")}

    Broken(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    dataset = make(tmp_path / "tfds", tmp_path, "broken")
    assert dataset.size("train") == 4
    assert "the example cannot be read" in (tmp_path / "broken" / "ledger.csv").read_text()


def test_a_data_set_prepared_anew_is_another_one(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Though it has as many examples, of as many bytes."""
    shutil.copytree(data_dir / "labelled", tmp_path / "labelled")
    options = Options(data_dir=str(tmp_path))
    before = digest(tfds_source.inputs("labelled", options))
    assert before == digest(tfds_source.inputs("labelled", Options(data_dir=str(data_dir))))
    (shard,) = (tmp_path / "labelled").rglob("*train.array_record*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert digest(tfds_source.inputs("labelled", options)) != before
