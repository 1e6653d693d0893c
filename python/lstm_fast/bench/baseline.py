"""The NumPy baseline: what a careful NumPy user writes, large products outside the time loop, a small one inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .engines import UnsupportedError
from .problems import Array, Arrays, Problem


class Rows:
    """The valid (step, row of the batch) of one direction, packed: the active rows of a step side by side.

    Rows of the batch are sorted by length, longest first, so that the active ones of a step are the first, and nothing
    is computed in the padding. States are kept as [B+N,.]: the initial ones, then those after each of the N rows.

    steps, batch: T and B; lengths [B], None: all T. reverse: every row runs from its last step to its first.
    """

    def __init__(self, steps: int, batch: int, lengths: Array | None, reverse: bool) -> None:
        self._shape, self._reverse = (steps, batch), reverse
        self._place: tuple[Array, Array] | None = None
        self.order = np.arange(batch)
        if lengths is None:
            self.starts = list(range(0, steps * batch + 1, batch))
            self.last = steps * batch + self.order
            return
        self.order = np.argsort(-lengths, kind="stable")
        descending = lengths[self.order]
        active = np.arange(steps)[:, None] < descending
        step, row = np.nonzero(active)
        self._place = (descending[row] - 1 - step if reverse else step), self.order[row]
        starts = np.concatenate([[0], np.cumsum(active.sum(axis=1))])
        self.starts = starts.tolist()
        after = batch + starts[descending - 1] + np.arange(batch)
        self.last = np.where(descending > 0, after, np.arange(batch))

    def take(self, array: Array) -> Array:
        """[T,B,width] to packed rows [N,width]."""
        if self._place is not None:
            return array[self._place]
        return (array[::-1] if self._reverse else array).reshape(-1, array.shape[-1])

    def put(self, rows: Array) -> Array:
        """The inverse of take, with zeros in the padding."""
        if self._place is not None:
            array = np.zeros((*self._shape, rows.shape[-1]), rows.dtype)
            array[self._place] = rows
            return array
        array = rows.reshape(*self._shape, -1)
        return array[::-1] if self._reverse else array

    def before(self, step: int) -> int:
        """Where the states before a step begin."""
        return len(self.order) + self.starts[step - 1] if step else 0

    def states_before(self, states: Array) -> Array:
        """The state [N,.] before every row, from all states [B+N,.]."""
        if self._place is None:
            return states[: len(states) - len(self.order)]
        starts = enumerate(zip(self.starts, self.starts[1:], strict=False))
        return np.concatenate([states[:0], *(states[self.before(s) :][: b - a] for s, (a, b) in starts)])


class Direction:
    """One layer in one direction: forward when made, backward when asked.

    x [T,B,I], h0 [B,Ho], c0 [B,H]; weights as :meth:`Problem.weights` gives them. y [T,B,Ho], hn and cn in the order of
    the user.
    """

    def __init__(
        self, rows: Rows, x: Array, h0: Array, c0: Array, weights: tuple[Array | None, ...], hidden: int
    ) -> None:
        w_ih, w_hh, b_ih, b_hh = (np.asarray(w) for w in weights[:4])
        self._w_hr = weights[4]
        self._rows, self._w_ih, self._w_hh = rows, w_ih, w_hh
        self._activate = Activation(hidden, x.dtype)
        recurrent = np.ascontiguousarray(w_hh.T)  # up to 1.7 times faster than the transposed view
        projection = None if self._w_hr is None else np.ascontiguousarray(self._w_hr.T)
        self._x = rows.take(x)
        self._gates = gates = self._x @ w_ih.T + (b_ih + b_hh)
        batch, count = len(rows.order), len(gates)
        self._h, self._c = np.empty((batch + count, h0.shape[1]), x.dtype), np.empty((batch + count, hidden), x.dtype)
        self._u = self._h[batch:] if projection is None else np.empty((count, hidden), x.dtype)  # h, not projected
        h, c, u = self._h, self._c, self._u
        h[:batch], c[:batch] = h0[rows.order], c0[rows.order]
        for step, (first, end) in enumerate(zip(rows.starts, rows.starts[1:], strict=False)):
            before, now = slice(rows.before(step), rows.before(step) + end - first), slice(batch + first, batch + end)
            a = gates[first:end]
            a += h[before] @ recurrent
            c[now], u[first:end] = self._activate(a, c[before])
            if projection is not None:
                h[now] = u[first:end] @ projection
        self.y = rows.put(h[batch:])
        self.hn, self.cn = np.empty_like(h0), np.empty_like(c0)
        self.hn[rows.order], self.cn[rows.order] = h[rows.last], c[rows.last]

    def backward(self, dy: Array) -> tuple[Array, list[Array]]:
        """Gradients of x and of the parameters, in PyTorch's order, for dy [T,B,Ho]."""
        rows, h, c, w_hr = self._rows, self._h, self._c, self._w_hr
        batch, gates = len(rows.order), self._gates
        da = np.empty_like(gates)  # gradients of the pre-activations
        tanh_c = np.tanh(c[batch:])
        dh, dc = np.zeros_like(h[:batch]), np.zeros_like(c[:batch])
        dp = rows.take(dy) if w_hr is None else rows.take(dy).copy()  # of h, projected
        for step in reversed(range(len(rows.starts) - 1)):
            first, end = rows.starts[step : step + 2]
            now, active = slice(first, end), slice(end - first)
            i, f, g, o = _gates(gates[now])
            da_i, da_f, da_g, da_o = _gates(da[now])
            tc, c_prev, dc_now = tanh_c[now], c[rows.before(step) :][active], dc[active]
            du = dh[active] + dp[now]
            if w_hr is not None:
                dp[now] = du
                du = du @ w_hr
            dc_now += du * o * (1 - tc * tc)
            da_i[:] = dc_now * g * i * (1 - i)
            da_f[:] = dc_now * c_prev * f * (1 - f)
            da_g[:] = dc_now * i * (1 - g * g)
            da_o[:] = du * tc * o * (1 - o)
            dc_now *= f
            dh[active] = da[now] @ self._w_hh
        db = da.sum(axis=0)
        parameters = [da.T @ self._x, da.T @ rows.states_before(h), db, db.copy()]
        if w_hr is not None:
            parameters.append(dp.T @ self._u)
        return rows.put(da @ self._w_ih), parameters


