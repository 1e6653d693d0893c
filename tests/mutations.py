"""Plants known defects into the kernels, one at a time, and tells whether the suite notices them.

    python tests/mutations.py            # all, about a minute each on one core
    python tests/mutations.py 6 28 31    # some, by number
    python tests/mutations.py --list

Works on a copy of the tree in a temporary folder: replaces a text, builds in place, runs the tests of the kernels until
the first failure, puts the text back. Every text to replace must occur exactly once: after a change of the kernels the
script says which one has to be written anew. Exit status 1 when a defect went unnoticed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from defects import DEFECTS, Defect

ROOT = Path(__file__).resolve().parent.parent
COPIED = ["csrc", "src", "python", "tests", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
# The tests that judge kernels, the quick ones first. Those of the command line, the bench and the demos are not asked.
SUITE = ["test_layouts", "test_single_steps", "test_ragged", "test_threads", "test_dropout", "test_lstm", "test_stack"]
SUITE += ["test_lean", "test_reproducibility", "test_special_values", "test_drawn_problems", "test_team"]
SUITE += ["test_math", "test_empty_problems", "test_layers", "test_layer_calls", "test_bad_input", "test_bad_stacks"]
SUITE += ["test_dispatch", "test_binary", "test_guard_pages", "test_layering", "test_memory", "test_concurrency"]
SUITE += ["test_reference", "test_spare_memory", "test_torch_modules", "test_torch_autograd", "test_torch_cells"]
SUITE += ["test_torch_extras", "test_torch_threads", "test_stream", "test_freeze", "test_split_units"]
SUITE += ["test_stress_threads", "test_torch_inference", "test_family", "test_family_pieces", "test_aids"]
SECONDS = 1800  # of one run of these tests: what has not ended by then hangs


class Verdict(NamedTuple):
    noticed: bool
    by: str  # the first test that failed


def copy_tree(to: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy(source, to / name)


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree / "python"), "PYTHONDONTWRITEBYTECODE": "1"}


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, *command]
    return subprocess.run(whole, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=SECONDS)


class Build:
    """Builds the tree in place once, and from then on only what a changed file goes into."""

    def __init__(self, tree: Path):
        self.tree = tree
        self.stale: set[str] = set()  # put back, but still built as they were changed
        done = run(tree, "setup.py", "build_ext", "--inplace")
        if done.returncode:
            raise SystemExit(f"the tree does not build:\n{done.stderr[-3000:]}")
        commands = [shlex.split(line) for line in done.stdout.splitlines() if " -o " in line]
        self.compile = {command[command.index("-c") + 1]: command for command in commands if "-c" in command}
        (self.link,) = (command for command in commands if "-shared" in command)
        self.built = self.link[self.link.index("-o") + 1]
        used = run(tree, "-c", "from lstm_fast import _lstm_fast_core as core; print(core.__file__)").stdout.strip()
        if not used.startswith(str(tree)):
            raise SystemExit(f"the tests would not see this tree, but {used}")
        self.installed = used

    def included(self, source: str) -> set[str]:
        """The names of the file and of all that it includes of ours, those included by these too."""
        found, left = {Path(source).name}, [source]
        ours = {path.name: path for folder in ("csrc", "src") for path in (self.tree / folder).rglob("*.h")}
        while left:
            for name in re.findall(r'#include "(?:.*/)?([^"/]+)"', (self.tree / left.pop()).read_text()):
                if name not in found:
                    found.add(name)
                    left.append(str(ours[name].relative_to(self.tree)))
        return found

    def again(self, changed: set[str]) -> None:
        """Compiles what these files, and those put back, go into."""
        changed = changed | self.stale
        names = {Path(name).name for name in changed}
        sources = {source for source in self.compile if names & self.included(source)}
        for command in (*(self.compile[source] for source in sorted(sources)), self.link):
            done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"the changed tree does not build:\n{done.stderr[-3000:]}")
        shutil.copy(self.tree / self.built, self.installed)


def test(tree: Path) -> Verdict:
    options = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line"]
    try:
        done = run(tree, *options, *(f"tests/{name}.py" for name in SUITE))
    except subprocess.TimeoutExpired:
        return Verdict(True, f"no end within {SECONDS} seconds")
    if done.returncode == 0:
        return Verdict(False, "")
    if failed := re.search(r"^(FAILED|ERROR) (\S+)", done.stdout, re.M):
        return Verdict(True, failed[2])
    crashed = re.search(r'File ".*(tests/test_\w+\.py)", line \d+ in (\w+)', done.stderr)  # faulthandler's stack
    place = f"{crashed[1]}::{crashed[2]}" if crashed else "an unknown test"
    return Verdict(True, f"{place}, exit status {done.returncode}")


def texts_to_replace(tree: Path, defect: Defect) -> dict[Path, str]:
    """The changed content of every file that the defect touches."""
    changed: dict[Path, str] = {}
    for name, old, new in defect.edits:
        path = tree / name
        text = changed.get(path) or path.read_text()
        if text.count(old) != 1:
            raise SystemExit(
                f"defect {defect.number}: this text occurs {text.count(old)} times in {name}, not once:\n{old}"
            )
        changed[path] = text.replace(old, new)
    return changed


def judge(build: Build, defect: Defect) -> Verdict:
    """Plants the defect, tests, and puts the files back; what was built from them is built again with the next."""
    changed = texts_to_replace(build.tree, defect)
    healthy = {path: path.read_text() for path in changed}
    names = {str(path.relative_to(build.tree)) for path in changed}
    for path, text in changed.items():
        path.write_text(text)
    build.again(names)
    verdict = test(build.tree)
    for path, text in healthy.items():
        path.write_text(text)
    build.stale = names
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant known defects and see whether the tests notice.")
    parser.add_argument("numbers", nargs="*", help="defects to plant (all by default)")
    parser.add_argument("--list", action="store_true", help="print the defects and check their texts; plant nothing")
    parser.add_argument("--skip-healthy", action="store_true", help="do not run the suite on the unchanged tree first")
    arguments = parser.parse_args()
    known = {defect.number: defect for defect in DEFECTS}
    if unknown := set(arguments.numbers) - set(known):
        parser.error(f"no defect {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [known[number] for number in arguments.numbers] or DEFECTS
    for defect in chosen:
        texts_to_replace(ROOT, defect)
    if arguments.list:
        print(*(f"{defect.number:>4}  {defect.what}" for defect in chosen), sep="\n")
        return 0
    unnoticed = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        copy_tree(tree)
        build = Build(tree)
        if not arguments.skip_healthy and (verdict := test(tree)).noticed:
            raise SystemExit(f"the unchanged tree fails: {verdict.by}")
        for defect in chosen:
            verdict = judge(build, defect)
            print(
                f"{defect.number:>4}  {defect.what}: {'noticed by ' + verdict.by if verdict.noticed else 'UNNOTICED'}",
                flush=True,
            )
            if not verdict.noticed:
                unnoticed.append(defect.number)
    print(
        f"{len(chosen) - len(unnoticed)} of {len(chosen)} noticed"
        + (f"; unnoticed: {', '.join(unnoticed)}" if unnoticed else "")
    )
    return bool(unnoticed)


if __name__ == "__main__":
    sys.exit(main())
