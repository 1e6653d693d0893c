"""``lstm-fast demo text``: a language model learns Python's own documentation, by characters and by words."""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import corpus
from .arguments import not_negative, picture, positive_float, positive_int, text_file
from .chart import Curve, draw_text
from .corpus import UNKNOWN, Corpus, Vocabulary, unigram_loss
from .language_model import LanguageModel
from .memory_chart import draw_gates
from .training import History, Recipe, train

TARGET = 2.0  # held-out nats a character
WORDS = 2000  # vocabulary of the word model, of about 3100; the others occur once, too seldom to be learned
START = "The object "
SENTENCE = "The object returned by the function is a new list of strings, which can be changed."  # for --gates
PROMPTS = ("the object is", "if no exception is", "the with", "called to implement the built-in")


class Level(NamedTuple):
    """What a token is, and how its model is trained."""

    unit: str
    split: Callable[[str], Sequence[str]]
    limit: int | None  # of the vocabulary
    recipe: Recipe
    quick: Recipe
    share: float  # of the time, when both levels run


LEVELS = {
    "char": Level(
        "character",
        corpus.characters,
        None,
        # As good as one layer of 256 units in as much time, or better: 1.258 nats in 112 s of one core against 1.269 in
        # 111 s (2000 steps). Dropout between the layers made it worse in this time: 1.284 with between=0.2 (104 s).
        Recipe(steps=1370, hidden=192, embedding=64, layers=2, rate=8e-3, dropout=0.1),
        Recipe(steps=120, hidden=96, embedding=32, chunk=32, rate=1e-2),
        0.7,
    ),
    "word": Level(
        "word",
        corpus.words_of_prose,
        WORDS,
        Recipe(steps=500, hidden=256, embedding=128, chunk=32, rate=8e-3, dropout=0.5),
        Recipe(steps=100, hidden=96, embedding=64, chunk=16, rate=1.5e-2),
        1.0,  # of what is left
    ),
}


class Student(NamedTuple):
    """A trained model with what is needed to talk to it and to judge it."""

    model: LanguageModel
    vocabulary: Vocabulary
    history: History
    guessing: float  # held-out nats a token of the unigram model

    @property
    def loss(self) -> float:
        """Held-out nats a token after the training."""
        return self.history.held_out[-1][1]


def study(level: Level, text: Corpus, recipe: Recipe, *, seconds: float, seed: int) -> Student:
    """Train a fresh model on one level of ``text``, for at most about ``seconds``."""
    tokens = level.split(text.training)
    vocabulary = Vocabulary(tokens, level.limit)
    training, held_out = vocabulary.encode(tokens), vocabulary.encode(level.split(text.held_out))
    guessing = unigram_loss(training, held_out, len(vocabulary))
    sizes = recipe.embedding, recipe.hidden, recipe.layers
    model = LanguageModel(len(vocabulary), *sizes, between=recipe.between, seed=seed)
    unit = level.unit
    print(
        f"{len(training):,} {unit}s to learn from, {len(held_out):,} held out; {len(vocabulary):,} different tokens\n"
        f"LSTM of {recipe.layers} x {recipe.hidden} units, {model.size:,} weights in all; {recipe.steps} steps of"
        f" {recipe.batch} streams x {recipe.chunk} {unit}s\n"
        f"Guessing by how often each {unit} occurs costs {guessing:.3f} nats a {unit}",
        flush=True,
    )
    title = f"{unit}s"
    history = train(model, training, held_out, recipe, seconds=seconds, seed=seed, title=title, unit=unit)
    print(
        f"{history.training[-1][0]:,} {unit}s in {history.seconds:.1f} s; {history.speed:,.0f} a second while learning"
    )
    if history.steps < history.planned:
        print(f"The time was over after {history.steps} of {history.planned} steps")
    elif history.steps < recipe.steps:
        print(f"The time allowed {history.steps} steps; with --steps {history.steps} this run repeats bit by bit")
    return Student(model, vocabulary, history, guessing)


def continue_text(student: Student, start: str, length: int, temperature: float, seed: int) -> str:
    """``start`` and ``length`` characters that the model puts after it."""
    numbers = student.vocabulary.encode(corpus.characters(start or "\n"))
    more = student.model.generate(numbers, length, temperature, np.random.default_rng(seed))
    return start + "".join(student.vocabulary.decode(more))


def completions(student: Student, prompt: str) -> str:
    """The five likeliest next words, after the whole prompt and after its last word alone, as lines of text."""
    words = corpus.words(prompt)
    if not words:
        return f"  {prompt!r} holds no word"
    numbers = student.vocabulary.encode(words)
    remembering, forgetful = (student.model.next_tokens(part, 5) for part in (numbers, numbers[-1:]))
    lines = [f"  {prompt} ...", f"      {'with its memory':<30}after {words[-1]!r} alone"]
    for pair in zip(remembering, forgetful, strict=True):
        cells = [f"{student.vocabulary.names[token]:<16}{p:>6.1%}" for token, p in pair]
        lines.append(f"      {cells[0]:<30}{cells[1]}")
    strangers = [word for word, number in zip(words, numbers, strict=True) if number == UNKNOWN]
    if strangers:
        lines.append(f"      (never learned: {', '.join(strangers)})")
    return "\n".join(lines)


