import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.retraining import actions
from penstock_server.retraining.actions import ActionRefusedError, Command, Ended, secrets_of, send
from penstock_server.retraining.event import Event
from penstock_server.retraining.requests import Secrets, signature
from penstock_server.retraining.settings import ActionSettings
from tests.server.retraining.conftest import Receiver

EVENT = Event("0af1", "2027-01-15T08:00:00.000Z", "fraud", "3", "drift", "'age' has drifted")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0ken")
    monkeypatch.setenv("SECRET", SECRET)


def airflow(receiver: Receiver) -> ActionSettings:
    return ActionSettings("airflow", url=receiver.url, dag="retrain", token_env="TOKEN")


def test_a_webhook_that_was_sent_verifies(receiver: Receiver) -> None:
    action = ActionSettings("webhook", url=f"{receiver.url}/hook", secret_env="SECRET")
    assert send(action, EVENT, NOW) == "204"
    ((path, headers, body),) = receiver.got
    assert path == "/hook"
    assert headers["webhook-signature"] == signature(SECRET, "0af1", headers["webhook-timestamp"], body)
    assert "authorization" not in headers


def test_each_kind_reaches_its_path_with_its_token(receiver: Receiver) -> None:
    """The paths and the answers of the recorded contracts: 204 of GitHub, 200 of the others."""
    token = {"url": receiver.url, "token_env": "TOKEN"}
    receiver.answers = [(204, b"", {}), *[(200, b"{}", {})] * 3]
    for action in (
        ActionSettings("github", repository="owner/name", **token),  # type: ignore[arg-type]
        ActionSettings("airflow", dag="retrain", **token),  # type: ignore[arg-type]
        ActionSettings("kubeflow", pipeline="p1", **token),  # type: ignore[arg-type]
        ActionSettings("argo", namespace="ml", template="retrain", **token),  # type: ignore[arg-type]
    ):
        assert send(action, EVENT, NOW) in ("200", "204")
    assert [path for path, _, _ in receiver.got] == [
        "/repos/owner/name/dispatches",
        "/api/v2/dags/retrain/dagRuns",
        "/apis/v2beta1/runs",
        "/api/v1/workflows/ml/submit",
    ]
    for _, headers, body in receiver.got:
        assert headers["authorization"] == "Bearer t0ken"
        assert json.loads(body)


def test_a_run_that_is_there_already_is_taken(receiver: Receiver) -> None:
    receiver.answers = [(409, b"DAGRun already exists", {})]
    assert "had this event already" in send(airflow(receiver), EVENT, NOW)


@pytest.mark.parametrize("status", [400, 401, 404, 409])
def test_what_is_refused_is_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, b"no: t0ken\nis \x1b[31mwrong" + b"x" * 1000, {})]
    with pytest.raises(ActionRefusedError, match=f"it answers {status}") as raised:
        send(ActionSettings("kubeflow", url=receiver.url, pipeline="p", token_env="TOKEN"), EVENT, NOW)
    told = str(raised.value)
    assert "t0ken" not in told
    assert "no: *** is" in told
    assert told.isprintable()
    assert len(told) < 400


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, b"later", {})]
    with pytest.raises(UnavailableError, match=f"it answers {status}: later"):
        send(airflow(receiver), EVENT, NOW)


def test_a_redirection_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(307, b"", {"Location": f"{receiver.url}/elsewhere"})]
    with pytest.raises(ActionRefusedError, match="it answers 307"):
        send(airflow(receiver), EVENT, NOW)
    assert len(receiver.got) == 1


def test_nobody_there_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        action = ActionSettings("airflow", url=f"http://127.0.0.1:{unused.getsockname()[1]}", dag="retrain")
        with pytest.raises(UnavailableError, match="it does not answer"):
            send(action, EVENT, NOW)


