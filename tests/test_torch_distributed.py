"""lstm_fast.torch in two processes: DistributedDataParallel, fully_shard, torchrun, and the number of threads."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

import distributed_run as run  # noqa: E402
import lstm_fast.torch as lt  # noqa: E402

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "distributed.md"
SECONDS = 90  # for all processes of a test; far more than they need


def run_all(commands, folder, **variables):
    """Run all at once and return their outputs. Neither they nor what they started outlives the call."""
    cleared = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LSTM_FAST_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in cleared}
    # Without an interface gloo asks for the address of the host's name, which need not have any.
    environment |= {"GLOO_SOCKET_IFNAME": "lo"} | variables
    # They run in another folder, from which a relative path leads elsewhere.
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = []
    end = time.monotonic() + SECONDS
    try:
        for command in commands:
            started.append(subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **options))
        outputs = [each.communicate(timeout=max(0, end - time.monotonic()))[0] for each in started]
    finally:
        for each in started:
            stop(each)
    for each, output in zip(started, outputs, strict=True):
        assert each.returncode == 0, output
    return outputs


def stop(process):
    """By SIGTERM first: torchrun then ends its processes, which are in sessions of their own."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process.poll() is None:
            process.terminate()
            process.wait(20)
    if process.poll() is None:
        process.kill()
        process.wait()
    process.stdout.close()


def processes(what, folder, count=run.PROCESSES, **variables):
    """What each process of distributed_run.py found, and its stats."""
    commands = [[str(HERE / "distributed_run.py"), what, str(rank), str(folder)] for rank in range(count)]
    run_all(commands, folder, **variables)
    saved = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
    return [each["found"] for each in saved], [each["stats"] for each in saved]


def assert_native(stats, calls, name="LSTM"):
    assert stats == {"native": {name: calls}, "formula": {}, "fallback": {}}


def assert_equal_parameters(found, model, relative):
    wanted = dict(model.named_parameters())
    assert found.keys() == wanted.keys()
    largest = max(float(p.detach().abs().max()) for p in wanted.values())
    for name, value in wanted.items():
        error = float((found[name] - value).detach().abs().max())
        assert error <= relative * largest, f"{name}: {error} of {largest}"


def test_data_parallel_equals_one_process(tmp_path):
    """On the whole batch, after several updates: with lstm_fast, and with torch.nn alone."""
    found, stats = processes("ddp", tmp_path, OMP_NUM_THREADS="1")
    for each in stats:
        assert_native(each, 4 * run.UPDATES)
    for packed in (False, True):
        for accelerated in (False, True):
            model = run.model_of(0, accelerated)
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            run.train(model, slice(None), packed)
            for each in found:
                assert_equal_parameters(each[packed, 0], model, 1e-12)
            assert all((p - before[name]).abs().max() > 1e-3 for name, p in model.named_parameters())
        for each in found:  # in every process and every time, bit for bit
            for turn in range(2):
                for name, value in found[0][packed, 0].items():
                    assert torch.equal(each[packed, turn][name], value), name


def test_fully_shard(tmp_path):
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("fully_shard is in PyTorch 2.6 or later")
    found, stats = processes("fsdp", tmp_path, OMP_NUM_THREADS="1")
    for each in stats:
        # fully_shard derives a class of its own for the module that it is given.
        assert each == {"native": {"FSDPLSTM": 2 * run.UPDATES, "LSTM": 2 * run.UPDATES}, "formula": {}, "fallback": {}}
    model = run.model_of(0)
    for packed in (False, True):
        run.train(model, slice(None), packed)
    for each in found:
        for alone in (True, False):
            one = each[alone]
            for losses in one["losses"]:
                assert losses[-1] < losses[0]
            assert_equal_parameters(one["parameters"], model, 1e-12)
            assert one["gradients"].keys() == one["parameters"].keys()
            assert all(gradient.isfinite().all() for gradient in one["gradients"].values())
            assert (one["inside"], one["outside"]) == (["Parameter"], "DTensor")


def test_storages_stay_resizable():
    """fully_shard resizes those of parameters between forward and backward."""
    state = tuple(torch.randn(1, 2, 4).requires_grad_() for _ in range(2))
    x = torch.randn(3, 2, 5)
    for module in (lt.LSTM(5, 4), lt.LSTMCell(5, 4)):
        y, _ = module(x, state) if isinstance(module, lt.LSTM) else module(x[0], (state[0][0], state[1][0]))
        y.sum().backward()
        assert all(tensor.untyped_storage().resizable() for tensor in (x, *state, *module.parameters()))


@pytest.mark.parametrize("told", [1, 2])
def test_threads_are_those_of_the_environment(told, tmp_path):
    (found,), (stats,) = processes("threads", tmp_path, count=1, OMP_NUM_THREADS=str(told))
    assert found[0][0] <= told
    # Even if PyTorch is told more afterwards.
    assert [pytorchs for pytorchs, _, _ in found[1:]] == [1, 2, 5]
    for pytorchs, forward, backward in found:
        assert forward == backward == min(told, pytorchs)
    assert_native(stats, 4)


def found_in_document(pattern):
    return re.search(pattern, DOCUMENT.read_text(), re.DOTALL | re.MULTILINE).group(1)


def test_script_of_the_document(tmp_path):
    """As its first script and command say: the losses fall, one thread a process, native calls alone, a state_dict."""
    # Not through the interpreter's end, where PyTorch's own threads may abort: see the document.
    script = found_in_document(r"^```python\n(.*?)^```$") + "__import__('os')._exit(0)\n"
    (tmp_path / "train.py").write_text(script)
    arguments = found_in_document(r"^    torchrun (--standalone [^\n]*)$").split()
    (output,) = run_all([["-m", "torch.distributed.run", *arguments]], tmp_path)
    losses = [float(loss) for loss in re.findall(r"epoch \d: loss ([\d.]+)", output)]
    assert len(losses) == 5, output
    assert losses[-1] < losses[0] / 2, output
    stats = re.escape(str({"native": {"LSTM": 40}, "formula": {}, "fallback": {}}))
    ends = re.findall(rf"process (\d): (\d+) threads, {stats}", output)
    assert sorted(ends) == [("0", "1"), ("1", "1")], output
    state = torch.load(tmp_path / "model.pt")
    torch.nn.LSTM(8, 32).load_state_dict({n.removeprefix("lstm."): v for n, v in state.items() if "lstm" in n})
