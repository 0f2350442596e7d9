"""The paths of the REST port: a table of verbs, patterns and what answers them.

Source: Open Inference Protocol v2, REST, with Triton's extensions; KServe's V1 protocol; MLflow's scoring server.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from penstock_server.errors import NotFoundError, first_line
from penstock_server.rest.http import BadRequestError

TARGET_BYTES: Final = 4096
_GET: Final = "GET"
_POST: Final = "POST"
_BOTH: Final = "GET POST"

TABLE: Final[tuple[tuple[str, str, str], ...]] = (
    (_GET, "/", "index"),
    (_GET, "/docs", "docs"),
    (_GET, "/docs/{file}", "docs_file"),
    (_GET, "/openapi.json", "openapi"),
    (_GET, "/healthz", "alive"),
    (_GET, "/livez", "alive"),
    (_GET, "/readyz", "server_ready"),
    # MLflow's scoring server, and SageMaker's.
    (_GET, "/ping", "alive"),
    (_GET, "/health", "alive"),
    (_GET, "/version", "version"),
    (_POST, "/invocations", "invoke_only"),
    (_POST, "/invocations/{model}", "invoke"),
    (_POST, "/predict", "predict_only"),
    (_POST, "/predict/{model}", "predict"),
    (_POST, "/v1/feedback", "feedback"),
    # KServe's V1 protocol; the verb stands behind the last part.
    (_GET, "/v1/models", "models"),
    (_GET, "/v1/models/{model}", "model_ready"),
    (_GET, "/v1/models/{model}/versions/{version}", "model_ready"),
    (_POST, "/v1/models/{model}:predict", "predict_instances"),
    (_POST, "/v1/models/{model}/versions/{version}:predict", "predict_instances"),
    (_GET, "/v2", "server_metadata"),
    (_GET, "/v2/", "server_metadata"),
    (_GET, "/v2/health/live", "server_live"),
    (_GET, "/v2/health/ready", "server_ready"),
    (_GET, "/v2/models", "models"),
    (_GET, "/v2/models/stats", "statistics"),
    (_GET, "/v2/models/{model}", "model_metadata"),
    (_GET, "/v2/models/{model}/versions/{version}", "model_metadata"),
    (_GET, "/v2/models/{model}/ready", "model_ready"),
    (_GET, "/v2/models/{model}/versions/{version}/ready", "model_ready"),
    (_GET, "/v2/models/{model}/config", "model_config"),
    (_GET, "/v2/models/{model}/versions/{version}/config", "model_config"),
    (_GET, "/v2/models/{model}/stats", "statistics"),
    (_GET, "/v2/models/{model}/versions/{version}/stats", "statistics"),
    (_POST, "/v2/models/{model}/infer", "infer"),
    (_POST, "/v2/models/{model}/versions/{version}/infer", "infer"),
    (_POST, "/v2/models/{model}/generate", "generate"),
    (_POST, "/v2/models/{model}/generate_stream", "generate"),
    (_BOTH, "/v2/models/{model}/trace/setting", "trace_setting"),
    (_BOTH, "/v2/trace/setting", "trace_setting"),
    (_BOTH, "/v2/logging", "log_settings"),
    (_BOTH, "/v2/repository/index", "repository_index"),
    (_POST, "/v2/repository/models/{model}/load", "load"),
    (_POST, "/v2/repository/models/{model}/unload", "unload"),
    *(
        (_BOTH, f"/v2/{kind}sharedmemory{region}/{verb}", f"{kind}_shared_memory_{verb}")
        for kind in ("system", "cuda")
        for region in ("", "/region/{region}")
        for verb in ("status", "register", "unregister")
    ),
)


class PathMatch(NamedTuple):
    """What a request asks for.

    Attributes:
        name: of what answers, as `TABLE` has it.
        captured: the parts of the path in braces, by their names.
        query: the last value of each name.
    """

    name: str
    captured: Mapping[str, str]
    query: Mapping[str, str]


def find(method: bytes, target: bytes) -> PathMatch:
    """What answers a request.

    Raises:
        NotFoundError: nothing does.
        BadRequestError: the target cannot be read, or is asked with another verb.
    """
    verbs, captured, query, path = _resolved(target)
    name = verbs.get(method)
    if name is not None:
        return PathMatch(name, captured, query)
    if not verbs:
        raise NotFoundError(f"there is no {path[:200]!r} here; GET / says what there is")
    verb = method.decode("latin-1")[:20]
    why = f"{path[:200]!r} does not answer {verb}, expected {allowed(verbs)}"
    raise BadRequestError(405, why, more=f"allow: {allowed(verbs)}\r\n".encode())


def allowed(verbs: Mapping[bytes, str]) -> str:
    """The verbs for people, and for the field `Allow`."""
    return ", ".join(sorted(verb.decode() for verb in verbs))


class _Pattern(NamedTuple):
    parts: Sequence[str]
    verbs: dict[bytes, str]


def _patterns() -> list[_Pattern]:
    found: dict[str, _Pattern] = {}
    for verbs, path, name in TABLE:
        pattern = found.setdefault(path, _Pattern(path.split("/")[1:], {}))
        for verb in verbs.split():
            pattern.verbs[verb.encode()] = name
            if verb == _GET:
                pattern.verbs[b"HEAD"] = name
    # Those with something behind a brace first: `{model}` would take it as a part of the name.
    return sorted(found.values(), key=lambda pattern: not any("}:" in part for part in pattern.parts))


_PATTERNS: Final = _patterns()


@lru_cache(1024)
def _resolved(target: bytes) -> tuple[Mapping[bytes, str], Mapping[str, str], Mapping[str, str], str]:
    """The verbs of a target's path, what it captures, its query, and the path for people."""
    if len(target) > TARGET_BYTES:
        raise BadRequestError(414, f"the path and query take more than {TARGET_BYTES:,} bytes")
    text = target.decode("latin-1")
    if text.startswith(("http://", "https://")):  # the absolute form, which proxies get
        _, _, rest = text.partition("://")
        text = "/" + rest.partition("/")[2]
    path, _, asked = text.partition("?")
    try:
        parts = [unquote(part, errors="strict") for part in path.split("/")[1:]]
        query = dict(parse_qsl(asked, keep_blank_values=True, errors="strict", max_num_fields=50))
    except ValueError as error:
        raise BadRequestError(400, f"the path or query is not UTF-8 in percent form: {first_line(error)}") from None
    for pattern in _PATTERNS:
        captured = _captured(pattern.parts, parts)
        if captured is not None:
            return pattern.verbs, captured, query, path
    return {}, {}, query, path


def _captured(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    """What a pattern's braces hold in a path; None if the path is another one."""
    if len(pattern) != len(parts):
        return None
    captured: dict[str, str] = {}
    for expected, part in zip(pattern, parts, strict=True):
        if not expected.startswith("{"):
            if expected != part:
                return None
            continue
        name, _, ending = expected[1:].partition("}")
        held = part.removesuffix(ending)
        if not held or (ending and held == part):
            return None
        captured[name] = held
    return captured
