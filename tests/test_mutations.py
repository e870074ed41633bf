"""The thermodynamic cycle against Potts chains that are enumerated, and draws in common."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from mutation_cases import MUTANTS, PAIR, OneWay

from spikevae.free_energy.mutations import ALPHABET, Cycle, PottsPair, Structure, frozen_context, parse_mutant

LETTERS = "ACD"


def enumerated_energies(pair: PottsPair) -> dict[str, float]:
    """Minus log p(complex) + log p(A) + log p(B) of every sequence, from tables of all of them."""
    every = list(product(range(3), repeat=6))
    h, j = pair.fields.numpy(), pair.couplings.numpy()

    def log_p(s: tuple[int, ...], places: range) -> float:
        fields = sum(h[i, s[i]] for i in places)
        return fields + sum(j[i, k, s[i], s[k]] for i in places for k in places if i < k)

    def normalised(places: range) -> dict[tuple[int, ...], float]:
        values = {s: log_p(s, places) for s in every if all(s[i] == 0 for i in range(6) if i not in places)}
        total = math.log(sum(map(math.exp, values.values())))
        return {s: value - total for s, value in values.items()}

    whole, first, second = (normalised(places) for places in (range(6), range(3), range(3, 6)))
    zero = (0, 0, 0)
    return {"".join(LETTERS[i] for i in s): -whole[s] + first[s[:3] + zero] + second[zero + s[3:]] for s in every}


def every_mutant(pair: PottsPair, letters: str) -> str:
    return ",".join(f"A{c}{r}{x}" for (c, r), x in zip(zip("AAABBB", "123123"), letters) if x != "A")


def test_the_cycle_is_the_difference_of_enumerated_binding_energies() -> None:
    pair = PottsPair(seed=3)
    truth = enumerated_energies(pair)
    names = [letters for letters in truth if letters != "AAAAAA"][::29]
    mutants = [parse_mutant(every_mutant(pair, letters)) for letters in names]
    expected = np.array([truth[letters] - truth["AAAAAA"] for letters in names])
    scores = Cycle(pair, pair.structure, mutants, ("A", "B"), seed=1).run(3)
    np.testing.assert_allclose(scores.draws, np.tile(expected, (3, 1)), atol=1e-12)
    np.testing.assert_allclose(pair.binding_energies(mutants), expected, atol=1e-12)
    own = Cycle(pair, pair.structure, mutants, ("A", "B"), common=False).run(2)
    np.testing.assert_allclose(own.binding, expected, atol=1e-12)  # orders do not matter to exact conditionals


def test_conditionals_in_any_order_are_those_of_the_table() -> None:
    pair = PottsPair(seed=5)
    every = torch.tensor(list(product(range(3), repeat=6)))
    logits = pair.weights(torch.arange(6), every)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    found = pair.log_probabilities(pair.structure, every, order=order)
    np.testing.assert_allclose(found.sum(1), logits - logits.logsumexp(0), atol=1e-12)
    p = (logits - logits.logsumexp(0)).exp().reshape([3] * 6)
    joint = p.sum((1, 3))[:, :, 2, :]  # sites 0, 2, 5 with site 4 in state 2: (s0, s2, s5)
    row = int(torch.nonzero((every == torch.tensor([1, 0, 2, 1, 2, 0])).all(1))[0])
    expected = joint[1, 2, 0].log() - joint[1, :, 0].sum().log()  # site 2 comes after 4, 0 and 5
    np.testing.assert_allclose(found[row, 2], expected, atol=1e-12)


def test_the_frozen_context_adds_mutations_up() -> None:
    pair = PottsPair(seed=2)
    mutants = [parse_mutant(text) for text in ("AA1C", "AB2D", "AA1C,AB2D", "AA1C,AA3D,AB2D")]
    found = frozen_context(Cycle(pair, pair.structure, mutants, ("A", "B")), 4)
    np.testing.assert_allclose(found[:, :2], np.tile(pair.binding_energies(mutants[:2]), (4, 1)), atol=1e-12)
    order = Cycle(pair, pair.structure, mutants, ("A", "B")).context(0).order.tolist()
    first, last = sorted((0, 4), key=order.index)
    expected = 0.0  # the one that is drawn first does not see the other at all, the last sees its wild type
    for sign, sites in ((-1, [0, 1, 2, 3, 4, 5]), (1, [0, 1, 2]), (1, [3, 4, 5])):
        every = torch.tensor(list(product(range(3), repeat=len(sites))))
        logits = pair.weights(torch.tensor(sites), every)
        state = {0: 1, 4: 2}
        for site in (first, last):
            if site not in sites:
                continue
            hidden = [last] if site == first and last in sites else []
            fixed = [i for i in range(len(sites)) if sites[i] not in (site, *hidden)]
            agree = (every[:, fixed] == 0).all(1)
            mutant = logits[agree & (every[:, sites.index(site)] == state[site])].logsumexp(0)
            wild = logits[agree & (every[:, sites.index(site)] == 0)].logsumexp(0)
            expected += sign * float(mutant - wild)
    assert math.isclose(found[0, 2], expected, abs_tol=1e-12)


def test_partners_have_the_order_and_the_noise_of_their_residues() -> None:
    cycle = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), seed=4)
    whole, places = cycle.context(7), PAIR.where("B")
    own = whole.of(places)
    assert places[own.order].tolist() == [i for i in whole.order.tolist() if i in places.tolist()]
    assert torch.equal(own.noise, whole.noise[places])
    assert abs(float(cycle.context(0).noise.std()) - 0.1) < 0.04
    again, other = cycle.context(7), cycle.context(8)
    assert torch.equal(whole.order, again.order) and torch.equal(whole.noise, again.noise)
    assert not torch.equal(whole.noise, other.noise)


def test_scores_are_sums_of_log_probabilities_in_the_orders_of_the_draw() -> None:
    """Sign and terms, written out for one mutant."""
    scorer = OneWay()
    cycle = Cycle(scorer, PAIR, MUTANTS, ("A", "B"), seed=4)
    context = cycle.context(1)

    def total(letters: str, chains: str) -> float:
        system = PAIR.select(chains)
        own = context.of(PAIR.where(chains))
        whole = torch.tensor([[ALPHABET.index(x) for x in letters]])[:, PAIR.where(chains)]
        return float(scorer.log_probabilities(system, whole, order=own.order, noise=own.noise).sum())

    wild_type, mutant = "ACDEFGHIK", "ACDEFGYIK"
    score = {s: total(s, "AB") - total(s, "A") - total(s, "B") for s in (wild_type, mutant)}
    found = cycle.run(2)
    assert math.isclose(found.draws[1, 2], score[wild_type] - score[mutant], abs_tol=1e-12)
    assert math.isclose(found.log_odds_draws[1, 2], total(wild_type, "AB") - total(mutant, "AB"), abs_tol=1e-12)
    expected = found.draws.std(0, ddof=1) / math.sqrt(2)
    np.testing.assert_allclose(found.standard_errors, expected, atol=1e-12)


def test_draws_in_common_have_a_smaller_variance_and_the_same_mean() -> None:
    draws = 300
    common = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), noise=0.3, seed=0).run(draws)
    own = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), noise=0.3, common=False, seed=1).run(draws)
    assert (common.variances < 0.6 * own.variances).all()
    spread = math.sqrt(2 / draws)  # relative standard deviation of a variance of Gaussians
    assert (abs(common.independent_variances / own.variances - 1) < 6 * spread).all()
    difference = common.binding - own.binding
    assert (abs(difference) < 4.5 * np.hypot(common.standard_errors, own.standard_errors)).all()


def test_orders_alone_vary_without_noise() -> None:
    scores = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), noise=0).run(3)
    assert Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), noise=0).context(0).noise is None
    assert (scores.variances > 0).all()


def test_a_stopped_run_goes_on_where_it_was() -> None:
    whole = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), seed=2).run(4)
    cycle = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B"), seed=2)

    def stop(scores: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cycle.run(4, on_draw=stop)
    assert len(cycle.scores.terms) == 1
    np.testing.assert_array_equal(cycle.run(4).terms, whole.terms)
    np.testing.assert_array_equal(cycle.run(2).terms, whole.terms[:2])


def test_chains_of_no_partner_are_left_out() -> None:
    three = Structure.of({"A": "ACDEF", "C": "WWW", "B": "GHIK"})
    one = Cycle(OneWay(), PAIR, MUTANTS, ("A", "B")).run(2)
    np.testing.assert_array_equal(Cycle(OneWay(), three, MUTANTS, ("A", "B")).run(2).terms, one.terms)


class Impossible:
    """Holds one residue impossible, or gives another shape."""

    def __init__(self, shape: tuple[int, ...] | None = None):
        self.shape = shape

    def log_probabilities(self, structure: Structure, sequences: torch.Tensor, **context: object) -> torch.Tensor:
        found = torch.zeros(self.shape or sequences.shape)
        found[:, 1] = -torch.inf
        return found


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"partners": ("A", "A")}, r"chain A is in partner A and in partner A: leave it in one"),
        ({"partners": ("A",)}, r"give the chains of two or more"),
        ({"partners": "AB"}, r"give the chains of two or more"),
        ({"partners": ("A", "C")}, r"no chain C; the structure has A, B"),
        ({"noise": -1.0}, r"noise is -1.0; give a standard deviation in Angstrom"),
        ({"noise": math.nan}, r"noise is nan"),
        ({"mutants": []}, r"there are no mutants"),
        ({"mutants": [parse_mutant("CA1D")]}, r"CA1D: residue 1 of chain A is A in the structure, not C"),
        (
            {"mutants": [parse_mutant("AC1D")]},
            r"AC1D: chain C is in no partner \(A, B\): add it, or leave the mutant out",
        ),
        ({"partners": ("AA", "B")}, r"partner AA has a chain twice"),
        ({"mutants": [parse_mutant("AA9D")]}, r"AA9D: chain A has no residue 9: it has 5, from 1 to 5"),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_what_fits_no_complex_is_refused(settings: dict[str, object], text: str) -> None:
    given = {"mutants": MUTANTS, "partners": ("A", "B")} | settings
    with pytest.raises(ValueError, match=text):
        Cycle(OneWay(), PAIR, **given)


def test_mutants_of_residues_without_backbone_are_refused() -> None:
    """A scorer of structures gives such residues no probability, so their mutants would all score 0."""
    places = torch.zeros(len(PAIR), 4, 3, dtype=torch.float64)
    places[2, 3, 1] = torch.nan
    gap = Structure(places, PAIR.sequence, PAIR.chains, PAIR.residues)
    Cycle(OneWay(), gap, MUTANTS[:1], ("A", "B"))
    with pytest.raises(ValueError, match=r"DA3W: residue 3 of chain A lacks some of the atoms.*leave the mutant out"):
        Cycle(OneWay(), gap, MUTANTS, ("A", "B"))


def test_bad_scorers_are_named() -> None:
    with pytest.raises(ValueError, match=r"log probability -inf to residue 2 of chain A"):
        Cycle(Impossible(), PAIR, MUTANTS, ("A", "B")).run(1)
    with pytest.raises(ValueError, match=r"gives \(1, 2\) log probabilities for \(4, 9\) residues"):
        Cycle(Impossible((1, 2)), PAIR, MUTANTS[:3], ("A", "B")).run(1)
    with pytest.raises(ValueError, match=r"draws is 0; give a whole number, 1 or more"):
        Cycle(OneWay(), PAIR, MUTANTS, ("A", "B")).run(0)


def test_potts_chains_refuse_what_they_cannot_enumerate() -> None:
    with pytest.raises(ValueError, match=r"3\*\*12 sequences; take at most 100000"):
        PottsPair((6, 6))
    pair = PottsPair()
    with pytest.raises(ValueError, match="have residues ACD only"):
        Cycle(pair, pair.structure, [parse_mutant("AA1W")], ("A", "B")).run(1)
