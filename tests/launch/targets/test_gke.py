"""Manifests against the OpenAPI models of JobSet and Kubernetes, and the real kubectl on a fake of the API server."""

import json
import shutil

import pytest
import sweeping
import yaml
from fake_kubernetes import FakeKubernetes
from kubeflow_trainer_api import models

from launch import remote
from launch.sweeps import status
from launch.sweeps.expand import name_of
from launch.sweeps.grid import over, point
from launch.sweeps.settings import Gke
from launch.sweeps.state import Folder
from launch.targets import gke, manifests, registry
from vdit.errors import UserError

TPU = {"topology": "v5e:4x4", "image": "us-docker.pkg.dev/p/vdit/tpu:1", "bucket": "gs://b", "queue": "tpus"}
GPU = {"gpu": "nvidia-h100-80gb", "nodes": 2, "image": "us-docker.pkg.dev/p/vdit/gpu:1", "bucket": "gs://b"}
HOSTILE = 'it\'s "here" $(HOME) $(touch trap) `touch trap`;\n- kind: Pod'


def made(root, points=None, **values):
    sweep = sweeping.sweep(points or over("seed", 1, 2), root)
    return sweep, Gke(**values)


def jobset_of(root, points=None, **values):
    sweep, settings = made(root, points, **values)
    return manifests.of_run(sweep, sweep.runs[0], settings)


def assert_valid(model, manifest) -> None:
    """The generated model takes it, with strict types, and knows every field of it."""
    assert model.from_dict(manifest).to_dict() == manifest


@pytest.mark.parametrize(
    "values",
    [
        TPU,
        TPU | {"slices": 4, "service_account": "trainer", "secret": "tokens", "spot": False, "queue": ""},
        GPU,
        GPU | {"nodes": 1, "gpus_per_node": 1, "secret": "tokens"},
    ],
    ids=["tpu", "multislice", "gpu", "one gpu"],
)
def test_manifests_are_valid(tmp_path, values):
    config, jobset = jobset_of(tmp_path, **values)
    assert_valid(models.IoK8sApiCoreV1ConfigMap, config)
    assert_valid(models.JobsetV1alpha2JobSet, jobset)
    (job,) = jobset["spec"]["replicatedJobs"]
    assert_valid(models.IoK8sApiBatchV1JobTemplateSpec, job["template"])
    assert_valid(models.IoK8sApiCoreV1PodSpec, job["template"]["spec"]["template"]["spec"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "failurePolicy", "maxRestart"), 3),
        (("spec", "failurePolicy", "maxRestarts"), "3"),
        (("spec", "replicatedJobs", 0, "template", "spec", "paralelism"), 4),
    ],
)
def test_the_models_see_mistakes(tmp_path, path, value):
    _, jobset = jobset_of(tmp_path, **TPU)
    inner = jobset
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with pytest.raises((AssertionError, ValueError)):
        assert_valid(models.JobsetV1alpha2JobSet, jobset)


def test_a_multislice_jobset(tmp_path):
    _, jobset = jobset_of(tmp_path, **TPU, slices=2, restarts=7, grace=90)
    (job,) = jobset["spec"]["replicatedJobs"]
    spec, pod = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"]) == (2, 4, 4)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tpus"
    assert "exclusive-topology" in next(iter(jobset["metadata"]["annotations"]))
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7 and pod["terminationGracePeriodSeconds"] == 90
    values = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert (values["JAX_NUM_PROCESSES"], values["VDIT_HOSTS_OF_SLICE"]) == ("8", "4")
    environment = remote.joined({"VDIT_SLICE": "1", "VDIT_HOST": "2", "VDIT_HOSTS_OF_SLICE": "4"})
    assert environment["JAX_PROCESS_ID"] == "6"
    assert jobset["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": jobset["metadata"]["name"]}


def test_a_slice_of_tpu7x_is_placed_by_a_workload_policy(tmp_path):
    sweep, settings = made(tmp_path, **{**TPU, "topology": "tpu7x:2x2x2"})
    assert settings.chips == 8 and settings.devices == 16
    policy, pool, *_ = gke.describe(sweep, sweep.runs[0], Folder(tmp_path), settings).splitlines()
    assert policy.startswith("# gcloud compute resource-policies create workload-policy tpu7x-2x2x2 ")
    assert "--type=HIGH_THROUGHPUT" in policy
    assert "--accelerator-topology=2x2x2 --region=REGION" in policy
    assert "--placement-policy=tpu7x-2x2x2 --machine-type=tpu7x-standard-4t --num-nodes=2 --spot" in pool
    _, jobset = manifests.of_run(sweep, sweep.runs[0], settings)
    assert_valid(models.JobsetV1alpha2JobSet, jobset)
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["parallelism"] == 2 and spec["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu7x",
        "cloud.google.com/gke-tpu-topology": "2x2x2",
        "cloud.google.com/gke-spot": "true",
    }
    (one_host,) = gke.node_pool(Gke(**{**TPU, "topology": "tpu7x:2x2x1", "spot": False}))
    assert one_host.endswith("--tpu-topology=2x2x1 --machine-type=tpu7x-standard-4t --num-nodes=1")
    (older,) = gke.node_pool(Gke(**TPU))
    assert older.endswith("--tpu-topology=4x4 --machine-type=ct5lp-hightpu-4t --num-nodes=4 --spot")


