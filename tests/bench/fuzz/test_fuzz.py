"""The fuzzer itself: its cases are damaged, can be played again, and what breaks is found."""

import ctypes
import random
from pathlib import Path

import pytest

from bench.fuzz import __main__ as command
from bench.fuzz import corpus, plain, play, seeds
from bench.fuzz.broken import BrokenError
from bench.fuzz.frames import PREFACE, call, settings
from bench.fuzz.mutate import mutated
from bench.fuzz.play import Played, case
from bench.fuzz.server import Server
from penstock_server.transport import layout


def test_cases_differ_and_each_comes_again() -> None:
    found = [case(1, number)[0] for number in range(500)]
    assert found == [case(1, number)[0] for number in range(500)]
    assert len({b"".join(pieces) for pieces in found}) > 450
    assert found[:10] != [case(2, number)[0] for number in range(10)]


def test_what_is_rolled_after_a_case_comes_again_too() -> None:
    assert case(1, 7)[1].random() == case(1, 7)[1].random()


def test_each_conversation_is_damaged_and_cut_in_every_way() -> None:
    dice = random.Random(1)
    ways = set()
    for _ in range(300):
        pieces, changes = mutated(dice, seeds.CONVERSATIONS)
        assert all(pieces)
        ways.add((changes, min(len(pieces), 4)))
    assert {changes for changes, _ in ways} == {1, 2, 3, 4}
    assert {pieces for _, pieces in ways} >= {1, 2, 3, 4}


def test_the_conversations_are_valid_before_they_are_damaged() -> None:
    server = Server()
    for conversation in seeds.CONVERSATIONS:
        server.play(list(conversation), random.Random(1))
        server.play([b"".join(conversation)], random.Random(2))
        server.check_other()
    server.check_tables()
    server.close()


@pytest.mark.parametrize("at", [layout.OPEN_STREAMS, layout.PARTIAL_BYTES, layout.FREE_CONNECTION_COUNT])
def test_a_table_that_is_not_given_back_is_noticed(at: int) -> None:
    server = Server()
    server._cells[at // 8] += 1
    with pytest.raises(BrokenError, match="expected"):
        server.play(list(seeds.CONVERSATIONS[0]), random.Random(1))
    server._cells[at // 8] -= 1
    server.close()


def test_plain_requests_are_taken_and_other_rows_than_protobuf_reads_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    conversation = [PREFACE + settings(), call(1, plain.request(3), "Infer")]
    server.play(conversation, random.Random(1))
    assert server.plain.taken == 1
    monkeypatch.setattr(server.plain._lane, "blocks", lambda: (b"", b"", b""))
    with pytest.raises(BrokenError, match="other rows than protobuf reads"):
        server.play(conversation, random.Random(1))


def test_a_row_that_is_free_twice_is_noticed() -> None:
    server = Server()
    free = server._cells[layout.FREE_STREAMS // 8]
    server.check_tables()
    rows = (ctypes.c_int64 * 2).from_address(free)
    first = rows[0]
    rows[0] = rows[1]
    with pytest.raises(BrokenError, match="the list of free streams is damaged"):
        server.check_tables()
    rows[0] = first
    server.close()


@pytest.mark.long
def test_the_command_plays_and_says_how_fast(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seconds", "4", "--count", "500", "--sockets", "0.5"]) == 0
    told = capfd.readouterr().out
    assert "in process: 500 cases" in told
    assert "over sockets: 500 cases" in told


def test_what_ends_the_process_is_named_written_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    firsts = []

    def play(part: str, first: int, *_: object) -> tuple[Played, str | None]:
        firsts.append((part, first))
        failure = "ended by SIGSEGV" if first == 0 and part == "in process" else None
        return Played(first + 41, 42, 100, 0.1), failure

    monkeypatch.setattr(command, "_play", play)
    assert command.main(["--seconds", "10", "--save", str(tmp_path / "found")]) == 1
    assert firsts == [("in process", 0), ("in process", 42), ("over sockets", 0)]
    assert "in process: case 41 of seed 1: ended by SIGSEGV" in capfd.readouterr().out
    assert list(corpus.read(tmp_path / "found")) == [("1:41 ended by SIGSEGV", case(1, 41)[0])]


def test_lines_of_the_corpus_are_read_as_they_were_written(tmp_path: Path) -> None:
    line = corpus.written("why", [b"\x00ab", b"c"])
    (tmp_path / "corpus").write_text(f"# about the file\n\n{line}\n")
    assert list(corpus.read(tmp_path / "corpus")) == [("why", [b"\x00ab", b"c"])]


@pytest.mark.long
def test_thousands_of_hostile_conversations_leave_no_memory_behind() -> None:
    place = play.InProcess()
    for number in range(2_000):
        pieces, dice, _ = play.case(3, number)
        place.play(pieces, dice)
    before = play.allocated_bytes()
    for number in range(2_000, 6_000):
        pieces, dice, _ = play.case(3, number)
        place.play(pieces, dice)
    assert play.allocated_bytes() - before < 100_000  # 25 bytes each would be noticed
    place.close()


def test_memory_that_grows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter((100, 100 + (32 << 20), 101 + (32 << 20)))
    monkeypatch.setattr(play, "allocated_bytes", lambda: next(sizes))
    place = play.InProcess()
    place.measure()
    place.measure()
    with pytest.raises(BrokenError, match="memory has grown by 32 MiB"):
        place.measure()
    place.close()
