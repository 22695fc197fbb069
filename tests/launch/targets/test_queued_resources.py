"""Queued resources: the watcher on a fake of the service, and the real gcloud client on the same fake over loopback."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sweeping
from fake_tpu import FakeTpu

from launch.sweeps import status
from launch.sweeps.expand import name_of
from launch.sweeps.grid import over, point
from launch.sweeps.settings import QueuedResources
from launch.sweeps.state import Folder
from launch.targets import cloud, gcloud, queued_resources
from launch.targets.queued_resources import Watcher
from vdit.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Direct:
    """Stands in for `gcloud.Tpus`: talks to the fake without the client."""

    def __init__(self, fake: FakeTpu):
        self._fake = fake

    def _request(self, method, name="", body=None):
        path = f"/v2/projects/p/locations/z/queuedResources{f'/{name}' if method == 'DELETE' else ''}"
        query = f"?queuedResourceId={name}" if method == "POST" else ""
        code, values = self._fake.request(method, path + query, body or {})
        if code == 429:
            raise gcloud.QuotaExceeded(values["error"]["message"])
        if code == 503:
            raise gcloud.Transient("UNAVAILABLE")
        return values

    def create(self, arguments):
        self._request("POST", arguments[4])

    def states(self):
        found = self._request("GET")["queuedResources"]
        return {item["name"].rsplit("/", 1)[-1]: item["state"]["state"] for item in found}

    def delete(self, name):
        self._request("DELETE", name)


class Scene:
    """A sweep being watched; its bucket is a folder that all machines mount."""

    def __init__(self, root: Path, fake: FakeTpu, direct: bool, points=None, **values):
        self.fake, self.bucket = fake, root / "bucket"
        self.sweep = sweeping.sweep(points or over("seed", 1, 2), root)
        tpu = {"project": "p", "zone": "us-west4-a", "topology": "v5e:4x4", "bucket": str(self.bucket), "poll": 1.0}
        self.settings = QueuedResources(**{**tpu, **values})
        self.folder = Folder(root / "sweeps" / "tiny")
        self.folder.write_plan(self.sweep, "queued_resources", self.settings)
        self.watcher = Watcher(self.sweep, self.folder, self.settings, COMMIT, "https://example.org/code.git")
        if direct:
            self.watcher._tpus = Direct(fake)
        self.ids = [run.id for run in self.sweep.runs]

    def look(self, times: int = 1) -> int:
        return [self.watcher.poll_once() for _ in range(times)][-1]

    def states(self) -> list[str]:
        return [row.state for row in status.statuses(self.folder)]

    def write(self, run_id: str, name: str, text: str) -> None:
        path = self.bucket / "sweeps" / "tiny" / "runs" / run_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def end(self, run_id: str, code: int, error: str = "") -> None:
        """The machines of a run end with a status."""
        self.write(run_id, "exit", f"{self.folder.state(run_id).requested} {code} {error}\n")

    def step(self, run_id: str, step: int) -> None:
        self.write(run_id, "heartbeat.json", json.dumps({"step": step, "time": 1.0}))

    def state(self, run_id: str) -> str | None:
        return self.fake.resources.get(name_of(run_id), {}).get("state")

    def creations(self, run_id: str) -> int:
        return self.fake.log.count(("POST", name_of(run_id)))


@pytest.fixture
def fake():
    made = FakeTpu()
    yield made
    made.close()


def test_a_run_from_the_queue_to_its_end(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True, at_once=1)
    first, second = scene.ids
    scene.look(4)
    assert scene.states() == ["waiting", "planned"] and fake.resources.keys() == {name_of(first)}
    scene.look()
    assert scene.states() == ["running", "planned"]
    scene.write(first, "result.json", json.dumps({"loss": 0.5, "steps": 6}))
    scene.look()
    assert scene.states()[0] == "finished" and scene.state(first) == "DELETING"
    scene.look(3)
    assert scene.state(first) is None and scene.state(second) == "WAITING_FOR_RESOURCES"
    scene.look(4)
    scene.write(second, "result.json", json.dumps({"loss": 0.25, "steps": 6}))
    while scene.look():
        pass
    assert scene.states() == ["finished", "finished"] and scene.creations(first) == scene.creations(second) == 1


def test_what_was_taken_away_is_made_anew(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True, points=over("seed", 1), retries=2)
    (run,) = scene.ids
    for times, step in enumerate((10, 20, 30, 40, 50)):
        scene.look(5)
        assert scene.states() == ["running"] and scene.creations(run) == times + 1
        scene.step(run, step)
        fake.resources[name_of(run)]["state"] = "SUSPENDED"
        scene.look()
        assert scene.states() == ["waiting"] and scene.folder.state(run).reason == "preempted"
        scene.look()
    scene.look(5)
    fake.resources[name_of(run)]["state"] = "FAILED"  # from now on it gets nowhere
    scene.look(2)
    scene.look(5)
    fake.resources[name_of(run)]["state"] = "FAILED"
    while scene.look():
        pass
    assert scene.states() == ["failed"] and scene.state(run) in (None, "GONE")
    assert scene.folder.state(run).reason == "failed, 3 times without a new step"


def test_a_mistake_is_not_tried_again_and_a_crash_is(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True)
    mistaken, crashed = scene.ids
    scene.look(5)
    scene.end(mistaken, 2, "error: unknown config field x")
    scene.end(crashed, 134)
    scene.look()
    assert scene.states() == ["failed", "waiting"]
    assert scene.folder.state(mistaken).reason == "unknown config field x"
    assert scene.folder.state(crashed).reason == "training ended with status 134"
    scene.look(2)
    scene.look(5)
    assert scene.states() == ["failed", "running"]
    assert (scene.creations(mistaken), scene.creations(crashed)) == (1, 2)


def test_quota_and_faults_are_waited_for(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True, points=over("seed", 1))
    (run,) = scene.ids
    fake.faults = [("POST", 429, "Quota exceeded: 16 chips")]
    scene.look(2)
    assert scene.folder.state(run).reason == "not created: Quota exceeded: 16 chips" and scene.creations(run) == 1
    scene.watcher._hold = 0  # some time later
    fake.faults = [("GET", 503, "broken")] * 2
    seen = []

    def sleep(seconds: float) -> None:
        seen.append(seconds)
        if scene.states() == ["running"]:
            scene.write(run, "result.json", json.dumps({"loss": 0.5}))
        assert len(seen) < 20

    scene.watcher._sleep = sleep
    assert scene.watcher.run() == 0 and scene.states() == ["finished"]
    assert scene.state(run) in (None, "DELETING", "GONE") and set(seen) == {1.0}


def test_no_more_is_spent_than_allowed(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True, price_per_chip_hour=1.0, max_spend=10.0)
    first, second = scene.ids
    scene.look(5)
    assert scene.states() == ["running", "running"]
    state = scene.folder.state(first)
    state.attempts[0]["start"] -= 3600 * 11 / 16  # 16 chips, 11 of them hours
    scene.folder.write_state(first, state)
    while scene.look():
        pass
    assert scene.states() == ["stopped", "stopped"] and not fake.resources.keys() - {name_of(i) for i in scene.ids}
    assert scene.folder.state(second).reason == "max_spend is reached"
    rows = status.statuses(scene.folder)
    assert rows[0].cost == pytest.approx(rows[0].hours * 16) and 11 <= sum(row.cost for row in rows) < 12


def test_started_again_by_another_launcher_it_creates_nothing_twice(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=True)
    scene.look(3)
    again = Scene(tmp_path, fake, direct=True)
    again.look(3)
    assert [again.creations(run_id) for run_id in again.ids] == [1, 1] and again.states() == ["running", "running"]


def test_what_is_missing_is_said_in_a_line(tmp_path, fake, monkeypatch):
    scene = Scene(tmp_path, fake, direct=False, bucket="")
    run = scene.sweep.runs[0]
    with pytest.raises(UserError, match=r"bucket is not set; give it .* as --sweep.queued_resources.bucket="):
        queued_resources.describe(scene.sweep, run, scene.folder, scene.settings)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="gcloud is not installed or not on PATH; docs/launch.md"):
        gcloud.Tpus(scene.settings).states()


@pytest.fixture
def client(tmp_path, monkeypatch, fake):
    """The real gcloud client, pointed at the fake."""
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed: the real client is NOT tested")
    for name, value in {
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "1",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": fake.url,
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return fake


HOSTILE = 'it\'s "here" $(touch trap) `touch trap`; a,b=c ^:^'


def test_the_real_client_creates_watches_recreates_and_deletes(client, tmp_path, monkeypatch):
    points = point({"data.split": HOSTILE, "data.captions": ("a b", HOSTILE)})
    scene = Scene(tmp_path, client, direct=False, points=points, service_account="me@example.org")
    (run,) = scene.ids
    scene.look()
    spec = client.resources[name_of(run)]["body"]["tpu"]["nodeSpec"][0]
    node = spec["node"]
    assert spec["nodeId"] == name_of(run) and client.resources[name_of(run)]["body"]["spot"] == {}
    assert node["acceleratorType"] == "v5litepod-16" and node["runtimeVersion"] == "v2-alpha-tpuv5-lite"
    assert node["serviceAccount"]["email"] == "me@example.org" and node["labels"]["vdit-run"] == run
    attributes = node["metadata"]
    assert attributes["startup-script"].startswith("#!/usr/bin/env bash") and (
        attributes["vdit-hosts"],
        attributes["vdit-slices"],
    ) == ("4", "1")
    told = json.loads(attributes["vdit-run"])
    assert f"--config.data.split={HOSTILE}" in told["arguments"]
    assert f"--config.data.captions={('a b', HOSTILE)!r}" in told["arguments"]
    assert "--config.data.path=staged/data" in told["arguments"]
    assert attributes["vdit-data"] == f"{scene.bucket}/data/data\tstaged/data\n"
    assert "xla_tpu_enable_async_collective_fusion=true" in told["environment"]["LIBTPU_INIT_ARGS"]
    client.resources[name_of(run)]["state"] = "ACTIVE"
    scene.look()
    assert scene.states() == ["running"]
    client.resources[name_of(run)]["state"] = "SUSPENDED"
    scene.look(3)
    assert scene.creations(run) == 2
    client.resources[name_of(run)]["state"] = "ACTIVE"
    scene.look()
    scene.write(run, "result.json", json.dumps({"loss": 0.5}))
    scene.look()
    assert scene.states() == ["finished"] and scene.state(run) == "DELETING"
    assert not (tmp_path / "trap").exists() and not Path("trap").exists()


def test_the_real_client_asks_for_slices_and_tells_quota_from_faults(client, tmp_path, monkeypatch):
    scene = Scene(tmp_path, client, direct=False, points=over("seed", 1), slices=2, capacity="reserved")
    (run,) = scene.ids
    client.faults = [("POST", 429, "Quota 'TPUV5sLitepodPerProjectPerZone' exceeded")]
    scene.look()
    assert "RESOURCE_EXHAUSTED: Quota 'TPUV5s" in scene.folder.state(run).reason
    scene.watcher._hold = 0
    scene.look()
    body = client.resources[name_of(run)]["body"]
    assert body["tpu"]["nodeSpec"][0]["multisliceParams"] == {"nodeCount": 2, "nodeIdPrefix": name_of(run)}
    assert "reservationName" in body and "spot" not in body
    tpus = gcloud.Tpus(scene.settings)
    with pytest.raises(gcloud.NotFound):
        gcloud.call(["compute", "tpus", "queued-resources", "delete", "x", "--zone=z", "--project=p", "--async"])
    tpus.create(queued_resources.create_arguments(scene.sweep, scene.sweep.runs[0], scene.settings, {}))  # exists
    client.faults = [("GET", 403, "Permission 'tpu.nodes.list' denied")]
    with pytest.raises(
        UserError, match=r"^gcloud may not do this: PERMISSION_DENIED: Permission 'tpu.nodes.list' denied\.?$"
    ):
        tpus.states()
    client.slow = 3
    monkeypatch.setattr(gcloud, "SECONDS", 2)
    with pytest.raises(gcloud.Transient, match="took longer than 2 s"):
        gcloud.call(["compute", "tpus", "queued-resources", "list", "--zone=z", "--project=p"], gcloud.SECONDS)


def test_the_real_client_without_credentials(client, tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUDSDK_AUTH_DISABLE_CREDENTIALS")
    scene = Scene(tmp_path, client, direct=False)
    with pytest.raises(UserError, match="^gcloud has no valid credentials; run gcloud auth login "):
        scene.look()
    assert not client.log


def test_a_dry_run_shows_the_command_and_what_it_sends(tmp_path, fake):
    scene = Scene(tmp_path, fake, direct=False, points=point({"data.split": HOSTILE}))
    text = queued_resources.describe(scene.sweep, scene.sweep.runs[0], scene.folder, scene.settings)
    command = text.splitlines()[0]
    assert command.startswith(f"gcloud compute tpus queued-resources create {name_of(scene.ids[0])} --project=p")
    assert "--spot" in command and "--accelerator-type=v5litepod-16" in command
    assert all(line.startswith("#") for line in text.splitlines()[1:])
    assert "# metadata vdit-run:" in text and fake.log == []


def test_the_code_that_machines_get_is_committed_code(tmp_path, monkeypatch):
    monkeypatch.setattr(cloud, "git", lambda *arguments: " M vdit/train.py" if arguments[0] == "status" else COMMIT)
    with pytest.raises(UserError, match="vdit/train.py is changed and not committed; commit it first"):
        cloud.commit()
    monkeypatch.undo()
    if not (cloud.ROOT / ".git").exists():
        pytest.skip("this is not a git checkout: the code bundle is NOT tested")
    head = cloud.git("rev-parse", "HEAD")
    bundle = cloud.upload_code(str(tmp_path / "bucket"), tmp_path, head)
    subprocess.run(["git", "clone", "-q", "--no-checkout", bundle, str(tmp_path / "src")], check=True)
    found = subprocess.run(["git", "-C", str(tmp_path / "src"), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert found.stdout.strip() == head and re.fullmatch(r"[0-9a-f]{40}", head) and os.path.exists(bundle)
