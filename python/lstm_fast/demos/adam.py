"""Adam (Kingma and Ba, 2015) over a mapping of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Parameter, gradient, both moments and the scratch of one block together stay in a core's L2 cache, so that the dozen
# passes of a step cost one pass of memory traffic.
BLOCK = 16384


class Adam:
    """Keeps the two moments of every parameter; :meth:`step` writes into the parameters."""

    def __init__(self, parameters: Mapping[str, Array], *, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        for name, array in parameters.items():
            if not array.flags.c_contiguous:  # its flat view would be a copy, and steps would go nowhere
                raise ValueError(f"parameters[{name!r}]: expected a C-contiguous array, got strides {array.strides}")
        self.parameters = parameters
        self.betas = betas
        self.steps = 0
        self._first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._second = {name: np.zeros_like(array) for name, array in parameters.items()}

    def _blocks(self, name: str, gradient: Array) -> Iterator[tuple[Array, ...]]:
        flat = [a.reshape(-1) for a in (self.parameters[name], gradient, self._first[name], self._second[name])]
        for start in range(0, flat[0].size, BLOCK):
            yield tuple(a[start : start + BLOCK] for a in flat)

    def step(self, gradients: Mapping[str, Array], rate: float, epsilon: float = 1e-8) -> None:
        """One update with learning rate ``rate``; ``gradients`` has the parameters' names and shapes, is only read."""
        self.steps += 1
        beta1, beta2 = self.betas
        # The moments start at zero: their known bias is corrected here, once, and not in every element.
        root = (1 - beta2**self.steps) ** 0.5
        corrected = rate * root / (1 - beta1**self.steps)
        for name in self.parameters:
            for parameter, gradient, first, second in self._blocks(name, gradients[name]):
                scratch = np.multiply(gradient, 1 - beta1)
                first *= beta1
                first += scratch
                np.multiply(gradient, gradient, out=scratch)
                scratch *= 1 - beta2
                second *= beta2
                second += scratch
                np.sqrt(second, out=scratch)
                scratch += epsilon * root
                np.divide(first, scratch, out=scratch)
                scratch *= corrected
                parameter -= scratch
