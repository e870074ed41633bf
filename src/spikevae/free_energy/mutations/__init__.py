r"""Differences of binding free energy of mutants, from scorers of sequences given a structure.

A scorer gives the log probability of each residue of a sequence given the backbone of a structure. The
thermodynamic cycle, complex minus partners alone and mutant minus wild type, makes binding scores of them:

>>> import numpy as np
>>> truth = PottsPair(seed=0)  # two chains whose binding energies are known
>>> mutants = [parse_mutant(text) for text in ("AA1C", "AA1C,AB3D")]
>>> scores = Cycle(truth, truth.structure, mutants, ("A", "B")).run(2)
>>> np.allclose(scores.binding, truth.binding_energies(mutants))
True
"""

from .binding import BindingEnergy as BindingEnergy
from .binding import leave_positions_out as leave_positions_out
from .contacts import contact_energies as contact_energies
from .cycle import Cycle as Cycle
from .frozen import frozen_context as frozen_context
from .mutation import Mutant as Mutant
from .mutation import Mutation as Mutation
from .mutation import parse_mutant as parse_mutant
from .mutation import parse_mutants as parse_mutants
from .mutation import read_mutants as read_mutants
from .potts import PottsPair as PottsPair
from .protein_mpnn import ProteinMPNN as ProteinMPNN
from .reading import read_structure as read_structure
from .result import BindingScores as BindingScores
from .scorer import SequenceScorer as SequenceScorer
from .skempi import Measured as Measured
from .skempi import read_skempi as read_skempi
from .structure import ALPHABET as ALPHABET
from .structure import Structure as Structure
