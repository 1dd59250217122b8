"""An interval of numbers as the values of a label: text in, numbers out, and the function that hears them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiodiff.conditioning.label import Labels
from audiodiff.data.entries import Entry, Summary
from audiodiff.data.labels import check_labels
from audiodiff.errors import InputError
from audiodiff.interval import Interval, label_values
from audiodiff.synthesis.generation import label_sets
from audiodiff.types import Batch

PITCH = {"low": 21, "high": 108}


def labels(**names: object) -> Labels:
    torch.manual_seed(0)
    return Labels(names, 8).eval()  # type: ignore[arg-type]


def vector(model: Labels, **values: tuple[str, ...]) -> torch.Tensor:
    count = len(next(iter(values.values())))
    heard = model(Batch(None, torch.ones(count, dtype=torch.int64), values)).vector
    assert heard is not None
    return heard.detach()


def test_an_interval_lists_its_whole_steps_and_holds_what_lies_between() -> None:
    interval = Interval(-60, 0, 3)
    assert [interval[0], interval[-1], *interval[19:]] == ["-60", "0", "-3", "0"]
    assert len(interval) == 21
    assert [text in interval for text in ("-23.4", "-60", "0")] == [True] * 3
    assert [text in interval for text in ("0.1", "kick", "nan", "inf", "")] == [False] * 5
    assert len(Interval(0, 1, 0.1)) == 11


@given(low=st.floats(-100, 100), width=st.floats(0.01, 100), steps=st.floats(0.05, 40), place=st.floats(0, 1))
def test_any_is_told_from_every_number(low: float, width: float, steps: float, place: float) -> None:
    interval = Interval(low, low + width, width / steps)
    number = min(low + place * width, interval.high)
    assert (number - interval.low) / interval.step < len(interval)


@pytest.mark.parametrize(
    "node",
    [
        {"low": 1},
        {"low": 1, "high": 0},
        {"low": 0, "high": 1, "step": 0},
        {"low": "a", "high": 1},
        {"high": 1, "top": 2},
    ],
)
def test_what_is_no_interval_is_refused(node: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        label_values("pitch", node)


def test_numbers_near_each_other_are_heard_alike_and_any_is_none_of_them() -> None:
    model = labels(pitch=PITCH)
    near = vector(model, pitch=("60", "60.01", "90", ""))
    assert (near[0] - near[1]).norm() < 0.05 * (near[0] - near[2]).norm()
    assert torch.equal(near[3], model.null(Batch(None, torch.ones(1, dtype=torch.int64))).vector[0])  # type: ignore[index]
    assert (near[3] - near[0]).norm() > 0.1


def test_names_and_numbers_add_up() -> None:
    both = labels(kind=["a", "b"], pitch=PITCH)
    together = vector(both, kind=("b",), pitch=("33.5",))
    apart = vector(both, kind=("b",), pitch=("",)) + vector(both, kind=("",), pitch=("33.5",))
    nothing = vector(both, kind=("",), pitch=("",))
    torch.testing.assert_close(together, apart - nothing)


def test_rows_of_whole_steps_are_the_numbers() -> None:
    model = labels(kind=["a", "b"], pitch={"low": 0.0, "high": 10.0, "step": 2.5})
    heard = model.of_rows(torch.tensor([[1, 2], [2, 5]])).vector
    torch.testing.assert_close(heard, vector(model, kind=("b", ""), pitch=("5", "")))


@pytest.mark.parametrize("text", ["20", "109", "high", "nan"])
def test_a_number_outside_is_refused_with_the_interval(text: str) -> None:
    with pytest.raises(InputError, match="21 to 108"):
        vector(labels(pitch=PITCH), pitch=(text,))


def test_the_manifests_numbers_have_to_lie_within_the_recipes_interval() -> None:
    clips = [Entry(str(n), "", 0, 1, 8000, (0,), {"level": level}) for n, level in enumerate(("-3.5", "-61"))]
    check_labels(Summary.of(clips[:1]), {"level": {"low": -60, "high": 0}})
    with pytest.raises(InputError, match=r"-60 to 0.*-61"):
        check_labels(Summary.of(clips), {"level": {"low": -60, "high": 0}})


def test_numbers_are_asked_for_by_name_and_made_one_by_one() -> None:
    known = {"kind": ("a", "b"), "pitch": Interval(60, 62)}
    assert label_sets(known, ["a", "pitch=60.5"], [], 1) == [{"kind": "a", "pitch": "60.5"}]
    assert [one["pitch"] for one in label_sets(known, [], ["pitch"], 2)] == [
        "60",
        "60",
        "61",
        "61",
        "62",
        "62",
    ]
    with pytest.raises(InputError, match="unknown to this model"):
        label_sets(known, ["61"], [], 1)
    with pytest.raises(InputError, match="a number from 60 to 62"):
        label_sets(known, ["pitch=63"], [], 1)
