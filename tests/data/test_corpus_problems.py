"""Bad files of every kind are left out, counted, named; mixed corpora refused; nothing is half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.data import preparation
from audiodiff.data.corpora import fsdd, ljspeech, speech_commands
from audiodiff.data.manifests import SPLITS, load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.errors import InputError


def tone(channels: int = 1, level: float = 0.5, rate: int = 8000) -> torch.Tensor:
    times = torch.arange(rate // 2) / rate
    return (level * torch.sin(2 * torch.pi * 300 * times)).expand(channels, -1)


@pytest.fixture
def recordings(tmp_path) -> Path:
    """An fsdd folder with four good clips: two train, one dev, one test."""
    folder = tmp_path / "in" / "recordings"
    for name in ("0_ann_0", "0_ann_5", "0_ann_7", "1_ann_8"):
        io.write(folder / f"{name}.wav", tone(), 8000)
    return folder


def prepare(recordings: Path, **options) -> dict:
    return fsdd.prepare(recordings, recordings.parent.parent / "out", PrepareOptions(**options))


def ids(recordings: Path) -> set[str]:
    out = recordings.parent.parent / "out"
    return {cut.id for split in SPLITS for cut in load_cuts(out / f"{split}.jsonl.gz")}


def damage_empty(path: Path) -> None:
    path.touch()


def damage_text(path: Path) -> None:
    path.write_text("these are no samples\n" * 50)


def damage_cut_off(path: Path) -> None:
    io.write(path, tone(), 8000)
    path.write_bytes(path.read_bytes()[:3000])


def damage_cut_off_flac(path: Path) -> None:
    path = path.with_suffix(".flac")
    io.write(path, tone() + 0.01 * torch.randn(4000, generator=torch.Generator().manual_seed(0)), 8000)
    path.write_bytes(path.read_bytes()[:3000])


def damage_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 1)), 8000)


def damage_nan(path: Path) -> None:
    samples = tone()[0].numpy().copy()
    samples[7] = np.nan
    soundfile.write(path, samples, 8000, subtype="FLOAT")


def damage_infinite(path: Path) -> None:
    samples = tone()[0].numpy().copy()
    samples[7] = np.inf
    soundfile.write(path, samples, 8000, subtype="FLOAT")


def damage_silent(path: Path) -> None:
    io.write(path, torch.zeros(1, 4000), 8000)


def damage_clipped(path: Path) -> None:
    io.write(path, (5 * tone()).clamp(-1, 1), 8000)


def damage_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone.wav"))


def damage_folder(path: Path) -> None:
    path.mkdir()


DAMAGES = {
    damage_empty: "empty",
    damage_text: "not an audio file",
    damage_cut_off: "cut off",
    damage_cut_off_flac: "cut off",
    damage_no_samples: "no samples",
    damage_nan: "NaN",
    damage_infinite: "infinite",
    damage_silent: "silent",
    damage_clipped: "clipped",
    damage_dangling: "missing",
    damage_folder: "missing",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_file_is_left_out_and_named_with_its_reason(damage, recordings):
    good = {path.stem for path in recordings.iterdir()}
    damage(recordings / "9_ann_9.wav")
    report = prepare(recordings)
    assert ids(recordings) == good
    (problem,) = report["problems"]
    assert (problem["id"], problem["excluded"], report["excluded"]) == ("9_ann_9", True, 1)
    assert DAMAGES[damage] in problem["reason"]
    assert str(recordings) in problem["path"]
    assert str(recordings) not in problem["reason"]


def test_all_bad_files_together_are_all_counted(recordings):
    for number, damage in enumerate(DAMAGES):
        damage(recordings / f"{number % 10}_bob_{number}.wav")
    report = prepare(recordings)
    assert (report["cuts"], report["excluded"], len(report["problems"])) == (4, len(DAMAGES), len(DAMAGES))
    assert json.loads((recordings.parent.parent / "out" / "report.json").read_text()) == report


def test_a_little_clipping_is_kept_with_a_remark(recordings):
    waveform = tone().clone()
    waveform[:, :40] = 1.0
    io.write(recordings / "9_ann_9.wav", waveform, 8000)
    report = prepare(recordings)
    (problem,) = report["problems"]
    assert "9_ann_9" in ids(recordings)
    assert not problem["excluded"]
    assert "clipped: 1.0%" in problem["reason"]


def test_of_two_files_with_one_id_one_is_left_out(recordings):
    io.write(recordings / "1_ann_8.flac", tone(), 8000)
    report = prepare(recordings)
    (problem,) = report["problems"]
    assert "duplicate id" in problem["reason"]
    assert report["cuts"] == 4


def test_a_name_of_no_known_form_is_left_out_and_named(recordings):
    io.write(recordings / "hello.wav", tone(), 8000)
    (problem,) = prepare(recordings)["problems"]
    assert problem["id"] == "hello.wav"
    assert "{digit}_{speaker}_{index}" in problem["reason"]


def test_mixed_rates_are_refused_and_mended_by_a_sample_rate(recordings):
    io.write(recordings / "9_ann_9.wav", tone(rate=16000), 16000)
    with pytest.raises(InputError, match=r"mixed sample rates: 8000 in 4 files .*16000 in 1 .*--sample-rate"):
        prepare(recordings)
    assert not list((recordings.parent.parent / "out").glob("*.gz"))
    report = prepare(recordings, sample_rate=8000)
    assert (report["sample_rate"], report["cuts"], report["problems"]) == (8000, 5, [])


def test_mixed_channels_are_refused_and_mended_by_mono(recordings):
    io.write(recordings / "9_ann_9.wav", tone(channels=2), 8000)
    with pytest.raises(InputError, match=r"mixed channel counts: 1 in 4 files .*2 in 1 .*--mono"):
        prepare(recordings)
    report = prepare(recordings, mono=True)
    assert (report["channels"], report["cuts"], report["problems"]) == (1, 5, [])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_common_encoding_is_read(subtype, recordings):
    soundfile.write(recordings / "9_ann_9.wav", tone()[0].numpy(), 8000, subtype=subtype)
    report = prepare(recordings)
    assert (report["cuts"], report["problems"]) == (5, [])


def test_a_clip_too_short_for_the_new_rate_is_left_out(recordings):
    io.write(recordings / "9_ann_9.wav", torch.full((1, 1), 0.5), 8000)
    report = prepare(recordings, sample_rate=1000)
    (problem,) = report["problems"]
    assert (problem["id"], report["cuts"]) == ("9_ann_9", 4)


def test_nothing_usable_is_an_error_that_names_the_first_file(recordings):
    for path in recordings.iterdir():
        damage_silent(path)
    with pytest.raises(InputError, match=r"none of 4 files is usable.*0_ann_0.wav: silent"):
        prepare(recordings)
    assert not list((recordings.parent.parent / "out").glob("*.gz"))


def test_a_sample_rate_that_is_none_is_refused(recordings):
    with pytest.raises(InputError, match="sample rate 0 Hz"):
        prepare(recordings, sample_rate=0)


def test_a_file_that_changes_is_checked_again(recordings):
    prepare(recordings)
    damage_silent(recordings / "1_ann_8.wav")
    report = prepare(recordings)
    assert (report["cuts"], report["problems"][0]["id"]) == (3, "1_ann_8")
    io.write(recordings / "1_ann_8.wav", tone(level=0.2), 8000)
    assert prepare(recordings)["cuts"] == 4


def test_a_conversion_that_is_gone_or_was_made_for_another_rate_is_made_again(recordings):
    prepare(recordings, sample_rate=4000)
    place = recordings.parent.parent / "out" / "audio" / "1_ann_8.flac"
    content = place.read_bytes()
    place.unlink()
    prepare(recordings, sample_rate=4000)
    assert place.read_bytes() == content
    prepare(recordings, sample_rate=6000)
    assert io.probe(place).sample_rate == 6000
    prepare(recordings, sample_rate=4000)
    assert io.probe(place).sample_rate == 4000


def test_an_interruption_leaves_nothing_half_written_and_is_gone_on_with(recordings, monkeypatch):
    for number in range(10, 40):
        io.write(recordings / f"2_ann_{number}.wav", tone(), 8000)
    out = recordings.parent.parent / "out"
    examine, done = preparation.examine, []

    def interrupted(path: Path, *rest) -> object:
        if len(done) >= 15:
            raise KeyboardInterrupt
        done.append(path)
        return examine(path, *rest)

    monkeypatch.setattr(preparation, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(recordings, sample_rate=4000)
    assert [path.name for path in out.iterdir() if path.is_file()] == ["inspected.jsonl"]
    assert all(io.read(path)[1] == 4000 for path in (out / "audio").iterdir())
    again = []

    def counted(path: Path, *rest) -> object:
        again.append(path)
        return examine(path, *rest)

    monkeypatch.setattr(preparation, "examine", counted)
    assert prepare(recordings, sample_rate=4000)["cuts"] == 34
    assert len(again) < 34
    assert len(set(again) | set(done)) == 34


def test_findings_cut_off_by_a_kill_are_made_again(recordings):
    first = prepare(recordings)
    path = recordings.parent.parent / "out" / "inspected.jsonl"
    path.write_bytes(path.read_bytes()[:-40] + b'\n{"key": 3}\n[]\n')
    assert prepare(recordings) == first


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_manifests(recordings):
    """A file size limit of the process stands for the disk: writing beyond it fails with an OSError."""
    prepare(recordings)
    out = recordings.parent.parent / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    io.write(recordings / "9_ann_9.wav", tone(), 8000)
    code = f"""
