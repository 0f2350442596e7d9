"""Renders the chart by Helm, and writes the committed plain manifests: `python -m tests.tools.deploy.render`.

Taken is `helm` where it is installed, else Helm's own code as the package helm-python-sdk has it.
"""

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

DEPLOY: Final = Path(__file__).resolve().parents[3] / "tools" / "deploy"
CHART: Final = DEPLOY / "helm" / "penstock"
PLAIN: Final[dict[str, dict[str, Any]]] = {
    "penstock.yaml": {},
    "service-monitor.yaml": {"serviceMonitor": True},
    "autoscaling-hpa.yaml": {"autoscaling": {"hpa": True}},
    "autoscaling-keda.yaml": {"autoscaling": {"keda": True}},
}
"""The committed files, with the values that they are of; all but the first hold only what is added to that."""
_ADDED: Final = {
    "service-monitor.yaml": "monitor.yaml",
    "autoscaling-hpa.yaml": "autoscaling.yaml",
    "autoscaling-keda.yaml": "autoscaling.yaml",
}
_HEAD: Final = "# Written by `python -m tests.tools.deploy.render` from the chart's templates with their defaults.\n"


class NoHelmError(Exception):
    """Neither the program nor the package is here."""


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """The manifests of the chart by their template's file name, without those that are empty.

    Raises:
        NoHelmError: there is no Helm.
        ValueError: Helm refuses the values.
    """
    if helm := shutil.which("helm"):
        line = [helm, "template", "penstock", str(CHART), "--values", "-"]
        done = subprocess.run(line, input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        found: dict[str, str] = {}
        for part in done.stdout.split("---\n# Source: ")[1:]:
            path, _, text = part.partition("\n")
            found[path] = f"{found[path]}---\n{text}" if path in found else text
    else:
        try:
            helm_python = importlib.import_module("helm_python")
        except ImportError as error:
            raise NoHelmError("neither helm nor helm-python-sdk is installed") from error
        try:
            with helm_python.Chart.load(CHART) as chart:
                found = chart.render(values, name="penstock", namespace="default")
        except helm_python.HelmError as error:
            raise ValueError(str(error)) from error
    return {Path(name).name: text.strip() + "\n" for name, text in sorted(found.items()) if text.strip()}


def plain() -> dict[str, str]:
    """What the committed manifests should hold."""
    files = {}
    for file, values in PLAIN.items():
        found = rendered(values)
        texts = [found[_ADDED[file]]] if file in _ADDED else list(found.values())
        files[file] = _HEAD + "---\n".join(texts)
    return files


if __name__ == "__main__":
    for name, text in plain().items():
        (DEPLOY / "kubernetes" / name).write_text(text)
