import dataclasses
import json
import re
import resource
import shutil
import signal
from fractions import Fraction

import av
import cli
import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from vdit.generation import restore
from vdit.io import video as video_io
from vdit.io.media.clips import read_clip
from vdit.models.text.text_encoders import TEXT_ENCODERS


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


def pixels_of(path) -> np.ndarray:
    """The exact pixels of a .npz."""
    with np.load(path) as file:
        return file["video"]


def clip(path, frames: int, height: int = 16, width: int = 24, fps: float = 12.0):
    """A random clip, exactly."""
    video = np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), np.uint8)
    video_io.write_npz(path, video, fps, {})
    return video


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
    beside = [tmp_path / "x.png", tmp_path / "x.json"]
    assert done.out == f"{out}, {beside[0]} and {beside[1]}: 9 frames of 24x16 at 12 frames/s\n"
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
    about = json.loads(beside[1].read_text())
    assert {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()} == {
        name: value for name, value in tags.items() if name in about
    }
    assert about["mode"] == "text" and about["checkpoint_step"] == 60 and about["frames"] == 9
    assert re.fullmatch("[0-9a-f]{16}", about["config_hash"])
    strip = np.asarray(Image.open(tmp_path / "x.png"))
    assert strip.shape == (64 + 2, 8 * (96 + 2), 3)  # 8 of the 9 frames, each with a line around it
    assert np.abs(strip[1:65, 1:97].astype(int) - video[0]).mean() < 8  # H.264 keeps colours about
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4", "x.png"]


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


