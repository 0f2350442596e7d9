"""Makes the pages of the docs site that nobody writes: mkdocs calls it as a hook.

The reference comes from the code: settings from the records that they are read into, commands from their options, metrics from
where they are made, messages from the `.proto` files. The README and other files of the repository are pages as they are. Links
between them are made links between pages.
"""

import ast
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from mkdocs.structure.files import File, Files

from penstock_tools.cli.app import app
from penstock_tools.config.reference import NAME, Setting, Table, tables

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = {
    "README.md": "index.md",
    "server/ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "report.md",
    "bench/judges/README.md": "judges.md",
    "tools/examples/churn/README.md": "example.md",
}
"""Files that are pages as they are."""
FOLDERS: Final = {".github/images/": "images/", "tools/examples/": "examples/"}
"""Files that are there to be looked at or copied, but for pages and what working with them leaves."""
LEFT_OUT: Final = frozenset({"node_modules", "__pycache__", ".venv", ".dvc", ".remote", "artifacts", "mlruns", "log"})
DOCS: Final = "tools/docs/"
_LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FENCE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and pictures that are not in the folder."""
    made = {
        **{page: moved((ROOT / file).read_text(), file) for file, page in PAGES.items()},
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "metrics.md": metrics_page(),
        "messages.md": messages_page(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for folder, place in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".md" and not LEFT_OUT & set(path.parts):
                name = place + path.relative_to(ROOT / folder).as_posix()
                files.append(File.generated(config, name, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes links from a page that lies here to files elsewhere links to their pages."""
    is_here = (ROOT / DOCS / page.file.src_uri).exists()
    return moved(markdown, DOCS + page.file.src_uri) if is_here else markdown


def moved(text: str, file: str) -> str:
    """The text of a file of the repository with its links turned into links between pages."""

    def link(found: re.Match[str]) -> str:
        target = found[2]
        if re.match(r"\w+:", target):
            return found[0]
        path, mark, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(file), path)) if path else file
        return f"{found[1]}{page_of(place) + mark + anchor}{found[3]}"

    return _outside_code(text, lambda part: _LINK.sub(link, part))


def page_of(place: str) -> str:
    """The page, or the picture, that shows a file of the repository.

    Raises:
        ValueError: none does.
    """
    if place in PAGES:
        return PAGES[place]
    if place.startswith(DOCS):
        return place.removeprefix(DOCS)
    for folder, held in FOLDERS.items():
        if place.startswith(folder):
            return held + place.removeprefix(folder)
    raise ValueError(f"no page of the site shows {place}")


def _outside_code(text: str, change: Any) -> str:
    """Changes what is not in a block of code."""
    parts, at = [], 0
    for block in _FENCE.finditer(text):
        parts += [change(text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, change(text[at:])])


_SETTINGS: Final = """
A server reads defaults, then the file of `--config`, then its command line. The file is TOML. Every setting has the default
that is shown; where that is *not set*, leaving the setting out is how to say it.

`penstock config show` writes all of this as a file, `penstock config check FILE` checks one, and `penstock config schema` gives
the JSON Schema by which editors complete it.
"""


def settings_page() -> str:
    """The reference of the settings file."""
    lines = [
        "# Settings",
        "",
        _SETTINGS,
        "",
    ]
    for table in tables():
        if not table.name.endswith(f"models.{NAME}"):
            lines += ["", *_table(table)]
    lines += [
        "",
        "## One model's own values",
        "",
        "A table `[TABLE.models.NAME]` holds what differs for one model:",
        "",
    ]
    for table in tables():
        if table.name.endswith(f"models.{NAME}"):
            lines.append(f"- `[{table.name}]`: {', '.join(f'`{setting.name}`' for setting in table.settings)}")
    return "\n".join(lines) + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"## `[{table.name}]`" if table.name else "## Above all tables"
    if table.name:
        yield f"\n{table.meaning}"
    yield "\n| Setting | Takes | Default | What it does |\n|---|---|---|---|"
    for setting in table.settings:
        yield f"| `{setting.name}` | {_cell(setting.kind)} | {_default(setting)} | {_cell(setting.meaning)} |"


