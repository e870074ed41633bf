"""Differences of binding free energy of mutants, from scorers of sequences given a structure.

A scorer gives the log probability of each residue of a sequence given the backbone of a structure.
"""

from .protein_mpnn import ProteinMPNN as ProteinMPNN
from .reading import read_structure as read_structure
from .scorer import SequenceScorer as SequenceScorer
from .structure import ALPHABET as ALPHABET
from .structure import Structure as Structure
