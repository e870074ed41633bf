"""Training steps on a GPU, and the published grid: stages of `gpu.py`."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paper_grid
import torch
from gpu_checks import ROOT, stack_of
from gpu_rows import Setting, Table

from spikevae.config import FitConfig
from spikevae.sweep.plan import MAX_STACK_BYTES
from spikevae.training import Stack
from spikevae.training.checks import stack_bytes

PIXELS = 256
OBJECTIVES: dict[str, dict[str, Any]] = {
    "exact": {},
    "Fini": {"estimator": "fini", "prior": "learned"},
    "arrivals": {"estimator": "monte_carlo", "prior": "learned", "temperature_anneal": 0.0},
}
SIZES = tuple((k, batch) for batch in (1000, 250) for k in (128, 512, 2048, 4096))
TARGETS = {
    "step": "Target: a captured step within 2 times of its products.",
    "stacks": "Target: 16 fits 10 times faster than one by one at K <= 256.",
    "grid": "Target: the whole published budget within one hour; published: 394 GPU-hours.",
}


def products(batch: int, k: int, solved: bool, setting: Setting, n_fits: int = 1, pixels: int = PIXELS) -> float:
    """Seconds of the matrix products of a step: encoder, decoder, gradients of code, dictionary and encoder."""
    make = lambda *shape: torch.randn(n_fits, *shape, device=setting.device)
    x, code, encoder, dictionary = make(batch, pixels), make(batch, k), make(pixels, k), make(k, pixels)

    def run() -> None:
        x @ encoder, code @ dictionary, x @ dictionary.mT, code.mT @ x, x.mT @ code
        if solved:
            code.mT @ code

    return setting.seconds(run)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Matrix products of float32 numbers in "highest" precision or in "high" (TF32)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _stack(k: int, batch: int, objective: str, setting: Setting, kind: str, n_fits: int = 1, **more: Any) -> Stack:
    x = _noise(batch, more.pop("pixels", PIXELS), setting)
    settings = {"n_latents": k, "batch_size": batch, "steps": 1_000_000, "init": "random", "start": -3.0}
    settings |= {"init_scale": 1 / 16, **OBJECTIVES[objective], **more}
    configs = [FitConfig.from_recipe("default", **settings, seed=seed) for seed in range(n_fits)]
    return stack_of(configs, x, setting, kind)


def _noise(batch: int, pixels: int, setting: Setting) -> torch.Tensor:
    """Stimuli for an epoch of 100 steps, as published, since a new order for each epoch takes the host some time."""
    generator = torch.Generator(setting.device).manual_seed(0)
    n = (4 if setting.dry else 100) * batch
    return torch.randn(n, pixels, generator=generator, device=setting.device)


def _stepper(stack: Stack, setting: Setting, kind: str) -> Callable[[], None]:
    """The step of a stack once it is what it is on the way of a long fit."""
    for _ in range(4 if setting.dry else 56):  # over the steps in which decoders' moments are averaged
        stack.step()
    if kind == "compiled":
        graph = stack._gradients._graph
        assert graph is not None and stack.is_recorded, "the step cannot be traced"
        stack._gradients._graph = torch.compile(graph, backend="eager" if setting.dry else "inductor")
        stack.step()
    if kind == "captured" and not (stack.capture is not None and stack.capture.is_captured):
        raise RuntimeError(stack.capture.reason if stack.capture is not None else "no GPU")
    return stack.step


def _milliseconds(
    k: int, batch: int, objective: str, setting: Setting, kind: str, n_fits: int = 1, **more: Any
) -> float | str:
    """Of a step; a reason where it cannot be measured."""
    try:
        stack = _stack(k, batch, objective, setting, kind, n_fits, **more)
        return 1e3 * setting.seconds(_stepper(stack, setting, kind), repeats=3)
    except Exception as error:
        if setting.dry and kind in ("plain", "recorded"):
            raise
        return " ".join(str(error).split())[:60].replace("|", "/") or type(error).__name__
    finally:
        if kind == "compiled":  # loading the compiler switches off that distributions check their arguments
            torch.distributions.Distribution.set_default_validate_args(__debug__)  # PyTorch's default


def steps(setting: Setting, table: Table) -> None:
    """Steps of all kinds against their products, in float32 and TF32."""
    table.say(TARGETS["step"])
    sizes = (
        ((8, 20),) if setting.dry else ((128, 250), (512, 1000), (2048, 1000), (4096, 1000), (128, 1000), (512, 250))
    )
    for k, batch in sizes:
        for objective in OBJECTIVES:
            for name, level in (("float32", "highest"), ("TF32", "high")):
                setting.check_time(f"K = {k}, batch {batch}, {objective}, {name}")
                with precision(level):
                    bare = 1e3 * products(batch, k, objective == "exact", setting)
                    kinds = ("captured",) if name == "TF32" else ("plain", "recorded", "captured")
                    taken = {kind: _milliseconds(k, batch, objective, setting, kind) for kind in kinds}
                captured = taken["captured"]
                table.add(
                    K=k, batch=batch, objective=objective, precision=name, products_ms=bare,
                    plain_ms=taken.get("plain", "-"), recorded_ms=taken.get("recorded", "-"), captured_ms=captured,
                    captured_over_products=captured / bare if isinstance(captured, float) else "-",
                )  # fmt: skip
    for k in (8,) if setting.dry else (512, 4096):
        setting.check_time("torch.compile")
        batch = 20 if setting.dry else 1000
        table.add(compiled_at_K=k, batch=batch, ms=_milliseconds(k, batch, "exact", setting, "compiled"))


def stacks(setting: Setting, table: Table) -> None:
    """Time per fit of stacks of growing size against one fit alone."""
    table.say(TARGETS["stacks"])
    for k in (8,) if setting.dry else (32, 128, 256, 512):
        alone: float | str = "-"
        for n_fits in (1, 2) if setting.dry else (1, 4, 16, 64):
            setting.check_time(f"K = {k}, {n_fits} fits")
            taken = _milliseconds(k, 250, "exact", setting, "captured" if setting.on_gpu else "plain", n_fits)
            alone = taken if n_fits == 1 else alone
            each = taken / n_fits if isinstance(taken, float) else taken
            bare = 1e3 * products(250, k, True, setting, n_fits) / n_fits
            faster = alone / each if isinstance(alone, float) and isinstance(each, float) else "-"
            table.add(K=k, fits=n_fits, ms_per_fit=each, products_ms_per_fit=bare, times_faster_than_alone=faster)


def _grid_settings(law: str, k: int, **more: Any) -> list[FitConfig]:
    settings = {"latent": law, "n_latents": k, "epochs": paper_grid.EPOCHS, **more}
    return [FitConfig.from_recipe("paper", beta=beta, **settings) for beta in paper_grid.BETAS]


def grid(setting: Setting, table: Table) -> None:
    """A step of the published settings at each size, all betas in as few stacks as memory allows, and the sum."""
    table.say(TARGETS["grid"])
    n_steps = paper_grid.EPOCHS * (paper_grid.PATCHES // paper_grid.BATCH)
    hours, sizes = 0.0, (4, 8) if setting.dry else paper_grid.WIDTHS
    for law in paper_grid.LAWS:
        for k in sizes:
            setting.check_time(f"{law}, K = {k}")
            configs = _grid_settings(law, k, optimizer="adam")
            room = 40 * MAX_STACK_BYTES if setting.on_gpu else MAX_STACK_BYTES
            fits = len(configs)
            while fits > 1 and stack_bytes(configs[0], (PIXELS,), fits) > room:
                fits //= 2
            batch = paper_grid.BATCH if not setting.dry else 50
            x = _noise(batch, PIXELS, setting)
            configs = [config.model_copy(update={"temperature_anneal": 0.0}) for config in configs[:fits]]
            kind = "captured" if setting.on_gpu else "plain"
            stack = stack_of(configs, x, setting, kind)
            for _ in range(4):
                stack.step()
            seconds = setting.seconds(stack.step, repeats=3) / fits
            spent = seconds * len(paper_grid.BETAS) * n_steps / 3600
            hours += spent
            how = "captured" if stack.capture is not None and stack.capture.is_captured else "recorded"
            table.add(law=law, K=k, fits_per_stack=fits, step=how, ms_per_fit_step=1e3 * seconds, hours=spent)
    table.say(
        f"Projected: {hours:.2f} hours = sum over rows of ms per fit and step x {len(paper_grid.BETAS)} betas x "
        f"{n_steps:,} steps ({paper_grid.EPOCHS:,} epochs of {paper_grid.PATCHES // paper_grid.BATCH}); published: "
        f"{sum(paper_grid.PUBLISHED_GPU_HOURS.values()):.0f} GPU-hours. Adam in place of Adamax, noise in place of "
        "photographs."
    )


def dictionary(setting: Setting, table: Table) -> None:
    """Steps of a Poisson code of activations: 2,304 numbers, 65,536 units."""
    k, pixels, batch = (32, 24, 20) if setting.dry else (65_536, 2304, 1024)
    for name, level in (("float32", "highest"), ("TF32", "high")):
        for objective in ("exact", "Fini"):
            setting.check_time(f"{objective}, {name}")
            setting.peak_gib()
            with precision(level):
                bare = 1e3 * products(batch, k, False, setting, pixels=pixels)
                more = {"pixels": pixels, "decoder_update": "gradient"}
                taken = _milliseconds(k, batch, objective, setting, "captured" if setting.on_gpu else "plain", **more)
            table.add(
                D=pixels, K=k, batch=batch, objective=objective, precision=name, products_ms=bare, step_ms=taken,
                over_products=taken / bare if isinstance(taken, float) else "-", peak_GiB=setting.peak_gib(),
            )  # fmt: skip


def whole_fits(setting: Setting, table: Table) -> None:
    """The published recipe at a tenth of its epochs, from the command line's own sweep, with its report."""
    small = ["n_latents=[4]", "epochs=1", "beta=[1.0]", "data.n=1200", "data.n_test=100"]
    settings = small if setting.dry else ["n_latents=[32, 64, 128, 192]", "epochs=300"]
    left = max(10.0, setting.deadline - time.monotonic())
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "benchmarks" / "paper_grid.py"), "--run", folder]
        command += [part for value in settings for part in ("--set", value)]
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=None if setting.dry else left, cwd=ROOT
            )
            if setting.dry:
                done.check_returncode()
            table.say((done.stdout.strip() or done.stderr.strip())[-1500:].replace("\n", "  \n"))
        except subprocess.TimeoutExpired:
            table.say(f"Stopped after {left:.0f} s.")
        cells = [json.loads(path.read_text()) for path in Path(folder).glob("cells/*.json")]
        seconds = [float(cell.get("seconds") or 0.0) for cell in cells]
        taken = time.monotonic() - began
        table.add(fits_done=len(cells), settings=", ".join(settings), seconds=taken, of_fits=sum(seconds))
