"""``lstm-fast demo topics``: from which part of Python's documentation does a sentence come? Ragged batches."""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import clip_grad_norm, get_num_threads
from .adam import Adam
from .arguments import picture, positive_int
from .bag_of_words import STRENGTHS, BagOfWords, presence, tuned
from .chart import draw_topics
from .classifier import Classifier, Dropout
from .corpus import UNKNOWN, Tokens, Vocabulary
from .progress import Progress
from .sentences import GROUPS, Batch, Sentences, labels, load, plain_words, ragged
from .training import schedule

Array = NDArray[Any]

EXAMPLES = 6
ROUNDS = 3  # of the timing, of which the fastest counts for each batch


DROPOUT = Dropout(words=0.3, embedding=0.4, features=0.6)


@dataclass(frozen=True)
class Recipe:
    """Sizes and rates of a run; chosen by cross-validation within the training part."""

    epochs: int = 12
    hidden: int = 64  # units of each direction
    embedding: int = 64
    batch: int = 32
    rate: float = 1e-2  # Adam's highest learning rate
    dropout: Dropout = DROPOUT
    max_norm: float = 1.0  # the gradient of all parameters together is clipped to this
    strengths: tuple[float, ...] = STRENGTHS  # of the bag of words' penalty, to choose from


FULL = Recipe()
QUICK = Recipe(epochs=5, hidden=32, embedding=32, rate=2e-2, dropout=Dropout(0.1, 0.2, 0.3), strengths=(3e-3,))


class Judgement(NamedTuple):
    """A classifier on held-out sentences."""

    guesses: Tokens  # [N]
    accuracy: float
    loss: float  # nats a sentence


class Epoch(NamedTuple):
    """What an epoch of the training ended with."""

    training: float  # mean loss with dropout, nats a sentence
    held_out: Judgement


class Student(NamedTuple):
    """A trained classifier and how it got there."""

    model: Classifier
    vocabulary: Vocabulary
    epochs: list[Epoch]
    seconds: float  # of the training alone

    def probabilities(self, words: Sequence[str]) -> Array:
        """Of each group, [K], for a sentence."""
        p: Array = np.exp(self.model.log_probabilities(ragged([words], self.vocabulary))[0])
        return p


def judge(scores: Array, targets: Tokens) -> Judgement:
    """From log-probabilities [N, K] and the truth [N]."""
    guesses = scores.argmax(axis=1)
    loss = -float(scores[np.arange(len(targets)), targets].mean(dtype=np.float64))
    return Judgement(guesses, float(np.mean(guesses == targets)), loss)


def batches(
    parts: Sentences, vocabulary: Vocabulary, size: int, draw: np.random.Generator
) -> Iterator[tuple[Batch, Tokens]]:
    """One epoch: all training sentences in random order, ``size`` at a time, with their groups."""
    order = draw.permutation(len(parts.training))
    for begin in range(0, len(order), size):
        chosen = [parts.training[k] for k in order[begin : begin + size]]
        yield ragged([sentence.words for sentence in chosen], vocabulary), labels(chosen)


