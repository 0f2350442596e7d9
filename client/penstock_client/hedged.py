"""Predictions that are asked for twice where the first answer is late: the sooner one counts.

It is off unless a client is told when an answer is late, such as at the 95th percentile of its times. Of several servers the
second attempt goes to another one, since the first has a call more in flight. Each second attempt takes a token of the retry
budget, so that slow servers get a small share of calls more, and none while too many fail.

Source: gRPC proposal A6, "Hedging Policy"; Dean and Barroso, "The Tail at Scale", "Hedged requests".
"""

import asyncio
import os
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

from penstock.names import INFER_METHOD
from penstock_client.balanced import AwaitedCallsOf, Calls
from penstock_client.headers import Headers
from penstock_client.steps import Failure

_MOST_THREADS: Final = 64


class HedgedCalls:
    """`Calls`, of which predictions are made on a thread of their own, and once more where they are late.

    Args:
        calls: makes each attempt.
        after_s: how long an answer may take before it is late.
        affords: whether another attempt may be made now; counts it.
    """

    def __init__(self, calls: Calls, after_s: float, affords: Callable[[], bool]) -> None:
        self._calls = calls
        self._after_s = after_s
        self._affords = affords
        self._threads = _threads()
        _ALL.add(self)

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The first reply, or how the last attempt failed. One that lost ends by itself, at its deadline at the latest."""
        if not path.endswith(INFER_METHOD) or timeout_s <= self._after_s:
            return self._calls.call(path, payload, timeout_s, headers)
        first = self._threads.submit(self._calls.call, path, payload, timeout_s, headers)
        done, _ = wait((first,), self._after_s)
        if done or not self._affords():
            return first.result()
        second = self._threads.submit(self._calls.call, path, payload, timeout_s - self._after_s, headers)
        return _sooner(first, second)

    def pipe(self, ahead: int) -> Any:
        """Calls that overlap; each is made once."""
        return self._calls.pipe(ahead)

    def close(self) -> None:
        """Closes every connection; calls of other threads end with an error."""
        self._calls.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def forget(self) -> None:
        """After a fork, in the child: the threads are the parent's."""
        self._threads = _threads()


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="penstock-hedge")


def _sooner(*attempts: "Future[bytes | Failure]") -> bytes | Failure:
    """The first answer of attempts; where all fail, how the last did."""
    left = set(attempts)
    while True:
        done, left = wait(left, return_when=FIRST_COMPLETED)
        ends = [attempt.result() for attempt in done]
        answer = next((end for end in ends if not isinstance(end, Failure)), None)
        if answer is not None or not left:
            return ends[-1] if answer is None else answer


class HedgedAwaitedCalls:
    """The same for tasks; an attempt that lost is cancelled, at the server too."""

    def __init__(self, calls: AwaitedCallsOf, after_s: float, affords: Callable[[], bool]) -> None:
        self._calls = calls
        self._after_s = after_s
        self._affords = affords

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The first reply, or how the last attempt failed."""
        if not path.endswith(INFER_METHOD) or timeout_s <= self._after_s:
            return await self._calls.call(path, payload, timeout_s, headers)
        attempts = {asyncio.ensure_future(self._calls.call(path, payload, timeout_s, headers))}
        try:
            done, _ = await asyncio.wait(attempts, timeout=self._after_s)
            if not done and self._affords():
                left_s = timeout_s - self._after_s
                attempts.add(asyncio.ensure_future(self._calls.call(path, payload, left_s, headers)))
            left = set(attempts)
            while True:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                ends = [attempt.result() for attempt in done]
                answer = next((end for end in ends if not isinstance(end, Failure)), None)
                if answer is not None or not left:
                    return ends[-1] if answer is None else answer
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def close(self) -> None:
        """Closes every connection; calls of other tasks end with an error."""
        await self._calls.close()


_ALL: Final[weakref.WeakSet[HedgedCalls]] = weakref.WeakSet()


def _after_fork() -> None:
    for calls in list(_ALL):
        calls.forget()


os.register_at_fork(after_in_child=_after_fork)
