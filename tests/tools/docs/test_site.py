"""The docs site: it builds without a broken link, and what nobody writes is whole."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "tools/docs"


@pytest.fixture(scope="module")
def generated() -> Any:
    sys.path.insert(0, str(DOCS))
    try:
        import generated
    finally:
        sys.path.remove(str(DOCS))
    return generated


@pytest.mark.long
@pytest.mark.slow
def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", "tools/mkdocs.yml", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert built.returncode == 0, built.stderr
    for page in ("index", "serve", "settings", "metrics", "commands", "architecture", "comparison"):
        text = (tmp_path / f"{page}.html").read_text()
        # Nothing is loaded from elsewhere: the site is read offline too.
        assert not re.findall(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="https?:', text), page


def test_every_command_and_option_that_a_page_names_is_there() -> None:
    from penstock_tools.cli.app import app

    root = typer.main.get_command(app)
    found = 0
    for page in sorted(DOCS.glob("*.md")):
        for line in re.findall(r"`(penstock [^`]+)`", page.read_text()):
            command, words = root, line.split()[1:]
            while words and words[0] in getattr(command, "commands", {}):
                command, words = command.commands[words[0]], words[1:]
            assert not hasattr(command, "commands") or not words or words[0].startswith("-"), (page.name, line)
            known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
            named = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert named <= known, (page.name, line)
            found += 1
    assert found > 10


def test_the_pages_of_the_reference_have_all_that_there_is(generated: Any) -> None:
    settings = generated.settings_page()
    assert "| `window_rows` | integer | `10000` |" in settings
    assert "## `[retraining.rules.NAME]`" in settings
    assert "- `[batching.models.NAME]`: `max_rows`" in settings
    commands = generated.commands_page()
    assert "## `penstock rollout start`" in commands
    assert "`--steps`" in commands
    assert "## `penstock train`" not in commands  # it is hidden
    names = {name for name, _, _ in generated.metrics()}
    named = set(re.findall(r"`((?:penstock|model)_[a-z0-9_]+)[`{]", (DOCS / "watch.md").read_text()))
    assert len(named) > 30
    assert named <= names | {f"{name}_bucket" for name in names}
    assert {"penstock_requests_total", "model_prediction_latency_seconds", "penstock_drift_alarm"} <= names


def test_links_are_made_links_between_pages(generated: Any) -> None:
    text = "[a](server/ARCHITECTURE.md#x) ![b](.github/images/demo.svg) [c](https://x.y) [d](#a)\n```\n[e](f)\n```\n"
    assert generated.moved(text, "README.md") == (
        "[a](architecture.md#x) ![b](images/demo.svg) [c](https://x.y) [d](index.md#a)\n```\n[e](f)\n```\n"
    )
    assert generated.moved("[a](tools/docs/serve.md)", "README.md") == "[a](serve.md)"
    with pytest.raises(ValueError, match="no page of the site shows server/nothing"):
        generated.moved("[a](nothing)", "server/ARCHITECTURE.md")
