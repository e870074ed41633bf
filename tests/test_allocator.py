"""Freed memory is used again by the programs, and left alone by the library."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys
import numpy as np
import spikevae.config
from spikevae._allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def work():
    arrays = [np.ones(2_000_000) for _ in range(5)]  # 16 MB each, dropped together

for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_where_it_was_asked_for():
    """800 MB of fresh pages are 195,000 faults of 4 KiB; kept memory has none."""

    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert 20 * faults("kept") < faults("left alone")


def test_programs_ask_for_it_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch):
    import spikevae.sweep.worker as worker
    from spikevae import _allocator
    from spikevae.cli import run

    asked = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: asked.append("program"))
    assert run.main(["--version"]) == 0
    monkeypatch.setattr(_allocator, "keep_freed_memory", lambda: asked.append("worker"))
    assert worker.main("no such run", "no such data") == 1
    assert asked == ["program", "worker"]
    monkeypatch.undo()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda name: asked.append("changed"))
    _allocator.keep_freed_memory()
    assert "changed" not in asked
