"""``lstm-fast bench``: the table, the figures, the chart; wrong results, missing packages, ragged, threads, layers."""

from __future__ import annotations

import json
import re
import sys

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast import _lstm_fast_core as core
from lstm_fast import cli
from lstm_fast.bench import packages

WRONG_PEER = """
class Wrong:
    name = "wrong"
    def path(self, which):
        return f"zeros in {which}"
    version = "9"
    def __init__(self, problem, arrays, threads):
        self.y = arrays["x"] * 0
        self.h = arrays["h0"]
    def forward(self):
        return self.y, self.h, self.h
"""

TWO_PATHS = """
from lstm_fast.bench.baseline import NumpyBaseline
class Two:
    name = "two"
    def __init__(self, problem, arrays, threads):
        self.problem = problem
        self.forward = NumpyBaseline(problem, arrays, threads).forward
    def forward(self): ...
    def path(self, which):
        return "long" if self.problem.steps > 3 else "short"
"""

LONG_NAMES = """
from lstm_fast.bench.baseline import NumpyBaseline
class A(NumpyBaseline):
    name = "a_peer_of_a_long_name"
class B(NumpyBaseline):
    name = "another_of_a_long_name"
class C(NumpyBaseline):
    name = "the_third_of_a_long_name"
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run a tiny sweep in an empty directory; returns the exit code and the JSON, None if there is none."""
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments, steps=("3",)):
        code = cli.main(["bench", "--seq", *steps, "--batch", "2", "--hidden", "4", *arguments])
        written = tmp_path / "bench.json"
        return code, json.loads(written.read_text()) if written.exists() else None

    return run


def test_bench_writes_table_figures_and_chart(bench, capsys, tmp_path):
    code, figures = bench()
    assert code == 0
    shown = capsys.readouterr().out
    for title in ("ns/step", "GFLOP/s", "peak", "bound", "KiB", "numpy", "bench.json", "bench.png", "FMA peak"):
        assert title in shown
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert figures["fma_peak_gflops"] > 0
    assert figures["read_rates"]["256"] > 0  # W_hh [16,4] in float32
    assert figures["machine"]["isa"] == lf.isa()
    assert "threads: 1" in shown or lf.get_num_threads() > 1
    assert [(r["T"], r["B"], r["I"], r["H"], r["pass"]) for r in figures["rows"]] == [
        (3, 2, 4, 4, "forward"),
        (3, 2, 4, 4, "forward+backward"),
    ]
    for row in figures["rows"]:
        ours = row["engines"]["lstm_fast"]
        assert all(e["correct"] and len(e["samples"]) >= 5 for e in row["engines"].values())
        assert row["ns_per_step"] == pytest.approx(ours["seconds"] / 3 * 1e9)
        assert row["gflops"] < row["bound_gflops"] <= figures["fma_peak_gflops"]
        assert row["own_bytes"] > 0
        assert row["ratios"]["numpy"] == pytest.approx(row["engines"]["numpy"]["seconds"] / ours["seconds"])


def test_bench_in_float64(bench):
    code, figures = bench("--dtype", "float64")
    assert code == 0
    assert {row["dtype"] for row in figures["rows"]} == {"float64"}


def test_bench_ragged_shows_the_padded_time_and_counts_valid_steps(bench, capsys):
    code, figures = bench("--ragged", "--batch", "3", steps=("4", "30"))
    assert code == 0
    shown = capsys.readouterr().out
    for title in ("valid", "over own", "lengths uniform in 10..T", "packing and padding timed"):
        assert title in shown
    assert {row["T"]: 0 < row["valid_share"] <= 1 for row in figures["rows"]} == {4: True, 30: True}
    for row in figures["rows"]:
        ours, padded = row["engines"]["lstm_fast"]["seconds"], row["padded"]["seconds"]
        assert row["padded"]["correct"]
        assert row["ragged_overhead"] == pytest.approx(ours / (row["valid_share"] * padded))
        flops = (24 if "backward" in row["pass"] else 8) * row["valid_share"] * row["T"] * 3 * 4 * 8
        assert row["gflops"] == pytest.approx(flops / ours * 1e-9)
        assert all(engine["correct"] for engine in row["engines"].values())


def test_bench_threads_shows_the_barrier_and_restores_the_number(bench, capsys):
    before = lf.get_num_threads()
    core.use_team_always(True)
    try:
        code, figures = bench("--threads", "2")
    finally:
        core.use_team_always(False)
    assert code == 0
    assert lf.get_num_threads() == before
    shown = capsys.readouterr().out
    for text in ("2 threads", "barrier", "threads: 2", "times the threads that lstm_fast used"):
        assert text in shown
    assert figures["machine"]["threads"] == 2
    for row in figures["rows"]:
        assert row["barrier_ns"] > 0
        assert row["threads_used"] == 2
        assert row["peak_share"] == pytest.approx(row["gflops"] / (2 * figures["fma_peak_gflops"]))


