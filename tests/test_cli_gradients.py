"""The command ``lstm-fast gradients``: what it prints and draws, and that a wrong gradient does not pass."""

from __future__ import annotations

import re

import lstm_fast as lf
import pytest
from lstm_fast import cli
from lstm_fast.demos import gradients


def test_gradients_prints_checks_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "flow.png"
    assert cli.main(["gradients", "--steps", "30", "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    for line in (r"w\^50, w = 2 +1\.1259e\+15", r"w\^50, w = 0\.5 +8\.88178e-16", r"sigmoid RNN.*largest \d\.\d+e-\d+"):
        error = re.search(rf"{line} +(\d\.\de[+-]\d+) +ok", shown)
        assert error, line
        assert float(error[1]) < 1e-10
    assert re.search(r"^ +20( +[\d.e-]+){6} *$", shown, re.MULTILINE)
    assert "state_(T-k)" in shown
    assert not re.search(r"^ +50 ", shown, re.MULTILINE)


def test_gates_that_are_open_keep_the_gradient():
    """After 100 steps those of PyTorch's start have lost it."""
    found = gradients.flows(100, seed=0)
    left = {name: flow.state[-1] for name, flow in found.items()}
    assert max(left["RNN"], left["GRU"], left["LSTM"]) < 1e-12
    assert left["LSTM"] < left["LSTM forget bias 1"] < 1e-3
    assert min(left["GRU chrono"], left["LSTM chrono"]) > 0.1


@pytest.mark.parametrize("nonlinearity", ["identity", "sigmoid"])
def test_gradients_fails_on_a_gradient_that_is_a_little_wrong(nonlinearity, monkeypatch, capsys):
    right = lf.RNN.backward

    def wrong(self, reserve, dy=None, dstate_n=None):
        found = right(self, reserve, dy, dstate_n)
        if self.nonlinearity == nonlinearity:
            found.state *= 1 + 1e-11  # of one step: 5e-10 after 50
        return found

    monkeypatch.setattr(lf.RNN, "backward", wrong)
    assert cli.main(["gradients", "--steps", "3"]) == 1
    failed = re.findall(r"^ *(\w+).*FAILED", capsys.readouterr().out, re.MULTILINE)
    assert failed == (["w", "w"] if nonlinearity == "identity" else ["sigmoid"])


def test_gradients_refuses_wrong_arguments(tmp_path, capsys):
    for arguments in (["--steps", "0"], ["--seed", "x"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["gradients", *arguments])
        assert stop.value.code == 2
        assert arguments[0] in capsys.readouterr().err
    assert cli.main(["gradients", "--plot", str(tmp_path / "no" / "x.png")]) == 2
    assert "--plot" in capsys.readouterr().err
