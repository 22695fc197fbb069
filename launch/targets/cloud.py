"""What the clouds share: where a run is in the bucket, its data sets, its code, and the file that describes it."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path, PurePosixPath

from launch.sweeps.expand import Run, Sweep
from launch.sweeps.settings import Gke, QueuedResources
from launch.sweeps.state import Folder
from launch.targets import gcloud, run_file
from vdit.errors import UserError

ROOT = Path(__file__).parents[2]
"""Of this checkout."""
NOT_MIRRORED = r"(^|/)(checkpoints|tensorboard|profile|logs|workers)/"
"""What stays in the bucket: all but the small files that say how a run fares."""


def sweep_folder(settings: QueuedResources | Gke, name: str) -> str:
    """A sweep's folder in the bucket."""
    return f"{settings.bucket.rstrip('/')}/sweeps/{name}"


def workdir(settings: QueuedResources | Gke, sweep: str, run_id: str) -> str:
    """A run's workdir in the bucket."""
    return f"{sweep_folder(settings, sweep)}/runs/{run_id}"


@dataclasses.dataclass(frozen=True)
class Staged:
    """A data set: where it is in the bucket, and its folder on the machine."""

    source: str
    folder: str


def data_sets(run: Run, settings: QueuedResources | Gke) -> tuple[Staged, ...]:
    """The data sets of a run: data.path gives their names, or gs:// paths of their own."""
    root = (settings.data or f"{settings.bucket.rstrip('/')}/data").rstrip("/")
    paths = run.config.data.paths
    for path in paths:
        if "\n" in path or "\t" in path:
            raise UserError(f"data.path={path!r} has a tab or line break in it; rename the data set")
    names = [PurePosixPath(path).name for path in paths]
    sources = [path if "://" in path else f"{root}/{name}" for path, name in zip(paths, names, strict=True)]
    return tuple(Staged(source, f"staged/{name}") for source, name in zip(sources, names, strict=True))


def file_of(sweep: Sweep, run: Run, settings: QueuedResources | Gke, at: str, flag_set: str) -> str:
    """run.json of a run; its data sets are below the folder `at`."""
    data = ",".join(f"{at}{staged.folder}" for staged in data_sets(run, settings))
    return run_file.text(sweep.arguments(run, workdir(settings, sweep.name, run.id), data), flag_set)


def git(*arguments: str) -> str:
    """Output of a git command in this checkout.

    Raises:
      UserError: if it fails.
    """
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed in {ROOT}: {done.stderr.strip().splitlines()[-1:] or ['']}")
    return done.stdout.strip()


def commit() -> str:
    """The commit of this checkout.

    Raises:
      UserError: if there are changes that are not committed: the machines would run other code.
    """
    changed = git("status", "--porcelain", "--untracked-files=no")
    if changed:
        raise UserError(f"{changed.splitlines()[0].strip().split()[-1]} is changed and not committed; commit it first")
    return git("rev-parse", "HEAD")


def upload_code(where: str, folder: Path, head: str) -> str:
    """Puts a bundle of the commit into the bucket; gives its path there."""
    path, to = folder / "code.bundle", f"{where}/code-{head[:12]}.bundle"
    git("bundle", "create", "--quiet", str(path.resolve()), "HEAD")
    put(path, to)
    return to


def put(path: Path, to: str) -> None:
    """Copies a file into the bucket, or into a folder that all machines mount."""
    if "://" in to:
        return gcloud.upload(path, to)
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    Path(to).write_bytes(path.read_bytes())
    return None


def mirror(folder: Folder, settings: QueuedResources | Gke, name: str, exclude: str = NOT_MIRRORED) -> None:
    """Brings the sweep's folder here up to date with the bucket, all but checkpoints and logs."""
    source = f"{sweep_folder(settings, name)}/runs"
    if "://" in source:
        return gcloud.download(source, folder.path / "runs", exclude)
    for path in Path(source).glob("*/*") if Path(source).is_dir() else ():
        if path.is_file():
            to = folder.path / "runs" / path.parent.name / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    return None


def fetch_logs(folder: Folder, settings: QueuedResources | Gke, name: str, run_id: str) -> None:
    """Copies a run's logs from the bucket."""
    source, to = f"{workdir(settings, name, run_id)}/logs", folder.run(run_id) / "logs"
    if "://" in source:
        return gcloud.download(source, to)
    to.mkdir(parents=True, exist_ok=True)
    for path in Path(source).glob("*.log"):
        (to / path.name).write_bytes(path.read_bytes())
    return None


def labels(sweep: Sweep, run: Run) -> dict[str, str]:
    """Labels that clouds accept, by which people find what belongs to a sweep."""
    slug = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in sweep.name.lower()).strip("-_")
    return {"vdit-sweep": slug[:60].strip("-_") or "sweep", "vdit-run": run.id}
