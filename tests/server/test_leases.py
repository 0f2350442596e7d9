import errno
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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


def test_a_look_of_a_sweep_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as look:
        assert look.enter_context(leases.for_deleting(tmp_path))
        monkeypatch.setattr(leases.time, "sleep", lambda _: look.close())
        assert leases.take(tmp_path) is not None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_nothing_is_deleted_and_nothing_needs_to_be_held(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(leases.fcntl, "flock", fail)
    assert leases.take(tmp_path) is not None
    assert leases.new_folder(tmp_path, "new-")[0].is_dir()
    assert leases.take(tmp_path / "nothing") is None
    with leases.for_deleting(tmp_path) as is_free:
        assert not is_free


def test_a_new_folder_is_made_again_until_no_sweep_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent is taken before it is made, then it is taken itself before it has its lease."""
    parent = tmp_path / "parent"
    made, sweeps = tempfile.mkdtemp, iter(("of the parent", "of the folder"))

    def mkdtemp(**place: Any) -> str:
        taken = next(sweeps, "")
        if taken == "of the parent":
            parent.rmdir()
        folder = made(**place)
        if taken == "of the folder":
            Path(folder).rmdir()
        return folder

    monkeypatch.setattr(leases.tempfile, "mkdtemp", mkdtemp)
    folder, lease = leases.new_folder(parent, "new-")
    assert folder.is_dir()
    with leases.for_deleting(folder) as is_free:
        assert not is_free
    lease.close()
    monkeypatch.setattr(leases, "take", lambda _: None)
    with pytest.raises(OSError, match="deleted at once"):
        leases.new_folder(parent, "new-")


def test_a_lease_that_nobody_holds_is_closed(tmp_path: Path) -> None:
    lease = leases.take(tmp_path)
    del lease
    with leases.for_deleting(tmp_path) as is_free:
        assert is_free
