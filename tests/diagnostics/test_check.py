"""`vdit.train --check` passes what is right and names what is wrong."""

import dataclasses

import cli
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from data_pipelines.reading.training_data import packed_data
from vdit.config import MeshConfig
from vdit.data import interface_of
from vdit.diagnostics import check, first_step
from vdit.errors import UserError
from vdit.models.attention import attention
from vdit.models.attention.context import Kernel
from vdit.parallel.mesh import make_mesh

CONFIG = dataclasses.replace(tiny.tiny_config(), mesh=MeshConfig(replica=1))
REFERENCE = tiny.change(CONFIG, model={"attention": "reference"})


def one_segment(kernel: Kernel) -> Kernel:
    """A kernel to which all segments of a row are one."""
    join = lambda ids: jnp.minimum(ids, 1)  # noqa: E731
    return Kernel(
        lambda q, k, v, of_q, of_k: kernel.forward(q, k, v, join(of_q), join(of_k)),
        lambda q, k, v, of_q, of_k, *rest: kernel.backward(q, k, v, join(of_q), join(of_k), *rest),
    )


@pytest.fixture
def leak(monkeypatch):
    """Lets segments see each other in the chunked backend."""
    kernel_of = attention.kernel_of

    def leaky(backend: str, block: int) -> Kernel | None:
        kernel = kernel_of(backend, block)
        return kernel and one_segment(kernel)

    monkeypatch.setattr(attention, "kernel_of", leaky)


def off(rows: list[check.Row]) -> set[str]:
    return {name for name, _, _, by, allowed in rows if not by <= allowed}


def test_a_run_on_eight_devices_passes(capsys, tmp_path):
    config = tiny.change(tiny.tiny_config(rows=4), model={"dtype": "bfloat16", "remat": "attention"})
    config = dataclasses.replace(config, mesh=MeshConfig(2, 2, 2, 1))
    assert check.check(config, tmp_path / "run", packed_data(config)) == ""
    out = capsys.readouterr().out
    assert "the step (cpu 2x2x2x1, bfloat16, chunked) against one CPU device, float32, reference" in out
    assert out.count("gradient of blocks.qkv") == 2 and "chunked dk" in out and "OFF" not in out
    assert not (tmp_path / "run").exists()


def test_a_leak_between_segments_ends_the_command_with_status_1(leak, capfd, tmp_path):
    file = tiny.write_config(tmp_path / "config.py", tiny.tiny_config())
    done = cli.runner(capfd)("vdit.train", f"--config={file}", f"--workdir={tmp_path / 'run'}", "--check")
    assert done.status == 1
    assert done.err.startswith("error: ") and done.err.count("\n") == 1 and ", allowed 1e-0" in done.err
    first, second, third = done.out.split("\n\n")[:3]
    for table in (first, second):
        assert table.count("OFF") > 10 and "gradient of blocks.qkv" in table
    assert third.count("OFF") == 4
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def rows():
    data = packed_data(CONFIG)
    return interface_of(data.meta), *first_step.first_rows(data)


def test_every_example_is_alone_once(rows):
    _, packed, alone = rows
    examples = lambda batch: [tuple(i) for i in batch.ids_BN2[batch.grid_BN3[..., 0] > 0]]  # noqa: E731
    assert examples(packed) == [i for batch in alone for i in examples(batch)]
    assert all(batch.segments_BL.max() == 1 for batch in alone)
    assert packed.is_patch_BL.sum() == sum(batch.is_patch_BL.sum() for batch in alone)


def test_a_leak_in_every_backend_is_seen_by_packing_alone(rows, monkeypatch):
    interface, packed, alone = rows
    plain = attention.reference_attention
    monkeypatch.setitem(attention.PLAIN, "reference", lambda q, k, v, ids: plain(q, k, v, jnp.minimum(ids, 1)))
    config = tiny.change(REFERENCE, model={"dtype": "bfloat16"})  # the larger tolerances
    step = first_step.FirstStep(config, interface, first_step.plain_mesh(), first_step.noisy_params(config, interface))
    found = check.gradient_rows(step(packed), check.mean_of(step, alone), "bfloat16")
    assert {"gradient of blocks.qk_gain", "gradient of blocks.qkv"} < off(found)


def test_a_leak_in_a_backend_that_the_run_does_not_use(rows, leak):
    found = check.attention_rows(REFERENCE, first_step.plain_mesh(), rows[1])
    assert off(found) == {f"chunked {name}" for name in ("output", "dq", "dk", "dv")}
    assert len(found) == 8


def test_a_backend_that_cannot_do_it_here_is_left_out(rows, monkeypatch, capsys):
    config = tiny.change(dataclasses.replace(CONFIG, mesh=MeshConfig(1, 1, 2, 1)), model={"context": "ring"})
    monkeypatch.setitem(check.BACKENDS, "cpu", ("reference",))
    found = check.attention_rows(config, make_mesh(config.mesh, jax.devices()[:2]), rows[1])
    assert {name.split()[0] for name, *_ in found} == {"chunked"} and not off(found)
    assert capsys.readouterr().out.startswith("reference is left out: model.attention=reference has no ring")


def test_what_is_not_finite_is_off_and_named_first(capsys):
    nan = first_step.Computed(float("nan"), {"a": np.ones(2), "b": np.ones(2)}, 1)
    fine = first_step.Computed(1.0, {"a": np.ones(2), "b": 2 * np.ones(2)}, 1)
    found = check._show("title", check.gradient_rows(nan, fine, "float32"))
    assert max(found)[1].startswith("title: loss is nan, not 1")
    assert len(found) == 2 and capsys.readouterr().out.count("OFF") == 2


@pytest.mark.parametrize(
    ("dtype", "platform", "setting", "precision"),
    [
        ("float32", "cpu", None, "float32"),
        ("bfloat16", "cpu", "highest", "bfloat16"),
        ("float32", "tpu", None, "bfloat16"),
        ("float32", "tpu", "highest", "float32"),
    ],
)
def test_precision(monkeypatch, dtype, platform, setting, precision):
    class Device:
        pass

    Device.platform = platform
    mesh = type("Mesh", (), {"devices": np.array([Device()])})
    with jax.default_matmul_precision(setting):
        assert check.precision_of(tiny.change(CONFIG, model={"dtype": dtype}), mesh) == precision


def test_mistakes(rows, monkeypatch):
    with pytest.raises(UserError, match="--check is for runs of the task diffusion, not autoencoder"):
        check.check(dataclasses.replace(CONFIG, task="autoencoder"), "/nowhere", packed_data(CONFIG))
    interface, packed, _ = rows
    params = first_step.noisy_params(REFERENCE, interface)
    monkeypatch.setattr(first_step, "physical_memory", lambda: 1 << 10)
    step = first_step.FirstStep(REFERENCE, interface, first_step.plain_mesh(), params)
    with pytest.raises(UserError, match=r"--check needs .* GiB on the CPU, .*; check a smaller model"):
        step(packed)

    def hidden(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", hidden)
    with pytest.raises(UserError, match="--check compares with the CPU, which JAX_PLATFORMS=.* hides; set"):
        check.check(CONFIG, "/nowhere", packed_data(CONFIG))
