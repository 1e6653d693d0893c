"""The pictures of what networks remember: gradients by distance, recall by distance, gates over a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bench.chart import COLOURS, DASHES, MARKERS
from ..bench.packages import require
from .chart import NEEDS, figure_of, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..diagnostics import GradientFlow
    from .language_model import Memories
    from .recall import Result

LOWEST = 1e-45  # shown of a gradient
HATCHES = ("", "...", "xx", "//", "\\\\")  # of bars, by contender
SMOOTH = 20  # training steps of demo recall
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


def draw_recall(results: Mapping[str, Sequence[Result]], distances: Sequence[int], chance: float, path: Path) -> None:
    """Write the share told right at every distance, and the losses of the training at the longest one."""
    figure, (shares, losses) = figure_of(2)
    place, width = np.arange(len(distances)), 0.8 / len(results)
    for at, (name, found) in enumerate(results.items()):
        right = [100 * result.accuracy for result in found]
        bars = shares.bar(
            place + (at - (len(results) - 1) / 2) * width,
            right,
            0.92 * width,
            color=COLOURS[at],
            hatch=HATCHES[at],
            edgecolor="white",
            label=name,
        )
        shares.bar_label(bars, fmt="%.0f", padding=2, fontsize="small")
        style = {"color": COLOURS[at], "linestyle": DASHES[at], "marker": MARKERS[at], "label": name}
        curve = smooth(found[-1].losses, SMOOTH)
        losses.plot(np.arange(1, len(curve) + 1), curve, markevery=(at * 0.03, 0.15), linewidth=1.8, **style)
    shares.axhline(100 * chance, color="black", linestyle=":", label="chance")
    shares.set(title="who still knows the first symbol?", ylabel="% of held-out sequences", ylim=(0, 108))
    shares.set_xticks(place, [f"{distance} steps" for distance in distances])
    losses.axhline(-np.log(chance), color="black", linestyle=":")
    losses.set(title=f"learning to tell it after {distances[-1]} steps", xlabel="training step")
    losses.set(ylabel=f"loss, nats (mean of {SMOOTH} steps)", ylim=(0, None))
    for axes in (shares, losses):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize="small", frameon=False)
    figure.savefig(path, dpi=120)


def draw_gates(memories: Memories, tokens: Sequence[str], surprise: NDArray[np.float32], unit: str, path: Path) -> None:
    """Write heat maps over a text: the gates, the candidate and both memories, a line for each unit of the layer.

    ``surprise`` [N-1]: nats at each token but the first. The units are ordered by how open their forget gates are.
    """
    order = np.argsort(-memories.f.mean(axis=0), kind="stable")
    largest = max(1.0, float(np.abs(memories.c).max()))  # a few units may count to any height
    logarithmic = require("matplotlib.colors", NEEDS).SymLogNorm(1, vmin=-largest, vmax=largest)
    # Lightness grows with the value in both maps, so that they can be read in grey.
    gate: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    signed: dict[str, Any] = {"cmap": "cividis", "vmin": -1, "vmax": 1}
    panels = (
        ("forget gate f: 1 keeps the memory", memories.f, gate),
        ("input gate i: 1 takes the candidate in", memories.i, gate),
        ("output gate o: 1 shows the memory", memories.o, gate),
        ("candidate g", memories.g, signed),
        ("long-term memory c, colours logarithmic beyond 1", memories.c, {"cmap": "cividis", "norm": logarithmic}),
        ("short-term memory h", memories.h, signed),
    )
    width = max(9.0, 2.5 + len(tokens) * (0.14 if unit == "character" else 0.5))
    figure = require("matplotlib.figure", NEEDS).Figure(figsize=(width, 14), layout="constrained")
    figure.suptitle(f"the last layer of the LSTM, {unit} by {unit}")
    bars, *rows = figure.subplots(1 + len(panels), sharex=True, height_ratios=[0.5, *[1] * len(panels)])
    bars.bar(np.arange(1, len(tokens)), surprise, color="grey")
    bars.set(ylabel="nats", title=f"how surprised the model is by each {unit}")
    for axes, (title, values, style) in zip(rows, panels, strict=True):
        image = axes.imshow(values.T[order], aspect="auto", interpolation="nearest", **style)
        figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03)
        axes.set(ylabel="unit", title=title)
    rotation = 0 if unit == "character" else 60
    rows[-1].set_xticks(range(len(tokens)), [_visible(token) for token in tokens], rotation=rotation)
    rows[-1].set_xlabel(f"{unit}s read; units ordered by their forget gates, those that keep longest at the top")
    figure.savefig(path, dpi=110)


def _visible(token: str) -> str:
    """A token as a tick's label: spaces and ends of line can be seen, and nothing is taken for mathematics."""
    shown = {" ": "\N{OPEN BOX}", "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"}.get(token, token)
    return shown.replace("$", r"\$")
