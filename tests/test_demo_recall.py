"""The recall demo: its sequences, gates that start open, the networks' gradients, and who learns."""

from __future__ import annotations

from pathlib import Path

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast.demos import recall
from lstm_fast.demos.parts import chrono_biases
from lstm_fast.demos.recall import CONTENDERS, SYMBOLS, Contender, ManyToOne, Result, sequences


def test_sequences_are_one_hot_and_only_the_first_step_tells() -> None:
    x, first = sequences(6, 400, np.random.default_rng(0), np.float32)
    assert x.shape == (6, 400, 2 * SYMBOLS)
    np.testing.assert_array_equal(np.sort(x, axis=-1)[..., -2:], np.broadcast_to([0, 1], (6, 400, 2)))
    tokens = x.argmax(axis=-1)
    np.testing.assert_array_equal(tokens[0], first)
    assert set(first) == set(range(SYMBOLS))
    assert set(tokens[1:].ravel()) == set(range(SYMBOLS, 2 * SYMBOLS))


@pytest.mark.parametrize("make", [lf.LSTM, lf.GRU])
def test_chrono_biases_keep_a_memory_for_as_long_as_asked(make: type[lf.LSTM] | type[lf.GRU]) -> None:
    steps, units = 300, 500
    layer = make(3, units, seed=0)
    weights = layer.parameters["weight_hh_l0"].copy()
    chrono_biases(layer, steps, np.random.default_rng(0))
    np.testing.assert_array_equal(layer.parameters["weight_hh_l0"], weights)
    assert not layer.parameters["bias_hh_l0"].any()
    blocks = layer.parameters["bias_ih_l0"].reshape(-1, units)
    kept = 1 + np.exp(blocks[1].astype(np.float64))  # steps until the share 1 / (1 + exp(-bias)) is down to 1 / e or so
    assert 2 <= kept.min() < 10
    assert 290 < kept.max() <= steps
    np.testing.assert_array_equal(blocks[0], -blocks[1] if make is lf.LSTM else 0)
    assert not blocks[2:].any()


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_gradients_by_finite_differences(contender: Contender) -> None:
    model = ManyToOne(contender, 5, 4, dtype=np.float64, seed=3)
    x, first = sequences(5, 3, np.random.default_rng(0), np.float64)
    step = model.gradients(x, first)
    scores = model.log_probabilities(x)
    assert step.loss == pytest.approx(-scores[np.arange(3), first].mean(), abs=1e-12)
    gradients = step.gradients.parameters
    assert gradients.keys() == model.parameters.keys()
    for name, parameter in model.parameters.items():
        expected = np.empty_like(parameter)
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            parameter[index] = kept + 1e-6
            above = model.gradients(x, first).loss
            parameter[index] = kept - 1e-6
            expected[index] = (above - model.gradients(x, first).loss) / 2e-6
            parameter[index] = kept
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-8, err_msg=name)


def test_quick_shows_who_remembers_and_repeats() -> None:
    runs = [recall.contest(recall.QUICK, seed=1) for _ in range(2)]
    first, second = ({name: [(r.losses, r.accuracy) for r in found] for name, found in run.items()} for run in runs)
    assert first == second
    accuracies = {name: found[-1].accuracy for name, found in runs[0].items()}
    assert accuracies["RNN"] < 3 / SYMBOLS  # of the three bits of a symbol it sometimes keeps one
    assert min(accuracies["GRU chrono"], accuracies["LSTM chrono"]) > 0.95
    assert recall.verdict(runs[0], recall.QUICK.distances)[1]


def test_verdict_judges_the_longest_distance_alone() -> None:
    results = {contender.name: [Result(accuracy=1.0), Result(accuracy=0.96)] for contender in CONTENDERS}
    line, expected = recall.verdict(results, (10, 50))
    assert not expected
    assert line.startswith("After 50 steps: RNN, GRU, LSTM, GRU chrono, LSTM chrono knew")
    assert "nobody did not" in line
    results["RNN"][-1].accuracy = 0.2
    line, expected = recall.verdict(results, (10, 50))
    assert expected
    assert "RNN did not" in line
    results["LSTM chrono"][-1].accuracy = 0.9
    assert not recall.verdict(results, (10, 50))[1]


def test_recall_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "recall.png"
    arguments = ["--quick", "--distances", "7", "3", "7", "--steps", "3", "--hidden", "5", "--plot", str(plot)]
    assert recall.main(arguments) == 0  # settings of one's own promise nothing
    printed = capsys.readouterr().out
    assert "3 steps    7 steps" in printed
    assert "5 units, 3 training steps" in printed
    for expected in ("chance", "After 7 steps", *(contender.name for contender in CONTENDERS)):
        assert expected in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_full_run_that_ends_otherwise_than_the_theory_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recall, "FULL", recall.Recipe(distances=(3,), steps=1, hidden=2))
    assert recall.main([]) == 1
    assert "NOT as expected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--distances", "2"], ["--steps", "0"], ["--hidden", "x"], ["--plot", "no/x.png"], ["--seed", "1.5"]],
)
def test_recall_refuses_wrong_arguments_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        recall.main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err
