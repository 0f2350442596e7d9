"""The airlock: decides which versions are tried when, and holds the verdicts; workers load only what has passed.

Champions go first, few versions are tried at once, and nobody waits for a trial. A version that did not pass stays out
until its files change, which its identity tells.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.verdict import Trial, Verdict

log = structlog.get_logger(__name__)

TRIALS_AT_ONCE: Final = 2
"""A version that never ends holds up the next ones only if another does the same."""
RETRY_S: Final = 5.0
"""The pause after a trial that could not be started."""

RunTrial = Callable[[Trial], Awaitable[Verdict]]
"""Tries a version; `OSError` when its process cannot be started now."""


class _Case:
    """A version in the airlock.

    Attributes:
        verdict: the newest; after a restart it may be what was remembered of a version that did not pass then.
        is_recalled: what was known from before has been taken over.
        is_waiting: it is to be tried.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.verdict: Verdict | None = None
        self.is_recalled = False
        self.is_waiting = False
        self.task: asyncio.Task[None] | None = None


class Airlock:
    """Tries the required versions, each once.

    Args:
        run: tries one.
        proven: remembers verdicts over restarts.
        changed: called on the loop after each verdict.
    """

    def __init__(self, run: RunTrial, proven: ProvenVersions, *, changed: Callable[[], None]) -> None:
        self._run = run
        self._proven = proven
        self._changed = changed
        self._cases: dict[VersionKey, _Case] = {}
        self._order: list[VersionKey] = []
        self._trying: set[VersionKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.failures = 0

    def verdict(self, key: VersionKey, identity: str) -> Verdict | None:
        """The verdict on a version's files; None while there is none."""
        case = self._cases.get(key)
        return case.verdict if case is not None and case.trial.identity == identity else None

    def is_trying(self, key: VersionKey) -> bool:
        """Whether its process runs."""
        return key in self._trying

    def require(self, trials: Iterable[Trial]) -> None:
        """Tries those of these versions that were not tried, in this order; forgets and stops all others."""
        wanted = {trial.key: trial for trial in trials}
        self._order = list(wanted)
        for key, case in list(self._cases.items()):
            if wanted.get(key) != case.trial:
                del self._cases[key]
                if case.task is not None:
                    case.task.cancel()
        for key, trial in wanted.items():
            if key not in self._cases:
                case = self._cases[key] = _Case(trial)
                case.task = self._task(self._recall(case))
        self._start_next()  # what held up the others may be gone

    async def close(self) -> None:
        """Stops all trials; their processes are gone afterwards."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _recall(self, case: _Case) -> None:
        """Takes over what is known from before. What had not passed is tried again, and is out until then."""
        try:
            case.verdict = await asyncio.to_thread(self._proven.recall, case.trial)
        except Exception:
            log.exception("a verdict cannot be recalled", model=case.trial.model, version=case.trial.version)
        case.is_recalled = True
        case.is_waiting = case.verdict is None or not case.verdict.has_passed
        self._changed()
        self._start_next()

    def _start_next(self) -> None:
        for key in self._order:
            if self._is_closed or len(self._trying) >= TRIALS_AT_ONCE:
                return
            case = self._cases[key]
            if not case.is_recalled:
                return  # the next one must not take its turn
            if case.is_waiting and key not in self._trying:
                case.is_waiting = False
                self._trying.add(key)
                case.task = self._task(self._try(case))

    async def _try(self, case: _Case) -> None:
        key = case.trial.key
        try:
            verdict = await self._run(case.trial)
            self._log(case.trial, verdict)
            case.verdict = verdict
            await asyncio.to_thread(self._proven.remember, case.trial, verdict)
        except Exception as error:
            # Nothing is known of the version: there are no descriptors or no memory for its process.
            is_expected = isinstance(error, OSError)
            log.warning(
                "a trial cannot be started; trying again", model=key[0], version=key[1], reason=str(error),
                exc_info=not is_expected,
            )  # fmt: skip
            await asyncio.sleep(RETRY_S)
            case.is_waiting = True
        finally:
            self._trying.discard(key)
            if not self._is_closed:
                self._changed()
                self._start_next()

    def _log(self, trial: Trial, verdict: Verdict) -> None:
        if verdict.has_passed:
            log.info(
                "version passed the airlock", model=trial.model, version=trial.version,
                took_s=round(verdict.took_s, 3), batching=verdict.batching,
            )  # fmt: skip
            if verdict.note:
                log.warning("about a version", model=trial.model, version=trial.version, note=verdict.note)
            return
        self.failures += 1
        log.error("version cannot be served", model=trial.model, version=trial.version, reason=verdict.reason)
