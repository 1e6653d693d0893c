"""The command line: ``lstm-fast`` = ``python -m lstm_fast``; see ``lstm-fast COMMAND --help``.

Exit codes: 0 success, 1 a check failed, 2 a wrong argument or a missing optional package, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, config, get_num_threads, isa
from . import _lstm_fast_core as core
from .bench import machine, module_report, points, problems, sweep_report, verification
from .bench.compare import Old
from .bench.packages import MissingPackageError, optional_versions, require
from .bench.peers import all_engines, load_peer

DEMOS = {
    "text": "a language model learns to write from Python's documentation",
    "topics": "a classifier tells from which part of Python's documentation a sentence comes",
    "digits": "plain nn.LSTM and the accelerated one learn handwritten digits side by side",
    "recall": "RNN, GRU and LSTM have to tell the first symbol after 20, 100 and 500 steps",
    "stock": "one LSTM unit, followed by hand",
}
NOT_WITH_TORCH = (
    *("cell", "seq", "batch", "hidden", "layers", "bidirectional", "proj", "ragged", "dtype", "peer"),
    *("compare", "tolerance"),
)
TOLERANCE = 10.0  # percent: more than twice what runs of the same code differed by
COMPARE_HELP = "an earlier --json file: compare shares of each run's own FMA peak; 1 if a point got slower"
QUICK_BUDGET, FULL_BUDGET = 0.2, 0.5  # seconds for a point and pass beyond the least number of rounds


def _information() -> dict[str, Any]:
    try:
        chosen = isa()
    except ValueError as error:  # LSTM_FAST_ISA names none of this machine's: say so, as the kernels will
        chosen = f"none: {error}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # import has warned of a variable that holds no number
        default, source = config.threads_and_source()
    number = get_num_threads()
    return {
        "version": __version__,
        "compiler": core.compiler(),
        "isa": {"built": core.isas_built(), "usable": core.isas_usable(), "chosen": chosen},
        "threads": {
            "number": number,
            "source": source if number == default else "set_num_threads",
            "barrier_ns": core.barrier_ns(number),
        },
        "cpu": {"model": machine.cpu_model(), "usable": machine.usable_cpus()},
        "environment": machine.environment_variables(),
        "packages": {"numpy": require("numpy", "lstm_fast").__version__} | optional_versions(),
        "gpu": machine.gpus(),
        "location": str(Path(__file__).parent),
    }


def info(options: argparse.Namespace) -> int:
    """Print what this installation is and what it found."""
    facts = _information()
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    sets, threads, cpu = facts["isa"], facts["threads"], facts["cpu"]
    lines = {
        "lstm_fast": f"{facts['version']}  ({facts['location']})",
        "compiler": facts["compiler"],
        "isa built": " ".join(sets["built"]),
        "isa usable": " ".join(sets["usable"]),
        "isa chosen": sets["chosen"],
        "threads": f"{threads['number']}  (from {threads['source']})",
        "thread barrier": f"{threads['barrier_ns']:,.0f} ns" if threads["barrier_ns"] else "none: one thread",
        "cpu": f"{cpu['model']}, {cpu['usable']} usable",
        "gpu": ", ".join(facts["gpu"]) or "none found",
        "environment": " ".join(f"{n}={v}" for n, v in facts["environment"].items())
        or "no LSTM_FAST_* variable is set",
    }
    lines |= {name: version or "not installed" for name, version in facts["packages"].items()}
    for name, text in lines.items():
        print(f"{name:<17} {text}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check every kernel of this installation; 1 if one fails."""
    failed = 0
    print("errors of the values and of the gradients as a share of the allowed one, the worst of all shapes")
    isas = core.isas_usable()
    print(f"{'kernel':<14}{'layer':<15}{'shapes':>6}" + "".join(f"{name:>16}" for name in isas))
    for kernel in problems.KERNELS:
        for name in points.VERIFY:
            shapes = points.verify_problems(kernel, name)
            if not shapes:
                continue
            verdicts = verification.verify(kernel, name)
            wrong = [verdict for verdict in verdicts if not verdict.ok]
            failed += len(wrong)
            line = f"{kernel.cell} {kernel.dtype}".ljust(14) + f"{name:<15}{len(shapes):>6}"
            line += "".join(f"{verdict.values:>10.3f}{verdict.gradients:>6.3f}" for verdict in verdicts)
            print(line, f" FAILED on {', '.join(v.isa for v in wrong)}" if wrong else " ok", flush=True)
            for verdict in wrong:
                for what, count in (
                    ("inference and training", verdict.inference_differs),
                    ("save='lean' and 'gates'", verdict.lean_differs),
                ):
                    if count:
                        print(f"  {verdict.isa}: {what} differ in bits at {count} shapes")
    hashes = verification.certificates()
    same = len(set(hashes.values())) == 1
    failed += not same
    print(f"bits of {', '.join(hashes)}: {'equal' if same else 'FAILED: they differ'}")
    if options.certificate:
        for name, digest in list(hashes.items())[: 1 if same else None]:
            where = "" if same else f" on {name}"
            print(f"certificate of lstm_fast {__version__}{where}: sha256 {digest}")
    print(f"{failed} checks FAILED" if failed else "all checks passed")
    return 1 if failed else 0