def test_every_way_to_prompt_in_one_go(run, tmp_path):
    """A file of prompts; what is given comes back exactly (in .npz), wherever it is given."""
    here = tmp_path / "in"
    here.mkdir()
    picture = np.asarray(Image.open(image(here / "i.png")))
    head, tail = clip(here / "a.npz", 7), clip(here / "b.npz", 6)
    at = lambda name: str(here / name)  # noqa: E731
    lines = [
        {"mode": "image", "frames": 1},
        {"mode": "first_frame", "image": at("i.png"), "prompt": "a wave"},
        {"mode": "last_frame", "last": at("i.png")},
        {"mode": "first_last", "image": at("i.png"), "last": at("i.png"), "frames": 13},
        {"mode": "head", "head": at("a.npz"), "frames": 13},
        {"mode": "tail", "tail": at("b.npz"), "frames": 13},
        {"mode": "head_tail", "head": at("a.npz"), "tail": at("b.npz"), "frames": 13},
        {"mode": "loop", "image": at("i.png"), "loop": True},
        {"mode": "loop", "loop": True, "size": "24x16", "negative": "a wave"},
        {"mode": "connect", "connect": f"{at('a.npz')},{at('b.npz')}", "frames": 13},
        {"mode": "edit", "edit": at("a.npz"), "strength": 0.5},
        {"mode": "inpaint", "edit": at("a.npz"), "mask": "8,0,24,16"},
        {"mode": "text+reference", "reference": f"{at('i.png')},{at('i.png')}", "size": "16x16", "stagger": 0.3},
    ]
    rows = [
        {"seed": i, **{k: v for k, v in line.items() if k != "mode"}, "out": f"{i}.npz"} for i, line in enumerate(lines)
    ]
    (here / "p.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    out = tmp_path / "out"
    out.mkdir()
    done = run(f"--prompts={here / 'p.jsonl'}", "--frames=9", f"--out={out}", "--scale=1")
    assert done.status == 0, done.err
    assert re.fullmatch(r"13 videos in \d+ s", done.out.splitlines()[-1])
    videos = [pixels_of(out / f"{i}.npz") for i in range(len(lines))]
    notes = [json.loads((out / f"{i}.json").read_text()) for i in range(len(lines))]
    assert [note["mode"] for note in notes] == [line["mode"] for line in lines]
    assert [note["seed"] for note in notes] == list(range(len(lines)))
    assert [len(video) for video in videos] == [1, 9, 9, 13, 13, 13, 13, 9, 9, 13, 5, 5, 9]
    equal = np.testing.assert_array_equal
    equal(videos[1][0], picture)
    equal(videos[2][-4:], np.stack([picture] * 4))  # a single frame fills its group
    equal(videos[3][[0, -1]], np.stack([picture] * 2))
    equal(videos[4][:5], head[:5])
    equal(videos[5][-4:], tail[-4:])
    equal(videos[6][:5], head[:5])
    equal(videos[6][-4:], tail[-4:])
    equal(videos[7][0], picture)
    assert (videos[7][-1] != picture).any()  # the group that is the first frame again is not shown
    for video in videos[7:9]:
        steps = np.abs(np.diff(video.astype(float), axis=0)).mean((1, 2, 3))
        assert np.abs(video[-1].astype(float) - video[0]).mean() <= np.median(steps), "the loop has a seam"
    equal(videos[9][0], head[-1])  # a third of the groups at most
    equal(videos[9][-4:], tail[:4])
    assert videos[10].shape == head[:5].shape and (videos[10] != head[:5]).any()
    equal(videos[11][:, :, :8], head[:5, :, :8])
    assert (videos[11][:, :, 8:] != head[:5, :, 8:]).mean() > 0.5


def test_a_long_video_is_made_window_by_window(run, tmp_path):
    head, out = clip(tmp_path / "a.npz", 5), tmp_path / "x.mp4"
    done = run(f"--head={tmp_path / 'a.npz'}", "--frames=33", "--window=9", f"--out={out}", "--scale=1", "--preview=1")
    assert done.status == 0, done.err
    video, rate, tags = read_video(out)
    assert video.shape == (33, 16, 24, 3) and rate == 12 and tags["window"] == "9" and tags["frames"] == "33"
    exact = tmp_path / "x.npz"
    assert run(f"--head={tmp_path / 'a.npz'}", "--frames=33", "--window=9", f"--out={exact}").status == 0
    np.testing.assert_array_equal(pixels_of(exact)[:5], head)
    assert np.abs(video[5:].astype(int) - pixels_of(exact)[5:]).mean() < 30
    assert "--window=5 is not 1 + k*4 frames, more than the 5" in run("--frames=33", "--window=5", f"--out={out}").error


@pytest.mark.parametrize("suffix", [".gif", ".png", ".npz"])
def test_formats(run, tmp_path, suffix):
    out = tmp_path / f"x{suffix}"
    assert run("--prompt=a wave", "--size=24x16", "--frames=5", f"--out={out}", "--scale=2").status == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {suffix, ".png", ".json"}
    if suffix == ".gif":
        with Image.open(out) as gif:
            assert gif.n_frames == 5 and gif.size == (48, 32)
            assert json.loads(gif.info["comment"])["prompt"] == "a wave"
    if suffix == ".npz":
        assert read_clip(out, 12.0).shape == (5, 16, 24, 3)


def test_previews_are_written_and_cleared_away(run, tmp_path, monkeypatch):
    written = []
    write = video_io.write_png
    monkeypatch.setattr(video_io, "write_png", lambda path, pixels: written.append(path.name) or write(path, pixels))
    assert (
        run("--size=16x16", "--frames=5", "--sampler=euler", "--preview=1", f"--out={tmp_path / 'x.mp4'}").status == 0
    )
    assert written == ["x.preview.png", "x.preview.png", "x.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4", "x.png"]


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "x.npz"])
def test_a_disk_that_fills_up_leaves_no_partial_file(run, tmp_path, name):
    run("--size=16x16", "--frames=5", f"--out={tmp_path / 'warm.npz'}")  # what JAX writes must not be cut
    for path in tmp_path.iterdir():
        path.unlink()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))  # bytes: less than a video, more than a message
        done = run("--size=16x16", "--frames=5", f"--out={tmp_path / name}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert done.error.startswith(f"cannot write {tmp_path / name}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; write one JSON object a line"),
        ("\n\n", "is empty; write one JSON object a line"),
        ('{"prompt": "a"}\n{"prompt": ', "line 2 of --prompts="),
        ("[1]", "not a JSON object"),
        ('{"promt": "a"}', "line 1 of --prompts={file}: unknown config field promt; did you mean prompt?"),
        ('{"frames": "9"}', "line 1 of --prompts={file}: config field frames='9' should be of type int"),
        ('{"image": "a.png", "head": "b.mp4"}', "line 1 of --prompts={file}: --image and --head say different things"),
        ('{"out": "a.mp4"}\n{"out": "a.mp4"}', "names an out file twice"),
        ('{"out": "a.avi"}', "a.avi should be a file ending in one of"),
        (
            '{"out": "a.mp4"}\n{"out": "a.gif"}',
            "a.mp4 and {here}/a.gif, which share files; give each a name of its own",
        ),
        ('{"out": "a.mp4"}\n{"out": "./a.gif"}', "a.gif, which share files"),
        ('{"seed": -1}', "line 1 of --prompts={file}: --seed=-1 is not from 0 to 9223372036854775807"),
        (
            '{"seed": 1' + "0" * 400 + "}",
            "line 1 of --prompts={file}: --seed=1000000000000000000000000 is not from 0",
        ),
        ('{"seed": 1' + "0" * 5000 + "}", "line 1 of --prompts={file}: Exceeds the limit"),
        (
            '{"frames": -1' + "0" * 400 + "}",
            "line 1 of --prompts={file}: --frames=-100000000000000000000000 is not",
        ),
        ('{"fps": 1}', "line 1 of --prompts={file}: unknown config field fps"),
        ('{"stagger": Infinity}', "line 1 of --prompts={file}: --stagger=inf is not from 0 to 1"),
        ('{"stagger": -1}', "line 1 of --prompts={file}: --stagger=-1 is not from 0 to 1"),
        ('{"stagger": 1' + "0" * 400 + "}", "config field stagger is a number of 401 digits, too large"),
        (
            '{"edit": "a.mp4", "strength": NaN}',
            "line 1 of --prompts={file}: config field strength is nan, which is not a number",
        ),
        ('{"prompt": "a\\u0000b"}', "line 1 of --prompts={file}: --prompt holds a NUL character; leave it out"),
        ('{"prompt": "a\\ud800"}', "line 1 of --prompts={file}: --prompt holds half of a surrogate pair"),
        ('{"out": "a\\u0000.mp4"}', "line 1 of --prompts={file}: --out holds a NUL character; leave it out"),
        ('{"image": "a\\u0000.png"}', "line 1 of --prompts={file}: --image holds a NUL character; leave it out"),
        ('{"out": "' + "é" * 120 + '.mp4"}', "... is a name of more than 200 bytes; give a shorter one"),
        ("[" * 100_000, "line 1 of --prompts={file}: maximum recursion depth exceeded"),
    ],
)
def test_files_of_prompts_that_cannot_be_used(run, tmp_path, content, message):
    file = tmp_path / "p.jsonl"
    file.write_text(content)
    assert message.format(file=file, here=tmp_path) in run(f"--prompts={file}", f"--out={tmp_path}").error
    assert list(tmp_path.iterdir()) == [file]


