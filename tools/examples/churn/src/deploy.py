"""Gives a version its role, by default the one in models/version.json: the first is champion, each later one is rolled out.

Servers of the registry follow by themselves. A rollout begins as a shadow, then takes a growing share of the traffic, and goes
back if it is proven worse: in errors, in time or in answers that turn out to be wrong.
"""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import tracking
import yaml


def command(name: str, version: str, champion: str | None, rollout: dict[str, str | list[str]]) -> list[str] | None:
    """What deploys the version beside this champion; None where it is champion already.

    >>> command("churn", "2", "1", {"steps": "10,100"})
    ['penstock', 'rollout', 'start', 'churn', '2', '--steps', '10,100']
    """
    if champion is None:
        return ["penstock", "promote", name, version]
    if champion == version:
        return None
    options = []
    for option, values in rollout.items():
        for value in values if isinstance(values, list) else [values]:
            options += [f"--{option.replace('_', '-')}", str(value)]
    return ["penstock", "rollout", "start", name, version, *options]


def main() -> int:
    """Runs it; returns its exit code."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    name = params["publish"]["name"]
    version = sys.argv[1] if len(sys.argv) > 1 else json.loads(Path("models/version.json").read_text())["version"]
    tracking.connect()
    champion = mlflow.MlflowClient().get_registered_model(name).aliases.get("champion")
    chosen = command(name, version, None if champion is None else str(champion), params["rollout"])
    if chosen is None:
        sys.stdout.write(f"{name} version {version} is champion already\n")
        return 0
    return subprocess.run(chosen, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