def _grid(options: argparse.Namespace) -> list[problems.Problem]:
    full, quick = (points.RAGGED_FULL, points.RAGGED_QUICK) if options.ragged else (points.FULL, points.QUICK)
    grid = quick if options.quick else full
    sizes = grid.sizes
    if options.batch or options.hidden:
        batches = options.batch or sorted({b for b, _ in sizes})
        sizes = tuple((b, h) for b in batches for h in options.hidden or sorted({h for _, h in sizes}))
    kernel = problems.Kernel(options.cell, options.dtype)
    layer = {"layers": options.layers, "directions": 1 + options.bidirectional, "projection": options.proj}
    return points.grid_problems(
        kernel, points.Grid(tuple(options.seq or grid.steps), sizes), ragged=options.ragged, **layer
    )


def _refuse_with_torch(options: argparse.Namespace) -> None:
    """ValueError if there are options that the modules' cases, which are fixed, leave no place for."""
    defaults = parser().parse_args(["bench"])
    given = [f"--{name}" for name in NOT_WITH_TORCH if getattr(options, name) != getattr(defaults, name)]
    if given:
        raise ValueError(f"--torch: expected none of the options of the other sweep, got {', '.join(given)}")


def _verdict(wrong: Sequence[str], lost: Sequence[str] = ()) -> int:
    for line in wrong:
        print(f"WRONG RESULT: {line}", file=sys.stderr)
    for line in lost:
        print(line, file=sys.stderr)
    return 1 if wrong or lost else 0


def bench(options: argparse.Namespace) -> int:
    """Check, time, print and draw; 1 if a result was wrong, or a point slower than in the file of --compare."""
    number = options.threads
    budget = QUICK_BUDGET if options.quick else FULL_BUDGET
    figures, plot = (
        given or Path(f"{'bench-torch' if options.torch else 'bench'}.{end}")
        for given, end in ((options.json, "json"), (options.plot, "png"))
    )
    for package in ("rich",) if options.torch else ("rich", "matplotlib"):  # now, not after minutes of measuring
        require(package, "bench")
    for path in (figures, plot):
        if not path.parent.is_dir():
            raise ValueError(f"{path}: there is no directory {path.parent}")
    if options.torch:
        _refuse_with_torch(options)
        return _verdict(module_report.bench(options.quick, number, budget, figures, plot))
    if options.tolerance is not None and not options.compare:
        raise ValueError("--tolerance: expected --compare beside it, got none")
    old = Old(options.compare) if options.compare else None
    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    listed = all_engines(map(load_peer, options.peer))
    return _verdict(*sweep_report.bench(_grid(options), listed, number, budget, figures, plot, old, tolerance / 100))


def demo(options: argparse.Namespace) -> int:
    """Run one demo with the rest of the command line, or list them."""
    if options.name is None:
        for name, text in DEMOS.items():
            print(f"lstm-fast demo {name:<6} {text}")
        return 0
    result: int = importlib.import_module(f"lstm_fast.demos.{options.name}").main(options.arguments)
    return result


