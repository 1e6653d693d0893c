"""LSTM problems for the tests, and one function for each way to solve one; every result is a flat dict of arrays.

The names of a result: y, hn, cn, and dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh (biases only where given).
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import lstm_fast as lf
import numpy as np
from judge import Array

SIZES = (1, 2, 5, 7, 8, 16, 17, 33, 64, 100, 129)
Shape = tuple[int, int, int, int]  # T, B, I, H

PARAMETER_NAMES = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Inputs of one layer and the gradients that come back into it."""

    x: Array  # [T,B,I]
    h0: Array  # [B,H]
    c0: Array  # [B,H]
    w_ih: Array  # [4H,I]
    w_hh: Array  # [4H,H]
    b_ih: Array | None  # [4H]
    b_hh: Array | None  # [4H]
    dy: Array  # [T,B,H]
    dhn: Array  # [B,H]
    dcn: Array  # [B,H]

    @property
    def shape(self) -> Shape:
        return (*self.x.shape, self.h0.shape[1])  # type: ignore[return-value]

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    @property
    def forward(self) -> dict[str, Array | None]:
        """The arguments of lstm_forward, by name."""
        return {name: getattr(self, name) for name in ("x", "h0", "c0", *PARAMETER_NAMES)}

    @property
    def cell(self) -> dict[str, Array | None]:
        """The arguments of lstm_cell, by name: the first step."""
        parameters = {name: getattr(self, name) for name in PARAMETER_NAMES}
        return {"x": self.x[0], "h": self.h0, "c": self.c0, **parameters}

    @property
    def backward(self) -> dict[str, Array]:
        """The arguments of lstm_backward after the reserve, by name."""
        return {"dy": self.dy, "dhn": self.dhn, "dcn": self.dcn}

    @property
    def arrays(self) -> dict[str, Array]:
        """All arrays that are there, by name."""
        every = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in every.items() if value is not None}

    def replace(self, **arrays: Array | None) -> Problem:
        return dataclasses.replace(self, **arrays)

    def astype(self, dtype: Any) -> Problem:
        return self.replace(**{name: value.astype(dtype) for name, value in self.arrays.items()})

    def copy(self) -> Problem:
        return self.replace(**{name: value.copy() for name, value in self.arrays.items()})

    def rows(self, index: Any) -> Problem:
        """The problem of some rows of the batch, in the order of ``index``."""
        taken = {name: getattr(self, name)[:, index].copy() for name in ("x", "dy")}
        return self.replace(**taken, **{name: getattr(self, name)[index].copy() for name in ("h0", "c0", "dhn", "dcn")})


def draw(
    steps: int, batch: int, inputs: int, hidden: int, dtype: Any = "float32", *, bias: str = "both", seed: int = 0
) -> Problem:
    """A random problem; weights and biases uniform in +-1/sqrt(H) as in PyTorch. bias: both, none, b_ih or b_hh."""
    rng = np.random.default_rng([seed, steps, batch, inputs, hidden])

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    def uniform(*shape: int) -> Array:
        bound = 1 / np.sqrt(hidden)
        return rng.uniform(-bound, bound, shape).astype(dtype)

    return Problem(
        x=normal(steps, batch, inputs),
        h0=np.tanh(normal(batch, hidden)),
        c0=normal(batch, hidden),
        w_ih=uniform(4 * hidden, inputs),
        w_hh=uniform(4 * hidden, hidden),
        b_ih=uniform(4 * hidden) if bias in ("both", "b_ih") else None,
        b_hh=uniform(4 * hidden) if bias in ("both", "b_hh") else None,
        dy=normal(steps, batch, hidden),
        dhn=normal(batch, hidden),
        dcn=normal(batch, hidden),
    )


def pairwise_shapes() -> list[Shape]:
    """121 shapes in which every pair of sizes occurs for every pair of dimensions.

    There are 11 sizes, and 11 is a prime: the lines a, b, a + b, a + 2b over the integers modulo 11 are an orthogonal
    array, so each pair occurs exactly once.
    """
    return [
        (SIZES[a], SIZES[b], SIZES[(a + b) % 11], SIZES[(a + 2 * b) % 11])
        for a, b in itertools.product(range(11), repeat=2)
    ]


