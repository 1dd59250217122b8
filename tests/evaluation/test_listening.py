"""Blind listening tests: what is asked, what is kept secret, what is refused, and exact statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.cli.app import app
from audiodiff.errors import InputError
from audiodiff.evaluation.listening.analysis import contrasts, detections, opinions, screened
from audiodiff.evaluation.listening.answers import Choice, Rating, read_answers, read_key
from audiodiff.evaluation.listening.design import REFERENCE, Design, Question, design
from audiodiff.evaluation.listening.page import render, write_test
from audiodiff.evaluation.listening.report import write_results
from audiodiff.evaluation.listening.stimuli import low_pass, pair_up, prepare

RATE = 16000
SYSTEMS = ("fine-voice", "coarse-voice")


def noise(path: Path, seconds: float = 0.1, level: float = 0.1, channels: int = 1, rate: int = RATE) -> Path:
    seed = torch.Generator().manual_seed(sum(map(ord, path.stem + path.parent.name)))
    io.write(path, level * torch.rand(channels, round(seconds * rate), generator=seed), rate)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three folders of four sounds each; the first is the reference."""
    names = (REFERENCE, *SYSTEMS)
    for place, name in enumerate(names):
        for number in range(4):
            noise(tmp_path / name / f"spoken-{number}.wav", level=0.1 * (1 + place))
    return {name: tmp_path / name for name in names}


def asked(kind: str, folders: dict[str, Path], **others: Any) -> Design:
    systems = {name: folder for name, folder in folders.items() if name != REFERENCE}
    return design(Question(kind, systems, folders[REFERENCE], **others), "the command")


@pytest.mark.parametrize(("kind", "trials", "sounds"), [("mos", 9, 12), ("mushra", 3, 20), ("abx", 9, 12)])
def test_every_file_but_the_practice_is_asked_of_every_system(
    folders: dict[str, Path], kind: str, trials: int, sounds: int
) -> None:
    made = asked(kind, folders)
    assert len(made.trials) == trials
    assert len(made.sounds) == sounds
    assert len({trial["id"] for trial in made.trials}) == trials
    owners = made.key["sounds"]
    files = {owners[sound]["file"] for trial in made.trials for sound in trial["sounds"]}
    assert files == set(made.key["files"])
    assert len(files) == 3
    practised = {owners[sound]["file"] for trial in made.practice for sound in trial["sounds"]}
    assert practised == {made.key["practice_file"]}
    assert len(made.practice) == {"mos": 3, "mushra": 1, "abx": 3}[kind]
    assert made.key["practice_file"] not in files
    for trial in made.trials:
        systems = [owners[sound]["system"] for sound in trial["sounds"]]
        assert len({owners[sound]["file"] for sound in trial["sounds"]}) == 1
        if kind == "mushra":
            assert sorted(systems) == sorted((REFERENCE, "anchor-3500", *SYSTEMS))
            assert owners[trial["reference"]]["system"] == REFERENCE
            assert (
                trial["reference"] not in trial["sounds"]
            )  # what is open has another name than what is hidden
        else:
            assert len(set(systems)) == (1 if kind == "mos" else 2)


def test_page_says_nothing_of_systems_and_files_and_asks_nothing_of_the_network(
    folders: dict[str, Path],
) -> None:
    for kind in ("mos", "mushra", "abx"):
        page = render(asked(kind, folders))
        for secret in (*SYSTEMS, "spoken-", str(folders[REFERENCE]), "http:", "https:", "Anchor"):
            assert secret not in page, secret
        assert page.count("data:audio/flac") == len(asked(kind, folders).sounds)


def test_same_seed_gives_the_same_test_and_another_seed_another(folders: dict[str, Path]) -> None:
    first, again, other = (asked("mushra", folders, seed=seed) for seed in (1, 1, 2))
    assert render(first) == render(again)
    assert first.key == again.key
    assert first.test != other.test
    assert not set(first.sounds) & set(other.sounds)


def test_so_many_files_as_asked_are_heard_and_pairs_are_repeated(folders: dict[str, Path]) -> None:
    made = asked("abx", folders, files=2, repeats=3)
    assert len(made.key["files"]) == 2
    assert len(made.trials) == 2 * 3 * 3
    assert len(made.sounds) == 3 * 3


