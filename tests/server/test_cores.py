import os
from pathlib import Path

import pytest

from penstock_server import cores as module
from penstock_server.cores import cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of control groups, of which this process is in `0::/pods/own` and `4:cpu,cpuacct:/pods/own`; 8 cores."""
    (tmp_path / "cgroup").write_text("9:name=systemd:/\n4:cpu,cpuacct:/pods/own\n3:cpuset:/else\n0::/pods/own\n")
    monkeypatch.setattr(module, "_OWN", tmp_path / "cgroup")
    monkeypatch.setattr(module, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path / "groups"


def limit(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name.replace("__", ".")).write_text(content)


def test_without_limits_all_cores_count(groups: Path) -> None:
    assert cores() == 8
    limit(groups / "pods" / "own", cpu__max="max 100000\n")
    limit(groups / "cpu" / "pods" / "own", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cores() == 8


def test_cores_that_the_process_is_not_bound_to_do_not_count(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(groups, cpu__max="400000 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5})
    assert cores() == 2


@pytest.mark.parametrize(("quota", "found"), [(350_000, 3), (100_000, 1), (20_000, 1)])
def test_a_limit_counts_and_a_part_of_a_core_does_not(groups: Path, quota: int, found: int) -> None:
    limit(groups / "pods" / "own", cpu__max=f"{quota} 100000\n")
    assert cores() == found


def test_the_least_limit_of_the_groups_around_counts(groups: Path) -> None:
    limit(groups / "pods" / "own", cpu__max="600000 100000\n")
    limit(groups / "pods", cpu__max="250000 50000\n")
    assert cores() == 5


def test_a_container_s_own_group_is_the_root_that_it_sees(groups: Path) -> None:
    limit(groups / "cpu", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    assert cores() == 3
    limit(groups.parent, cpu__max="100000 100000\n")  # outside
    assert cores() == 3


def test_a_system_without_control_groups(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OWN", groups / "none")
    assert cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
