"""The paths of the REST port, each with the method of gRPC that answers it.

A request becomes the message that a gRPC client would have sent, and goes to the same handler: so versions, canaries,
shadows, batches, drift, the request log, limits and rights are the same. Bodies that take long to read are read on a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version as installed_version
from typing import Any, Final

import msgspec
import structlog

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock.names import (
    CONTROL_SERVICE,
    FEEDBACK_METHOD,
    INFERENCE_SERVICE,
    LOAD_METHOD,
    PARAMETER_EXPLAIN,
    PARAMETER_EXTRA_COLUMNS,
    PARAMETER_ROUTING_KEY,
    STATISTICS_METHOD,
)
from penstock_server.call import Metadata
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnsupportedError
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.rest import http, openapi, paths
from penstock_server.rest.answers import Answer, Continuation, Exchange, LateRefusal, RestOutcome, as_json, error_answer
from penstock_server.rest.feedback import feedback_message
from penstock_server.rest.forms import ROW, TENSORS, BodyKind, Forms, Render
from penstock_server.rest.http import HTML, TEXT, BadRequestError, Request
from penstock_server.rest.message_json import json_of_message, setting_of
from penstock_server.rest.open_inference import (
    BINARY,
    PLAIN,
    Messages,
    Replies,
    ReplyForm,
    decoded,
    json_length,
    plain_parameters,
)
from penstock_server.rest.predictions import instance_rows, invocation_rows, predict_answer, predict_rows, predictions
from penstock_server.rest.rows import GivenRows, Options, RowSignature, message_of
from penstock_server.rest.signatures import Signatures
from penstock_server.rest.steps import Example
from penstock_server.transport.headers import as_received
from penstock_server.transport.local import CallMaker, Outcome

log = structlog.get_logger(__name__)

LARGE_BYTES: Final = 128 * 1024
"""A body, or a reply, from this size on is read, or written, on a thread, as gRPC's large messages are."""
_PREFIX: Final = f"/{INFERENCE_SERVICE}/"
_INFER: Final = _PREFIX + "ModelInfer"
_FEEDBACK: Final = f"/{CONTROL_SERVICE}/{FEEDBACK_METHOD}"
_HEADER_LENGTH: Final = b"inference-header-content-length"
_BINARY_LENGTH: Final = b"inference-header-content-length: %d\r\n"

_OPTIONS: Final = frozenset({"version", PARAMETER_ROUTING_KEY, PARAMETER_EXPLAIN, PARAMETER_EXTRA_COLUMNS})
_PASSED_ON: Final = (b"authorization", b"traceparent", b"tracestate")
"""The headers that become metadata of the call."""

Query = Mapping[str, str]


class _IndexBody(msgspec.Struct):
    ready: bool = False


class _LoadBody(msgspec.Struct):
    parameters: dict[str, Any] | None = None


_index_body: Final = msgspec.json.Decoder(_IndexBody)
_load_body: Final = msgspec.json.Decoder(_LoadBody)
_settings_body: Final = msgspec.json.Decoder(dict[str, Any])


class _Reading:
    """What a thread reads, or writes, for a caller, who may leave meanwhile."""

    def __init__(self) -> None:
        self.is_left = False

    def cancelled(self) -> None:
        self.is_left = True


