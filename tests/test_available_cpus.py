"""How many CPUs affinity and cgroups leave: files as the kernel writes them, in a folder of their own."""

from __future__ import annotations

import os

import pytest
from lstm_fast import config
from lstm_fast._cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    for variable in ("LSTM_FAST_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def cgroups(tmp_path):
    """A function that writes the membership and the files of the hierarchy, and asks."""

    def ask(membership, files):
        mount = tmp_path / "mount"
        for name, text in files.items():
            (mount / name).parent.mkdir(parents=True, exist_ok=True)
            (mount / name).write_text(text)
        (tmp_path / "membership").write_text(membership)
        return available_cpus(str(tmp_path / "membership"), str(mount))

    return ask


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("what", 8),
        ("100000 0", 8),
    ],
)
def test_version_2(cgroups, quota, cpus):
    assert cgroups("0::/\n", {"cpu.max": quota + "\n"}) == cpus


@pytest.mark.parametrize(("inner", "outer", "cpus"), [(3, 5, 3), (5, 2, 2)])
def test_the_least_quota_on_the_way_to_the_root_holds(cgroups, inner, outer, cpus):
    files = {
        "machine.slice/cpu.max": f"{outer}00000 100000\n",
        "machine.slice/job.scope/cpu.max": f"{inner}00000 100000\n",
        "other.slice/cpu.max": "100000 100000\n",
    }
    assert cgroups("0::/machine.slice/job.scope\n", files) == cpus


def test_path_of_the_host_is_missing_in_a_container(cgroups):
    assert cgroups("0::/host/path/of/container\n", {"cpu.max": "200000 100000\n"}) == 2


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 2), ("-1", 8), ("what", 8)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_version_1(cgroups, controllers, quota, cpus):
    group = f"{controllers}/docker/job/"
    files = {group + "cpu.cfs_quota_us": quota + "\n", group + "cpu.cfs_period_us": "100000\n"}
    files["memory/docker/job/cpu.cfs_quota_us"] = "100000\n"
    assert cgroups(f"5:memory:/docker/job\n3:{controllers}:/docker/job\n0::/\n", files) == cpus


def test_version_1_with_controllers_in_another_order(cgroups):
    """As on CentOS 7: the kernel says cpuacct,cpu; the folder is cpu,cpuacct, and cpu a link to it."""
    files = {"cpu/job/cpu.cfs_quota_us": "200000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert cgroups("4:cpuacct,cpu:/job\n", files) == 2


def test_a_name_that_is_no_text(tmp_path):
    (tmp_path / "membership").write_bytes(b"0::/job-\xff\n")
    assert available_cpus(str(tmp_path / "membership"), str(tmp_path)) == 8


def test_no_cgroups(tmp_path):
    assert available_cpus(str(tmp_path / "missing"), str(tmp_path)) == 8


def test_it_is_the_default(monkeypatch):
    monkeypatch.setattr(config, "available_cpus", lambda: 5)
    assert config.threads_and_source() == (5, "available CPUs")
