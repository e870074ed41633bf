"""`spikevae mutations`: differences of binding free energy of mutants of a complex."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, Seed, app

if TYPE_CHECKING:
    from ..free_energy.mutations import Measured, Mutant, Structure

Several = Parameter(consume_multiple=True, negative=())


@app.command(name="mutations")
def mutations_(
    structure: Path,
    /,
    *,
    mutations: Annotated[list[str], Several],
    weights: Path,
    partners: Annotated[list[str] | None, Several] = None,
    complex: str | None = None,
    draws: int = 20,
    noise: float = 0.1,
    out: Path = Path("mutations.csv"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score mutants of a protein complex: do they bind more weakly or more strongly than the wild type?

    The score is the difference of log probabilities through the thermodynamic cycle, in nats and positive for weaker
    binding, with its standard error over draws. Writes a table, and beside it a file of draws (.draws.json), with which
    the same command continues after Ctrl-C or with more draws. Needs the extra `protein`.

    Example: `spikevae mutations 1AO7.pdb --partners ABC DE --mutations DD26A EA58A,DD26A --weights v_48_020.pt`

    Parameters
    ----------
    structure
        PDB or mmCIF of the complex, plain or .gz.
    mutations
        Mutants as wild type, chain, residue number and mutant: DD26A; several substitutions of one with commas. Or a
        text file with one mutant in each line, or the table of SKEMPI 2: the measured values are then shown beside.
    weights
        File of weights of ProteinMPNN, as v_48_020.pt.
    partners
        Chains of each partner, as ABC DE; by default those of the table of SKEMPI.
    complex
        Name of the complex in the table of SKEMPI; by default the name of the structure file up to its first dot.
    draws
        Orders of residues, with noise of the backbone, to average over.
    noise
        Standard deviation of the noise of the backbone, in Angstrom.
    out
        File for the table.
    """
    with checking_input():
        from .._device import resolve_device
        from ..free_energy.mutations import Cycle, ProteinMPNN, read_structure
        from ..free_energy.mutations.cycle import check_partners
        from ..free_energy.mutations.output import (
            Predicted,
            draws_file,
            load_draws,
            rows_of,
            save_draws,
            settings_of,
            text_of,
            write_table,
        )
        from ..progress import show_progress

        out = check_out(out, folder=False)
        kept = check_out(draws_file(out), folder=False)
        if partners:
            if any("," in group for group in partners):
                raise ValueError("--partners takes the chains of each partner with a space between, as ABC DE")
            check_partners(partners)
        scorer = ProteinMPNN.load(weights).to(resolve_device(device))
        whole = read_structure(structure, "".join(partners) if partners else None)
        mutants, measured = _mutants(mutations, whole, complex or structure.name.partition(".")[0])
        groups = partners or (measured and list(measured.partners))
        if not groups:
            raise ValueError("--partners is missing: give the chains of each partner, as --partners ABC DE")
        cycle = Cycle(scorer, whole, mutants, groups, noise=noise, seed=seed)
        settings = settings_of(cycle, weights)
        cycle.scores = load_draws(kept, settings, cycle) or cycle.scores
        try:
            with show_progress("mutations") as report:
                scores = cycle.run(draws, report=report, on_draw=lambda found: save_draws(kept, settings, found))
        except KeyboardInterrupt:
            done = len(cycle.scores.terms)
            where = f"{done} of {draws} draws are in {kept}" if kept.exists() else "no draw was finished"
            raise KeyboardInterrupt(where) from None
        predicted = None if measured is None else Predicted(scores, measured)
        rows = rows_of(scores, predicted)
    write_table(out, rows)
    facts = {"structure": str(structure), "draws": len(scores.terms), "mutants": rows, "files": [str(out), str(kept)]}
    if measured is not None and predicted is not None:
        facts |= {"spearman": predicted.spearman, "scalar": predicted.scalar, "dropped": measured.dropped}
    lost = "" if measured is None else f"\n{measured.describe()}"
    emit(json, facts, f"{text_of(scores, rows, predicted)}{lost}\n\nIn {out}")


def _mutants(given: list[str], structure: "Structure", name: str) -> "tuple[list[Mutant], Measured | None]":
    """Mutants from the command line, or from a file, then perhaps with what was measured."""
    from ..free_energy.mutations import parse_mutants, read_mutants, read_skempi
    from ..free_energy.mutations.skempi import is_skempi

    if not given:
        raise ValueError("--mutations names none: give mutants, as DD26A EA58A,DD26A, or a file of them")
    if len(given) > 1 or not os.path.exists(os.path.expanduser(given[0])):
        try:
            return parse_mutants(given), None
        except ValueError as error:
            raise ValueError(f"--mutations: {error}; or name a file that is there") from None
    if not is_skempi(given[0]):
        return read_mutants(given[0]), None
    measured = read_skempi(given[0], structure, name)
    return measured.mutants, measured