class Activation:
    """The gates of H units from their pre-activations, and the step of the cell.

    sigmoid(a) = 0.5 tanh(0.5 a) + 0.5 cannot overflow and lets one tanh serve all four gates of a row.
    """

    def __init__(self, hidden: int, dtype: np.dtype[Any]) -> None:
        half, one = np.full(hidden, 0.5, dtype), np.ones(hidden, dtype)
        self._scale = np.concatenate([half, half, one, half])
        self._offset = np.concatenate([half, half, 0 * one, half])

    def __call__(self, a: Array, c_prev: Array) -> tuple[Array, Array]:
        """a [B,4H]: pre-activations, replaced by the activated gates; returns c and h [B,H]."""
        a *= self._scale
        np.tanh(a, out=a)
        a *= self._scale
        a += self._offset
        i, f, g, o = _gates(a)
        c = f * c_prev
        c += i * g
        return c, o * np.tanh(c)


class NumpyBaseline:
    """A careful NumPy user's LSTM in the problem's dtype; ragged batches are sorted by length and packed."""

    name = "numpy"
    requires = ("numpy",)
    settings = "input GEMM and weight gradients outside the time loop; ragged: active rows only"

    def __init__(self, problem: Problem, arrays: Arrays, threads: int) -> None:
        if problem.cell != "lstm":
            raise UnsupportedError("it is written for the LSTM only")
        self._problem, self._arrays = problem, arrays

    def _run(self) -> tuple[Array, list[Direction]]:
        """The output and all directions, l*D + d."""
        problem, arrays = self._problem, self._arrays
        h0, c0 = (arrays[n].reshape(-1, *arrays[n].shape[-2:]) for n in ("h0", "c0"))
        weights = problem.weights(arrays)
        packings = [
            Rows(problem.steps, problem.batch, arrays.get("lengths"), direction == 1)
            for direction in range(problem.directions)
        ]
        y, made = arrays["x"], []
        for layer in range(problem.layers):
            at = layer * problem.directions
            here = [
                Direction(rows, y, h0[at + d], c0[at + d], weights[at + d], problem.hidden)
                for d, rows in enumerate(packings)
            ]
            y = here[0].y if len(here) == 1 else np.concatenate([direction.y for direction in here], axis=-1)
            made += here
        return y, made

    def forward(self) -> Sequence[Any]:
        y, made = self._run()
        shapes = (self._arrays[name].shape for name in ("h0", "c0"))
        states = (np.stack([d.hn for d in made]), np.stack([d.cn for d in made]))
        return y, *(state.reshape(shape) for state, shape in zip(states, shapes, strict=True))

    def train(self) -> Mapping[str, Any]:
        _, made = self._run()
        dx = self._arrays["dy"]
        parameters: list[Array] = []
        for layer in reversed(range(self._problem.layers)):
            at = layer * self._problem.directions
            halves = np.split(dx, self._problem.directions, axis=-1)
            found = [made[at + d].backward(half) for d, half in enumerate(halves)]
            dx = found[0][0] if len(found) == 1 else found[0][0] + found[1][0]
            parameters[:0] = [gradient for _, gradients in found for gradient in gradients]
        return {"x": dx} | dict(zip(self._problem.parameter_names, parameters, strict=True))

    def step(self) -> Sequence[Any]:
        arrays = self._arrays
        a = arrays["x"][0] @ arrays["w_ih"].T + arrays["h0"] @ arrays["w_hh"].T + arrays["b_ih"] + arrays["b_hh"]
        c, h = Activation(self._problem.hidden, a.dtype)(a, arrays["c0"])
        return h, c


def _gates(a: Array) -> tuple[Array, Array, Array, Array]:
    """Views of i, f, g, o [B,H] in a row block a [B,4H]; np.split takes five times as long."""
    hidden = a.shape[1] // 4
    return a[:, :hidden], a[:, hidden : 2 * hidden], a[:, 2 * hidden : 3 * hidden], a[:, 3 * hidden :]
