"""``lstm-fast gradients``: how the gradient of the last state decays or explodes with distance: RNN, GRU, LSTM."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import GRU, LSTM, RNN
from ..bench.packages import require
from ..diagnostics import GradientFlow, gradient_flow, jacobians
from .memory_chart import draw_gradients
from .parts import chrono_biases, open_forget_gates
from .progress import Progress

Array = NDArray[Any]

PURPOSE = "lstm-fast gradients"
UNITS = 32  # of every layer, and as many inputs
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # distances of the table
WEIGHTS = (2.0, 0.5)  # of the network of one unit
POWER = 50  # steps of that network and of the sigmoid network
TOLERANCE = 1e-10  # relative; both checks compare float64 with float64, whose own error is near 1e-14 after 50 steps
HALF_GONE = 1e-3  # a gradient below this share of the identity's counts as vanished


class Contender(NamedTuple):
    """A layer as it starts its training, with the settings that its gradients depend on."""

    name: str
    make: Callable[..., Any]
    open: Callable[[Any, int, np.random.Generator], None] | None  # of its gates; None: left as PyTorch starts them


def _open_by_one(layer: Any, steps: int, draw: np.random.Generator) -> None:
    open_forget_gates(layer)


CONTENDERS = (
    Contender("RNN", RNN, None),
    Contender("GRU", GRU, None),
    Contender("LSTM", LSTM, None),
    Contender("LSTM forget bias 1", LSTM, _open_by_one),
    Contender("GRU chrono", GRU, chrono_biases),
    Contender("LSTM chrono", LSTM, chrono_biases),
)


class Check(NamedTuple):
    """What a known product should be, and the largest relative error of the kernels' gradient."""

    name: str
    expected: str
    error: float

    @property
    def ok(self) -> bool:
        """Whether the error is within :data:`TOLERANCE`; False for NaN."""
        return self.error <= TOLERANCE


def flows(steps: int, seed: int) -> dict[str, GradientFlow]:
    """The gradient flow of every contender over the same random inputs of ``steps`` steps, in float64."""
    x = np.random.default_rng(seed).standard_normal((steps, UNITS))
    found = {}
    with Progress("gradients", len(CONTENDERS)) as bar:
        for done, contender in enumerate(CONTENDERS):
            bar.move(done, contender.name)
            layer = contender.make(UNITS, UNITS, dtype=np.float64, seed=seed)
            if contender.open:
                contender.open(layer, steps, np.random.default_rng([seed, 1]))  # another stream than the inputs'
            found[contender.name] = gradient_flow(layer, x)
    return found


def power(weight: float) -> tuple[Array, Check]:
    """The gradient through a network of one unit, h_t = w h_(t-1) + x_t, by distance 0..POWER, and its check."""
    layer = RNN(1, 1, bias=False, nonlinearity="identity", dtype=np.float64)
    layer.parameters["weight_ih_l0"][:] = 1
    layer.parameters["weight_hh_l0"][:] = weight
    flow = gradient_flow(layer, np.ones((POWER + 1, 1)))
    errors = np.concatenate([found / weight ** np.arange(len(found)) - 1 for found in flow])
    check = Check(f"w^{POWER}, w = {weight:g}", f"{weight**POWER:.6g}", float(np.max(np.abs(errors))))
    return flow.state[: POWER + 1], check


def sigmoid_product(seed: int) -> Check:
    """Check d h_n / d x_k = D(h_n) V D(h_(n-1)) V ... D(h_k) U of h_t = s(U x_t + V h_(t-1)), D(h) = diag(h (1 - h)).

    The product is formed from the other end than backward's, and its error is that of the worst element of any k, as a
    share of the largest of its matrix.
    """
    layer = RNN(UNITS, UNITS, nonlinearity="sigmoid", dtype=np.float64, seed=seed)
    u, v = layer.parameters["weight_ih_l0"], layer.parameters["weight_hh_l0"]
    x = np.random.default_rng(seed).standard_normal((POWER, UNITS))
    h, _ = layer(x)
    slopes = (h * (1 - h))[:, :, None]
    errors = []
    for jacobian in jacobians(layer, x):
        first, *later = slopes[POWER - 1 - jacobian.distance :]
        product = first * u
        for slope in later:
            product = slope * (v @ product)
        largest = np.max(np.abs(product))
        errors.append(np.max(np.abs(jacobian.x[0] - product)) / largest)
    return Check(f"sigmoid RNN, products of {POWER} D(h) V", f"largest {largest:.3g}", float(np.max(errors)))


