"""The command line: what each command prints, writes and returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import lstm_fast as lf
import numpy as np
import pytest
from lstm_fast import _lstm_fast_core as core
from lstm_fast import cli
from lstm_fast.bench import packages
from lstm_fast.bench.problems import KERNELS

# The bits of all results, on every machine. They change only if results change: then say so in the changelog.
CERTIFICATE = "542485e5539f894c150f5df8e3ee65f329c805edde5921d8723a39ea012aff9a"

WRONG_PEER = """
class Wrong:
    name = "wrong"
    version = "9"
    def __init__(self, problem, arrays, threads):
        self.y = arrays["x"] * 0
        self.h = arrays["h0"]
    def forward(self):
        return self.y, self.h, self.h
"""


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(lf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | variables
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run a tiny sweep in an empty directory; returns the exit code and the JSON, None if there is none."""
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        code = cli.main(["bench", "--seq", "3", "--batch", "2", "--hidden", "4", *arguments])
        written = tmp_path / "bench.json"
        return code, json.loads(written.read_text()) if written.exists() else None

    return run


@pytest.mark.parametrize("module", ["lstm_fast", "lstm_fast.cli", "lstm_fast.bench.sweep"])
def test_import_is_light(module):
    heavy = {"torch", "onnx", "onnxruntime", "rich", "matplotlib", "numba", "pytest"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_info_names_what_this_installation_is(capsys, monkeypatch):
    monkeypatch.setenv("LSTM_FAST_VERBOSE", "1")
    assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    for fact in (lf.__version__, core.compiler(), f"isa chosen        {lf.isa()}", "LSTM_FAST_VERBOSE=1", "gpu"):
        assert fact in shown


def test_info_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == lf.__version__
    assert facts["isa"] == {"built": core.isas_built(), "usable": core.isas_usable(), "chosen": lf.isa()}
    assert facts["threads"]["number"] == lf.get_num_threads()
    assert facts["packages"]["numpy"] == np.__version__
    assert set(packages.EXTRAS) <= set(facts["packages"])


def test_info_survives_a_wrong_isa_variable_and_shows_the_choices():
    ran = run_python("-m", "lstm_fast", "info", LSTM_FAST_ISA="sse9")
    assert ran.returncode == 0, ran.stderr
    chosen = next(line for line in ran.stdout.splitlines() if line.startswith("isa chosen"))
    assert "sse9" in chosen
    assert "scalar" in chosen


def test_other_commands_refuse_a_wrong_isa_variable_in_one_line():
    ran = run_python("-m", "lstm_fast", "verify", LSTM_FAST_ISA="sse9")
    assert ran.returncode == 2
    assert re.fullmatch(r"lstm-fast: .*LSTM_FAST_ISA.*sse9.*\n", ran.stderr)


def test_certificate_is_the_same_on_every_machine(capsys):
    assert cli.main(["verify", "--certificate"]) == 0
    assert f"sha256 {CERTIFICATE}\n" in capsys.readouterr().out


def test_verify_passes_and_certifies(capsys):
    before = lf.isa()
    assert cli.main(["verify", "--certificate"]) == 0
    shown = capsys.readouterr().out
    for cell, dtype in KERNELS:
        for isa in core.isas_usable():
            assert re.search(rf"^{cell} {dtype} +{isa} .* ok$", shown, re.MULTILINE)
    assert len(re.findall(r"sha256 [0-9a-f]{64}$", shown, re.MULTILINE)) == 1
    assert lf.isa() == before


@pytest.mark.parametrize("name", ["x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh"])
def test_verify_fails_on_one_wrong_gradient(name, capsys, monkeypatch):
    right = lf.ops.lstm_backward

    def wrong(*arguments):
        grads = dict(right(*arguments))
        grads[name] = np.array(grads[name])
        grads[name].flat[-1] += 1e-3
        return grads

    monkeypatch.setattr(lf.ops, "lstm_backward", wrong)
    monkeypatch.setattr(core, "isas_usable", lambda: ["scalar"])
    assert cli.main(["verify"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_verify_fails_when_instruction_sets_differ_in_bits(capsys, monkeypatch):
    if len(core.isas_usable()) < 2:
        pytest.skip("only one instruction set on this CPU")
    right = lf.ops.lstm_forward
    best = core.isas_usable()[0]

    def one_ulp_off(*arguments, **options):
        y, *rest = right(*arguments, **options)
        return (np.nextafter(y, y.dtype.type(2)) if lf.isa() == best else y), *rest

    monkeypatch.setattr(lf.ops, "lstm_forward", one_ulp_off)
    assert cli.main(["verify", "--certificate"]) == 1
    shown = capsys.readouterr().out
    assert "they differ" in shown
    assert len(re.findall(r"on (\w+): sha256", shown)) == len(core.isas_usable())


def test_bench_writes_table_figures_and_chart(bench, capsys, tmp_path):
    code, figures = bench()
    assert code == 0
    shown = capsys.readouterr().out
    for title in ("ns/step", "GFLOP/s", "peak", "numpy", "bench.json", "bench.png", "FMA peak"):
        assert title in shown
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert figures["fma_peak_gflops"] > 0
    assert figures["machine"]["isa"] == lf.isa()
    assert [(r["T"], r["B"], r["I"], r["H"], r["pass"]) for r in figures["rows"]] == [
        (3, 2, 4, 4, "forward"),
        (3, 2, 4, 4, "forward+backward"),
    ]
    for row in figures["rows"]:
        ours = row["engines"]["lstm_fast"]
        assert all(e["correct"] and len(e["samples"]) >= 5 for e in row["engines"].values())
        assert row["ns_per_step"] == pytest.approx(ours["seconds"] / 3 * 1e9)
        assert row["ratios"]["numpy"] == pytest.approx(row["engines"]["numpy"]["seconds"] / ours["seconds"])


def test_bench_in_float64(bench):
    code, figures = bench("--dtype", "float64")
    assert code == 0
    assert {row["dtype"] for row in figures["rows"]} == {"float64"}


def test_bench_reports_a_wrong_peer_and_does_not_time_it(bench, capsys, tmp_path):
    (tmp_path / "wrong_peer.py").write_text(WRONG_PEER)
    code, figures = bench("--peer", "wrong_peer:Wrong")
    assert code == 1
    streams = capsys.readouterr()
    assert re.search(r"WRONG RESULT: wrong: lstm float32 T 3 B 2 H 4 forward: error .* above", streams.err)
    assert "WRONG" in streams.out
    assert figures["engines"]["wrong"]["version"] == "9"
    forward, train = figures["rows"]
    assert forward["engines"]["wrong"]["correct"] is False
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


def test_bench_lists_a_peer_that_is_not_installed(bench, capsys, monkeypatch):
    monkeypatch.setattr("lstm_fast.bench.peers.installed", lambda name: name != "torch")
    code, figures = bench()
    assert code == 0
    assert "torch" in figures["not_installed"]
    assert "torch" not in figures["engines"]
    assert "without torch: torch not installed (pip install 'lstm_fast[peers]')" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bench", "--seq", "0"], ["bench", "--dtype", "float16"], ["demo", "nope"], []])
def test_wrong_arguments_end_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lstm-fast" in capsys.readouterr().err


def test_demo_without_a_name_lists_all(capsys):
    assert cli.main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert all(f"lstm-fast demo {name}" in shown for name in ("text", "stock"))


def test_demo_passes_its_arguments_and_exit_code_on(monkeypatch):
    seen = []
    fake = types.ModuleType("lstm_fast.demos.stock")
    fake.main = lambda argv: seen.append(argv) or 7
    monkeypatch.setitem(sys.modules, "lstm_fast.demos.stock", fake)
    assert cli.main(["demo", "stock", "--steps", "3", "extra"]) == 7
    assert seen == [["--steps", "3", "extra"]]


def test_python_m_lstm_fast_is_the_command():
    ran = run_python("-m", "lstm_fast", "--version")
    assert (ran.returncode, ran.stdout) == (0, f"lstm_fast {lf.__version__}\n")
