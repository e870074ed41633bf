"""Rows of the GPU benchmark, kept as they are measured, and the clock that they are measured with."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


class OutOfTime(Exception):
    """The time of a stage is over."""


@dataclass
class Setting:
    """Where and how large everything is measured."""

    device: torch.device
    dry: bool
    deadline: float
    """`time.monotonic` after which the stage measures nothing more."""

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def check_time(self, left_out: str) -> None:
        """Raise where the time of the stage is over."""
        if time.monotonic() > self.deadline and not self.dry:
            raise OutOfTime(f"from {left_out} on nothing was measured")

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], Any], *, repeats: int = 5, at_least: float = 0.05) -> float:
        """Median time of a call, over repeats of as many calls as take `at_least` seconds."""
        function()
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        count = 1 if self.dry else max(1, min(200, round(at_least / (time.perf_counter() - began))))
        times = []
        for _ in range(1 if self.dry else repeats):
            began = time.perf_counter()
            for _ in range(count):
                function()
            self.wait()
            times.append((time.perf_counter() - began) / count)
        return statistics.median(times)

    def peak_gib(self) -> float:
        """Most GPU memory that was in use since the last call, GiB; 0 on a CPU."""
        if not self.on_gpu:
            return 0.0
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


@dataclass
class Table:
    """Rows with equal columns between lines of text."""

    on_change: Callable[[], None]
    parts: list[str | list[dict[str, str]]] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Add a row, print it and write the page."""
        shown = {name.replace("_", " "): _text(value) for name, value in row.items()}
        last = self.parts[-1] if self.parts else ""
        if isinstance(last, list) and list(last[0]) == list(shown):
            last.append(shown)
        else:
            self.parts.append([shown])
        print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
        self.on_change()

    def say(self, text: str) -> None:
        """Add a line of text."""
        self.parts.append(text)
        print(f"  {text}", flush=True)
        self.on_change()

    def markdown(self) -> list[str]:
        lines: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                lines += [part, ""]
                continue
            names = list(part[0])
            lines += [
                _line(names),
                _line(["---"] * len(names)),
                *(_line([row[name] for name in names]) for row in part),
            ]
            lines.append("")
        return lines[:-1] if lines else []


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(value: Any) -> str:
    return format(value, ".3g") if isinstance(value, float) else str(value)