def random_shapes(count: int, seed: int) -> list[Shape]:
    generator = random.Random(seed)
    return [tuple(generator.choice(SIZES) for _ in range(4)) for _ in range(count)]  # type: ignore[misc]


def solve(problem: Problem, implementation: Any = None, **options: Any) -> dict[str, Array]:
    """Forward, with these options, and backward through ``lf.ops`` or a module with the same functions."""
    implementation = implementation or lf.ops
    y, hn, cn, reserve = implementation.lstm_forward(**problem.forward, **options)
    grads = implementation.lstm_backward(reserve, **problem.backward)
    return {"y": y, "hn": hn, "cn": cn} | {f"d{name}": value for name, value in grads.items()}


def solve_reference(problem: Problem) -> dict[str, Array]:
    return solve(problem.astype(np.float64), lf.reference)


def make_layer(problem: Problem, **options: Any) -> lf.LSTM:
    """An LSTM layer with the problem's weights; both biases or none."""
    layer = lf.LSTM(
        problem.x.shape[2], problem.h0.shape[1], bias=problem.b_ih is not None, dtype=problem.dtype, **options
    )
    weights = {name: getattr(problem, short) for short, name in PARAMETER_NAMES.items()}
    layer.load_state_dict({name: value for name, value in weights.items() if value is not None})
    return layer


def solve_layer(problem: Problem, *, batch_first: bool = False) -> dict[str, Array]:
    """Forward and backward through ``lf.LSTM``."""

    def turn(value: Array) -> Array:
        return np.ascontiguousarray(value.swapaxes(0, 1)) if batch_first else value

    layer = make_layer(problem, batch_first=batch_first)
    y, (hn, cn), reserve = layer.forward(turn(problem.x), (problem.h0[None], problem.c0[None]))
    grads = layer.backward(reserve, turn(problem.dy), (problem.dhn[None], problem.dcn[None]))
    dh0, dc0 = grads.state
    result = {"y": turn(y), "hn": hn[0], "cn": cn[0], "dx": turn(grads.x), "dh0": dh0[0], "dc0": dc0[0]}
    return result | {f"d{n}": grads.parameters[long] for n, long in PARAMETER_NAMES.items() if long in grads.parameters}


def states(problem: Problem) -> Any:
    """Gates i, f, g, o and c of every step, [T,B,H] each, as the layer's reserve shows them. Both biases or none."""
    *_, reserve = make_layer(problem).forward(problem.x, (problem.h0[None], problem.c0[None]))
    return reserve.states(layer=0, reverse=False)


def solve_torch(problem: Problem, *, batch_first: bool = False) -> dict[str, Array]:
    """Forward and backward through ``torch.nn.LSTM`` in float64; a missing bias is zero there."""
    import torch

    steps_first = (1, 0, 2) if batch_first else (0, 1, 2)
    wide = problem.astype(np.float64)
    layer = torch.nn.LSTM(wide.x.shape[2], wide.h0.shape[1], batch_first=batch_first, dtype=torch.float64)
    zero_bias = np.zeros(len(wide.w_ih))
    weights = {name: getattr(wide, short) for short, name in PARAMETER_NAMES.items()}
    layer.load_state_dict({n: torch.from_numpy(zero_bias if v is None else v) for n, v in weights.items()})

    def leaf(value: Array) -> Any:
        return torch.from_numpy(np.ascontiguousarray(value)).requires_grad_()

    x, h0, c0 = leaf(wide.x.transpose(steps_first)), leaf(wide.h0[None]), leaf(wide.c0[None])
    y, (hn, cn) = layer(x, (h0, c0))
    dy = torch.from_numpy(np.ascontiguousarray(wide.dy.transpose(steps_first)))
    torch.autograd.backward([y, hn, cn], [dy, torch.from_numpy(wide.dhn[None]), torch.from_numpy(wide.dcn[None])])
    result = {
        "y": y.detach().numpy().transpose(steps_first),
        "hn": hn.detach().numpy()[0],
        "cn": cn.detach().numpy()[0],
        "dx": x.grad.numpy().transpose(steps_first),
        "dh0": h0.grad.numpy()[0],
        "dc0": c0.grad.numpy()[0],
    }
    given = {short: name for short, name in PARAMETER_NAMES.items() if getattr(wide, short) is not None}
    return result | {f"d{short}": getattr(layer, name).grad.numpy() for short, name in given.items()}
