from dataclasses import replace

import pytest

from penstock_server.control.process_end import Cause
from penstock_server.control.settings import WatchdogSettings
from penstock_server.control.watchdog import Pulse, Vigil

A, B = ("m", "1"), ("m", "2")
LIMITS = WatchdogSettings(silent_s=10.0, run_s=60.0, load_s=100.0, start_s=30.0)
LISTENING = Pulse(5, is_listening=True)


def after(seconds: int, pulse: Pulse, *, beats: bool = False) -> Vigil:
    """A watch over a worker that shows the same for some seconds."""
    vigil = Vigil().seen(pulse, 1.0)
    for second in range(seconds):
        vigil = vigil.seen(replace(pulse, beat_ns=pulse.beat_ns + second + 1) if beats else pulse, 1.0)
    return vigil


@pytest.mark.parametrize(
    ("seconds", "pulse", "beats", "cause"),
    [
        (29, Pulse(0), False, None),
        (30, Pulse(0), False, "never started"),
        (200, LISTENING, True, None),
        (10, LISTENING, False, None),
        (11, LISTENING, False, "silent"),
        (11, Pulse(5), False, "silent"),
        (11, replace(LISTENING, is_stopped=True), False, "stopped"),
        (11, replace(LISTENING, runs={A: 1}), False, "silent"),
        (60, replace(LISTENING, runs={A: 1, B: 2}), True, None),
        (61, replace(LISTENING, runs={A: 1, B: 2}), True, "long run"),
        (100, replace(LISTENING, loading=A), True, None),
        (101, replace(LISTENING, loading=A), True, "long load"),
        (11, replace(LISTENING, loading=A), False, "silent"),
        (100, Pulse(5, loading=A), False, None),  # it accepts no calls yet
        (101, Pulse(5, loading=A), False, "silent"),
    ],
)
def test_a_worker_is_killed_for(seconds: int, pulse: Pulse, beats: bool, cause: Cause | None) -> None:
    assert after(seconds, pulse, beats=beats).cause(LIMITS) == cause


def test_each_run_and_each_load_has_its_own_time() -> None:
    vigil = Vigil().seen(replace(LISTENING, runs={A: 1, B: 1}, loading=A), 1.0)
    for beat in range(50):
        vigil = vigil.seen(Pulse(10 + beat, {A: 1, B: beat}, A, True), 1.0)
    assert (vigil.runs_s, vigil.load_s, vigil.silent_s) == ({A: 50.0, B: 0.0}, 50.0, 0.0)
    vigil = vigil.seen(Pulse(99, {A: 2}, B, True), 1.0)
    assert (vigil.runs_s, vigil.load_s) == ({A: 0.0}, 0.0)
    assert vigil.seen(Pulse(100, {}, None, True), 1.0).load_s == 0.0


def test_a_beat_starts_the_count_anew() -> None:
    vigil = after(9, LISTENING).seen(replace(LISTENING, beat_ns=6), 1.0)
    assert vigil.silent_s == 0.0
