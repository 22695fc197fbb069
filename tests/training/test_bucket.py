"""A workdir in a bucket gives what one on disk gives, and is resumed from the bucket alone."""

import json
import os
import subprocess
import sys

import pytest
import tiny
from fake_gcs import FakeGcs

RUN = """
import json, sys
import tiny
import jax
jax.config.update("jax_num_cpu_devices", 2)
from vdit.train import train
from vdit.training.record.metrics import read_metrics
for steps in (4, 6):
    train(tiny.tiny_config(steps=steps, checkpoint_every=2), sys.argv[1])
from vdit.training.timing import TIMES
rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(sys.argv[1])]
print("ROWS", json.dumps(rows))
"""


def rows_of(workdir: str, **values: str) -> list:
    environment = tiny.environment(PYTHONPATH=os.pathsep.join([".", "tests"]), **values)
    command = [sys.executable, "-c", RUN, workdir]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("ROWS ", 1)[1])


@pytest.mark.nightly
def test_a_run_in_a_bucket(tmp_path):
    fake = FakeGcs("bucket")
    try:
        here = {"STORAGE_EMULATOR_HOST": fake.url, "TENSORSTORE_GCS_HTTP_URL": fake.url, "FSSPEC_GS_TOKEN": "anon"}
        more = {"GOOGLE_CLOUD_PROJECT": "p", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        rows = rows_of("gs://bucket/sweeps/it's a name/runs/1", **here, **more)
    finally:
        fake.close()
    names = {name.removeprefix("sweeps/it's a name/runs/1/").split("/")[0] for name in fake.objects}
    assert {"config.json", "dataset.json", "metrics.jsonl", "heartbeat.json", "checkpoints", "tensorboard"} <= names
    assert rows == rows_of(str(tmp_path / "on disk"))
