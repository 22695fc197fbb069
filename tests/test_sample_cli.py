import dataclasses
import json
import shutil
from fractions import Fraction

import av
import cli
import numpy as np
import pytest
import tiny
from PIL import Image

from vdit.models.text_encoders import TEXT_ENCODERS


@dataclasses.dataclass(frozen=True)
class Words:
    """Stands in for the encoder of the tiny data set: a token per word."""

    name: str = "random"
    width: int = tiny.TEXT_WIDTH
    hash: str = ""

    def encode(self, texts) -> list[np.ndarray]:
        value = lambda word: np.full(self.width, len(word) / 4, np.float16)  # noqa: E731
        return [np.array([value(word) for word in text.split()]).reshape(-1, self.width) for text in texts]


@pytest.fixture
def run(capfd, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    runner = cli.runner(capfd)
    _, workdir = tiny.long_run()
    return lambda *arguments, workdir=workdir: runner("vdit.sample", f"--workdir={workdir}", "--steps=2", *arguments)


def read_video(path) -> tuple[np.ndarray, Fraction, dict[str, str]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate, dict(container.metadata)


def image(path, height: int = 16, width: int = 24):
    """A picture with a bright left half."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[:, : width // 2] = 220
    Image.fromarray(pixels).save(path)
    return path


def test_text_to_video(run, tmp_path):
    out = tmp_path / "x.mp4"
    done = run("--prompt=a wave moves left", "--size=24x16", "--frames=9", f"--out={out}", "--scale=4", "--seed=3")
    assert done.status == 0, done.err
    assert done.out == f"{out} and {tmp_path / 'x.png'}: 9 frames of 24x16 at 12 frames/s\n"
    video, rate, tags = read_video(out)
    assert video.shape == (9, 64, 96, 3) and rate == 12
    assert {
        "prompt": "a wave moves left",
        "seed": "3",
        "steps": "2",
        "guidance": "1.5",
        "checkpoint": "long@60",
    }.items() <= tags.items()
    assert tags["software"].startswith("vdit ")
    strip = np.asarray(Image.open(tmp_path / "x.png"))
    assert strip.shape == (64 + 2, 8 * (96 + 2), 3)  # 8 of the 9 frames, each with a line around it
    assert np.abs(strip[1:65, 1:97].astype(int) - video[0]).mean() < 8  # H.264 keeps colours about
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.mp4", "x.png"]


def test_seed_and_prompt_decide_the_video(run, tmp_path):
    def pixels(name: str, *arguments: str) -> np.ndarray:
        assert run("--size=16x8", "--frames=5", f"--out={tmp_path / name}.mp4", *arguments).status == 0
        return np.asarray(Image.open(tmp_path / f"{name}.png"))

    first = pixels("a", "--prompt=wave", "--seed=1")
    np.testing.assert_array_equal(pixels("b", "--prompt=wave", "--seed=1"), first)
    assert (pixels("c", "--prompt=wave", "--seed=2") != first).any()
    assert (pixels("d", "--prompt=another wave here", "--seed=1") != first).any()
    assert (pixels("e", "--prompt=wave", "--seed=1", "--step=45") != first).any()


def test_an_image_by_itself(run, tmp_path):
    out = tmp_path / "still.mp4"
    assert run("--prompt=a wave", "--size=16x24", "--frames=1", "--fps=8", f"--out={out}", "--scale=1").status == 0
    video, rate, _ = read_video(out)
    assert video.shape == (1, 24, 16, 3) and rate == 8


def test_first_frame_given(run, tmp_path):
    out, given = tmp_path / "y.mp4", image(tmp_path / "given.png")
    done = run("--prompt=a wave moves right", f"--image={given}", "--frames=5", f"--out={out}", "--scale=1")
    assert done.status == 0, done.err
    video, _, _ = read_video(out)
    assert video.shape == (5, 16, 24, 3)  # of the image
    strip = np.asarray(Image.open(tmp_path / "y.png"))
    np.testing.assert_array_equal(strip[1:17, 1:25], np.asarray(Image.open(given)))  # the first frame, exactly
    assert (strip[1:17, 27:51] != strip[1:17, 1:25]).any()


def test_a_photograph_is_scaled_to_the_patch_grid(run, tmp_path):
    out, given = tmp_path / "z.mp4", image(tmp_path / "given.png", 33, 50)
    assert run(f"--image={given}", "--size=24x16", "--frames=5", f"--out={out}").status == 0
    assert read_video(out)[0].shape == (5, 64, 96, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size=20x16"], "--size=20x16 is not a multiple of the 8x8 patch; take 16x16"),
        (["--size=big"], "--size=big is not of the form WIDTHxHEIGHT, such as 40x32"),
        (["--size=0x8"], "take 8x8"),
        (["--frames=6"], "--frames=6 is not 1 + k*4; take 5"),
        (["--frames=0"], "--frames=0 is not 1 + k*4; take 1"),
        (["--size=8000x8000", "--frames=41"], "sampled at once; ask for fewer frames or a smaller size"),
        (["--image=missing.png"], "--image=missing.png cannot be read as an image"),
        (["--image={here}/text.png"], "text.png cannot be read as an image"),
        (["--image={here}/wide.png", "--size=16x16"], "--size=16x16 would stretch --image of 64x8"),
        (["--out={here}/none/x.mp4"], "none/x.mp4 should be an .mp4 file in a folder that exists"),
        (["--out={here}/x.gif"], "x.gif should be an .mp4 file"),
        (["--step=44"], "no checkpoint of step 44 in"),
        (["--steps=0"], "--steps=0"),
        (["--fps=0"], "--fps=0"),
        (["--sampler=magic"], "--sampler=magic"),
        (["--workdir={here}/none"], "none/config.json is missing; is this the workdir of a run?"),
        (["wave", "left"], "'wave' is not a flag; write --name=value, with quotes around a value that has spaces"),
    ],
)
def test_mistakes(run, tmp_path, arguments, message):
    (tmp_path / "text.png").write_text("not a picture")
    image(tmp_path / "wide.png", 8, 64)
    before = sorted(tmp_path.iterdir())
    arguments = [argument.format(here=tmp_path) for argument in arguments]
    done = run("--size=16x16", "--frames=5", f"--out={tmp_path / 'x.mp4'}", *arguments)
    assert message in done.error
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_without_captions_takes_no_prompt(run, tmp_path):
    _, workdir = tiny.long_run()
    copy = shutil.copytree(workdir, tmp_path / "run")
    values = json.loads((copy / "dataset.json").read_text())
    values["text_encoder"]["name"] = "none"
    (copy / "dataset.json").write_text(json.dumps(values))
    done = run("--prompt=a wave", f"--out={tmp_path / 'x.mp4'}", workdir=copy)
    assert done.error == f"--prompt is of no use: {copy} was trained without captions; leave it out"


def test_other_weights_of_the_text_encoder(run, tmp_path, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", lambda: Words(hash="other"))
    assert "was trained with other weights of random" in run("--prompt=a", f"--out={tmp_path / 'x.mp4'}").error


def test_no_checkpoint_and_no_out(run, tmp_path):
    _, workdir = tiny.long_run()
    empty = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert f"{empty} has no checkpoint yet" in run(f"--out={tmp_path / 'x.mp4'}", workdir=empty).error
    assert run().error == "--out is needed"
