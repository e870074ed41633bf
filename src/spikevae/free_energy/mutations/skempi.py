"""Measured affinities of mutants from the table of SKEMPI 2."""

import codecs
import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import constants

from ..._files import check_regular, user_path
from .mutation import Mutant, mismatch, parse_mutant
from .structure import Structure

KIND = "table of SKEMPI"
GAS_CONSTANT = constants.R / constants.calorie / 1000
"""In kcal / (mol K)."""
ROOM = 298.0
"""Temperature, in Kelvin, where a row of the table gives none."""
MAX_BYTES = 2**26
COLUMNS = ("#Pdb", "Affinity_mut (M)", "Affinity_mut_parsed", "Affinity_wt (M)", "Affinity_wt_parsed", "Temperature")
NUMBERINGS = ("Mutation(s)_cleaned", "Mutation(s)_PDB")
"""Of the structures that SKEMPI distributes, and of the Protein Data Bank."""
REMEDY = "give skempi_v2.csv of SKEMPI 2, or rows of it below its line of names"


@dataclass(frozen=True)
class Measured:
    """Differences of binding free energy that were measured, one per mutant."""

    mutants: list[Mutant]
    """n mutants, each once."""
    ddg: Float[np.ndarray, " n"]
    """kcal/mol, of the mutant minus that of the wild type: positive where the mutant binds more weakly. Of several
    measurements the mean."""
    measurements: Int[np.ndarray, " n"]
    """Of each mutant, in the table."""
    partners: tuple[str, str]
    """Labels of the chains of each partner, as in the table: ("ABC", "DE")."""
    dropped: dict[str, int]
    """Rows that give no number, by reason."""

    def describe(self) -> str:
        """One line on what was read."""
        text = f"{len(self.mutants)} mutants, {int(self.measurements.sum())} measurements"
        return "; ".join([text, *_reasons(self.dropped)])


def read_skempi(path: str | Path, structure: Structure, name: str) -> Measured:
    r"""Read the measured mutants of one structure; mutations are checked against it.

    A measured affinity is a dissociation constant K, so that :math:`\Delta G = R T \log K` and
    :math:`\Delta\Delta G = R T \log(K_\text{mutant} / K_\text{wild type})`, with the temperature and the wild type of
    the row. Rows without affinity, as of mutants that do not bind, and limits (">1E-4") are dropped and counted.

    Parameters
    ----------
    path
        The table, fields separated by semicolons.
    structure
        The one that the residue numbers refer to: numbered as the files of SKEMPI are, or as those of the Protein Data
        Bank.
    name
        Which rows: those whose first field is this name or begins with it and an underscore, as 1AO7.

    Raises
    ------
    FileNotFoundError, PermissionError
        Where there is no such file.
    ValueError
        For another kind of table, no rows of the structure, and mutations that do not fit it; with the remedy.

    References
    ----------
    Jankauskaite et al. (2019), Bioinformatics 35, 462.
    """
    path = user_path(path)
    rows = [row for row in _rows(path) if row["#Pdb"].upper().startswith(f"{name.upper()}_")]
    if not rows:
        raise ValueError(f"{path} has no rows of {name}: name one of its structures, as 1AO7")
    complexes = sorted({row["#Pdb"] for row in rows})
    if len(complexes) > 1:
        raise ValueError(f"{path} has {' and '.join(complexes)[:200]}: keep the rows of one complex")
    parts = complexes[0].split("_")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{path}: {complexes[0]!r:.60} is no name and two partners, as 1AO7_ABC_DE: {REMEDY}")
    dropped: Counter[str] = Counter()
    values: dict[Mutant, list[float]] = {}
    for mutant, row in zip(_checked(path, rows, structure), rows):
        ddg = _difference(path, row)
        if isinstance(ddg, str):
            dropped[ddg] += 1
        else:
            values.setdefault(mutant, []).append(ddg)
    if not values:
        raise ValueError(f"{path} has no affinity of a mutant of {name}: {'; '.join(_reasons(dropped))}")
    return Measured(
        list(values),
        np.array([np.mean(found) for found in values.values()]),
        np.array([len(found) for found in values.values()]),
        (parts[1], parts[2]),
        dict(dropped),
    )


def _reasons(dropped: Mapping[str, int]) -> list[str]:
    return [f"{n} {'row' if n == 1 else 'rows'} dropped: {reason}" for reason, n in dropped.items()]


def _rows(path: Path) -> list[dict[str, str]]:
    check_regular(path, KIND)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has over {MAX_BYTES >> 20} MiB: {REMEDY}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter=";", restval="")
            missing = [name for name in (*COLUMNS, *NUMBERINGS) if name not in (table.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no column {missing[0]!r}: {REMEDY}")
            return list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table separated by semicolons ({error}): {REMEDY}") from None


def is_skempi(path: str | Path) -> bool:
    """Whether a file begins as a table of SKEMPI does."""
    path = user_path(path)
    check_regular(path, "table of mutations")
    with path.open("rb") as file:
        return file.read(64).removeprefix(codecs.BOM_UTF8).lstrip(b'"').startswith(b"#Pdb")


def _checked(path: Path, rows: Sequence[dict[str, str]], structure: Structure) -> list[Mutant]:
    """Mutants of the rows, in the numbering that fits the structure."""
    first = ""
    for column in NUMBERINGS:
        try:
            mutants = [parse_mutant(row[column]) for row in rows]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        wrong = next((found for found in (mismatch(structure, one) for one in mutants) if found), None)
        if wrong is None:
            return mutants
        first = first or wrong
    raise ValueError(f"{path}, in both numberings of the table; of the first, {first}")


def _difference(path: Path, row: dict[str, str]) -> float | str:
    """Difference of a row in kcal/mol, or why there is none."""
    ratio = []
    for kind in ("mut", "wt"):
        stated, parsed = row[f"Affinity_{kind} (M)"].strip(), row[f"Affinity_{kind}_parsed"].strip()
        if not parsed:
            return "no affinity (no binding seen, or not measured)"
        if not stated or stated[0] in "<>~":
            return "only a limit of the affinity"
        ratio.append(_positive(path, parsed, f"Affinity_{kind}_parsed"))
    return GAS_CONSTANT * _temperature(path, row["Temperature"]) * math.log(ratio[0] / ratio[1])


def _positive(path: Path, text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{path}: {text!r:.40} in column {column!r} is no positive number: correct or remove the row")
    return value


def _temperature(path: Path, text: str) -> float:
    """Kelvin, from "298" or "298(assumed)"; 298 where nothing is stated."""
    stated = text.strip()
    if not stated:
        return ROOM
    number = re.match(r"\d+(\.\d+)?", stated)
    return _positive(path, number.group() if number else stated, "Temperature")
