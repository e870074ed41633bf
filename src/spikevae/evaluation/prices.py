"""Energy cost of a code: spikes -> ATP -> joules, and arithmetic on digital hardware.

Everything here is modelled: a spike count of a model is multiplied by the energy of a spike in an animal, or an
operation count by the energy of an operation on a chip. No number is a measurement of the model. Prices have
three levels, so that a conclusion can be checked against the range of values in the literature.

Prices contain only the energy that depends on spikes. Resting potentials (13 % of signalling energy in rodent grey
matter, Attwell & Laughlin 2001; 20 % in cerebral cortex, Howarth et al. 2012) and housekeeping (25 % of the total,
Harris et al. 2012) are not included: a silent unit costs nothing here.

Real-valued codes that have a firing rate (`rectified_gaussian`, `gaussian_exp`, `gaussian_softplus`) are priced as if a
value of one were a spike. That unit is arbitrary, set by the scale of the prior (of the rectified Gaussian with a fixed
prior: one standard deviation before the rectifier), so their joules do not compare with those of counts.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

AVOGADRO = 6.02214076e23
"""Molecules per mole (SI, exact)."""


@dataclass(frozen=True)
class Constant:
    """A number with its unit and where it comes from."""

    value: float
    unit: str
    citation: str
    source: str = "modelled"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"a price of {self.value} {self.unit} is not possible; give a finite positive number")


@dataclass(frozen=True)
class Price:
    """Energy cost of a spike at one level."""

    atp_per_spike: Constant
    joules_per_atp: Constant


@dataclass(frozen=True)
class Prices:
    """Energy cost of a spike at three levels, and of arithmetic."""

    low: Price
    central: Price
    high: Price
    joules_per_mac: Constant
    joules_per_ac: Constant

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionary of every constant with unit and citation, for a report or a run's configuration.

        Examples
        --------
        >>> PRICES.to_dict()["central"]["atp_per_spike"]["value"]
        710000000.0
        """
        return asdict(self)


def _joules_per_atp(kilojoules_per_mole: float, citation: str) -> Constant:
    return Constant(kilojoules_per_mole * 1e3 / AVOGADRO, "J per ATP", f"{kilojoules_per_mole:g} kJ/mol, {citation}")


_HYDROLYSIS = "physiological free energy of ATP hydrolysis, range 44-60 kJ/mol (BioNumbers; eQuilibrator)"
_HOROWITZ = "45 nm CMOS, 32-bit floating point, Horowitz, ISSCC 2014 (as tabulated in PMC8934428)"

PRICES = Prices(
    low=Price(
        Constant(
            3.84e8,
            "ATP per spike",
            "action potential alone, rodent grey matter, Attwell & Laughlin, J. Cereb. Blood Flow Metab. 21 "
            "(2001); figure unconfirmed (not re-read in the source)",
        ),
        _joules_per_atp(44.0, _HYDROLYSIS),
    ),
    central=Price(
        Constant(
            7.1e8,
            "ATP per spike",
            "action potential with its synapses, rodent grey matter, Attwell & Laughlin, J. Cereb. "
            "Blood Flow Metab. 21 (2001); figure unconfirmed (not re-read in the source)",
        ),
        _joules_per_atp(50.0, _HYDROLYSIS),
    ),
    high=Price(
        Constant(
            2.4e9,
            "ATP per spike",
            "human cortex, Lennie, Curr. Biol. 13 (2003); figure unconfirmed (second-hand, and one citation "
            "of the paper gives 3.84e9)",
        ),
        _joules_per_atp(60.0, _HYDROLYSIS),
    ),
    joules_per_mac=Constant(4.6e-12, "J per multiply-accumulate", f"3.7 pJ multiply + 0.9 pJ add, {_HOROWITZ}"),
    joules_per_ac=Constant(0.9e-12, "J per accumulate", f"0.9 pJ add, {_HOROWITZ}"),
)
"""Default prices. Low combines the lowest values of both factors chosen here, high the highest. The literature has
values outside this range: 3.84e9 ATP per spike, in one citation of Lennie, is above high."""


def spikes_to_atp(spikes: float, price: Price) -> float:
    """ATP molecules that `spikes` spikes use. Lower is better; modelled.

    Examples
    --------
    >>> spikes_to_atp(2.0, PRICES.central)
    1420000000.0
    """
    return spikes * price.atp_per_spike.value


def atp_to_joules(atp: float, price: Price) -> float:
    """Joules released by hydrolysing `atp` molecules. Lower is better; modelled.

    Examples
    --------
    >>> f"{atp_to_joules(spikes_to_atp(1.0, PRICES.central), PRICES.central):.2g} J per spike"
    '5.9e-11 J per spike'
    """
    return atp * price.joules_per_atp.value


def joules_per_spike(level: Literal["low", "central", "high"] = "central") -> float:
    """Modelled joules per spike at a level of :data:`PRICES`.

    Examples
    --------
    >>> f"{joules_per_spike():.3g}"
    '5.89e-11'
    """
    price: Price = getattr(PRICES, level)
    return atp_to_joules(spikes_to_atp(1.0, price), price)


class SynapticOperations(NamedTuple):
    """Operations that a code causes in the next layer, per stimulus."""

    events: float
    """Accumulates if each spike is sent separately: counts x fan-out. NaN for graded codes."""
    nonzero: float
    """Operations if a unit sends its value once: non-zero units x fan-out."""
    acs: float
    """The part of `nonzero` whose value is one: the weight is added without a multiplication."""

    @property
    def macs(self) -> float:
        """The part of `nonzero` that needs a multiplication."""
        return self.nonzero - self.acs


def synaptic_operations(spikes: float, nonzero: float, ones: float, fan_out: int) -> SynapticOperations:
    """Synaptic operations of a code from its means per stimulus.

    Parameters
    ----------
    spikes
        Sum of a stimulus' counts; NaN for codes that are not counts.
    nonzero, ones
        Units that are not zero, and units that are exactly one.
    fan_out
        Number of synapses that each unit sends to.

    References
    ----------
    NeuroBench (Yik et al., Nat. Commun. 16, 2025): binary activations cost accumulates, others
    multiply-accumulates, zeros nothing. It classifies whole layers; here each unit is classified by its own count.

    Examples
    --------
    >>> synaptic_operations(spikes=7.0, nonzero=4.0, ones=2.0, fan_out=10)
    SynapticOperations(events=70.0, nonzero=40.0, acs=20.0)
    """
    return SynapticOperations(spikes * fan_out, nonzero * fan_out, ones * fan_out)


def hardware_joules(macs: float, acs: float, prices: Prices = PRICES) -> float:
    """Joules of arithmetic on a digital chip; memory access, which usually costs more, is not counted.

    Examples
    --------
    >>> round(hardware_joules(macs=1.0, acs=1.0) * 1e12, 9)
    5.5
    """
    return macs * prices.joules_per_mac.value + acs * prices.joules_per_ac.value
