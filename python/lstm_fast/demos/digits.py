"""``lstm-fast demo digits``: handwritten digits read pixel by pixel by two copies of one PyTorch model."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bench.machine import engine_threads
from ..bench.packages import require
from .arguments import picture, positive_int
from .chart import draw_digits

if TYPE_CHECKING:
    from .side_by_side import Lesson

Array = NDArray[Any]

NEEDS = "demo digits"
HELD_OUT = 360  # digits, a fifth
SHORTEST = 32  # pixels of a cut digit
STEPS = 64  # pixels of a whole one
CLOSE = 1e-3  # nats: losses of one batch that differ by more are called apart
# Batches in which rounding has not yet grown: with 16 to 64 units and three seeds losses were apart after 27 or more.
ALIKE = 10

INTRODUCTION = """\
{learned:,} handwritten digits of 8 x 8 pixels to learn from, {held_out} held out. nn.LSTM(1, {hidden}) reads one
pixel at a time; Linear({hidden}, 10) tells the digit from the last hidden state. Three copies learn from
the same {count} batches of {batch} an epoch, with torch.optim.Adam:
  plain        torch.nn.LSTM
  accelerated  the same after lstm_fast.torch.accelerate
  control      plain again, from weights one unit in the last place off
Training lets differences of rounding grow, whoever makes them; the control shows how much.
{threads} thread(s) each, {dtype}. Times: forward, backward, clipping, optimiser."""

HEADER = """
        loss, nats a digit           held-out digits told right  plain /
epoch     plain  accel.  control     plain  accel. control   accel."""


class Images(NamedTuple):
    """Digits, shuffled by the seed and cut."""

    pixels: Array  # [STEPS, N], row by row, from 0 to 1
    truth: Array  # [N]
    lengths: Array  # [N], SHORTEST..STEPS: where a cut digit ends


def load(seed: int) -> Images:
    """All 1,797 digits of scikit-learn; the first HELD_OUT are held out."""
    found = require("sklearn.datasets", NEEDS, extra="demos").load_digits()
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(found.target))
    lengths = draw.integers(SHORTEST, STEPS + 1, len(order))
    return Images(found.data[order].T / 16, found.target[order].astype(np.int64), lengths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lstm-fast demo digits",
        description="Train plain nn.LSTM and the accelerated one on handwritten digits, pixel by pixel: first on whole "
        "digits, then on digits cut to different lengths, as a PackedSequence. Needs lstm_fast[demos].",
    )
    add = parser.add_argument
    add("--epochs", type=positive_int, help="passes through the whole digits, default 16")
    add("--ragged-epochs", type=positive_int, help="passes through the cut digits, default 6")
    add("--hidden", type=positive_int, help="units of the LSTM, default 64")
    add("--batch", type=positive_int, help="digits in a batch, default 32")
    add("--threads", type=positive_int, default=1, help="of PyTorch and lstm_fast alike, default 1, as in bench")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--quick", action="store_true", help="a few seconds: a small model that learns less")
    add("--seed", type=int, default=0, help="of everything random; default 0")
    add("--plot", type=picture, metavar="F.png", help="draw losses, their differences and times (needs matplotlib)")
    return parser


def report(lesson: Lesson) -> str:
    """What a lesson ended with, as lines of text."""
    plain, ours, control = lesson.plain, lesson.accelerated, lesson.control
    lines = [
        f"  {'':<50}{'accelerated':>12}{'control':>10}",
        f"  {f'batches before its loss is {CLOSE:g} from the plain one':<50}{lesson.together(ours, CLOSE):>12}"
        f"{lesson.together(control, CLOSE):>10}   of {len(plain.losses)}",
        f"  {'largest difference of an epoch from the plain one':<50}{lesson.curve_difference(ours):>12.2g}"
        f"{lesson.curve_difference(control):>10.2g}   nats a digit",
        f"  held out: plain {plain.accuracies[-1]:.1%}, accelerated {ours.accuracies[-1]:.1%} told right,"
        f" control {control.accuracies[-1]:.1%}",
        f"  median batch: plain {1e3 * np.median(plain.seconds):.2f} ms, accelerated"
        f" {1e3 * np.median(ours.seconds):.2f} ms; plain / accelerated {lesson.ratio:.2f}",
        f"  calls of the accelerated copy: {sum(lesson.calls['native'].values())} by the kernels, all of them"
        if lesson.native_only
        else f"  NOT ALL NATIVE: calls of the accelerated copy: {lesson.calls}",
    ]
    return "\n".join(lines)


def failures(lesson: Lesson, majority: float) -> list[str]:
    """What a lesson should not have ended with; ``majority``: held-out share of the commonest digit."""
    found = []
    if not lesson.native_only:
        found.append("NOT ALL NATIVE: PyTorch computed some of the accelerated copy's calls")
    if lesson.together(lesson.accelerated, CLOSE) < min(ALIKE, len(lesson.plain.losses)):
        found.append(f"NOT THE SAME: the losses are apart within {ALIKE} batches, too early for rounding")
    if lesson.accelerated.accuracies[-1] <= majority:
        found.append("NOT LEARNED: naming the commonest digit is as good; more --epochs help")
    return found


def main(argv: list[str]) -> int:
    """Train side by side, on whole and on cut digits; 1 if a loss, an accuracy or a call is not what it should be."""
    options = _parser().parse_args(argv)
    torch = require("torch", NEEDS, extra="demos")
    images = load(options.seed)
    side = importlib.import_module(f"{__package__}.side_by_side")  # imports PyTorch, which may have been missing
    recipe = side.QUICK if options.quick else side.Recipe()
    wishes = {name: getattr(options, name) for name in ("epochs", "ragged_epochs", "hidden", "batch")}
    recipe = replace(recipe, **{name: value for name, value in wishes.items() if value is not None})
    dtype = getattr(torch, options.dtype)
    pixels, truth = torch.tensor(images.pixels[:, :, None], dtype=dtype), torch.from_numpy(images.truth)
    counts = np.bincount(images.truth[:HELD_OUT])
    learned = len(truth) - HELD_OUT
    print(
        INTRODUCTION.format(
            learned=learned,
            held_out=HELD_OUT,
            hidden=recipe.hidden,
            batch=recipe.batch,
            count=-(-learned // recipe.batch),
            threads=options.threads,
            dtype=options.dtype,
        )
    )
    lessons: dict[str, Lesson] = {}
    wrong = []
    with engine_threads(options.threads), torch.random.fork_rng():
        torch.manual_seed(options.seed)
        model = side.Reader(recipe.hidden).to(dtype)
        for name, epochs, lengths, text in (
            ("whole", recipe.epochs, None, f"Whole digits: T = {STEPS}"),
            (
                "ragged",
                recipe.ragged_epochs,
                torch.from_numpy(images.lengths),
                f"Cut digits: {SHORTEST} to {STEPS} pixels, {images.lengths.mean() / STEPS:.0%} of all, as a"
                " PackedSequence; all copies go on from what\nthe plain one has learned",
            ),
        ):
            print(f"\n{text}{HEADER}", flush=True)
            taught, held_out = (
                side.Digits(pixels[:, part], truth[part], None if lengths is None else lengths[part])
                for part in (slice(HELD_OUT, None), slice(HELD_OUT))
            )
            lesson = side.study(model, taught, held_out, recipe, epochs=epochs, seed=options.seed, title=name)
            lessons[name] = lesson
            print(report(lesson))
            wrong += failures(lesson, counts.max() / HELD_OUT)
            model = lesson.plain.model
    if options.plot:
        draw_digits(lessons, options.plot)
        print(f"\npicture: {options.plot}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0
