"""Weights from a hub, a fake one: a revision is named, and that one is fetched."""

import huggingface_hub
import pytest

from vdit.errors import UserError
from vdit.io.weights.hub import find_weights

COMMIT = "0123456789" * 4


class Newest:
    sha = COMMIT


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """The calls to a hub whose newest commit is COMMIT."""
    calls = []

    def download(name, *, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        if revision not in (COMMIT, "v1.0", "refs/pr/1"):
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no revision {revision}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda self, name: Newest)
    return calls


@pytest.mark.parametrize("revision", [COMMIT, "v1.0", "refs/pr/1"])
def test_the_named_revision_is_fetched(fetched, tmp_path, revision):
    assert find_weights(f"owner/some.name@{revision}", ("*.json",)) == tmp_path
    assert fetched == [("owner/some.name", revision, ["*.json"])]


def test_without_a_revision_nothing_is_fetched_and_the_newest_is_named(fetched):
    with pytest.raises(UserError, match=f"owner/name names no revision.*write owner/name@{COMMIT}"):
        find_weights("owner/name", ("*",))
    assert not fetched


def test_a_revision_that_is_not_there_is_one_line(fetched):
    with pytest.raises(
        UserError, match="owner/name@gone is not a folder here and cannot be fetched .*no revision gone"
    ):
        find_weights("owner/name@gone", ("*",))


@pytest.mark.parametrize("where", ["owner/name@", "owner/name@a b", "name@main", "a/b/c@main"])
def test_what_is_no_hub_id_is_one_line(fetched, where):
    with pytest.raises(UserError, match="nor a hub id of the form OWNER/NAME@REVISION"):
        find_weights(where, ("*",))
    assert not fetched


def test_a_folder_goes_before_the_hub(fetched, tmp_path):
    (tmp_path / "owner/name@main").mkdir(parents=True)
    assert find_weights(str(tmp_path / "owner/name@main"), ("*",)) == tmp_path / "owner/name@main"
    assert not fetched
