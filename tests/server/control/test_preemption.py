"""The poller against a small server that answers as each cloud's metadata do."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from penstock_server.control.preemption import ask, follow, notice
from penstock_server.control.settings import Cloud, PreemptionSettings
from penstock_server.errors import InvalidInputError

TIMEOUT_S = 10.0


class Metadata(ThreadingHTTPServer):
    """A cloud's metadata: `going` is what is said of the machine's end, by cloud; None while there is nothing to say."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.going = False
        self.is_broken = False
        self.asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        is_right = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        self._say(200 if is_right else 400, b"a-token\n")

    def do_GET(self) -> None:
        self.server.asked += 1
        going = self.server.going
        if self.server.is_broken:
            self._say(200, b"<html>a captive portal</html>")
        elif self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != "a-token":
                self._say(401, b"")
            else:
                self._say(200 if going else 404, b'{"action": "terminate", "time": "2026-01-31T12:00:00Z"}')
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            self._say(200, b"TRUE" if going else b"FALSE")
        elif self.path == "/metadata/scheduledevents?api-version=2020-07-01" and self.headers["Metadata"] == "true":
            event = b'{"EventId": "1", "EventType": "Preempt", "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT"}'
            self._say(200, b'{"DocumentIncarnation": 1, "Events": [%b]}' % (event if going else b""))
        else:
            self._say(400, b"")

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(TIMEOUT_S)


CLOUDS: list[tuple[Cloud, str]] = [
    ("aws", "terminate at 2026-01-31T12:00:00Z"),
    ("gcp", "preempted"),
    ("azure", "Preempt not before Mon, 19 Sep 2026 18:29:47 GMT"),
]


@pytest.mark.parametrize(("cloud", "said"), CLOUDS)
def test_each_cloud_is_asked_as_it_wants_to_be(
    metadata: Metadata, cloud: Cloud, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which is not asked
    assert ask(cloud, metadata.address) == ""
    metadata.going = True
    assert ask(cloud, f"{metadata.address}/") == said


@pytest.mark.parametrize(
    ("cloud", "body"),
    [
        ("aws", b'{"action": "rebalance"}'),
        ("gcp", b"FALSE\n"),
        ("azure", b'{"Events": [{"EventType": "Reboot"}, {}]}'),
        ("azure", b"{}"),
    ],
)
def test_what_does_not_end_the_machine_is_no_notice(cloud: Cloud, body: bytes) -> None:
    assert notice(cloud, body) == ""


async def test_the_server_leaves_once_it_is_told(metadata: Metadata) -> None:
    left = asyncio.Event()
    times: list[int] = []

    def leave() -> None:
        times.append(metadata.asked)
        left.set()

    pauses = asyncio.Semaphore(0)

    async def sleep(_: float) -> None:
        pauses.release()
        await asyncio.sleep(0.001)

    following = asyncio.create_task(follow(PreemptionSettings("gcp", metadata.address), leave, sleep=sleep))
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(3):
            await pauses.acquire()
        assert not left.is_set()
        metadata.going = True
        await left.wait()
    assert times == [metadata.asked]
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_cloud_that_is_none_is_told_of_once(metadata: Metadata, capsys: pytest.CaptureFixture[str]) -> None:
    metadata.is_broken = True
    left, pauses = asyncio.Event(), asyncio.Semaphore(0)

    async def sleep(_: float) -> None:
        pauses.release()
        await asyncio.sleep(0.001)

    following = asyncio.create_task(follow(PreemptionSettings("azure", metadata.address), left.set, sleep=sleep))
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(3):
            await pauses.acquire()
        assert not left.is_set()
        metadata.is_broken, metadata.going = False, True
        await left.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert capsys.readouterr().out.count("does not say whether it takes this machine away") == 1


def test_what_is_no_answer_is_an_error(metadata: Metadata) -> None:
    metadata.is_broken = True
    with pytest.raises(msgspec.MsgspecError):
        ask("aws", metadata.address)
    assert ask("gcp", metadata.address) == ""  # any text but TRUE
    with pytest.raises(OSError, match="refused"):
        ask("gcp", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cloud": "moon"}, "preemption.cloud is 'moon', expected aws, gcp, azure"),
        ({"address": "https://host"}, "expected http://HOST"),
        ({"address": "http://"}, "expected http://HOST"),
        ({"every_s": 0.5}, "expected 1 to 60 seconds"),
        ({"every_s": float("nan")}, "expected 1 to 60 seconds"),
    ],
)
def test_settings_say_what_is_wrong(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        PreemptionSettings(**wrong)  # type: ignore[arg-type]