def tokens_of(sentence: str, level: Level) -> Sequence[str]:
    """The tokens of a sentence of the user's, who may call prose what the corpus would leave out."""
    return corpus.words(sentence) if level.split is corpus.words_of_prose else level.split(sentence)


def draw_reading(student: Student, level: Level, sentence: str, path: Path) -> None:
    """Draw what the gates and both memories of the last layer do while the model reads a sentence."""
    numbers = student.vocabulary.encode(tokens_of(sentence, level))
    scores, _ = student.model.log_probabilities(numbers[:-1, None], student.model.zero_state(1))
    surprise = -scores[np.arange(len(numbers) - 1), 0, numbers[1:]]
    draw_gates(student.model.memories(numbers), student.vocabulary.decode(numbers), surprise, level.unit, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lstm-fast demo text",
        description="Train a language model on the documentation that comes with Python, then let it write. "
        "The same seed and number of steps give the same bits, with the same NumPy on the same machine.",
    )
    add = parser.add_argument
    add("--level", choices=(*LEVELS, "both"), default="both", help="what a token is; default both, one after the other")
    add("--minutes", type=positive_float, default=4.5, help="at most so long, fewer steps if need be; default 4.5")
    add("--steps", type=positive_int, help="training steps of each level")
    add("--layers", type=positive_int, help="LSTMs on top of each other; default 2 by characters, 1 by words")
    add("--hidden", type=positive_int, help="units of each layer; default 192 by characters, 256 by words")
    add("--quick", action="store_true", help="a few seconds: a small model that learns a little")
    add("--seed", type=int, default=0, help="of everything random; default 0")
    add("--prompt", action="append", metavar="TEXT", help="your own start to be continued; repeatable")
    add("--length", type=positive_int, default=600, help="characters to write; default 600")
    add("--temperature", type=not_negative, default=0.6, help="0: always the likeliest; 1: as learned; default 0.6")
    add("--corpus", type=text_file, metavar="FILE", help="learn from your own text instead")
    add("--plot", type=picture, metavar="F.png", help="draw the losses (needs matplotlib)")
    add("--gates", type=picture, metavar="F.png", help="draw gates and memories over a sentence, of the first level")
    add("--sentence", metavar="TEXT", help="your own sentence for --gates")
    return parser


def _verdict(loss: float, options: argparse.Namespace) -> bool:
    """Print how the held-out loss stands to the target; False if a full run missed it."""
    if options.corpus:
        return True
    if loss <= TARGET:
        print(f"Target reached: {loss:.3f} <= {TARGET} nats a character")
        return True
    reason = "as expected of --quick; leave it out to get there" if options.quick else "more --steps or --minutes help"
    print(f"Target NOT reached: {loss:.3f} > {TARGET} nats a character ({reason})")
    return bool(options.quick)


def main(argv: list[str]) -> int:
    """Train, judge, write; 1 if a full run on Python's documentation misses the target."""
    parser = _parser()
    options = parser.parse_args(argv)
    chosen = LEVELS if options.level == "both" else {options.level: LEVELS[options.level]}
    sentence = SENTENCE if options.sentence is None else options.sentence
    if options.sentence is not None and not options.gates:
        parser.error("argument --sentence: expected --gates beside it")
    if len(tokens_of(sentence, next(iter(chosen.values())))) < 2:
        parser.error(
            f"argument --sentence: expected 2 or more characters, or words with --level word, got {sentence!r}"
        )
    begin = time.perf_counter()
    text = corpus.load(options.corpus)
    print(f"Text: {text.source}, {len(text.training):,} characters to learn from, {len(text.held_out):,} held out")
    reached = True
    curves: list[Curve] = []
    for name, level in chosen.items():
        title = f"{level.unit.capitalize()} by {level.unit}"
        print(f"\n{title}\n{'=' * len(title)}")
        recipe = level.quick if options.quick else level.recipe
        wishes = {"steps": options.steps, "layers": options.layers, "hidden": options.hidden}
        recipe = replace(recipe, **{key: value for key, value in wishes.items() if value is not None})
        left = 60 * options.minutes - (time.perf_counter() - begin)
        share = level.share if len(chosen) > 1 else 1.0
        student = study(level, text, recipe, seconds=max(left * share, 0.0), seed=options.seed)
        print(f"Held-out loss {student.loss:.3f} nats a {level.unit}, a choice among {np.exp(student.loss):.1f}")
        if options.gates and not curves:
            draw_reading(student, level, sentence, options.gates)
            print(f"Gates over {sentence!r}: {options.gates}")
        curves.append(Curve(title, level.unit, student.history, student.guessing, TARGET if name == "char" else None))
        if name == "char":
            reached = _verdict(student.loss, options)
            start = options.prompt[0] if options.prompt else START
            written = continue_text(student, start, options.length, options.temperature, options.seed)
            print(f"\nIt writes, character by character (temperature {options.temperature:g}):\n")
            print(textwrap.indent(written, "  | ", lambda line: True))
        else:
            print("\nWhat it expects next, and what it would without the words before the last:\n")
            print("\n\n".join(completions(student, prompt) for prompt in options.prompt or PROMPTS))
    if options.plot:
        draw_text(curves, options.plot)
        print(f"\npicture: {options.plot}")
    return 0 if reached else 1
