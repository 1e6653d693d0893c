"""Group forward+backward: a training pass. One group, since every engine saves in forward what its backward needs."""

from lstm_fast.bench.engines import TRAIN
from lstm_fast.bench.problems import BENCHES, KERNELS, grid_problems

PROBLEMS = [problem for kernel in KERNELS for problem in grid_problems(kernel, BENCHES)]


def bench_backward(measure, case):
    measure(case, TRAIN)
