"""The text demo and what the demos share: the language model's gradients, the optimiser, and that it learns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lstm_fast.demos import corpus, text, training
from lstm_fast.demos.adam import BLOCK, Adam
from lstm_fast.demos.corpus import UNKNOWN, Vocabulary
from lstm_fast.demos.language_model import LanguageModel
from lstm_fast.demos.parts import log_softmax, sum_by_token
from lstm_fast.demos.training import Recipe, streams


def tiny_model(layers: int = 2) -> LanguageModel:
    """7 tokens, embedding 3, layers of 4 units, float64."""
    return LanguageModel(7, 3, 4, layers, dtype=np.float64, seed=3)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_of_the_language_model_by_finite_differences(dropout: float, layers: int) -> None:
    model = tiny_model(layers)
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 7, (6, 2))
    state = (0.5 * draw.standard_normal((layers, 2, 4)), 0.5 * draw.standard_normal((layers, 2, 4)))

    def loss() -> float:
        return model.gradients(tokens, state, dropout, np.random.default_rng(1)).loss

    gradients = model.gradients(tokens, state, dropout, np.random.default_rng(1)).gradients.parameters
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
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-8, err_msg=name)


def test_dropout_between_the_layers_acts_in_training_alone_and_repeats() -> None:
    tokens = np.random.default_rng(0).integers(0, 7, (6, 2))

    def losses(between: float) -> tuple[list[float], float]:
        model = LanguageModel(7, 3, 4, 2, between=between, dtype=np.float64, seed=3)
        state = model.zero_state(2)
        return [model.gradients(tokens, state).loss for _ in range(3)], model.loss(tokens, state)[0]

    (without, calm), (thinned, still) = losses(0.0), losses(0.5)
    assert calm == still
    assert len(set(without)) == 1
    assert len(set(thinned)) == 3
    assert losses(0.5)[0] == thinned
    assert LanguageModel(7, 3, 4, 1, between=0.5).layer.dropout == 0  # and no warning


def test_training_loss_is_the_loss_of_inference() -> None:
    model = tiny_model()
    tokens = np.random.default_rng(0).integers(0, 7, (6, 2))
    step = model.gradients(tokens, model.zero_state(2))
    loss, state = model.loss(tokens, model.zero_state(2))
    assert step.loss == pytest.approx(loss, abs=1e-12)
    np.testing.assert_array_equal(step.state, state)


def test_held_out_loss_counts_every_token_once() -> None:
    model = tiny_model()
    tokens = np.random.default_rng(0).integers(0, 7, 31)  # one piece of 30 predictions, in chunks of 8
    whole, _ = model.loss(tokens[:, None], model.zero_state(1))
    assert model.held_out_loss(tokens, batch=1, chunk=8) == pytest.approx(whole, abs=1e-12)
    halves = [model.loss(tokens[s : s + 16, None], model.zero_state(1))[0] for s in (0, 15)]
    assert model.held_out_loss(tokens, batch=2, chunk=8) == pytest.approx(np.mean(halves), abs=1e-12)


def test_log_softmax_survives_large_logits() -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        scores = log_softmax(np.array([[1e4, 1e4 - 1, 0.0]], np.float32))
    np.testing.assert_allclose(scores[0, :2], [-0.3132617, -1.3132617], rtol=1e-6)
    assert np.isfinite(scores).all()


def test_sum_by_token_adds_repeated_rows() -> None:
    rows = np.arange(10.0).reshape(5, 2)
    expected = np.zeros((4, 2))
    tokens = np.array([3, 1, 3, 0, 3])
    np.add.at(expected, tokens, rows)
    np.testing.assert_array_equal(sum_by_token(rows, tokens, 4), expected)


def test_adam_follows_the_published_formula_across_blocks() -> None:
    draw = np.random.default_rng(0)
    p = draw.standard_normal(BLOCK + 3)
    parameters = {"p": p.copy()}
    adam = Adam(parameters)
    m = v = np.zeros_like(p)
    for t in range(1, 4):
        g = draw.standard_normal(p.shape)
        adam.step({"p": g}, 0.01)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(parameters["p"], p, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="C-contiguous"):
        Adam({"p": np.zeros((3, 4)).T})


def test_streams_read_on_where_they_stopped() -> None:
    chunks = streams(np.arange(101), 3, 8, np.random.default_rng(0))
    first, anew = next(chunks)
    second, again = next(chunks)
    assert (anew, again) == (True, False)
    assert first.shape == (9, 3)
    np.testing.assert_array_equal(first[-1], second[0])
    assert np.all(np.diff(np.vstack([first, second[1:]]), axis=0) % 101 == 1)
    with pytest.raises(ValueError, match="too short"):
        next(streams(np.arange(20), 3, 8, np.random.default_rng(0)))


def test_corpus_is_split_without_shared_paragraphs() -> None:
    found = corpus.load()
    assert 0.08 < len(found.held_out) / (len(found.training) + len(found.held_out)) < 0.2
    learned = {" ".join(p.split()) for p in found.training.split("\n\n")}
    assert not learned & {" ".join(p.split()) for p in found.held_out.split("\n\n") if p.split()}


def test_corpus_of_another_form_is_understood_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = sys.modules[corpus.SOURCE]
    lines = {str(n): [f"topic {n} line {k}, long enough to count" for k in range(100)] for n in range(20)}
    monkeypatch.setattr(topics, "topics", lines)
    assert corpus.load().training.startswith("topic 0 line 0")
    monkeypatch.setattr(topics, "topics", object())
    with pytest.raises(ValueError, match="--corpus FILE"):
        corpus.load()
    monkeypatch.delattr(topics, "topics")
    with pytest.raises(ValueError, match="--corpus FILE"):
        corpus.load()


def test_words_and_vocabulary() -> None:
    assert corpus.words("The built-\nin isn't X_1, 3.\n") == ["the", "built-in", "isn't", "x_1", ",", "."]
    assert corpus.words_of_prose("Some prose here.\n\nx = {1: [2], 3: (4,)} | {}\n") == ["some", "prose", "here", "."]
    vocabulary = Vocabulary(["a", "b", "a", "c", "a", "b"], limit=2)
    assert len(vocabulary) == 3
    numbers = vocabulary.encode(["a", "b", "c"])
    assert numbers.tolist() == [1, 2, UNKNOWN]
    assert vocabulary.decode(numbers[:2]) == ["a", "b"]


SMALL = Recipe(steps=60, hidden=32, embedding=16, layers=2, batch=16, chunk=16, rate=1e-2, dropout=0.1, between=0.1)


def small_model(vocabulary: Vocabulary, seed: int) -> LanguageModel:
    """For SMALL."""
    sizes = SMALL.embedding, SMALL.hidden, SMALL.layers
    return LanguageModel(len(vocabulary), *sizes, between=SMALL.between, seed=seed)


@pytest.fixture(scope="module")
def characters() -> tuple[Vocabulary, corpus.Tokens, corpus.Tokens]:
    """Vocabulary, training and held-out tokens of the real corpus."""
    found = corpus.load()
    vocabulary = Vocabulary(found.training)
    return vocabulary, vocabulary.encode(found.training), vocabulary.encode(found.held_out[:10_000])


def test_training_is_deterministic(characters: tuple[Vocabulary, corpus.Tokens, corpus.Tokens]) -> None:
    vocabulary, tokens, held_out = characters
    runs = []
    for _ in range(2):
        model = small_model(vocabulary, 5)
        history = training.train(model, tokens, held_out, SMALL, seconds=60, seed=5, title="", unit="character")
        written = model.generate(tokens[:20], 200, 1.0, np.random.default_rng(0))
        runs.append((history.training, history.held_out, written))
    assert runs[0] == runs[1]
    assert UNKNOWN not in runs[0][2]
    assert {type(token) for token in runs[0][2]} == {int}
    assert model.generate(tokens[:20], 20, 0.0, np.random.default_rng(0)) == model.generate(
        tokens[:20], 20, 0.0, np.random.default_rng(1)
    )


class SlowClock:
    """Stands for the module time: a tenth of a second passes with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.1
        return self.now


