"""The command line: `python -m penstock_conformance HOST:PORT`.

The exit status is 0 if no case failed, 1 if some did, and 2 if the server could not be asked.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock_conformance import cases, contract, report
from penstock_conformance.case import SPECIFICATION, Case, Outcome, Result
from penstock_conformance.contract import MODELS
from penstock_conformance.grpc_wire import GrpcWire
from penstock_conformance.rest_wire import RestWire
from penstock_conformance.run import chosen, tried

_PORT = 8001
_REACH_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite and returns the exit status."""
    options = parser().parse_args(arguments)
    # gRPC's core writes lines of its own to standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    of_grpc, of_rest = (chosen(each, options.section, options.only) for each in (cases.grpc(), cases.rest()))
    if options.write_models is not None:
        contract.write(options.write_models)
        print(f"{len(MODELS)} models are in {options.write_models}")
        return 0
    if options.models:
        print("\n".join(_described(model) for model in MODELS.values()))
        return 0
    if options.list:
        print("\n".join(f"{case.id}  {case.rule}" for case in (*of_grpc, *of_rest)))
        return 0
    if options.host is None and options.http is None:
        print("penstock_conformance: expected the server's address, as HOST:PORT or --http HOST:PORT", file=sys.stderr)
        return 2
    results = _ask(options, of_grpc, of_rest)
    if results is None:
        return 2
    print(report.table(results))
    if text := report.failures(results):
        print(f"\n{text}")
    if options.json is not None:
        about = {"grpc": options.host, "http": options.http, "specification": SPECIFICATION}
        options.json.write_text(json.dumps(report.record(results, about), indent=1) + "\n")
    return int(any(result.outcome is Outcome.FAILED for result in results))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m penstock_conformance",
        description="Asks a server whether it keeps the Open Inference Protocol. The server serves the models that --models "
        "names; --write-models writes them for a server of ONNX, such as `penstock serve --model-repository DIR`.",
    )
    made.add_argument("host", nargs="?", metavar="HOST[:PORT]", help=f"the server's gRPC address (port: {_PORT})")
    made.add_argument("--http", metavar="HOST:PORT", help="the server's address of REST, whose cases are tried too")
    made.add_argument("--section", action="append", default=[], metavar="NAME", help="only this section; several times")
    made.add_argument(
        "--only", action="append", default=[], metavar="ID", help="only cases like this, such as 'grpc.raw.*'"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every result to a file")
    made.add_argument(
        "--model", action="append", default=[], metavar="NAME=OTHER", help="the server's own name of a model"
    )
    made.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="a model that the server does not have"
    )
    made.add_argument("--list", action="store_true", help="show the cases, and ask nobody")
    made.add_argument("--models", action="store_true", help="show what the models take and give, and ask nobody")
    made.add_argument("--write-models", type=Path, metavar="DIR", help="write the models as ONNX, and ask nobody")
    return made


def _ask(options: argparse.Namespace, of_grpc: list[Case], of_rest: list[Case]) -> list[Result] | None:
    """The results of both wires, or of the one that is named; None where nobody answers."""
    names = dict(pair.split("=", 1) for pair in options.model)
    absent = frozenset(options.without)
    show = _progress(len(of_grpc) * (options.host is not None) + len(of_rest) * (options.http is not None))
    results: list[Result] = []
    if options.host is not None:
        address = options.host if ":" in options.host else f"{options.host}:{_PORT}"
        wire = GrpcWire(address, names)
        try:
            if not wire.reachable(_REACH_S):
                print(f"penstock_conformance: no server answers at {address}", file=sys.stderr)
                return None
            results += tried(wire, of_grpc, absent, show)
        finally:
            wire.close()
    if options.http is not None:
        rest = RestWire(options.http, names)
        if not rest.reachable():
            print(f"penstock_conformance: no server of HTTP answers at {options.http}", file=sys.stderr)
            return None
        results += tried(rest, of_rest, absent, show)
    return results


def _progress(total: int) -> Callable[[Result], None]:
    """Tells at a terminal how far it is."""
    done = 0

    def show(result: Result) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done}/{total} {result.case.id:60.60}", end=end, file=sys.stderr, flush=True)

    return show


def _described(model: contract.Model) -> str:
    def listed(tensors: contract.Tensors) -> str:
        return ", ".join(f"{name} {datatype} {list(shape)}" for name, (datatype, shape) in tensors.items())

    versions = f", versions {' and '.join(model.versions)}" if len(model.versions) > 1 else ""
    return f"{model.name}{versions}: {listed(model.inputs)} -> {listed(model.outputs)}; {model.does}"
