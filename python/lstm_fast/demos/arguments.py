"""Types for the demos' arguments: wrong ones are refused before minutes of training, not after."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..bench.packages import installed


def positive_int(text: str) -> int:
    """An integer of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of 1 or more, got {text}")
    return number


def positive_float(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not (0 < number < math.inf):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def not_negative(text: str) -> float:
    """A finite number of 0 or more."""
    number = float(text)
    if not (0 <= number < math.inf):
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {text}")
    return number


def picture(text: str) -> Path:
    """Where to write a picture: the directory must exist, and matplotlib must be installed."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    if not installed("matplotlib"):
        raise argparse.ArgumentTypeError("matplotlib is not installed: pip install 'lstm_fast[bench]'")
    return path


def text_file(text: str) -> Path:
    """A file that exists."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path
