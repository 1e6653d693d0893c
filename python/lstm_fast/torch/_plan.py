"""What a call asks for beside its tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from ._cells import Cell


class Plan(NamedTuple):
    """Of one call of a stack of layers."""

    cell: Cell
    layers: int = 1
    directions: int = 1
    dropout: float = 0.0  # 0 unless training
    seed: int | Tensor = 0  # of the masks; a tensor under the compiler and torch.func
    lengths: NDArray[Any] | Tensor | None = None  # of a padded batch; a tensor under the compiler
    batch_sizes: Tensor | None = None  # of a packed one
    cells: bool = False  # whether c after every step of the last layer is an output, too
    save: str = "gates"  # what a graph keeps; not under the compiler
    step: bool = False  # of a single layer: x [B,I], and outputs like states [B,H]

    def needs_reserve(self) -> bool:
        """Whether the kernels must save even without a graph: inference knows no dropout and keeps no states."""
        return self.cells or self.dropout > 0