def test_training_keeps_its_time_and_can_be_repeated(
    characters: tuple[Vocabulary, corpus.Tokens, corpus.Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, tokens, held_out = characters

    def run(steps: int, seconds: float) -> training.History:
        model = small_model(vocabulary, 0)
        recipe = replace(SMALL, steps=steps)
        return training.train(model, tokens, held_out, recipe, seconds=seconds, seed=0, title="", unit="character")

    with monkeypatch.context() as patch:
        patch.setattr(training, "time", SlowClock())
        fewer = run(1000, 6.0)
        patch.setattr(training, "time", SlowClock())
        stopped = run(1000, 0.5)
    assert training.WARM_UP < fewer.steps == fewer.planned < 60
    assert fewer.seconds < 7
    assert run(fewer.steps, 1e9).training == fewer.training
    assert stopped.steps < 10 < stopped.planned
    assert stopped.held_out[-1][0] == stopped.training[-1][0]


def test_text_quick_beats_guessing_by_frequency() -> None:
    found = corpus.load()
    student = text.study(text.LEVELS["char"], found, text.LEVELS["char"].quick, seconds=60, seed=0)
    assert student.loss < student.guessing - 0.3
    assert student.guessing == pytest.approx(3.26, abs=0.2)  # nats a character of English by letter frequency
    written = text.continue_text(student, "The ", 300, 0.8, 0)
    assert len(written) == 304
    assert set(written) <= set(found.training)


def test_text_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "loss.png"
    arguments = [
        "--quick",
        "--steps",
        "40",
        "--hidden",
        "32",
        "--layers",
        "3",
        "--length",
        "50",
        "--prompt",
        "the object is",
        "--prompt",
        "?!",
    ]
    assert text.main([*arguments, "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "Target NOT reached" in printed
    assert "LSTM of 3 x 32 units" in printed
    assert "the object is ..." in printed
    assert "with its memory" in printed
    assert "nats a word" in printed
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert text.main(["--level", "char", "--hidden", "8", "--steps", "2"]) == 1  # a full run that misses says so


def test_memories_are_those_of_the_equations() -> None:
    model = LanguageModel(7, 3, 4, 2, between=0.5, dtype=np.float64, seed=3)
    tokens = np.random.default_rng(0).integers(0, 7, 9)
    seen = model.memories(tokens)
    before = np.vstack([np.zeros(4), seen.c[:-1]])
    np.testing.assert_allclose(seen.c, seen.f * before + seen.i * seen.g, rtol=0, atol=1e-14)
    np.testing.assert_allclose(seen.h, seen.o * np.tanh(seen.c), rtol=0, atol=1e-14)
    y, _ = model.layer(model.embedding[tokens])  # inference: nothing is dropped
    np.testing.assert_array_equal(seen.h, y)
    assert model.layer.dropout == 0.5


@pytest.mark.parametrize("level", ["char", "word"])
def test_text_draws_gates_over_a_sentence(level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "gates.png"
    sentence = "A $new line,\nand a st\N{LATIN SMALL LETTER A WITH RING ABOVE}r of 100 % \\frac."
    arguments = ["--quick", "--steps", "3", "--hidden", "8", "--level", level, "--length", "5"]
    assert text.main([*arguments, "--gates", str(picture), "--sentence", sentence]) == 0
    assert f"Gates over {sentence!r}: {picture}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_text_learns_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.txt"
    own.write_text("\n\n".join(f"Number {n} is followed by number {n + 1}." for n in range(1500)), "utf-8")
    assert text.main(["--corpus", str(own), "--level", "char", "--quick", "--steps", "5"]) == 0
    assert "arget" not in capsys.readouterr().out
    own.write_text("too short", "utf-8")
    with pytest.raises(ValueError, match="too few"):
        text.main(["--corpus", str(own)])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "0"],
        ["--layers", "0"],
        ["--minutes", "nan"],
        ["--temperature", "-1"],
        ["--corpus", "nowhere.txt"],
        ["--plot", "no/x.png"],
        ["--gates", "no/x.png"],
        ["--sentence", "without the picture"],
        ["--sentence", "x", "--gates", "x.png"],
        ["--sentence", "word", "--gates", "x.png", "--level", "word"],
    ],
)
def test_text_refuses_wrong_arguments_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        text.main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_demos_need_nothing_but_numpy() -> None:
    code = (
        "import sys, lstm_fast\n"
        "assert not [m for m in sys.modules if m.startswith('lstm_fast.demos')]\n"
        "from lstm_fast.demos import gradients, recall, stock, text, topics\n"
        "assert not {'torch', 'rich', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
