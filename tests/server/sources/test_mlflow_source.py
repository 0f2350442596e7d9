from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.models import artifact
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from penstock_server.rollout.registered import REFUSED_TAG, DeleteAlias, DeleteTag, Expected, SetAlias, SetTag
from penstock_server.sources import mlflow_source
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.settings import FetchSettings, OwnPolicy, PolicySettings
from penstock_server.sources.source import Desired
from penstock_server.sources.sqlite_registry import SqliteRegistry
from tests.server.sources.fake_registry import API, FakeRegistry, refusal

NO_ALIAS = "registered, not served: no version has the alias 'champion'; run `penstock promote"


def said(found: Desired) -> tuple[Any, Any]:
    return dict(found.models), dict(found.problems)


SPEC = FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b")))
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def source(publisher: Any, tmp_path: Path) -> MlflowSource:
    return MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")


class TestPoll:
    def test_every_model_with_a_champion_is_desired(self, publisher: Any, source: MlflowSource) -> None:
        assert source.poll() == Desired()
        publisher.publish("a", "champion")
        publisher.publish("b", "champion")
        publisher.publish("b", "shadow")
        publisher.client.create_registered_model("d")
        found = source.poll()
        assert said(found) == ({"a": TrafficPlan("1"), "b": TrafficPlan("1", shadows=(ShadowArm("2"),))}, {})
        assert {name: set(found.identities[name]) for name in found.identities} == {"a": {"1"}, "b": {"1", "2"}}

    def test_what_is_registered_and_not_served_is_told_with_what_to_do(
        self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a")
        publisher.publish("a")
        publisher.publish("b", "Champion", "production")
        publisher.publish("c", "canary")
        found = source.poll()
        assert said(found) == (
            dict.fromkeys("abc", TrafficPlan()),
            {
                "a": f"{NO_ALIAS} a 2`",
                "b": "registered, not served: no version has the alias 'champion', only 'Champion' and 'production'; "
                "run `penstock promote b 1`"
                if "production" in found.problems["b"]
                else "registered, not served: no version has the alias 'champion', only 'Champion'; "
                "run `penstock promote b 1`",
                "c": "registered, not served: no version has the alias 'champion', only 'canary'; "
                "run `penstock promote c 1`",
            },
        )
        monkeypatch.setattr(mlflow_source, "MAX_TOLD", 1)
        assert source.poll().models.keys() == {"a", "c"}

    def test_an_alias_that_moves_or_goes_is_followed(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.publish("a", "champion")
        assert source.poll().models == {"a": TrafficPlan("2")}
        publisher.client.delete_registered_model_alias("a", "champion")
        assert said(source.poll()) == ({"a": TrafficPlan()}, {"a": f"{NO_ALIAS} a 2`"})

    def test_a_canary_has_the_weight_of_its_tag(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        version = publisher.publish("a", "canary")
        unweighted = source.poll()
        assert unweighted.models == {"a": TrafficPlan("1", (Arm("2", 0.0),))}
        assert "canary 2 has no tag 'penstock.weight' and gets no traffic" in unweighted.problems["a"]
        publisher.client.set_model_version_tag("a", version, "penstock.weight", "12.5")
        assert said(source.poll()) == ({"a": TrafficPlan("1", (Arm("2", 0.125),))}, {})

    def test_a_policy_keeps_versions_without_a_role(self, publisher: Any, tmp_path: Path) -> None:
        for number in range(1, 6):
            publisher.publish("a", *(["champion"] if number == 2 else []))
        policy = PolicySettings(latest=2, versions=(1, 2, 9), models={"b": OwnPolicy(latest=0, versions=())})
        publisher.publish("b", "champion")
        publisher.publish("b")
        found = MlflowSource(publisher.uri, cache_dir=tmp_path, policy=policy).poll()
        assert found.models == {"a": TrafficPlan("2", others=("5", "4", "1")), "b": TrafficPlan("1")}
        assert "version 9 is left out: " in found.problems["a"]
        assert found.identities["a"].keys() == {"1", "2", "4", "5"}

    def test_the_latest_versions_are_asked_for_when_some_came_or_went(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("m", "2", champion="2")
        fake.versions["m", "1"] = {**fake.versions["m", "2"], "version": "1"}
        search = f"{API}/model-versions/search"
        asked: list[dict[str, str]] = []

        def answer(query: dict[str, str]) -> dict[str, object]:
            asked.append(query)
            return {"model_versions": [fake.versions["m", "2"], fake.versions["m", "1"]]}

        fake.answers[search] = answer
        source = MlflowSource(fake.uri, cache_dir=tmp_path, policy=PolicySettings(latest=2))
        for _ in range(3):
            assert source.poll().models == {"m": TrafficPlan("2", others=("1",))}
        assert asked == [{"filter": "name = 'm'", "order_by": "version_number DESC", "max_results": "2"}]
        fake.models[0]["last_updated_timestamp"] = 2
        source.poll()
        assert len(asked) == 2

    def test_any_alias_may_give_a_role(self, publisher: Any, tmp_path: Path) -> None:
        for alias in ("production", "champion", "next-eu", "mirror"):
            publisher.publish("a", alias)
        policy = PolicySettings(champion="production", canary="next", shadow="mirror")
        source = MlflowSource(publisher.uri, cache_dir=tmp_path, policy=policy)
        plan = TrafficPlan("1", (Arm("3", 0.0, "canary-eu"),), (ShadowArm("4"),))
        assert source.poll().models == {"a": plan}
        champion = Expected({}, version="3", champion="1")
        source.write("a", champion, [SetAlias("champion", "3"), DeleteAlias("canary-eu"), SetAlias("candidate", "4")])
        aliases = publisher.client.get_registered_model("a").aliases
        assert {alias: str(version) for alias, version in aliases.items()} == {
            "production": "3", "champion": "2", "mirror": "4", "candidate": "4",
        }  # fmt: skip
        with pytest.raises(UnavailableError, match="the champion is another one"):
            source.write("a", champion, [SetAlias("champion", "1")])
        publisher.client.delete_registered_model_alias("a", "production")
        assert "no version has the alias 'production'" in source.poll().problems["a"]

    def test_a_pinned_version_is_the_champion_whatever_aliases_say(self, publisher: Any, tmp_path: Path) -> None:
        publisher.publish("a")
        publisher.publish("a", "champion")
        policy = PolicySettings(models={"a": OwnPolicy(pinned=1)})
        assert MlflowSource(publisher.uri, cache_dir=tmp_path, policy=policy).poll().models == {"a": TrafficPlan("1")}

    def test_what_a_server_said_of_a_version_is_read(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("fares", "champion")
        assert source.poll().refused == {}
        source.write("fares", Expected({}), [SetTag("1", REFUSED_TAG, "its digest is wrong")])
        assert source.poll().refused == {"fares": {"1": "its digest is wrong"}}
        for _ in range(2):  # what is gone need not be there
            source.write("fares", Expected({}), [DeleteTag("1", REFUSED_TAG)])
        assert source.poll().refused == {}

    def test_several_canaries_and_shadows_have_the_shares_of_their_tags(
        self, publisher: Any, source: MlflowSource
    ) -> None:
        publisher.publish("a", "champion")
        for alias, tag, percent in (
            ("canary", "penstock.weight", "5"),
            ("canary-b", "penstock.weight", "10"),
            ("shadow", "other", "1"),
            ("shadow-b", "penstock.sample", "25"),
        ):
            publisher.client.set_model_version_tag("a", publisher.publish("a", alias), tag, percent)
        arms = (Arm("2", 0.05), Arm("3", 0.1, "canary-b"))
        assert said(source.poll()) == (
            {"a": TrafficPlan("1", arms, (ShadowArm("4"), ShadowArm("5", 0.25, "shadow-b")))},
            {},
        )
        publisher.client.set_model_version_tag("a", "5", "penstock.sample", "50")
        assert source.poll().models["a"].shadows[1].fraction == 0.5
        publisher.client.delete_registered_model_alias("a", "canary")
        assert source.poll().models["a"].canaries == arms[1:]

    def test_one_models_bad_tag_leaves_the_others(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.client.set_model_version_tag("a", publisher.publish("a", "canary"), "penstock.weight", "lots")
        publisher.publish("b", "champion")
        found = source.poll()
        assert found.models == {"a": TrafficPlan("1", (Arm("2", 0.0),)), "b": TrafficPlan("1")}
        assert set(found.problems) == {"a"}

    def test_a_deleted_version_is_no_longer_desired(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.publish("a", "canary")
        # A number: mlflow before 3.17 keeps the alias of a version given as text.
        publisher.client.delete_model_version("a", 2)
        assert said(source.poll()) == ({"a": TrafficPlan("1")}, {})

    def test_an_alias_of_a_version_that_is_not_there_is_told(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", champion="1", canary="7", shadow="1")
        fake.register("b", "1", champion="9")
        found = MlflowSource(fake.uri, cache_dir=tmp_path).poll()
        # A champion stays in the plan, so that the one before it serves on.
        assert found.models == {"a": TrafficPlan("1"), "b": TrafficPlan("9")}
        assert "canary 7 is left out: version 7 of model 'a' is not in the registry" in found.problems["a"]
        assert "champion 9 cannot be served: version 9 of model 'b' is not in the registry" in found.problems["b"]
        assert found.identities.keys() == {"a"}

    @pytest.mark.parametrize("version", ["../../etc", "", "1\n", "one", "9" * 19, "-1"])
    def test_an_alias_of_nonsense_changes_nothing(self, version: str, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", champion=version)
        found = MlflowSource(fake.uri, cache_dir=tmp_path).poll()
        assert found.models == {}
        assert "which is no version; expected a number" in found.problems["a"]

    @pytest.mark.parametrize("name", ["../../x\n\0", "a\u202e", "n" * 501])
    def test_a_name_that_no_request_could_hold_is_told(self, name: str, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register(name, "1", champion="1")
        fake.register("b", "1", champion="1")
        found = MlflowSource(fake.uri, cache_dir=tmp_path).poll()
        assert found.models == {"b": TrafficPlan("1")}
        ((key, problem),) = found.problems.items()
        assert key.isprintable()
        assert len(key) <= 200
        assert "no request could name it" in problem

    def test_a_list_that_is_refused_is_a_registry_that_is_away(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.answers["/api/2.0/mlflow/registered-models/search"] = lambda _: refusal(403, "PERMISSION_DENIED")
        with pytest.raises(UnavailableError, match="does not list its models"):
            MlflowSource(fake.uri, cache_dir=tmp_path).poll()

    def test_a_version_that_the_registry_does_not_give_is_the_trouble_of_its_model(
        self, fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.register("a", "2", champion="1")
        fake.register("b", "1", champion="1")
        fake.answers["/api/2.0/mlflow/model-versions/get"] = lambda _: (500, b"boom")
        found = MlflowSource(fake.uri, cache_dir=tmp_path).poll()
        assert found.models == {"b": TrafficPlan("1")}  # a keeps the plan that it had
        assert "does not give version 1 of model 'a': HTTP 500" in found.problems["a"]
        monkeypatch.setattr(mlflow_source, "PATIENCE_S", -1.0)  # it took long: the registry itself is in trouble
        with pytest.raises(UnavailableError, match="HTTP 500"):
            MlflowSource(fake.uri, cache_dir=tmp_path).poll()

    def test_a_poll_costs_few_calls(self, fake: FakeRegistry, tmp_path: Path) -> None:
        """One for the list; one for a canary that is not the newest; others once."""
        for name in ("a", "b", "c"):
            for version in ("1", "2", "3"):
                fake.register(name, version, champion="3")
        fake.models[0]["aliases"] = [{"alias": "champion", "version": "1"}]
        fake.models[1]["aliases"].append({"alias": "canary", "version": "2"})
        fake.models[2]["aliases"].append({"alias": "canary", "version": "3"})
        source = MlflowSource(fake.uri, cache_dir=tmp_path)
        first = source.poll()
        assert (fake.count("/search"), fake.count("/model-versions/get")) == (1, 2)
        assert source.poll() == first
        assert (fake.count("/search"), fake.count("/model-versions/get")) == (2, 3)
        fake.models[0]["last_updated_timestamp"] = 99  # versions came or went
        fake.versions["a", "1"]["source"] = "s3://another"
        assert source.poll().identities["a"] != first.identities["a"]
        assert (fake.count("/search"), fake.count("/model-versions/get")) == (3, 5)

    def test_named_models_are_all_that_is_desired(self, publisher: Any, tmp_path: Path) -> None:
        for name in ("a", "b"):
            publisher.publish(name, "champion")
        publisher.publish("c")
        source = MlflowSource(publisher.uri, models=["b", "c", "x", "x/y"], cache_dir=tmp_path / "cache")
        found = source.poll()
        assert found.models == {"b": TrafficPlan("1"), **dict.fromkeys(("c", "x", "x/y"), TrafficPlan())}
        assert set(found.problems) == {"c", "x", "x/y"}
        assert "no version has the alias 'champion'" in found.problems["c"]
        assert "model 'x' is not in the registry" in found.problems["x"]
        assert "model 'x/y' is not in the registry" in found.problems["x/y"]
        assert "b, c, x, x/y" in source.name

    def test_a_registry_that_is_away_is_unavailable(self, tmp_path: Path) -> None:
        source = MlflowSource("http://me:secret@127.0.0.1:9", cache_dir=tmp_path)
        with pytest.raises(UnavailableError, match="Connection refused"):
            source.poll()
        assert source.name == "mlflow http://127.0.0.1:9"


class TestFetch:
    def test_the_files_are_what_was_published(self, publisher: Any, source: MlflowSource) -> None:
        version = publisher.publish("a", "champion", prepare=lambda folder: artifact.write(folder, features=SPEC))
        source.poll()
        found = artifact.read(source.fetch("a", version))
        assert found.model_path.read_bytes() == publisher.onnx
        assert found.features == SPEC

    def test_a_copy_of_the_identity_needs_no_registry(
        self, publisher: Any, source: MlflowSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")
        identity = source.poll().identity("a", "1")
        found = source.get("a", "1", identity)
        assert found.identity == identity
        again = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(mlflow_source, "_registry_of", pytest.fail)
        assert again.get("a", "1", identity) == found

    def test_without_an_identity_the_last_copy_serves_while_the_registry_is_away(
        self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")
        found = source.get("a", "1")
        _go_away(monkeypatch)
        assert source.get("a", "1") == found
        with pytest.raises(UnavailableError, match="Connection refused"):
            source.get("a", "1", "another identity")
        with pytest.raises(UnavailableError, match="Connection refused"):
            source.get("a", "2")

    def test_without_a_copy_a_registry_that_is_away_is_unavailable(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="Connection refused"):
            MlflowSource(AWAY, cache_dir=tmp_path).fetch("a", "1")

    def test_what_was_never_registered_is_not_found(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a")
        for model, version in (("a", "2"), ("b", "1"), ("../a", "1")):
            with pytest.raises(NotFoundError, match="is not in the registry"):
                source.fetch(model, version)
        with pytest.raises(InvalidInputError, match="refuses version"):
            source.fetch("a", "one")

    def test_a_version_registered_anew_is_another(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        old = source.poll().identity("a", "1")
        assert artifact.read(source.fetch("a", "1", old)).features is None
        _register_again(publisher)
        new = source.poll().identity("a", "1")
        assert new != old
        assert artifact.read(source.fetch("a", "1", new)).features == SPEC
        assert artifact.read(source.fetch("a", "1")).features == SPEC
        # Both copies are kept, and the old one can still be told from the new one.
        assert artifact.read(source.fetch("a", "1", old)).features is None

    def test_files_of_an_identity_that_is_gone_are_not_taken_from_another(
        self, publisher: Any, source: MlflowSource
    ) -> None:
        publisher.publish("a", "champion")
        old = source.poll().identity("a", "1")
        _register_again(publisher)
        with pytest.raises(UnavailableError, match="version 1 of model 'a' has just been registered anew"):
            source.fetch("a", "1", old)

    def test_names_that_are_no_file_names_are_kept_apart(self, publisher: Any, source: MlflowSource) -> None:
        names = ["a b", "A b", "a_b", "ä%2F", "a\\..", "x" * 200]
        for name in names:
            publisher.publish(name, "champion")
        assert set(source.poll().models) == set(names)
        assert len({source.fetch(name, "1").parent for name in names}) == len(names)

    def test_a_version_whose_files_are_gone_is_told(self, publisher: Any, source: MlflowSource) -> None:
        import shutil

        publisher.publish("a", "champion")
        shutil.rmtree(publisher.root / "artifacts")
        with pytest.raises(NotFoundError, match="version 1 of model 'a' cannot be fetched: its folder is not on this"):
            source.fetch("a", "1")

    def test_a_version_that_is_being_written_is_waited_for(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", champion="1")
        fake.versions["a", "1"]["status"] = "PENDING_REGISTRATION"
        with pytest.raises(UnavailableError, match="is PENDING_REGISTRATION in the registry, not READY"):
            MlflowSource(fake.uri, cache_dir=tmp_path).fetch("a", "1")

    def test_a_source_that_is_one_file_is_refused(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a")
        found = publisher.client.get_model_version("a", "1")
        publisher.client.create_model_version("a", source=f"{found.source}/model.onnx", run_id=found.run_id)
        with pytest.raises(InvalidInputError, match="cannot be fetched: its source is not a folder"):
            source.fetch("a", "2")


class TestFlavours:
    def test_a_model_that_is_not_onnx_is_named_and_not_fetched(self, publisher: Any, source: MlflowSource) -> None:
        def as_sklearn(folder: Path) -> None:
            (folder / "MLmodel").write_text("flavors:\n  sklearn: {}\n  python_function: {}\n")

        publisher.publish("a", "champion", prepare=as_sklearn)
        with pytest.raises(
            InvalidInputError,
            match="version 1 of model 'a' cannot be fetched: it is a scikit-learn model and not ONNX; run `penstock publish`",
        ):
            source.fetch("a", "1")


class TestServer:
    """A registry that is an MLflow server, with its own artifacts."""

    def test_files_come_from_the_server(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", source="mlflow-artifacts:/1/model", champion="1")
        fake.files = {"1/model/MLmodel": b"flavors: {onnx: {}}", "1/model/model.onnx": b"graph"}
        source = MlflowSource(fake.uri, cache_dir=tmp_path)
        found = source.get("a", "1", source.poll().identity("a", "1"))
        assert (found.folder / "model.onnx").read_bytes() == b"graph"
        assert not list(tmp_path.rglob(".partial-*"))

    def test_nothing_is_left_of_a_fetch_that_failed(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", source="mlflow-artifacts:/1/model", champion="1")
        fake.files = {"1/model/MLmodel": b"flavors: {onnx: {}}", "1/model/model.onnx": bytes(2 * 2**20)}
        source = MlflowSource(fake.uri, cache_dir=tmp_path, fetch=FetchSettings(max_mib=1.0))
        with pytest.raises(
            InvalidInputError, match=r"version 1 of model 'a' cannot be fetched: its files take more than"
        ):
            source.fetch("a", "1")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_a_version_without_a_source_is_told(self, fake: FakeRegistry, tmp_path: Path) -> None:
        fake.register("a", "1", champion="1")
        with pytest.raises(InvalidInputError, match="it was registered without a source"):
            MlflowSource(fake.uri, cache_dir=tmp_path).fetch("a", "1")


def _register_again(publisher: Any) -> None:
    """Version 1 of model a becomes another one, which has features."""
    publisher.client.delete_registered_model("a")
    publisher.publish("a", "champion", prepare=lambda folder: artifact.write(folder, features=SPEC))


def _go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise UnavailableError("Connection refused")

    monkeypatch.setattr(SqliteRegistry, "version", refuse)
    monkeypatch.setattr(SqliteRegistry, "models", refuse)
