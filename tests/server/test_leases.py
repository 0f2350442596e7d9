import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server import leases


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_leased_is_not_for_deleting(is_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.mkdir() if is_folder else path.write_text("")
    first, second = leases.take(path), leases.take(path)
    assert first is not None
    assert second is not None
    first.close()
    first.close()
    with leases.for_deleting(path) as is_free:
        assert not is_free
    second.close()
    with leases.for_deleting(path) as is_free:
        assert is_free
        assert leases.take(path) is None
    assert leases.take(path) is not None


def test_a_lease_goes_with_its_name(tmp_path: Path) -> None:
    """A folder that another takes the place of is not the one that was leased."""
    path = tmp_path / "leased"
    path.mkdir()
    lease = leases.take(path)
    path.rename(tmp_path / "aside")
    path.mkdir()
    with leases.for_deleting(path) as is_free:
        assert is_free
    with leases.for_deleting(tmp_path / "aside") as is_free:
        assert not is_free
    assert lease is not None


def test_nothing_there_is_no_lease(tmp_path: Path) -> None:
    assert leases.take(tmp_path / "nothing") is None
    with leases.for_deleting(tmp_path / "nothing") as is_free:
        assert not is_free


def test_a_lease_ends_with_its_process_and_outlives_deletion(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.mkdir()
    code = (
        "import sys; from pathlib import Path; from penstock_server import leases; "
        "lease = leases.take(Path(sys.argv[1])); print(lease is not None, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with leases.for_deleting(path) as is_free:
            assert not is_free
        process.kill()
        process.wait()
    with leases.for_deleting(path) as is_free:
        assert is_free
    shutil.rmtree(path)


def test_a_lease_that_nobody_holds_is_closed(tmp_path: Path) -> None:
    lease = leases.take(tmp_path)
    del lease
    with leases.for_deleting(tmp_path) as is_free:
        assert is_free
