"""The benchmark of the GPU path where there is no GPU: one clear line, and all of it at a tiny size."""

import pytest
from cli import runner


@pytest.fixture
def run(capfd):
    return runner(capfd)


def test_without_a_gpu_it_says_so_in_one_line(run):
    assert run("benchmarks.gpu").error.startswith("there is no GPU here, JAX has cpu; install jax[cuda13]")


@pytest.mark.nightly
def test_the_smoke_mode_runs_all_of_it(run):
    done = run("benchmarks.gpu", "--smoke", "--rounds=1")
    assert done.status == 0, done.err
    for part in (
        "an empty row, bfloat16, chunked",
        "all within what is allowed",
        "| b |",
        "for a denoising step of all",
    ):
        assert part in done.out
