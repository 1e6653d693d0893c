"""Rows of the benches: every point of a module's PROBLEMS, for lstm_fast on each instruction set and for each peer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from lstm_fast import _lstm_fast_core as core
from lstm_fast import isa
from lstm_fast.bench import machine
from lstm_fast.bench.engines import STEP, TRAIN, EngineClass, UnsupportedError, can_run, expected, timed_call
from lstm_fast.bench.peers import all_engines, engine_version, missing_packages
from lstm_fast.bench.problems import Arrays, Problem
from lstm_fast.bench.report import count, missing_line
from lstm_fast.bench.sweep import OURS, checked
from lstm_fast.bench.timing import FmaPeak
from lstm_fast.bench.verification import forced_isa

SCALAR_FLOPS = 2e9  # scalar is the oracle, not a path to speed: larger points would only take minutes


class Case(NamedTuple):
    """One row: a problem, who computes it and, for lstm_fast, on which instruction set."""

    problem: Problem
    engine: EngineClass
    isa: str | None

    def __str__(self) -> str:
        who = f"{self.engine.name}-{self.isa}" if self.isa else self.engine.name
        p = self.problem
        variant = "".join(f"-{part.replace(' ', '')}" for part in p.variant)
        return f"{who}-{p.dtype}-T{p.steps}-B{p.batch}-H{p.hidden}{variant}"


def cases(problem: Problem) -> Iterator[Case]:
    """The problem's rows, ours first."""
    for engine in all_engines():
        if engine.name == OURS:
            for name in core.isas_usable():
                if name != "scalar" or problem.flops(backward=True) <= SCALAR_FLOPS:
                    yield Case(problem, engine, name)
        elif not missing_packages(engine):
            yield Case(problem, engine, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=1, metavar="N", help="for every engine, default 1")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [c for p in metafunc.module.PROBLEMS for c in cases(p)], ids=str)


def pytest_report_header(config: pytest.Config) -> list[str]:
    threads = config.getoption("threads")
    lines = [f"{machine.cpu_model()}, {core.compiler()}, {isa()}, {count(threads, 'thread')}"]
    if threads > 1:
        lines.append(f"barrier of the threads: {core.barrier_ns(threads):,.0f} ns")
    return lines + [missing_line(engine) for engine in all_engines() if missing_packages(engine)]


@functools.lru_cache(maxsize=1)  # rows of one problem follow each other
def truth(problem: Problem) -> tuple[Arrays, dict[str, Arrays]]:
    """The problem's arrays and what the reference makes of them."""
    arrays = problem.arrays()
    return arrays, expected(problem, arrays)


@functools.lru_cache
def peak(dtype: str, isa_name: str) -> float:
    """The FMA peak of this run, GFLOP/s of one core; call with the instruction set already forced."""
    reading = FmaPeak(dtype)
    for _ in range(3):
        reading.read()
    return reading.gflops


@pytest.fixture(scope="session")
def engine_threads(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    with machine.engine_threads(pytestconfig.getoption("threads")) as used:
        yield used


@pytest.fixture
def measure(benchmark: Any, engine_threads: dict[str, str], pytestconfig: pytest.Config) -> Callable[[Case, str], None]:
    """Check a case once against the reference, then time one of its passes."""
    threads = pytestconfig.getoption("threads")

    def run(case: Case, which: str) -> None:
        problem = case.problem
        arrays, wanted = truth(problem)
        with forced_isa(case.isa or isa()):
            try:
                engine = case.engine(problem, arrays, threads)
            except UnsupportedError as reason:
                pytest.skip(f"{case.engine.name}: {reason}")
            if not can_run(engine, which):
                pytest.skip(f"{case.engine.name} has no {which}")
            result = checked(engine, problem, which, wanted[which])
            assert result.ok, f"{case}: {which} off by {result.error:.3g}, allowed {result.bound:.3g}"
            used = core.threads_used()
            benchmark.group = f"{which}: {problem}"
            benchmark.extra_info.update(machine.describe())
            benchmark.extra_info.update(
                {"engine": case.engine.name, "version": engine_version(case.engine), "isa": case.isa}
                | {"path": result.path}
                | {"threads": engine_threads.get(case.engine.name, str(threads)), "error": result.error}
                | ({"threads_used": used, "barrier_ns": core.barrier_ns(threads)} if case.isa else {})
                | {"peers": {e.name: engine_version(e) for e in all_engines() if not missing_packages(e)}}
            )
            benchmark(timed_call(engine, which))
            if benchmark.stats is not None and which != STEP:
                flops = problem.flops(backward=which == TRAIN)
                gflops = flops / benchmark.stats.stats.median * 1e-9
                benchmark.extra_info.update(gflops=gflops)
                if case.isa:
                    benchmark.extra_info.update(peak_share=gflops / (used * peak(problem.dtype, isa())))

    return run
