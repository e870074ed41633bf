"""What samplers take and return, what they refuse, and how they end."""

import numpy as np
import pytest
import torch
from helpers import draw, seeded
from torch import Tensor

from spikevae.samplers import MIED, SVGD, Interrupted, Langevin

SAMPLERS = (MIED, SVGD, Langevin)


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_numpy_and_torch_give_the_same_in_their_own_kind(sampler) -> None:
    start = draw(10, 2)
    tensor = sampler(normal).sample(10, 5, start=start)
    array = sampler(normal).sample(10, 5, start=start.numpy())
    assert tensor.dtype == torch.float64 and isinstance(array, np.ndarray) and array.dtype == np.float64
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert not np.array_equal(array, start.numpy())
    torch.testing.assert_close(start, draw(10, 2))  # not written to


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_decide(sampler) -> None:
    state = torch.get_rng_state()
    first, again, other = (sampler(normal).sample(10, 5, dimension=2, seed=seed) for seed in (3, seeded(3), 4))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_results_do_not_depend_on_the_state_of_torch(sampler) -> None:
    usual = sampler(normal).sample(10, 5, dimension=2)
    with torch.inference_mode():
        np.testing.assert_array_equal(sampler(normal).sample(10, 5, dimension=2), usual)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_densities_that_are_not_a_number_are_located(sampler) -> None:
    calls = 0

    def broken(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return normal(x) if calls < 4 else torch.where(torch.arange(len(x)) == 2, torch.nan, normal(x))

    with pytest.raises(
        ValueError, match=r"log_density is nan after 3 steps for 1 of 10 particles, first at x = \["
    ) as error:
        sampler(broken).sample(10, 20, dimension=2)
    assert "constraint=" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_densities_of_zero_and_gradients_without_value_are_located(sampler) -> None:
    start = torch.tensor([[1.0], [-1.0], [2.0]])
    with pytest.raises(ValueError, match=r"is -inf at the start for 1 of 3 particles, first at x = \[-1.0\]"):
        sampler(lambda x: torch.where(x[:, 0] > 0, 0.0, -torch.inf)).sample(3, 5, start=start)
    with pytest.raises(ValueError, match=r"gradient of log_density is \[nan\] at the start for 1 of 3 .*torch.where"):
        sampler(lambda x: torch.where(x[:, 0] > 0, x[:, 0], 0 * x[:, 0].sqrt().nan_to_num())).sample(3, 5, start=start)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupts_keep_the_particles(sampler) -> None:
    calls = 0

    def stopping(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == (7 if sampler is not Langevin else 8):  # chains have a first evaluation
            raise KeyboardInterrupt
        return normal(x)

    with pytest.raises(Interrupted, match="stopped after 6 of 50 steps") as stop:
        sampler(stopping).sample(10, 50, dimension=2)
    assert stop.value.steps == 6
    if sampler is not Langevin:  # whose step size is adapted over half of the steps
        np.testing.assert_array_equal(stop.value.particles, sampler(normal).sample(10, 6, dimension=2))


def test_progress_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    MIED(normal).sample(5, 3, dimension=1)
    assert not capsys.readouterr().err
    MIED(normal).sample(5, 3, dimension=1, verbose=True)
    assert "MIED: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MIED(normal).sample(5), "dimension of the points is not known"),
        (lambda: MIED(normal).sample(1, dimension=1), "n_particles is 1; give a whole number, 2 or more"),
        (lambda: MIED(normal).sample(5, 0, dimension=1), "n_steps is 0"),
        (lambda: MIED(normal).sample(5, dimension=0), "dimension is 0"),
        (lambda: MIED(normal).sample(5, start=np.zeros((4, 1))), r"start has shape \(4, 1\); give \(5, d\)"),
        (lambda: MIED(normal).sample(2, start=[[0.0], [np.nan]]), "start has 1 entries that are not finite"),
        (lambda: MIED(normal).sample(5, dimension=1, seed=-1), "seed is -1"),
        (lambda: MIED(normal).sample(5, start=np.zeros((5, 1)), dimension=2), "2 by dimension, 1 by start"),
        (lambda: MIED(lambda x: x).sample(5, 1, dimension=2), r"log_density gave \(5, 2\) for points \(5, 2\)"),
        (lambda: MIED(lambda x: 1.0).sample(5, 1, dimension=2), "log_density gave float"),
        (lambda: MIED(normal, kernel="cauchy"), "there are riesz, gaussian, laplace"),
        (lambda: MIED(normal, kernel="gaussian", alpha=1.0), "to the power 2: give alpha=0.5"),
        (lambda: MIED(normal, kernel="laplace", exponent=1.0), "the laplace kernel has none"),
        (lambda: MIED(normal, kernel="laplace", epsilon=0.0), "epsilon is 0; give 1e-06 or more"),
        (lambda: MIED(normal, epsilon=-1.0), "epsilon is -1; give 0 or more"),
        (lambda: MIED(normal, exponent=0.0), "exponent is 0"),
        (lambda: MIED(normal, alpha=0.0), "alpha is 0"),
        (lambda: SVGD(normal, learning_rate=0.0), "learning_rate is 0"),
        (lambda: Langevin(normal, step_size=float("nan")), "step_size is nan"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MIED(3.0), "log_density is float"),
        (lambda: SVGD(normal, constraint="box"), "constraint is str; give Box, Simplex or Region"),
        (lambda: SVGD(normal).sample(5, dimension=1, seed="a"), "seed is 'a'"),
    ],
)
def test_other_types_are_named(call, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()
