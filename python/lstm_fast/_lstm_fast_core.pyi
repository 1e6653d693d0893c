from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

class Reserve:
    @property
    def nbytes(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def biases(self) -> tuple[bool, bool]: ...
    def states(self, layer: int, direction: int) -> tuple[Array, Array]: ...

class Form:
    layer: Form
    stack: Form
    cell: Form

def lstm_forward(
    x: object,
    h0: object,
    c0: object,
    weights: list[tuple[object, object, object, object, object]],
    lengths: object,
    layers: int,
    directions: int,
    reverse: bool,
    save: bool,
    dropout: float,
    seed: int,
    form: Form,
) -> tuple[Array, Array, Array, Reserve | None]: ...
def lstm_backward(
    reserve: Reserve, dy: object, dhn: object, dcn: object
) -> tuple[Array, Array, Array, list[tuple[Array, Array, Array | None, Array | None]]]: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def isa(self) -> str: ...
    @property
    def biases(self) -> tuple[bool, bool]: ...
    def states(self, layer: int, direction: int) -> tuple[Array, Array]: ...

class Form:
    layer: Form
    stack: Form
    cell: Form

def lstm_forward(
    x: object,
    h0: object,
    c0: object,
    w_ih: object,
    w_hh: object,
    b_ih: object,
    b_hh: object,
    save: bool,
    form: Form,
) -> tuple[Array, Array, Array, Reserve | None]: ...
def lstm_backward(reserve: Reserve, dy: object, dhn: object, dcn: object) -> dict[str, Array]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def isas_built() -> list[str]: ...
def isas_usable() -> list[str]: ...
def compiler() -> str: ...
def fma_peak(dtype: str, seconds: float) -> float: ...
