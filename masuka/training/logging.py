"""A training's figures for TensorBoard or trackio too, in files of the run's folder.

Nothing is sent anywhere: trackio gets a folder and neither a Space nor a server.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from masuka.config import keep_trackio_here
from masuka.jobs.reporter import Reporter
from masuka.models.programs import must_be_installed
from masuka.training.plan import Plan

PROJECT = "masuka"


class Log(Protocol):
    """Where figures go besides the studio's own record."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars in `<run folder>/tensorboard`, opened with the first figure.

    What an earlier attempt wrote of the same steps is hidden by TensorBoard itself.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Trackio:
    """A project of one run in `<run folder>/trackio`, for `trackio show`."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        keep_trackio_here(folder / "trackio")
        # It prints how it is opened; what a worker prints is the job's log.
        with contextlib.redirect_stdout(io.StringIO()):
            import trackio

            self._run = trackio.init(
                project=PROJECT, name=name, resume="allow", config=dict(config), embed=False, auto_log_gpu=False,
                auto_log_cpu=False,
            )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


@contextmanager
def logged(plan: Plan, reporter: Reporter) -> Iterator[Reporter]:
    """The reporter, which also writes figures and scores where the request says.

    Raises InvalidInput where that program is not installed.
    """
    asked = plan.request.metrics_to
    must_be_installed(asked)
    if asked == "none":
        yield reporter
        return
    log: Log = (
        TensorBoard(plan.run_folder)
        if asked == "tensorboard"
        else Trackio(plan.run_folder, plan.name, plan.request.as_dict())
    )
    try:
        yield LoggedReporter(reporter, log)
    finally:
        log.close()


class LoggedReporter:
    """A reporter whose figures and scores go to a log as well."""

    def __init__(self, reporter: Reporter, log: Log) -> None:
        self._reporter, self._log = reporter, log
        self.scratch = reporter.scratch

    def stage(self, name: str) -> None:
        self._reporter.stage(name)

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        self._reporter.progress(step, total, seconds_per_step=seconds_per_step)

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        self._reporter.metric(step=step, epoch=epoch, **values)
        self._log.write(step, values)

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        self._reporter.artefact(kind, path, **about)

    def tell(self, noun: str, **about: Any) -> None:
        self._reporter.tell(noun, **about)
        if noun == "score":
            name = about["name"] if about["weight"] == 1 else f"{about['name']} at {about['weight']:g}"
            self._log.write(about["step"], {name: about["value"]})

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def check(self) -> None:
        self._reporter.check()
