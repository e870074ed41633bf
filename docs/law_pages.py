"""Writes one page per distribution of the code under generated/laws/, with a picture that its own `log_prob` draws."""

import inspect
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from plain_text import shielded
from sphinx.application import Sphinx

from spikevae.distributions import LAWS, Law
from spikevae.plotting import BLUE, GREEN, SETTINGS, VERMILION, settings

Values = dict[str, float | list[float]]


class Words(NamedTuple):
    """What a page says that the class does not, and what its picture shows."""

    use: str
    do_not: str
    drawn: list[Values]
    """Natural parameters of three distributions, by the names of `NATURAL`."""
    until: float
    """Largest code of the picture."""
    since: float = 0.0


def logit(p: float) -> float:
    return math.log(p / (1 - p))


NATURAL: dict[str, tuple[str, Callable[[float], float]]] = {
    "log_rate": ("rate", math.log),
    "log_dispersion": ("r", math.log),
    "log_shape": ("log shape", float),
    "logit_off": ("off", logit),
    "logit": ("p", logit),
    "loc": ("loc", float),
    "log_scale": ("scale", math.log),
}
"""Of each parameter of a prior, the name and inverse of what a picture gives in its place."""

NOISY = [{"rate": 3.0, "r": r} for r in (0.5, 3.0, 30.0)]
GAUSSIANS: list[Values] = [{"loc": 0.0, "scale": 1.0}, {"loc": 0.0, "scale": 0.4}, {"loc": 1.0, "scale": 0.6}]
WORDS = {
    "poisson": Words(
        "Start here: it is the code of the papers, has one number per unit and closed forms for everything, and "
        "is the only one whose linear fits start at the limit of small signals.",
        "The variance of a count is its mean, so that a busy unit is a noisy one. At equal spikes, codes that are more "
        "regular reconstruct better. Its free energy is nearly flat in the firing rate: give a budget.",
        [{"rate": rate} for rate in (0.5, 2.0, 8.0)],
        18,
    ),
    "negative_binomial": Words(
        "Counts that vary more than Poisson counts, as those of cortical neurons over trials, with one dispersion "
        "per unit that training finds.",
        "It can only be noisier than Poisson, which costs fidelity; at large β training moves its dispersion towards "
        "Poisson.",
        [*NOISY],
        14,
    ),
    "negative_binomial_free": Words(
        "Counts whose dispersion depends on the stimulus: a second output of the encoder.",
        "Twice the outputs of the encoder, and a divergence by quadrature. Where dispersion need not change with the "
        "stimulus, the shared one is simpler.",
        [*NOISY],
        14,
    ),
    "zero_inflated_poisson": Words(
        "Sparse codes: a unit can be silent for a stimulus without a low rate where it is active.",
        "Its number of silent stimuli and its rate explain the same zeros, so that low rates hardly separate the two.",
        [{"rate": 4.0, "off": off} for off in (0.1, 0.4, 0.8)],
        12,
    ),
    "conway_maxwell_poisson": Words(
        "Counts more regular, or less, than Poisson counts, as the stimulus asks; of all counts here it reached the "
        "lowest objective at β = 0.5.",
        "Its normaliser is a series: a step takes longer. The shape is bounded, so that it cannot be as regular as a "
        "binomial of few slots.",
        [{"rate": 4.0, "log shape": shape} for shape in (-1.0, 0.0, 1.0)],
        14,
    ),
    "binomial": Words(
        "Counts with a ceiling, as from a refractory period: eight slots with at most one spike each.",
        "No count is above eight, whatever the stimulus.",
        [{"p": p} for p in (0.05, 0.25, 0.6)],
        8,
    ),
    "bernoulli": Words(
        "Few spikes, and chips: a spike is there or not, its variance is below its mean, and the decoder needs no "
        "multiplication.",
        "A unit carries one bit at most. Weights of finite order stop at degree 2, as two values fix no more.",
        [{"p": p} for p in (0.05, 0.25, 0.6)],
        1,
    ),
    "categorical": Words(
        "A fixed number of spikes per stimulus: one in each group of 16 units.",
        "Firing rates cannot follow β, few nats fit in, and the objective is sampled also with a linear decoder.",
        [{"p": [1 / 16] * 16}, {"p": [0.5, 0.25, *[0.25 / 14] * 14]}, {"p": [0.01] * 15 + [0.85]}],
        15,
    ),
    "gaussian": Words(
        "The control without spikes: the usual variational autoencoder.",
        "Codes are signed, so that no firing rate, spikes or joules are defined.",
        GAUSSIANS,
        4,
        -4,
    ),
    "laplace": Words(
        "A control with a heavy-tailed prior: many values are small, none is zero.",
        "Codes are signed. The best prior has no closed form and is learned by gradient.",
        GAUSSIANS,
        5,
        -5,
    ),
    "rectified_gaussian": Words(
        "The control of the paper: real-valued codes with exact zeros.",
        "Half of a collapsed code is zero at every β: read zeros beside R². Its divergence is an upper bound, and a "
        "value of one is no spike.",
        [{"loc": 0.0, "scale": 1.0}, {"loc": -0.5, "scale": 0.6}, {"loc": 1.0, "scale": 0.6}],
        4,
    ),
    "gaussian_softplus": Words(
        "A control with positive codes and no exact zeros, linear where it is large.",
        "Its zeros and its spikes mean nothing; the mean is integrated numerically.",
        GAUSSIANS,
        5,
    ),
    "gaussian_exp": Words(
        "A control with positive codes whose logarithm is Gaussian, as many firing rates are over neurons.",
        "Heavy tails: its mean and variance grow exponentially with the square of its scale.",
        GAUSSIANS,
        10,
    ),
}
"""By the name of the distribution in configurations."""


