"""The digits demo through the command line: the copies learn alike, the kernels do the work, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from lstm_fast import cli
from lstm_fast.bench import packages

SMALL = ["demo", "digits", "--quick", "--epochs", "2", "--ragged-epochs", "1"]


def needs_its_packages() -> None:
    for name in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(name)


def test_digits_learns_the_same_by_the_kernels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_its_packages()
    from lstm_fast.demos import side_by_side

    lessons = []
    study = side_by_side.study
    monkeypatch.setattr(side_by_side, "study", lambda *a, **k: lessons.append(study(*a, **k)) or lessons[-1])
    plot = tmp_path / "digits.png"
    assert cli.main([*SMALL, "--dtype", "float64", "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert re.findall(r"(\d+) by the kernels, all of them", printed) == ["92", "46"]  # 45 batches, 1 judgement an epoch

    whole, ragged = lessons
    for lesson in lessons:
        # Rounding of 1e-16 grows by some factor of 100 an epoch; 1e-7 leaves it two epochs and a reserve of 1e5.
        np.testing.assert_allclose(lesson.accelerated.losses, lesson.plain.losses, rtol=0, atol=1e-7)
        assert lesson.accelerated.accuracies == pytest.approx(lesson.plain.accuracies, abs=0.003)  # one of 360
        assert 0 < lesson.differences(lesson.control).max() < 1e-6  # the control started elsewhere, and not far away
    assert whole.accelerated.accuracies[-1] > 0.25  # chance is 0.1
    assert whole.accelerated.losses[-1] < 2.0 < whole.accelerated.losses[0]
    assert len(ragged.plain.losses) == 45
    assert type(whole.plain.model.lstm).__module__.startswith("torch.")


def test_digits_fails_on_a_wrong_gradient_and_on_calls_left_to_pytorch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_its_packages()
    from lstm_fast.demos import side_by_side
    from lstm_fast.torch import _call

    accelerate = side_by_side.accelerate

    def misled(model):
        accelerate(model).lstm.weight_hh_l0.register_hook(lambda gradient: -gradient)
        return model

    tiny = [*SMALL, "--epochs", "1", "--hidden", "8", "--batch", "128"]
    with monkeypatch.context() as patch:
        patch.setattr(side_by_side, "accelerate", misled)
        assert cli.main(tiny) == 1
        assert "NOT THE SAME" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(_call, "unsupported", lambda: "a test")
        assert cli.main(tiny) == 1
        assert "NOT ALL NATIVE" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "shown"), [("torch", "torch"), ("sklearn", "scikit-learn")])
def test_digits_says_how_to_get_a_missing_package(
    name: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "torch":
        pytest.importorskip("torch")
    monkeypatch.setattr(packages, "installed", lambda asked: asked != name)
    assert cli.main(SMALL) == 2
    error = capsys.readouterr().err
    assert error == f"lstm-fast: demo digits needs {shown}, which is not installed: pip install 'lstm_fast[demos]'\n"


@pytest.mark.parametrize(
    "arguments", [["--epochs", "0"], ["--threads", "x"], ["--dtype", "f16"], ["--plot", "no/x.png"]]
)
def test_digits_refuses_wrong_arguments_at_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "digits", *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err
