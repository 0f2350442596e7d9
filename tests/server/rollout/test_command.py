from collections.abc import Mapping

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.command import LONGEST_NAME, commanded
from penstock_server.rollout.progress import COMMAND_TAG, PROGRESS_TAG, SPEC_TAG, Progress, Status, write_progress
from penstock_server.rollout.registered import Change, DeleteAlias, DeleteTag, RegisteredRollout, SetTag
from penstock_server.rollout.spec import RolloutSpec


def found(status: Status | None, aliases: Mapping[str, str] | None = None) -> RegisteredRollout:
    progress = None if status is None else Progress(spec=RolloutSpec(), champion="1", status=status, stage=1)
    tags = {} if progress is None else {PROGRESS_TAG: write_progress(progress)}
    return RegisteredRollout("2", {"candidate": "2"} if aliases is None else aliases, tags)


@pytest.mark.parametrize(
    ("registered", "word", "by", "changes"),
    [
        (found("running"), "pause", "ann", [SetTag("2", COMMAND_TAG, "pause  ann")]),
        (found("paused"), "resume", "", [SetTag("2", COMMAND_TAG, "resume  ")]),
        (found("running"), "advance", "ann b", [SetTag("2", COMMAND_TAG, "advance 1 ann b")]),
        (found("running"), "abort", " a\nb\x1b ", [SetTag("2", COMMAND_TAG, "abort  a b")]),
        (found("running"), "abort", "x" * 500, [SetTag("2", COMMAND_TAG, "abort  " + "x" * LONGEST_NAME)]),
        (found(None), "abort", "ann", [DeleteTag("2", SPEC_TAG), DeleteAlias("candidate")]),
        (found(None, {"candidate": "3"}), "abort", "ann", [DeleteTag("2", SPEC_TAG)]),
    ],
)
def test_what_is_written(registered: RegisteredRollout, word: str, by: str, changes: list[Change]) -> None:
    assert list(commanded("m", registered, word, by)) == changes


@pytest.mark.parametrize(
    ("registered", "word", "said"),
    [
        (found("running"), "stop", "there is no command 'stop'; expected pause, resume, advance, abort"),
        (found(None), "pause", "the rollout of version 2 of m has not begun"),
        (found("promoted"), "abort", "the rollout of version 2 of m is over: promoted"),
    ],
)
def test_what_cannot_be_done_is_refused(registered: RegisteredRollout, word: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        commanded("m", registered, word)