def drawn_laws(law: type[Law]) -> list[Law]:
    """The distributions of the picture, in float64."""
    laws = []
    for values in WORDS[law.name].drawn:
        params = {}
        for key in law.prior_params:
            symbol, inverse = NATURAL[key]
            value = values[symbol]
            numbers = [inverse(v) for v in value] if isinstance(value, list) else inverse(value)
            params[key] = torch.tensor(numbers, dtype=torch.float64)
        if law.name == "categorical":  # logits of a group, up to a constant
            params["logit"] = torch.tensor(values["p"], dtype=torch.float64).log()
        laws.append(law.from_prior(params))
    return laws


def points(law: type[Law]) -> torch.Tensor:
    """Codes at which the picture evaluates the distribution."""
    words = WORDS[law.name]
    if law.is_count:
        return torch.arange(int(words.until) + 1, dtype=torch.float64)
    start = words.since if words.since < 0 else 1e-3
    return torch.linspace(start, words.until, 600, dtype=torch.float64)


def probabilities(law: Law, codes: torch.Tensor) -> torch.Tensor:
    """Probability or density at these codes; of a group of categorical units, of a spike of each."""
    if law.batch_shape:
        return law.log_prob(torch.eye(len(codes), dtype=codes.dtype)).sum(-1).exp()
    return law.log_prob(codes).exp()


def label(law: Law, values: Values) -> str:
    if law.batch_shape:
        return f"largest p {float(max(values['p'])):.2f}"
    given = ", ".join(f"{name} {value:g}" for name, value in values.items())
    return f"{given}: mean {float(law.mean):.2f}, variance {float(law.variance):.2f}"


