"""The pictures of what networks remember: gradients by distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..bench.chart import COLOURS, DASHES, MARKERS
from .chart import figure_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..diagnostics import GradientFlow

LOWEST = 1e-45  # shown of a gradient
SINGLE = 1.2e-38  # smallest normal float32


def draw_gradients(flows: Mapping[str, GradientFlow], powers: Mapping[float, NDArray[np.float64]], path: Path) -> None:
    """Write both norms by distance, for every layer, and the gradient through one unit of weight w."""
    figure, (state, inputs, power) = figure_of(3)
    for at, (name, flow) in enumerate(flows.items()):
        style = {"color": COLOURS[at], "linestyle": DASHES[at], "marker": MARKERS[at], "label": name}
        for axes, values in ((state, flow.state[1:]), (inputs, flow.x[1:])):
            distance = np.arange(1, len(values) + 1)
            # Markers at other places for each line, so that lines that cover each other can be told apart.
            places = np.geomspace(1, len(values), 8 * len(flows)).astype(int)[at :: len(flows)] - 1
            axes.plot(distance, values, markevery=np.unique(places).tolist(), markersize=6, linewidth=1.8, **style)
    for axes, title in ((state, "norm of d state$_T$ / d state$_{T-k}$"), (inputs, "norm of d y$_T$ / d x$_{T-k}$")):
        axes.axhspan(LOWEST, SINGLE, color="black", alpha=0.08)
        axes.text(0.02, 0.03, "below float32's normal numbers", transform=axes.transAxes, fontsize="small")
        axes.set(title=title, xlabel="distance k, steps", xscale="log", yscale="log", ylim=(LOWEST, 1e3))
    state.set_ylabel("spectral norm")
    state.legend(loc="lower left", bbox_to_anchor=(0.0, 0.16), fontsize="small")

    for at, (weight, norms) in enumerate(powers.items()):
        distance = np.arange(len(norms))
        power.plot(distance, weight**distance, "-", color="black", linewidth=1, label="w$^k$" if at == 0 else None)
        style = {"color": COLOURS[at], "marker": MARKERS[at], "linestyle": ""}
        power.plot(
            distance,
            norms,
            label=f"kernels, w = {weight:g}: {norms[-1]:.2g} after {distance[-1]}",
            markersize=6,
            markevery=5,
            **style,
        )
    power.set(
        title="one unit, h$_t$ = w h$_{t-1}$ + x$_t$", xlabel="distance k, steps", ylabel="gradient", yscale="log"
    )
    power.legend(loc="center right", fontsize="small")
    figure.savefig(path, dpi=120)