def _number(value: float) -> str:
    return f"{value:.2g}" if 1e-3 <= value < 1e4 or value == 0 else f"{value:.0e}"


def reach(flow: GradientFlow) -> str:
    """The first distance at which less than HALF_GONE of the identity's norm is left."""
    gone = np.flatnonzero(flow.state < HALF_GONE)
    return str(gone[0]) if len(gone) else f"> {len(flow.state) - 1}"


def _tables(found: dict[str, GradientFlow]) -> list[Any]:
    table, box = (require(f"rich.{name}", PURPOSE) for name in ("table", "box"))
    made = []
    for title, columns in (
        ("norm of d state_T / d state_(T-k)", [flow.state for flow in found.values()]),
        ("norm of d y_T / d x_(T-k)", [flow.x for flow in found.values()]),
    ):
        shown = table.Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        shown.add_column("k", justify="right")
        for name in found:
            shown.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
        furthest = len(columns[0]) - 1
        for distance in (*(k for k in SHOWN if k < furthest), furthest):
            shown.add_row(str(distance), *(_number(column[distance]) for column in columns))
        made.append(shown)
    made[0].add_section()
    made[0].add_row(f"< {HALF_GONE:g} from k", *map(reach, found.values()))
    return made


def _checks_table(checks: Sequence[Check]) -> Any:
    table, box = (require(f"rich.{name}", PURPOSE) for name in ("table", "box"))
    made = table.Table(title=f"gradients beside known products; {TOLERANCE:g} is allowed", box=box.SIMPLE_HEAD)
    made.title_justify = "left"
    for name in ("check", "expected", "relative error", ""):
        made.add_column(name, justify="left" if name in ("check", "") else "right", no_wrap=True)
    for check in checks:
        verdict = "[green]ok[/]" if check.ok else "[bold red]FAILED[/]"
        made.add_row(check.name, check.expected, f"{check.error:.1e}", verdict)
    return made


def run(steps: int, seed: int, plot: Path | None) -> int:
    """Compute, check, print and draw; 1 if a check failed."""
    wide = None if sys.stdout.isatty() else 120  # in a file or a pipe no table is cut
    console = require("rich.console", PURPOSE).Console(highlight=False, soft_wrap=True, width=wide)
    if plot:
        require("matplotlib", PURPOSE)
        if not plot.parent.is_dir():
            raise ValueError(f"--plot: there is no directory {plot.parent}")
    powers = {weight: power(weight) for weight in WEIGHTS}
    checks = [*(check for _, check in powers.values()), sigmoid_product(seed)]
    found = flows(steps, seed)
    console.print(
        f"Layers of {UNITS} units as their training starts, {UNITS} random inputs, {steps} steps, float64; exact"
        "\nJacobians by the kernels' backward. y is the output h; the state h, of an LSTM h and c."
        f"\nchrono: the gates that keep the memory are open for 1 to {steps} steps (Tallec and Ollivier, 2018).\n",
        markup=False,
    )
    for table in (*_tables(found), _checks_table(checks)):
        console.print(table)
    console.print(
        "To be an LSTM or a GRU is not enough: as PyTorch starts them, more than a third is lost at every step. But"
        "\ntheir gates can be opened, and then the gradient survives. An RNN has nothing to open.",
        markup=False,
    )
    if plot:
        draw_gradients(found, {weight: flow for weight, (flow, _) in powers.items()}, plot)
        console.print(f"picture: {plot}", markup=False, soft_wrap=True)
    return 0 if all(check.ok for check in checks) else 1
