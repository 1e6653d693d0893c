"""The topics demo: how the sentences are made, the classifier's gradients, that it learns and compares honestly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lstm_fast.demos import bag_of_words, sentences, topics
from lstm_fast.demos.bag_of_words import BagOfWords, presence
from lstm_fast.demos.classifier import Classifier, Dropout
from lstm_fast.demos.corpus import SOURCE, UNKNOWN, Tokens, Vocabulary
from lstm_fast.demos.sentences import GROUPS, Batch, Sentences


@pytest.fixture(scope="module")
def parts() -> Sentences:
    return sentences.load()


@pytest.fixture(scope="module")
def vocabulary(parts: Sentences) -> Vocabulary:
    return Vocabulary(word for sentence in parts.training for word in sentence.words)


def test_parts_share_no_sentence_and_hold_every_group(parts: Sentences) -> None:
    found = [sentence.words for part in parts for sentence in part]
    assert len(set(found)) == len(found) > 1500
    assert all(3 <= len(words) <= 60 for words in found)
    counts = np.array([np.bincount(sentences.labels(part), minlength=len(GROUPS)) for part in parts])
    np.testing.assert_allclose(counts[1], sentences.HELD_OUT * counts.sum(axis=0), rtol=0, atol=0.5)
    assert counts.sum(axis=0).max() < 3 * counts.sum(axis=0).min()
    assert sentences.load() == parts


def test_a_topic_is_cut_into_sentences_of_prose() -> None:
    topic = (
        'The first sen-\ntence is here. "Second" is the name of\nthe other (this one).  Too short.\n\n'
        "   >>> x = {1: [2], 3: (4,)}; y = x[1][0]\n\n* an item, with three"
    )
    assert [words for _, words in sentences.cut(topic)] == [
        ("the", "first", "sen-tence", "is", "here"),
        ("second", "is", "the", "name", "of", "the", "other", "this", "one"),
        ("an", "item", "with", "three"),
    ]


def test_sentences_of_two_groups_are_left_out_and_a_missing_group_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbered(title: str, count: int) -> str:
        digits = str.maketrans("0123456789", "abcdefghij")
        return " ".join(f"Sentence {str(n).translate(digits)} is on {title} alone." for n in range(count))

    assert {name for names in GROUPS.values() for name in names.split()} >= {"types", "strings", "debugger"}
    made = {names.split()[0]: f"{numbered(title, 60)} All say this." for title, names in GROUPS.items()}
    monkeypatch.setattr(f"{SOURCE}.topics", made)
    found = sentences.load()
    assert len(found.training) + len(found.held_out) == 60 * len(GROUPS)
    assert ("all", "say", "this") not in {sentence.words for part in found for sentence in part}
    made["debugger"] = numbered("debugger", 10)
    with pytest.raises(ValueError, match="10 sentences on debugger"):
        sentences.load()


def test_ragged_batch_holds_the_words_and_their_number() -> None:
    vocabulary = Vocabulary(["a", "b", "a"])
    batch = sentences.ragged([("a", "b", "a"), ("b",), ("a", "new")], vocabulary)
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.tokens.T.tolist() == [[1, 2, 1], [2, 0, 0], [1, UNKNOWN, 0]]


def tiny() -> tuple[Classifier, Batch, Tokens]:
    """9 words, embedding 3, 2 x 4 units, 5 groups, float64; four sentences."""
    tokens = np.random.default_rng(0).integers(0, 9, (6, 4))
    batch = Batch(tokens, np.array([2, 6, 3, 1]))
    return Classifier(9, 3, 4, 5, dtype=np.float64, seed=3), batch, np.array([0, 4, 2, 4])


@pytest.mark.parametrize("dropout", [Dropout(), Dropout(0.3, 0.4, 0.5)])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_of_the_classifier_by_finite_differences(dropout: Dropout, padded: bool) -> None:
    model, batch, targets = tiny()
    if padded:
        batch = Batch(batch.tokens, None)

    def loss() -> float:
        return model.gradients(batch, targets, dropout, np.random.default_rng(1)).loss

    gradients = model.gradients(batch, targets, dropout, np.random.default_rng(1)).gradients.parameters
    assert gradients.keys() == model.parameters.keys()
    for name, parameter in model.parameters.items():
        expected = np.empty_like(parameter)
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            parameter[index] = kept + 1e-6
            above = loss()
            parameter[index] = kept - 1e-6
            expected[index] = (above - loss()) / 2e-6
            parameter[index] = kept
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-8, err_msg=name)


def test_training_loss_is_the_loss_of_inference() -> None:
    model, batch, targets = tiny()
    judgement = topics.judge(model.log_probabilities(batch), targets)
    assert model.gradients(batch, targets).loss == pytest.approx(judgement.loss, abs=1e-12)


def test_a_sentence_is_judged_alike_whatever_stands_beside_it_and_in_the_padding() -> None:
    model, batch, targets = tiny()
    assert batch.lengths is not None
    together = model.log_probabilities(batch)
    for row, length in enumerate(batch.lengths):
        alone = Batch(batch.tokens[:length, row : row + 1], batch.lengths[row : row + 1])
        np.testing.assert_allclose(model.log_probabilities(alone)[0], together[row], rtol=0, atol=1e-13)
    other = Batch(np.where(np.arange(6)[:, None] < batch.lengths, batch.tokens, 8), batch.lengths)
    np.testing.assert_array_equal(model.log_probabilities(other), together)
    for name, gradient in model.gradients(other, targets).gradients.parameters.items():
        np.testing.assert_array_equal(gradient, model.gradients(batch, targets).gradients.parameters[name])


def test_bag_of_words_ignores_the_order_and_learns_what_words_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(["the", "cat", "dog", "runs", "sleeps"])
    rows = presence([["the", "cat", "runs"], ["dog", "the", "sleeps"], ["the", "new", "cat", "cat"]], vocabulary)
    assert rows.tolist() == [[0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]]
    model = BagOfWords(rows, np.array([0, 1, 0]), 2, 1e-3)
    scores = model.log_probabilities(presence([["cat"], ["dog"], ["never", "seen"]], vocabulary))
    assert scores.argmax(axis=1)[:2].tolist() == [0, 1]
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-6)

    # The strength is chosen by sentences that were not trained on: one that forbids all weights loses.
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 60)
    rows = (draw.random((60, 6)) < 0.5).astype(np.float32)
    rows[:, 1] = truth
    monkeypatch.setattr(bag_of_words, "STEPS", 40)
    assert bag_of_words.tuned(rows, truth, 2, (1e3, 1e-3)).strength == 1e-3


def test_quick_beats_chance_and_the_largest_group_and_repeats(parts: Sentences, vocabulary: Vocabulary) -> None:
    runs = [topics.study(parts, vocabulary, topics.QUICK, seed=1) for _ in range(2)]
    first, second = ([(e.training, e.held_out.loss, e.held_out.accuracy) for e in run.epochs] for run in runs)
    assert first == second
    for name, parameter in runs[0].model.parameters.items():
        np.testing.assert_array_equal(parameter, runs[1].model.parameters[name], err_msg=name)
    targets = sentences.labels(parts.held_out)
    majority = np.bincount(targets).max() / len(targets)
    assert 1 / len(GROUPS) < majority < 0.25
    assert first[-1][2] > 0.6 > 2 * majority
    assert first[-1][1] < 0.6 * np.log(len(GROUPS))
    assert runs[0].probabilities(("the", "string")).sum() == pytest.approx(1, abs=1e-5)


def test_verdict_needs_enough_sentences() -> None:
    truth = np.zeros(100, np.int64)
    good, better = truth.copy(), truth.copy()
    good[:20] = 1
    better[:2] = 1
    assert topics.verdict(better, good, truth).startswith("The LSTM wins: the LSTM alone is right on 18")
    assert topics.verdict(good, better, truth).startswith("The bag of words wins")
    assert topics.verdict(better, truth, truth).startswith("Undecided")
    assert topics.verdict(truth, truth, truth).startswith("Undecided")


def test_cost_counts_the_words_and_times_both(parts: Sentences, vocabulary: Vocabulary) -> None:
    epoch = list(topics.batches(parts, vocabulary, 32, np.random.default_rng(0)))
    assert sum(len(truth) for _, truth in epoch) == len(parts.training)
    cost = topics.compare_cost(Classifier(len(vocabulary), 16, 16, len(GROUPS)), epoch[:4])
    words = sum(int(batch.lengths.sum()) for batch, _ in epoch[:4] if batch.lengths is not None)
    assert cost.valid == words / sum(batch.tokens.size for batch, _ in epoch[:4])
    assert 0 < cost.valid < 1
    assert cost.ragged > 0 < cost.padded


def test_topics_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "topics.png"
    own = "Return a copy of the string, with the zyx."
    assert topics.main(["--quick", "--epochs", "3", "--hidden", "16", "--sentence", own, "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    for expected in ("chance", "always the largest group", "bag of words", "padded / ragged", "Some held-out", own):
        assert expected in printed
    assert "(never learned: zyx)" in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [["--epochs", "0"], ["--hidden", "x"], ["--sentence", "?!"], ["--plot", "no/x.png"], ["--seed", "1.5"]],
)
def test_topics_refuses_wrong_arguments_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        topics.main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err