def test_one_that_takes_the_request_and_says_nothing_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        action = ActionSettings("airflow", url=f"http://127.0.0.1:{silent.getsockname()[1]}", dag="retrain")
        with pytest.raises(UnavailableError, match="it does not answer"):
            send(action, EVENT, NOW, timeout_s=0.05)


def test_secrets_come_from_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    action = ActionSettings("webhook", url="https://a", token_file=tmp_path / "token", secret_env="SECRET")
    assert secrets_of(action) == Secrets("from a file", SECRET)
    with pytest.raises(InvalidInputError, match="variable SECRET with a secret is not set"):
        secrets_of(action, {})
    (tmp_path / "token").unlink()
    with pytest.raises(InvalidInputError, match="token cannot be read"):
        secrets_of(action)


def command(text: str, **settings: float) -> ActionSettings:
    return ActionSettings("command", command=(sys.executable, "-c", text), **settings)  # type: ignore[arg-type]


@contextmanager
def running(action: ActionSettings, clock: list[float] | None = None) -> Iterator[Command]:
    found = Command(action, EVENT) if clock is None else Command(action, EVENT, lambda: clock[0])
    try:
        yield found
    finally:
        found.close()


def ended(found: Command) -> Ended:
    os.waitid(os.P_PID, found.pid, os.WEXITED | os.WNOWAIT)
    told = found.poll()
    assert told is not None
    return told


def test_a_command_gets_the_event() -> None:
    text = (
        "import json, os, sys; event = json.load(sys.stdin); assert event == json.loads(os.environ['PENSTOCK_EVENT']);"
        "print(event['data']['model'], os.environ['PENSTOCK_MODEL'], os.environ['PENSTOCK_REASON'])"
    )
    with running(command(text)) as found:
        assert ended(found) == Ended(True, "it ended with 0: fraud fraud 'age' has drifted")


def test_a_command_that_fails_says_how() -> None:
    with running(command("import sys; print('reading\\n' * 1000); sys.exit('no\\x1b rows')")) as found:
        assert ended(found) == Ended(False, "it ended with 1: no rows")
    with running(command("import sys; sys.exit('x' * 1000 + ' no rows')")) as found:
        told = ended(found)
    assert told.detail.startswith("it ended with 1: xx")
    assert told.detail.endswith(" no rows")
    assert len(told.detail) < 400


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started() -> None:
    """The one that it started holds the pipe, whose end says that both are gone."""
    text = (
        "import subprocess, sys, os; fd = int(os.environ['HELD']); os.set_inheritable(fd, True);"
        "p = subprocess.Popen([sys.executable, '-c', 'import os, time; os.write(%d, b\"x\"); time.sleep(600)' % fd],"
        " close_fds=False); p.wait()"
    )
    reading, writing = os.pipe()
    clock = [0.0]
    os.set_inheritable(writing, True)
    original = actions.subprocess.Popen

    def inheriting(*arguments: object, **named: object) -> object:
        return original(*arguments, close_fds=False, **named)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELD", str(writing))
        patch.setattr(actions.subprocess, "Popen", inheriting)
        found = Command(command(text, timeout_s=5.0), EVENT, lambda: clock[0])
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    assert found.poll() is None
    clock[0] = 6.0
    assert found.poll() is None
    assert os.read(reading, 1) == b""
    os.close(reading)
    told = ended(found)
    assert not told.is_good
    assert told.detail.startswith("it ran for more than 5 s and was ended")


def test_a_command_that_ignores_its_end_is_killed() -> None:
    clock = [0.0]
    text = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
    with running(command(text, timeout_s=5.0), clock) as found:
        while b"on" not in os.pread(found._output.fileno(), 2, 0):
            os.sched_yield()
        clock[0] = 6.0
        assert found.poll() is None
        clock[0] = 7.0 + actions.GRACE_S
        assert found.poll() is None
        assert not ended(found).is_good


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidInputError, match="'/no/such' cannot be started"):
        Command(ActionSettings("command", command=("/no/such",)), EVENT)
