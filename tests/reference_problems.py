"""Problems for the reference of every cell, its variants and aids, and their gradients by finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import lstm_fast as lf
import numpy as np
from judge import Array, distance

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LAYER_NORM = ("g_x", "g_h", "g_c", "b_c")


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of forward and the gradients that come back into it."""

    cell: str
    arrays: dict[str, Array]  # arguments of forward that have a gradient; layer_norm as its four arrays
    upstream: dict[str, Array]  # dy, dhn and, of an LSTM, dcn
    options: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        plain = {name: value for name, value in self.arrays.items() if name not in LAYER_NORM}
        if "g_x" in self.arrays:
            plain["layer_norm"] = tuple(self.arrays[name] for name in LAYER_NORM)
        return plain | self.options

    def forward(self, **others: Any) -> tuple[dict[str, Array], Any]:
        """y and the final states by name, and the reserve."""
        *outputs, reserve = getattr(lf.reference, f"{self.cell}_forward")(**self.arguments | others)
        return dict(zip(("y", "hn", "cn"), outputs, strict=False)), reserve

    def gradients(self, reserve: Any, **upstream: Array) -> dict[str, Array]:
        """Of every array, by its name, for these upstream gradients or for all."""
        grads = getattr(lf.reference, f"{self.cell}_backward")(reserve, **(upstream or self.upstream))
        return grads | dict(zip(LAYER_NORM, grads.pop("layer_norm", ()), strict=False))

    def solve(self) -> tuple[dict[str, Array], dict[str, Array]]:
        outputs, reserve = self.forward()
        return outputs, self.gradients(reserve)

    def loss(self) -> float:
        outputs, _ = self.forward()
        return float(sum((outputs[name[1:]] * value).sum() for name, value in self.upstream.items()))

    def replace(self, **arrays: Array) -> Case:
        return dataclasses.replace(self, arrays=self.arrays | arrays)

    def optional(self, **options: Any) -> Case:
        return dataclasses.replace(self, options=self.options | options)


def draw_case(
    cell: str,
    shape: tuple[int, int, int, int] = (5, 3, 2, 4),
    *,
    bias: tuple[str, ...] = ("b_ih", "b_hh"),
    projection: int = 0,
    peephole: bool = False,
    layer_norm: bool = False,
    scale: float = 1.0,
    **options: Any,
) -> Case:
    """A random case of a shape (T, B, I, H); parameters uniform in +-scale, dtype float64."""
    steps, batch, inputs, hidden = shape
    rng = np.random.default_rng(shape)
    gates = GATES[cell] - ("coupled" in options)
    width = projection or hidden
    states = {"h0": width} | ({"c0": hidden} if cell == "lstm" else {})
    shapes: dict[str, tuple[int, ...]] = {"w_ih": (gates * hidden, inputs), "w_hh": (gates * hidden, width)}
    shapes |= dict.fromkeys(bias, (gates * hidden,))
    if projection:
        shapes["w_hr"] = (projection, hidden)
    if peephole:
        shapes["peephole"] = (gates - 1, hidden)
    if layer_norm:
        shapes |= dict(zip(LAYER_NORM, [(gates * hidden,)] * 2 + [(hidden,)] * 2, strict=True))
    arrays = {"x": rng.standard_normal((steps, batch, inputs))}
    arrays |= {name: rng.standard_normal((batch, size)) for name, size in states.items()}
    arrays |= {name: rng.uniform(-scale, scale, size) for name, size in shapes.items()}
    upstream = {"dy": rng.standard_normal((steps, batch, width))}
    upstream |= {f"d{name[0]}n": rng.standard_normal((batch, size)) for name, size in states.items()}
    return Case(cell, arrays, upstream, options)


def numeric_gradient(loss: Callable[[Array], float], value: Array) -> Array:
    """By central differences over four points.

    They omit step^4 = 2e-19 times a fifth derivative, which layer norm over few units makes large; rounding adds about
    1e-16 / step = 5e-12 of the loss.
    """
    step = 2e-5
    gradient = np.empty_like(value)
    for index in np.ndindex(*value.shape):

        def at(steps: int, index: tuple[int, ...] = index) -> float:
            moved = value.copy()
            moved[index] += steps * step
            return loss(moved)

        gradient[index] = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    return gradient


def assert_gradients_are_numeric(case: Case, bound: float = 1e-8) -> None:
    """Those of every array. The bound leaves room for a loss of 1000."""
    _, grads = case.solve()
    assert set(grads) == set(case.arrays)
    for name, value in case.arrays.items():
        assert grads[name].shape == value.shape, name
        numeric = numeric_gradient(lambda moved, name=name: case.replace(**{name: moved}).loss(), value)
        measured = distance(grads[name], numeric)
        assert measured <= bound, f"{name}: {measured:.2e}, {bound:.0e} allowed"
