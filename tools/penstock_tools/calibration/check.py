"""What `penstock drift-check` does once its options are read: reads the rows, replays them, measures delays, and reports.

What the rows are compared with is a version in a folder or a registry, or else a baseline of the first rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from penstock_server.drift.power import smallest_detectable
from penstock_server.drift.report import RUN_LENGTH, WINDOW_ROWS
from penstock_server.errors import InvalidInputError
from penstock_tools.calibration import delay, recorded, replay, report
from penstock_tools.calibration.recorded import Recorded
from penstock_tools.calibration.report import Check
from penstock_tools.calibration.rows import RequestLog, Rows, SampleFile
from penstock_tools.progress import Bars
from penstock_tools.publish import published
from penstock_tools.publish.watched import order_sentences

TRAIN_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `penstock drift-check`; None for those that were not given."""

    model: str | None = None
    sample: Path | None = None
    log: Path | None = None
    time: str | None = None
    train_share: float | None = None
    without: tuple[str, ...] = ()
    registry: str | None = None
    run_length: float = RUN_LENGTH
    runs: int = delay.RUNS


def check(request: Request, bars: Bars) -> Check:
    """Checks what alarms would have said.

    Raises:
        InvalidInputError: the options do not belong together, or the rows are not what they say.
        NotFoundError: there is no such version, or nothing was logged.
        UnavailableError: the registry does not answer.
    """
    _check_options(request)
    advance = bars.begin("reading rows")
    if request.model is None:
        share = TRAIN_SHARE if request.train_share is None else request.train_share
        found = recorded.against_first(_rows(request, None), share, request.without, advance)
        title = f"{_source(request)}, its first {share:.3g} as training rows"
    else:
        with published.version(request.model, request.registry) as version:
            if version.features is None or version.baseline is None:
                raise InvalidInputError(
                    f"{request.model} was published without a drift baseline; publish it with a sample, or leave the model "
                    "out to compare later rows with the first ones"
                )
            rows = _rows(request, published.name_of(request.model))
            found = recorded.against_version(rows, version.features, version.baseline, version.importance, advance)
        title = f"{request.model} on {_source(request)}"
    return _checked(request, found, title, bars)


def _checked(request: Request, found: Recorded, title: str, bars: Bars) -> Check:
    reference, seconds = found.reference, found.seconds
    went = replay.replay(
        reference, found.codes, seconds, request.run_length, bars.begin("looking at rows", len(found.codes))
    )
    delays = []
    if request.runs:
        advance = bars.begin("measuring delays", delay.most_looks(runs=request.runs))
        delays = delay.delays(
            reference,
            found.usual,
            slice_rows=went.slice_rows,
            run_length=request.run_length,
            runs=request.runs,
            advance=advance,
        )
    smallest = smallest_detectable(reference.cells, WINDOW_ROWS, reference.minimum_effect, reference.dispersion)
    return Check(
        title=title,
        rows=went.rows,
        looks=went.looks,
        slice_rows=went.slice_rows,
        run_length=request.run_length,
        first=report.moment(0, seconds),
        last=report.moment(len(found.codes) - 1, seconds),
        alarms=report.told(went, seconds),
        months=() if seconds is None else tuple(report.months(went.episodes, seconds)),
        columns=tuple(report.columns(reference, np.atleast_1d(smallest).tolist(), went.episodes, delays)),
        indexes=delay.INDEXES if request.runs else (),
        most_rows=delay.MOST_LOOKS * went.slice_rows,
        notes=tuple(_notes(request, found)),
    )


def _notes(request: Request, found: Recorded) -> Iterator[str]:
    if request.log is None and request.time is None:
        yield "the rows are taken to be in the order of time; --time COLUMN says when they came"
    elif found.seconds is None:
        yield f"{request.time!r} orders the rows but holds no times, so nothing is said per month"
    yield from order_sentences(found.baseline)
    if request.model is not None and found.baseline.predictions is None:
        yield "the raw columns are replayed; the model's answers are not"


def _check_options(request: Request) -> None:
    if (request.sample is None) == (request.log is None):
        raise InvalidInputError("give the rows with --sample FILE or with --log FOLDER, one of them")
    if request.log is not None and request.time is not None:
        raise InvalidInputError("--time is for samples; a request log knows when its rows came")
    if request.model is not None:
        for option, is_given in (("--train-share", request.train_share is not None), ("--without", request.without)):
            if is_given:
                raise InvalidInputError(f"{option} is for rows without a version; {request.model} has its baseline")
    if request.train_share is not None and not 0 < request.train_share < 1:
        raise InvalidInputError(f"--train-share is {request.train_share:g}, expected a number between 0 and 1")
    if not request.run_length >= 1:
        raise InvalidInputError(f"--false-alarm-looks is {request.run_length:g}, expected 1 or more")
    if request.runs < 0:
        raise InvalidInputError(f"--runs is {request.runs}, expected 0 or more")


def _rows(request: Request, model: str | None) -> Rows:
    if request.sample is not None:
        return SampleFile(request.sample, request.time)
    assert request.log is not None
    return RequestLog(request.log, model)


def _source(request: Request) -> str:
    return str(request.sample or request.log)
