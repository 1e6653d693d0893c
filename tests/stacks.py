"""Whole stacks for the tests: layers, directions, projection, ragged batches, dropout; every way to solve one.

Results are flat dicts as in problems.py: y, hn, cn, dx, dh0, dc0, and d + the name of every parameter.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import lstm_fast as lf
import numpy as np
from judge import Array

BY_ROW = ("y", "hn", "cn", "dx", "dh0", "dc0")  # what one row of the batch determines alone; its axis of rows is 1


class Sizes(NamedTuple):
    steps: int
    batch: int
    inputs: int
    hidden: int
    proj: int = 0
    layers: int = 1
    directions: int = 1
    bias: bool = True

    @property
    def outputs(self) -> int:
        """Of one direction."""
        return self.proj or self.hidden

    @property
    def judged_as(self) -> tuple[int, int, int, int]:
        """The one layer (T, B, I, H) whose tolerance holds: errors go through all layers, as if one after the other."""
        widest = max(self.inputs, self.directions * self.outputs)
        return self.steps * self.layers, self.batch, widest, self.hidden


def name_of(case: Any) -> str:
    """Of a test: the numbers in a tuple, whatever else is in it, Sizes too."""
    return "-".join(map(name_of, case)) if isinstance(case, tuple) else str(case)


@dataclasses.dataclass(frozen=True)
class Stack:
    """Inputs of a stack of layers and the gradients that come back into it."""

    sizes: Sizes
    lengths: tuple[int, ...] | None
    parameters: dict[str, Array]
    x: Array  # [T,B,I]
    h0: Array  # [L*D,B,Ho]
    c0: Array  # [L*D,B,H]
    dy: Array  # [T,B,D*Ho]
    dhn: Array  # [L*D,B,Ho]
    dcn: Array  # [L*D,B,H]

    ARRAYS = ("x", "h0", "c0", "dy", "dhn", "dcn")

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    def replace(self, **changed: Any) -> Stack:
        return dataclasses.replace(self, **changed)

    def astype(self, dtype: Any) -> Stack:
        parameters = {name: value.astype(dtype) for name, value in self.parameters.items()}
        return self.replace(parameters=parameters, **{name: getattr(self, name).astype(dtype) for name in self.ARRAYS})

    def rows(self, index: list[int]) -> Stack:
        """The stack with some rows of the batch, in the order of ``index``."""
        taken = {name: np.ascontiguousarray(getattr(self, name)[:, index]) for name in self.ARRAYS}
        lengths = self.lengths and tuple(self.lengths[row] for row in index)
        return self.replace(sizes=self.sizes._replace(batch=len(index)), lengths=lengths, **taken)

    def cut(self, steps: int) -> Stack:
        """The first steps alone, of full length."""
        parts = {name: getattr(self, name)[:steps].copy() for name in ("x", "dy")}
        return self.replace(sizes=self.sizes._replace(steps=steps), lengths=None, **parts)

    def padding(self) -> Array:
        """True at [t,b] beyond the length of row b."""
        lengths = np.full(self.sizes.batch, self.sizes.steps) if self.lengths is None else np.array(self.lengths, int)
        return np.arange(self.sizes.steps)[:, None] >= lengths

    def padded_with(self, value: float) -> Stack:
        """With this value in the padding of x and dy."""
        changed = {name: getattr(self, name).copy() for name in ("x", "dy")}
        for array in changed.values():
            array[self.padding()] = value
        return self.replace(**changed)


def draw_stack(sizes: Sizes, dtype: Any = "float32", *, lengths: Any = "ragged", seed: int = 0) -> Stack:
    """A random stack; weights by PyTorch's law. lengths: None, a sequence, or "ragged" for random ones in 1..T."""
    rng = np.random.default_rng([seed, *map(int, sizes)])
    count = sizes.layers * sizes.directions

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    if isinstance(lengths, str):
        lengths = rng.integers(min(1, sizes.steps), sizes.steps + 1, sizes.batch)
    return Stack(
        sizes=sizes,
        lengths=None if lengths is None else tuple(int(length) for length in lengths),
        parameters=dict(blank_layer(sizes, dtype, seed=seed).parameters),
        x=normal(sizes.steps, sizes.batch, sizes.inputs),
        h0=np.tanh(normal(count, sizes.batch, sizes.outputs)),
        c0=normal(count, sizes.batch, sizes.hidden),
        dy=normal(sizes.steps, sizes.batch, sizes.directions * sizes.outputs),
        dhn=normal(count, sizes.batch, sizes.outputs),
        dcn=normal(count, sizes.batch, sizes.hidden),
    )


def blank_layer(sizes: Sizes, dtype: Any, *, batch_first: bool = False, dropout: float = 0.0, seed: Any = 0) -> lf.LSTM:
    """A layer of these sizes with parameters of its own."""
    return lf.LSTM(
        sizes.inputs,
        sizes.hidden,
        sizes.layers,
        sizes.bias,
        batch_first,
        dropout,
        sizes.directions == 2,
        sizes.proj,
        dtype=dtype,
        seed=seed,
    )


def layer_of(stack: Stack, **options: Any) -> lf.LSTM:
    layer = blank_layer(stack.sizes, stack.dtype, **options)
    layer.load_state_dict(stack.parameters)
    return layer