def test_processes_of_a_gpu_run_find_each_other(tmp_path):
    config, jobset = jobset_of(tmp_path, **GPU)
    name = jobset["metadata"]["name"]
    spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert spec["parallelism"] == 2 and container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values["JAX_COORDINATOR_ADDRESS"] == f"{name}-workers-0-0.{name}:8476" and values["JAX_NUM_PROCESSES"] == "2"
    assert {"VDIT_SLICE", "VDIT_HOST", "VDIT_HOSTS_OF_SLICE"} < values.keys()
    assert "XLA_FLAGS" in json.loads(config["data"]["run.json"])["environment"]


def test_values_stay_data(tmp_path):
    points = point({"data.path": "/d/it's $(HOME) a set", "data.split": HOSTILE})
    config, jobset = jobset_of(tmp_path, points, **TPU)
    text = json.dumps(jobset)
    assert "touch trap" not in text and "kind: Pod" not in text
    stage = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["initContainers"][0]
    assert stage["command"][-2:] == ["gs://b/data/it's $$(HOME) a set", "/opt/vdit/staged/it's $$(HOME) a set"]
    back = yaml.safe_load(yaml.safe_dump(config))
    arguments = json.loads(back["data"]["run.json"])["arguments"]
    assert f"--config.data.split={HOSTILE}" in arguments
    assert arguments[-1] == "--config.data.path=staged/it's $(HOME) a set"


def test_settings_that_do_not_go_together(tmp_path):
    for values, message in (
        ({}, "gke.image is not set"),
        ({"image": "x", "bucket": "gs://b"}, "set one of gke.topology, such as v5e:4x4, and gke.gpu"),
        ({**TPU, "gpu": "x"}, "set one of"),
    ):
        sweep, settings = made(tmp_path, **values)
        with pytest.raises(UserError, match=message):
            gke.describe(sweep, sweep.runs[0], Folder(tmp_path), settings)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The fake, found by the real kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: the real client is NOT tested")
    fake = FakeKubernetes()
    (tmp_path / "kubeconfig").write_text(fake.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps what it discovers there
    yield fake
    fake.close()


def test_the_real_kubectl_applies_looks_and_deletes(cluster, tmp_path, capsys):
    bucket = tmp_path / "bucket"
    points = point({"data.split": HOSTILE})
    sweep, settings = made(tmp_path, points, **{**TPU, "bucket": str(bucket), "quota": 32, "context": "fake"})
    folder, run = Folder(tmp_path / "sweeps" / "tiny"), sweep.runs[0]
    name = name_of(run.id)
    assert gke.start(sweep, folder, settings) == 0
    assert [path.split("/")[-2] for path in cluster.created] == [
        *("resourceflavors", "clusterqueues", "localqueues"),
        *("configmaps", "jobsets"),
    ]
    config = cluster.objects[f"/api/v1/namespaces/default/configmaps/{name}"]
    assert f"--config.data.split={HOSTILE}" in json.loads(config["data"]["run.json"])["arguments"]
    jobset = cluster.objects[f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/default/jobsets/{name}"]
    expected = manifests.of_run(sweep, run, settings)[1]
    jobset["metadata"].pop("annotations"), expected["metadata"].pop("annotations")  # kubectl adds its own
    assert jobset == expected

    def states() -> list[str]:
        gke.synchronise(folder, settings)
        return [row.state for row in status.statuses(folder)]

    jobset["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    assert states() == ["waiting"]
    jobset["status"] = {"conditions": [{"type": "Suspended", "status": "False"}]}
    assert states() == ["running"]
    assert registry.stop(folder, []) == f"deleted: {name}" and states() == ["stopped"]
    assert not [path for path in cluster.objects if "jobsets" in path or "configmaps" in path]
    capsys.readouterr()


def test_what_kubectl_complains_of_is_one_line(cluster, tmp_path, monkeypatch):
    cluster.without = {"jobset.x-k8s.io"}
    sweep, settings = made(tmp_path, **{**TPU, "bucket": str(tmp_path / "bucket")})
    folder = Folder(tmp_path / "sweeps" / "tiny")
    with pytest.raises(UserError, match="install JobSet and Kueue in the cluster, see docs/launch.md"):
        gke.start(sweep, folder, settings)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="kubectl is not installed or not on PATH"):
        gke.start(sweep, folder, settings)
