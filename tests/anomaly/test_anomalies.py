"""Anomalies: exact errors, windows that equal the whole, false alarms as promised, and files that cannot be scored."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff.anomaly.density import fit_mixture, ledoit_wolf
from audiodiff.anomaly.detector import Normals, fit, identity_of, load
from audiodiff.anomaly.gather import gather
from audiodiff.anomaly.measure import Bits, Probe, levels_db
from audiodiff.anomaly.pieces import find_sources
from audiodiff.anomaly.score import Outcome, Scoring, fit_detector, score_recordings
from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import Precision, Recording, measure
from tests.evaluation.test_likelihood import gaussian_model
from tests.tiny_models import random_model

QUICK = Probe(levels=3, groups=4, draws=1)
NOTHING = Bits(0, 0)


def written(folder: Path, lengths: list[int], rate: int = 8000) -> list[Recording]:
    folder.mkdir(exist_ok=True)
    for i, length in enumerate(lengths):
        noise = torch.randn(1, length, generator=torch.Generator().manual_seed(i)) * 0.2
        io.write(folder / f"clip_{i:03}.wav", noise, rate, "FLOAT")
    return find_sources([str(folder)], {}, {})


def scored(folder: Path, model: torch.nn.Module, recordings: list[Recording], detector=None) -> Outcome:
    probe = QUICK if detector is None else detector.probe
    scoring = Scoring(model, folder, detector, probe, Bits(0, 3), folder / "s.csv", folder / "frames", {})
    return score_recordings(scoring, recordings, 4, "test")


def test_errors_of_a_gaussian_are_its_posterior_variance(tmp_path: Path) -> None:
    (found,) = gather(gaussian_model(0.2), written(tmp_path, [7000]), QUICK, NOTHING, 1, lambda v: v)
    levels = np.array(levels_db(gaussian_model(0.2).denoiser.schedule, QUICK))
    snr = 10 ** (levels / 10) * 0.04
    assert found.errors.mean(1) == pytest.approx(snr / (1 + snr), rel=0.06)


def test_bound_is_that_of_the_likelihood_command(tmp_path: Path) -> None:
    recordings = [replace(each, name=Path(each.name).name) for each in written(tmp_path, [1000])]
    (found,) = gather(gaussian_model(0.2), recordings, QUICK, Bits(4, 20), 1, lambda v: v)
    (known,) = measure(gaussian_model(0.2), recordings, Precision(steps=4, bound_steps=20, levels=2))
    assert found.bound_bits == pytest.approx(known.bound_bits, abs=1e-5)
    assert found.flow_bits == pytest.approx(known.bits, abs=1e-5)


@pytest.mark.parametrize("kind", ["frames and labels", "frames, mel and labels"])
def test_windows_of_a_long_recording_equal_the_whole(tmp_path: Path, kind: str) -> None:
    model, recordings = random_model(kind), written(tmp_path, [3000, 777])
    cut, whole = (
        list(gather(model, recordings, Probe(3, groups=4, window_seconds=w), Bits(0, 3), b, lambda v: v))
        for w, b in ((0.1, 3), (2.0, 1))
    )
    for one, another in zip(cut, whole, strict=True):
        np.testing.assert_allclose(one.errors, another.errors, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.kept, another.kept, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one.profile, another.profile, rtol=1e-3, atol=1e-3)
        assert one.bound_bits == pytest.approx(another.bound_bits, rel=1e-4)


def test_covariance_is_that_of_scikit_learn() -> None:
    from sklearn.covariance import LedoitWolf

    vectors = np.random.default_rng(0).normal(size=(30, 12)) * np.arange(1, 13)
    np.testing.assert_allclose(ledoit_wolf(vectors)[1], LedoitWolf().fit(vectors).covariance_, rtol=1e-6)


def test_density_is_a_density_and_both_small_and_large_are_surprising() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 1)) + np.array([[-3.0], [3.0]]).repeat(2000, 0)
    mixture = fit_mixture(draws, 2, 0)
    places = np.linspace(-12, 12, 4001)[:, None]
    assert np.exp(-mixture.surprise(places)).sum() * 24 / 4000 == pytest.approx(1, abs=1e-3)
    usual, small, large = mixture.surprise(np.array([[3.0], [-9.0], [9.0]]))
    assert min(small, large) > usual + 5


def normals_of(generator: np.random.Generator, count: int) -> Normals:
    frames = [generator.normal(size=(20, 4)) + generator.normal(size=4) for _ in range(count)]
    return Normals(frames, np.stack([each.mean(0) for each in frames]))


def test_false_alarms_are_at_most_those_asked_for() -> None:
    flagged = intervals = 0
    for seed in range(25):
        generator = np.random.default_rng(seed)
        detector = fit(normals_of(generator, 80), Probe(), "", 0.1, 2, seed)
        new = normals_of(generator, 40)
        for frames, profile in zip(new.frames, new.profiles, strict=True):
            verdict = detector.judge(detector.surprise(frames), profile)
            flagged += verdict.flagged
            intervals += verdict.flagged_frames.any()
    assert 0.04 < flagged / 1000 < 0.13  # 0.1 promised; the scatter of 25 thresholds is about 0.012
    assert 0.04 < intervals / 1000 < 0.13


def test_louder_and_simpler_recordings_are_both_flagged(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    detector = fit(normals_of(generator, 100), Probe(), "model", 0.05, 2, 0)
    for offset in (-9.0, 9.0):
        frames = generator.normal(size=(20, 4)) + offset
        assert detector.judge(detector.surprise(frames), frames.mean(0)).flagged
    detector.save(tmp_path / "d", {})
    again = load(tmp_path / "d")
    assert (again.digest, again.probe) == (detector.digest, detector.probe)


def test_too_few_normals_and_impossible_rates_are_refused() -> None:
    normals = normals_of(np.random.default_rng(0), 30)
    with pytest.raises(InputError, match="expected at least 39"):
        fit(normals, Probe(), "", 0.05, 1, 0)
    with pytest.raises(InputError, match="--false-alarms"):
        fit(normals, Probe(), "", 1.5, 1, 0)


def test_detector_flags_the_place_of_a_burst_and_refuses_another_model(tmp_path: Path) -> None:
    model = random_model()
    normals = written(tmp_path / "normal", [900] * 44)
    detector, facts = fit_detector(model, tmp_path, normals, QUICK, 0.1, 1, 8)
    assert facts["recordings"] == 44
    burst = torch.randn(1, 1600, generator=torch.Generator().manual_seed(9)) * 0.2
    burst[:, 800:1000] += 0.7 * torch.sign(burst[:, 800:1000])
    io.write(tmp_path / "burst.wav", burst, 8000, "FLOAT")
    (row,) = scored(
        tmp_path, model, find_sources([str(tmp_path / "burst.wav")], {}, {}), detector
    ).rows.values()
    assert row["flagged"] == "yes"
    assert any(
        float(i.split("-")[0]) < 0.125 and float(i.split("-")[1]) > 0.1 for i in row["intervals"].split(";")
    )
    assert (tmp_path / "frames" / "burst.png").read_bytes().startswith(b"\x89PNG")
    other = random_model("samples and labels")
    assert identity_of(other) != identity_of(model)
    with pytest.raises(InputError, match="was fitted with model"):
        detector.check(other)


def test_bad_files_have_a_row_with_the_reason_and_the_rest_is_scored_and_kept(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    written(clips, [800])
    written(tmp_path / "fast", [1764], 44100)[0].file.rename(clips / "fast.wav")
    io.write(clips / "silent.wav", torch.zeros(1, 900), 8000)
    io.write(clips / "short.wav", torch.ones(1, 20) / 2, 8000)
    (clips / "broken.wav").write_bytes(b"RIFF")
    import soundfile

    soundfile.write(clips / "nan.wav", np.array([0.1, math.nan] * 300), 8000, "FLOAT")
    recordings, model = find_sources([str(clips)], {}, {}), random_model()
    outcome = scored(tmp_path, model, recordings)
    status = {Path(name).name: row["status"] for name, row in outcome.rows.items()}
    assert status["clip_000.wav"] == status["fast.wav"] == "ok"
    for name, reason in (
        ("silent", "silence"),
        ("short", "too short"),
        ("nan", "NaN"),
        ("broken", "not an audio"),
    ):
        assert reason in status[f"{name}.wav"]
    assert len(outcome.problems) == 4
    first = (tmp_path / "s.csv").read_bytes()
    assert scored(tmp_path, model, recordings).kept == 2
    assert (tmp_path / "s.csv").read_bytes() == first
    with (tmp_path / "s.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    with pytest.raises(InputError, match="other settings"):
        scored(tmp_path, random_model("samples and labels"), recordings)


def test_command_scores_a_folder_and_ends_with_2_where_a_file_is_bad(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from audiodiff.cli.app import app
    from tests.tiny_models import RECIPES

    random_model().save(tmp_path / "model", RECIPES["frames and labels"], {}, "# test\n")
    written(tmp_path / "clips", [800, 900])
    arguments = [
        "score",
        str(tmp_path / "model"),
        str(tmp_path / "clips"),
        "--levels",
        "2",
        "--bound-steps",
        "2",
    ]
    arguments += ["--out", str(tmp_path / "s.csv")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    (tmp_path / "clips" / "bad.wav").write_bytes(b"nothing")
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 2
