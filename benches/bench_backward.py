"""Group forward+backward: a training pass. One group, since every engine saves in forward what its backward needs."""

from lstm_fast.bench.engines import TRAIN
from lstm_fast.bench.points import problems_of_benches
from lstm_fast.bench.problems import KERNELS

PROBLEMS = [problem for kernel in KERNELS for problem in problems_of_benches(kernel)]


def bench_backward(measure, case):
    measure(case, TRAIN)
