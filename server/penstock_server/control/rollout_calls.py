"""`RolloutState` and `RolloutCommand` of `penstock.v1`: what is known of rollouts, and words for whoever acts on them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from penstock import penstock_pb2 as pb
from penstock_server.control.lease_keeper import WritesRegistry
from penstock_server.control.rollouts import RolloutView, shown
from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.command import commanded
from penstock_server.rollout.progress import LEASE_TAG, PROGRESS_TAG, read_progress
from penstock_server.rollout.registered import Expected, RegisteredRollout

COMMAND_S: Final = 30.0
"""How long a command may take to reach the registry."""
TRIES: Final = 3
"""Whoever acts on the rollout writes too, so that a write may find another record than was read."""

_COPIED: Final = (
    "model", "version", "champion", "status", "stage", "stages", "reason", "problem", "controller", "acting", "in_words",
    "began", "since",
)  # fmt: skip
"""Fields of `Rollout` with the names that /v1/rollouts has."""


def state(body: bytes, views: Callable[[], Sequence[RolloutView]]) -> bytes:
    """The `RolloutStateResponse` to a `RolloutStateRequest`, both encoded.

    Raises:
        NotFoundError: no version of the model that it names is being rolled out.
    """
    model = pb.RolloutStateRequest.FromString(body).model
    found = [view for view in views() if model in ("", view.model)]
    if model and not found:
        raise _nothing(model)
    encoded: bytes = pb.RolloutStateResponse(rollouts=[_message(shown(view)) for view in found]).SerializeToString()
    return encoded


def _message(found: Mapping[str, Any]) -> pb.Rollout:
    return pb.Rollout(
        **{name: found[name] for name in _COPIED},
        gates=[_gate(gate) for gate in found["gates"]],
        history=[pb.RolloutEvent(**event) for event in found["history"]],
    )


def _gate(gate: Mapping[str, Any]) -> pb.RolloutGate:
    low, high = gate["interval"]
    return pb.RolloutGate(**{name: value for name, value in gate.items() if name != "interval"}, low=low, high=high)


async def command(
    body: bytes,
    *,
    rollouts: Callable[[], Mapping[str, RegisteredRollout]],
    registry: WritesRegistry,
    refresh: Callable[[], Awaitable[None]],
) -> bytes:
    """The `RolloutCommandResponse` to a `RolloutCommandRequest`, both encoded; raises as `act` does."""
    request = pb.RolloutCommandRequest.FromString(body)
    version, stage = await act(
        request.model, request.command, request.by, rollouts=rollouts, registry=registry, refresh=refresh
    )
    encoded: bytes = pb.RolloutCommandResponse(version=version, stage=stage).SerializeToString()
    return encoded


async def act(
    model: str,
    word: str,
    by: str,
    *,
    rollouts: Callable[[], Mapping[str, RegisteredRollout]],
    registry: WritesRegistry,
    refresh: Callable[[], Awaitable[None]],
) -> tuple[str, str]:
    """Has a model's rollout do something.

    Args:
        model: its name.
        word: the command, one of `rollout.step.COMMANDS`.
        by: who asks, "" where nobody knows.
        rollouts: what the registry says, by model.
        registry: where the command is written.
        refresh: has the registry read again; returns when that is known here.

    Returns:
        The version that is rolled out, and the stage that it is at.

    Raises:
        NotFoundError: no version of the model is being rolled out.
        InvalidInputError: there is no such command, or the rollout is over or has not begun.
        UnavailableError: the registry cannot be written.
    """

    async def write() -> RegisteredRollout:
        await refresh()
        found = rollouts().get(model)
        if found is None:
            raise _nothing(model)
        changes = commanded(model, found, word, by)
        await registry.write(model, Expected({LEASE_TAG: found.lease}), changes)
        return found

    try:
        async with asyncio.timeout(COMMAND_S):
            found = await _tried(write)
            await refresh()
    except TimeoutError:
        raise UnavailableError(f"the registry did not take the command within {COMMAND_S:g} seconds") from None
    progress = found.tags.get(PROGRESS_TAG)
    return found.version, "" if progress is None else str(read_progress(progress).present)


async def _tried(write: Callable[[], Awaitable[RegisteredRollout]]) -> RegisteredRollout:
    for _ in range(TRIES - 1):
        try:
            return await write()
        except UnavailableError:
            continue
    return await write()


def _nothing(model: str) -> NotFoundError:
    return NotFoundError(f"no version of model {model[:100]!r} is being rolled out")
