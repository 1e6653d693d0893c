"""What an engine is, and lstm_fast itself as one.

An engine is a small class; ``lstm-fast bench --peer module:Class`` adds yours::

    class MyLstm:
        name = "mine"                                        # column title

        def __init__(self, problem, arrays, threads):        # not timed: convert, pack, compile here
            ...                                              # raise UnsupportedError("why") to sit this problem out

        def forward(self):                                   # timed: inference; returns y [T,B,H], hn, cn [B,H]
            ...

        def train(self):                                     # optional, timed: forward + backward for the loss
            ...                                              # sum(y * dy); returns a dict with the gradients
                                                             # "x", "w_ih", "w_hh", "b_ih", "b_hh"

        def step(self):                                      # optional, `benches/` only: x[0], h0, c0 -> h, c
            ...

        def path(self, which):                               # optional, not timed: in a few words, what computes a pass
            ...                                              # ("forward", "forward+backward" or "step"), for the report

``problem`` has ``cell, dtype, steps, batch, inputs, hidden``; ``arrays`` the names and shapes of
:mod:`lstm_fast.bench.problems`, of the problem's dtype, not to be written; ``threads`` is the number to compute with.
With ``--ragged`` there is ``arrays["lengths"]`` [B], and y and the gradient of x have to be 0 beyond them. With several
layers or directions (``problem.layers, problem.directions``) y is [T,B,D*H], states are [L*D,B,H], and parameters and
gradients have PyTorch's names; with ``problem.projection`` h is that wide and there is ``w_hr``. Raise UnsupportedError
for what your engine lacks. Results may be anything that ``np.asarray`` takes, so that no conversion is timed. Optional
class attributes: ``requires``, a tuple of import names, the first of which gives the version unless there is
``version``; and ``settings``, a line saying what was run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .. import GRU, LSTM, RNN, __version__, ops, reference
from .problems import DROPOUT_SEED, STATES, Array, Arrays, Problem
from .truth import Truth

FORWARD, TRAIN, STEP = "forward", "forward+backward", "step"
LAYERS: dict[str, type[LSTM | GRU | RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
METHODS = {FORWARD: "forward", TRAIN: "train", STEP: "step"}
PASSES = (FORWARD, TRAIN)  # of a sweep over sequence lengths


def trained(problem: Problem) -> tuple[str, ...]:
    """Names of the gradients that every engine has to give in training."""
    return ("x", *problem.parameter_names)


class UnsupportedError(Exception):
    """Raised by an engine's constructor: it cannot run this problem; the message says why."""


class Engine(Protocol):
    """See the module's text; ``train``, ``step`` and ``path`` are optional."""

    name: str

    def forward(self) -> Sequence[Any]: ...


class Named(Protocol):
    """What a report says of an engine: its name, and the optional attributes of the module's text."""

    name: str


class EngineClass(Named, Protocol):
    """The class itself, as listed by :func:`lstm_fast.bench.peers.all_engines`."""

    def __call__(self, problem: Problem, arrays: Arrays, threads: int) -> Engine: ...


