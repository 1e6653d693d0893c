"""Fixtures and the hypothesis profile of the whole suite."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from datetime import timedelta

import lstm_fast as lf
import pytest
from lstm_fast import _lstm_fast_core as core

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass  # the tests that need it skip themselves
else:
    # The same examples on every run; the deadline only ends a hang, it is no measurement.
    settings.register_profile(
        "lstm_fast",
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=20),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("lstm_fast")


_stderr = 2


def pytest_configure() -> None:
    """Keep the terminal's stderr for the last words of a hanging test: pytest takes the one of that number away."""
    global _stderr
    _stderr = os.dup(2)


@pytest.fixture(autouse=True)
def _settings_stay_as_they_were() -> Iterator[None]:
    before = lf.isa(), lf.get_num_threads(), core.spare_memory_limit()
    yield
    lf.set_isa(before[0])
    lf.set_num_threads(before[1])
    lf.set_spare_memory(before[2])
    core.set_split(core.Split.faster)


@pytest.fixture
def team() -> Iterator[None]:
    """Lets small problems, too, use as many threads as lf.set_num_threads says; core.threads_used() proves it."""
    core.use_team_always(True)
    # A barrier that is never passed cannot be interrupted: say where, and end the run.
    faulthandler.dump_traceback_later(120, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
    core.use_team_always(False)


@pytest.fixture(params=core.isas_usable())
def isa(request: pytest.FixtureRequest) -> str:
    """Forces each instruction set of this CPU in turn. test_dispatch.py proves that the forced one is what runs."""
    lf.set_isa(request.param)
    assert lf.isa() == request.param
    return str(request.param)
