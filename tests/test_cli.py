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
from lstm_fast.bench import packages, verification
from lstm_fast.bench.problems import KERNELS

# The bits of all results, on every machine. They change only if results change: then say so in the changelog.
CERTIFICATE = "8991753d77b3244ab4cd03227a564db2d7fcd3327a9e112c81e987d28186493b"


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(lf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | variables
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["lstm_fast", "lstm_fast.cli", "lstm_fast.bench.sweep"])
def test_import_is_light(module):
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "jax", "rich", "matplotlib", "numba", "pytest"}
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
    assert (facts["threads"]["barrier_ns"] > 0) == (lf.get_num_threads() > 1)
    assert facts["packages"]["numpy"] == np.__version__
    assert set(packages.EXTRAS) <= set(facts["packages"])


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"LSTM_FAST_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, r"3  \(from LSTM_FAST_NUM_THREADS\)"),
        ({"LSTM_FAST_NUM_THREADS": "", "OMP_NUM_THREADS": "5,2"}, r"5  \(from OMP_NUM_THREADS\)"),
        ({"LSTM_FAST_NUM_THREADS": "", "OMP_NUM_THREADS": ""}, r"\d+  \(from available CPUs\)"),
    ],
)
def test_info_says_where_the_number_of_threads_comes_from(variables, line):
    shown = run_python("-m", "lstm_fast", "info", **variables).stdout
    assert re.search(rf"^threads +{line}$", shown, re.MULTILINE), shown


def test_info_after_set_num_threads(capsys):
    number = lf.get_num_threads() + 1
    with lf.threads(number):
        assert cli.main(["info"]) == 0
    shown = capsys.readouterr().out
    assert f"threads           {number}  (from set_num_threads)" in shown
    assert re.search(r"^thread barrier +[\d,]+ ns$", shown, re.MULTILINE)


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
    assert re.search(r"^kernel +layer +shapes +" + " +".join(core.isas_usable()), shown, re.MULTILINE)
    for cell, dtype in KERNELS:
        for layer in ("one layer", "ragged", "projected", "bidirectional", "stacked", "dropout", "all together"):
            if (cell, layer) in {("gru", "projected"), ("rnn", "projected")}:
                continue
            numbers = rf"( +0\.\d+){{{2 * len(core.isas_usable())}}}"
            assert re.search(rf"^{cell} {dtype} +{layer} +\d+{numbers}  ok$", shown, re.MULTILINE), layer
    assert f"bits of {', '.join(core.isas_usable())}, 2 threads, 3 threads, 7 threads: equal" in shown
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
    monkeypatch.setattr(verification, "certificates", lambda: {"scalar": "of another test"})
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
    # The instruction sets on one thread, then 2, 3 and 7 threads on the best one.
    assert len(re.findall(r"on ([\w ]+): sha256", shown)) == len(core.isas_usable()) + 3


def test_verify_fails_when_threads_change_bits(capsys, monkeypatch):
    right = lf.ops.lstm_forward

    def one_ulp_off(*arguments, **options):
        y, *rest = right(*arguments, **options)
        return (np.nextafter(y, y.dtype.type(2)) if lf.get_num_threads() == 3 else y), *rest

    monkeypatch.setattr(lf.ops, "lstm_forward", one_ulp_off)
    monkeypatch.setattr(core, "isas_usable", lambda: ["scalar"])
    assert cli.main(["verify"]) == 1
    assert "bits of scalar, 2 threads, 3 threads, 7 threads: FAILED: they differ" in capsys.readouterr().out


def test_verify_fails_when_lean_has_other_bits(capsys, monkeypatch):
    right = lf.ops.lstm_forward

    def one_ulp_off(*arguments, save="gates", **options):
        y, *rest = right(*arguments, save=save, **options)
        return (np.nextafter(y, y.dtype.type(2)) if save == "lean" else y), *rest

    monkeypatch.setattr(lf.ops, "lstm_forward", one_ulp_off)
    monkeypatch.setattr(core, "isas_usable", lambda: ["scalar"])
    monkeypatch.setattr(verification, "certificates", lambda: {"scalar": "of another test"})
    assert cli.main(["verify"]) == 1
    assert "scalar: save='lean' and 'gates' differ in bits at 22 shapes" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "layer"), [("lengths", "ragged"), ("dropout_seed", "dropout")])
def test_verify_names_the_layer_that_fails(option, layer, capsys, monkeypatch):
    """Losing the lengths or the masks spoils what has them and nothing else."""
    owner, name = (lf.ops, "lstm_forward") if option == "lengths" else (lf.LSTM, "forward")
    right = getattr(owner, name)
    lost = {"lengths": None, "dropout_seed": 1}
    monkeypatch.setattr(
        owner,
        name,
        lambda *a, **options: right(*a, **(options | ({option: lost[option]} if option in options else {}))),
    )
    monkeypatch.setattr(core, "isas_usable", lambda: ["scalar"])
    monkeypatch.setattr(verification, "certificates", lambda: {"scalar": "of another test"})
    assert cli.main(["verify"]) == 1
    failed = {line.split("  ")[1].strip() for line in capsys.readouterr().out.splitlines() if "FAILED on" in line}
    assert layer in failed
    assert "one layer" not in failed


@pytest.mark.parametrize(
    "arguments",
    [["bench", "--seq", "0"], ["bench", "--threads", "0"], ["bench", "--dtype", "float16"], ["demo", "nope"], []],
)
def test_wrong_arguments_end_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: lstm-fast" in capsys.readouterr().err


def test_demo_without_a_name_lists_all(capsys):
    assert cli.main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert all(f"lstm-fast demo {name}" in shown for name in ("text", "topics", "digits", "recall", "stock"))


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
