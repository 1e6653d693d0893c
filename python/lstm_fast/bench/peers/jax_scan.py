"""JAX on its CPU client: the LSTM as one writes it there, a scan over steps, compiled by XLA."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import FORWARD, STEP, TRAIN, UnsupportedError, trained
from ..packages import require
from ..problems import Arrays, Problem

POOL = "tf_XLAEigen"  # how the threads of XLA's pool are named


def _pool_threads() -> int:
    """Threads of XLA's pool in this process."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            names.append((task / "comm").read_text().strip())
    return names.count(POOL)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def cpu_device(jax: Any, threads: int) -> Any:
    """JAX's CPU device with a pool of so many threads; UnsupportedError if it was made with another number before.

    XLA has no option for the pool: its size is fixed when the client is made, which is once in a process, from the
    variable NPROC. Neither the environment nor a compiler option (xla_cpu_multi_thread_eigen, say) takes the pool away
    altogether: with one thread in it, that and the caller were seen computing at once 13 % of the time of a training
    pass of T 200 B 16 H 128 (jaxlib 0.10.2). The client is told to compute in the caller, which else waits for another
    thread.
    """
    if not _pool_threads():
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    with _environment("NPROC", str(threads)):
        device = jax.devices("cpu")[0]
    if _pool_threads() != threads:
        raise UnsupportedError(f"its pool has {_pool_threads()} threads in this process, and {threads} were asked for")
    return device


class Jax:
    """``lax.scan`` over the steps, the input product outside of it, compiled for the shape before it is timed.

    Training is ``jax.vjp`` of y in x and the parameters. Ragged rows are masked: they keep their state, and y is 0.
    """

    name = "jax"
    requires = ("jax",)
    settings = "jit of lax.scan, input product outside; ragged: masked; computed by the caller and XLA's pool"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.cell != "lstm":
            raise UnsupportedError("it is asked for an LSTM only")
        if problem.dropout:
            raise UnsupportedError("its dropout masks are its own")
        self._jax = jax = require("jax", "the JAX peer")
        self._problem = problem
        device = cpu_device(jax, threads)
        with self._precision():
            given = {name: jax.device_put(arrays[name], device) for name in problem.input_names}
            self._dy = jax.device_put(arrays["dy"], device)
            self._valid = None
            if "lengths" in arrays:
                valid = np.arange(problem.steps)[:, None] < arrays["lengths"]
                self._valid = jax.device_put(valid[:, :, None], device)
        self._states = given.pop("h0"), given.pop("c0")
        self._wanted = given  # x and the parameters
        self._programs: dict[str, Any] = {}

    def _precision(self) -> Any:
        """The flag that allows float64, set for this thread while arrays and programs are made; calls do not ask it."""
        return self._jax.enable_x64(self._problem.dtype == "float64")

    def _layers(self, wanted: Any, states: Any, valid: Any) -> tuple[Any, Any, Any]:
        """y, hn, cn as lstm_fast gives them."""
        jax, jnp = self._jax, self._jax.numpy
        problem = self._problem
        h0, c0 = (state.reshape(-1, *state.shape[-2:]) for state in states)
        weights: list[Any] = problem.weights(wanted)
        y, finals = wanted["x"], []
        for layer in range(problem.layers):
            outputs = []
            for direction in range(problem.directions):
                at = layer * problem.directions + direction
                w_ih, w_hh, b_ih, b_hh, w_hr = weights[at]
                gx = y @ w_ih.T + (b_ih + b_hh)

                def step(state: Any, row: Any, w_hh: Any = w_hh, w_hr: Any = w_hr) -> Any:
                    h, c = state
                    gates, is_valid = row
                    new_h, new_c = _cell(jax, gates + h @ w_hh.T, c)
                    new_h = new_h if w_hr is None else new_h @ w_hr.T
                    if is_valid is None:
                        return (new_h, new_c), new_h
                    kept = jnp.where(is_valid, new_h, h), jnp.where(is_valid, new_c, c)
                    return kept, jnp.where(is_valid, new_h, 0)

                final, output = jax.lax.scan(step, (h0[at], c0[at]), (gx, valid), reverse=direction == 1)
                outputs.append(output)
                finals.append(final)
            y = jnp.concatenate(outputs, axis=-1)
        hn, cn = (
            jnp.stack(each).reshape(state.shape) for each, state in zip(zip(*finals, strict=True), states, strict=True)
        )
        return y, hn, cn

    def _gradients(self, wanted: Any, states: Any, valid: Any, dy: Any) -> Any:
        _, pull = self._jax.vjp(lambda wanted: self._layers(wanted, states, valid)[0], wanted)
        return pull(dy)[0]

    def _one_step(self, wanted: Any, states: Any) -> Any:
        h, c = states
        gates = wanted["x"][0] @ wanted["w_ih"].T + h @ wanted["w_hh"].T + (wanted["b_ih"] + wanted["b_hh"])
        return _cell(self._jax, gates, c)

    def _program(self, which: str) -> tuple[Any, tuple[Any, ...]]:
        """The compiled program of a pass and its arguments; compiled when first asked for."""
        functions: dict[str, tuple[Any, tuple[Any, ...]]] = {
            FORWARD: (self._layers, (self._wanted, self._states, self._valid)),
            TRAIN: (self._gradients, (self._wanted, self._states, self._valid, self._dy)),
            STEP: (self._one_step, (self._wanted, self._states)),
        }
        function, arguments = functions[which]
        if which not in self._programs:
            with self._precision():
                self._programs[which] = self._jax.jit(function).lower(*arguments).compile()
        return self._programs[which], arguments

    def _run(self, which: str) -> Any:
        program, arguments = self._program(which)
        return self._jax.block_until_ready(program(*arguments))

    def forward(self) -> Sequence[Any]:
        results: Sequence[Any] = self._run(FORWARD)
        return results

    def train(self) -> Mapping[str, Any]:
        grads = self._run(TRAIN)
        return {name: grads[name] for name in trained(self._problem)}

    def step(self) -> Sequence[Any]:
        states: Sequence[Any] = self._run(STEP)
        return states

    def path(self, which: str) -> str:
        """From the compiled program: a loop, or no loop where XLA has unrolled it."""
        loops = self._program(which)[0].as_text().count(" while(")
        return "XLA, while loop" if loops else "XLA, no loop"


def _cell(jax: Any, gates: Any, c: Any) -> tuple[Any, Any]:
    """h, not projected, and c [B,H] after a step, from the pre-activations [B,4H]."""
    i, f, g, o = jax.numpy.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o) * jax.numpy.tanh(c), c
