"""The folder that experiments of these tests share."""

import shutil

import pytest
import tiny


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments")
    shutil.copytree(tiny.dataset(), path / "data" / "tiny")
    (path / "data" / "tiny.txt").write_text("data_pipelines.build --source=none none")
    return path
