"""The stock demo: the worked unit's published numbers, and that training reaches the predictions."""

from __future__ import annotations

import numpy as np
import pytest
from lstm_fast.demos import stock

# Short-term / long-term memory after each day, from zeros, as published with the weights.
PUBLISHED = {
    "A": [(-0.127755, -0.201247), (-0.096522, -0.202193), (-0.166218, -0.324621), (0.006393, 0.015270)],
    "B": [(0.276438, 0.499521), (0.611733, 0.913569), (0.867005, 1.480604), (0.969393, 2.409093)],
}


@pytest.mark.parametrize("company", [0, 1])
def test_worked_unit_gives_the_published_memories(company: int) -> None:
    days = stock.follow(stock.worked_unit())
    memories = np.stack([days.short_term[:, company], days.long_term[:, company]], axis=1)
    np.testing.assert_allclose(memories, PUBLISHED[stock.COMPANIES[company]], rtol=0, atol=1e-6)


def test_worked_unit_gates_explain_its_memories() -> None:
    d = stock.follow(stock.worked_unit())
    before = np.vstack([np.zeros(2), d.long_term[:-1]])
    np.testing.assert_allclose(d.long_term, d.remembered * before + d.admitted * d.potential, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d.short_term, d.let_out * np.tanh(d.long_term), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stock_training_reaches_both_predictions(seed: int) -> None:
    unit = stock.LSTM(1, 1, dtype=np.float64, seed=seed)
    lesson = stock.learn(unit)
    assert lesson.learned
    assert lesson.losses[-1] < 0.05 * lesson.losses[0]
    np.testing.assert_allclose(stock.follow(unit).short_term[-1], [0, 1], rtol=0, atol=0.1)


def test_stock_prints_the_table_and_fails_honestly(capsys: pytest.CaptureFixture[str]) -> None:
    assert stock.main([]) == 0
    printed = capsys.readouterr().out
    for rows in PUBLISHED.values():
        for memories in rows:
            assert all(f"{memory:.6f}" in printed for memory in memories)
    assert stock.main(["--steps", "3"]) == 1
    assert "NOT LEARNED" in capsys.readouterr().out