def test_bench_small_problem_is_measured_against_the_one_core_that_it_uses(bench):
    code, figures = bench("--threads", "2")
    assert code == 0
    assert {row["threads_used"] for row in figures["rows"]} == {1}


def test_bench_of_layers_directions_and_projection(bench):
    code, figures = bench("--layers", "2", "--bidirectional", "--proj", "3")
    assert code == 0
    assert {(row["layers"], row["directions"], row["P"]) for row in figures["rows"]} == {(2, 2, 3)}
    assert all(engine["correct"] for row in figures["rows"] for engine in row["engines"].values())


def test_bench_reports_a_wrong_peer_and_does_not_time_it(bench, capsys, tmp_path):
    (tmp_path / "wrong_peer.py").write_text(WRONG_PEER)
    code, figures = bench("--peer", "wrong_peer:Wrong")
    assert code == 1
    streams = capsys.readouterr()
    assert re.search(r"WRONG RESULT: wrong: lstm float32 T 3 B 2 H 4 forward: error .* above", streams.err)
    assert "WRONG" in streams.out
    assert figures["engines"]["wrong"]["version"] == "9"
    assert "wrong: zeros in forward  [forward]" in streams.out
    forward, train = figures["rows"]
    assert forward["engines"]["wrong"]["correct"] is False
    assert forward["engines"]["wrong"]["path"] == "zeros in forward"
    assert forward["ratios"]["wrong"] is None
    assert forward["ratios"]["numpy"] > 0
    assert "wrong" not in train["engines"]


def test_bench_fails_when_we_are_wrong(bench, capsys, monkeypatch):
    right = lf.ops.lstm_backward

    def without_last_step(*arguments):
        grads = dict(right(*arguments))
        grads["x"] = np.array(grads["x"])
        grads["x"][-1] = 0
        return grads

    monkeypatch.setattr(lf.ops, "lstm_backward", without_last_step)
    code, figures = bench()
    assert code == 1
    assert "WRONG RESULT: lstm_fast" in capsys.readouterr().err
    assert [row["ns_per_step"] is None for row in figures["rows"]] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer", "nothing"], "module:Class"),
        (["--peer", "no_such_module_:Peer"], "no_such_module_"),
        (["--peer", "json:Missing"], "no 'Missing'"),
        (["--peer", "json:JSONDecoder"], "no 'name'"),
        (["--proj", "4"], "projection: expected 0..3, got 4"),
        (["--json", "nowhere/bench.json"], "nowhere"),
    ],
)
def test_bench_refuses_in_one_line_before_measuring(bench, capsys, arguments, message):
    code, figures = bench(*arguments)
    assert (code, figures) == (2, None)
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("lstm-fast: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["rich", "matplotlib"])
def test_bench_says_how_to_get_a_missing_package(name, capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(packages, "installed", lambda asked: asked != name)
    assert cli.main(["bench"]) == 2
    assert f"needs {name}, which is not installed: pip install 'lstm_fast[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torch", "openvino", "jax"])
def test_bench_lists_a_peer_that_is_not_installed(name, bench, capsys, monkeypatch):
    monkeypatch.setattr("lstm_fast.bench.peers.installed", lambda asked: asked == "numpy")
    code, figures = bench()
    assert code == 0
    assert name in figures["not_installed"]
    assert name not in figures["engines"]
    assert f"without {name}: {name}" in (shown := capsys.readouterr().out)
    assert "not installed (pip install 'lstm_fast[peers]')" in shown


def test_chart_has_a_style_of_its_own_for_every_size(bench, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr("lstm_fast.bench.peers.PEERS", ())
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **options: drawn.append(self))
    assert bench("--hidden", *map(str, range(2, 11)))[0] == 0
    styles = [(mark.get_color(), mark.get_marker()) for mark in drawn[0].legends[0].get_lines()]
    assert len(styles) == len(set(styles)) == 9


def test_bench_folds_names_and_cuts_no_figure_in_a_file(bench, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("lstm_fast.bench.peers.PEERS", ())
    (tmp_path / "long_names.py").write_text(LONG_NAMES)
    peers = [argument for name in "ABC" for argument in ("--peer", f"long_names:{name}")]
    code, figures = bench("--ragged", "--threads", "2", *peers, steps=("4096",))
    assert code == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for row in figures["rows"]:
        (line,) = [line for line in shown.splitlines() if f" {row['ns_per_step']:,.0f} " in line]
        assert len(line) <= 120
        assert line.split()[-4:] == [f"{ratio:.2f}" for ratio in row["ratios"].values()]


def test_bench_names_the_points_where_an_engine_left_its_path(bench, capsys, tmp_path):
    (tmp_path / "two_paths.py").write_text(TWO_PATHS)
    code, _ = bench("--peer", "two_paths:Two", steps=("3", "5", "7"))
    assert code == 0
    shown = capsys.readouterr().out
    assert "two: long  [forward at 2 of 3 points: T 5 B 2 H 4; T 7 B 2 H 4]" in shown
    assert "two: short  [forward at 1 of 3 points: T 3 B 2 H 4]" in shown
