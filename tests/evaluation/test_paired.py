"""Paired differences: exact answers, order, and what chance alone gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from audiodiff.evaluation.paired import differences


def scores(*columns: list[float]) -> dict[str, dict[str, dict[str, float]]]:
    names = "abc"
    return {names[n]: {"m": {f"f{i}": v for i, v in enumerate(column)}} for n, column in enumerate(columns)}


def test_difference_is_the_mean_of_pairs_and_the_test_is_scipys() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(0.3, 1, 40), generator.normal(0, 1, 40)
    (found,) = differences(scores(one.tolist(), other.tolist()), ["m"], 0)
    assert found.mean == pytest.approx(float((one - other).mean()))
    assert found.p == pytest.approx(float(wilcoxon(one - other).pvalue))
    assert found.interval[0] < found.mean < found.interval[1]
    spread = float((one - other).std(ddof=1)) / np.sqrt(40)
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_systems_exchanged_change_the_sign_and_nothing_else() -> None:
    values = scores([1.0, 2, 3, 4, 6, 8, 9], [2.0, 2, 5, 4.5, 7, 8.5, 9.25])
    swapped = {"a": values["b"], "b": values["a"]}
    (one,), (other,) = differences(values, ["m"], 0), differences(swapped, ["m"], 0)
    assert one.mean == -other.mean
    assert one.p == other.p


def test_files_are_paired_by_name_and_only_common_ones_count() -> None:
    values = {"a": {"m": {"x": 1.0, "y": 2.0, "only": 100.0}}, "b": {"m": {"y": 1.0, "x": 0.5}}}
    (found,) = differences(values, ["m"], 0)
    assert (found.files, found.mean, found.p) == (2, 0.75, None)
    assert differences({"a": {"m": {"x": 1.0}}, "b": {"m": {"x": 2.0}}}, ["m"], 0) == []


def test_equal_systems_do_not_differ() -> None:
    (found,) = differences(scores([1.0] * 8, [1.0] * 8), ["m"], 0)
    assert (found.mean, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_many_comparisons_are_corrected_by_holm() -> None:
    generator = np.random.default_rng(1)
    base = generator.normal(size=30)
    values = scores(base.tolist(), (base + generator.normal(0.4, 1, 30)).tolist(), (base + 2).tolist())
    found = differences(values, ["m"], 0)
    raw = {}
    for each in found:
        gaps = np.array(list(values[each.first]["m"].values())) - np.array(
            list(values[each.second]["m"].values())
        )
        raw[each.first, each.second] = float(wilcoxon(gaps).pvalue)
    ordered = sorted(raw, key=lambda pair: raw[pair])
    expected, highest = {}, 0.0
    for place, pair in enumerate(ordered):
        highest = max(highest, min(1.0, raw[pair] * (3 - place)))
        expected[pair] = highest
    assert {(each.first, each.second): each.p for each in found} == pytest.approx(expected)


def test_chance_alone_is_seldom_called_a_difference() -> None:
    generator = np.random.default_rng(2)
    called = 0
    for _ in range(200):
        pair = generator.normal(size=(2, 20))
        (found,) = differences(scores(*pair.tolist()), ["m"], 0)
        called += found.p is not None and found.p < 0.05
    assert called <= 20  # 5 % of 200 and three deviations