def test_the_folder_of_many_videos_is_made(run, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"out": "deep/a.png"}\n{"out": "b.png"}')
    done = run(f"--prompts={tmp_path / 'p.jsonl'}", "--frames=1", "--size=16x16", f"--out={tmp_path / 'a/new'}")
    assert done.status == 0, done.err
    assert (tmp_path / "a/new/deep/a.png").exists() and (tmp_path / "a/new/b.json").exists()


def test_weights_that_are_not_finite_make_no_video(run, tmp_path, monkeypatch):
    def spoilt(*arguments):
        opened = open_run(*arguments)
        leaves, tree = jax.tree.flatten(opened.state.ema)
        values = np.array(leaves[1])
        values.flat[3] = np.nan
        leaves[1] = jax.device_put(values, leaves[1].sharding)
        return dataclasses.replace(
            opened, state=dataclasses.replace(opened.state, ema=jax.tree.unflatten(tree, leaves))
        )

    open_run = restore.open_run
    monkeypatch.setattr(restore, "open_run", spoilt)
    found = run("--size=16x16", "--frames=5", f"--out={tmp_path / 'x.mp4'}").error
    assert re.fullmatch(
        r"the weights of \S+/long at step 60 hold values that are NaN or infinite \(\S+\); take .*", found
    )
    assert not list(tmp_path.iterdir())


