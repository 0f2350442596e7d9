import os
import socket

import pytest

from bench.load.generator import LoadError
from bench.load.process import LoadPool, LoadProcess
from tests.bench.load.echo_server import plan


@pytest.mark.long
def test_processes_run_plan_after_plan_and_measure_the_servers_cpu(address, echo) -> None:
    with LoadPool(2) as pool:
        for _ in range(2):
            result = pool.run(plan(address), server_pid=os.getpid())
            assert (result.attempted, result.succeeded, result.failures) == (120, 120, {})
            assert result.probed is not None
            assert result.probed >= 0
        assert echo.seen.total() == 240
        assert pool.run(plan(address, connections=1)).succeeded == 120


def test_a_process_stops_on_request_and_passes_errors_on(address) -> None:
    with LoadProcess() as process:
        process.start(plan(address, max_requests=10**6, duration_s=300))
        process.stop()
        assert process.result().failures == {}
        with socket.socket() as bound:  # it does not listen, and keeps the port from others
            bound.bind(("127.0.0.1", 0))
            process.start(plan(f"127.0.0.1:{bound.getsockname()[1]}"))
            with pytest.raises(LoadError, match="no connection"):
                process.result()
        process.start(plan(address))
        assert process.result().succeeded == 120
