"""Memory kept between calls: how much, when it goes, and that nothing of it reaches a result."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import lstm_fast as lf
import numpy as np
import pytest
from judge import assert_all_same_bits
from lstm_fast import _lstm_fast_core as core
from problems import draw, solve
from stacks import Sizes, draw_stack, name_of, solve_stack

STACKS = [
    (Sizes(9, 5, 3, 17, layers=2), 0.0),
    (Sizes(40, 5, 3, 17, 4, directions=2), 0.0),
    (Sizes(9, 5, 3, 17, layers=3), 0.4),
]


@pytest.fixture(autouse=True)
def nothing_kept():
    limit = core.spare_memory_limit()
    lf.set_spare_memory(0)
    lf.set_spare_memory(limit)
    assert core.spare_memory() == 0


def test_kept_after_the_last_use():
    problem = draw(20, 4, 8, 32)
    _, _, _, reserve = lf.ops.lstm_forward(**problem.forward)
    workspace = core.spare_memory()
    assert workspace > 0
    size = reserve.nbytes
    del reserve
    # nbytes counts y too, which belongs to NumPy.
    assert core.spare_memory() == workspace + size - problem.dy.nbytes


def test_used_again():
    problem = draw(20, 4, 8, 32)
    solve(problem)
    kept = core.spare_memory()
    for _ in range(5):
        solve(problem)
        assert core.spare_memory() == kept


def test_the_limit_holds_and_the_oldest_go():
    lf.set_spare_memory(3 << 20)
    for batch in (1, 2, 5, 11, 23, 47):
        solve(draw(30, batch, 8, 32))
        assert core.spare_memory() <= 3 << 20
    kept = core.spare_memory()
    assert kept > 1 << 20
    lf.set_spare_memory(kept // 2)
    assert 0 < core.spare_memory() <= kept // 2


def test_the_oldest_go_first():
    """Of two sizes, the one used last is kept, and serves again."""
    small, large = draw(30, 2, 8, 32), draw(30, 13, 8, 32)
    solve(large)
    most = core.spare_memory()
    solve(small)
    newer = core.spare_memory() - most
    lf.set_spare_memory(newer)
    kept = core.spare_memory()
    assert kept > 0
    solve(small)
    assert core.spare_memory() == kept


def test_a_smaller_limit_heals_what_was_given_back_meanwhile():
    """Threads give and take all the time; whatever comes in between, nothing is left in the end."""
    problem = draw(20, 4, 8, 32)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            lf.set_spare_memory(1 << 24)
            running = [pool.submit(solve, problem) for _ in range(16)]
            lf.set_spare_memory(0)
            for each in running:
                each.result()
            solve(problem)
            assert core.spare_memory() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_what_is_kept_makes_no_call_fail():
    """A call whose reserve fits only where kept memory stands."""
    script = """
        import resource
        import numpy as np
        import lstm_fast as lf
        from lstm_fast import _lstm_fast_core as core
        layer = lf.LSTM(8, 64, seed=0)
        def used():
            return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        before = used()
        x = np.ones((3000, 40, 8), np.float32)
        layer.forward(x[:1000])
        layer.forward(x[:1700])
        resource.setrlimit(resource.RLIMIT_AS, (used() + (30 << 20),) * 2)
        kept = core.spare_memory()
        layer.forward(x[:2000])  # 200 MB
        print(kept > 100 << 20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


def test_a_small_problem_takes_no_huge_block():
    solve(draw(200, 16, 8, 64))
    kept = core.spare_memory()
    solve(draw(2, 1, 3, 4))
    assert core.spare_memory() > kept


def test_zero_keeps_nothing():
    solve(draw(20, 4, 8, 32))
    lf.set_spare_memory(0)
    assert core.spare_memory() == 0
    solve(draw(20, 4, 8, 32))
    assert core.spare_memory() == 0


@pytest.mark.parametrize(("sizes", "dropout"), STACKS, ids=name_of)
def test_what_stands_in_it_reaches_no_result(sizes, dropout):
    """After a problem of the same sizes that is NaN throughout, everything has the bits it has in fresh memory."""
    stack = draw_stack(sizes)
    lf.set_spare_memory(0)
    fresh = solve_stack(stack, dropout=dropout, seed=1)
    lf.set_spare_memory(1 << 30)
    spoilt = stack.replace(x=np.full_like(stack.x, np.nan), dy=np.full_like(stack.dy, np.nan))
    solve_stack(spoilt, dropout=dropout, seed=1)
    assert core.spare_memory() > 0
    assert_all_same_bits(solve_stack(stack, dropout=dropout, seed=1), fresh)


def test_many_threads():
    """Give and take at the same time: right results, and never more than the limit."""
    lf.set_spare_memory(1 << 20)
    problems = [draw(10, batch, 8, 32) for batch in range(1, 9)]
    expected = [solve(problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            for found, wanted in zip(pool.map(solve, problems), expected, strict=True):
                assert_all_same_bits(found, wanted)
            assert core.spare_memory() <= 1 << 20


@pytest.mark.parametrize(
    ("nbytes", "error"), [(-1, ValueError), (2**63, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)]
)
def test_a_wrong_limit_changes_nothing(nbytes, error):
    lf.set_spare_memory(12345)
    with pytest.raises(error, match="nbytes"):
        lf.set_spare_memory(nbytes)
    assert core.spare_memory_limit() == 12345


@pytest.mark.parametrize(
    ("text", "limit"), [("", 256 << 20), ("0", 0), ("17", 17 << 20), ("-1", 256 << 20), ("1e3", 256 << 20)]
)
def test_environment(text, limit):
    script = "from lstm_fast import _lstm_fast_core as core; print(core.spare_memory_limit())"
    environment = os.environ | {"LSTM_FAST_SPARE_MB": text}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == limit, done.stderr
    assert ("LSTM_FAST_SPARE_MB: expected a number of MiB" in done.stderr) == (text in ("-1", "1e3"))
