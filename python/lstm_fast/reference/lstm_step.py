"""The equations of one step of the LSTM with all its variants, and their gradients.

    gx = x W_ih^T                   layer_norm: LN(gx) * g_x
    gh = h' W_hh^T                  layer_norm: LN(gh) * g_h; recurrent_dropout: h' masked; drop_connect: W_hh masked
    a = gx + gh + b_ih + b_hh       peephole: a_i += p_i * c', a_f += p_f * c', a_o += p_o * c~; clip: a in [-v, v]
    i, f, o = s(a_i, a_f, a_o)      coupled: f = 1 - i, or i = 1 - f
    g = tanh(a_g)
    c~ = f * c' + i * g             cell_clip: c~ in [-v, v]
    h~ = o * tanh(c~)               layer_norm: tanh(LN(c~) * g_c + b_c)
    h~ = h~ W_hr^T                  with a projection
    h, c = h~, c~                   zoneout: of every unit the new value or that of h', c'

In the order of the lines, so every combination has one meaning: LN is over all rows of gx or gh, before peepholes;
clip bounds what the activations see; everything in the step sees the clipped c~; zoneout is around the whole step, and
the h' that it keeps is not masked by recurrent dropout. A coupled gate has no rows in any parameter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .dropout import Zoneout
from .sequence import Array, Gradients, State, add_to_biases, biases, sigmoid

EPSILON = 1e-5  # of layer norm: that of torch.nn.LayerNorm

# The gates that have rows, by the value of coupled.
GATES = {None: "ifgo", "f=1-i": "igo", "i=1-f": "fgo"}


class Variants(NamedTuple):
    """Everything that makes another LSTM of the plain one and is no parameter."""

    coupled: str | None = None
    clip: float | None = None
    cell_clip: float | None = None
    zoneout_h: Zoneout | None = None
    zoneout_c: Zoneout | None = None
    scale_h: Array | None = None  # [B,H]: recurrent dropout, what h' is multiplied by
    scale_w_hh: Array | None = None  # [4H,H]: drop connect, what W_hh is multiplied by


class Normal(NamedTuple):
    """A row minus its mean and divided by its deviation, over the last axis."""

    value: Array
    deviation: Array

    @classmethod
    def of(cls, v: Array) -> Normal:
        deviation = np.sqrt(v.var(axis=-1, keepdims=True) + EPSILON)
        return cls((v - v.mean(axis=-1, keepdims=True)) / deviation, deviation)

    def backward(self, d: Array) -> Array:
        """The gradient of v from that of the value."""
        along = (d * self.value).mean(axis=-1, keepdims=True)
        dv: Array = (d - d.mean(axis=-1, keepdims=True) - self.value * along) / self.deviation
        return dv


class Step(NamedTuple):
    """What backward needs of one step."""

    t: int
    rows: slice
    x: Array  # [B,I]
    h_seen: Array  # [B,H]: h' as W_hh sees it
    c_prev: Array  # [B,H]
    a: dict[str, Array]  # [B,H] each: the pre-activations, not clipped, of the gates that have rows
    gates: Array  # [4,B,H]: activated i, f, g, o
    c_raw: Array  # [B,H]: the new c, not clipped
    tc: Array  # [B,H]: tanh of the new c, normalised or not
    normal: tuple[Normal, Normal, Normal] | None  # of gx, gh and the new c


def clipped(v: Array, limit: float | None) -> Array:
    if limit is None:
        return v
    bounded: Array = np.clip(v, -limit, limit)
    return bounded


def inside(gradient: Array, v: Array, limit: float | None) -> Array:
    """The gradient of v from that of ``clipped(v, limit)``: 0 where v was beyond the limit."""
    return gradient if limit is None else np.where(np.abs(v) <= limit, gradient, 0)


class LSTM:
    """The equations of one step and their gradients."""

    def __init__(self, given: dict[str, Any], variants: Variants) -> None:
        self.parameters, self.variants = given, variants
        self.names = GATES[variants.coupled]
        b_ih, b_hh = biases(given)
        self.bias = b_ih + b_hh
        self.w_hh = given["w_hh"] if variants.scale_w_hh is None else given["w_hh"] * variants.scale_w_hh
        self.w_hr: Array | None = given.get("w_hr")
        self.layer_norm: tuple[Array, Array, Array, Array] | None = given.get("layer_norm")
        looking = self.names.replace("g", "")  # the gates that see c
        self.peephole = dict(zip(looking, given["peephole"], strict=True)) if "peephole" in given else {}

    def forward(self, x: Array, state: State, t: int, rows: slice) -> tuple[State, Step]:
        (h_prev, c_prev), of = state, self.variants
        h_seen = h_prev if of.scale_h is None else h_prev * of.scale_h[rows]
        gx, gh = x @ self.parameters["w_ih"].T, h_seen @ self.w_hh.T
        if self.layer_norm:
            g_x, g_h, g_c, b_c = self.layer_norm
            normal_x, normal_h = Normal.of(gx), Normal.of(gh)
            gx, gh = normal_x.value * g_x, normal_h.value * g_h
        a = dict(zip(self.names, np.split(gx + gh + self.bias, len(self.names), axis=-1), strict=True))
        for gate, weight in self.peephole.items():
            if gate != "o":
                a[gate] = a[gate] + weight * c_prev
        if of.coupled == "i=1-f":
            f = sigmoid(clipped(a["f"], of.clip))
            i = 1 - f
        else:
            i = sigmoid(clipped(a["i"], of.clip))
            f = 1 - i if of.coupled == "f=1-i" else sigmoid(clipped(a["f"], of.clip))
        g = np.tanh(clipped(a["g"], of.clip))
        c_raw = f * c_prev + i * g
        c = clipped(c_raw, of.cell_clip)
        if self.peephole:
            a["o"] = a["o"] + self.peephole["o"] * c
        o = sigmoid(clipped(a["o"], of.clip))
        normal = None
        if self.layer_norm:
            normal = (normal_x, normal_h, Normal.of(c))
            tc = np.tanh(normal[2].value * g_c + b_c)
        else:
            tc = np.tanh(c)
        h = o * tc
        if self.w_hr is not None:
            h = h @ self.w_hr.T
        if of.zoneout_h:
            h = of.zoneout_h.mix(h, h_prev, t, rows)
        if of.zoneout_c:
            c = of.zoneout_c.mix(c, c_prev, t, rows)
        return (h, c), Step(t, rows, x, h_seen, c_prev, a, np.stack([i, f, g, o]), c_raw, tc, normal)

    def backward(self, step: Step, dstate: State, grads: Gradients) -> tuple[Array, State]:
        t, rows, c_prev, a, c_raw, tc = step.t, step.rows, step.c_prev, step.a, step.c_raw, step.tc
        (i, f, g, o), (dh, dc), of = step.gates, dstate, self.variants
        dh_kept = dc_kept = None  # what goes past the step
        if of.zoneout_h:
            dh, dh_kept = of.zoneout_h.split(dh, t, rows)
        if of.zoneout_c:
            dc, dc_kept = of.zoneout_c.split(dc, t, rows)
        if self.w_hr is not None:
            grads["w_hr"] += dh.T @ (o * tc)
            dh = dh @ self.w_hr
        dc = dc + self._through_tanh(dh * o * (1 - tc**2), step, grads)
        da = {"o": inside(dh * tc * o * (1 - o), a["o"], of.clip)}
        if self.peephole:
            dc = dc + da["o"] * self.peephole["o"]
        dc = inside(dc, c_raw, of.cell_clip)
        di, dg, df, dc_prev = dc * g, dc * i, dc * c_prev, dc * f
        if of.coupled == "f=1-i":
            di = di - df
        elif of.coupled == "i=1-f":
            df = df - di
        for gate, gradient in (("i", di * i * (1 - i)), ("f", df * f * (1 - f)), ("g", dg * (1 - g**2))):
            if gate in self.names:
                da[gate] = inside(gradient, a[gate], of.clip)
        for row, (gate, weight) in enumerate(self.peephole.items()):
            seen = clipped(c_raw, of.cell_clip) if gate == "o" else c_prev
            grads["peephole"][row] += (da[gate] * seen).sum(axis=0)
            if gate != "o":
                dc_prev = dc_prev + da[gate] * weight
        dx, dh_prev = self._through_products(np.concatenate([da[gate] for gate in self.names], axis=-1), step, grads)
        return dx, (
            dh_prev if dh_kept is None else dh_prev + dh_kept,
            dc_prev if dc_kept is None else dc_prev + dc_kept,
        )

    def _through_tanh(self, d: Array, step: Step, grads: Gradients) -> Array:
        """The gradient of c from that of what tanh saw."""
        if step.normal is None or self.layer_norm is None:
            return d
        (_, _, normal_c), (_, _, g_c, _) = step.normal, self.layer_norm
        _, _, dg_c, db_c = grads["layer_norm"]
        dg_c += (d * normal_c.value).sum(axis=0)
        db_c += d.sum(axis=0)
        return normal_c.backward(d * g_c)

    def _through_products(self, da: Array, step: Step, grads: Gradients) -> tuple[Array, Array]:
        """dx and dh' from the gradient of the pre-activations [B,4H]; adds to those of weights and biases."""
        add_to_biases(grads, da, da)
        dgx = dgh = da
        if step.normal is not None and self.layer_norm is not None:
            (normal_x, normal_h, _), (g_x, g_h, _, _) = step.normal, self.layer_norm
            dg_x, dg_h, _, _ = grads["layer_norm"]
            dg_x += (da * normal_x.value).sum(axis=0)
            dg_h += (da * normal_h.value).sum(axis=0)
            dgx, dgh = normal_x.backward(da * g_x), normal_h.backward(da * g_h)
        grads["w_ih"] += dgx.T @ step.x
        dw_hh, dh_seen = dgh.T @ step.h_seen, dgh @ self.w_hh
        of = self.variants
        grads["w_hh"] += dw_hh if of.scale_w_hh is None else dw_hh * of.scale_w_hh
        dh_prev = dh_seen if of.scale_h is None else dh_seen * of.scale_h[step.rows]
        return dgx @ self.parameters["w_ih"], dh_prev
