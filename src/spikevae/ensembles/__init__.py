r"""Posteriors over the parameters of any PyTorch module: ensembles, repulsion, and multi-sample robust objectives.

An :class:`Ensemble` has members (particles) that train together; a :class:`GaussianPosterior` an independent Gaussian
for each parameter. Both are fitted by a lower bound of the logarithm of the mean likelihood over members or draws,
chosen by `objective`:

>>> import numpy as np, torch
>>> x = np.random.default_rng(0).uniform(-1, 1, size=(60, 1))
>>> y = np.sin(3 * x[:, 0])
>>> net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
>>> fit = Ensemble(net, 4, objective="repulsion", noise_scale=0.1, n_steps=200, random_state=0).fit(x, y)
>>> mean, std = fit.predict([[0.0], [3.0]], return_std=True)
>>> bool(std[0] < std[1])  # members agree on data, and less away from them
True

:func:`train_vaes` trains variational autoencoders as members of one ensemble.
"""

from ._estimator import Interrupted as Interrupted
from ._estimator import ParameterPosterior as ParameterPosterior
from .bounds import average as average
from .bounds import pac2 as pac2
from .bounds import pac2_tight as pac2_tight
from .bounds import pac2_weight as pac2_weight
from .bounds import pac_m as pac_m
from .bounds import repulsion as repulsion
from .ensemble import Ensemble as Ensemble
from .gaussian_posterior import GaussianPosterior as GaussianPosterior
from .likelihoods import bernoulli as bernoulli
from .likelihoods import gaussian as gaussian
from .likelihoods import poisson as poisson
from .vaes import EvidenceBounds as EvidenceBounds
from .vaes import evidence_bounds as evidence_bounds
from .vaes import train_vaes as train_vaes