def _default(setting: Setting) -> str:
    if setting.is_required:
        return "must be given"
    if setting.default is None:
        return "*not set*"
    value = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    shown = str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"') if value != "" else '""'
    return f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands_page() -> str:
    """The reference of the command line."""
    root = typer.main.get_command(app)
    return "\n".join(["# Commands", "", _prose(root.help or ""), *_commands(root, "penstock")]) + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        own = f"{path} {name}"
        yield f"\n## `{own}`\n\n{_prose(command.help or '')}"
        if hasattr(command, "commands"):
            yield from _commands(command, own)
            continue
        shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
        if shown:
            yield "\n| Option | What it does |\n|---|---|"
        for each in shown:
            names = ", ".join(f"`{option}`" for option in (*each.opts, *each.secondary_opts))
            if each.param_type_name == "argument":
                names = f"`{each.metavar or str(each.name).upper()}`"
            yield f"| {names} | {_cell(_prose(each.help or ''))} |"


def _prose(text: str) -> str:
    """A help text as Markdown."""
    return re.sub(r"\[/?bold\]", "`", text)


_METRICS: Final = """
At `/metrics` of the HTTP port, in Prometheus' text format and in OpenMetrics. Counters are summed over workers, and go on
where a worker was replaced. The series of a version end with the version.
"""


def metrics_page() -> str:
    """The reference of /metrics, of servers and streams, from the places where metrics are made."""
    found = {name: (kind, meaning) for name, kind, meaning in metrics()}
    lines = [
        "# Metrics",
        "",
        _METRICS,
        "",
        "| Metric | Kind | What it tells |",
        "|---|---|---|",
        *(f"| `{name}` | {kind} | {_cell(meaning)} |" for name, (kind, meaning) in sorted(found.items())),
    ]
    return "\n".join(lines) + "\n"


_KINDS: Final = {
    "CounterMetricFamily": ("counter", "_total"),
    "GaugeMetricFamily": ("gauge", ""),
    "HistogramMetricFamily": ("histogram", ""),
    "InfoMetricFamily": ("info", "_info"),
}


_NAME: Final = re.compile(r"(penstock|model)_[a-z0-9_]+")


def metrics() -> Iterator[tuple[str, str, str]]:
    """The name, kind and meaning of each metric: of those made where they are named, and of those that tables name."""
    for file in sorted([*(ROOT / "server").rglob("*.py"), *(ROOT / "tools/penstock_tools/stream").rglob("*.py")]):
        if "MetricFamily(" not in (text := file.read_text()):
            continue
        tree = ast.parse(text)
        counted = {id(within) for node in ast.walk(tree) if _makes_counters(node) for within in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _KINDS:
                yield from _named(node.func.id, node.args[:2])
            elif isinstance(node, ast.Tuple):
                yield from _named("CounterMetricFamily" if id(node) in counted else "GaugeMetricFamily", node.elts)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if key is not None and isinstance(value, ast.Tuple):
                        yield from _named("GaugeMetricFamily", [key, *value.elts])


def _makes_counters(node: ast.AST) -> bool:
    """Whether it is a loop over a table of counters."""
    return isinstance(node, ast.For) and "CounterMetricFamily(name" in ast.unparse(node)


def _named(family: str, told: Sequence[ast.expr]) -> Iterator[tuple[str, str, str]]:
    """A metric whose name comes first and whose meaning, a sentence, last; none if these are no such constants."""
    texts = [each.value for each in told if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if len(texts) >= 2 and _NAME.fullmatch(texts[0]) and texts[-1].endswith("."):
        kind, ending = _KINDS[family]
        yield texts[0].removesuffix(ending) + ending, kind, texts[-1]


_MESSAGES: Final = """# Messages

Predictions are those of the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol), so any of its clients
can ask for them. What it does not have is in a service of Penstock's own, `penstock.v1.Penstock`:

```proto
"""


def messages_page() -> str:
    """The reference of Penstock's own service, as its source says it."""
    return f"{_MESSAGES}{(ROOT / 'protos/penstock/penstock.proto').read_text().rstrip()}\n```\n"
