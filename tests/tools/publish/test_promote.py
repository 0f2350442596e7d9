import pytest

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.rollout.aliases import SAMPLE_TAG, WEIGHT_TAG, parse_weight
from penstock_server.sources.settings import OwnPolicy, PolicySettings
from penstock_tools.publish.promote import Promotion, check_role, promote, remove


@pytest.fixture
def fraud(client):
    """A model with the versions 1 to 3."""
    client.create_registered_model("fraud")
    for _ in range(3):
        client.create_model_version("fraud", "file:///nowhere")
    return client


def roles(client):
    return {alias: str(version) for alias, version in client.get_registered_model("fraud").aliases.items()}


def test_the_first_champion(fraud):
    assert promote("fraud", 1) == Promotion("fraud", "1", "champion", None, None, ())
    assert roles(fraud) == {"champion": "1"}


def test_a_champion_takes_the_place_of_the_former(fraud):
    promote("fraud", 1)
    done = promote("fraud", "2")
    assert (done.former, roles(fraud)) == ("1", {"champion": "2"})
    assert str(done) == "fraud version 2 is now champion, in place of version 1"


def test_a_canary_carries_its_weight(fraud):
    promote("fraud", 1)
    done = promote("fraud", 2, "canary", 12.5)
    assert roles(fraud) == {"champion": "1", "canary": "2"}
    assert fraud.get_model_version("fraud", "2").tags[WEIGHT_TAG] == "12.5"
    assert str(done) == "fraud version 2 is now canary with 12.5% of the traffic"


def test_the_weight_is_written_before_the_alias(fraud, monkeypatch):
    from mlflow import MlflowClient

    calls = []
    for method in ("set_model_version_tag", "set_registered_model_alias"):
        monkeypatch.setattr(MlflowClient, method, lambda *args, method=method: calls.append((method, args[-1])))
    promote("fraud", 2, "canary", 5)
    assert calls == [("set_model_version_tag", "5"), ("set_registered_model_alias", "2")]


@pytest.mark.parametrize("weight", [0, 0.00001, 0.1 + 0.2, 33.333333333, 100])
def test_the_server_reads_every_weight(fraud, weight):
    promote("fraud", 2, "canary", weight)
    text = fraud.get_model_version("fraud", "2").tags[WEIGHT_TAG]
    assert parse_weight(text) == pytest.approx(weight / 100, abs=1e-11)


def test_a_canary_that_becomes_champion_is_canary_no_longer(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 50)
    done = promote("fraud", 2)
    assert roles(fraud) == {"champion": "2"}
    assert str(done) == "fraud version 2 is now champion, in place of version 1; it is no longer canary"


def test_a_version_may_be_canary_and_shadow_at_once_if_asked(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "shadow")
    assert promote("fraud", 2, "canary", 1, also=True).given_up == ()
    assert roles(fraud) == {"champion": "1", "canary": "2", "shadow": "2"}
    assert promote("fraud", 2).given_up == ("canary", "shadow")


@pytest.mark.parametrize(("first", "second"), [(("canary", 5), ("shadow", None)), (("shadow", None), ("canary", 5))])
def test_a_version_has_one_role(fraud, first, second):
    promote("fraud", 1)
    promote("fraud", 2, *first)
    done = promote("fraud", 2, *second)
    assert (done.given_up, roles(fraud)) == ((first[0],), {"champion": "1", second[0]: "2"})
    assert str(done).endswith(f"; it is no longer {first[0]}")


def test_a_model_has_several_canaries_and_shadows(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 5)
    promote("fraud", 3, "canary-b", 10)
    assert roles(fraud) == {"champion": "1", "canary": "2", "canary-b": "3"}
    done = promote("fraud", 3, "shadow-b", sample=2.5, also=True)
    assert str(done) == "fraud version 3 is now shadow-b of 2.5% of the batches"
    assert fraud.get_model_version("fraud", "3").tags == {WEIGHT_TAG: "10", SAMPLE_TAG: "2.5"}
    assert roles(fraud) == {"champion": "1", "canary": "2", "canary-b": "3", "shadow-b": "3"}
    assert promote("fraud", 3, "canary-c", 10, also=True).given_up == ("canary-b",)
    assert str(remove("fraud", "3")) == "fraud version 3 is no longer canary-c and version 3 is no longer shadow-b"
    promote("fraud", 3, "shadow-b")
    assert promote("fraud", 3).given_up == ("shadow-b",)
    assert roles(fraud) == {"champion": "3", "canary": "2"}


def test_canaries_get_no_more_than_all_requests_together(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 60)
    with pytest.raises(InvalidInputError, match="would get 110% of the traffic: version 2 60% and version 3 50%"):
        promote("fraud", 3, "canary-b", 50)
    assert roles(fraud) == {"champion": "1", "canary": "2"}
    promote("fraud", 3, "canary-b", 40)
    promote("fraud", 3, "canary", 100)  # in place of version 2, which is left with no role
    assert roles(fraud) == {"champion": "1", "canary": "3"}


def test_a_champion_is_nothing_also(fraud):
    with pytest.raises(InvalidInputError, match="a champion has no other role; --also"):
        promote("fraud", 1, also=True)


@pytest.mark.parametrize(
    ("version", "alias", "left", "sentence"),
    [
        (None, "canary", {"champion": "1", "shadow": "3"}, "fraud version 2 is no longer canary"),
        ("3", "shadow", {"champion": "1", "canary": "2"}, "fraud version 3 is no longer shadow"),
        ("2", None, {"champion": "1", "shadow": "3"}, "fraud version 2 is no longer canary"),
        (
            None,
            "champion",
            {"canary": "2", "shadow": "3"},
            "fraud version 1 is no longer champion; nothing of it is served until a version is champion",
        ),
    ],
)
def test_a_role_ends(fraud, version, alias, left, sentence):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 5)
    promote("fraud", 3, "shadow")
    assert str(remove("fraud", version, alias)) == sentence
    assert roles(fraud) == left