@pytest.mark.parametrize(("cutoff", "rate"), [(3500.0, 44100), (3500.0, 16000), (1600.0, 8000)])
def test_anchor_is_the_standard_s_low_pass(cutoff: float, rate: int) -> None:
    impulse = np.zeros((rate, 1))
    impulse[rate // 2] = 1
    response = np.abs(np.fft.rfft(low_pass(impulse, rate, cutoff)[:, 0]))
    decibels = 20 * np.log10(np.maximum(response, 1e-9))
    frequency = np.fft.rfftfreq(rate, 1 / rate) * 3500 / cutoff
    assert np.abs(decibels[frequency <= 3500]).max() <= 0.1
    assert decibels[frequency >= 4000].max() <= -25
    assert decibels[frequency >= 4500].max() <= -50
    assert np.argmax(low_pass(impulse, rate, cutoff)) == rate // 2  # nothing is delayed


@pytest.mark.parametrize(
    ("rate", "given", "anchors"),
    [
        (22050, (), {"anchor-3500", "anchor-7000"}),
        (RATE, (), {"anchor-3500"}),  # 7 kHz takes nothing away here
        (8000, (1600.0,), {"anchor-1600"}),
        (22050, (2000.0, 5000.0), {"anchor-2000", "anchor-5000"}),
    ],
)
def test_anchors_are_the_standard_s_as_far_as_the_rate_has_them_or_those_asked_for(
    tmp_path: Path, rate: int, given: tuple[float, ...], anchors: set[str]
) -> None:
    folders = {name: tmp_path / name for name in (REFERENCE, "one")}
    for folder in folders.values():
        for number in range(2):
            noise(folder / f"{number}.wav", rate=rate)
    made = asked("mushra", folders, anchors_hz=given)
    heard = {made.key["sounds"][sound]["system"] for sound in made.trials[0]["sounds"]}
    assert heard == {REFERENCE, "one", *anchors}
    outside_the_standard = anchors != {"anchor-3500", "anchor-7000"}
    assert ("BS.1534-3 wants 3500 and 7000 Hz" in made.key["notes"][-1]) is outside_the_standard


def test_no_anchor_at_all_is_refused(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in (REFERENCE, "one")}
    for folder in folders.values():
        for number in range(2):
            noise(folder / f"{number}.wav", rate=8000)
    with pytest.raises(InputError, match="pass --anchor 1600"):
        asked("mushra", folders)


def test_matched_levels_are_those_of_the_reference(folders: dict[str, Path]) -> None:
    files = pair_up(folders)
    for matched, spread in ((False, 9.0), (True, 1e-6)):
        for systems in prepare(files, True, matched).sounds.values():
            levels = [loudness_db(torch.from_numpy(sound.T), RATE) for sound in systems.values()]
            assert (max(levels) - min(levels) < spread) is (matched or spread > 10)
    assert "matched by the loudest 50 ms" in prepare(files, True, True).notes[0]


def test_other_rates_are_brought_to_the_highest_and_little_differences_of_length_are_cut(
    tmp_path: Path,
) -> None:
    paths = {
        "a": noise(tmp_path / "a" / "x.wav", 0.5, rate=8000),
        "b": noise(tmp_path / "b" / "x.wav", 0.505),
    }
    made = prepare({"x": paths}, True, False)
    assert made.sample_rate == RATE
    assert {sound.shape for sound in made.sounds["x"].values()} == {(RATE // 2, 1)}
    assert len(made.notes) == 2
    uncut = prepare({"x": paths}, False, False).sounds["x"]
    assert uncut["b"].shape[0] > uncut["a"].shape[0]


def test_names_that_do_not_pair_up_are_listed(folders: dict[str, Path]) -> None:
    (folders["fine-voice"] / "spoken-2.wav").unlink()
    noise(folders["coarse-voice"] / "alone.wav")
    with pytest.raises(InputError) as caught:
        asked("mos", folders)
    for told in ("alone (reference)", "alone (fine-voice)", "spoken-2 (fine-voice)"):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "others", "message"),
    [
        ("pesq", {}, "choose one of mos, mushra, abx"),
        ("mos", {"repeats": 2}, "belongs to --kind abx"),
        ("mos", {"anchors_hz": [1000.0]}, "belongs to --kind mushra"),
        ("mos", {"seed": -1}, "expected 0"),
        ("abx", {"files": 0}, "1 or more"),
        ("mushra", {"anchors_hz": [7500.0]}, "as it is; pass --anchor 3200"),
        ("mushra", {"anchors_hz": [1000.0, 1000.0]}, "each once"),
        ("mushra", {"anchors_hz": [1000.0, 2000.0, 3000.0]}, "at most 2"),
    ],
)
def test_what_makes_no_test_is_refused(
    folders: dict[str, Path], kind: str, others: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        asked(kind, folders, **others)


def test_systems_that_make_no_test_are_refused(folders: dict[str, Path]) -> None:
    one = {"fine-voice": folders["fine-voice"]}
    for question, message in (
        (Question("mushra", one), "pass --reference DIR"),
        (Question("abx", one), "expected 2 or more"),
        (Question("mos", {REFERENCE: folders[REFERENCE]}), "this name is taken"),
        (
            Question("mushra", {f"s{n}": folders[REFERENCE] for n in range(10)}, folders[REFERENCE]),
            "too many",
        ),
        (Question("mos", {"none": folders[REFERENCE] / "none"}), "no such folder"),
    ):
        with pytest.raises(InputError, match=message):
            design(question, "")


@pytest.mark.parametrize("problem", ["long", "stereo", "silent", "nan", "alone"])
def test_sounds_that_cannot_be_compared_are_refused(folders: dict[str, Path], problem: str) -> None:
    path = folders["fine-voice"] / "spoken-1.wav"
    if problem == "long":
        noise(path, 0.15)
    elif problem == "stereo":
        noise(path, channels=2)
    elif problem == "silent":
        io.write(path, torch.zeros(1, 1600), RATE)
    elif problem == "nan":
        import soundfile

        soundfile.write(path, np.full(1600, np.nan, np.float32), RATE, "FLOAT")
    else:
        for folder in folders.values():
            for number in (0, 2, 3):
                (folder / f"spoken-{number}.wav").unlink()
    message = {
        "long": "lengths differ",
        "stereo": "channels differ",
        "silent": "is silent",
        "alone": "one file alone",
    }
    with pytest.raises(InputError, match=message.get(problem, "spoken-1.wav")):
        asked("abx", folders)


def answer_file(made: Design, path: Path, listener: str, answers: Any, changes: Any = None) -> Path:
    content = {"test": made.test, "kind": made.kind, "listener": listener, "answers": answers}
    path.write_text(json.dumps(content | (changes or {})))
    return path


def mos_answers(made: Design, scores: dict[str, int]) -> list[dict[str, Any]]:
    found = []
    for trial in made.trials:
        (sound,) = trial["sounds"]
        found.append(
            {"trial": trial["id"], "sound": sound, "score": scores[made.key["sounds"][sound]["system"]]}
        )
    return found


def test_answers_are_read_by_the_key_and_reported(folders: dict[str, Path], tmp_path: Path) -> None:
    made = asked("mos", folders)
    _, key = write_test(made, tmp_path / "test")
    scores = {REFERENCE: 5, "fine-voice": 4, "coarse-voice": 2}
    every = mos_answers(made, scores)
    files = [
        answer_file(made, tmp_path / "anna.json", "anna", every),
        answer_file(made, tmp_path / "ben.json", "ben", every[:4]),
    ]
    text = write_results(files, key, tmp_path / "out", 0, "the command")
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: each["mean"] for name, each in numbers["systems"].items()} == scores
    assert numbers["incomplete"] == {"ben": 4}
    assert "ben answered 4 of 9 questions" in text
    assert "One listener alone" not in text
    assert "One listener alone" in write_results(files[:1], key, tmp_path / "one", 0, "the command")
    assert "| fine-voice | 4.00 [4.00, 4.00] | 0.00 |" in text
    assert (tmp_path / "out" / "RESULTS.md").read_text() == text
    assert (tmp_path / "out" / "results.png").stat().st_size > 5000
    assert write_results([tmp_path], key, tmp_path / "out", 0, "the command") == text  # a folder of them


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": "other"}, "answers of another test"),
        ({"kind": "abx"}, "answers of another test"),
        ({"listener": "anna"}, "both are of listener 'anna'"),
        ({"answers": [{"trial": "x"}]}, "trial x is not of this test"),
        ({"answers": None}, "changed by hand"),
        ({"score": 6}, "score 6 is not from 1 to 5"),
        ({"score": "5"}, "score '5'"),
        ({"sound": "x"}, "rates other sounds"),
        ({"twice": True}, "is answered twice"),
    ],
)
def test_answers_that_are_none_are_refused(
    folders: dict[str, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    made = asked("mos", folders)
    key = read_key(write_test(made, tmp_path / "test")[1])
    every = mos_answers(made, dict.fromkeys((REFERENCE, *SYSTEMS), 3))
    first = answer_file(made, tmp_path / "first.json", "anna", every)
    changed = [every[0] | {name: changes[name] for name in ("score", "sound") if name in changes}]
    changed *= 2 if "twice" in changes else 1
    content = {name: value for name, value in changes.items() if name not in ("score", "sound", "twice")}
    second = answer_file(made, tmp_path / "second.json", "ben", changed, content)
    with pytest.raises(InputError, match=message):
        read_answers([first, second], key)


def test_files_that_are_no_answers_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    made = asked("mos", folders)
    page, key = write_test(made, tmp_path / "test")
    for given, message in (
        (page, "no JSON"),
        (tmp_path / "none.json", "cannot be read"),
        (tmp_path / "test", "no .json files"),  # the key is none
        (answer_file(made, tmp_path / "e.json", "e", []), "not one answer"),
    ):
        with pytest.raises(InputError, match=message):
            read_answers([given], read_key(key))
    with pytest.raises(InputError, match="not a key"):
        read_key(tmp_path / "e.json")


def test_command_line_makes_and_analyses(folders: dict[str, Path], tmp_path: Path) -> None:
    given = [f"--system={name}={folders[name]}" for name in SYSTEMS]
    out = tmp_path / "test"
    made = CliRunner().invoke(app, ["listening-test", "make", "--kind", "mos", *given, "--out", str(out)])
    assert made.exit_code == 0, made.output
    assert "keep" in made.output
    key = read_key(out / "key.json")
    answers = [{"trial": trial, "sound": sounds[0], "score": 3} for trial, sounds in key.trials.items()]
    content = {"test": key.test, "kind": "mos", "listener": "anna", "answers": answers}
    (tmp_path / "anna.json").write_text(json.dumps(content))
    command = ["listening-test", "results", str(tmp_path / "anna.json"), "--key", str(out / "key.json")]
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "found")])
    assert found.exit_code == 0, found.output
    assert "| coarse-voice | 3.00 [3.00, 3.00] |" in found.output


