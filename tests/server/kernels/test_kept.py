import os
from pathlib import Path

from penstock_server import leases
from penstock_server.kernels import kept


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(folder: Path, name: str, used: int) -> Path:
    path = folder / name
    path.write_bytes(b"")
    os.utime(path, (used, used))
    return path


def test_the_newest_stay_and_the_ones_in_use(tmp_path: Path) -> None:
    paths = [put(tmp_path, f"kernels-features-{number}.bin", number) for number in range(kept.KEPT + 3)]
    lease = leases.take(paths[1])
    kept.keep(paths[0])
    kept.sweep(tmp_path)
    assert left(tmp_path) == sorted(path.name for path in (*paths[:2], *paths[4:]))
    assert lease is not None
    kept.keep(tmp_path / "kernels-features-2.bin")  # not there any more


def test_sets_are_counted_apart(tmp_path: Path) -> None:
    for number in range(kept.KEPT + 1):
        put(tmp_path, f"kernels-features-{number}.bin", number)
    for name in ("kernels-transport-a.bin", "kernels-0123.bin", "other.bin"):
        put(tmp_path, name, 0)
    kept.sweep(tmp_path)
    features = [f"kernels-features-{number}.bin" for number in range(1, kept.KEPT + 1)]
    assert left(tmp_path) == ["kernels-0123.bin", *features, "kernels-transport-a.bin", "other.bin"]