def test_all_roles_of_a_version_end(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 5)
    promote("fraud", 2, "shadow", also=True)
    assert str(remove("fraud", "2")) == "fraud version 2 is no longer canary and version 2 is no longer shadow"
    assert roles(fraud) == {"champion": "1"}


@pytest.mark.parametrize(
    ("version", "alias", "error", "sentence"),
    [
        (None, None, InvalidInputError, "name a version, or a role with --alias"),
        (None, "canari", InvalidInputError, "no role 'canari'.*; did you mean 'canary'"),
        (None, "shadow", NotFoundError, "no version of fraud is shadow: champion is version 1"),
        ("2", None, NotFoundError, "version 2 of fraud is in no role: champion is version 1"),
        ("2", "champion", NotFoundError, "version 2 of fraud is not champion: champion is version 1"),
    ],
)
def test_a_role_that_nobody_has_does_not_end(fraud, version, alias, error, sentence):
    promote("fraud", 1)
    with pytest.raises(error, match=sentence):
        remove("fraud", version, alias)
    assert roles(fraud) == {"champion": "1"}


def test_other_versions_keep_their_roles(fraud):
    promote("fraud", 1)
    promote("fraud", 2, "canary", 5)
    promote("fraud", 3, "shadow")
    assert roles(fraud) == {"champion": "1", "canary": "2", "shadow": "3"}


def test_doing_it_again_changes_nothing(fraud):
    promote("fraud", 1)
    assert str(promote("fraud", 1)) == "fraud version 1 is now champion"
    assert roles(fraud) == {"champion": "1"}


@pytest.mark.parametrize(("alias", "weight"), [("canary", 5), ("shadow", None)])
def test_the_champion_stays_champion(fraud, alias, weight):
    promote("fraud", 1)
    with pytest.raises(InvalidInputError, match="version 1 of fraud is its champion"):
        promote("fraud", 1, alias, weight)
    assert roles(fraud) == {"champion": "1"}


@pytest.mark.parametrize(("name", "end"), [("freud", "did you mean 'fraud'"), ("quarterly", "the models are fraud")])
def test_the_error_for_an_unknown_model_names_what_may_be_meant(fraud, name, end):
    with pytest.raises(NotFoundError, match=f"no model '{name}' in the registry; {end}"):
        promote(name, 1)


def test_an_empty_registry_says_so(registry):
    with pytest.raises(NotFoundError, match="there are no models yet"):
        promote("fraud", 1)


@pytest.mark.parametrize("version", ["4", "0", "latest", "-1", ""])
def test_the_error_for_an_unknown_version_lists_the_known(fraud, version):
    with pytest.raises(NotFoundError, match=f"no version {version} of fraud; the versions are 1, 2, 3"):
        promote("fraud", version)


@pytest.mark.parametrize(
    ("alias", "weight", "message"),
    [
        ("king", None, "no role 'king'; expected champion, canary, shadow"),
        ("champion", 5.0, "a champion has no weight"),
        ("shadow", 5.0, "a shadow has no weight"),
        ("canary", None, "give its weight"),
        ("canary", -1.0, "expected 0 to 100"),
        ("canary", 100.5, "expected 0 to 100"),
        ("canary", float("nan"), "expected 0 to 100"),
        ("canary-b", None, "give its weight"),
        ("shadow-b", 5.0, "a shadow has no weight"),
        ("champion-b", None, "no role 'champion-b'.*; did you mean 'champion'"),
    ],
)
def test_roles_and_weights_that_do_not_fit(alias, weight, message):
    with pytest.raises(InvalidInputError, match=message):
        check_role(alias, weight)


@pytest.mark.parametrize(
    ("alias", "sample", "message"),
    [
        ("canary", 5.0, "a canary has no sample"),
        ("shadow", 101.0, "a shadow's sample is 101 percent, expected 0 to 100"),
        ("shadow-b", float("nan"), "expected 0 to 100"),
    ],
)
def test_samples_that_do_not_fit(alias, sample, message):
    with pytest.raises(InvalidInputError, match=message):
        check_role(alias, 5.0 if alias == "canary" else None, sample)


def test_a_policy_names_the_aliases(fraud):
    policy = PolicySettings(models={"fraud": OwnPolicy(champion="production", canary="next")})
    fraud.set_registered_model_alias("fraud", "champion", "3")  # which gives no role there
    promote("fraud", 1, policy=policy)
    promote("fraud", 2, "canary-b", 5, policy=policy)
    assert roles(fraud) == {"champion": "3", "production": "1", "next-b": "2"}
    with pytest.raises(InvalidInputError, match="version 1 of fraud is its champion"):
        promote("fraud", 1, "shadow", policy=policy)
    done = promote("fraud", 2, policy=policy)
    assert str(done) == "fraud version 2 is now champion, in place of version 1; it is no longer canary-b"
    assert roles(fraud) == {"champion": "3", "production": "2"}
    assert remove("fraud", alias="champion", policy=policy).ended == (("champion", "2"),)
    assert roles(fraud) == {"champion": "3"}


def test_what_a_policy_pins_is_not_promoted(fraud):
    policy = PolicySettings(pinned=1)
    with pytest.raises(InvalidInputError, match="the policy pins version 1 of fraud as its champion"):
        promote("fraud", 2, policy=policy)
    promote("fraud", 2, "shadow", policy=policy)
    with pytest.raises(NotFoundError, match="no version of fraud is champion: shadow is version 2"):
        remove("fraud", alias="champion", policy=policy)
