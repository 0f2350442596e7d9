"""A store that answers as S3 does: moto's server, in this process."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from s3fs import S3FileSystem


@contextmanager
def s3_server() -> Iterator[str]:
    """Starts an empty one, and has AWS's clients find it by their variables; gives its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        # All servers of a process have the same buckets.
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"), timeout=30).close()
        with pytest.MonkeyPatch.context() as environment:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                environment.setenv(name, "testing")
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
            environment.setenv("AWS_ENDPOINT_URL", address)
            S3FileSystem.clear_instance_cache()  # they know the address of one before
            yield address
    finally:
        server.stop()
