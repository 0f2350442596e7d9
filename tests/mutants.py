"""Changes the pure rooms one place at a time, and shows which changes no test sees.

No library fits. mutmut 3 names modules by their path, which four source roots make wrong, and leaves out decorated
functions, module constants and class bodies. cosmic-ray edits the files of the checkout and starts a Python per mutant.
Here each mutant is a fork of one process that has imported numpy, grpc and hypothesis already; it sees the changed
source through an import hook, and no file is touched.
"""

import argparse
import ast
import copy
import gc
import importlib.util
import os
import resource
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
REPORT: Final = ROOT / ".mutants" / "report.md"
ARGUED: Final = ROOT / "tests" / "mutants.toml"

# Each file with the tests that have to see a change of it.
_BATCHING: Final = ("tests/server/batching", "tests/server/prediction/test_executor.py")
_PREDICTION: Final = ("tests/server/prediction",)
# What makes answers of outputs. The rest of the room costs half a minute for each survivor, and sees no more.
_ANSWERS: Final = tuple(
    f"tests/server/prediction/test_{name}.py"
    for name in ("encode", "outputs", "predictor", "executor", "large_requests", "fusing", "shadow")
)
_CLIENT: Final = ("tests/client/test_retry.py", "tests/client/test_session.py", "tests/client/test_client.py")
PURE: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        [f"server/penstock_server/batching/{name}.py" for name in ("cost", "limits", "priorities", "queue")], _BATCHING
    ),
    **{
        f"server/penstock_server/access/{name}.py": (f"tests/server/access/test_{name}.py",)
        for name in ("policy", "tokens")
    },
    "server/penstock_server/rollout/plan.py": ("tests/server/rollout",),
    **dict.fromkeys(
        [
            f"server/penstock_server/drift/{name}.py"
            for name in ("statistics", "significance", "evaluate", "window", "history", "order", "repeats")
        ],
        ("tests/server/drift",),
    ),
    **{
        f"server/penstock_server/control/{name}.py": (f"tests/server/control/test_{name}.py",)
        for name in ("reconcile", "quarantine", "watchdog", "fallback", "readiness")
    },
    **{
        f"server/penstock_server/tracing/{name}.py": (f"tests/server/tracing/test_{name}.py",)
        for name in ("context", "exporter", "otlp", "tracer")
    },
    "server/penstock_server/response_cache/lru.py": ("tests/server/response_cache/test_lru.py",),
    "server/penstock_server/transport/window.py": ("tests/server/transport/test_window.py",),
    **dict.fromkeys(
        [f"server/penstock_server/prediction/{name}.py" for name in ("parse_cache", "routing_table")], _PREDICTION
    ),
    **dict.fromkeys([f"server/penstock_server/prediction/{name}.py" for name in ("outputs", "encode")], _ANSWERS),
    "client/penstock_client/retry.py": _CLIENT,
    "client/penstock_client/session.py": _CLIENT,
}

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_TWINS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: the path below the checkout.
        line: where it was.
        function: the function that it is in, or the class.
        change: what stood there, and what stands there now.
        tree: the whole module, changed.
    """

    file: str
    line: int
    function: str
    change: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """The same after lines have moved: what the argued ones are kept by."""
        return f"{self.file}::{self.function}: {self.change}"


def replacements(node: ast.AST) -> Iterator[ast.AST | None]:  # noqa: C901 - a table, a case per kind of node
    """What may stand in the node's place; None for nothing at all."""
    match node:
        case ast.Compare(left, [operator], comparators):
            for another in _COMPARISONS[type(operator)]:
                yield ast.Compare(left, [another()], comparators)
        case ast.BinOp(left, operator, right):
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
        case ast.AugAssign(target, operator, value):
            yield ast.AugAssign(target, _OPERATORS[type(operator)](), value)
            yield None
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
            for at in range(len(values)):
                rest = values[:at] + values[at + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.IfExp(test, body, other):
            yield ast.IfExp(test, other, body)
        case ast.If(test, body, other) | ast.While(test, body, other) if not isinstance(
            test, ast.Compare | ast.UnaryOp
        ):
            yield type(node)(ast.UnaryOp(ast.Not(), test), body, other)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
            if value not in {0, 1}:
                yield ast.Constant(value - 1 if isinstance(value, int) else value / 2)
        case ast.Call(ast.Name(name), arguments, keywords) if name in _TWINS:
            yield ast.Call(ast.Name(_TWINS[name], ast.Load()), arguments, keywords)
        case ast.Return(value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call()) | ast.Raise() | ast.Delete():
            yield None
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            yield None
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _parts(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    """The node's children with their places, less what no test should hold.

    That is annotations, decorators, a class's options and texts; and the numbers that a module or a class gives a name,
    which are choices: a test that repeats 65,536 proves nothing.
    """
    skipped = {"annotation", "returns", "decorator_list", "type_params", "bases"}
    if isinstance(node, ast.ClassDef):
        skipped |= {"keywords"}
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    for name, value in ast.iter_fields(node):
        if name in skipped:
            continue
        for at, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, ast.AST) and not (_is_for_types(part) or _is_choice(node, part)):
                yield name, at, part


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_choice(outer: ast.AST, node: ast.AST) -> bool:
    return (
        isinstance(outer, ast.Module | ast.ClassDef)
        and isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
    )


Place = tuple[tuple[str, int | None], ...]


def places(node: ast.AST, place: Place = (), function: str = "") -> Iterator[tuple[Place, str, ast.AST]]:
    """All nodes with the way to them from the module, and the function or class they are in."""
    for name, at, part in _parts(node):
        here = (*place, (name, at))
        inside = function
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{function}.{part.name}".lstrip(".")
        yield here, inside, part
        yield from places(part, here, inside)


def _changed(tree: ast.Module, place: Place, new: ast.AST | None) -> ast.Module:
    changed = copy.deepcopy(tree)
    parent: Any = changed
    for name, at in place[:-1]:
        parent = getattr(parent, name) if at is None else getattr(parent, name)[at]
    name, at = place[-1]
    new = ast.Pass() if new is None else new
    if at is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[at] = new
    return ast.fix_missing_locations(changed)


def mutants_of(file: str) -> Iterator[Mutant]:
    tree = ast.parse((ROOT / file).read_text())
    for place, function, node in places(tree):
        for new in replacements(node):
            old_text, new_text = (_text(at) for at in (node, new))
            yield Mutant(file, node.lineno, function, f"{old_text} -> {new_text}", _changed(tree, place, new))


def _text(node: ast.AST | None) -> str:
    text = "pass" if node is None else ast.unparse(ast.fix_missing_locations(node))
    return text.splitlines()[0][:100]


class _ChangedModule(MetaPathFinder, SourceFileLoader):
    """Finds the changed module before the file is found, and everything else not at all."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        name = ".".join(Path(mutant.file).with_suffix("").parts[1:])
        super().__init__(name, str(ROOT / mutant.file))

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutant.tree, self.path, "exec")


def tests_of(file: str) -> tuple[list[str], list[str]]:
    """The test of this module, and the rest of what has to see a change of it, for what that one leaves alive."""
    found: dict[str, None] = {}
    for path in PURE[file]:
        files = sorted((ROOT / path).glob("**/test_*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        found |= dict.fromkeys(str(at.relative_to(ROOT)) for at in files)
    own = [path for path in found if Path(path).name == f"test_{Path(file).stem}.py"]
    return own, [path for path in found if path not in own]


_MARGIN: Final = 6.0
_LEAST_CPU_S: Final = 20.0
_MEMORY_BYTES: Final = 16 << 30
_PLUGINS: Final = ("pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
"""What the tests use. Libraries bring others along, which each fork would load: most of what a mutant cost."""


def _run_tests(stages: Sequence[Sequence[str]], mutant: Mutant | None, cpu_s: float) -> None:
    """Ends this process with pytest's exit code."""
    import pytest

    # A loop that no longer ends is ended by its CPU time, so that a busy machine kills no mutant.
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2) if mutant else (0, 1):
        os.dup2(nothing, stream)
    if mutant:
        sys.meta_path.insert(0, _ChangedModule(mutant))
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    options += [option for plugin in _PLUGINS for option in ("-p", plugin)]
    code = 99
    try:
        code = next((code for tests in stages if tests and (code := int(pytest.main([*options, *tests])))), 0)
    finally:
        os._exit(code)


