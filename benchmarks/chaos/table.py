"""Counts of injected faults as a table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .judge import Outcome

COLUMNS = ("lost", "wrong", "ugly", "asked")


@dataclass
class Row:
    """Counts of one fault."""

    fault: str
    times: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    seconds: float = 0.0
    skips: Counter[str] = field(default_factory=Counter)
    """How often it was not injected, by the reason."""
    examples: list[str] = field(default_factory=list)
    """A few of the findings, one line each."""

    def add(self, outcome: Outcome, case: str, seconds: float) -> None:
        """Count one injection."""
        self.seconds += seconds
        if outcome.skipped:
            self.skips[outcome.skipped] += 1
        if not outcome.fired:
            return
        self.times += outcome.times
        for name in COLUMNS:
            findings = getattr(outcome, name)
            self.counts[name] += min(len(findings), outcome.times)
            if name != "asked":
                self.examples.extend(f"{self.fault} {case}: {name}: {line}".replace("\n", " | ") for line in findings)


def as_text(rows: Iterable[Row]) -> str:
    """The table in Markdown."""
    rows = list(rows)
    lines = [
        "| fault | times injected | lost | wrong | ugly | asked |",
        "|---|--:|--:|--:|--:|--:|",
        *(f"| {r.fault} | {r.times:,} | {' | '.join(f'{r.counts[n]:,}' for n in COLUMNS)} |" for r in rows if r.times),
    ]
    total = [sum(r.counts[name] for r in rows) for name in COLUMNS]
    lines.append(f"| all | {sum(r.times for r in rows):,} | {' | '.join(f'{n:,}' for n in total)} |")
    lines += [f"\nNot injected here: {r.fault} ({', '.join(r.skips)})." for r in rows if not r.times and r.skips]
    return "\n".join(lines)
