"""Stacks of the cells whose state is h alone, GRU and RNN: every way to solve one.

Results are flat dicts: y, hn, dx, dh0, and d + the name of every parameter.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import lstm_fast as lf
import numpy as np
from judge import Array
from stacks import Sizes

CELLS = ("gru", "rnn_tanh", "rnn_relu", "rnn_sigmoid", "rnn_identity")
DTYPES = ("float32", "float64")
BY_ROW = ("y", "hn", "dx", "dh0")  # what one row of the batch determines alone; its axis of rows is 1
SHORT = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}


class Functions(NamedTuple):
    forward: Any
    backward: Any
    cell: Any


def functions_of(cell: str, module: Any = lf.ops) -> Functions:
    """Of ``lf.ops`` or ``lf.reference``, with the nonlinearity given."""
    name, _, nonlinearity = cell.partition("_")
    forward, backward, step = (getattr(module, f"{name}_{part}") for part in Functions._fields)
    if nonlinearity:
        forward, step = (partial(function, nonlinearity=nonlinearity) for function in (forward, step))
    return Functions(forward, backward, step)


def make_layer(cell: str, *arguments: Any, **options: Any) -> lf.GRU | lf.RNN:
    name, _, nonlinearity = cell.partition("_")
    if nonlinearity:
        return lf.RNN(*arguments, nonlinearity=nonlinearity, **options)
    return {"gru": lf.GRU}[name](*arguments, **options)


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of a stack of layers and the gradients that come back into it."""

    cell: str
    sizes: Sizes
    lengths: tuple[int, ...] | None
    parameters: dict[str, Array]
    x: Array  # [T,B,I]
    h0: Array  # [L*D,B,H]
    dy: Array  # [T,B,D*H]
    dhn: Array  # [L*D,B,H]

    ARRAYS = ("x", "h0", "dy", "dhn")

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    def replace(self, **changed: Any) -> Case:
        return dataclasses.replace(self, **changed)

    def astype(self, dtype: Any) -> Case:
        parameters = {name: value.astype(dtype) for name, value in self.parameters.items()}
        return self.replace(parameters=parameters, **{name: getattr(self, name).astype(dtype) for name in self.ARRAYS})

    def rows(self, index: list[int]) -> Case:
        """The case with some rows of the batch, in the order of ``index``."""
        taken = {name: np.ascontiguousarray(getattr(self, name)[:, index]) for name in self.ARRAYS}
        lengths = self.lengths and tuple(self.lengths[row] for row in index)
        return self.replace(sizes=self.sizes._replace(batch=len(index)), lengths=lengths, **taken)

    def cut(self, steps: int) -> Case:
        """The first steps alone, of full length."""
        parts = {name: getattr(self, name)[:steps].copy() for name in ("x", "dy")}
        return self.replace(sizes=self.sizes._replace(steps=steps), lengths=None, **parts)

    def padded_with(self, value: float) -> Case:
        """With this value in the padding of x and dy."""
        if self.lengths is None:
            return self
        changed = {name: getattr(self, name).copy() for name in ("x", "dy")}
        for array in changed.values():
            array[np.arange(self.sizes.steps)[:, None] >= np.array(self.lengths, int)] = value
        return self.replace(**changed)


def draw_case(cell: str, sizes: Sizes, dtype: Any = "float32", *, lengths: Any = None, seed: int = 0) -> Case:
    """A random case; weights by PyTorch's law. lengths: None, a sequence, or "ragged" for random ones in 0..T."""
    rng = np.random.default_rng([seed, *map(int, sizes)])
    count = sizes.layers * sizes.directions

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    if isinstance(lengths, str):
        lengths = rng.integers(0, sizes.steps + 1, sizes.batch)
    options = {"bidirectional": sizes.directions == 2, "bias": sizes.bias, "dtype": dtype, "seed": seed}
    return Case(
        cell=cell,
        sizes=sizes,
        lengths=None if lengths is None else tuple(int(length) for length in lengths),
        parameters=dict(make_layer(cell, sizes.inputs, sizes.hidden, sizes.layers, **options).parameters),
        x=normal(sizes.steps, sizes.batch, sizes.inputs),
        h0=np.tanh(normal(count, sizes.batch, sizes.hidden)),
        dy=normal(sizes.steps, sizes.batch, sizes.directions * sizes.hidden),
        dhn=normal(count, sizes.batch, sizes.hidden),
    )


def layer_of(case: Case, **options: Any) -> Any:
    sizes = case.sizes
    given = {"bidirectional": sizes.directions == 2, "bias": sizes.bias, "dtype": case.dtype} | options
    layer = make_layer(case.cell, sizes.inputs, sizes.hidden, sizes.layers, **given)
    layer.load_state_dict(case.parameters)
    return layer


