import sys

import pytest

from bench.peers import environments
from tests.bench.peers.a_peer import PEER


def test_an_environment_is_made_in_the_cache_with_the_pins(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make, install = environments.commands(PEER)
    folder = str(tmp_path / "penstock" / "bench-peers" / "other")
    assert make[-3:] == ["--python", sys.executable, folder]
    assert install[-2:] == ["other==1.2", "numpy==2.0"]
    assert not environments.is_fresh(PEER)


def test_an_environment_is_kept_until_its_pins_change(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran = []

    def install(command):
        ran.append(command)
        environments.folder(PEER).mkdir(parents=True, exist_ok=True)
        return ""

    monkeypatch.setattr(environments, "_run", install)
    environments.make(PEER)
    environments.make(PEER)
    assert len(ran) == 2
    monkeypatch.setattr(environments, "commands", lambda _: [["uv"]])
    (environments.folder(PEER) / environments._STAMP).write_text("older pins")
    environments.make(PEER)
    assert ran[2:] == [["uv"]]
    environments.remove(PEER)
    assert not environments.folder(PEER).exists()


def test_a_failed_installation_quotes_the_installer() -> None:
    with pytest.raises(environments.InstallError, match="python -c failed: no such version"):
        environments._run([sys.executable, "-c", "raise SystemExit('no such version')"])
    with pytest.raises(environments.InstallError, match="nowhere"):
        environments._run(["/nowhere/uv", "venv"])
