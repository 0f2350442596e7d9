from bench import inference
from bench.load.plan import LoadPlan
from bench.protocols import JSON
from bench.rounds import open_plan

PLAN = LoadPlan("127.0.0.1:1", inference.METHOD, (b"x",), connections=4, streams=8)


def test_open_arrivals_have_streams_to_spare_but_one_per_connection_over_http() -> None:
    assert open_plan(PLAN, 100.0).streams > PLAN.streams
    assert open_plan(JSON.adapt(PLAN), 100.0).streams == 1
    assert open_plan(PLAN, 0.0).rate_per_s == 1.0
