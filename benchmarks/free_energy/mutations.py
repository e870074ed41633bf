"""Mutants of a T cell receptor and its peptide-MHC, scored through the thermodynamic cycle: ten minutes on one core.

    python benchmarks/free_energy/mutations.py --weights v_48_020.pt --data FOLDER --out FOLDER

`--data` holds 1AO7.pdb.gz as SKEMPI distributes it and its rows of skempi_v2.csv (any name with skempi and .csv);
`--weights` is a published file of ProteinMPNN. First Potts chains whose binding energies are known; then, for the
complex, log odds, the cycle, contact energies, the shortcut with a frozen context, and the variance of draws that have
nothing in common; with the package skempi-foldx, energies of FoldX beside. `--out` also writes mutations.json and
mutations.md after each part, mutations.draws.json after each draw, and mutations.png; the same command continues a run
that was stopped.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from mutations_potts import compared, potts_table
from mutations_tables import draws_table, scores_table

from spikevae._files import write_bytes
from spikevae.free_energy.mutations import (
    Cycle,
    Measured,
    ProteinMPNN,
    Structure,
    contact_energies,
    frozen_context,
    parse_mutant,
    read_skempi,
    read_structure,
)
from spikevae.free_energy.mutations.output import load_draws, save_draws, settings_of
from spikevae.progress import show_progress

NAME = "1AO7"
POTENTIALS = ("KESO980101", "MIYS960101")
OWN_MUTANTS = 12
"""Mutants of the draws that have nothing in common: every twelfth of all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--frozen-draws", type=int, default=5)
    parser.add_argument("--own-draws", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=150, help="of Potts chains")
    parser.add_argument("--samples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    structure = read_structure(next(chosen.data.glob(f"{NAME}.pdb*")))
    measured = read_skempi(next(chosen.data.glob("*skempi*.csv")), structure, NAME)
    cycle = Cycle(ProteinMPNN.load(chosen.weights), structure, measured.mutants, measured.partners, seed=chosen.seed)
    settings = settings_of(cycle, chosen.weights) | {
        name: getattr(chosen, name) for name in ("draws", "frozen_draws", "own_draws", "pairs", "samples")
    }
    found = started(chosen.out / "mutations.json", settings)

    def keep() -> None:
        write_bytes(chosen.out / "mutations.json", json.dumps(found, indent=1).encode())
        tables = {"potts": potts_table, "scores": scores_table, "spread": draws_table}
        text = "\n\n".join(table(found) for name, table in tables.items() if name in found)
        write_bytes(chosen.out / "mutations.md", (text + "\n").encode())

    if "potts" not in found:
        found["potts"] = compared(chosen.pairs)
        keep()
    if "contacts" not in found:
        found |= known(structure, measured)
        keep()
    if "foldx" not in found:
        found |= foldx(measured)
        keep()
    scores(found, cycle, settings, chosen)
    keep()
    if "frozen" not in found:
        began = time.process_time()
        with show_progress("frozen context") as told:
            found["frozen"] = frozen_context(cycle, chosen.frozen_draws, report=told).tolist()
        found["seconds"]["frozen context, per draw"] = (time.process_time() - began) / chosen.frozen_draws
        keep()
    if "spread" not in found:
        found["spread"] = apart(cycle, measured, chosen.own_draws)
        keep()
    print((chosen.out / "mutations.md").read_text(encoding="utf-8"))
    from mutations_figure import draw

    draw(found, chosen.out / "mutations.png")


def known(structure: Structure, measured: Measured) -> dict[str, Any]:
    """What needs no scorer: measured differences, and contact energies."""
    return {
        "mutants": [str(mutant) for mutant in measured.mutants],
        "read": measured.describe(),
        "measured": measured.ddg.tolist(),
        "contacts": {
            name: contact_energies(structure, measured.mutants, measured.partners, potential=name).tolist()
            for name in POTENTIALS
        },
        "seconds": {},
    }


def foldx(measured: Measured) -> dict[str, list[float]]:
    """Energies of FoldX in kcal/mol, where its results for SKEMPI are installed and have all mutants."""
    try:
        from skempi_foldx import load_bundled_store
    except ImportError:
        print("without energies of FoldX: pip install skempi-foldx", file=sys.stderr)
        return {}
    energies: dict[Any, float] = {}
    for kind in ("results_sp", "results_mp"):
        for name, record in load_bundled_store(kind)["_".join([NAME, *measured.partners])].items():
            energies[parse_mutant(name)] = record["Interaction Energy"]
    return {"foldx": [energies[mutant] for mutant in measured.mutants]}


def scores(found: dict[str, Any], cycle: Cycle, settings: dict[str, Any], chosen: argparse.Namespace) -> None:
    """Log probabilities of all draws; each draw is kept when it is done."""
    path = chosen.out / "mutations.draws.json"
    own = {name: settings[name] for name in ("structure", "weights", "partners", "mutants", "noise", "seed")}
    cycle.scores = load_draws(path, own, cycle) or cycle.scores
    began, before = time.process_time(), len(cycle.scores.terms)
    with show_progress("cycle") as told:
        drawn = cycle.run(chosen.draws, report=told, on_draw=lambda so_far: save_draws(path, own, so_far))
    made = chosen.draws - before
    if made > 0:
        found["seconds"]["per draw"] = (time.process_time() - began) / made
    found["scores"] = {"terms": drawn.terms.tolist()}


def apart(cycle: Cycle, measured: Measured, draws: int) -> dict[str, Any]:
    """Variances of single draws whose terms have orders and noise of their own, of a few mutants."""
    rows = np.arange(0, len(measured.mutants), max(1, len(measured.mutants) // OWN_MUTANTS))[:OWN_MUTANTS]
    some = [measured.mutants[i] for i in rows]
    partners = ["".join(system.structure.chain_names) for system in cycle.systems[1:]]
    own = Cycle(cycle.scorer, cycle.systems[0].structure, some, partners, common=False, seed=cycle.seed)
    with show_progress("nothing in common") as told:
        found = own.run(draws, report=told)
    return {"rows": rows.tolist(), "variances": found.variances.tolist(), "draws": draws}


def started(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left, or none."""
    if not path.exists():
        return {"settings": settings}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings: give another --out")
    return found


if __name__ == "__main__":
    main()