def test_a_model_that_makes_no_numbers_makes_no_video(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Words, "encode", lambda self, texts: [np.full((1, self.width), np.inf) for _ in texts])
    found = run("--prompt=a", "--size=16x16", "--frames=5", f"--out={tmp_path / 'x.mp4'}").error
    assert found.startswith("the model made values that are NaN or infinite; lower --guidance")
    assert not list(tmp_path.iterdir())


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
        (
            ["--out={here}/none/x.mp4"],
            "none/x.mp4 should be a file ending in one of .mp4, .gif, .png, .npz, in a folder",
        ),
        (["--out={here}/x.avi"], "x.avi should be a file ending in one of"),
        (["--head={here}/text.png"], "--head={here}/text.png cannot be read as a clip"),
        (["--head={here}/a.npz", "--size=24x16"], "--head have 5 frames, the video has 5; raise --frames"),
        (["--image=a.png", "--head=b.mp4"], "--image and --head say different things about the same frames; leave one"),
        (["--loop", "--tail=b.mp4"], "--loop and --tail say different things"),
        (["--connect=a.mp4"], "--connect=a.mp4 is not two files separated by a comma"),
        (["--mask=0,0,8,8"], "--mask says what to generate of a clip; name the clip with --edit"),
        (["--strength=0.5"], "--strength says how much of a clip to change; name the clip with --edit"),
        (["--edit={here}/a.npz", "--size=24x16", "--strength=1.5"], "--strength=1.5 is not in (0, 1]"),
        (["--edit={here}/a.npz", "--size=24x16", "--mask=0,0,99,8"], "is not a box X0,Y0,X1,Y1 within --edit of 24x16"),
        (["--edit={here}/a.npz", "--size=24x16", "--mask={here}/text.png"], "cannot be read as a clip"),
        (["--frames=1", "--loop"], "--frames=1 is an image, which has one frame only; ask for more frames"),
        (["--reference=missing.png"], "--reference=missing.png cannot be read as an image"),
        (["--guidance_interval=1"], "--guidance_interval=1 is not two numbers low,high"),
        (["--guidance_interval=0.9,0.1"], "--guidance_interval=0.9,0.1 is not two times 0 <= low < high <= 1"),
        (["--guidance_rescale=2"], "--guidance_rescale=2 is not from 0 to 1"),
        (["--prompts=missing.jsonl", "--out={here}"], "--prompts=missing.jsonl cannot be read"),
        (["--prompts=missing.jsonl", "--out={here}/text.png"], "is a file; give a folder for the videos of --prompts"),
        (["--stagger=inf"], "--stagger=inf is not from 0 to 1"),
        (["--stagger=-1"], "--stagger=-1 is not from 0 to 1"),
        (["--stagger=nan"], "--stagger=nan is not from 0 to 1"),
        (["--edit={here}/a.npz", "--strength=nan"], "--strength=nan is not in (0, 1]"),
        (["--guidance=nan"], "--guidance=nan is not a finite number"),
        (["--fps=inf"], "--fps=inf is not a finite number"),
        (["--fps=nan"], "--fps=nan is not a finite number"),
        (["--seed=-1"], "--seed=-1"),
        (["--seed=9223372036854775808"], "--seed=9223372036854775808 is not from 0 to 9223372036854775807"),
        (["--frames=4000001"], "--frames=4000001 is not from 1 to 1000000"),
        (["--size=99999999x99999999"], "sampled at once; ask for fewer frames or a smaller size"),
        (["--size=" + "9" * 5000 + "x8"], "is not of the form WIDTHxHEIGHT"),
        (["--out={here}/" + "n" * 201 + ".mp4"], "... is a name of more than 200 bytes; give a shorter one"),
        (["--out={here}" + "/nn" * 1500 + "/x.mp4"], "... is a path of more than 4000 bytes; give a shorter one"),
        (["--image={here}/" + "n" * 300 + ".png"], "cannot be read as an image"),
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
    clip(tmp_path / "a.npz", 5)
    before = sorted(tmp_path.iterdir())
    arguments = [argument.format(here=tmp_path) for argument in arguments]
    done = run("--size=16x16", "--frames=5", f"--out={tmp_path / 'x.mp4'}", *arguments)
    assert message.format(here=tmp_path) in done.error
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_without_captions_takes_no_prompt(run, tmp_path):
    _, workdir = tiny.long_run()
    copy = shutil.copytree(workdir, tmp_path / "run")
    values = json.loads((copy / "dataset.json").read_text())
    values["text_encoder"]["name"] = "none"
    (copy / "dataset.json").write_text(json.dumps(values))
    done = run("--prompt=a wave", f"--out={tmp_path / 'x.mp4'}", workdir=copy)
    assert done.error == f"--prompt has no effect: {copy.name}@60 was trained without captions; leave it out"


def test_other_weights_of_the_text_encoder(run, tmp_path, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", lambda: Words(hash="other"))
    assert "was trained with other weights of random" in run("--prompt=a", f"--out={tmp_path / 'x.mp4'}").error


def test_no_checkpoint_and_no_out(run, tmp_path):
    _, workdir = tiny.long_run()
    empty = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert f"{empty} has no checkpoint yet" in run(f"--out={tmp_path / 'x.mp4'}", workdir=empty).error
    assert run().error == f"--out is needed: python -m vdit.sample --workdir={workdir} --out=sample.mp4"
