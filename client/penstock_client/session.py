"""The client's decisions, with no I/O in them: what to send, whether to try again, what a reply means.

Each public method is a generator of `Attempt` and `Pause` steps that returns the answer. `Client` and `AsyncClient`
perform the steps, one blocking and one awaiting, so both behave alike. The session caches what models declare.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from numpy.typing import ArrayLike

from penstock import inference_pb2, penstock_pb2
from penstock.names import CONTROL_SERVICE, DRIFT_STATE_METHOD, FEEDBACK_MODEL, INFER_METHOD, INFERENCE_SERVICE
from penstock_client.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    PenstockClientError,
    ServerUnavailableError,
    UnsupportedError,
    meaning_of,
)
from penstock_client.feedback import Labels, Values, feedback_of, payloads, taken
from penstock_client.metadata import ModelMetadata, ModelState, TensorSpec, index_of, metadata_of
from penstock_client.plan import Plans
from penstock_client.prediction import Prediction, parsed, prediction_of
from penstock_client.reply import plain_prediction
from penstock_client.request import RequestOptions, infer_payload
from penstock_client.retry import Backoff, Bucket, RetryBudget, is_countable, pause_before_retry_s
from penstock_client.rows import Rows, table_of
from penstock_client.steps import Attempt, Failure, Made, Pause, Steps, T
from penstock_client.tensors import Layout, Table, arrange, for_any, shown

_SERVICES: Final = {
    **dict.fromkeys(("ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "RepositoryIndex"), INFERENCE_SERVICE),
    INFER_METHOD: INFERENCE_SERVICE,
    DRIFT_STATE_METHOD: CONTROL_SERVICE,
}
METHODS: Final = {method: f"/{service}/{method}" for method, service in _SERVICES.items()}
"""The path of each method, by its name."""
STREAM_PATH: Final = f"/{INFERENCE_SERVICE}/ModelStreamInfer"

_MOST_SAID: Final = 100
"""A service whose rows differ each time is told so many times which columns are left out."""
_MOST_VERSIONS: Final = 8
_LOOK_S: Final = 5.0
"""How long one look at whether a server is ready may take."""
_log: Final = logging.getLogger("penstock_client")


class Session:
    """The rules of calling one server.

    Safe to share between threads: the cache changes by single assignments only. Two callers that miss it at the same time
    both fetch, which costs one call and harms nothing.

    Args:
        server: the server's address, for errors.
        timeout_s: the deadline of a call that sets none.
        retries: how many attempts may follow the first.
        backoff: how the pauses between them grow.
        budget: how many retries are afforded while calls fail; None for no limit.
        max_message_bytes: the longest request that is sent.
        clock: monotonic seconds.
        fraction: returns a random number from 0 to 1.
    """

    def __init__(
        self,
        server: str,
        *,
        timeout_s: float,
        retries: int,
        backoff: Backoff,
        budget: RetryBudget | None,
        max_message_bytes: int,
        clock: Callable[[], float],
        fraction: Callable[[], float],
    ) -> None:
        if retries < 0 or not _is_duration(timeout_s):
            raise ValueError(f"expected retries >= 0 and a finite timeout_s > 0, got {retries} and {timeout_s}")
        self._server = server
        self._timeout_s = timeout_s
        self._retries = retries
        self._backoff = backoff
        self._bucket = Bucket(budget)
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        self._fraction = fraction
        self._declared: dict[tuple[str, str], ModelMetadata] = {}
        self._plans = Plans()
        self._said: frozenset[tuple[str, tuple[str, ...]]] = frozenset()

    def affords_hedge(self) -> bool:
        """Whether a late prediction may be asked for once more; takes a token of the budget."""
        if not self._bucket.affords_retry:
            return False
        self._bucket.on_failure()
        return True

    def predict(self, options: RequestOptions, rows: Rows, timeout_s: float | None) -> Steps[Prediction]:
        """The prediction for the rows, cast to what the model declares."""
        # For rows like earlier ones a plan has the bytes of the first attempt, and mostly that is all.
        made = None
        attempt = self._planned(options, rows, timeout_s)
        if attempt is not None:
            begun_s = self._clock()
            outcome = yield attempt
            assert outcome is not None, "a call is answered by bytes or a failure"
            taken_s = self._clock() - begun_s
            prediction = plain_prediction(outcome, round_trip_s=taken_s, explains=options.explain)
            if prediction is not None:
                if not self._bucket.is_full:
                    self._bucket.on_answer()
                return prediction
            made = Made(outcome, begun_s, taken_s)
        return (
            yield from self._with_deadline(
                options.model, timeout_s, lambda deadline_s: self._predict(options, rows, deadline_s, made), made
            )
        )

    def metadata(self, model: str, version: str, timeout_s: float | None) -> Steps[ModelMetadata]:
        """What the model declares now; later predictions are cast to it."""
        return self._with_deadline(model, timeout_s, lambda deadline_s: self._metadata(model, version, deadline_s))

    def index(self, *, only_ready: bool, timeout_s: float | None) -> Steps[tuple[ModelState, ...]]:
        """Every model and version that the server knows."""
        return self._with_deadline("", timeout_s, lambda deadline_s: self._index(only_ready, deadline_s))

    def drift_state(self, model: str, version: str, timeout_s: float | None) -> Steps[penstock_pb2.DriftStateResponse]:
        """The server's drift report; only a Penstock server has the method."""
        return self._with_deadline(model, timeout_s, lambda deadline_s: self._drift_state(model, version, deadline_s))

    def feedback(
        self,
        model: str,
        labels: Labels,
        *,
        ids: Sequence[str] | None,
        values: Values,
        rows: ArrayLike | None,
        timeout_s: float | None,
    ) -> Steps[int]:
        """How many labels were taken, in as many requests as they need."""

        def steps(deadline_s: float) -> Steps[int]:
            total = 0
            for payload in payloads(model, feedback_of(labels, ids=ids, values=values, rows=rows)):
                try:
                    reply, _ = yield from self._call(INFER_METHOD, payload, deadline_s, self._retries)
                except ModelNotFoundError as error:
                    if FEEDBACK_MODEL in error.details:
                        raise UnsupportedError("the server takes no labels", code=error.code) from error
                    raise
                total += taken(reply)
            return total

        return self._with_deadline(model, timeout_s, steps)

    def is_live(self, timeout_s: float | None) -> Steps[bool]:
        """Whether the server answers and reports itself live; one attempt."""
        return self._with_deadline("", timeout_s, self._is_live)

    def is_ready(self, model: str | None, version: str, timeout_s: float | None) -> Steps[bool]:
        """Whether the server, or the model, can answer predictions; one attempt."""
        return self._with_deadline(
            model or "", timeout_s, lambda deadline_s: self._is_ready(model, version, deadline_s)
        )

    def declared(self, options: RequestOptions, timeout_s: float | None) -> Steps[ModelMetadata]:
        """What the model that is asked declares, as it is known or else fetched."""
        return self._with_deadline(options.model, timeout_s, lambda deadline_s: self._known(options, deadline_s))

    def encoded(self, options: RequestOptions, rows: Rows, declared: ModelMetadata) -> bytes:
        """The request for these rows, cast to what the model declares, without a call."""
        layout = arrange(table_of(rows), declared.inputs, extra=options.extra)
        if layout.ignored:
            self._say_once(options.model, layout.ignored)
        payload = infer_payload(options, layout.tensors)
        self._check_size(payload)
        return payload

    def _known(self, options: RequestOptions, deadline_s: float) -> Steps[ModelMetadata]:
        options.check()
        known = self._declared.get((options.model, options.version))
        return known or (yield from self._metadata(options.model, options.version, deadline_s))

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self._max_message_bytes:
            raise InvalidRequestError(
                f"the request takes {len(payload)} bytes, the limit is {self._max_message_bytes}; send fewer rows"
            )

    def _planned(self, options: RequestOptions, rows: Rows, timeout_s: float | None) -> Attempt | None:
        payload = self._plans.payload(options, rows, self._declared)
        if payload is None or len(payload) > self._max_message_bytes:
            return None
        if timeout_s is None:
            return Attempt(INFER_METHOD, payload, self._timeout_s)
        return Attempt(INFER_METHOD, payload, timeout_s) if _is_duration(timeout_s) else None

    def _with_deadline(
        self,
        model: str,
        timeout_s: float | None,
        steps_until: Callable[[float], Steps[T]],
        made: Made | None = None,
    ) -> Steps[T]:
        """The steps, with the deadline counted from now; an error that leaves them names the model and the server."""
        try:
            if timeout_s is not None and not _is_duration(timeout_s):
                raise InvalidRequestError(f"timeout_s is expected as a finite number above 0, got {timeout_s}")
            begun_s = self._clock() if made is None else made.begun_s
            return (yield from steps_until(begun_s + (timeout_s or self._timeout_s)))
        except PenstockClientError as error:
            error.model, error.server = model, self._server
            raise

    def wait_ready(self, model: str | None, version: str, timeout_s: float) -> Steps[None]:
        """Asks until the server, or the model, can answer predictions."""
        return self._with_deadline(
            model or "", timeout_s, lambda deadline_s: self._wait_ready(model, version, deadline_s, timeout_s)
        )

    def _predict(self, options: RequestOptions, rows: Rows, deadline_s: float, made: Made | None) -> Steps[Prediction]:
        options.check()
        table = table_of(rows)
        known = self._declared.get((options.model, options.version))
        declared = known or (yield from self._metadata(options.model, options.version, deadline_s))
        try:
            layout = arrange(table, declared.inputs, extra=options.extra)
            self._plans.learn(options, rows, layout, declared)
            return (yield from self._infer(options, table, declared, layout, deadline_s=deadline_s, made=made))
        except InvalidRequestError:
            # The version behind a name or an alias changes while the client lives, and the columns with it.
            if known is not None:
                declared = yield from self._metadata(options.model, options.version, deadline_s)
            if known is None or declared.inputs == known.inputs:
                union = yield from self._union(options, table, declared, deadline_s)
                if not union:
                    raise
                return (yield from self._infer_any(options, table, union, deadline_s))
        return (yield from self._infer_as(options, table, declared, deadline_s))

    def _union(
        self, options: RequestOptions, table: Table, declared: ModelMetadata, deadline_s: float
    ) -> Steps[tuple[TensorSpec, ...]]:
        """What any of the model's versions takes, if a canary with other columns may have refused; else empty."""
        if options.version or not isinstance(table, Mapping):
            return ()
        arrange(table, declared.inputs, extra=options.extra)
        inputs = [declared.inputs]
        for version in declared.versions[:_MOST_VERSIONS]:
            own = yield from self._described(options.model, version, deadline_s)
            if own is not None and own.inputs not in inputs:
                inputs.append(own.inputs)
        return for_any(table, inputs) if len(inputs) > 1 else ()

    def _infer_any(
        self, options: RequestOptions, table: Table, union: tuple[TensorSpec, ...], deadline_s: float
    ) -> Steps[Prediction]:
        payload = infer_payload(options, arrange(table, union).tensors, for_any_version=True)
        reply, round_trip_s = yield from self._call(INFER_METHOD, payload, deadline_s, self._retries)
        return prediction_of(reply, round_trip_s=round_trip_s, explains=options.explain)

    def _infer_as(
        self, options: RequestOptions, table: Table, declared: ModelMetadata, deadline_s: float
    ) -> Steps[Prediction]:
        layout = arrange(table, declared.inputs, extra=options.extra)
        return (yield from self._infer(options, table, declared, layout, deadline_s=deadline_s))

    def _infer(
        self,
        options: RequestOptions,
        table: Table,
        declared: ModelMetadata,
        layout: Layout,
        *,
        deadline_s: float,
        made: Made | None = None,
    ) -> Steps[Prediction]:
        if layout.ignored:
            self._say_once(options.model, layout.ignored)
        reply, round_trip_s = yield from self._call(
            INFER_METHOD, infer_payload(options, layout.tensors), deadline_s, self._retries, made
        )
        prediction = prediction_of(reply, round_trip_s=round_trip_s, explains=options.explain)
        if not layout.is_guessed:
            return prediction
        # The order of the columns was that of the version described, and another one may have answered: a canary, or
        # one promoted since. Its own description says whether it would have been asked otherwise.
        own = yield from self._described(options.model, prediction.version, deadline_s)
        if own is None or own.inputs == declared.inputs:
            return prediction
        again = replace(options, version=prediction.version)
        return (yield from self._infer_as(again, table, own, deadline_s))

    def _described(self, model: str, version: str, deadline_s: float) -> Steps[ModelMetadata | None]:
        """What this version declares; None if the server does not describe single versions, or has it no longer."""
        known = self._declared.get((model, version))
        try:
            return known or (yield from self._metadata(model, version, deadline_s))
        except (ModelNotFoundError, UnsupportedError, InvalidRequestError):
            return None

    def _say_once(self, model: str, ignored: tuple[str, ...]) -> None:
        if (model, ignored) not in self._said and len(self._said) < _MOST_SAID:
            self._said |= {(model, ignored)}
            _log.warning(
                "model %r takes no column %s: left out; extra='refuse' refuses such rows", model, shown(ignored)
            )

    def _metadata(self, model: str, version: str, deadline_s: float) -> Steps[ModelMetadata]:
        request = inference_pb2.ModelMetadataRequest(name=model, version=version)
        reply, _ = yield from self._call("ModelMetadata", request.SerializeToString(), deadline_s, self._retries)
        declared = metadata_of(parsed(inference_pb2.ModelMetadataResponse, reply))
        self._declared[model, version] = declared
        return declared

    def _index(self, only_ready: bool, deadline_s: float) -> Steps[tuple[ModelState, ...]]:
        request = inference_pb2.RepositoryIndexRequest(ready=only_ready)
        reply, _ = yield from self._call("RepositoryIndex", request.SerializeToString(), deadline_s, self._retries)
        return index_of(parsed(inference_pb2.RepositoryIndexResponse, reply))

    def _drift_state(self, model: str, version: str, deadline_s: float) -> Steps[penstock_pb2.DriftStateResponse]:
        request = penstock_pb2.DriftStateRequest(model=model, version=version)
        reply, _ = yield from self._call(DRIFT_STATE_METHOD, request.SerializeToString(), deadline_s, self._retries)
        return parsed(penstock_pb2.DriftStateResponse, reply)

    def _is_live(self, deadline_s: float) -> Steps[bool]:
        try:
            reply, _ = yield from self._call("ServerLive", b"", deadline_s, 0)
        except (ServerUnavailableError, DeadlineExceededError):
            return False
        return parsed(inference_pb2.ServerLiveResponse, reply).live

    def _is_ready(self, model: str | None, version: str, deadline_s: float) -> Steps[bool]:
        try:
            return (yield from self._readiness(model, version, deadline_s))
        except (ModelNotFoundError, ServerUnavailableError, DeadlineExceededError):
            return False

    def _wait_ready(self, model: str | None, version: str, deadline_s: float, timeout_s: float) -> Steps[None]:
        looked = 0
        while True:
            reason = "it says that it is not"
            try:
                if (yield from self._readiness(model, version, min(deadline_s, self._clock() + _LOOK_S))):
                    return
            except (ModelNotFoundError, ServerUnavailableError, DeadlineExceededError) as error:
                reason = error.details
            pause_s = self._backoff.ceiling_s(retry=looked) * (1 + self._fraction()) / 2
            looked += 1
            if self._clock() + pause_s >= deadline_s:
                what = "the server" if model is None else f"model {model!r}"
                raise DeadlineExceededError(f"{what} is not ready after {timeout_s:g} s: {reason}")
            yield Pause(pause_s)

    def _readiness(self, model: str | None, version: str, deadline_s: float) -> Steps[bool]:
        # Both methods have the same messages on the wire, but for the model's name and version.
        method = "ServerReady" if model is None else "ModelReady"
        request = inference_pb2.ModelReadyRequest(name=model, version=version)
        reply, _ = yield from self._call(method, request.SerializeToString(), deadline_s, 0)
        return parsed(inference_pb2.ModelReadyResponse, reply).ready

    def _call(
        self, method: str, payload: bytes, deadline_s: float, retries: int, made: Made | None = None
    ) -> Steps[tuple[bytes, float]]:
        """The reply's bytes, and the seconds that the answered attempt took; the first may have been made already."""
        self._check_size(payload)
        retry, cause = 0, None
        while (begun_s := self._clock()) < deadline_s or made is not None:
            if made is None:
                outcome = yield Attempt(method, payload, deadline_s - begun_s)
                taken_s = self._clock() - begun_s
            else:
                outcome, taken_s, made = made.outcome, made.taken_s, None
            if isinstance(outcome, bytes):
                self._bucket.on_answer()
                return outcome, taken_s
            assert outcome is not None, "a call is answered by bytes or a failure"
            yield Pause(self._pause_s(outcome, retry, retries, deadline_s))
            retry, cause = retry + 1, outcome.cause
        raise DeadlineExceededError("no answer before the deadline") from cause

    def _pause_s(self, failure: Failure, retry: int, retries: int, deadline_s: float) -> float:
        """The pause before the next attempt; raises the failure's meaning if there is none."""
        if is_countable(failure):
            self._bucket.on_failure()
        pause_s = pause_before_retry_s(
            failure,
            self._backoff,
            retry=retry,
            retries=retries if self._bucket.affords_retry else 0,
            remaining_s=deadline_s - self._clock(),
            fraction=self._fraction(),
        )
        if pause_s is None:
            details = failure.details or f"the call failed with {failure.code.name}"
            raise meaning_of(failure.code, failure.details)(details, code=failure.code) from failure.cause
        return pause_s


def _is_duration(seconds: float) -> bool:
    return 0 < seconds < math.inf
