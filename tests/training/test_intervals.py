"""What is done every so many updates: when it is due, and which intervals are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiodiff.errors import InputError
from audiodiff.training.intervals import check_intervals, due
from audiodiff.training.loop import train
from tests.training.test_loop import QUIET, tiny_recipe


def test_it_is_due_at_every_multiple_and_at_the_end() -> None:
    settings = {"validate_every": 4, "updates": 10}
    assert [update for update in range(1, 11) if due(update, "validate_every", settings)] == [4, 8, 10]


@pytest.mark.parametrize("every", [0, -3, 2.5, None, "often"])
def test_an_interval_that_is_none_is_named(every: object) -> None:
    with pytest.raises(InputError, match=r"training\.sample_every: got .* 1 or more"):
        check_intervals({"updates": 10, "log_every": 1, "sample_every": every})


def test_a_run_refuses_it_before_it_reads_or_writes_anything(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.checkpoint_every"):
        train(
            tiny_recipe("training.checkpoint_every=0"),
            tmp_path / "no_corpus",
            tmp_path / "run",
            "test",
            QUIET,
        )
    assert not (tmp_path / "run" / "statistics.json").exists()
