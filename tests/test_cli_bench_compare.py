"""``lstm-fast bench --compare``: shares of the peak then and now, its verdict, and files that it refuses."""

from __future__ import annotations

import json
import re
import sys

import pytest
from lstm_fast import cli
from lstm_fast.bench import sweep

POINT = ["--seq", "40", "--batch", "2", "--hidden", "8"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run one small point on what counts as a quiet machine; returns the exit code and the JSON."""
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("lstm_fast.bench.peers.PEERS", ())
    measure = sweep.alternate

    def quiet(*arguments, **options):
        samples, shares = measure(*arguments, **options)
        return samples, dict.fromkeys(shares, 1.0)

    monkeypatch.setattr(sweep, "alternate", quiet)

    def run(*arguments, point=POINT):
        code = cli.main(["bench", *point, "--json", "new.json", *arguments])
        return code, json.loads((tmp_path / "new.json").read_text())

    return run


@pytest.fixture
def old(bench, tmp_path):
    """Writes the file of an earlier run: this machine's, changed by a function of a row."""

    def write(change=lambda row: None, **header):
        _, content = bench()
        for row in content["rows"]:
            change(row)
        path = tmp_path / "old.json"
        path.write_text(json.dumps(content | header))
        return str(path)

    return write


def scaled(factor):
    def change(row):
        row["peak_share"] *= factor

    return change


def test_no_point_slower_is_a_success(bench, old, capsys):
    path = old(scaled(0.1))
    capsys.readouterr()
    code, _ = bench("--compare", path)
    assert code == 0
    streams = capsys.readouterr()
    for text in ("share of each run's own FMA peak", "then", "now", "change", "old.json", "+"):
        assert text in streams.out
    assert "SLOWER" not in streams.err


def test_a_slower_point_fails_and_is_named_with_both_shares(bench, old, capsys):
    def change(row):
        row["peak_share"] *= 100 if row["pass"] == "forward" else 0.1

    code, _ = bench("--compare", old(change))
    assert code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("SLOWER")]
    assert len(lines) == 1
    assert lines[0].startswith("SLOWER: lstm float32 T 40 B 2 H 8 forward: ")
    assert "% of the peak then" in lines[0]


def test_says_how_many_points_both_have(bench, old, capsys):
    path = old(scaled(0.1))
    assert bench("--compare", path, point=["--seq", "40", "50", *POINT[2:]])[0] == 0
    assert "; 2 of 4 points found there" in capsys.readouterr().out


def test_shares_are_compared_and_not_times(bench, old):
    """A machine that is a thousand times as fast, on which we reached as large a share of its peak, or less."""

    def change(row):
        row["peak_share"] *= 0.1
        row["ns_per_step"] /= 1000
        row["gflops"] *= 1000

    assert bench("--compare", old(change))[0] == 0


def test_tolerance_is_the_part_that_may_be_lost(bench, old):
    path = old(scaled(4))  # a quarter left: 75 % lost, give or take what the two runs differ by
    assert bench("--compare", path, "--tolerance", "99")[0] == 0
    assert bench("--compare", path, "--tolerance", "10")[0] == 1


def test_a_point_of_a_busy_machine_is_shown_and_not_judged(bench, old, capsys):
    def change(row):
        busy = row["pass"] == "forward"
        row["peak_share"] *= 100 if busy else 0.1
        row["cpu_share"] = 0.5 if busy else 1.0

    code, _ = bench("--compare", old(change))
    assert code == 0
    assert "busy" in capsys.readouterr().out


def test_nothing_but_busy_points_is_no_success(bench, old, capsys):
    code, _ = bench("--compare", old(lambda row: row.update(cpu_share=0.5)))
    assert code == 1
    assert "NOT JUDGED: no point" in capsys.readouterr().err


def refused(capsys, *arguments):
    capsys.readouterr()
    assert cli.main(["bench", *POINT, "--json", "never.json", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lstm-fast: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON at all", "expected a JSON file of lstm-fast bench, got .*: no JSON"),
        ("[1, 2]", "other JSON"),
        ('{"format": 1, "rows": [{"peak_share": NaN}], "machine": {}}', "no JSON"),
        ('{"format": 99, "rows": [], "machine": {}}', "expected a file of format 1, got .* of format 99"),
        ('{"format": 1, "rows": [{"case": "LSTM"}], "machine": {}}', "without --torch"),
    ],
)
def test_other_files_are_refused_before_measuring(content, message, bench, capsys, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    assert re.search(message, refused(capsys, "--compare", str(path)))
    assert not (tmp_path / "never.json").exists()


def test_missing_file_points_of_others_and_other_threads_are_refused(bench, old, capsys, tmp_path):
    assert "cannot read" in refused(capsys, "--compare", str(tmp_path / "nothing.json"))
    path = old()
    assert "has no point of this run" in refused(capsys, "--compare", path, "--seq", "41")
    assert "has no point of this run" in refused(capsys, "--compare", path, "--dtype", "float64")
    assert "expected a file of 2 threads" in refused(capsys, "--compare", path, "--threads", "2")
    assert "expected --compare beside it" in refused(capsys, "--tolerance", "5")
    assert "--compare" in refused(capsys, "--torch", "--compare", path)
