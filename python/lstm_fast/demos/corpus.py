"""The text to learn from: real English that comes with Python, in a training and a held-out part, as token numbers."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]

HELD_OUT = 0.1  # share of the text; the last topics in alphabetical order
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"  # the typographic one, common in the topics
UNKNOWN = 0  # the token of whatever the vocabulary lacks
SOURCE = "pydoc_data.topics"


class Corpus(NamedTuple):
    """Two texts that share no paragraph, and where they come from."""

    training: str
    held_out: str
    source: str


def topics() -> dict[str, str]:
    """Python's help topics, name -> text; ValueError when this Python has none or keeps them in an unknown form."""
    try:
        content: Any = importlib.import_module(SOURCE).topics
    except (ImportError, AttributeError) as error:
        raise ValueError(f"this Python comes without {SOURCE} ({error})") from None
    # A dict of strings in every Python so far; a sequence of lines costs nothing to understand too.
    pairs: Iterable[tuple[Any, Any]] = content.items() if isinstance(content, Mapping) else ()
    found = {str(name): text if isinstance(text, str) else "\n".join(text) for name, text in pairs}
    if not found:
        raise ValueError(f"{SOURCE} is a {type(content).__name__} here, where a mapping was expected")
    return found


def _without_repetitions(documents: Iterable[str]) -> list[str]:
    """Every paragraph once, where it comes first: topics quote each other, and a quoted test would be no test."""
    seen: set[str] = set()
    kept = []
    for document in documents:
        fresh = []
        for paragraph in re.split(r"\n\s*\n", document.strip("\n")):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                fresh.append(paragraph)
        if fresh:
            kept.append("\n\n".join(fresh) + "\n\n\n")
    return kept


def load(path: Path | None = None) -> Corpus:
    """The corpus from Python's help topics, or from a UTF-8 text file, whose paragraphs then stand for topics."""
    if path is None:
        try:
            documents = [text for _, text in sorted(topics().items())]
        except ValueError as error:
            raise ValueError(f"{error}; use --corpus FILE with a text of your own") from None
    else:
        documents = re.split(r"\n\s*\n", path.read_text("utf-8"))
    documents = _without_repetitions(documents)
    wanted = HELD_OUT * sum(map(len, documents))
    first, held_out = len(documents), 0
    while first > 1 and held_out < wanted:
        first -= 1
        held_out += len(documents[first])
    corpus = Corpus("".join(documents[:first]), "".join(documents[first:]), str(path or SOURCE))
    if min(len(corpus.training), 8 * len(corpus.held_out)) < 20_000:
        raise ValueError(f"{corpus.source}: {len(corpus.training)} characters are too few to learn from")
    return corpus


def characters(text: str) -> list[str]:
    """The text's characters."""
    return list(text)


def words(text: str) -> list[str]:
    """The words and stops of a text, in lower case; words broken at line ends are mended."""
    mended = re.sub(r"(?<=\w)-\n\s*", "-", text.lower().replace(APOSTROPHE, "'"))
    return re.findall(r"[^\W\d]\w*(?:['-][^\W\d]\w*)*|[.,;:?]", mended)


def is_prose(text: str) -> bool:
    """Whether a paragraph or sentence is prose; code, grammar and tables are full of signs."""
    plain = sum(c.isalpha() or c.isspace() or c in ".,'-_" + APOSTROPHE for c in text)
    return plain >= 0.9 * len(text)  # keeps prose with its inline quotes and parentheses


def words_of_prose(text: str) -> list[str]:
    """The words and stops of a text's prose; paragraphs of code, grammar and tables are left out."""
    return [word for paragraph in re.split(r"\n\s*\n", text) if is_prose(paragraph) for word in words(paragraph)]


class Vocabulary:
    """Tokens as the numbers 0 .. size - 1; number 0 stands for everything unknown."""

    def __init__(self, tokens: Iterable[str], limit: int | None = None) -> None:
        """Take the ``limit`` most frequent of ``tokens`` (all when None); ties go to the token seen first."""
        self.names = ["\N{REPLACEMENT CHARACTER}"] + [name for name, _ in Counter(tokens).most_common(limit)]
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, tokens: Iterable[str]) -> Tokens:
        """Token names -> numbers [N]."""
        return np.array([self._numbers.get(name, UNKNOWN) for name in tokens], np.int64)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Numbers -> token names."""
        return [self.names[number] for number in numbers]


def unigram_loss(training: Tokens, held_out: Tokens, size: int) -> float:
    """Nats a token of ``held_out[1:]`` for a guesser who knows how often each of ``size`` tokens occurs (plus one)."""
    counts = np.bincount(training, minlength=size) + 1.0
    return float(-np.mean(np.log(counts / counts.sum())[held_out[1:]]))
