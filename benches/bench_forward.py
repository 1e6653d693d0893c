"""Group forward: inference over a whole sequence."""

from lstm_fast.bench.engines import FORWARD
from lstm_fast.bench.problems import BENCHES, KERNELS, grid_problems

PROBLEMS = [problem for kernel in KERNELS for problem in grid_problems(kernel, BENCHES)]


def bench_forward(measure, case):
    measure(case, FORWARD)
