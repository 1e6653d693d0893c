"""The defects that mutations.py plants: texts of the kernels and what to put in their place.

Numbers 1 to 38 are those of the design's list; the others came up while the suite was written: x1, x2, ... in one
layer, p1, p2, ... in packed sequences, c1, c2, ... in PyTorch's cells, t1, t2, ... in the thread team, m1, m2, ... in
the memory, d1, d2, ... in single steps, l1, l2, ... in lean reserves, g1, g2, ... in the GRU, r1, r2, ... in the RNN,
a1, a2, ... in the aids of training.
"""

from __future__ import annotations

from . import direct, family, layer, lean, stack, team
from .parts import Defect

DEFECTS: list[Defect] = [*layer.DEFECTS, *direct.DEFECTS, *stack.DEFECTS, *lean.DEFECTS, *family.DEFECTS, *team.DEFECTS]

__all__ = ["DEFECTS", "Defect"]
