"""Several evaluations side by side: common files, names, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiodiff.errors import InputError
from audiodiff.evaluation.several import compare_results
from audiodiff.synthesis.cost import Cost

ABOUT = {"name": "Quality", "unit": "dB", "better": "higher", "definition": "How good."}


def left_behind(folder: Path, title: str, values: dict[str, float], about: dict[str, str] = ABOUT) -> Path:
    def score(by_file: dict[str, float]) -> dict[str, Any]:
        mean = sum(by_file.values()) / len(by_file)
        return {
            "quality": {"mean": mean, "interval_95": [mean, mean], "files": by_file, "not_measurable": {}}
        }

    perfect = dict.fromkeys(values, 99.0)
    content = {
        "title": f"Results of {title}",
        "command": "audiodiff evaluate",
        "facts": {},
        "notes": [],
        "costs": {title: Cost(len(title), 10.0, 12, 10**6, 1e9, 10**8, "a machine").record()},
        "vocoder": {
            "metrics": {"quality": about},
            "systems": {"recording": score(perfect), title: score(values)},
        },
    }
    (folder / "results").mkdir(parents=True)
    (folder / "results" / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_only_common_files_count_and_the_others_are_said(tmp_path: Path) -> None:
    one = left_behind(tmp_path / "one", "one", {f"f{n}": float(n) for n in range(8)} | {"extra": 1000.0})
    other = left_behind(tmp_path / "other", "other", {f"f{n}": n + 1.0 for n in range(8)})
    text = compare_results([str(one), str(other)], tmp_path / "out", "the command", 0, 0)
    assert "8 files that all have; 1 others left out" in text
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["systems"]["one"]["quality"]["value"] == pytest.approx(3.5)
    (difference,) = record["differences"]
    assert (difference["mean"], difference["files"]) == (-1.0, 8)
    assert difference["p"] == pytest.approx(2 * 0.5**8)  # all eight on one side
    assert "| 0.3 | 12 | 1 | 1 | 100 | a machine |" in text
    assert record["costs"]["other"]["real_time_factor"] == 0.5
    assert "Differences, file by file" in (tmp_path / "out" / "report.html").read_text()


def test_without_a_common_file_no_pairs_are_tested(tmp_path: Path) -> None:
    folders = [
        left_behind(tmp_path / name, name, {f"{name}{n}": 1.0 for n in range(8)}) for name in ("one", "other")
    ]
    text = compare_results([str(each) for each in folders], tmp_path / "out", "the command", 0, 0)
    assert "no pairs are tested" in text
    assert "Differences" not in text


def test_one_experiment_twice_needs_names(tmp_path: Path) -> None:
    one = left_behind(tmp_path / "one", "one", {"f": 1.0, "g": 2.0})
    again = left_behind(tmp_path / "again", "one", {"f": 2.0, "g": 3.0})
    with pytest.raises(InputError, match="one twice"):
        compare_results([str(one), str(again)], tmp_path / "out", "", 0, 0)
    text = compare_results([str(one), f"later={again}"], tmp_path / "out", "", 0, 0)
    assert "| later | 2.50" in text


@pytest.mark.parametrize("problem", ["absent", "damaged", "alone", "other definition"])
def test_what_cannot_be_compared_is_refused(tmp_path: Path, problem: str) -> None:
    one = left_behind(tmp_path / "one", "one", {"f": 1.0})
    other = left_behind(tmp_path / "other", "other", {"f": 1.0}, ABOUT | {"definition": "Else."})
    given = [str(one), str(other)]
    message = "defined differently"
    if problem == "absent":
        given, message = [str(one), str(tmp_path)], "holds no metrics.json"
    elif problem == "alone":
        given, message = [str(one)], "two or more"
    elif problem == "damaged":
        (other / "results" / "metrics.json").write_text('{"title":')
        message = "damaged"
    with pytest.raises(InputError, match=message):
        compare_results(given, tmp_path / "out", "", 0, 0)
    assert not (tmp_path / "out").exists()
