"""The life of the thread team: concurrent callers, forks before, after and during use, exit, signals, scarce threads.

Every script runs in a process of its own and is ended, with the stacks of its threads, when it hangs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits
from lstm_fast import _lstm_fast_core as core
from stacks import Sizes, draw_stack, infer_stack, layer_of, solve_stack

SECONDS = 120  # far more than any script takes; only a hang gets there
PREAMBLE = f"""
    import faulthandler
    faulthandler.dump_traceback_later({SECONDS}, exit=True)
    import os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons, about forks of processes with threads
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
    import numpy as np
    import lstm_fast as lf
    from lstm_fast import _lstm_fast_core as core

    core.use_team_always(True)
    layer = lf.LSTM(9, 17, 2, bidirectional=True, seed=0)
    x = np.random.default_rng(0).standard_normal((40, 6, 9)).astype(np.float32)
    lengths = [40, 3, 0, 17, 25, 40]

    def solve():
        y, _, reserve = layer.forward(x, lengths=lengths)
        grads = layer.backward(reserve, y)
        return [y, grads.x, *grads.parameters.values()]

    lf.set_num_threads(1)
    expected = solve()
    lf.set_num_threads(4)

    def right(threads=None):
        same = all(np.array_equal(one, other) for one, other in zip(solve(), expected, strict=True))
        return same and threads in (None, core.threads_used())

    def child_status(work):
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm({SECONDS // 2})  # faulthandler's watchdog is a thread, and not in the child
            os._exit(0 if work() else 1)
        return os.waitpid(child, 0)[1]
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc or uses Linux's limits")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(script, *arguments, folder=None):
    """What the script prints; it must end by itself, without an error."""
    whole = textwrap.dedent(PREAMBLE) + textwrap.dedent(script)
    command = [sys.executable, "-c", whole, *arguments]
    if folder:
        path = folder / "script.py"
        path.write_text(whole)
        command = [sys.executable, str(path), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=2 * SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the children that it left
            raise
    assert process.returncode == 0, f"exit status {process.returncode}\n{output}\n{errors}"
    return output.split()


# --- several Python threads -------------------------------------------------------------------------------------------

SMALL_AND_LARGE = [Sizes(20, 5, 3, 9, 0, 2, 2), Sizes(3, 2, 4, 17), Sizes(40, 13, 8, 16, 7, 2, 1), Sizes(60, 1, 3, 33)]


def test_eight_python_threads_on_different_layers(team):
    """One of them has the team at a time, the others compute alone."""
    stacks = [draw_stack(sizes, seed=seed) for sizes in SMALL_AND_LARGE for seed in (50, 51)]
    expected = [solve_stack(stack) for stack in stacks]
    lf.set_num_threads(3)
    with ThreadPoolExecutor(8) as pool:
        for result, serial in zip(pool.map(solve_stack, stacks * 6), expected * 6, strict=True):
            assert_all_same_bits(result, serial, "in eight Python threads")


def test_eight_python_threads_on_one_layer_with_changing_numbers(team):
    """Every thread sets the number now and then; each call uses the number that it began with, or one."""
    stack = draw_stack(Sizes(30, 7, 3, 16, 5, 2, 2), seed=52)
    layer = layer_of(stack)
    together = threading.Barrier(8)

    def solve(_=None):
        y, (hn, cn), reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
        grads = layer.backward(reserve, stack.dy, (stack.dhn, stack.dcn))
        return {"y": y, "hn": hn, "cn": cn, "dx": grads.x} | grads.parameters

    def work(number):
        together.wait(SECONDS)
        results, used = [], set()
        for turn in range(12):
            lf.set_num_threads(1 + (number + turn) % 7)
            results.append(solve())
            used.add(core.threads_used())
        return results, used

    expected, used = solve(), set()
    with ThreadPoolExecutor(8) as pool:
        for results, own in pool.map(work, range(8)):
            used |= own
            for result in results:
                assert_all_same_bits(result, expected, "while the number changes")
    assert used <= set(range(1, 8))


def test_one_reserve_in_eight_python_threads(team):
    stack = draw_stack(Sizes(30, 7, 3, 16, 0, 2, 2), seed=53)
    layer = layer_of(stack)
    _, _, reserve = layer.forward(stack.x, (stack.h0, stack.c0), lengths=stack.lengths)
    expected = layer.backward(reserve, stack.dy)
    lf.set_num_threads(4)
    with ThreadPoolExecutor(8) as pool:
        for grads in pool.map(lambda _: layer.backward(reserve, stack.dy), range(32)):
            assert_all_same_bits(grads.parameters, expected.parameters, "of one reserve")


def test_second_caller_does_not_wait():
    """While one Python thread has the team in long calls, another computes alone and is done."""
    script = """
        long = np.broadcast_to(np.ones((1, 1, 9), np.float32), (4_000, 6, 9))

        def occupy():
            while True:
                layer(long)

        threading.Thread(target=occupy, daemon=True).start()
        for pause in range(1, 30):  # the other one must begin a call while this one has none
            time.sleep(0.1 * pause)
            assert right()
            if core.threads_used() == 1:
                break
        assert core.threads_used() == 1
        print("alone", flush=True)
    """
    assert run(script) == ["alone"]


# --- fork and spawn ---------------------------------------------------------------------------------------------------


@needs_fork
def test_fork_before_after_and_again():
    script = """
        print(child_status(lambda: right(4)))  # before this process had a team
        assert right(4)
        print(child_status(lambda: right(4)))  # after
        assert right(4)
        print(child_status(lambda: right(4) and child_status(lambda: right(4)) == 0 and right(4)))  # in a child, too
        lf.set_num_threads(7)
        assert right(7)
        print(child_status(lambda: lf.set_num_threads(2) or right(2)))
        assert right(7)
    """
    assert run(script) == ["0"] * 4


@needs_fork
def test_fork_during_use():
    """Other Python threads are inside calls, one with the team: the child abandons it and makes its own."""
    script = """
        done, wrong = threading.Event(), []

        def use():
            while not done.is_set():
                if not right():
                    wrong.append(1)

        users = [threading.Thread(target=use) for _ in range(3)]
        for user in users:
            user.start()
        statuses = [child_status(lambda: right(4)) for _ in range(25)]
        done.set()
        for user in users:
            user.join()
        print(*statuses, *wrong)
        assert right(4)
    """
    assert run(script) == ["0"] * 25


@needs_fork
def test_fork_of_a_python_thread_that_is_not_the_main_one():
    script = """
        assert right(4)
        statuses = []
        thread = threading.Thread(target=lambda: statuses.append(child_status(lambda: right(4))))
        thread.start()
        thread.join()
        print(*statuses)
    """
    assert run(script) == ["0"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = """
        def work(_):
            lf.set_num_threads(3)
            return right(3)

        if __name__ == "__main__":
            import multiprocessing
            assert right(4)
            with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                print(*pool.map(work, range(6)))
            assert right(4)
    """
    assert run(script, method, folder=tmp_path) == ["True"] * 6


# --- exit -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "os._exit(0)", "time.sleep(0.01)", "del layer, lf, core"])
def test_exit_with_a_live_team(end):
    assert run(f"print(right(4), flush=True)\n{end}") == ["True"]


@pytest.mark.parametrize("turn", range(3))
def test_exit_while_daemon_threads_compute(turn):
    script = """
        def use():
            while True:
                solve()

        for _ in range(4):
            threading.Thread(target=use, daemon=True).start()
        time.sleep(0.05 + 0.03 * int(sys.argv[1]))
        print(right(), flush=True)
    """
    assert run(script, str(turn)) == ["True"]


def test_exit_in_the_middle_of_a_long_call_of_a_daemon_thread():
    script = """
        long = np.broadcast_to(np.ones((1, 1, 9), np.float32), (200_000, 6, 9))
        threading.Thread(target=layer, args=(long,), daemon=True).start()
        time.sleep(0.3)
        print("main ends", flush=True)
    """
    assert run(script) == ["main", "ends"]


def test_python_threads_come_and_go():
    script = """
        for _ in range(40):
            thread = threading.Thread(target=solve)
            thread.start()
            thread.join()
        print(right(4))
    """
    assert run(script) == ["True"]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_interrupt_of_a_long_call_of_the_team(direction):
    """KeyboardInterrupt, and a team that works as before."""
    script = """
        lf.set_isa("scalar")
        assert right(4)
        wide = lf.LSTM(64, 64, 2, seed=0)
        row = np.ones((1, 1, 64), np.float32)
        steps = 60_000 if sys.argv[1] == "forward" else 6_000
        rows = np.broadcast_to(row, (steps, 8, 64))
        call = lambda: wide(rows)
        if sys.argv[1] == "backward":
            reserve = wide.forward(rows)[2]
            call = lambda: wide.backward(reserve, rows)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            call()
        except KeyboardInterrupt:
            print("interrupted")
        print(core.threads_used())
        print("again", right(4))
    """
    assert run(script, direction) == ["interrupted", "4", "again", "True"]


def test_interrupt_in_a_child_forked_by_another_thread():
    """Its one thread is the main one there, whatever it was in the parent."""
    script = """
        def fork():
            child = os.fork()
            if child:
                return print(os.waitpid(child, 0)[1])
            seen = []
            def handler(*_):  # after a call that does not ask, it would run once
                seen.append(1)
                if len(seen) == 3:
                    raise KeyboardInterrupt
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            lf.set_isa("scalar")
            try:
                lf.LSTM(64, 64, seed=0)(np.broadcast_to(np.ones((1, 1, 64), np.float32), (60_000, 8, 64)))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            os._exit(0)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    """
    assert run(script) == ["interrupted", "0"]


def test_handlers_may_call_the_library():
    """A signal's Python handler runs inside the call that was interrupted, and finds the team taken."""
    script = """
        seen = []

        def handler(*_):
            seen.append((right(), core.threads_used()))

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        long = np.broadcast_to(np.ones((1, 1, 9), np.float32), (20_000, 6, 9))
        first = layer(long)[0]
        while len(seen) < 4:
            assert np.array_equal(layer(long)[0], first)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(all(same for same, _ in seen))
        print(right(4))
    """
    assert run(script) == ["True", "True"]


@linux_only
def test_workers_leave_signals_to_the_main_thread():
    script = """
        assert right(4)
        blocked = []
        for task in os.listdir("/proc/self/task"):
            if int(task) != os.getpid():
                with open(f"/proc/self/task/{task}/status") as file:
                    mask = next(line.split()[1] for line in file if line.startswith("SigBlk"))
                blocked.append(bool(int(mask, 16) >> (signal.SIGINT - 1) & 1))
        faulthandler.cancel_dump_traceback_later()
        print(sum(blocked))
        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """
    (blocked, own) = run(script)
    assert int(blocked) >= 3  # the workers; faulthandler's watchdog blocks signals as well
    assert own == "False"


# --- scarcity ---------------------------------------------------------------------------------------------------------


@linux_only
def test_fewer_threads_when_no_more_can_be_made():
    """Their stacks do not fit into the address space: the call goes on with those there are."""
    script = """
        import resource
        lf.set_num_threads(60)
        with open("/proc/self/status") as file:
            used = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
        same = right()
        print(same, core.threads_used() < 60, core.threads_used() >= 1)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        lf.set_num_threads(20)
        print(right(20))
    """
    assert run(script) == ["True", "True", "True", "True"]


@linux_only
def test_team_grows_on_demand_and_is_kept():
    script = """
        def tasks():
            return len(os.listdir("/proc/self/task"))

        before = tasks()
        lf.set_num_threads(1)
        assert right(1)
        print(tasks() - before)
        for threads in (2, 5, 3, 5):
            lf.set_num_threads(threads)
            assert right(threads)
            print(tasks() - before)
    """
    assert run(script) == ["0", "1", "4", "4", "4"]


def test_no_memory_is_lost_with_threads(team):
    """The workspace of a call is freed whatever the number: many calls leave the process as large as few."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("reads /proc/self/statm")

    def pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    stack = draw_stack(Sizes(20, 5, 3, 9, 4, 2, 2), seed=54)
    lf.set_num_threads(3)
    for _ in range(100):
        solve_stack(stack)
    before = pages()
    for _ in range(300):
        infer_stack(stack)
        solve_stack(stack)
    assert (pages() - before) * os.sysconf("SC_PAGESIZE") < 4 << 20
    assert np.isfinite(solve_stack(stack)["y"]).all()