import resource, signal
from pathlib import Path
from audiodiff.data.corpora import fsdd
from audiodiff.data.preparation import PrepareOptions
from audiodiff.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    fsdd.prepare(Path({str(recordings)!r}), Path({str(out)!r}), PrepareOptions())
except InputError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large)" in done.stdout
    for name in ("report.json", *(f"{split}.jsonl.gz" for split in SPLITS)):
        assert (out / name).read_bytes() == before[name]
    assert not list(out.glob(".*"))


@pytest.fixture
def ljspeech_folder(tmp_path) -> Path:
    folder = tmp_path / "LJSpeech-1.1"
    for number in range(5):
        io.write(folder / "wavs" / f"LJ001-000{number}.wav", tone(), 8000)
    lines = [
        "LJ001-0000|one|one",
        "LJ001-0001|2|two",
        "LJ001-0002|no third column",
        "LJ001-0003|empty|  ",
        "LJ001-0001|again|again",
        "../LJ001-0000|a path|a path",
        "LJ001-0009|no audio|no audio",
        "",
    ]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_ljspeech_names_every_missing_transcript_and_file(ljspeech_folder, tmp_path):
    report = ljspeech.prepare(ljspeech_folder.parent, tmp_path / "out", PrepareOptions())
    reasons: dict[str, list[str]] = {}
    for problem in report["problems"]:
        reasons.setdefault(problem["id"], []).append(problem["reason"])
    assert report["cuts"] == 2
    assert "line 3 of metadata.csv" in reasons["LJ001-0002"][0]
    assert "transcript missing" in reasons["LJ001-0003"][0]
    assert "transcript missing" in reasons["LJ001-0004"][0]
    assert "duplicate id in line 5" in reasons["LJ001-0001"][0]
    assert "line 6 of metadata.csv" in reasons["../LJ001-0000"][0]
    assert "audio file missing" in reasons["LJ001-0009"][0]