class LstmFast:
    """This package as a NumPy user calls it, argument checks and packing included.

    One layer in one direction through ``lstm_fast.ops``, others through a layer, such as ``lstm_fast.LSTM``.
    """

    name = "lstm_fast"
    version = __version__
    settings = "ops, or a layer for more layers or directions; weights packed at every call"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        self._problem, self._arrays = problem, arrays
        self._arguments = [arrays[n] for n in problem.input_names]
        self._options: dict[str, Any] = {"lengths": arrays["lengths"]} if "lengths" in arrays else {}
        self._forward, self._backward, self._cell = (
            getattr(ops, f"{problem.cell}_{name}") for name in ("forward", "backward", "cell")
        )
        self._layer: Any = None
        if not problem.single:
            options: dict[str, Any] = {"proj_size": problem.projection} if problem.projection else {}
            self._layer = LAYERS[problem.cell](
                problem.inputs,
                problem.hidden,
                problem.layers,
                dropout=problem.dropout,
                bidirectional=problem.directions == 2,
                dtype=problem.dtype,
                **options,
            )
            self._layer.load_state_dict({name: arrays[name] for name in problem.parameter_names})

    def forward(self) -> Sequence[Any]:
        if self._layer is not None:
            y, state_n = self._layer(self._arguments[0], self._state(), **self._options)
            return y, *_parts(state_n)
        outputs: Sequence[Any] = self._forward(*self._arguments, save=None, **self._options)[:-1]
        return outputs

    def saving_forward(self, save: str = "gates") -> tuple[Any, ...]:
        """The training forward: y, the final states, the reserve."""
        if self._layer is not None:
            seed = DROPOUT_SEED if self._problem.dropout else None
            options = self._options | {"dropout_seed": seed, "save": save}
            y, state_n, reserve = self._layer.forward(self._arguments[0], self._state(), **options)
            return y, *_parts(state_n), reserve
        results: tuple[Any, ...] = self._forward(*self._arguments, save=save, **self._options)
        return results

    def gradients(self, reserve: Any, dy: Array, *dstates_n: Array) -> Mapping[str, Any]:
        """Gradients of all inputs by name; those of the final states are 0 if not given."""
        if self._layer is not None:
            found = self._layer.backward(reserve, dy, _whole(dstates_n) if dstates_n else None)
            names = [f"{state}0" for state in STATES[self._problem.cell]]
            return {"x": found.x, **dict(zip(names, _parts(found.state), strict=True)), **found.parameters}
        grads: Mapping[str, Any] = self._backward(reserve, dy, *dstates_n)
        return grads

    def train(self) -> Mapping[str, Any]:
        return self.gradients(self.saving_forward()[-1], self._arrays["dy"])

    def step(self) -> Sequence[Any]:
        return _parts(self._cell(self._arguments[0][0], *self._arguments[1:]))

    def _state(self) -> Any:
        return _whole(self._arguments[1 : 1 + len(STATES[self._problem.cell])])


def _parts(state: Any) -> tuple[Any, ...]:
    """A state's arrays: h and c, or h alone."""
    return state if isinstance(state, tuple) else (state,)


def _whole(parts: Sequence[Any]) -> Any:
    """The state of these arrays."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def expected(problem: Problem, arrays: Arrays) -> dict[str, Arrays]:
    """What the float64 reference gives for every pass: pass -> name -> array. A step is that of one padded layer."""
    truth = Truth(problem, arrays)
    grads = truth.gradients(arrays["dy"])
    wanted = {FORWARD: truth.values, TRAIN: {n: grads[n] for n in trained(problem)}}
    if not problem.variant:
        wanted[STEP] = cell_step(reference, problem, arrays)
    return wanted


def cell_step(module: Any, problem: Problem, arrays: Arrays) -> Arrays:
    """The states after step 0 by the cell function of ``lstm_fast.ops`` or ``lstm_fast.reference``, by name."""
    arguments = [arrays[n] for n in problem.input_names]
    states = getattr(module, f"{problem.cell}_cell")(arguments[0][0], *arguments[1:])
    return dict(zip(STATES[problem.cell], _parts(states), strict=True))


def can_run(engine: Engine, which: str) -> bool:
    """Whether the engine has this pass."""
    return hasattr(engine, METHODS[which])


def timed_call(engine: Engine, which: str) -> Callable[[], Any]:
    """The engine's method for this pass: what is timed."""
    call: Callable[[], Any] = getattr(engine, METHODS[which])
    return call


def path_of(engine: Engine, which: str) -> str | None:
    """What computes this pass in the engine's own words; None if it does not say."""
    path: Callable[[str], str] | None = getattr(engine, "path", None)
    return path and path(which)


def named_results(engine: Engine, problem: Problem, which: str) -> Arrays:
    """Run one pass once and give its results as arrays by name; ValueError if some are missing."""
    results = timed_call(engine, which)()
    names = {FORWARD: problem.output_names, TRAIN: trained(problem), STEP: STATES[problem.cell]}[which]
    if which != TRAIN:
        results = dict(zip(names, results, strict=False))
    missing = [n for n in names if n not in results]
    if missing:
        raise ValueError(
            f"{engine.name}: {METHODS[which]}() did not give {', '.join(missing)}; see lstm_fast.bench.engines"
        )
    return {n: np.asarray(results[n]) for n in names}