class Routes:
    """Answers each exchange.

    Args:
        caller: calls the methods.
        signatures: what the models take.
        post: has the reactor run an action.
        most_bytes: of a body that is unpacked.
        run: runs what takes long, elsewhere; None for a thread of its own.
        forms: learns which requests are alike; None for no kernels.
    """

    def __init__(
        self,
        caller: CallMaker,
        signatures: Signatures,
        *,
        post: Callable[[Callable[[], None]], None],
        most_bytes: int,
        run: Callable[[Callable[[], None]], object] | None = None,
        forms: Forms | None = None,
    ) -> None:
        self._caller = caller
        self._signatures = signatures
        self._post = post
        self._most_bytes = most_bytes
        self._forms = forms
        self._messages = Messages()
        self._replies = Replies(None if forms is None else forms.learn_text)
        self._server_version = installed_version("penstock")
        self._run = ThreadPoolExecutor(1, thread_name_prefix="rest").submit if run is None else run
        self._handlers: dict[str, Callable[..., None]] = {
            name: getattr(self, f"_{name}") for _, _, name in paths.TABLE if "shared_memory" not in name
        }
        for kind in ("System", "Cuda"):
            for verb in ("Status", "Register", "Unregister"):
                handler = partial(self._shared_memory, f"{kind}SharedMemory{verb}")
                self._handlers[f"{kind}_shared_memory_{verb}".lower()] = handler

    def answer(self, exchange: Exchange) -> None:
        """Answers now or later; raises what is wrong with the request."""
        request = exchange.request
        name, captured, query = paths.find(request.method, request.target)
        self._handlers[name](exchange, query, **captured)

    def adopt(self, exchange: Exchange, slot: int, render: Render) -> None:
        """Answers with what becomes of the call that kernels have begun in a slot."""
        assert self._forms is not None
        outcome = RestOutcome(exchange, render, self._render_large)
        exchange.pending = self._forms.claim(slot, outcome)

    # The Open Inference Protocol, with Triton's extensions.

    def _infer(self, exchange: Exchange, _query: Query, model: str, version: str = "") -> None:
        request = exchange.request
        body = self._body(request)
        json_bytes = json_length(request.headers.get(_HEADER_LENGTH), len(body))
        read = partial(self._messages.infer, model, version, body, json_bytes)
        if (len(body) if json_bytes is None else json_bytes) <= LARGE_BYTES:
            message, form = read()
            render = partial(self._inferred, form)
            self._call(exchange, _INFER, message, render)
            if exchange.raw and self._forms is not None and form is PLAIN:
                self._forms.learn(_example(exchange, message), TENSORS, render)
        else:
            self._read(
                exchange, read, lambda made: self._call(exchange, _INFER, made[0], partial(self._inferred, made[1]))
            )

    def _inferred(self, form: ReplyForm, message: bytes) -> Answer:
        body, json_bytes = self._replies.body(message, form)
        if json_bytes is None:
            return Answer(body)
        return Answer(body, 200, BINARY, _BINARY_LENGTH % json_bytes)

    def _server_metadata(self, exchange: Exchange, _query: Query) -> None:
        self._ask(exchange, "ServerMetadata", pb.ServerMetadataRequest(), _message_answer(pb.ServerMetadataResponse))

    def _server_live(self, exchange: Exchange, _query: Query) -> None:
        self._ask(exchange, "ServerLive", pb.ServerLiveRequest(), _flag_answer(pb.ServerLiveResponse, "live"))

    def _server_ready(self, exchange: Exchange, _query: Query) -> None:
        self._ask(exchange, "ServerReady", pb.ServerReadyRequest(), _flag_answer(pb.ServerReadyResponse, "ready"))

    def _models(self, exchange: Exchange, _query: Query) -> None:
        self._ask(exchange, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True), _model_names)

    def _model_metadata(self, exchange: Exchange, _query: Query, model: str, version: str = "") -> None:
        self._ask(exchange, "ModelMetadata", pb.ModelMetadataRequest(name=model, version=version), _metadata)

    def _model_ready(self, exchange: Exchange, _query: Query, model: str, version: str = "") -> None:
        asked = pb.ModelReadyRequest(name=model, version=version)
        self._ask(exchange, "ModelReady", asked, partial(_model_ready, model))

    def _model_config(self, exchange: Exchange, _query: Query, model: str, version: str = "") -> None:
        self._ask(exchange, "ModelConfig", pb.ModelConfigRequest(name=model, version=version), _config)

    def _statistics(self, exchange: Exchange, _query: Query, model: str = "", version: str = "") -> None:
        asked = pb.ModelStatisticsRequest(name=model, version=version)
        self._ask(exchange, STATISTICS_METHOD, asked, _message_answer(pb.ModelStatisticsResponse))

    def _repository_index(self, exchange: Exchange, _query: Query) -> None:
        body = self._json(exchange.request, _index_body, _IndexBody())
        self._ask(exchange, "RepositoryIndex", pb.RepositoryIndexRequest(ready=body.ready), _index)

    def _load(self, exchange: Exchange, _query: Query, model: str) -> None:
        asked = pb.RepositoryModelLoadRequest(model_name=model)
        body = self._json(exchange.request, _load_body, _LoadBody())
        for key, value in (body.parameters or {}).items():
            # Any is refused; the method says so.
            asked.parameters[key].string_param = str(value)[:100]
        self._ask(exchange, LOAD_METHOD, asked, _empty)

    def _unload(self, exchange: Exchange, _query: Query, model: str) -> None:
        self._ask(exchange, "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model), _empty)

    def _trace_setting(self, exchange: Exchange, _query: Query, model: str = "") -> None:
        asked = pb.TraceSettingRequest(model_name=model)
        for key, value in self._settings(exchange.request).items():
            asked.settings[key].value.extend(map(str, value if isinstance(value, list) else [value]))
        self._ask(exchange, "TraceSetting", asked, _settings_answer(pb.TraceSettingResponse, is_trace=True))

    def _log_settings(self, exchange: Exchange, _query: Query) -> None:
        asked = pb.LogSettingsRequest()
        for key, value in self._settings(exchange.request).items():
            asked.settings[key].string_param = str(value)
        self._ask(exchange, "LogSettings", asked, _settings_answer(pb.LogSettingsResponse, is_trace=False))

    def _shared_memory(self, method: str, exchange: Exchange, _query: Query, region: str = "") -> None:  # noqa: ARG002
        self._ask(exchange, method, pb.SharedMemoryRequest(), _empty)

    def _generate(self, _exchange: Exchange, _query: Query, model: str) -> None:
        raise UnsupportedError(f"texts are not generated here; POST /v2/models/{model}/infer predicts")

    # Rows as people write them, and in the bodies of other servers.

    def _predict(self, exchange: Exchange, query: Query, model: str) -> None:
        self._predict_rows(exchange, model, _options(query), predict_rows, self._predicted, way=ROW)

    def _predict_only(self, exchange: Exchange, query: Query) -> None:
        self._predict(exchange, query, self._only_model("/predict/MODEL"))

    def _invoke(self, exchange: Exchange, query: Query, model: str) -> None:
        content_type = exchange.request.headers.get(b"content-type", b"").decode("latin-1")

        def read(body: bytes, signature: RowSignature) -> GivenRows:
            return invocation_rows(body, content_type, signature)

        # MLflow passes over columns that its signature does not have.
        self._predict_rows(exchange, model, replace(_options(query), ignores_extra=True), read, _predictions_answer)

    def _invoke_only(self, exchange: Exchange, query: Query) -> None:
        self._invoke(exchange, query, self._only_model("/invocations/MODEL"))

    def _predict_instances(self, exchange: Exchange, query: Query, model: str, version: str = "") -> None:
        options = _options(query)
        options = replace(options, version=version or options.version)
        self._predict_rows(exchange, model, options, instance_rows, _predictions_answer)

    def _predict_rows(
        self,
        exchange: Exchange,
        model: str,
        options: Options,
        read: Callable[[bytes, RowSignature], GivenRows],
        render: Callable[[GivenRows, bytes], Answer],
        *,
        way: BodyKind | None = None,
        is_again: bool = False,
    ) -> None:
        """Answers a request for the predictions of rows; kernels may learn of its way, if it has one row."""
        signature = self._signatures.of(model, options.version)
        if signature is None:
            again = partial(self._predict_rows, exchange, model, options, read, render, way=way, is_again=True)
            self._ask_first(exchange, model, options.version, None if is_again else again)
            return
        body = self._body(exchange.request)

        def made() -> tuple[bytes, GivenRows]:
            rows = read(body, signature)
            return message_of(signature, rows, options), rows

        def begin(message: bytes, rows: GivenRows) -> None:
            self._call(exchange, _INFER, message, partial(render, rows))

        def refuse(error: PenstockError | BadRequestError) -> None:
            # What is wrong with the rows tells what the model takes: only to those who may ask it.
            asked = pb.ModelInferRequest(model_name=model, model_version=options.version)
            self._begin(exchange, _INFER, asked.SerializeToString(), LateRefusal(exchange, error))

        if len(body) <= LARGE_BYTES:
            try:
                message, rows = made()
            except (PenstockError, BadRequestError) as error:
                refuse(error)
            else:
                begin(message, rows)
                if way is not None and rows.is_single and exchange.raw and self._forms is not None:
                    one = GivenRows(1, {}, is_single=True)
                    self._forms.learn(_example(exchange, message), way, partial(render, one))
        else:
            self._read(exchange, made, lambda result: begin(*result), refuse)

    def _ask_first(self, exchange: Exchange, model: str, version: str, again: Callable[[], None] | None) -> None:
        """Does `again` what needs a model's metadata, once they can be had; else answers why there are none."""

        def refuse() -> None:
            # The method says why, once it knows that the caller may ask.
            asked = pb.ModelInferRequest(model_name=model, model_version=version)
            self._call(exchange, _INFER, asked.SerializeToString(), _empty)

        if again is None:
            refuse()
            return
        # It may have to be loaded first, which the method waits for.
        asked = pb.ModelMetadataRequest(name=model, version=version).SerializeToString()
        self._begin(exchange, _PREFIX + "ModelMetadata", asked, Continuation(exchange, lambda _: again(), refuse))

    def _predicted(self, rows: GivenRows, message: bytes) -> Answer:
        answer = as_json(predict_answer(message, rows))
        if rows.is_single and self._forms is not None:
            self._forms.learn_row_text(message, answer.body)
        return answer

    def _only_model(self, path: str) -> str:
        """The one model that is served, for callers that name none."""
        models = self._signatures.models()
        if len(models) != 1:
            raise NotFoundError(f"name the model, as in {path}; only where a single one is served it need not be named")
        return models[0]

    def _feedback(self, exchange: Exchange, _query: Query) -> None:
        body = self._body(exchange.request)
        made = partial(feedback_message, body, exchange.request.headers.get(b"content-type", b""))

        def begin(message: bytes) -> None:
            self._call(exchange, _FEEDBACK, message, _taken)

        def refuse(error: PenstockError | BadRequestError) -> None:
            # What is wrong is told to those who may give labels.
            self._begin(exchange, _FEEDBACK, b"", LateRefusal(exchange, error))

        if len(body) <= LARGE_BYTES:
            try:
                message = made()
            except (PenstockError, BadRequestError) as error:
                refuse(error)
            else:
                begin(message)
        else:
            self._read(exchange, made, begin, refuse)

    # Pages, and what probes ask.

    def _alive(self, exchange: Exchange, _query: Query) -> None:
        exchange.answer(Answer(b"ok\n", 200, TEXT))

    def _version(self, exchange: Exchange, _query: Query) -> None:
        exchange.answer(Answer(f"{self._server_version}\n".encode(), 200, TEXT))

    def _index(self, exchange: Exchange, _query: Query) -> None:
        self._page(exchange, _index_page)

    def _openapi(self, exchange: Exchange, _query: Query) -> None:
        self._page(exchange, _openapi_page)

    def _docs(self, exchange: Exchange, _query: Query) -> None:
        self._read(exchange, lambda: Answer(openapi.docs_page(), 200, HTML), exchange.answer)

    def _docs_file(self, exchange: Exchange, _query: Query, file: str) -> None:
        self._read(exchange, lambda: _asset(file), exchange.answer)

    def _page(self, exchange: Exchange, make: Callable[[Sequence[pb.ModelMetadataResponse], str], Answer]) -> None:
        """Answers with what is made of the models' metadata, for callers that may ask which there are."""

        def then(message: bytes) -> None:
            index = parse(pb.RepositoryIndexResponse, message, OPEN_INFERENCE)
            found = [self._signatures.metadata(name) for name in sorted({model.name for model in index.models})]
            models = [metadata for metadata in found if metadata is not None]
            # On the thread, since the first one loads the templates' library.
            self._read(exchange, lambda: make(models, self._server_version), exchange.answer)

        asked = pb.RepositoryIndexRequest(ready=True).SerializeToString()
        self._begin(exchange, _PREFIX + "RepositoryIndex", asked, Continuation(exchange, then))

    def _settings(self, request: Request) -> dict[str, Any]:
        settings: dict[str, Any] = self._json(request, _settings_body, {})
        return settings

    def _json(self, request: Request, decoder: msgspec.json.Decoder[Any], default: Any) -> Any:
        """What a small body of JSON says; the default if there is none."""
        body = self._body(request)
        if len(body) > LARGE_BYTES:
            raise InvalidInputError(f"the body takes {len(body):,} bytes, expected at most {LARGE_BYTES:,} here")
        return decoded(body, decoder.decode) if body.strip() else default

    def _body(self, request: Request) -> bytes:
        encoding = request.headers.get(b"content-encoding")
        if encoding is None:
            return request.body
        return http.unpacked(request.body, encoding.decode("latin-1"), self._most_bytes)

    def _ask(self, exchange: Exchange, method: str, message: Any, render: Render) -> None:
        self._call(exchange, _PREFIX + method, message.SerializeToString(), render)

    def _call(self, exchange: Exchange, path: str, message: bytes, render: Render) -> None:
        """Has a method answer."""
        self._begin(exchange, path, message, RestOutcome(exchange, render, self._render_large))

    def _begin(self, exchange: Exchange, path: str, message: bytes, outcome: Outcome) -> None:
        pending = self._caller.begin(path, message, _metadata_of(exchange.request), outcome, exchange.peer)
        if pending is not None:
            exchange.pending = pending

    def _render_large(self, exchange: Exchange, render: Render, message: bytes) -> bool:
        """Has the thread make an answer of a large reply; false if it is small."""
        if len(message) <= LARGE_BYTES:
            return False
        self._read(exchange, partial(render, message), exchange.answer)
        return True

    def _read(
        self,
        exchange: Exchange,
        read: Callable[[], Any],
        then: Callable[[Any], None],
        refuse: Callable[[PenstockError | BadRequestError], None] | None = None,
    ) -> None:
        """Has the thread run `read`, and the reactor go on with what it gives, or with what it raises."""
        reading = _Reading()
        exchange.pending = reading

        def work() -> None:
            try:
                made: Any = read()
            except (PenstockError, BadRequestError) as error:
                error.__traceback__ = None  # its frames would hold what was read
                then_do = partial(exchange.answer, error_answer(error)) if refuse is None else partial(refuse, error)
            except Exception:
                log.exception("an HTTP request failed")
                then_do = partial(exchange.answer, error_answer(PenstockError()))
            else:
                then_do = partial(then, made)
            self._post(partial(_unless_left, reading, then_do))

        self._run(work)


def _options(query: Mapping[str, str]) -> Options:
    """How rows are to be predicted.

    Raises:
        InvalidInputError: an option is not known, or not one of its values.
    """
    unknown = sorted(query.keys() - _OPTIONS)
    if unknown:
        raise InvalidInputError(
            f"unknown option {unknown[0][:100]!r} in the query, expected {', '.join(sorted(_OPTIONS))}"
        )
    extra = query.get(PARAMETER_EXTRA_COLUMNS, "refuse")
    if extra not in {"refuse", "ignore"}:
        raise InvalidInputError(f"{PARAMETER_EXTRA_COLUMNS} is {extra[:100]!r}, expected refuse or ignore")
    explain = query.get(PARAMETER_EXPLAIN, "false").lower()
    if explain not in {"", "true", "false", "0", "1"}:
        raise InvalidInputError(f"{PARAMETER_EXPLAIN} is {explain[:100]!r}, expected true or false")
    return Options(
        version=query.get("version", ""),
        routing_key=query.get(PARAMETER_ROUTING_KEY, ""),
        explain=explain in {"", "true", "1"},
        ignores_extra=extra == "ignore",
    )


def _index_page(models: Sequence[pb.ModelMetadataResponse], version: str) -> Answer:
    return Answer(openapi.index_page(models, version), 200, HTML)


def _openapi_page(models: Sequence[pb.ModelMetadataResponse], version: str) -> Answer:
    return as_json(openapi.document(models, version))


def _asset(name: str) -> Answer:
    content, kind = openapi.asset(name)
    return Answer(content, 200, kind, b"cache-control: max-age=86400\r\n")


def _predictions_answer(rows: GivenRows, message: bytes) -> Answer:
    return as_json({"predictions": predictions(message, rows)})


def _metadata_of(request: Request) -> Metadata:
    """What of a request's headers the methods may ask for."""
    headers = request.headers
    return [(name.decode(), headers[name].decode("latin-1")) for name in _PASSED_ON if name in headers]


def _example(exchange: Exchange, message: bytes) -> Example:
    """What kernels may learn of."""
    request = exchange.request
    return Example(exchange.raw, request, message, as_received(_metadata_of(request)))


def _unless_left(reading: _Reading, action: Callable[[], None]) -> None:
    if not reading.is_left:
        action()


def _message_answer(kind: type[Any]) -> Render:
    return lambda message: as_json(json_of_message(parse(kind, message, OPEN_INFERENCE)))


def _flag_answer(kind: type[Any], name: str) -> Render:
    def render(message: bytes) -> Answer:
        is_so = bool(getattr(parse(kind, message, OPEN_INFERENCE), name))
        return as_json({name: is_so}, 200 if is_so else 503)

    return render


def _model_ready(name: str, message: bytes) -> Answer:
    is_ready = parse(pb.ModelReadyResponse, message, OPEN_INFERENCE).ready
    return as_json({"name": name, "ready": is_ready}, 200 if is_ready else 503)


def _model_names(message: bytes) -> Answer:
    index = parse(pb.RepositoryIndexResponse, message, OPEN_INFERENCE)
    return as_json({"models": sorted({model.name for model in index.models})})


def _taken(message: bytes) -> Answer:
    return as_json({"taken": penstock_pb2.FeedbackResponse.FromString(message).taken})


def _index(message: bytes) -> Answer:
    index = parse(pb.RepositoryIndexResponse, message, OPEN_INFERENCE)
    return as_json([json_of_message(model) for model in index.models])


def _metadata(message: bytes) -> Answer:
    reply = parse(pb.ModelMetadataResponse, message, OPEN_INFERENCE)

    def tensors(described: Any) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
            | ({"parameters": plain_parameters(each.parameters)} if each.parameters else {})
            for each in described
        ]

    return as_json(
        {
            "name": reply.name,
            "versions": list(reply.versions),
            "platform": reply.platform,
            "inputs": tensors(reply.inputs),
            "outputs": tensors(reply.outputs),
        }
    )


def _config(message: bytes) -> Answer:
    return as_json(json_of_message(parse(pb.ModelConfigResponse, message, OPEN_INFERENCE).config))


def _settings_answer(kind: type[Any], *, is_trace: bool) -> Render:
    """Settings by their names; of a list that holds one text, the text, where that is how Triton writes it."""

    def render(message: bytes) -> Answer:
        settings = {name: setting_of(each) for name, each in parse(kind, message, OPEN_INFERENCE).settings.items()}
        if is_trace:
            settings = {
                name: value[0] if len(value) == 1 and name != "trace_level" else value
                for name, value in settings.items()
            }
        return as_json(settings)

    return render


def _empty(_message: bytes) -> Answer:
    return Answer(b"", 200)
