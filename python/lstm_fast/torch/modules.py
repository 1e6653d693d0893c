"""torch.nn.LSTM with the same constructor, parameters and state_dict; only forward is ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._arguments import finite, flag, save_choice
from . import _counters
from ._call import KINDS, Outputs, infer, run, unsupported
from ._checks import left_to_torch, lengths_of, require_shapes, wrong_states
from ._plan import Plan

BEYOND_TORCH = ("return_cells", "learn_initial_state")  # the extras of LSTM without which it computes something else
States = tuple[Tensor, Tensor]  # h and c


class LSTM(torch.nn.LSTM):
    """``torch.nn.LSTM`` through the kernels of lstm_fast: same constructor, parameters, ``state_dict`` and results.

    ``forward(input, hx=None, *, lengths=None)`` takes what ``torch.nn.LSTM`` takes, and for a padded batch ``lengths``,
    a tensor or list of B integers in 0..T in any order: every row is computed as if it stood alone with its own length,
    as in a PackedSequence; the output beyond is 0. What the kernels do not do (see :func:`lstm_fast.torch.stats`) is
    computed by PyTorch, rows with ``lengths`` packed. Errors are PyTorch's, but for a parameter of another shape than
    the module's sizes say, which a RuntimeError names; ValueError and TypeError for wrong lengths.

    What ``torch.nn.LSTM`` lacks, keyword-only arguments of the constructor, off by default (D directions, L layers):

    * ``return_cells=True``: ``forward`` returns ``(output, (h_n, c_n), cells)``: c after every step of the last layer,
      of the kind, shape and dtype of output but with D*hidden_size features, and differentiable. Every call takes the
      memory of a training call. NotImplementedError where PyTorch would have to compute;
    * ``learn_initial_state=True``: parameters ``h_0`` [L*D, proj_size or hidden_size] and ``c_0`` [L*D, hidden_size] of
      the module's dtype, zero at first, are the state of every row where ``hx`` is None;
    * ``save="lean"``: between forward and backward the module keeps a few cell states in place of gates and states of
      every step, and backward computes them again: the same bits, about a sixth of the memory, up to a third more time.
      Compiled graphs keep all. ValueError if it is neither "gates", the default, nor "lean";
    * ``forget_bias=value``: ``reset_parameters`` sets the forget gate's part of every ``bias_ih`` to it and that of
      ``bias_hh`` to 0. ValueError if it is not finite, or if there are no biases.

    TypeError for values of another type. An extra that is off leaves no trace in the module.
    """

    # Of a module that was made by torch.nn.LSTM, too.
    return_cells: bool = False
    learn_initial_state: bool = False
    forget_bias: float | None = None
    save: str = "gates"
    h_0: Tensor
    c_0: Tensor

    def __init__(
        self,
        *args: Any,
        return_cells: bool = False,
        learn_initial_state: bool = False,
        forget_bias: float | None = None,
        save: str = "gates",
        **kwargs: Any,
    ) -> None:
        cells = flag(return_cells, "return_cells")
        learns = flag(learn_initial_state, "learn_initial_state")
        bias = None if forget_bias is None else finite(forget_bias, "forget_bias")
        choice = save_choice(save)
        if choice is None:
            raise ValueError("save: expected 'gates' or 'lean', got None")
        super().__init__(*args, **kwargs)
        if choice != "gates":
            self.save = choice
        if bias is not None:
            if not self.bias:
                raise ValueError(f"forget_bias: expected None with bias=False, got {forget_bias}")
            self.forget_bias = bias
        if cells:
            self.return_cells = True
        if learns:
            self.learn_initial_state = True
            like: Any = self.weight_ih_l0  # in dtype and device
            count = self.num_layers * (2 if self.bidirectional else 1)
            for name, width in (("h_0", self.proj_size or self.hidden_size), ("c_0", self.hidden_size)):
                setattr(self, name, torch.nn.Parameter(like.new_empty(count, width)))
        self._reset_extras()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_extras()

    def _reset_extras(self) -> None:
        with torch.no_grad():
            if self.learn_initial_state:
                self.h_0.zero_()
                self.c_0.zero_()
            if self.forget_bias is not None:
                forget = slice(self.hidden_size, 2 * self.hidden_size)
                for names in self._all_weights:
                    getattr(self, names[2])[forget] = self.forget_bias
                    getattr(self, names[3])[forget] = 0.0

    def extra_repr(self) -> str:
        extras = (*BEYOND_TORCH, "forget_bias", "save")
        shown = [f", {name}={getattr(self, name)}" for name in extras if name in self.__dict__]
        return super().extra_repr() + "".join(shown)

    def forward(
        self, input: Tensor | PackedSequence, hx: States | None = None, *, lengths: Any = None
    ) -> tuple[Any, ...]:
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths)
        if hx is None and self.learn_initial_state and input.dim() in (2, 3):
            hx = self._learnt(input.shape[0 if self.batch_first else 1] if input.dim() == 3 else None)
        weights = self._weights()
        if lengths is None and not torch.compiler.is_compiling():
            found = self._inferred(input, hx, weights)
            if found is not None:
                return found
        reason = left_to_torch(input, weights, hx) or self._misshapen(input, hx)
        if reason:
            return self._parent(input, hx, reason, lengths)
        batched = input.dim() == 3
        x = self._time_major(input) if batched else input[:, None]
        if hx is None:
            h0, c0 = self._zeros(x, x.shape[1])
        else:
            h0, c0 = hx if batched else (hx[0][:, None], hx[1][:, None])
        plan = self._plan()
        if lengths is not None:
            plan = plan._replace(lengths=lengths_of(lengths, x))
        y, hn, cn, *cells = self._run(plan, x, h0, c0, weights)
        if not batched:
            return y[:, 0], (hn[:, 0], cn[:, 0]), *(each[:, 0] for each in cells)
        return self._time_major(y), (hn, cn), *map(self._time_major, cells)

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

    def _packed(self, input: PackedSequence, hx: States | None, lengths: Any) -> tuple[Any, ...]:
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
        if hx is None:
            h0, c0 = self._zeros(x, int(batch_sizes[0]))
        else:
            h0, c0 = self.permute_hidden(hx, sorted_indices)
        plan = self._plan()._replace(batch_sizes=batch_sizes)
        y, hn, cn, *cells = self._run(plan, x, h0, c0, weights)
        output, *more = (PackedSequence(each, batch_sizes, sorted_indices, unsorted_indices) for each in (y, *cells))
        return output, self.permute_hidden((hn, cn), unsorted_indices), *more

    def _run(self, plan: Plan, x: Tensor, h0: Tensor, c0: Tensor, weights: list[Tensor | None]) -> Outputs:
        if torch.compiler.is_compiling():  # when the graph runs, its parameters have no names
            require_shapes(self, self._shapes())
        try:
            return run(type(self).__name__, plan, x, h0, c0, weights)
        except ValueError:
            require_shapes(self, self._shapes())
            raise

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight and bias."""
        hidden, directions = self.hidden_size, 2 if self.bidirectional else 1
        width = self.proj_size or hidden
        found: dict[str, tuple[int, ...]] = {}
        for at, names in enumerate(self._all_weights):
            inputs = self.input_size if at < directions else directions * width
            shapes = [(4 * hidden, inputs), (4 * hidden, width), *([(4 * hidden,)] * 2 if self.bias else [])]
            found.update(zip(names, [*shapes, *([(width, hidden)] if self.proj_size else [])], strict=True))
        return found

    def _parent(self, input: Any, hx: Any, reason: str, lengths: Any = None) -> tuple[Any, States]:
        if lengths is None or not isinstance(input, Tensor) or self._misshapen(input, hx):
            output, states = super().forward(input, hx)  # which says what is wrong, if anything is
        if lengths is not None:
            output, states = self._padded(input, hx, lengths)
        if self.return_cells:
            raise NotImplementedError(f"return_cells: expected an input that the kernels compute, got {reason}")
        _counters.note("fallback", reason)
        return output, states

    def _padded(self, input: Tensor, hx: Any, lengths: Any) -> tuple[Tensor, States]:
        """By PyTorch, which takes no row of length 0: such a row makes a step, and that is undone."""
        rows = 0 if self.batch_first else 1
        if input.dim() == 2:
            states = hx if hx is None else (hx[0][:, None], hx[1][:, None])
            y, (hn, cn) = self._padded(input.unsqueeze(rows), states, lengths)
            return y.squeeze(rows), (hn[:, 0], cn[:, 0])
        checked = lengths_of(lengths, self._time_major(input))
        if input.shape[rows] == 0:
            return super().forward(input, hx)
        # The tensor itself where there is one: what records operations is to see where lengths come from.
        known = lengths.to("cpu", torch.int64) if isinstance(lengths, Tensor) else torch.from_numpy(checked)
        empty = (known == 0).to(input.device)
        wide = empty[:, None, None] if self.batch_first else empty[:, None]
        packed = pack_padded_sequence(
            input.masked_fill(wide, 0), known.clamp(min=1), self.batch_first, enforce_sorted=False
        )
        output, states = super().forward(packed, hx)
        y, _ = pad_packed_sequence(output, self.batch_first, total_length=input.shape[1 - rows])
        before = map(torch.zeros_like, states) if hx is None else hx
        hn, cn = (torch.where(empty[:, None], old.to(new), new) for old, new in zip(before, states, strict=True))
        return y.masked_fill(wide, 0), (hn, cn)

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
            return Plan(layers, directions, cells=self.return_cells, save=self.save)
        seed = torch.randint(2**63 - 1, (), device="cpu")
        # Under torch.func and the compiler it has no value yet.
        later = torch.compiler.is_compiling() or unsupported()
        known = seed if later else int(seed)
        return Plan(layers, directions, self.dropout, known, cells=self.return_cells, save=self.save)

    def _learnt(self, batch: int | None) -> States:
        """The learnt initial state of so many rows, or without an axis of rows."""
        if batch is None:
            return self.h_0, self.c_0
        return self.h_0[:, None].expand(-1, batch, -1), self.c_0[:, None].expand(-1, batch, -1)

    def _zeros(self, x: Tensor, batch: int) -> States:
        count = self.num_layers * (2 if self.bidirectional else 1)
        h0 = x.new_zeros(count, batch, self.proj_size or self.hidden_size)
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
        return wrong_states(hx, (*rows, self.proj_size or hidden), (*rows, hidden))
