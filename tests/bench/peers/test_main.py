import pytest

from bench.peers import __main__ as command


def test_the_command_names_the_peers_it_knows(capsys) -> None:
    assert command.main(["mlserver", "nobody"]) == 2
    assert "no peer 'nobody'; there are mlserver" in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    assert "penstock/bench-peers" in "".join(capsys.readouterr().out.split())
