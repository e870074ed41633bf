r"""Diffusion models of vectors: `Diffusion`, schedules of few steps, and what each schedule costs in nats.

>>> curve = NoiseCurve.of_function(lambda snr: 1 / (1 + snr), snr_max=100)
>>> {name: round(discretisation(curve, schedule(curve, 4)), 2) for name, schedule in SCHEDULES.items()}
{'uniform': 11.08, 'log_snr': 8.07, 'cosine': 8.67, 'edm': 13.63, 'loss_adaptive': 2.03, 'optimal': 2.03}

:class:`EnergyDiffusion` has an energy that is consistent in time, from which samples and simulations come. The residual
of the Fokker-Planck equation of any log density is :func:`strong_residual`:

>>> import torch
>>> normal = lambda x, t: -0.5 * x.square().sum(-1)
>>> strong_residual(normal, torch.ones(1, 2), torch.tensor([0.5])).item()
0.0
"""

from .curve import NoiseBins as NoiseBins
from .curve import NoiseCurve as NoiseCurve
from .denoiser import Denoiser as Denoiser
from .diffusion import Diffusion as Diffusion
from .divergence import discretisation as discretisation
from .divergence import run as run
from .divergence import simulated_discretisation as simulated_discretisation
from .energy import MIXTURE as MIXTURE
from .energy import EnergyDiffusion as EnergyDiffusion
from .fokker_planck import strong_residual as strong_residual
from .fokker_planck import weak_residual as weak_residual
from .fokker_planck import weak_square as weak_square
from .process import VariancePreserving as VariancePreserving
from .process import reverse_diffusion as reverse_diffusion
from .schedules import SCHEDULES as SCHEDULES
from .schedules import cosine as cosine
from .schedules import edm as edm
from .schedules import log_snr as log_snr
from .schedules import loss_adaptive as loss_adaptive
from .schedules import optimal as optimal
from .schedules import uniform as uniform
