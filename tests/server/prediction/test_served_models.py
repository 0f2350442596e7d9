from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.names import VersionKey
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.served_models import ServedModels
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan, VersionStatus
from tests.examples import examples

MODELS = st.sampled_from("abcd")
ROUTES = st.builds(
    ModelRoutes,
    st.none() | st.builds(TrafficPlan, st.sampled_from("12")),
    st.dictionaries(st.sampled_from("12"), st.sampled_from([VersionStatus("READY"), VersionStatus("LOADING")])),
    st.sampled_from(["", "it has no files"]),
    st.booleans(),
)
STEPS = st.one_of(
    st.tuples(st.just("serve"), st.dictionaries(MODELS, ROUTES, max_size=3), st.sets(MODELS, max_size=2)),
    st.tuples(st.sampled_from(["load", "unload"]), MODELS, st.sampled_from("12")),
    st.just(("refresh",)),
)


def from_scratch(routes: dict[str, ModelRoutes], executors: dict[VersionKey, Any]) -> dict[str, ServedModel]:
    return {
        name: ServedModel(
            name,
            one.plan,
            {version: executor for (model, version), executor in executors.items() if model == name},
            one.statuses,
            one.problem,
            is_lazy=True,
            is_on_call=one.is_on_call,
        )
        for name, one in routes.items()
    }


@examples(300)
@given(steps=st.lists(STEPS, max_size=20))
def test_what_is_served_is_what_would_be_made_from_scratch(steps: list[Any]) -> None:
    executors: dict[VersionKey, Any] = {}
    served, routes, before = ServedModels(executors, is_lazy=True), dict[str, ModelRoutes](), dict[str, ServedModel]()
    for step in [*steps, ("refresh",)]:
        match step:
            case "serve", changed, removed:
                routes = {name: one for name, one in {**routes, **changed}.items() if name not in removed}
                served.route(routes, (*changed, *removed))
            case "load", model, version:
                executors[model, version] = object()
                served.change(model)
            case "unload", model, version:
                executors.pop((model, version), None)
                served.change(model)
            case _:
                made = served.refresh()
                assert served.models == from_scratch(routes, executors)
                assert {one.name: one for one in made}.items() <= served.models.items()
                # What has not changed is the same object, as tables that follow each other share it.
                shared = {name for name, model in served.models.items() if model is before.get(name)}
                assert shared == served.models.keys() - {one.name for one in made}
                table, former = RoutingTable(served.models), RoutingTable(before)
                assert table.replaced(former) == {
                    name for name in "abcd" if served.models.get(name) != before.get(name)
                }
                before = served.models
