"""Group forward: inference over a whole sequence."""

from lstm_fast.bench.engines import FORWARD
from lstm_fast.bench.points import problems_of_benches
from lstm_fast.bench.problems import KERNELS

PROBLEMS = [problem for kernel in KERNELS for problem in problems_of_benches(kernel)]


def bench_forward(measure, case):
    measure(case, FORWARD)
