"""Programs ask the C library to use freed memory again; the library leaves its settings alone."""

import contextlib
import ctypes
import socket
import sys

import pytest


def test_freed_memory_is_kept_by_the_settings_of_mallopt(monkeypatch: pytest.MonkeyPatch):
    """The process gives each parameter to mallopt(3) once. Page faults, which show the effect, are not counted."""
    from spikevae import _allocator

    set_to: dict[int, int] = {}

    class Library:
        mallopt = staticmethod(set_to.__setitem__)

    for name in _allocator.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    _allocator.keep_freed_memory()
    assert set_to == {-3: 32 << 20, -1: 2**31 - 1, -2: 64 << 20}  # numbers of glibc's malloc.h


def test_programs_ask_for_it_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch):
    import spikevae.sweep.worker as worker
    from spikevae import _allocator
    from spikevae.cli import run

    asked = []
    monkeypatch.setattr(run, "keep_freed_memory", lambda: asked.append("program"))
    assert run.main(["--version"]) == 0
    monkeypatch.setattr(_allocator, "keep_freed_memory", lambda: asked.append("worker"))
    ours, theirs = socket.socketpair()
    line = worker.Line(theirs.detach())
    with ours, contextlib.closing(line), pytest.raises(KeyError):  # a task without stimuli
        worker._train_all({}, line)
    assert asked == ["program", "worker"]
    monkeypatch.undo()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda name: asked.append("changed"))
    _allocator.keep_freed_memory()
    assert "changed" not in asked
