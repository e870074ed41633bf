"""CPUs and memory that a process may use: affinity, control groups of both versions, and what workers need together."""

import os

import pytest

from spikevae import _machine
from spikevae._machine import available_bytes, usable_cpus
from spikevae.sweep import Sweep
from spikevae.sweep.executors import choice
from spikevae.sweep.executors.choice import default_executor
from spikevae.sweep.executors.inline import InlineExecutor
from spikevae.sweep.plan import plan_stacks

MEMINFO = "MemTotal:   100 kB\nMemAvailable:   12 kB\nHugePages_Total:  0\n"


def tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/job/step\n",
    "sys/fs/cgroup/job/cpu.max": "250000 100000\n",
    "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
    "sys/fs/cgroup/job/memory.max": "9000\n",
    "sys/fs/cgroup/job/memory.current": "5000\n",
    "sys/fs/cgroup/job/memory.stat": "anon 1000\ninactive_file 300\n",
    "sys/fs/cgroup/job/step/memory.max": "max\n",
    "sys/fs/cgroup/job/step/memory.current": "5000\n",
}
V1 = {
    "proc/self/cgroup": "3:cpu,cpuacct:/job\n2:memory:/job\n1:name=systemd:/\n",
    "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9000\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "5000\n",
    "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 300\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n",
}


@pytest.fixture
def many_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


@pytest.mark.parametrize(("files", "cpus"), [(V2, 3), (V1, 2), ({}, 64)], ids=["v2", "v1", "none"])
def test_the_quota_of_every_group_above_counts(many_cpus, tmp_path, files, cpus):
    assert usable_cpus(tree(tmp_path, files)) == cpus


def test_the_affinity_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert usable_cpus(tree(tmp_path, V2)) == 1


@pytest.mark.parametrize("files", [V2, V1], ids=["v2", "v1"])
def test_the_limit_of_a_group_counts_where_it_leaves_less(tmp_path, files):
    root = tree(tmp_path, files)
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert available_bytes(tmp_path / "meminfo", root) == 9000 - 5000 + 300
    (tmp_path / "meminfo").write_text(MEMINFO.replace("12", "4"))
    assert available_bytes(tmp_path / "meminfo", root) == 4 << 10
    assert available_bytes(tmp_path / "none", root) == 4300


def test_damaged_tables_of_the_system_are_no_limits(tmp_path):
    root = tree(tmp_path, V2 | {"sys/fs/cgroup/job/memory.max": "much\n", "sys/fs/cgroup/job/cpu.max": "\n"})
    assert available_bytes(tmp_path / "none", root) is None
    assert usable_cpus(root) == len(os.sched_getaffinity(0))
    (tmp_path / "meminfo").write_text("MemTotal:   100 kB\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path / "nothing") is None


def test_workers_are_as_many_as_have_memory_together(monkeypatch):
    sweep = Sweep.from_grid({"n_latents": [8, 16, 24, 32]}, data={"source": "synthetic", "n": 100})
    plans = plan_stacks(sweep.cells, 100, (1, 8, 8))
    sizes = plans, (1, 8, 8), 100
    monkeypatch.setattr(choice, "usable_cpus", lambda: 3)
    monkeypatch.setattr(choice, "available_bytes", lambda: None)
    assert default_executor("cpu", None, *sizes).n_workers == 3
    assert default_executor("cpu", 9, *sizes).n_workers == 4
    assert isinstance(default_executor("cpu", 1, *sizes), InlineExecutor)
    assert isinstance(default_executor("cuda", None, *sizes), InlineExecutor)
    monkeypatch.setattr(choice, "available_bytes", lambda: int(2.5 * choice.WORKER_BYTES))
    with pytest.warns(UserWarning, match=r"free holds 2 workers.*: 2 of 3 CPUs are used"):
        assert default_executor("cpu", None, *sizes).n_workers == 2
    with pytest.raises(ValueError, match=r"holds 2 workers .*, not 4: ask for 2 \(--jobs 2\)"):
        default_executor("cpu", 4, *sizes)


def test_one_stack_on_a_cpu_trains_in_a_worker_of_one_thread_unless_one_job_is_asked_for(monkeypatch):
    """A continued run may have one stack left: its numbers must not depend on that."""
    sweep = Sweep.from_grid({"n_latents": [8]}, data={"source": "synthetic", "n": 100})
    plans = plan_stacks(sweep.cells, 100, (1, 8, 8))
    assert default_executor("cpu", None, plans, (1, 8, 8), 100).n_workers == 1
    assert _machine.usable_cpus() >= 1