@dataclass(slots=True)
class _Run:
    mutant: Mutant | None
    began_s: float


class Runner:
    """Forks one process per mutant, `jobs` at a time; says of each whether a test saw it."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._running: dict[int, _Run] = {}

    def cpu_s(self, stages: Sequence[Sequence[str]]) -> float:
        """What the tests cost on the unchanged code, which has to pass."""
        pid = self._fork(stages, None, 3600)
        _, status, used = os.wait4(pid, 0)
        del self._running[pid]
        if status != 0:
            paths = " ".join(path for tests in stages for path in tests)
            sys.exit(f"the tests fail without any change: python -m pytest -m 'not slow' {paths}")
        return used.ru_utime + used.ru_stime

    def all(self, mutants: Sequence[Mutant], stages: Sequence[Sequence[str]]) -> Iterator[tuple[Mutant, bool]]:
        """Each mutant, and whether it survived."""
        cpu_s = max(_LEAST_CPU_S, _MARGIN * self.cpu_s(stages))
        for mutant in mutants:
            if len(self._running) >= self._jobs:
                yield self._wait(cpu_s)
            self._fork(stages, mutant, cpu_s)
        while self._running:
            yield self._wait(cpu_s)

    def _fork(self, stages: Sequence[Sequence[str]], mutant: Mutant | None, cpu_s: float) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _run_tests(stages, mutant, cpu_s)
        self._running[pid] = _Run(mutant, time.monotonic())
        return pid

    def _wait(self, cpu_s: float) -> tuple[Mutant, bool]:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in self._running:
                mutant = self._running.pop(pid).mutant
                assert mutant is not None
                return mutant, status == 0
            time.sleep(0.01)
            # One that waits for what never comes uses no CPU.
            for waiting, run in self._running.items():
                if time.monotonic() - run.began_s > 3 * cpu_s:
                    os.kill(waiting, 9)


def _preload() -> None:
    """Imports what the tests need and no mutant changes, once for all forks."""
    sys.path.insert(0, str(ROOT))
    for name in (
        "hypothesis.stateful",
        "pytest",
        *_PLUGINS,
        "grpc",
        "msgspec",
        "numpy",
        "onnxruntime",
        "llvmlite.binding",
    ):
        __import__(name)
    gc.freeze()  # pytest collects garbage twice, and need not look at all this


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files to change, by a part of their path; all pure ones by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time (one per core)")
    parser.add_argument("--list", action="store_true", help="only show how many mutants each file has")
    parser.add_argument(
        "--floor", type=float, default=0.0, help="exit with 1 when less than this share is killed or argued"
    )
    options = parser.parse_args()
    files = [file for file in PURE if not options.files or any(part in file for part in options.files)]
    argued: dict[str, str] = tomllib.loads(ARGUED.read_text())["argued"] if ARGUED.exists() else {}
    os.chdir(ROOT)
    if options.list:
        for file in files:
            print(f"{len(list(mutants_of(file))):5}  {file}")
        return 0
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    _preload()
    lines = ["| File | Mutants | Killed | Argued | Survived |", "| --- | ---: | ---: | ---: | ---: |"]
    unseen: list[Mutant] = []
    stale = {name for name in argued if name.partition("::")[0] in files}
    total = killed = excused = 0
    for file in files:
        mutants = list(mutants_of(file))
        survivors = [
            mutant for mutant, has_survived in Runner(options.jobs).all(mutants, tests_of(file)) if has_survived
        ]
        accepted = [mutant for mutant in survivors if mutant.name in argued]
        stale -= {mutant.name for mutant in accepted}
        new = sorted((mutant for mutant in survivors if mutant.name not in argued), key=lambda mutant: mutant.line)
        unseen += new
        total, killed, excused = total + len(mutants), killed + len(mutants) - len(survivors), excused + len(accepted)
        lines.append(f"| {file} | {len(mutants)} | {len(mutants) - len(survivors)} | {len(accepted)} | {len(new)} |")
        print(lines[-1], *(f"{at.file}:{at.line}  {at.function}: {at.change}" for at in new), sep="\n", flush=True)
    score = (killed + excused) / total
    lines += [f"| total | {total} | {killed} | {excused} | {len(unseen)} |", ""]
    lines += [f"Killed: {killed / total:.1%}. Killed or argued: {score:.1%}.", "", "Survived:", ""]
    lines += [f"- `{at.file}:{at.line}` `{at.function}`: `{at.change}`" for at in unseen]
    lines += ["", "Argued, but killed or gone:", "", *(f"- `{name}`" for name in sorted(stale))] if stale else []
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")
    print(
        f"{killed} of {total} killed ({killed / total:.1%}), {excused} argued; {REPORT.relative_to(ROOT)} has the survivors"
    )
    return int(score < options.floor)


if __name__ == "__main__":
    sys.exit(main())