def infer(case: Case, layer: Any = None) -> dict[str, Array]:
    y, hn = (layer or layer_of(case))(case.x, case.h0, lengths=case.lengths)
    return {"y": y, "hn": hn}


def solve(case: Case, layer: Any = None, *, seed: int = 0, save: str = "gates", **options: Any) -> dict[str, Array]:
    """Forward and backward through a layer, of its own if none is given."""
    layer = layer or layer_of(case, **options)
    y, hn, reserve = layer.forward(case.x, case.h0, lengths=case.lengths, save=save, dropout_seed=seed)
    grads = layer.backward(reserve, case.dy, case.dhn)
    result = {"y": y, "hn": hn, "dx": grads.x, "dh0": grads.state}
    return result | {f"d{name}": value for name, value in grads.parameters.items()}


def states(case: Case, *, save: str = "gates", **options: Any) -> dict[str, Array]:
    """What the reserve shows of every layer and direction."""
    *_, reserve = layer_of(case, **options).forward(case.x, case.h0, lengths=case.lengths, save=save, dropout_seed=0)
    places = [(layer, bool(reverse)) for layer in range(case.sizes.layers) for reverse in range(case.sizes.directions)]
    return {f"{name} of {place}": value for place in places for name, value in reserve.states(*place)._asdict().items()}


def compose(case: Case, module: Any, *, dropout: float = 0.0, seed: int = 0, **options: Any) -> dict[str, Array]:
    """Forward and backward, one layer and direction at a time, through ``lf.ops`` or ``lf.reference``."""
    sizes, functions = case.sizes, functions_of(case.cell, module)
    inputs, reserves, masks = case.x, [], []
    hn, dh0, parameters = np.empty_like(case.h0), np.empty_like(case.h0), {}
    places = [
        [(layer, d, layer * sizes.directions + d) for d in range(sizes.directions)] for layer in range(sizes.layers)
    ]
    for layer in places:
        parts = []
        for number, direction, at in layer:
            ending = f"_l{number}" + "_reverse" * direction
            weights = {short: case.parameters.get(name + ending) for name, short in SHORT.items()}
            given = weights | {"lengths": case.lengths, "reverse": direction == 1} | options
            y, hn[at], reserve = functions.forward(inputs, case.h0[at], **given)
            parts.append(y)
            reserves.append(reserve)
        y = np.concatenate(parts, axis=-1)
        masks.append(lf.reference.dropout_scale(seed, layer[0][0], y.shape, dropout).astype(y.dtype))
        inputs = np.where(masks[-1] == 0, 0, y * masks[-1])
    dy = case.dy
    for layer in reversed(places):
        if layer is not places[-1]:
            dy = dy * masks[layer[0][0]]
        parts = []
        for number, direction, at in layer:
            own = np.ascontiguousarray(dy[..., direction * sizes.hidden :][..., : sizes.hidden])
            grads = functions.backward(reserves[at], own, case.dhn[at])
            parts.append(grads.pop("x"))
            dh0[at] = grads.pop("h0")
            long = {short: name for name, short in SHORT.items()}
            parameters |= {f"d{long[n]}_l{number}" + "_reverse" * direction: value for n, value in grads.items()}
        dy = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return {"y": y, "hn": hn, "dx": dy, "dh0": dh0} | parameters


def solve_reference(case: Case, **options: Any) -> dict[str, Array]:
    return compose(case.astype(np.float64), lf.reference, **options)


def solve_torch(case: Case) -> dict[str, Array]:
    """Through ``torch.nn.GRU`` or ``RNN`` in float64, ragged batches as packed sequences (no length 0)."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    sizes, wide = case.sizes, case.astype(np.float64)
    name, _, nonlinearity = case.cell.partition("_")
    options = {"bias": sizes.bias, "bidirectional": sizes.directions == 2, "dtype": torch.float64}
    if nonlinearity:
        options["nonlinearity"] = nonlinearity
    module = {"gru": torch.nn.GRU, "rnn": torch.nn.RNN}[name](sizes.inputs, sizes.hidden, sizes.layers, **options)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in wide.parameters.items()})
    x, h0 = (torch.from_numpy(value).requires_grad_() for value in (wide.x, wide.h0))
    if case.lengths is None:
        y, hn = module(x, h0)
    else:
        packed_y, hn = module(pack_padded_sequence(x, torch.tensor(case.lengths), enforce_sorted=False), h0)
        y, _ = pad_packed_sequence(packed_y, total_length=sizes.steps)
    torch.autograd.backward([y, hn], [torch.from_numpy(wide.dy), torch.from_numpy(wide.dhn)])
    result = {"y": y.detach().numpy(), "hn": hn.detach().numpy(), "dx": x.grad.numpy(), "dh0": h0.grad.numpy()}
    return result | {f"d{name}": parameter.grad.numpy() for name, parameter in module.named_parameters()}
