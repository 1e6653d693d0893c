"""``lstm-fast bench --torch``: every case checked and timed, wrong modules, fallbacks, missing packages, options."""

from __future__ import annotations

import json

import lstm_fast as lf
import pytest
from lstm_fast import cli
from lstm_fast.bench import module_report, modules, packages

TINY = modules.every_kind((3, 1, 2), (4, 1, 3), (26, 3, 4))
TRAINING = "forward+backward"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run tiny cases in an empty directory; returns the exit code and the JSON, None if there is none."""
    for name in ("torch", "rich", "matplotlib"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "QUICK_BUDGET", 0.0)

    def run(*arguments, cases=TINY):
        monkeypatch.setattr(module_report, "QUICK", cases)
        code = cli.main(["bench", "--torch", "--quick", *arguments])
        written = tmp_path / "bench-torch.json"
        return code, json.loads(written.read_text()) if written.exists() else None

    return run


def test_all_cases_are_checked_timed_written_and_drawn(bench, capsys, tmp_path):
    code, figures = bench()
    assert code == 0
    shown = capsys.readouterr().out
    for text in (
        "lstm_fast.torch",
        "threads: 1",
        "FMA peak",
        "overhead",
        "bench-torch.json",
        "bench-torch.png",
        "mean",
    ):
        assert text in shown
    assert (tmp_path / "bench-torch.png").read_bytes().startswith(b"\x89PNG")
    assert figures["fma_peak_gflops"] > 0
    assert figures["machine"]["threads"] == 1
    assert set(figures["engines"]) == {"lstm_fast", "torch"}
    assert all(engine["version"] for engine in figures["engines"].values())
    wanted = [(case.name, case.problem.steps, case.problem.dtype, p) for case in TINY for p in ("forward", TRAINING)]
    assert [(r["case"], r["T"], r["dtype"], r["pass"]) for r in figures["rows"]] == wanted
    for row in figures["rows"]:
        assert all(engine["correct"] and engine["seconds"] > 0 for engine in row["engines"].values())
        ours, theirs = (row["engines"][name]["seconds"] for name in ("lstm_fast", "torch"))
        assert row["ratios"]["torch"] == pytest.approx(theirs / ours)
        assert row["case"] in shown


def test_the_cases_are_what_their_names_say():
    for cases in (modules.QUICK, modules.FULL):
        variants = {case.name: case.problem for case in cases}
        assert variants["float64"].dtype == "float64"
        assert variants["projection"].projection
        assert {variants[name].cell for name in ("GRU", "GRU, packed", "GRU cell")} == {"gru"}
        assert {variants[name].cell for name in ("RNN", "RNN, packed", "RNN cell")} == {"rnn"}
        assert variants["packed"].shortest == variants["packed"].steps // 25
        lengths = list(variants["packed"].lengths())
        assert lengths != sorted(lengths, reverse=True)
        both = variants["bidirectional, 2 layers, packed"]
        assert (both.layers, both.directions) == (2, 2)
        assert both.shortest is not None


def test_overhead_is_the_module_less_the_numpy_call(bench):
    code, figures = bench(cases=[case for case in TINY if case.overhead])
    assert code == 0
    found = {}
    for row in figures["rows"]:
        if row["overhead_seconds"] is not None:
            ours, call = (row["engines"][name]["seconds"] for name in ("lstm_fast", "lstm_fast, NumPy"))
            assert row["overhead_seconds"] == pytest.approx(ours - call)
            found[row["case"], row["pass"]] = True
    assert set(found) == {("padded", "forward"), ("padded", TRAINING), ("cell", "forward")}


def test_a_wrong_module_fails_and_is_not_timed(bench, capsys, monkeypatch):
    right = lf.torch.LSTM.forward

    def scaled(self, *arguments):
        y, state = right(self, *arguments)
        return y * (1 + 1e-3), state

    monkeypatch.setattr(lf.torch.LSTM, "forward", scaled)
    code, figures = bench(cases=[case for case in TINY if case.name in ("padded", "float64")][-2:])
    assert code == 1
    streams = capsys.readouterr()
    assert "WRONG RESULT: lstm_fast: padded lstm float32 T 26 B 3 H 4 forward: error" in streams.err
    assert "WRONG" in streams.out
    for row in figures["rows"]:
        assert row["engines"]["lstm_fast"]["correct"] is False
        assert row["engines"]["torch"]["correct"]
        assert row["ratios"]["torch"] is None


def test_a_module_with_wrong_gradients_alone_fails(bench, capsys, monkeypatch):
    from lstm_fast.torch import _call

    right = _call._core.backward

    def without_biases(*arguments):
        dx, dh0, dc0, found = right(*arguments)
        return dx, dh0, dc0, [(dw_ih, dw_hh, 0 * db, *others) for dw_ih, dw_hh, db, *others in found]

    monkeypatch.setattr(_call._core, "backward", without_biases)
    code, figures = bench(cases=[case for case in TINY if case.name == "Linear, LSTM, Linear"])
    assert code == 1
    assert [row["engines"]["lstm_fast"]["correct"] for row in figures["rows"]] == [True, False]
    assert f"{TRAINING}: error" in capsys.readouterr().err


def test_a_call_that_is_left_to_pytorch_fails(bench, capsys, monkeypatch):
    from lstm_fast.torch import cell as adapter

    monkeypatch.setattr(adapter, "left_to_torch", lambda x, weights, hx: "a reason")
    monkeypatch.setattr(adapter, "infer", lambda *tensors, **options: None)
    code, figures = bench(cases=[case for case in TINY if case.name == "cell"])
    assert code == 1
    error = capsys.readouterr().err
    assert "lstm_fast: cell lstm float32 T 1 B 3 H 4 forward: not computed by the kernels alone" in error
    assert "a reason" in error
    assert not any(row["engines"]["lstm_fast"]["correct"] for row in figures["rows"])


def test_threads_are_pytorchs_too_and_are_restored(bench, monkeypatch):
    import torch

    before, seen = torch.get_num_threads(), set()
    right = torch.nn.LSTM.forward

    def watched(self, *arguments):
        seen.add((torch.get_num_threads(), lf.get_num_threads()))
        return right(self, *arguments)

    monkeypatch.setattr(torch.nn.LSTM, "forward", watched)
    code, figures = bench("--threads", "2", cases=TINY[2:3])
    assert code == 0
    assert seen == {(2, 2)}
    assert torch.get_num_threads() == before
    assert figures["machine"]["threads"] == 2
    assert {engine["threads"] for engine in figures["engines"].values()} == {"2"}
    assert all(row["barrier_ns"] > 0 for row in figures["rows"])


def test_without_matplotlib_there_is_no_chart(bench, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(module_report, "installed", lambda name: name != "matplotlib")
    code, _ = bench("--json", "bench-torch.json", cases=TINY[:1])
    assert code == 0
    assert "no chart: matplotlib is not installed (pip install 'lstm_fast[bench]')" in capsys.readouterr().out
    assert not (tmp_path / "bench-torch.png").exists()


@pytest.mark.parametrize(("name", "extra"), [("torch", "peers"), ("rich", "bench")])
def test_says_how_to_get_a_missing_package(bench, capsys, monkeypatch, name, extra):
    monkeypatch.setattr(packages, "installed", lambda asked: asked != name)
    code, figures = bench()
    assert (code, figures) == (2, None)
    assert f"needs {name}, which is not installed: pip install 'lstm_fast[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--peer", "json:Missing"], "--peer"),
        (["--ragged", "--layers", "2"], "--layers, --ragged"),
        (["--seq", "3", "--batch", "2", "--hidden", "4"], "--seq, --batch, --hidden"),
        (["--dtype", "float64", "--bidirectional", "--proj", "2"], "--bidirectional, --proj, --dtype"),
    ],
)
def test_refuses_the_options_of_the_other_sweep_in_one_line(bench, capsys, arguments, named):
    code, figures = bench(*arguments)
    assert (code, figures) == (2, None)
    error = capsys.readouterr().err
    assert error.startswith("lstm-fast: --torch: expected none of ")
    assert error.endswith(f"got {named}\n")
