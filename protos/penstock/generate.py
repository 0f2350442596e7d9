"""`python -m penstock.generate [--check]`: writes the `_pb2` modules next to their .proto files, or checks that they are fresh.

protoc's own Python output registers in protobuf's default pool and needs a runtime at least as new as protoc. Ours holds
only the descriptor and registers it in `penstock.pool`, which every protobuf since 5.26 can do.
"""

import importlib.resources
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
HEADER = '"""Generated from {proto} by `make protos`; do not edit."""\n'
WIDTH = 100


def generated_files(proto: Path) -> dict[str, str]:
    """The text of each file generated from `proto`, by file name."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        well_known = importlib.resources.files("grpc_tools") / "_proto"
        arguments = [f"-I{proto.parent.parent}", f"-I{well_known}", f"--descriptor_set_out={out / 'set'}"]
        arguments += [f"--pyi_out={out}", str(proto.relative_to(proto.parent.parent))]
        if protoc.main(["protoc", *arguments]) != 0:
            raise SystemExit(f"protoc refused {proto}")
        files = descriptor_pb2.FileDescriptorSet.FromString((out / "set").read_bytes()).file
        # A field with the name of a keyword of Python's can be given in no other way.
        stub = (out / proto.parent.name / f"{proto.stem}_pb2.pyi").read_text().replace("**kwargs)", "**kwargs: object)")
    return {
        f"{proto.stem}_pb2.py": _module(proto.name, files[0].SerializeToString(deterministic=True)),
        f"{proto.stem}_pb2.pyi": stub,
    }


def _module(proto: str, descriptor: bytes) -> str:
    chunks = [descriptor[at : at + WIDTH] for at in range(0, len(descriptor), WIDTH)]
    literal = "\n".join(f"    {chunk!r}" for chunk in chunks)
    return f"{HEADER.format(proto=proto)}\nfrom penstock.pool import register\n\nglobals().update(register(\n{literal}\n))\n"


def main() -> int:
    """Writes every generated file; with `--check`, prints which differ and returns 1."""
    stale = []
    for proto in sorted(FOLDER.glob("*.proto")):
        for name, text in generated_files(proto).items():
            target = FOLDER / name
            if not target.exists() or target.read_text() != text:
                stale.append(name)
                if "--check" not in sys.argv:
                    target.write_text(text)
    if stale:
        sys.stdout.write(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale)}\n")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
