"""Runs the steps of a workflow as GitHub would, on this machine: its commands, their environment and outputs, its conditions.

Actions (`uses:`) are left out, since what they bring is here already. An expression that is not known is an error.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_EXPRESSION: Final = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_TERM: Final = re.compile(r"\s*(==|!=|\|\||always\(\)|'[^']*'|[\w.]+)")


class Workflow:
    """A workflow's file.

    Args:
        path: the file.
        folder: the checkout that all jobs work in.
        context: what expressions may name, such as {"github.event_name": "push"}; of `vars` and `secrets` that are not named
            GitHub says "".
        environment: of the runner.
    """

    def __init__(self, path: Path, folder: Path, context: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._told = yaml.safe_load(path.read_text())
        self._folder = folder
        self._context = dict(context)
        self._environment = dict(environment)
        self.summary = ""

    def run(self) -> list[str]:
        """Runs all jobs in their order; the names of the steps that ran, as job/step."""
        ran: list[str] = []
        for name, job in self._told["jobs"].items():
            if self._holds(job.get("if", "")):
                ran += [f"{name}/{step}" for step in self._job(job)]
                for output, text in job.get("outputs", {}).items():
                    self._context[f"needs.{name}.outputs.{output}"] = self._filled(text)
        return ran

    def _job(self, job: Mapping[str, Any]) -> list[str]:
        environment = self._environment | self._env(self._told) | self._env(job)
        ran = []
        for step in job["steps"]:
            if "run" in step and self._holds(step.get("if", "")):
                self._step(step, environment | self._env(step))
                ran.append(step["name"])
        return ran

    def _step(self, step: Mapping[str, Any], environment: dict[str, str]) -> None:
        output, summary = self._folder.parent / "output", self._folder.parent / "summary"
        output.write_text("")
        summary.write_text("")
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self._filled(step["run"])],
            cwd=self._folder,
            env=environment | {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{step['name']}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.summary += summary.read_text()
        for line in output.read_text().splitlines():
            key, _, value = line.partition("=")
            self._context[f"steps.{step['id']}.outputs.{key}"] = value

    def _env(self, where: Mapping[str, Any]) -> dict[str, str]:
        return {key: self._filled(str(value)) for key, value in where.get("env", {}).items()}

    def _filled(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: self._value(found[1]), text)

    def _holds(self, condition: str) -> bool:
        return not condition or self._value(condition) not in ("", "false")

    def _value(self, expression: str) -> str:
        """A name, a literal, `a || b`, `a == b` or `a != b`."""
        terms = _TERM.findall(expression)
        assert "".join(terms) == re.sub(r"\s+(?=([^']*'[^']*')*[^']*$)", "", expression), f"what is {expression!r}?"
        values = [term if term in ("==", "!=", "||") else self._term(term) for term in terms]
        while len(values) > 1:
            left, operator, right, *rest = values
            match operator:
                case "||":
                    values = [left or right, *rest]
                case "==" | "!=":
                    values = [str((left == right) == (operator == "==")).lower(), *rest]
        return values[0]

    def _term(self, term: str) -> str:
        if term == "always()":
            return "true"
        if term.startswith("'"):
            return term[1:-1]
        if term.startswith(("vars.", "secrets.")):
            return self._context.get(term, "")
        return self._context[term]
