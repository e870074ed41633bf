"""Processes that train together, started as torchrun starts them, for tests."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from helpers import heed_interrupts

SECONDS = 240  # after which processes that wait for each other are killed


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments: list[str], folder: Path, size: int = 2) -> list[subprocess.Popen[str]]:
    """Processes `python ARGUMENTS`, in the order of their ranks; each writes to pipes of its own."""
    port = free_port()
    processes = []
    for rank in range(size):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search}
        environment |= {name: str(value) for name, value in names.items()}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_interrupts}
        command = [sys.executable, *arguments]
        processes.append(subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **how))
    return processes


def outcome(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each process, once all have ended."""
    try:
        ended = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, ended)]


def run(arguments: list[str], folder: Path, size: int = 2) -> list[tuple[int, str, str]]:
    """Start processes and wait for them."""
    return outcome(start(arguments, folder, size))
