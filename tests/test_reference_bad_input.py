"""What the reference refuses: the error names the argument, what was wanted and what came."""

from __future__ import annotations

import numpy as np
import pytest
from reference_problems import draw_case

T, B, H = 5, 3, 4
CELLS = ("lstm", "gru", "rnn")
NUMBERS = [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)]
RATES = [(-0.1, ValueError), (1.0, ValueError), (1.5, ValueError), (float("nan"), ValueError), ("0.5", TypeError)]
AIDS = [("truncate", value, error) for value, error in ((0, ValueError), (-2, ValueError), (1.0, TypeError))]
AIDS += [("truncate", True, TypeError), ("truncate", "2", TypeError)]
AIDS += [("grad_clip", value, error) for value, error in NUMBERS]
AIDS += [("resets", np.zeros(shape, bool), ValueError) for shape in ((B, T), (T,), (T, B, 1), (T, B + 1))]
AIDS += [("resets", np.zeros((T, B), dtype), TypeError) for dtype in (int, float)]
OPTIONS = [(name, value, error) for name in ("clip", "cell_clip") for value, error in NUMBERS]
OPTIONS += [(name, value, error) for name in ("recurrent_dropout", "drop_connect") for value, error in RATES]
OPTIONS += [("zoneout", (value, 0.0), error) for value, error in RATES]
OPTIONS += [("zoneout", (0.0, value), error) for value, error in RATES]
OPTIONS += [("zoneout", value, TypeError) for value in (0.1, (0.1,), (0.1, 0.1, 0.1), None)]
OPTIONS += [("coupled", value, error) for value, error in (("f=1-o", ValueError), ("", ValueError), (True, TypeError))]
OPTIONS += [("peephole", np.zeros(shape), ValueError) for shape in ((2, H), (3 * H,), (3, H + 1), (H, 3))]
OPTIONS += [("layer_norm", value, TypeError) for value in (True, (np.ones(4 * H),) * 3, np.ones((4, H)))]
OPTIONS += [("seed", value, error) for value, error in ((-1, ValueError), (2**64, ValueError), (1.0, TypeError))]
OPTIONS += [("place", value, error) for value, error in ((-1, ValueError), (2**28, ValueError), ("0", TypeError))]
OPTIONS += [("training", 1, TypeError)]


def assert_refused(case, name, value, error):
    with pytest.raises(error, match=rf"^{name}\b.*: expected .+, got .+"):
        case.forward(**{name: value})


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("name", "value", "error"), AIDS)
def test_aids(cell, name, value, error):
    assert_refused(draw_case(cell, (T, B, 2, H)), name, value, error)


@pytest.mark.parametrize(("name", "value", "error"), OPTIONS)
def test_variants(name, value, error):
    assert_refused(draw_case("lstm", (T, B, 2, H)), name, value, error)


NAMES = [("gelu", ValueError), ("Tanh", ValueError), (None, TypeError), (3, TypeError)]


@pytest.mark.parametrize(("value", "error"), NAMES)
def test_nonlinearity(value, error):
    assert_refused(draw_case("rnn"), "nonlinearity", value, error)


def test_nonlinearity_lists_the_choices():
    with pytest.raises(ValueError, match=r"expected 'tanh', 'relu', 'sigmoid' or 'identity', got 'gelu'$"):
        draw_case("rnn").forward(nonlinearity="gelu")


def test_reset_after():
    assert_refused(draw_case("gru"), "reset_after", 1, TypeError)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("value", "error"), [("all", ValueError), (3, TypeError)])
def test_save(cell, value, error):
    assert_refused(draw_case(cell), "save", value, error)


@pytest.mark.parametrize(("array", "widths"), list(enumerate([(4 * H, H), (4 * H, H), (H, 4 * H), (H, 4 * H)])))
def test_layer_norm_arrays(array, widths):
    right, wrong = widths
    arrays = [np.ones(width) for width in (4 * H, 4 * H, H, H)]
    arrays[array] = np.ones(wrong)
    name = ("g_x", "g_h", "g_c", "b_c")[array]
    with pytest.raises(ValueError, match=rf"^layer_norm {name}: expected shape \({right},\), got \({wrong},\)$"):
        draw_case("lstm", (T, B, 2, H)).forward(layer_norm=tuple(arrays))


def test_a_coupled_gate_has_no_rows():
    """Weights of four gates are not taken for three, and a peephole of the coupled gate is refused."""
    with pytest.raises(ValueError, match=r"^w_ih: expected 12 rows, 4 for each of i, g, o, got shape \(16, 2\)$"):
        draw_case("lstm", (T, B, 2, H)).forward(coupled="f=1-i")
    with pytest.raises(ValueError, match=r"^peephole: expected shape \(2, 4\), got \(3, 4\)$"):
        draw_case("lstm", (T, B, 2, H), coupled="i=1-f").forward(peephole=np.zeros((3, H)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", ["w_ih", "w_hh", "b_ih", "b_hh"])
def test_rows_of_weights_and_biases(cell, name):
    case = draw_case(cell, (T, B, 2, H))
    rows = len(case.arrays[name])
    with pytest.raises(ValueError, match=rf"^{name}: expected {rows} rows, 4 for each of .*, got shape"):
        case.replace(**{name: np.concatenate([case.arrays[name]] * 2)}).forward()