def study(parts: Sentences, vocabulary: Vocabulary, recipe: Recipe, *, seed: int) -> Student:
    """Train a fresh classifier for the recipe's epochs; the held-out part is judged after each and decides nothing."""
    model = Classifier(len(vocabulary), recipe.embedding, recipe.hidden, len(GROUPS), seed=seed)
    held_out, targets = ragged([s.words for s in parts.held_out], vocabulary), labels(parts.held_out)
    print(
        f"Bidirectional LSTM of 2 x {recipe.hidden} units, {model.size:,} weights in all; {recipe.epochs} epochs in"
        f" batches of {recipe.batch} sentences",
        flush=True,
    )
    draw = np.random.default_rng([seed, 2])  # another stream than the model's
    adam = Adam(model.parameters)
    steps = recipe.epochs * -(-len(parts.training) // recipe.batch)
    student = Student(model, vocabulary, [], 0.0)
    with Progress("sentences", steps) as bar:
        for epoch in range(recipe.epochs):
            begin, total = time.perf_counter(), 0.0
            for batch, truth in batches(parts, vocabulary, recipe.batch, draw):
                step = model.gradients(batch, truth, recipe.dropout, draw)
                clip_grad_norm(step.gradients, recipe.max_norm)
                adam.step(step.gradients.parameters, recipe.rate * schedule(adam.steps, steps))
                total += step.loss * len(truth)
                bar.move(adam.steps, f"loss {step.loss:.3f}")
            student = student._replace(seconds=student.seconds + time.perf_counter() - begin)
            judgement = judge(model.log_probabilities(held_out), targets)
            student.epochs.append(Epoch(total / len(parts.training), judgement))
            bar.note(
                f"  epoch {epoch + 1:>3}  training loss {student.epochs[-1].training:.3f}"
                f"  held-out loss {judgement.loss:.3f}  right {judgement.accuracy:6.1%}  {student.seconds:5.1f} s"
            )
    return student


class Cost(NamedTuple):
    """Seconds of one epoch's gradients on ragged batches, and on the same batches with the padding computed too."""

    ragged: float
    padded: float
    valid: float  # share of the padded batches' steps that are words


def compare_cost(model: Classifier, epoch: Sequence[tuple[Batch, Tokens]]) -> Cost:
    """Time both on every batch in turn; the weights stay as they are, so that both do the same."""
    fastest = np.full((2, len(epoch)), np.inf)
    for _ in range(ROUNDS):
        for k, (batch, truth) in enumerate(epoch):
            for which, form in enumerate((batch, Batch(batch.tokens, None))):
                begin = time.perf_counter()
                model.gradients(form, truth)
                fastest[which, k] = min(fastest[which, k], time.perf_counter() - begin)
    words = sum(int(np.sum(batch.lengths)) for batch, _ in epoch if batch.lengths is not None)
    seconds = fastest.sum(axis=1)
    return Cost(float(seconds[0]), float(seconds[1]), words / sum(batch.tokens.size for batch, _ in epoch))


def verdict(ours: Tokens, theirs: Tokens, targets: Tokens) -> str:
    """Which of the two classifiers is better on the same sentences, if these are enough to tell (McNemar's test)."""
    only_ours = int(np.sum((ours == targets) & (theirs != targets)))
    only_theirs = int(np.sum((ours != targets) & (theirs == targets)))
    counts = f"the LSTM alone is right on {only_ours} sentences, the bag of words alone on {only_theirs}"
    if abs(only_ours - only_theirs) <= 1.96 * (only_ours + only_theirs) ** 0.5:
        return f"Undecided: {counts}; so small a difference can be chance"
    return f"{'The LSTM' if only_ours > only_theirs else 'The bag of words'} wins: {counts}"


def opinion(student: Student, words: Sequence[str]) -> str:
    """The three likeliest groups of a sentence with their probabilities."""
    p, names = student.probabilities(words), list(GROUPS)
    shown = ", ".join(f"{names[k]} {p[k]:.0%}" for k in np.argsort(-p, kind="stable")[:3])
    strangers = [word for word in words if student.vocabulary.encode([word])[0] == UNKNOWN]
    return shown + (f"\n  (never learned: {', '.join(strangers)})" if strangers else "")


def _quote(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  | ", subsequent_indent="  | ")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lstm-fast demo topics",
        description="Tell from which group of Python's help topics a sentence comes. The same seed gives the same "
        "bits, with the same NumPy on the same machine.",
    )
    add = parser.add_argument
    add("--epochs", type=positive_int, help=f"passes through the training sentences; default {FULL.epochs}")
    add("--hidden", type=positive_int, help=f"units of the LSTM in each direction; default {FULL.hidden}")
    add("--quick", action="store_true", help="a few seconds: a small model that learns less")
    add("--seed", type=int, default=0, help="of everything random but the split; default 0")
    add("--sentence", action="append", default=[], metavar="TEXT", help="your own sentence to be judged; repeatable")
    add("--plot", type=picture, metavar="F.png", help="draw losses, accuracies and times (needs matplotlib)")
    return parser


def main(argv: list[str]) -> int:
    """Train both classifiers, compare, judge sentences; 1 if the LSTM does no better than naming the largest group."""
    parser = _parser()
    options = parser.parse_args(argv)
    for sentence in options.sentence:
        if not plain_words(sentence):
            parser.error(f"argument --sentence: {sentence!r} holds no word")
    recipe = QUICK if options.quick else FULL
    wishes = {"epochs": options.epochs, "hidden": options.hidden}
    recipe = replace(recipe, **{key: value for key, value in wishes.items() if value is not None})
    parts = load()
    truth, targets = labels(parts.training), labels(parts.held_out)
    vocabulary = Vocabulary(word for sentence in parts.training for word in sentence.words)
    print(f"{'sentences of the help topics on':<38}{'to learn from':>15}{'held out':>10}")
    for group, name in enumerate(GROUPS):
        print(f"  {name:<36}{np.sum(truth == group):>15}{np.sum(targets == group):>10}")
    print(f"  {'together':<36}{len(truth):>15,}{len(targets):>10}\n{len(vocabulary) - 1:,} different words\n")

    rows, held_out = (presence([s.words for s in part], vocabulary) for part in parts)
    bag: BagOfWords = tuned(rows, truth, len(GROUPS), recipe.strengths)
    theirs = judge(bag.log_probabilities(held_out), targets)
    student = study(parts, vocabulary, recipe, seed=options.seed)
    ours = student.epochs[-1].held_out
    majority = float(np.mean(targets == np.bincount(truth).argmax()))
    print(f"\nTrained in {student.seconds:.1f} s on {get_num_threads()} thread(s)")
    print(f"\n{'Of the ' + str(len(targets)) + ' held-out sentences':<44}{'right':>7}{'nats':>8}")
    print(f"  {'chance':<42}{1 / len(GROUPS):>7.1%}{np.log(len(GROUPS)):>8.3f}")
    print(f"  {'always the largest group':<42}{majority:>7.1%}")
    print(f"  {f'bag of words (penalty {bag.strength:g})':<42}{theirs.accuracy:>7.1%}{theirs.loss:>8.3f}")
    print(f"  {'LSTM':<42}{ours.accuracy:>7.1%}{ours.loss:>8.3f}")
    error = (ours.accuracy * (1 - ours.accuracy) / len(targets)) ** 0.5
    print(f"  (standard error of a figure of the LSTM's size: {100 * error:.1f} points)")
    print(verdict(ours.guesses, theirs.guesses, targets))

    epoch = list(batches(parts, vocabulary, recipe.batch, np.random.default_rng(options.seed)))
    cost = compare_cost(student.model, epoch)
    print(
        f"\nThe gradients of one epoch, {len(epoch)} batches, {get_num_threads()} thread(s), float32:\n"
        f"  ragged, with lengths     {cost.ragged:7.3f} s, {1e3 * cost.ragged / len(epoch):6.2f} ms a batch\n"
        f"  padded to the longest    {cost.padded:7.3f} s, {1e3 * cost.padded / len(epoch):6.2f} ms a batch\n"
        f"  padded / ragged          {cost.padded / cost.ragged:7.2f}; {cost.valid:.0%} of the padded steps are words"
    )

    names = list(GROUPS)
    print("\nSome held-out sentences, and where the LSTM thinks they come from:")
    for k in np.sort(np.random.default_rng(options.seed).permutation(len(targets))[:EXAMPLES]):
        sentence = parts.held_out[k]
        mark = "right" if ours.guesses[k] == sentence.group else f"WRONG, it is {names[sentence.group]}"
        print(f"\n{_quote(sentence.text)}\n  {mark}: {opinion(student, sentence.words)}")
    for text in options.sentence:
        print(f"\nYour sentence\n{_quote(text)}\n  {opinion(student, plain_words(text))}")
    if options.plot:
        draw_topics(student.epochs, ours, theirs, targets, cost, names, options.plot)
        print(f"\npicture: {options.plot}")
    if ours.accuracy <= majority:
        print("NOT LEARNED: naming the largest group is as good; more --epochs help")
        return 1
    return 0