def picture(law: type[Law]) -> bytes:
    """A PNG file."""
    codes = points(law)
    places = codes.numpy()
    with settings(SETTINGS):
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        ax = figure.add_subplot()
        styles = zip(
            drawn_laws(law), WORDS[law.name].drawn, (BLUE, VERMILION, GREEN), "os^", ("-", "--", ":"), (-1, 0, 1)
        )
        for one, values, colour, marker, dash, place in styles:
            height = probabilities(one, codes).numpy()
            if law.is_count:
                ax.bar(places + 0.27 * place, height, width=0.25, color=colour, label=label(one, values))
                continue
            ax.plot(places, height, dash, color=colour, lw=1.6, label=label(one, values))
            if one.zero_probability > 0:
                ax.plot([0], [float(one.zero_probability)], marker, color=colour, ms=6, clip_on=False)
        group = law.name == "categorical"
        ax.set_xlabel("unit of the group" if group else "code (spikes)" if law.is_count else "code")
        masses = "density; markers: mass at zero" if law.name == "rectified_gaussian" else "density"
        ax.set_ylabel("probability" if law.is_count else masses)
        ax.set_ylim(bottom=0)
        ax.set_axisbelow(True)
        if law.is_count:
            ax.set_xticks(codes[:: 1 + len(codes) // 12].tolist())
        ax.legend(loc="upper center" if law.name == "categorical" else "upper right", fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def support(law: type[Law]) -> str:
    if law.name == "categorical":
        return "one spike in each group of 16 units"
    constraint = str(drawn_laws(law)[0].support)
    return {
        "IntegerGreaterThan(lower_bound=0)": "counts 0, 1, 2, ...",
        "IntegerInterval(lower_bound=0, upper_bound=8)": "counts 0 to 8",
        "Boolean()": "0 and 1",
        "Real()": "real numbers",
        "GreaterThanEq(lower_bound=0.0)": "real numbers at or above zero",
    }[constraint]


def gradients(law: type[Law]) -> str:
    if not law.is_count:
        return "pathwise: the code is a function of noise and parameters"
    ways = ["in closed form with a linear decoder and Gaussian pixels"] if law.independent else []
    degrees = "degree 2" if law.fini_degree == 2 else f"degrees 2 to {law.fini_degree}"
    ways += [f"finite-order exact through integer counts, {degrees}", "relaxed counts (``relaxed``)"]
    ways += ["score function, with several samples"]
    ways += ["every other one of :py:mod:`spikevae.gradients`"] if law.name == "poisson" else []
    return "; ".join(ways)


def facts(law: type[Law]) -> list[tuple[str, str]]:
    prior = "the best prior has a closed form" if law.closed_form_prior else "learned by gradient"
    return [
        ("name in configurations", f"``{law.name}``"),
        ("support", support(law)),
        ("mean", law.mean_formula),
        ("variance", law.variance_formula),
        ("Fano factor", law.fano_formula),
        ("KL divergence from the prior", law.divergence),
        ("gradients", gradients(law)),
        ("encoder outputs per unit", str(law.n_params)),
        (
            "parameters of the prior",
            ", ".join(f"``{name}``" for name in law.prior_params) + f"; {prior}",
        ),
    ]


def page(law: type[Law]) -> str:
    doc = (inspect.getdoc(law) or "").splitlines()
    start, end = doc.index("Parameters"), doc.index("References")
    parameters = doc[start + 2 : doc.index("validate_args")]
    words = WORDS[law.name]
    rows = []
    for name, value in facts(law):
        escaped = value if "``" in value or ":py:" in value else next(shielded([value])).replace("*", r"\*")
        rows += [f"   * - {name}", f"     - {escaped}"]
    alt = f"{'Probabilities' if law.is_count else 'Densities'} of three distributions: {law.label}"
    lines = [law.label, "=" * len(law.label), "", *shielded(doc[:1]), ""]
    lines += [f".. image:: {law.name}.png", f"   :alt: {alt}", ""]
    lines += ["When to use it", "--------------", "", words.use, "", "When not", "--------", "", words.do_not, ""]
    lines += ["Definition", "----------", "", *shielded(doc[2:start]), "Parameters", "----------", "", *parameters, ""]
    lines += ["In short", "--------", "", ".. list-table::", "   :widths: 30 70", "", *rows, ""]
    lines += ["References", "----------", "", *doc[end + 2 : doc.index("Examples")], ""]
    measured = (
        "Measured: :doc:`Distributions of counts compared </results/distributions_compared>`. " if law.is_count else ""
    )
    lines += [f"{measured}Every method, with an example: :py:class:`spikevae.distributions.{law.__name__}`.", ""]
    return "\n".join(lines)


def index() -> str:
    """The table of all, and the list of pages, as Markdown."""
    lines = [
        "| distribution | support | Fano factor | use it for |",
        "|---|---|---|---|",
    ]
    for law in LAWS.values():
        use = re.split("[:.,;]", WORDS[law.name].use)[0]
        link = f"{{doc}}`{law.label} <generated/laws/{law.name}>`"
        lines.append(f"| {link} | {support(law)} | {law.fano_formula} | {use} |")
    pages = [f"generated/laws/{name}" for name in LAWS]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *pages, "```", ""])


def write_laws(app: Sphinx) -> None:
    if set(WORDS) != set(LAWS):
        raise ValueError(f"docs/law_pages.py has no words on, or words on no, distribution: {set(WORDS) ^ set(LAWS)}")
    folder = Path(app.srcdir) / "generated" / "laws"
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder.parent / "laws.md": index().encode()}
    for law in LAWS.values():
        files[folder / f"{law.name}.rst"] = page(law).encode()
        files[folder / f"{law.name}.png"] = picture(law)
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_laws)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
