import runpy
import subprocess
import sys
import types
from pathlib import Path

from typer.main import get_command

from penstock_tools.cli.app import app

EXAMPLE = Path(__file__).parents[3] / "tools" / "examples" / "batch_dag.py"


def test_the_task_of_a_day_calls_a_command_that_there_is(monkeypatch):
    """Airflow is not installed: its decorators are stood in for, and a task runs when it is called, for one day."""
    schedules, called = [], []
    sdk = types.ModuleType("airflow.sdk")
    sdk.dag = lambda **options: schedules.append(options["schedule"]) or (lambda function: function)
    sdk.task = lambda function: lambda: function(ds="2027-01-15")
    monkeypatch.setitem(sys.modules, "airflow", types.ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append((command, check)))
    runpy.run_path(str(EXAMPLE))
    assert schedules == ["30 2 * * *"]
    (((program, name, *arguments), check),) = called
    assert (program, name, check) == ("penstock", "batch", True)
    options = get_command(app).commands[name].make_context(name, arguments).params
    assert (options["rows"], options["job"]) == ("s3://lake/payments/2027-01-15/", "2027-01-15")
