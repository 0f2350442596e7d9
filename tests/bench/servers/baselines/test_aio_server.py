import grpc
import pytest

from bench import inference, models
from bench.load import generator
from bench.load.plan import LoadPlan
from bench.servers.measured import BASELINE, SERVERS, running


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    files = models.write(folder, {"mlp"})
    with running(SERVERS[BASELINE].command(folder, files)) as server:
        yield server.grpc


def test_the_generator_and_grpc_aio_understand_each_other(baseline) -> None:
    plan = LoadPlan(
        baseline,
        inference.METHOD,
        inference.messages("mlp", rows=1),
        connections=3,
        streams=4,
        max_requests=90,
        duration_s=30,
    )
    result = generator.run(plan)
    assert (result.attempted, result.succeeded, result.failures) == (90, 90, {})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"raw_input_contents": []}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"raw_input_contents": [b"abc"]}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_the_baseline_refuses_what_it_cannot_run(baseline, change, code) -> None:
    request = inference.request("mlp", models.sample("mlp", rows=1))
    for field, value in change.items():
        request.ClearField(field)
        request.MergeFrom(type(request)(**{field: value}))
    with inference.channel(baseline) as channel, pytest.raises(grpc.RpcError) as caught:
        inference.infer(channel)(request.SerializeToString(), timeout=10)
    assert caught.value.code() is code
