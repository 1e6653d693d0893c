"""What is checked and timed: the kernels, a problem's shape and arrays. The points of a sweep stand in points.py.

T steps, B rows, I inputs, H hidden units, L layers, D directions, P projected units or none, Ho = P or H.

One layer in one direction has the arrays of ``lstm_fast.ops``: of an LSTM x [T,B,I], h0 [B,Ho] and c0 [B,H],
w_ih [4H,I], w_hh [4H,Ho], b_ih and b_hh [4H], w_hr [P,H] with a projection, and the gradients of the loss dy [T,B,Ho],
dhn and dcn; a GRU has 3H rows, an RNN H, and neither has c or a projection.
More layers or directions have those of the layer, such as ``lstm_fast.LSTM``: states [L*D,B,.], parameters under
PyTorch's names, y and dy D*Ho wide. A ragged problem has ``lengths`` [B] too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._parameters import Sizes, parameter_shapes

Array = NDArray[Any]
Arrays = dict[str, Array]
Shape = tuple[int, ...]


class Kernel(NamedTuple):
    """One compiled kernel; each exists for every instruction set."""

    cell: str
    dtype: str


# The one list of kernels in Python: verify, the benches and the tests run over it.
KERNELS = tuple(Kernel(cell, dtype) for cell in ("lstm", "gru", "rnn") for dtype in ("float32", "float64"))
CELLS = tuple(dict.fromkeys(k.cell for k in KERNELS))
DTYPES = tuple(dict.fromkeys(k.dtype for k in KERNELS))

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",)}
SHORT_NAMES = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr")  # of one layer's parameters, in PyTorch's order
DROPOUT_SEED = 2**40 + 3  # needs both words of the generator's key


@dataclass(frozen=True)
class Problem:
    """One shape of one cell: "lstm", "gru" or "rnn", whose activation is tanh. ``inputs`` is I and defaults to H.

    ``shortest`` makes it ragged: lengths are drawn from shortest..T. ``dropout`` acts between layers, in training.
    """

    cell: str
    dtype: str
    steps: int
    batch: int
    hidden: int
    inputs: int = -1
    layers: int = 1
    directions: int = 1
    projection: int = 0
    shortest: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if (self.cell, self.dtype) not in KERNELS:
            raise ValueError(f"no kernel for cell {self.cell!r} in {self.dtype!r}; there are {CELLS} in {DTYPES}")
        if self.inputs == -1:
            object.__setattr__(self, "inputs", self.hidden)
        limits = {
            "steps": (1, None),
            "batch": (1, None),
            "hidden": (1, None),
            "inputs": (1, None),
            "layers": (1, None),
            "directions": (1, 2),
            "projection": (0, self.hidden - 1),
            "shortest": (0, self.steps),
        }
        if self.projection and self.cell != "lstm":
            raise ValueError(f"projection: expected 0, since only an LSTM has one, got {self.projection}")
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and (value < least or (most is not None and value > most)):
                wanted = f"{least} or more" if most is None else f"{least}..{most}"
                raise ValueError(f"{name}: expected {wanted}, got {value}")

    def __str__(self) -> str:
        size = f"H {self.hidden}" if self.inputs == self.hidden else f"I {self.inputs} H {self.hidden}"
        return f"{self.cell} {self.dtype} T {self.steps} B {self.batch} {size}" + "".join(
            f" {part}" for part in self.variant
        )

    @property
    def variant(self) -> list[str]:
        """What it has beyond one padded layer in one direction, in words."""
        return [
            *([f"L {self.layers}"] if self.layers > 1 else []),
            *(["bidirectional"] if self.directions == 2 else []),
            *([f"P {self.projection}"] if self.projection else []),
            *([f"ragged {self.shortest}..{self.steps}"] if self.shortest is not None else []),
            *([f"dropout {self.dropout:g}"] if self.dropout else []),
        ]

    @property
    def single(self) -> bool:
        """One layer in one direction: the arrays are those of ``lstm_fast.ops``."""
        return self.layers == self.directions == 1

    @property
    def outputs(self) -> int:
        """Ho, the width of h."""
        return self.projection or self.hidden

    @property
    def valid(self) -> int:
        """Number of (step, row) that are computed: T*B, less the padding."""
        return self.steps * self.batch if self.shortest is None else int(self.lengths().sum())

    @property
    def valid_share(self) -> float:
        return self.valid / (self.steps * self.batch)

    def padded(self) -> Problem:
        """The same problem with every row of full length; it has the same arrays, but for ``lengths``."""
        return dataclasses.replace(self, shortest=None)

    def layer_inputs(self, layer: int) -> int:
        """Width of a layer's input."""
        return self.directions * self.outputs if layer else self.inputs

    def flops(self, *, backward: bool) -> float:
        """Multiplications and additions of the matrix products in valid steps, forward only or forward + backward."""
        layers = (self.layer_inputs(layer) + self.outputs for layer in range(self.layers))
        products = GATES[self.cell] * sum(layers) + self.layers * self.projection
        forward = 2.0 * self.valid * self.directions * self.hidden * products
        return 3.0 * forward if backward else forward

    @functools.cached_property
    def parameter_shapes(self) -> dict[str, Shape]:
        """Name -> shape, in PyTorch's order; short names if :attr:`single`."""
        sizes = Sizes(GATES[self.cell], self.inputs, self.hidden, self.layers, True, self.directions, self.projection)
        shapes = parameter_shapes(sizes)
        return dict(zip(SHORT_NAMES, shapes.values(), strict=False)) if self.single else shapes

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(self.parameter_shapes)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the forward arguments, in the order of ``lstm_fast.ops``."""
        return ("x", *(f"{s}0" for s in STATES[self.cell]), *self.parameter_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the results of forward: the output, then the final states."""
        return ("y", *(f"{s}n" for s in STATES[self.cell]))

    @property
    def state_gradient_names(self) -> tuple[str, ...]:
        """Names of the gradients of the final states, arguments of backward."""
        return tuple(f"d{s}n" for s in STATES[self.cell])

    def weights(self, arrays: Arrays) -> list[tuple[Array | None, ...]]:
        """w_ih, w_hh, b_ih, b_hh, w_hr (None without projection) of every layer and direction, l*D + d."""
        given = [arrays[name] for name in self.parameter_names]
        each = len(given) // (self.layers * self.directions)
        missing = (None,) * (len(SHORT_NAMES) - each)
        return [(*given[at : at + each], *missing) for at in range(0, len(given), each)]

    def lengths(self) -> Array:
        """The rows' lengths [B], int64: uniform in shortest..T, a fixed draw for every T, B and shortest."""
        shortest = self.steps if self.shortest is None else self.shortest
        random = np.random.PCG64([self.steps, self.batch, shortest]).random_raw(self.batch) >> np.uint64(32)
        return shortest + (random * np.uint64(self.steps - shortest + 1) >> np.uint64(32)).astype(np.int64)

    def arrays(self) -> Arrays:
        """All arrays of the problem, the same bits on every machine and in every version of NumPy.

        NumPy promises the raw 64-bit stream of a seeded PCG64 (NEP 19), not the stream of ``Generator.uniform``.
        53 raw bits become an integer that float64 holds exactly; the scaling, sqrt and the conversion to the
        problem's dtype are single operations that IEEE 754 rounds correctly, so no platform can differ.
        """
        extra = (self.layers, self.directions, self.projection)
        sizes = [self.steps, self.batch, self.inputs, self.hidden]
        raw = np.random.PCG64(sizes if extra == (1, 1, 0) else [*sizes, *extra])

        def uniform(half_range: float, *shape: int) -> Array:
            integers = (raw.random_raw(math.prod(shape)) >> np.uint64(11)).astype(np.int64) - 2**52
            return (integers * (half_range * 2.0**-52)).reshape(shape).astype(self.dtype)

        rows = (self.batch,) if self.single else (self.layers * self.directions, self.batch)
        width = {"h": self.outputs, "c": self.hidden}
        scale = 1.0 / math.sqrt(self.hidden)  # PyTorch's law for weights; a larger one makes the recurrence chaotic
        made = {"x": uniform(1.0, self.steps, self.batch, self.inputs)}
        made |= {f"{s}0": uniform(1.0, *rows, width[s]) for s in STATES[self.cell]}
        made |= {name: uniform(scale, *shape) for name, shape in self.parameter_shapes.items()}
        made |= {"dy": uniform(1.0, self.steps, self.batch, self.directions * self.outputs)}
        made |= {f"d{s}n": uniform(1.0, *rows, width[s]) for s in STATES[self.cell]}
        return made | ({} if self.shortest is None else {"lengths": self.lengths()})
