"""The float64 reference of any problem: ``lstm_fast.reference`` layer by layer and direction by direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .problems import DROPOUT_SEED, STATES, Array, Arrays, Problem


class Truth:
    """What the reference makes of a problem; ``values`` holds the outputs by name."""

    values: Arrays

    def __init__(self, problem: Problem, arrays: Arrays) -> None:
        self._problem, self._arrays = problem, arrays
        self._reserves: list[Any] = []
        self._scales: list[Array | float] = []  # of dropout, of every layer's output
        states = [arrays[f"{s}0"].reshape(-1, *arrays[f"{s}0"].shape[-2:]) for s in STATES[problem.cell]]
        kinds = len(problem.parameter_names) // (problem.layers * problem.directions)
        weights = [given[:kinds] for given in problem.weights(arrays)]
        run = getattr(reference, f"{problem.cell}_forward")
        y, finals = arrays["x"], []
        for layer in range(problem.layers):
            outputs = []
            for direction in range(problem.directions):
                at = layer * problem.directions + direction
                start = [state[at] for state in states]
                options = {"lengths": arrays.get("lengths"), "reverse": direction == 1}
                output, *final, reserve = run(y, *start, *weights[at], **options)
                outputs.append(output)
                finals.append(final)
                self._reserves.append(reserve)
            y = np.concatenate(outputs, axis=-1)
            scale: Array | float = 1.0
            if problem.dropout and layer < problem.layers - 1:
                scale = reference.dropout_scale(DROPOUT_SEED, layer, y.shape, problem.dropout)
            self._scales.append(scale)
            y = y * scale
        self.values = {"y": y}
        for name, found in zip(problem.output_names[1:], zip(*finals, strict=True), strict=True):
            self.values[name] = np.stack(found).reshape(arrays[f"d{name}"].shape)

    def gradients(self, dy: Array, *dstates_n: Array) -> Arrays:
        """Gradients of every input, by name, for those of y and of the final states; without the latter they are 0."""
        problem, arrays = self._problem, self._arrays
        starts = [f"{s}0" for s in STATES[problem.cell]]
        given = [d.reshape(-1, *d.shape[-2:]) for d in dstates_n]
        dstates: dict[str, list[Array]] = {name: [] for name in starts}
        parameters: list[Array] = []
        run = getattr(reference, f"{problem.cell}_backward")
        for layer in reversed(range(problem.layers)):
            dy = dy * self._scales[layer]
            halves = np.split(dy, problem.directions, axis=-1)
            dy = np.zeros(())
            for direction in reversed(range(problem.directions)):
                at = layer * problem.directions + direction
                grads = run(self._reserves[at], halves[direction], *(d[at] for d in given))
                dy = dy + grads.pop("x")
                for name in starts:
                    dstates[name].insert(0, grads.pop(name))
                parameters[:0] = grads.values()
        return (
            {"x": dy}
            | {name: np.stack(found).reshape(arrays[name].shape) for name, found in dstates.items()}
            | dict(zip(problem.parameter_names, parameters, strict=True))
        )
