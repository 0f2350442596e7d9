"""The command line where only the client is installed: `penstock --help`, `--version` and `predict`.

The whole command line is built on typer, which a backend service that only asks for predictions does not install. Here the
same options are read by Python's own argparse; a test compares them. Every other command says what to install.
"""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock_tools.cli.errors import DEBUG_VARIABLE

OTHERS: Final = {
    "serve": "server",
    "compile": "server",
    "models": "server",
    "top": "server",
    "drift": "server",
    "labels": "server",
    "retraining": "server",
    "config": "server",
    "token": "server",
    "stream": "stream",
    "batch": "batch",
    "webhook": "tools",
    "drift-check": "tools",
    "rollout": "tools",
    "demo": "tools",
    "train": "tools",
    "publish": "tools",
    "features": "tools",
    "optimize": "tools",
    "promote": "tools",
    "replay": "tools",
}
"""The commands that need more than the client, and the extra that each comes with."""
_HIDDEN: Final = ("train",)


def run(arguments: Sequence[str]) -> None:
    """Runs the command line; `main` turns its errors into sentences."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if extra := OTHERS.get(command):
        sys.stderr.write(f"penstock: {command} needs more than the client; run: pip install 'penstock[{extra}]'\n")
        sys.exit(1)
    chosen = parser().parse_args(arguments)
    if chosen.debug:
        os.environ[DEBUG_VARIABLE] = "1"
    _predict(chosen)


def parser() -> argparse.ArgumentParser:
    """What the command line may hold."""
    others = ", ".join(f"{command} ({extra})" for command, extra in OTHERS.items() if command not in _HIDDEN)
    whole = argparse.ArgumentParser(
        prog="penstock",
        description="Gets predictions from a Penstock server.",
        epilog=f"Only the client is installed here. Other commands come with an extra: {others}. Install one with pip "
        "install 'penstock[server]' or pip install 'penstock[tools]'.",
    )
    whole.add_argument(
        "--debug", action="store_true", help="Show a traceback when a command fails; also PENSTOCK_DEBUG=1."
    )
    whole.add_argument("--version", action="version", version=f"penstock {importlib.metadata.version('penstock')}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_predict(commands.add_parser("predict", help="Gets predictions from a server and shows them."))
    return whole


def _add_predict(predict: argparse.ArgumentParser) -> None:
    env = os.environ
    add = predict.add_argument
    add("name", metavar="NAME", help="The model.")
    add("rows", metavar="ROWS", help="A .json or .csv file with a header; - reads JSON from standard input.")
    add("--server", metavar="HOST:PORT", default=env.get("PENSTOCK_SERVER", "127.0.0.1:8001"), help="[PENSTOCK_SERVER]")
    add("--version", metavar="V", default="", help="A version, or an alias such as @canary.")
    add("--key", metavar="K", help="The routing key.")
    add("--extra", choices=("ignore", "refuse"), default="ignore", help="Columns that the model does not take.")
    add("--explain", action="store_true", help="Show how much each raw column moved the answer.")
    add("--timeout", metavar="SECONDS", type=float, default=10.0, help="Give up after this long.")
    add("--json", action="store_true", help="Print JSON, for programs.")
    is_on = env.get("PENSTOCK_TLS", "").lower() in ("1", "true", "t", "yes", "y", "on")
    add("--tls", action="store_true", default=is_on, help="Encrypt the connection. [PENSTOCK_TLS]")
    for option, words in {
        "ca": "PEM of the authorities to trust; means --tls.",
        "cert": "PEM of your certificate; with --cert-key.",
        "cert-key": "PEM of your certificate's key.",
    }.items():
        variable = f"PENSTOCK_{option.upper().replace('-', '_')}"
        add(f"--{option}", metavar="FILE", type=Path, default=env.get(variable), help=f"{words} [{variable}]")
    name = env.get("PENSTOCK_SERVER_NAME")
    add(
        "--server-name",
        metavar="NAME",
        default=name,
        help="The name in the server's certificate. [PENSTOCK_SERVER_NAME]",
    )


def _predict(chosen: argparse.Namespace) -> None:
    from penstock_tools.client_commands import predict as command
    from penstock_tools.client_commands.connection import Encryption

    prediction = command.predict(
        chosen.name,
        chosen.rows,
        server=chosen.server,
        encryption=Encryption(
            tls=chosen.tls,
            ca=chosen.ca,
            certificate=chosen.cert,
            key=chosen.cert_key,
            server_name=chosen.server_name,
        ),
        version=chosen.version,
        key=chosen.key,
        extra=chosen.extra,
        explain=chosen.explain,
        timeout_s=chosen.timeout,
    )
    if chosen.json:
        sys.stdout.write(command.as_json(prediction) + "\n")
    else:
        command.show(prediction)
