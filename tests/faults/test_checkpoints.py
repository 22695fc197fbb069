"""Damaged checkpoints and full disks: the last good checkpoint is used and said so, or the run is refused."""

import errno
import functools
import resource
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P
from waiting import wait_until

from vdit.config import MeshConfig
from vdit.errors import StorageError, UserError
from vdit.evaluation import validation
from vdit.generation.restore import load_run
from vdit.io.storage import retry
from vdit.parallel.mesh import make_mesh
from vdit.training.recovery.checkpoint import Checkpoints, Position, checkpoint_steps
from vdit.training.recovery.checksums import checksums

CONFIG = tiny.tiny_config(steps=6, checkpoint_every=2, keep=3)


@functools.cache
def undisturbed():
    """(workdir, result) of a run that nothing happened to; checkpoints of steps 2, 4 and 6."""
    workdir = tiny.folder() / "checkpoints-undisturbed"
    tiny.train(CONFIG, workdir)
    return workdir, tiny.result(workdir, CONFIG)


def unfinished(workdir):
    """As if it had been killed when the checkpoint of step 4 was the newest."""
    shutil.copytree(undisturbed()[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    return workdir


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_checksum_sees_every_single_bit_and_no_layout():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(4, 6)).astype(np.float32)
    mesh = make_mesh(MeshConfig(replica=1, fsdp=2, tensor=2), jax.devices()[:4])
    place = lambda x, spec: jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))  # noqa: E731
    sums = {checksums({"a": place(array, spec)})["a"] for spec in (P(), P("fsdp"), P("tensor", "fsdp"))}
    assert sums == {checksums({"a": jnp.asarray(array)})["a"]}
    flipped = np.repeat(array.view(np.uint32)[None], array.size * 32, 0).reshape(array.size * 32, -1)
    for i in range(array.size * 32):
        flipped[i, i // 32] ^= np.uint32(1) << np.uint32(i % 32)
    rows = {str(i): jnp.asarray(row.view(np.float32).reshape(array.shape)) for i, row in enumerate(flipped[::7])}
    assert sums.isdisjoint(checksums(rows).values())
    assert len({checksums({"a": jnp.asarray(x)})["a"] for x in (array, array[::-1], array[:, ::-1])}) == 3


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bits_never_come_back_as_a_state(tmp_path, seed):
    """In every file of a checkpoint in turn: it is refused, or nothing that counts was touched."""
    rng = np.random.default_rng(seed)
    workdir, (arrays, position, _) = undisturbed()
    files = sorted(p.relative_to(workdir) for p in (workdir / "checkpoints/6").rglob("*") if p.is_file())
    largest = largest_file(workdir / "checkpoints/6").relative_to(workdir)
    refused = set()
    for number, file in enumerate(files):
        copy = shutil.copytree(workdir, tmp_path / str(number), ignore=shutil.ignore_patterns("2", "4", "tensorboard"))
        if size := (copy / file).stat().st_size:
            for _ in range(8 if file == largest else 1):  # a single one may hit what no array refers to any more
                flip(copy / file, int(rng.integers(size)), int(rng.integers(8)))
        try:
            with mock.patch("sys.excepthook"), mock.patch("sys.unraisablehook"):
                run = tiny.restored(copy, CONFIG)
        except UserError as error:
            assert f"checkpoint {copy}/checkpoints/6 cannot be restored" in str(error)
            refused.add(file)
        else:
            found = jax.tree_util.tree_leaves_with_path(run.state)
            assert all(np.array_equal(arrays[jax.tree_util.keystr(path)], leaf) for path, leaf in found)
            assert vars(run.position) | {"spikes": vars(run.position.spikes)} == position
    assert largest in refused and len(refused) >= 3


DAMAGES = {
    "bit": lambda step: flip(largest_file(step), largest_file(step).stat().st_size // 2),
    "truncated": lambda step: largest_file(step).write_bytes(largest_file(step).read_bytes()[:1000]),
    "position": lambda step: flip(step / "position" / "metadata", 30),
    "no state": lambda step: shutil.rmtree(step / "state"),
    "emptied": lambda step: [path.unlink() for path in step.rglob("*") if path.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_is_used_and_said_so(tmp_path, capfd, damage):
    workdir = unfinished(tmp_path / "run")
    DAMAGES[damage](workdir / "checkpoints" / "4")
    with mock.patch("sys.excepthook"), mock.patch("sys.unraisablehook"):
        tiny.train(CONFIG, workdir)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning:")]
    assert f"{workdir}/checkpoints/4 cannot be restored" in line and line.endswith("resuming from that of step 2")
    assert (workdir / "checkpoints" / "4.set-aside").is_dir()
    assert checkpoint_steps(workdir) == [2, 4, 6]
    tiny.assert_same_result(workdir, undisturbed()[1], CONFIG)


def test_several_processes_never_fall_back_each_for_itself(monkeypatch):
    tried = []

    class Damaged(Checkpoints):
        def restore(self, like, step):
            tried.append(step)
            raise UserError("checkpoint 6 is damaged")

        def _read(self, step, args):
            tried.append(step)
            raise ValueError("damaged")

    with Damaged(undisturbed()[0], CONFIG.train, create=False) as checkpoints:
        with pytest.raises(UserError, match="6 is damaged$"):
            checkpoints.restore_newest(None)
        assert checkpoints.newest_position(lambda _: True) is None and tried == [6, 4, 2] * 2
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_count", lambda: 2)
            with pytest.raises(UserError, match="6 is damaged; rename the folder, and all processes resume"):
                checkpoints.restore_newest(None)
            with pytest.raises(UserError, match="checkpoints/6 cannot be read: it is damaged .* rename the folder"):
                checkpoints.newest_position(lambda _: True)
        assert tried[6:] == [6, 6]


@pytest.mark.parametrize("passes", [True, False])
def test_storage_that_fails_is_not_damage(tmp_path, monkeypatch, capfd, passes):
    """A link to itself fails to open; TensorStore tells of it as of any system call's failure."""
    workdir = unfinished(tmp_path / "run")
    file = largest_file(workdir / "checkpoints" / "4")
    aside = file.rename(tmp_path / "aside")
    file.symlink_to(file)

    def sleep(seconds) -> None:
        if passes:
            file.unlink()
            aside.rename(file)

    monkeypatch.setattr(retry, "_TRANSIENT", (errno.ELOOP,))
    monkeypatch.setattr(retry.time, "sleep", sleep)
    if passes:
        assert tiny.restored(workdir, CONFIG).position.step == 4
        assert capfd.readouterr().err.count("warning: reading") == 1
    else:
        with (
            mock.patch("sys.excepthook"),
            mock.patch("sys.unraisablehook"),
            pytest.raises(StorageError, match="checkpoints/4 cannot be read .*is its storage there"),
        ):
            tiny.restored(workdir, CONFIG)
        assert checkpoint_steps(workdir) == [2, 4]


@pytest.mark.parametrize(
    ("error", "kind", "end"),
    [
        (OSError(errno.EIO, "Input/output error"), StorageError, "the same command resumes from there"),
        (ValueError("UNAVAILABLE: 503"), StorageError, "the same command resumes from there"),
        (OSError(errno.ENOSPC, "No space left on device"), UserError, "make room, and the same command resumes"),
        (ValueError("NOT_FOUND: writing: Disk quota exceeded [os_error_code='122']"), UserError, "make room, and"),
        (OSError(errno.EACCES, "Permission denied"), UserError, "give permission, and the same command resumes"),
    ],
)
def test_a_failed_save_is_a_mistake_only_where_a_restart_would_fail_too(error, kind, end):
    with (
        Checkpoints(undisturbed()[0], CONFIG.train, create=False) as checkpoints,
        mock.patch.object(checkpoints._manager, "wait_until_finished", side_effect=[error, None]),
        pytest.raises(kind, match=f"that of step 6 is whole; {end}") as raised,
    ):
        checkpoints.wait()
    assert type(raised.value) is kind


def test_all_damaged_is_refused_and_nothing_is_touched(tmp_path):
    workdir = unfinished(tmp_path / "run")
    for step in (2, 4):
        DAMAGES["bit"](workdir / "checkpoints" / str(step))
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    for open_it in (lambda: tiny.train(CONFIG, workdir), lambda: load_run(workdir)):
        with pytest.raises(UserError, match="checkpoints/4 cannot be restored: it is damaged"), tiny.two_devices():
            open_it()
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_a_half_written_one_does_not_count(tmp_path):
    """A save is in a folder of another name until it is whole; a kill leaves that folder."""
    workdir = unfinished(tmp_path / "run")
    step = workdir / "checkpoints" / "4"
    DAMAGES["truncated"](step)
    step.rename(workdir / "checkpoints" / "4.orbax-checkpoint-tmp-12")
    tiny.train(CONFIG, workdir)
    tiny.assert_same_result(workdir, undisturbed()[1], CONFIG)


def test_the_averages_that_another_run_starts_from_are_verified(tmp_path):
    workdir = shutil.copytree(undisturbed()[0], tmp_path / "run")
    like = tiny.restored(workdir, CONFIG).state.params
    with Checkpoints(workdir, CONFIG.train, create=False) as checkpoints:
        checkpoints.restore_average(like, 6)
        real = checkpoints._read_position
        names = [name for name in real(6)[1] if name.startswith("ema/out")]
        wrong = lambda step: (real(step)[0], {**real(step)[1], names[0]: 1})  # noqa: E731
        with (
            mock.patch.object(checkpoints, "_read_position", wrong),
            pytest.raises(UserError, match="6 cannot be read: it is damaged .ema/out.* does not have the checksum"),
        ):
            checkpoints.restore_average(like, 6)


def test_a_checkpoint_of_the_format_before_is_read():
    state = tiny.restored(undisturbed()[0], CONFIG).state
    workdir = tiny.folder() / "format-1"
    with Checkpoints(workdir, CONFIG.train) as checkpoints:
        save = checkpoints._manager.save

        def write_old(step, args, metrics=None):
            values = args["position"].item
            values["squares"] = values.pop("attention_pairs")
            for name in ("sums", "crc", "spikes"):
                del values[name]
            values["format"] = 1
            save(step, args=args)

        with mock.patch.object(checkpoints._manager, "save", write_old):
            checkpoints.save(state, Position(6, 12))
    assert tiny.restored(workdir, CONFIG).position == Position(6, 12)


def test_the_best_is_kept(tmp_path):
    losses = iter([0.5, 0.2, 0.4, 0.3, 0.6])
    config = tiny.tiny_config(steps=5, keep=1, evaluate_every=1)
    with mock.patch.object(validation, "evaluate_run", lambda *_: {"loss": next(losses)}):
        tiny.train(config, tmp_path)
    assert checkpoint_steps(tmp_path) == [2, 5]


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row) -> None:
        if row["step"] == 3:
            wait_until(lambda: checkpoint_steps(tmp_path / "run"))  # it is written in the background
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))

    try:
        with pytest.raises(
            UserError, match="a checkpoint could not be written to .*; that of step 2 is whole; make room"
        ):
            tiny.train(CONFIG, tmp_path / "run", fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint_steps(tmp_path / "run") == [2]
    tiny.train(CONFIG, tmp_path / "run")
    tiny.assert_same_result(tmp_path / "run", undisturbed()[1], CONFIG)
