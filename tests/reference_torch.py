"""The family step by step in PyTorch, differentiated by autograd; variants written down again, aids by detach and hook.

float64, one row at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judge import Array
from lstm_fast.reference import Stream, kept_units
from reference_problems import Case


def lstm_step(torch: Any, w: Any, case: Case, masks: Any, x: Any, state: Any) -> Any:
    """One step of one row with all variants; masks are those of this step and row, None where nothing is masked."""
    (h0, c0), given = state, case.options
    hidden = c0.shape[1]
    coupled, clip = given.get("coupled"), given.get("clip") or torch.inf
    letters = {None: "ifgo", "f=1-i": "igo", "i=1-f": "fgo"}[coupled]
    p_dropout, p_connect = (given.get(name, 0.0) for name in ("recurrent_dropout", "drop_connect"))
    h_seen = h0 if masks["h_seen"] is None else h0 * masks["h_seen"] / (1 - p_dropout)
    w_hh = w["w_hh"] if masks["w_hh"] is None else w["w_hh"] * masks["w_hh"] / (1 - p_connect)
    gx, gh = x @ w["w_ih"].T, h_seen @ w_hh.T
    norm = torch.nn.functional.layer_norm
    if "g_x" in w:
        gx, gh = norm(gx, gx.shape[1:], w["g_x"]), norm(gh, gh.shape[1:], w["g_h"])
    a = dict(zip(letters, (gx + gh + w["b_ih"] + w["b_hh"]).split(hidden, dim=1), strict=True))
    p = dict(zip(letters.replace("g", ""), w["peephole"], strict=True)) if "peephole" in w else {}

    def gate(letter: str, c: Any) -> Any:
        return torch.sigmoid((a[letter] + p.get(letter, 0) * c).clamp(-clip, clip))

    i = 1 - gate("f", c0) if coupled == "i=1-f" else gate("i", c0)
    f = 1 - i if coupled == "f=1-i" else gate("f", c0)
    bound = given.get("cell_clip") or torch.inf
    c = (f * c0 + i * torch.tanh(a["g"].clamp(-clip, clip))).clamp(-bound, bound)
    h = gate("o", c) * torch.tanh(norm(c, (hidden,), w["g_c"], w["b_c"]) if "g_x" in w else c)
    if "w_hr" in w:
        h = h @ w["w_hr"].T
    new = []
    for value, old, rate, mask in zip((h, c), (h0, c0), given.get("zoneout", (0, 0)), masks["zoneout"], strict=True):
        new.append(rate * old + (1 - rate) * value if mask is None else torch.where(mask, value, old))
    return tuple(new)


def draw_masks(torch: Any, case: Case) -> Any:
    """A function of t and b: the masks that :func:`lstm_step` takes."""
    given, shapes = case.options, {name: value.shape for name, value in case.arrays.items()}
    steps = shapes["x"][0]

    def drawn(stream: Stream, p: float, *shape: int) -> Any:
        if not p or not given.get("training", True):
            return None
        return torch.from_numpy(kept_units(stream, given.get("seed", 0), given.get("place", 0), shape, p))

    p_h, p_c = given.get("zoneout", (0, 0))
    zone_h = drawn(Stream.zoneout_h, p_h, steps, *shapes["h0"])
    zone_c = drawn(Stream.zoneout_c, p_c, steps, *shapes["c0"])
    h_seen = drawn(Stream.recurrent, given.get("recurrent_dropout", 0), 1, *shapes["h0"])
    w_hh = drawn(Stream.drop_connect, given.get("drop_connect", 0), 1, *shapes["w_hh"])
    return lambda t, b: {
        "zoneout": [None if mask is None else mask[t, b] for mask in (zone_h, zone_c)],
        "h_seen": None if h_seen is None else h_seen[0, b],
        "w_hh": None if w_hh is None else w_hh[0],
    }


def torch_steps(case: Case) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values, and gradients of every array of the case."""
    torch = pytest.importorskip("torch", reason="PyTorch is the second opinion on the reference")
    w = {name: torch.from_numpy(value).requires_grad_() for name, value in case.arrays.items()}
    given, steps, batch = case.options, *case.arrays["x"].shape[:2]
    names = [name for name in ("h0", "c0") if name in w]
    masks = draw_masks(torch, case) if case.cell == "lstm" else None
    resets = torch.from_numpy(np.asarray(given.get("resets", np.zeros((steps, batch), bool))))
    lengths = given.get("lengths") or [steps] * batch
    rows = []
    for b, length in enumerate(lengths):
        state = tuple(w[name][b : b + 1] for name in names)
        y = [torch.zeros_like(state[0])] * steps
        for done, t in enumerate(range(length)[:: -1 if given.get("reverse") else 1]):
            if done and given.get("truncate") and done % given["truncate"] == 0:
                state = tuple(each.detach() for each in state)
            state = tuple(torch.where(resets[t, b], 0, each) for each in state)
            x = w["x"][t, b : b + 1]
            if case.cell == "lstm":
                state = lstm_step(torch, w, case, masks(t, b), x, state)
            else:
                kind = given.get("nonlinearity", "tanh")
                step = torch.gru_cell if case.cell == "gru" else getattr(torch, f"rnn_{kind}_cell")
                state = (step(x, *state, w["w_ih"], w["w_hh"], w["b_ih"], w["b_hh"]),)
            if bound := given.get("grad_clip"):
                state[0].register_hook(lambda dh, bound=bound: dh.clamp(-bound, bound))
            y[t] = state[0]
        rows.append((torch.stack(y), *state))
    outputs = [torch.cat(each, dim=-2) for each in zip(*rows, strict=True)]
    torch.autograd.backward(outputs, [torch.from_numpy(value) for value in case.upstream.values()])
    found = dict(zip(("y", "hn", "cn"), (each.detach().numpy() for each in outputs), strict=False))
    return found, {name: np.zeros(each.shape) if each.grad is None else each.grad.numpy() for name, each in w.items()}
