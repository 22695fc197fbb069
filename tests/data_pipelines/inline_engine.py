"""An engine for tests: does jobs in this process, so that many builds take little time; in an order of its own."""

from unittest import mock

from fake_source import FakeEncoder

from data_pipelines.building.encoders import Encoders
from data_pipelines.building.jobs.do_job import do_job
from data_pipelines.building.jobs.fetching import fetched


class InlineEngine:
    def __init__(self, encoder, captioner: str = "", detector: str = "") -> None:
        self.encoders = Encoders(encoder, captioner=captioner, detector=detector)

    def run(self, recipe, jobs):
        for job in sorted(jobs, key=lambda job: job.number * 7 % 11):
            with fetched(recipe, job) as ready:
                do_job(recipe, ready, self.encoders, lambda _: None)
            yield job

    def close(self) -> None:
        self.encoders.close()


def inline():
    """Within it `build` does jobs in this process."""
    return mock.patch(
        "data_pipelines.building.builder.make_engine",
        lambda args, encoder=None: InlineEngine(encoder or FakeEncoder(), args.captioner, args.detector),
    )
