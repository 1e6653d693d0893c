"""What an engine is, and the two that are always there: lstm_fast and the NumPy baseline.

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

``problem`` has ``cell, dtype, steps, batch, inputs, hidden``; ``arrays`` the names and shapes of
:mod:`lstm_fast.bench.problems`, of the problem's dtype, not to be written; ``threads`` is the number to compute with.
Results may be anything that ``np.asarray`` takes, so that no conversion is timed. Optional class attributes:
``requires``, a tuple of import names, the first of which gives the version unless there is ``version``; and
``settings``, a line saying what was run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .. import __version__, ops, reference
from .problems import STATES, Array, Arrays, Problem, input_names, output_names

FORWARD, TRAIN, STEP = "forward", "forward+backward", "step"
METHODS = {FORWARD: "forward", TRAIN: "train", STEP: "step"}
PASSES = (FORWARD, TRAIN)  # of a sweep over sequence lengths
TRAINED = ("x", "w_ih", "w_hh", "b_ih", "b_hh")  # gradients that every engine has to give in training


class UnsupportedError(Exception):
    """Raised by an engine's constructor: it cannot run this problem; the message says why."""


class Engine(Protocol):
    """See the module's text; ``train`` and ``step`` are optional."""

    name: str

    def forward(self) -> Sequence[Any]: ...


class EngineClass(Protocol):
    """The class itself, as listed by :func:`lstm_fast.bench.peers.all_engines`."""

    name: str

    def __call__(self, problem: Problem, arrays: Arrays, threads: int) -> Engine: ...


class LstmFast:
    """This package, through ``lstm_fast.ops``: what a NumPy user calls, argument checks and packing included."""

    name = "lstm_fast"
    version = __version__
    settings = "lstm_fast.ops; weights packed at every call"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        self._arguments = [arrays[n] for n in input_names(problem.cell)]
        self._arrays = arrays
        self._forward = getattr(ops, f"{problem.cell}_forward")
        self._backward = getattr(ops, f"{problem.cell}_backward")
        self._cell = getattr(ops, f"{problem.cell}_cell")

    def forward(self) -> Sequence[Any]:
        outputs: Sequence[Any] = self._forward(*self._arguments, save=None)[:-1]
        return outputs

    def train(self) -> Mapping[str, Any]:
        reserve = self._forward(*self._arguments)[-1]
        grads: Mapping[str, Any] = self._backward(reserve, self._arrays["dy"])
        return grads

    def step(self) -> Sequence[Any]:
        states: Sequence[Any] = self._cell(self._arguments[0][0], *self._arguments[1:])
        return states


