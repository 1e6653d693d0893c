"""Calls from PyTorch run in PyTorch's own threads: the same bits, no thread more, and our own where those are lost.

Every script runs in a process of its own and is ended, with the stacks of its threads, when it hangs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

from lstm_fast.torch import _threads  # noqa: E402

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not _threads.borrow(), reason="PyTorch has no OpenMP threads that could be found"
)

SECONDS = 120  # far more than any script takes; only a hang gets there
PREAMBLE = f"""
    import faulthandler
    faulthandler.dump_traceback_later({SECONDS}, exit=True)
    import ctypes, ctypes.util, os, signal, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, about forks of processes with threads
    import torch
    import lstm_fast as lf
    import lstm_fast.torch as lt
    from lstm_fast import _lstm_fast_core as core

    core.use_team_always(True)
    lf.set_num_threads(8)
    torch.manual_seed(0)
    module = lt.LSTM(9, 17, 2, bidirectional=True)
    x = torch.randn(40, 6, 9)

    def solve():
        for parameter in module.parameters():
            parameter.grad = None
        y, states = module(x)
        (y.square().sum() + states[1].sum()).backward()
        return [y.detach(), *(parameter.grad for parameter in module.parameters())]

    torch.set_num_threads(1)
    expected = solve()

    def right(threads=None):
        same = all(map(torch.equal, solve(), expected))
        return same and threads in (None, core.threads_used())

    def operation():
        # Wakes all of PyTorch's threads.
        return torch.ones(1000, 1000).sin().sum().item()

    def count():
        return len(os.listdir("/proc/self/task"))
"""


def run(script):
    """What the script prints; it must end by itself, without an error."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert found.returncode == 0, f"exit status {found.returncode}\n{found.stdout}\n{found.stderr}"
    return found.stdout.split()


def test_the_same_bits_in_no_thread_more():
    script = """
        for threads in (4, 2, 3, 4):
            torch.set_num_threads(threads)
            operation()
            before = count()
            assert right(threads), threads
            assert count() <= before, (threads, count(), before)  # those of OpenMP end late when there are to be fewer
        lf.set_num_threads(3)  # fewer than PyTorch's: those left over do nothing, and stay
        assert right(3)
        assert count() <= before
        print("done")
    """
    assert run(script) == ["done"]


def test_a_numpy_call_has_threads_of_its_own():
    script = """
        torch.set_num_threads(4)
        operation()
        before = count()
        lf.set_num_threads(4)
        layer = lf.LSTM(9, 17, seed=0)
        layer(x.numpy())
        print(core.threads_used(), count() - before)
    """
    assert run(script) == ["4", "3"]


def test_borrowed_threads_have_the_callers_rounding_and_get_their_own_back():
    script = """
        libm = ctypes.CDLL(ctypes.util.find_library("m"))
        upward = 0x800 if os.uname().machine == "x86_64" else 0x400000
        torch.set_num_threads(4)
        numbers = torch.arange(1.0, 1e6)
        thirds = numbers / 3
        assert libm.fesetround(upward) == 0
        many = solve()
        lf.set_num_threads(1)
        alone = solve()
        lf.set_num_threads(8)
        assert libm.fesetround(0) == 0
        assert all(map(torch.equal, many, alone))
        assert not torch.equal(many[0], expected[0])
        assert torch.equal(numbers / 3, thirds)  # in all of PyTorch's threads
        assert right(4)
        print("done")
    """
    assert run(script) == ["done"]


def test_several_python_threads_at_once():
    script = """
        torch.set_num_threads(3)
        wrong = []

        def use():
            own = lt.LSTM(9, 17, 2, bidirectional=True)
            own.load_state_dict(module.state_dict())
            for _ in range(30):
                if not torch.equal(own(x)[0], expected[0]):
                    wrong.append(1)

        users = [threading.Thread(target=use) for _ in range(8)]
        for user in users:
            user.start()
        for _ in range(20):
            torch.set_num_threads(torch.get_num_threads() % 4 + 1)
            if not right():
                wrong.append(2)
        for user in users:
            user.join()
        print("wrong", *wrong)
    """
    assert run(script) == ["wrong"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_uses_threads_of_our_own():
    """OpenMP's threads do not exist in a child, and waiting for them would never end."""
    script = """
        torch.set_num_threads(4)
        operation()
        assert right(4)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            with torch.no_grad():  # PyTorch's own operations could hang there
                same = torch.equal(module(x)[0], expected[0])
            os._exit(0 if same and core.threads_used() == 4 else 1)
        print(os.waitpid(child, 0)[1])
        assert right(4)
    """
    assert run(script) == ["0"]


@pytest.mark.parametrize("kind", ["cell", "layer"])
def test_a_series_of_steps_is_split(kind):
    """Threads serve steps that follow each other closely, not a single one, and change no bit."""
    script = f"""
        import time
        core.use_team_always(False)
        if "{kind}" == "cell":
            cell = lt.LSTMCell(256, 256)
            x, start = torch.randn(1, 256), (torch.zeros(1, 256),) * 2
        else:
            layer = lt.LSTM(256, 256)
            x, start = torch.randn(1, 1, 256), (torch.zeros(1, 1, 256),) * 2
            cell = lambda x, state: layer(x, state)[1]
        used, last = set(), {{}}
        torch.set_num_threads(2)
        with torch.no_grad():
            cell(x, start)
        assert core.threads_used() == 1
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                for _ in range(50):  # until the machine lets steps follow each other without a pause
                    state = start
                    for _ in range(100):
                        state = cell(x, state)
                        used.add((threads, core.threads_used()))
                    if (2, 2) in used:
                        break
            last[threads] = state
            time.sleep(0.01)
            with torch.no_grad():
                cell(x, start)
            assert core.threads_used() == 1
        assert all(map(torch.equal, last[1], last[2]))
        print(*sorted(used))
    """
    assert run(script) == ["(1,", "1)", "(2,", "1)", "(2,", "2)"]