def test_ljspeech_refuses_split_lists_that_contradict_or_lack_one(ljspeech_folder, tmp_path):
    splits = ljspeech_folder / "splits"
    splits.mkdir()
    (splits / "train.txt").write_text("LJ001-0000\nLJ001-0001\n")
    with pytest.raises(InputError, match=r"only train.txt; expected train, dev and test.txt"):
        ljspeech.prepare(ljspeech_folder, tmp_path / "out", PrepareOptions())
    (splits / "dev.txt").write_text("LJ001-0001\n")
    (splits / "test.txt").write_text("LJ001-0077\n")
    with pytest.raises(InputError, match=r"LJ001-0001 is in both train\.txt and dev\.txt"):
        ljspeech.prepare(ljspeech_folder, tmp_path / "out", PrepareOptions())
    (splits / "train.txt").write_text("LJ001-0000\n")
    report = ljspeech.prepare(ljspeech_folder, tmp_path / "out", PrepareOptions())
    assert [report["splits"][split]["cuts"] for split in SPLITS] == [1, 1, 0]
    assert "1 ids of the split lists" in report["notes"][0]
    unlisted = [problem["id"] for problem in report["problems"] if "split lists" in problem["reason"]]
    assert unlisted == ["LJ001-0009"]


def test_speech_commands_needs_its_official_lists_and_one_version(tmp_path):
    for version in ("speech_commands_v0.01", "speech_commands_v0.02"):
        io.write(tmp_path / version / "one" / "0a0b_nohash_0.wav", tone(), 8000)
    with pytest.raises(InputError, match="several versions"):
        speech_commands.prepare(tmp_path, tmp_path / "out", PrepareOptions())
    with pytest.raises(InputError, match=r"testing_list.txt is missing; it holds the official test split"):
        speech_commands.prepare(tmp_path / "speech_commands_v0.02", tmp_path / "out", PrepareOptions())