class NumpyBaseline:
    """A careful NumPy user's LSTM in the problem's dtype: large products outside the time loop, a small one inside."""

    name = "numpy"
    requires = ("numpy",)
    settings = "input GEMM and weight gradients outside the time loop"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.cell != "lstm":
            raise UnsupportedError(f"no NumPy baseline for cell {problem.cell!r}")
        self._problem = problem
        self._arrays = arrays
        # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5 cannot overflow and lets one tanh serve all four gates of a row.
        half, one = np.full(problem.hidden, 0.5, problem.dtype), np.ones(problem.hidden, problem.dtype)
        self._scale = np.concatenate([half, half, one, half])
        self._offset = np.concatenate([half, half, 0 * one, half])

    def _activate(self, a: Array, c_prev: Array) -> tuple[Array, Array]:
        """a [B,4H]: pre-activations, replaced by the activated gates; returns c and h [B,H]."""
        a *= self._scale
        np.tanh(a, out=a)
        a *= self._scale
        a += self._offset
        i, f, g, o = _gates(a)
        c = f * c_prev
        c += i * g
        return c, o * np.tanh(c)

    def _run(self, h: Array, c: Array) -> Array:
        """Fill h and c [T+1,B,H] from their first entry on; returns the activated gates [T,B,4H]."""
        steps, batch = self._problem.steps, self._problem.batch
        x, w_ih = self._arrays["x"], self._arrays["w_ih"]
        bias = self._arrays["b_ih"] + self._arrays["b_hh"]
        recurrent = np.ascontiguousarray(self._arrays["w_hh"].T)  # up to 1.7 times faster than the transposed view
        gates: Array = (x.reshape(steps * batch, -1) @ w_ih.T + bias).reshape(steps, batch, -1)
        h[0], c[0] = self._arrays["h0"], self._arrays["c0"]
        for t in range(steps):
            a = gates[t]
            a += h[t] @ recurrent
            c[t + 1], h[t + 1] = self._activate(a, c[t])
        return gates

    def _histories(self) -> tuple[Array, Array]:
        shape = (self._problem.steps + 1, self._problem.batch, self._problem.hidden)
        return np.empty(shape, self._problem.dtype), np.empty(shape, self._problem.dtype)

    def forward(self) -> Sequence[Any]:
        h, c = self._histories()
        self._run(h, c)
        return h[1:], h[-1], c[-1]

    def train(self) -> Mapping[str, Any]:
        h, c = self._histories()
        gates = self._run(h, c)
        da = np.empty_like(gates)  # gradients of the pre-activations
        dy, w_hh = self._arrays["dy"], self._arrays["w_hh"]
        tanh_c = np.tanh(c)
        dh, dc = np.zeros_like(h[0]), np.zeros_like(c[0])
        for t in reversed(range(self._problem.steps)):
            i, f, g, o = _gates(gates[t])
            da_i, da_f, da_g, da_o = _gates(da[t])
            tc = tanh_c[t + 1]
            dh += dy[t]
            dc += dh * o * (1 - tc * tc)
            da_i[:] = dc * g * i * (1 - i)
            da_f[:] = dc * c[t] * f * (1 - f)
            da_g[:] = dc * i * (1 - g * g)
            da_o[:] = dh * tc * o * (1 - o)
            dc *= f
            dh = da[t] @ w_hh
        rows = da.reshape(-1, da.shape[-1])
        x, h_prev = self._arrays["x"].reshape(len(rows), -1), h[:-1].reshape(len(rows), -1)
        dx = (rows @ self._arrays["w_ih"]).reshape(self._arrays["x"].shape)
        db = rows.sum(axis=0)
        return {"x": dx, "w_ih": rows.T @ x, "w_hh": rows.T @ h_prev, "b_ih": db, "b_hh": db.copy()}

    def step(self) -> Sequence[Any]:
        arrays = self._arrays
        a = arrays["x"][0] @ arrays["w_ih"].T + arrays["h0"] @ arrays["w_hh"].T + arrays["b_ih"] + arrays["b_hh"]
        c, h = self._activate(a, arrays["c0"])
        return h, c


def _gates(a: Array) -> tuple[Array, Array, Array, Array]:
    """Views of i, f, g, o [B,H] in a row block a [B,4H]; np.split takes five times as long."""
    hidden = a.shape[1] // 4
    return a[:, :hidden], a[:, hidden : 2 * hidden], a[:, 2 * hidden : 3 * hidden], a[:, 3 * hidden :]


def expected(problem: Problem, arrays: Arrays) -> dict[str, Arrays]:
    """What the float64 reference gives for every pass: pass -> name -> array."""
    arguments = [arrays[n] for n in input_names(problem.cell)]
    *outputs, reserve = getattr(reference, f"{problem.cell}_forward")(*arguments)
    grads = getattr(reference, f"{problem.cell}_backward")(reserve, arrays["dy"])
    states = getattr(reference, f"{problem.cell}_cell")(arguments[0][0], *arguments[1:])
    return {
        FORWARD: dict(zip(output_names(problem.cell), outputs, strict=True)),
        TRAIN: {n: grads[n] for n in TRAINED},
        STEP: dict(zip(STATES[problem.cell], states, strict=True)),
    }


def can_run(engine: Engine, which: str) -> bool:
    """Whether the engine has this pass."""
    return hasattr(engine, METHODS[which])


def timed_call(engine: Engine, which: str) -> Callable[[], Any]:
    """The engine's method for this pass: what is timed."""
    call: Callable[[], Any] = getattr(engine, METHODS[which])
    return call


def named_results(engine: Engine, problem: Problem, which: str) -> Arrays:
    """Run one pass once and give its results as arrays by name; ValueError if some are missing."""
    results = timed_call(engine, which)()
    names = {FORWARD: output_names(problem.cell), TRAIN: TRAINED, STEP: STATES[problem.cell]}[which]
    if which != TRAIN:
        results = dict(zip(names, results, strict=False))
    missing = [n for n in names if n not in results]
    if missing:
        raise ValueError(
            f"{engine.name}: {METHODS[which]}() did not give {', '.join(missing)}; see lstm_fast.bench.engines"
        )
    return {n: np.asarray(results[n]) for n in names}
