from pathlib import Path
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.models import artifact
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources import mlflow_client
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.source import Desired

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
        publisher.publish("c")
        assert source.poll() == Desired({"a": TrafficPlan("1"), "b": TrafficPlan("1", shadow="2")})

    def test_an_alias_that_moves_or_goes_is_followed(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.publish("a", "champion")
        assert source.poll().models == {"a": TrafficPlan("2")}
        publisher.client.delete_registered_model_alias("a", "champion")
        assert source.poll() == Desired()

    def test_a_canary_has_the_weight_of_its_tag(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        version = publisher.publish("a", "canary")
        unweighted = source.poll()
        assert unweighted.models == {"a": TrafficPlan("1", "2", 0.0)}
        assert "canary 2 has no tag 'penstock.weight' and gets no traffic" in unweighted.problems["a"]
        publisher.client.set_model_version_tag("a", version, "penstock.weight", "12.5")
        assert source.poll() == Desired({"a": TrafficPlan("1", "2", 0.125)})

    def test_one_models_bad_tag_leaves_the_others(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.client.set_model_version_tag("a", publisher.publish("a", "canary"), "penstock.weight", "lots")
        publisher.publish("b", "champion")
        found = source.poll()
        assert found.models == {"a": TrafficPlan("1", "2", 0.0), "b": TrafficPlan("1")}
        assert set(found.problems) == {"a"}

    def test_a_deleted_version_is_no_longer_desired(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        publisher.publish("a", "canary")
        # A number: mlflow before 3.17 keeps the alias of a version given as text.
        publisher.client.delete_model_version("a", 2)
        assert source.poll() == Desired({"a": TrafficPlan("1")})

    def test_a_canary_that_vanishes_between_two_calls_is_left_out(
        self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")

        def alias_on_nothing(_: object) -> dict[str, dict[str, str]]:
            return {"a": {"champion": "1", "canary": "7", "shadow": "1"}}

        monkeypatch.setattr(mlflow_client.RegistryClient, "all_aliases", alias_on_nothing)
        found = source.poll()
        assert found.models == {"a": TrafficPlan("1")}
        assert "canary 7 is left out: version 7 of model 'a' is not in the registry" in found.problems["a"]

    def test_named_models_are_all_that_is_desired(self, publisher: Any, tmp_path: Path) -> None:
        for name in ("a", "b"):
            publisher.publish(name, "champion")
        publisher.publish("c")
        source = MlflowSource(publisher.uri, models=["b", "c", "x", "x/y"], cache_dir=tmp_path / "cache")
        found = source.poll()
        assert found.models == {"b": TrafficPlan("1"), "c": TrafficPlan(), "x": TrafficPlan()}
        assert set(found.problems) == {"c", "x", "x/y"}
        assert "no version has the alias 'champion'" in found.problems["c"]
        assert "model 'x' is not in the registry" in found.problems["x"]
        assert "refuses model 'x/y'" in found.problems["x/y"]
        assert "b, c, x, x/y" in source.name

    def test_every_page_is_read(self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mlflow_client, "_PAGE_MODELS", 2)
        for name in "abcde":
            publisher.publish(name, "champion")
        assert set(source.poll().models) == set("abcde")

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
        assert found.onnx_path.read_bytes() == publisher.onnx
        assert found.features == SPEC

    def test_a_second_fetch_downloads_nothing(
        self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")
        source.poll()
        folder = source.fetch("a", "1")
        monkeypatch.delattr(mlflow_client.RegistryClient, "download")
        assert source.fetch("a", "1") == folder

    def test_a_copy_needs_no_registry(
        self, publisher: Any, source: MlflowSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")
        folder = source.fetch("a", "1")
        again = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(mlflow_client, "connect", pytest.fail)
        assert again.fetch("a", "1") == folder

    @pytest.mark.parametrize("answered_before", [False, True])
    def test_a_copy_outlives_a_registry_that_goes_away(
        self, answered_before: bool, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher.publish("a", "champion")
        source.poll()
        folder = source.fetch("a", "1")
        _go_away(monkeypatch)
        if not answered_before:
            with pytest.raises(UnavailableError, match="does not give"):
                source.poll()
        assert source.fetch("a", "1") == folder
        with pytest.raises(UnavailableError, match="does not give version 2 of model 'a'"):
            source.fetch("a", "2")

    def test_without_a_copy_a_registry_that_is_away_is_unavailable(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="Connection refused"):
            MlflowSource(AWAY, cache_dir=tmp_path).fetch("a", "1")

    def test_what_was_never_registered_is_not_found(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a")
        for model, version in (("a", "2"), ("b", "1")):
            with pytest.raises(NotFoundError, match="is not in the registry"):
                source.fetch(model, version)
        for model, version in (("../a", "1"), ("a", "one")):
            with pytest.raises(InvalidInputError, match="refuses version"):
                source.fetch(model, version)

    def test_a_version_registered_again_is_fetched_again(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a", "champion")
        source.poll()
        assert artifact.read(source.fetch("a", "1")).features is None
        _register_again(publisher)
        assert artifact.read(source.fetch("a", "1")).features == SPEC
        assert source.poll().problems == {}

    def test_a_copy_handed_out_unchecked_is_checked_by_the_next_poll(
        self, publisher: Any, source: MlflowSource, tmp_path: Path
    ) -> None:
        publisher.publish("a", "champion")
        source.poll()
        source.fetch("a", "1")
        again = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
        again.fetch("a", "1")
        assert again.poll().problems == {}
        _register_again(publisher)
        restarted = MlflowSource(publisher.uri, cache_dir=tmp_path / "cache")
        restarted.fetch("a", "1")
        for _ in range(2):
            assert "version 1 was registered again" in restarted.poll().problems["a"]
        restarted.fetch("a", "1")
        assert restarted.poll().problems == {}

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
        with pytest.raises((UnavailableError, NotFoundError), match="the files of version 1 of model 'a'"):
            source.fetch("a", "1")

    def test_a_version_that_is_being_written_is_waited_for(
        self, publisher: Any, source: MlflowSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pending = mlflow_client.RegisteredVersion("id", {}, "PENDING_REGISTRATION")
        monkeypatch.setattr(mlflow_client.RegistryClient, "version", lambda *_: pending)
        with pytest.raises(UnavailableError, match="is PENDING_REGISTRATION in the registry, not READY"):
            source.fetch("a", "1")

    def test_a_source_that_is_one_file_is_refused(self, publisher: Any, source: MlflowSource) -> None:
        publisher.publish("a")
        found = publisher.client.get_model_version("a", "1")
        publisher.client.create_model_version("a", source=f"{found.source}/model.onnx", run_id=found.run_id)
        with pytest.raises(InvalidInputError, match="with a source that is not a folder"):
            source.fetch("a", "2")


def _register_again(publisher: Any) -> None:
    """Version 1 of model a becomes another one, which has features."""
    publisher.client.delete_registered_model("a")
    publisher.publish("a", "champion", prepare=lambda folder: artifact.write(folder, features=SPEC))


def _go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> object:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(mlflow_client.RegistryClient, "_client", refuse)
