"""Group step: one step through the cell function, as in streaming; weights are packed or read anew each time."""

from lstm_fast.bench.engines import STEP
from lstm_fast.bench.points import STEP_SIZES, Grid, grid_problems
from lstm_fast.bench.problems import KERNELS

PROBLEMS = [problem for kernel in KERNELS for problem in grid_problems(kernel, Grid((1,), STEP_SIZES))]


def bench_step(measure, case):
    measure(case, STEP)