def solve_stack(
    stack: Stack, *, dropout: float = 0.0, seed: int | None = None, save: str = "gates", **options: Any
) -> dict[str, Array]:
    """Forward and backward through ``lf.LSTM``."""
    layer = layer_of(stack, dropout=dropout, **options)

    def turn(value: Array) -> Array:
        return np.ascontiguousarray(value.swapaxes(0, 1)) if layer.batch_first else value

    lengths = None if stack.lengths is None else list(stack.lengths)
    given = {"lengths": lengths, "save": save, "dropout_seed": seed}
    y, (hn, cn), reserve = layer.forward(turn(stack.x), (stack.h0, stack.c0), **given)
    grads = layer.backward(reserve, turn(stack.dy), (stack.dhn, stack.dcn))
    result = {"y": turn(y), "hn": hn, "cn": cn, "dx": turn(grads.x), "dh0": grads.state[0], "dc0": grads.state[1]}
    return result | {f"d{name}": value for name, value in grads.parameters.items()}


def infer_stack(stack: Stack, **options: Any) -> dict[str, Array]:
    """Inference through ``lf.LSTM``: y, hn, cn."""
    y, (hn, cn) = layer_of(stack, **options)(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
    return {"y": y, "hn": hn, "cn": cn}


def directions_of(stack: Stack) -> list[list[dict[str, Any]]]:
    """For every layer and direction: the arguments of ops.lstm_forward but x, and in "index" which of all it is."""
    short = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "w_hr": "weight_hr"}
    found = []
    for layer in range(stack.sizes.layers):
        found.append([])
        for direction, suffix in enumerate(("", "_reverse")[: stack.sizes.directions]):
            index = layer * stack.sizes.directions + direction
            weights = {own: stack.parameters.get(f"{name}_l{layer}{suffix}") for own, name in short.items()}
            states = {"h0": stack.h0[index], "c0": stack.c0[index]}
            found[-1].append(weights | states | {"lengths": stack.lengths, "reverse": direction == 1, "index": index})
    return found


def compose(stack: Stack, functions: Any, *, dropout: float = 0.0, seed: int = 0) -> dict[str, Array]:
    """Forward and backward, one layer and direction at a time, through ``lf.ops`` or ``lf.reference``."""
    inputs, reserves, masks = stack.x, [], []
    hn, cn = np.empty_like(stack.h0), np.empty_like(stack.c0)
    dh0, dc0, parameters = np.empty_like(hn), np.empty_like(cn), {}
    for layer, directions in enumerate(directions_of(stack)):
        parts = []
        for arguments in directions:
            index = arguments.pop("index")
            y, hn[index], cn[index], reserve = functions.lstm_forward(inputs, **arguments)
            parts.append(y)
            reserves.append(reserve)
        y = np.concatenate(parts, axis=-1)
        masks.append(lf.reference.dropout_scale(seed, layer, y.shape, dropout) if dropout else np.ones(1))
        inputs = y * masks[-1].astype(y.dtype)
    dy = stack.dy
    for layer in reversed(range(stack.sizes.layers)):
        if layer < stack.sizes.layers - 1:
            dy = dy * masks[layer].astype(dy.dtype)
        parts = []
        for direction, suffix in enumerate(("", "_reverse")[: stack.sizes.directions]):
            index, own = layer * stack.sizes.directions + direction, slice(direction * stack.sizes.outputs, None)
            dy_part = np.ascontiguousarray(dy[..., own][..., : stack.sizes.outputs])
            grads = functions.lstm_backward(reserves[index], dy_part, stack.dhn[index], stack.dcn[index])
            parts.append(grads.pop("x"))
            dh0[index], dc0[index] = grads.pop("h0"), grads.pop("c0")
            for name, value in grads.items():
                kind = {"w": "weight", "b": "bias"}[name[0]] + name[1:]
                parameters[f"d{kind}_l{layer}{suffix}"] = value
        dy = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return {"y": y, "hn": hn, "cn": cn, "dx": dy, "dh0": dh0, "dc0": dc0} | parameters


def reference_stack(stack: Stack, **options: Any) -> dict[str, Array]:
    return compose(stack.astype(np.float64), lf.reference, **options)


def torch_stack(stack: Stack, *, batch_first: bool = False) -> dict[str, Array]:
    """Forward and backward through ``torch.nn.LSTM`` in float64, ragged batches as packed sequences (no length 0)."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    sizes, wide = stack.sizes, stack.astype(np.float64)
    module = torch.nn.LSTM(
        sizes.inputs,
        sizes.hidden,
        sizes.layers,
        sizes.bias,
        batch_first,
        bidirectional=sizes.directions == 2,
        proj_size=sizes.proj,
        dtype=torch.float64,
    )
    module.load_state_dict({name: torch.from_numpy(value) for name, value in wide.parameters.items()})

    def turn(value: Array) -> Array:
        return np.ascontiguousarray(value.swapaxes(0, 1)) if batch_first else value

    x, h0, c0 = (torch.from_numpy(value).requires_grad_() for value in (turn(wide.x), wide.h0, wide.c0))
    if stack.lengths is None:
        y, (hn, cn) = module(x, (h0, c0))
    else:
        packed = pack_padded_sequence(x, torch.tensor(stack.lengths), batch_first, enforce_sorted=False)
        packed_y, (hn, cn) = module(packed, (h0, c0))
        y, _ = pad_packed_sequence(packed_y, batch_first, total_length=sizes.steps)
    gradients = [torch.from_numpy(value) for value in (turn(wide.dy), wide.dhn, wide.dcn)]
    torch.autograd.backward([y, hn, cn], gradients)
    result = {"y": turn(y.detach().numpy()), "hn": hn.detach().numpy(), "cn": cn.detach().numpy()}
    result |= {"dx": turn(x.grad.numpy()), "dh0": h0.grad.numpy(), "dc0": c0.grad.numpy()}
    return result | {f"d{name}": parameter.grad.numpy() for name, parameter in module.named_parameters()}
