"""The engine of experiments: trains and measures one run after another, and predicts before the first held-out one.

Nothing is done twice: a run that several experiments of a folder share is trained once, and one that was stopped
resumes from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.runs.data_sets import DataSets
from launch.experiments.runs.prediction import at_best_size, keep_earlier, write_prediction
from launch.experiments.runs.trials import Trial, Trials, branch_step
from launch.experiments.spec import Experiment
from launch.sweeps.expand import Sweep
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder
from launch.targets import in_process
from vdit.command.stopping import Stopped, noted
from vdit.errors import UserError
from vdit.io.files import read_json, write_json

Row = dict[str, Any]


class Runner:
    """Brings the runs of an experiment to their end.

    Args:
      experiment: which.
      out: folder of data and runs; experiments without a report of their own share one.
      text_encoder: of the data sets.
      docs: folder of the prediction, if the experiment has no report of its own.

    Attributes:
      on_change: called when a run has been measured or a prediction has been written.
    """

    def __init__(self, experiment: Experiment, out: Path, text_encoder: str, docs: Path):
        self.experiment, self.out = experiment, out
        self.folder = Folder(out)
        self.data = DataSets(out / "data", experiment.data, text_encoder)
        self.trials = Trials(experiment, self.data, self.folder)
        self._prediction = out / "prediction.json" if experiment.report else docs / f"{experiment.name}-prediction.json"
        self.on_change: Callable[[], None] = lambda: None

    def rows(self, trials: Sequence[Trial], stop: bool = False) -> Iterator[Row]:
        """Trains and measures one run after another; gives the row of each.

        Args:
          trials: as planned, held-out ones last; those whose size the law of the grid chooses are added.
          stop: when the prediction has been written, so that it can be committed before the held-out runs.
        """
        done: list[Row] = []
        self._list(trials)
        for trial in trials:
            if trial.arm.kind != "heldout":
                done.append(self.row(trial, f"run {len(done) + 1} of {len(trials)}"))
                yield done[-1]
        held_out = [trial for trial in trials if trial.arm.kind == "heldout"] + self._chosen(done)
        self._list(held_out)
        if held_out:
            self.predict(held_out, done, stop)
        for number, trial in enumerate(held_out):
            yield self.row(trial, f"held-out run {number + 1} of {len(held_out)}")

    def _list(self, trials: Sequence[Trial]) -> None:
        """Lists runs in the folder, beside those that are there, for `launch.status`."""
        name, runs = self.experiment.name, tuple(trial.run for trial in trials)
        self.folder.write_plan(Sweep(name, name, runs, {}), "local", Local())

    def _chosen(self, done: Sequence[Row]) -> list[Trial]:
        """Held-out runs at the size that the law of the finished grid says is best."""
        found = []
        for arm in self.experiment.arms:
            if arm.choices:
                found += self.trials.of(at_best_size(arm, done, self.trials, self._prediction))
        return found

    def predict(self, held_out: Sequence[Trial], done: Sequence[Row], stop: bool) -> None:
        """Writes the prediction of the first held-out run, or sees that the one that is there was made for it.

        Raises:
          UserError: if it has just been written and `stop` says that it is to be committed first.
        """
        if self.experiment.report:
            keep_earlier(self._prediction, held_out[0].arm.budget)
        begun = any((self.folder.run(trial.id) / "config.json").exists() for trial in held_out)
        known = self.floors() if self.experiment.predicted and self.experiment.floors else {}
        floors = {metric: known.get(metric, 0.0) for metric in self.experiment.predicted}
        if write_prediction(self._prediction, done, held_out[0], begun, floors):
            self.on_change()
            if stop:
                raise UserError(f"{self._prediction} is written; commit it, then give the same command again")

    def row(self, trial: Trial, announcement: str) -> Row:
        """Account and measures of a run, which is trained if it is not finished."""
        from launch.experiments.runs.measures import Finished, measured
        from launch.experiments.runs.samples import SAMPLES
        from vdit.scaling.runs import flatten

        arm, path = trial.arm, self.folder.run(trial.id) / "result.json"
        self.data.fill_in(self.trials.data_of(arm))
        there = path.exists()
        if not there:
            print(f"{announcement}: {trial.run.label}, in {path.parent}", flush=True)
        result = self._train(trial)
        about: Row = {"run": trial.id, "kind": arm.kind, "arm": arm.name, "group": arm.group}
        about |= {"budget": arm.budget} if arm.budget else {}
        names = tuple(self.experiment.measures if arm.measures is None else arm.measures)
        for name in names:
            self.data.path(name.partition(":")[2] or next(iter(self.experiment.data)))
        finished = Finished(path.parent, self.data.paths, self.experiment.clips)
        about |= measured(finished, names)
        row = {**flatten({k: v for k, v in result.items() if k not in ("validation", "loss_interval")}), **about}
        if self.experiment.report and "arm" not in result:
            if arm.samples:
                smallest = min(each.budget for each in self.experiment.arms if each.budget)
                SAMPLES[arm.samples](self.out, row, finished, smallest)
            write_json(path, {**result, **about})  # last: the report finds all in one file
            self.on_change()
        return row

    def _train(self, trial: Trial) -> dict[str, Any]:
        """The result of a run, and before it of as much of its trunk as it needs.

        Raises:
          Stopped: by a request to stop; one that comes in a run's last step lets it finish first.
        """
        with noted() as request:
            if trial.run.trunk and not self.folder.finished(trial.run):
                in_process.train(self.trials.trunk(trial.arm, trial.seed, branch_step(trial.config)), self.folder)
            result = in_process.result_of(trial.run, self.folder)
        if request.asked:
            raise Stopped(f"stopped as asked, after {trial.id} has finished; the same command resumes")
        return result

    def floors(self) -> dict[str, Any]:
        """What the measures say of true clips, made once."""
        from launch.experiments.runs.measures import floors

        names, clips = self.experiment.floors, self.experiment.clips
        path = self.out / f"floors-{'-'.join(names)}-{clips}.json"
        if not path.exists():
            paths = {name: self.data.path(name) for name in names}
            write_json(path, floors(paths, tuple(names), clips))
        return read_json(path)
