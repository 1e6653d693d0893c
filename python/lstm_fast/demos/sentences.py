"""Sentences of Python's help topics, each with the group of topics that it comes from, in two parts.

How the set is made, the same way every time: the topics of each of :data:`GROUPS` are cut into paragraphs and list
items, these into sentences, and those that are prose of 3 to 60 words are kept, as words in lower case without stops.
A sentence that occurs more than once counts once (topics quote each other); one that occurs in two groups is left out.
Of each group a fifth, drawn at random by a fixed seed, is held out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .corpus import Tokens, Vocabulary, is_prose, topics, words

SHORTEST, LONGEST = 3, 60  # words
HELD_OUT = 0.2  # of each group
FEWEST = 50  # sentences of a group

# Group -> its topics. Names that a version of Python lacks are passed over.
GROUPS = {
    "special methods": "specialnames basic-customization customization attribute-access callable-types sequence-types"
    " numeric-types context-managers",
    "types of objects": "types objects specialattrs typesfunctions typesmethods typesmodules typesobjects id-classes",
    "compound statements": "compound async class else for function if try while with",
    "simple statements": "assert assignment augassign break continue del exprlists future global import nonlocal pass"
    " raise return",
    "expressions": "atom-identifiers atom-literals attribute-references await binary bitwise booleans calls comparisons"
    " conversions dict in lambda lists numbers operator-summary power shifting slicings subscriptions unary",
    "strings": "formatstrings string-methods strings",
    "containers": "typesmapping typesseq typesseq-mutable",
    "debugger": "debugger",
}

# A stop, maybe closing signs, then white space before what can start a sentence.
END = re.compile(r"""(?<=[.?!])["')*]*\s+(?=[A-Z"'*(])""")
PARAGRAPH = re.compile(r"\n\s*\n|\n\s*[*+-] ")


class Sentence(NamedTuple):
    """A sentence as printed, its words, and its group as an index of :data:`GROUPS`."""

    text: str
    words: tuple[str, ...]
    group: int


class Sentences(NamedTuple):
    """Two parts that share no sentence."""

    training: list[Sentence]
    held_out: list[Sentence]


class Batch(NamedTuple):
    """Sentences side by side: tokens [T, B], padded with zeros, of which the first ``lengths`` [B] count, or all."""

    tokens: Tokens
    lengths: Tokens | None


def plain_words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without stops."""
    return tuple(word for word in words(text) if len(word) > 1 or word.isalnum())


def cut(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The sentences of a topic that are prose of the right length, each with its words."""
    for paragraph in PARAGRAPH.split(text):
        joined = " ".join(re.sub(r"(?<=\w)-\n\s*", "-", paragraph).split())
        for sentence in END.split(joined):
            found = plain_words(sentence)
            if SHORTEST <= len(found) <= LONGEST and is_prose(sentence):
                yield sentence, found


def load() -> Sentences:
    """The sentences of both parts; ValueError if this Python's topics lack a group."""
    available = topics()
    printed: dict[tuple[str, ...], str] = {}
    groups: dict[tuple[str, ...], set[int]] = {}
    for group, names in enumerate(GROUPS.values()):
        for name in names.split():
            for text, found in cut(available.get(name, "")):
                printed.setdefault(found, text)
                groups.setdefault(found, set()).add(group)
    draw = np.random.default_rng(0)
    parts = Sentences([], [])
    for group, title in enumerate(GROUPS):
        members = [Sentence(printed[found], found, group) for found, where in groups.items() if where == {group}]
        if len(members) < FEWEST:
            raise ValueError(f"the topics of this Python hold {len(members)} sentences on {title}, {FEWEST} are needed")
        order = draw.permutation(len(members))
        first = round(HELD_OUT * len(members))
        parts.held_out.extend(members[k] for k in sorted(order[:first]))
        parts.training.extend(members[k] for k in sorted(order[first:]))
    return parts


def labels(sentences: Sequence[Sentence]) -> Tokens:
    """The groups [N]."""
    return np.array([sentence.group for sentence in sentences], np.int64)


def ragged(sentences: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Batch:
    """Words -> a batch; T is the length of the longest."""
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    tokens = np.zeros((int(lengths.max(initial=0)), len(sentences)), np.int64)
    for row, sentence in enumerate(sentences):
        tokens[: len(sentence), row] = vocabulary.encode(sentence)
    return Batch(tokens, lengths)
