"""Keys of ids."""

import numpy as np

from penstock_server.labels.keys import keys_of, word_of
from penstock_server.rollout.plan import key_place


def test_a_key_has_the_place_of_a_routing_key() -> None:
    key = keys_of("fraud", [b"a-17"])[0]
    place = (int.from_bytes(int(key).to_bytes(8, "little"), "big") >> 11) * 2.0**-53
    assert place == key_place("fraud", "a-17")


def test_keys_differ_over_models_and_ids() -> None:
    ids = [f"id-{number}".encode() for number in range(1000)]
    assert len(np.unique(np.concatenate([keys_of("fraud", ids), keys_of("fares", ids)]))) == 2000
    assert keys_of("fraud", []).tolist() == []


def test_a_word_is_the_same_in_every_process() -> None:
    assert word_of("yes") == 0x927A186D5C80B1D1
    assert word_of("") != 0
