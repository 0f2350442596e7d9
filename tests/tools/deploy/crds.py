"""The parts of foreign resources that are used, as JSON Schemas: their own come with the operators, and not with Kubernetes.

Sources: prometheus-operator v0.80 `ServiceMonitor`, KEDA 2.17 `ScaledObject`, KServe 0.16 `ClusterServingRuntime` and
`InferenceService`. Nothing that is not named here is allowed, so that a misspelt field is found.
"""

from typing import Any, Final


def _of(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_ANY: Final[dict[str, Any]] = {"type": "object"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_METADATA: Final = _of("name", name=_TEXT, labels=_TEXTS, annotations=_TEXTS)
_DURATION: Final = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
_FORMAT: Final = _of(
    "name", name=_TEXT, version=_TEXT, autoSelect={"type": "boolean"}, priority={"type": "integer", "minimum": 1}
)


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": of}


def _resource(version: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _of(
        "apiVersion kind metadata spec", apiVersion={"const": version}, kind=_TEXT, metadata=_METADATA, spec=spec
    )


SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "ServiceMonitor": _resource(
        "monitoring.coreos.com/v1",
        _of(
            "selector endpoints",
            selector=_of("matchLabels", matchLabels=_TEXTS),
            endpoints=_list(_of("port", port=_TEXT, path=_TEXT, interval=_DURATION)),
        ),
    ),
    "ScaledObject": _resource(
        "keda.sh/v1alpha1",
        _of(
            "scaleTargetRef triggers",
            scaleTargetRef=_of("name", name=_TEXT),
            minReplicaCount=_COUNT,
            maxReplicaCount=_COUNT,
            pollingInterval=_COUNT,
            advanced=_of("horizontalPodAutoscalerConfig", horizontalPodAutoscalerConfig=_of("behavior", behavior=_ANY)),
            triggers=_list(
                _of(
                    "type metadata",
                    type={"const": "prometheus"},
                    metricType={"enum": ["AverageValue", "Value"]},
                    metadata=_of("serverAddress query threshold", serverAddress=_TEXT, query=_TEXT, threshold=_TEXT),
                )
            ),
        ),
    ),
    "ClusterServingRuntime": _resource(
        "serving.kserve.io/v1alpha1",
        _of(
            "supportedModelFormats containers",
            annotations=_TEXTS,
            supportedModelFormats=_list(_FORMAT),
            protocolVersions=_list({"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}),
            containers={
                "type": "array",
                "minItems": 1,
                "contains": {"properties": {"name": {"const": "kserve-container"}}},
            },
            volumes={"type": "array"},
        ),
    ),
    "InferenceService": _resource(
        "serving.kserve.io/v1beta1",
        _of(
            "predictor",
            predictor=_of(
                "model",
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                terminationGracePeriodSeconds=_COUNT,
                model=_of("modelFormat storageUri", modelFormat=_FORMAT, runtime=_TEXT, storageUri=_TEXT),
                autoScaling=_of(
                    "metrics",
                    metrics=_list(
                        _of(
                            "type external",
                            type={"const": "External"},
                            external=_of(
                                "metric target",
                                metric=_of(
                                    "backend serverAddress query",
                                    backend={"const": "prometheus"},
                                    serverAddress=_TEXT,
                                    query=_TEXT,
                                ),
                                target=_of("type value", type={"enum": ["AverageValue", "Value"]}, value=_TEXT),
                            ),
                        )
                    ),
                ),
            ),
        ),
    ),
}