def gradients(options: argparse.Namespace) -> int:
    """Show how gradients decay or explode with distance; 1 if they differ from known products."""
    result: int = importlib.import_module("lstm_fast.demos.gradients").run(options.steps, options.seed, options.plot)
    return result


def positive(text: str) -> int:
    """An integer of 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def percent(text: str) -> float:
    """A number of 0 or more and below 100, for argparse."""
    number = float(text)
    if not 0 <= number < 100:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="lstm-fast", description=(__doc__ or "").split("\n")[0])
    root.add_argument("--version", action="version", version=f"lstm_fast {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("info", help="what this installation is and what it found")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=info)

    command = commands.add_parser("verify", help="check every kernel of this installation, in under a minute")
    command.add_argument(
        "--certificate", action="store_true", help="print the hash of its bits, equal on every machine"
    )
    command.set_defaults(run=verify)

    command = commands.add_parser("bench", help="speed beside NumPy and every installed peer; checked before timed")
    command.add_argument("--cell", choices=problems.CELLS, default=problems.CELLS[0])
    command.add_argument("--seq", type=positive, nargs="+", metavar="T", help="sequence lengths, default 16 to 4096")
    command.add_argument("--batch", type=positive, nargs="+", metavar="B", help="batch sizes, each with each --hidden")
    command.add_argument(
        "--hidden", type=positive, nargs="+", metavar="H", help="hidden sizes; the input size is the same"
    )
    command.add_argument("--layers", type=positive, default=1, metavar="L", help="layers, default 1")
    command.add_argument("--bidirectional", action="store_true", help="every layer in both directions")
    command.add_argument("--proj", type=positive, default=0, metavar="P", help="project h to P units, default: none")
    command.add_argument(
        "--ragged", action="store_true", help="rows of lengths uniform in 10..T, beside our own padded time"
    )
    command.add_argument("--dtype", choices=problems.DTYPES, default=problems.DTYPES[0])
    command.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="for every engine; 1 by default, since threads that one engine leaves spinning disturb the others",
    )
    command.add_argument("--quick", action="store_true", help="fewer points: ends within a minute on two cores")
    peer_help = "adds your own engine, see the text of lstm_fast.bench.engines; repeatable"
    command.add_argument("--peer", action="append", default=[], metavar="module:Class", help=peer_help)
    command.add_argument(
        "--torch",
        action="store_true",
        help="instead: modules of torch.nn beside those of lstm_fast.torch, a fixed list of cases; "
        "takes --quick, --threads, --json and --plot",
    )
    command.add_argument("--json", type=Path, metavar="F", help="default bench.json, with --torch bench-torch.json")
    command.add_argument("--plot", type=Path, metavar="F.png", help="default bench.png, with --torch bench-torch.png")
    command.add_argument("--compare", type=Path, metavar="OLD.json", help=COMPARE_HELP)
    command.add_argument(
        "--tolerance",
        type=percent,
        metavar="PERCENT",
        help="what a point may lose of its share of the FMA peak before --compare calls it slower, "
        f"default {TOLERANCE:g}: runs of the same code differed by up to 4",
    )
    command.set_defaults(run=bench)

    command = commands.add_parser("demo", help="train on real data; without a name, list the demos")
    command.add_argument("name", nargs="?", choices=DEMOS)
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on; try --help after the name")
    command.set_defaults(run=demo)

    command = commands.add_parser("gradients", help="how gradients decay or explode with distance: RNN, GRU, LSTM")
    command.add_argument("--steps", type=positive, default=1000, metavar="T", help="the longest distance, default 1000")
    command.add_argument("--seed", type=int, default=0, help="of weights and inputs, default 0")
    command.add_argument("--plot", type=Path, metavar="F.png", help="draw them (needs matplotlib)")
    command.set_defaults(run=gradients)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (argparse's own errors exit with 2)."""
    options = parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except (MissingPackageError, NotImplementedError, ValueError) as error:
        print(f"lstm-fast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lstm-fast: interrupted", file=sys.stderr)
        return 130  # as shells report a process ended by SIGINT
    return code
