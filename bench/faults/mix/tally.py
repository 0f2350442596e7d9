"""What the callers of the mix count, and which endings are faults."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from penstock import inference_pb2 as pb

_SHOWN: Final = 20

OK: Final = "OK"
ALWAYS: Final = frozenset({OK, "RESOURCE_EXHAUSTED"})
"""Endings that any request may have: a full queue refuses."""
FAILED: Final = frozenset({"INTERNAL", "RESOURCE_EXHAUSTED"})
"""Endings of a request that makes its model fail."""
SHORT: Final = "DEADLINE_EXCEEDED"
"""A further ending of a request with a short deadline."""
NAMED: Final = frozenset({"NOT_FOUND", "UNAVAILABLE"})
"""Further endings of a request that names a version, which may have been unloaded."""


@dataclass(slots=True)
class Tally:
    """Counts of one run of the mix; belongs to one thread.

    Attributes:
        calls: unary calls and streams.
        requests: in all calls.
        answers: of them that were answered with a message that is no error.
        wrong: answers that are not those of the row asked.
        endless: calls that did not end within their deadline and a margin.
        late: answers that came after the request's own `timeout` and a margin.
        lost: requests of a stream that ended well without answering them.
        codes: endings, by caller and code.
        unexpected: of these, those that no such request may have.
        examples: the first sentences about faults.
    """

    calls: int = 0
    requests: int = 0
    answers: int = 0
    wrong: int = 0
    endless: int = 0
    late: int = 0
    lost: int = 0
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unexpected: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def end(self, caller: str, code: str, allowed: frozenset[str], details: str = "") -> None:
        """Counts how a request ended."""
        self.codes[caller, code] += 1
        if code not in allowed:
            self.unexpected[caller, code] += 1
            self.say(f"{caller}: unexpected {code}: {details}")

    def answer(self, reply: pb.ModelInferResponse, fault: str | None, *, expected_id: str, version: str) -> None:
        """Counts an answer, which is wrong if a fault was found, or if it names another request or version."""
        self.answers += 1
        if reply.id != expected_id:
            fault = f"expected the answer to request {expected_id!r}, got that to {reply.id!r}; {fault or ''}"
        elif version.isdecimal() and reply.model_version != version:
            fault = f"asked version {version} of {reply.model_name}, version {reply.model_version} answered"
        if fault is not None:
            self.wrong += 1
            self.say(f"wrong answer: {fault}")

    def say(self, sentence: str) -> None:
        """Keeps a sentence about a fault, if there is room."""
        if len(self.examples) < _SHOWN:
            self.examples.append(sentence[:400])