def test_screening_is_that_of_the_standard() -> None:
    def ratings(listener: str, missed: int) -> list[Rating]:
        scores = [89.0] * missed + [90.0] * (20 - missed)
        return [Rating(listener, f"f{n}", REFERENCE, score) for n, score in enumerate(scores)]

    found = screened([*ratings("keen", 0), *ratings("edge", 3), *ratings("deaf", 4)])
    assert found == {"deaf": 0.2}  # 3 of 20 are 15 %, not more


def test_means_and_their_bootstrap_know_listeners_and_files() -> None:
    draw = np.random.default_rng(0)
    listeners, files = 40, 50
    of_listener, of_file = draw.normal(0, 5, listeners), draw.normal(0, 3, files)
    ratings = [
        Rating(f"l{one}", f"f{two}", "s", 50 + of_listener[one] + of_file[two])
        for one in range(listeners)
        for two in range(files)
    ]
    opinion = opinions(ratings, 0)["s"]
    assert opinion.mean == pytest.approx(50 + of_listener.mean() + of_file.mean())
    expected = np.sqrt(of_listener.var() / listeners + of_file.var() / files)
    low, high = opinion.interval
    assert (high - low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert opinion.ratings == listeners * files
    assert opinion.deviation == pytest.approx(np.std([rating.score for rating in ratings], ddof=1))


def test_pairs_are_tested_by_wilcoxon_and_raised_by_holm() -> None:
    draw = np.random.default_rng(1)
    scores = {name: draw.normal(mean, 1, (5, 6)) for name, mean in (("a", 3.0), ("b", 2.5), ("c", 2.4))}
    ratings = [
        Rating(f"l{one}", f"f{two}", name, float(score))
        for name, table in scores.items()
        for (one, two), score in np.ndenumerate(table)
    ]
    ratings = [r for r in ratings if (r.listener, r.file, r.system) != ("l0", "f0", "c")]  # one is missing
    found = {(each.first, each.second): each for each in contrasts(ratings, 0)}
    plain = {}
    for first, second in found:
        gaps = (scores[first] - scores[second]).ravel()[1 if "c" in (first, second) else 0 :]
        assert found[first, second].pairs == len(gaps)
        assert found[first, second].mean == pytest.approx(gaps.mean())
        plain[first, second] = stats.wilcoxon(gaps).pvalue
    highest = 0.0
    for rank, (pair, p) in enumerate(sorted(plain.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, (3 - rank) * p))
        assert found[pair].p == pytest.approx(highest)


def test_abx_is_the_exact_binomial_test() -> None:
    def choices(pair: tuple[str, str], right: int, answers: int) -> list[Choice]:
        return [Choice(f"l{n % 2}", f"f{n}", pair, n < right) for n in range(answers)]

    ten, all_of_five = detections([*choices(("a", "b"), 9, 10), *choices(("a", "c"), 5, 5)])
    assert ten.p == pytest.approx(2 * 11 / 1024)  # (10 + 1) of 2^10, the smaller of two by Holm
    assert all_of_five.p == pytest.approx(1 / 32)
    low, high = ten.interval
    assert low == pytest.approx(stats.beta.ppf(0.025, 9, 2))
    assert high == pytest.approx(stats.beta.ppf(0.975, 10, 1))
    assert ten.listeners == {"l0": (5, 5), "l1": (4, 5)}


def test_all_listeners_screened_out_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    made = asked("mushra", folders)
    _, key = write_test(made, tmp_path / "test")
    answers = [{"trial": t["id"], "scores": dict.fromkeys(t["sounds"], 50)} for t in made.trials]
    path = answer_file(made, tmp_path / "anna.json", "anna", answers)
    with pytest.raises(InputError, match="all 1 listeners rate the hidden reference below 90"):
        write_results([path], key, tmp_path / "out", 0, "")
    assert not (tmp_path / "out").exists()
