"""torch.nn's modules of stacks of layers: what ours share, forward above all; and GRU and RNN, which have no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._arguments import flag, save_choice
from . import _counters
from ._call import KINDS, Outputs, infer, run, unsupported
from ._cells import CELLS, Cell, each, joined, split
from ._checks import left_to_torch, lengths_of, require_shapes, wrong_states
from ._plan import Plan

_LSTM = CELLS["lstm"]
BEYOND_TORCH = ("return_cells", "learn_initial_state")  # the extras without which a module computes something else


class Recurrent(torch.nn.RNNBase):
    """The base of LSTM, GRU and RNN, before that of ``torch.nn``, whose ``forward`` and constructor it wraps."""

    _cell: Cell
    # Of a module that was made by torch.nn, too.
    return_cells: bool = False  # LSTM alone can
    learn_initial_state: bool = False
    save: str = "gates"
    h_0: Tensor
    c_0: Tensor  # if the cell has c

    def __init__(self, *args: Any, learn_initial_state: bool = False, save: str = "gates", **kwargs: Any) -> None:
        learns = flag(learn_initial_state, "learn_initial_state")
        choice = save_choice(save)
        if choice is None:
            raise ValueError("save: expected 'gates' or 'lean', got None")
        super().__init__(*args, **kwargs)
        if choice != "gates":
            self.save = choice
        if learns:
            self.learn_initial_state = True
            like: Any = self.weight_ih_l0  # in dtype and device
            count = self.num_layers * (2 if self.bidirectional else 1)
            self.h_0 = torch.nn.Parameter(like.new_zeros(count, self.proj_size or self.hidden_size))
            if self._cell.has_c:
                self.c_0 = torch.nn.Parameter(like.new_zeros(count, self.hidden_size))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.learn_initial_state:
            with torch.no_grad():
                each(torch.Tensor.zero_, self._learnt(None))

    def extra_repr(self) -> str:
        extras = (*BEYOND_TORCH, "forget_bias", "save")
        shown = [f", {name}={getattr(self, name)}" for name in extras if name in self.__dict__]
        return super().extra_repr() + "".join(shown)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None, *, lengths: Any = None) -> tuple[Any, ...]:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths)
        if hx is None and self.learn_initial_state and input.dim() in (2, 3):
            hx = self._learnt(input.shape[0 if self.batch_first else 1] if input.dim() == 3 else None)
        weights = self._weights()
        if lengths is None and self._cell is _LSTM and not torch.compiler.is_compiling():
            found = self._inferred(input, hx, weights)
            if found is not None:
                return found
        reason = left_to_torch(input, weights, hx) or self._misshapen(input, hx)
        if reason:
            return self._parent(input, hx, reason, lengths)
        batched = input.dim() == 3
        x = self._time_major(input) if batched else input[:, None]
        if hx is None:
            hx = self._zeros(x, x.shape[1])
        elif not batched:
            hx = each(lambda state: state[:, None], hx)
        plan = self._plan()
        if lengths is not None:
            plan = plan._replace(lengths=lengths_of(lengths, x))
        y, hn, cn, *cells = self._run(plan, x, hx, weights)
        states = joined(hn, cn)
        if not batched:
            return y[:, 0], each(lambda state: state[:, 0], states), *(value[:, 0] for value in cells)
        return self._time_major(y), states, *map(self._time_major, cells)

    def _inferred(self, input: Tensor, hx: Any, weights: list[Tensor | None]) -> tuple[Any, ...] | None:
        """The outputs by the short way, if it is simple inference."""
        layers = self.num_layers
        if self.return_cells or (self.training and self.dropout > 0 and layers > 1):
            return None
        directions = 2 if self.bidirectional else 1
        sizes = self.input_size, self.hidden_size, self.proj_size, layers, directions
        found = infer(input, hx, weights, *sizes, self.batch_first)
        if found is None:
            return None
        _counters.native[type(self).__name__] += 1
        y, hn, cn = found
        return y, (hn, cn)

    def _time_major(self, batch: Tensor) -> Tensor:
        """[T,B,.] from what the user calls input; its own inverse."""
        return batch.transpose(0, 1) if self.batch_first else batch

    def _packed(self, input: PackedSequence, hx: Any, lengths: Any) -> tuple[Any, ...]:
        if lengths is not None:
            raise ValueError("lengths: expected None with a PackedSequence, which has lengths of its own")
        x, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is None and self.learn_initial_state:
            hx = self._learnt(int(batch_sizes[0]))
        weights = self._weights()
        reason = left_to_torch(x, weights, hx)
        if not reason and (x.dim() != 2 or x.shape[-1] != self.input_size):
            reason = "an input of another size than the module's"
        if not reason and hx is not None:
            reason = self._wrong_states(hx, int(batch_sizes[0]), 3)
        if reason:
            return self._parent(input, hx, reason)
        hx = self._zeros(x, int(batch_sizes[0])) if hx is None else self.permute_hidden(hx, sorted_indices)
        plan = self._plan()._replace(batch_sizes=batch_sizes)
        y, hn, cn, *cells = self._run(plan, x, hx, weights)
        output, *more = (PackedSequence(value, batch_sizes, sorted_indices, unsorted_indices) for value in (y, *cells))
        return output, self.permute_hidden(joined(hn, cn), unsorted_indices), *more

    def _run(self, plan: Plan, x: Tensor, hx: Any, weights: list[Tensor | None]) -> Outputs:
        if torch.compiler.is_compiling():  # when the graph runs, its parameters have no names
            require_shapes(self, self._shapes())
        try:
            return run(type(self).__name__, plan, x, *split(hx), weights)
        except ValueError:
            require_shapes(self, self._shapes())
            raise

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight and bias."""
        hidden, directions = self.hidden_size, 2 if self.bidirectional else 1
        rows = self._cell.gates * hidden
        width = self.proj_size or hidden
        found: dict[str, tuple[int, ...]] = {}
        for at, names in enumerate(self._all_weights):
            inputs = self.input_size if at < directions else directions * width
            shapes = [(rows, inputs), (rows, width), *([(rows,)] * 2 if self.bias else [])]
            found.update(zip(names, [*shapes, *([(width, hidden)] if self.proj_size else [])], strict=True))
        return found

    def _parent(self, input: Any, hx: Any, reason: str, lengths: Any = None) -> tuple[Any, Any]:
        if lengths is None or not isinstance(input, Tensor) or self._misshapen(input, hx):
            output, states = super().forward(input, hx)  # which says what is wrong, if anything is
        if lengths is not None:
            output, states = self._padded(input, hx, lengths)
        if self.return_cells:
            raise NotImplementedError(f"return_cells: expected an input that the kernels compute, got {reason}")
        _counters.note("fallback", reason)
        return output, states

    def _padded(self, input: Tensor, hx: Any, lengths: Any) -> tuple[Tensor, Any]:
        """By PyTorch, which takes no row of length 0: such a row makes a step, and that is undone."""
        rows = 0 if self.batch_first else 1
        if input.dim() == 2:
            given = None if hx is None else each(lambda state: state[:, None], hx)
            y, states = self._padded(input.unsqueeze(rows), given, lengths)
            return y.squeeze(rows), each(lambda state: state[:, 0], states)
        checked = lengths_of(lengths, self._time_major(input))
        if input.shape[rows] == 0:
            return super().forward(input, hx)  # type: ignore[no-any-return]
        # The tensor itself where there is one: what records operations is to see where lengths come from.
        known = lengths.to("cpu", torch.int64) if isinstance(lengths, Tensor) else torch.from_numpy(checked)
        empty = (known == 0).to(input.device)
        wide = empty[:, None, None] if self.batch_first else empty[:, None]
        packed = pack_padded_sequence(
            input.masked_fill(wide, 0), known.clamp(min=1), self.batch_first, enforce_sorted=False
        )
        output, states = super().forward(packed, hx)
        y, _ = pad_packed_sequence(output, self.batch_first, total_length=input.shape[1 - rows])
        before = each(torch.zeros_like, states) if hx is None else hx
        states = each(lambda old, new: torch.where(empty[:, None], old.to(new), new), before, states)
        return y.masked_fill(wide, 0), states

    def _weights(self) -> list[Tensor | None]:
        """The parameters as they are now, KINDS for each layer and direction."""
        own = self._parameters
        found: list[Tensor | None] = []
        for names in self._all_weights:
            # Parametrizations and functional_call put tensors elsewhere.
            given = [own[name] if name in own else getattr(self, name) for name in names]
            projection = given.pop() if self.proj_size > 0 else None
            found += given if self.bias else [*given, None, None]
            found.append(projection)
        assert len(found) % KINDS == 0
        return found

    def _plan(self) -> Plan:
        layers, directions = self.num_layers, 2 if self.bidirectional else 1
        if not (self.training and self.dropout > 0 and layers > 1):
            return Plan(self._cell, layers, directions, cells=self.return_cells, save=self.save)
        seed = torch.randint(2**63 - 1, (), device="cpu")
        # Under torch.func and the compiler it has no value yet.
        later = torch.compiler.is_compiling() or unsupported()
        known = seed if later else int(seed)
        return Plan(self._cell, layers, directions, self.dropout, known, cells=self.return_cells, save=self.save)

    def _learnt(self, batch: int | None) -> Any:
        """The learnt initial state of so many rows, or without an axis of rows."""
        state = (self.h_0, self.c_0) if self._cell.has_c else self.h_0
        return state if batch is None else each(lambda value: value[:, None].expand(-1, batch, -1), state)

    def _zeros(self, x: Tensor, batch: int) -> Any:
        count = self.num_layers * (2 if self.bidirectional else 1)
        h0 = x.new_zeros(count, batch, self.proj_size or self.hidden_size)
        if not self._cell.has_c:
            return h0
        return h0, h0 if self.proj_size == 0 else x.new_zeros(count, batch, self.hidden_size)

    def _misshapen(self, input: Tensor, hx: Any) -> str | None:
        shape = input.shape
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            return "an input of another size than the module's"
        time = 1 if self.batch_first and len(shape) == 3 else 0
        if shape[time] == 0:
            return "a sequence of length 0"
        if hx is None:
            return None
        return self._wrong_states(hx, shape[1 - time] if len(shape) == 3 else 1, len(shape))

    def _wrong_states(self, hx: Any, batch: int, dim: int) -> str | None:
        count = self.num_layers * (2 if self.bidirectional else 1)
        rows = (count, batch) if dim == 3 else (count,)
        hidden = self.hidden_size
        return wrong_states(hx, (*rows, self.proj_size or hidden), (*rows, hidden) if self._cell.has_c else None)


class GRU(Recurrent, torch.nn.GRU):
    """``torch.nn.GRU`` through the kernels of lstm_fast: same constructor, parameters, ``state_dict`` and results.

    ``lengths``, errors, what PyTorch computes, and the extras ``learn_initial_state`` (the parameter is ``h_0`` [L*D,
    hidden_size]) and ``save`` are those of :class:`lstm_fast.torch.LSTM`.
    """

    _cell = CELLS["gru"]


class RNN(Recurrent, torch.nn.RNN):
    """``torch.nn.RNN`` through the kernels of lstm_fast, with ``nonlinearity`` "tanh" or "relu".

    Same constructor, parameters, ``state_dict`` and results; all else as :class:`lstm_fast.torch.GRU`.
    """

    @property
    def _cell(self) -> Cell:  # type: ignore[override]
        return CELLS[self.mode.lower()]
