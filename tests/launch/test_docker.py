import re
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.mark.parametrize("name", ["tpu", "gpu"])
def test_images_are_pinned_staged_and_not_root(name):
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2 and all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    assert "USER 1000" in lines[lines.index(next(line for line in reversed(lines) if line.startswith("FROM "))) :]
    assert any(f"--constraint constraints.txt --editable '.[{name},cloud]'" in line for line in lines)
