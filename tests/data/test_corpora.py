"""Real excerpts in their true layout: every file arrives, in its official split, with labels and samples."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.data import corpora, preparation
from audiodiff.data.corpora import fsdd, ljspeech, mini, speech_commands
from audiodiff.data.manifests import SPLITS, label_of, load_cuts, total_seconds
from audiodiff.data.preparation import PrepareOptions
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError

FOLDERS = {"fsdd": "fsdd", "ljspeech": "ljspeech_excerpt", "speech_commands": "speech_commands_excerpt"}


def prepared(name: str, source: Path | None, out: Path, **options) -> dict:
    """Prepares a corpus and returns its cuts by split."""
    corpora.load(name).prepare(source, out, PrepareOptions(**options))
    return {split: load_cuts(out / f"{split}.jsonl.gz") for split in SPLITS}


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def fsdd_cuts(data_dir, tmp_path_factory):
    return prepared("fsdd", data_dir / "fsdd", tmp_path_factory.mktemp("fsdd"))


def test_fsdd_holds_every_recording_in_its_official_split(data_dir, fsdd_cuts):
    expected = {Path(row["file"]).stem: row for row in rows(data_dir / "fsdd" / "metadata.csv")}
    cuts = [cut for part in fsdd_cuts.values() for cut in part]
    assert {cut.id for cut in cuts} == set(expected)
    assert {cut.id for cut in fsdd_cuts["test"]} == {
        name for name, row in expected.items() if row["split"] == "test"
    }
    for cut in cuts:
        row = expected[cut.id]
        assert cut.num_samples == int(row["num_samples"])
        assert label_of(cut, "digit") == fsdd.DIGITS[int(row["digit"])]
        assert label_of(cut, "speaker") == row["speaker"]


def test_fsdd_dev_takes_two_of_each_digit_and_speaker_out_of_train(data_dir, fsdd_cuts):
    expected = rows(data_dir / "fsdd" / "metadata.csv")
    pairs = {(row["digit"], row["speaker"]) for row in expected if int(row["index"]) in (5, 6)}
    counts = Counter((label_of(cut, "digit"), label_of(cut, "speaker")) for cut in fsdd_cuts["dev"])
    assert counts == {(fsdd.DIGITS[int(digit)], speaker): 2 for digit, speaker in pairs}


def test_manifests_name_the_originals_by_absolute_path(data_dir, fsdd_cuts):
    for cut in fsdd_cuts["test"]:
        place = Path(cut.recording.sources[0].source)
        assert place.is_absolute()
        assert place.samefile(data_dir / "fsdd" / "recordings" / f"{cut.id}{place.suffix}")


def test_ljspeech_keeps_text_ids_and_the_given_splits(data_dir, tmp_path):
    source = data_dir / "ljspeech_excerpt"
    cuts = prepared("ljspeech", source, tmp_path)
    texts = {}
    for line in (source / "LJSpeech-1.1" / "metadata.csv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.split("|")
        texts[name] = text
    durations = {row["id"]: int(row["num_samples"]) for row in rows(source / "splits" / "durations.csv")}
    for split in SPLITS:
        listed = set((source / "splits" / f"{split}.txt").read_text().split())
        assert {cut.id for cut in cuts[split]} == listed
        for cut in cuts[split]:
            assert label_of(cut, "text") == texts[cut.id]
            assert label_of(cut, "speaker") == "ljspeech"
            assert cut.num_samples == durations[cut.id]


def test_ljspeech_without_lists_splits_by_a_stated_rule(data_dir, tmp_path):
    copy = tmp_path / "elsewhere" / "LJSpeech-1.1"
    shutil.copytree(data_dir / "ljspeech_excerpt" / "LJSpeech-1.1", copy)
    report = ljspeech.prepare(copy / "wavs", tmp_path / "out", PrepareOptions())
    names = sorted(path.stem for path in (copy / "wavs").iterdir())
    dev = [cut.id for cut in load_cuts(tmp_path / "out" / "dev.jsonl.gz")]
    test = [cut.id for cut in load_cuts(tmp_path / "out" / "test.jsonl.gz")]
    assert (dev, test) == (names[1::10], names[2::10])
    assert "no official split" in report["split_rule"]


def test_ljspeech_reads_every_row_of_the_full_corpus(data_dir, tmp_path):
    text = gzip.decompress((data_dir / "ljspeech_text" / "metadata.csv.gz").read_bytes())
    (tmp_path / "metadata.csv").write_bytes(text)
    texts, problems = ljspeech._transcripts(tmp_path)
    assert problems == []
    assert len(texts) == len(text.decode("utf-8").strip().split("\n"))
    _, splits = ljspeech._spread(texts)
    counts = Counter(splits.values())
    assert counts["dev"] == counts["test"] == len(texts) // 100
    assert counts.total() == len(texts)


def test_speech_commands_follows_the_official_lists(data_dir, tmp_path):
    source = data_dir / "speech_commands_excerpt"
    cuts = prepared("speech_commands", source, tmp_path)
    names = {"train": "train", "valid": "dev", "test": "test"}
    expected = {}
    for row in rows(source / "metadata.csv"):
        expected[f"{row['word']}_{Path(row['file']).stem}"] = row
    assert {cut.id for part in cuts.values() for cut in part} == set(expected)
    for split, part in cuts.items():
        for cut in part:
            row = expected[cut.id]
            assert split == names[row["split"]]
            assert cut.num_samples == int(row["num_samples"])
            assert (label_of(cut, "digit"), label_of(cut, "speaker")) == (row["word"], row["speaker"])


def test_speech_commands_counts_and_leaves_out_what_is_not_sc09(data_dir, tmp_path):
    words = next((data_dir / "speech_commands_excerpt" / "SpeechCommands").iterdir())
    copy = tmp_path / "words"
    shutil.copytree(words, copy)
    clip = next((copy / "zero").glob("*.wav"))
    for other in ("_background_noise_", "marvin"):
        (copy / other).mkdir()
        shutil.copy(clip, copy / other / clip.name)
    shutil.copy(clip, copy / "zero" / "unnamed.wav")
    with (copy / "testing_list.txt").open("a") as stream:
        stream.write("nine/0000_nohash_7.wav\nmarvin/0000_nohash_7.wav\n")
    report = speech_commands.prepare(copy, tmp_path / "out", PrepareOptions())
    assert report["cuts"] == len(list(words.glob("*/*.wav")))
    assert "2 files in 2 folders (_background_noise_, marvin)" in report["notes"][0]
    reasons = {problem["id"]: problem["reason"] for problem in report["problems"]}
    left_out = {problem["id"] for problem in report["problems"] if problem["excluded"]}
    assert left_out == {"zero/unnamed.wav", "nine/0000_nohash_7.wav"}
    # Two clips of the excerpt were recorded with an offset, one of them larger than its sound.
    remarked = set(reasons) - left_out
    assert remarked == {"eight_651d108f_nohash_2", "three_f428ca69_nohash_1"}
    assert reasons["eight_651d108f_nohash_2"].startswith("offset: the samples' mean is 0.043")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_second_run_gives_the_same_bytes_without_decoding_again(name, data_dir, tmp_path, monkeypatch):
    written = {}
    for number in range(2):
        prepared(name, data_dir / FOLDERS[name], tmp_path)
        files = sorted(path for path in tmp_path.iterdir() if path.is_file())
        written[number] = {path.name: path.read_bytes() for path in files}
        monkeypatch.setattr(preparation, "examine", lambda *_: pytest.fail("a file was decoded again"))
    assert written[0] == written[1]
    assert set(written[0]) == {"inspected.jsonl", "report.json", *(f"{split}.jsonl.gz" for split in SPLITS)}


def test_another_rate_is_converted_to_flac_and_the_original_rate_is_not(data_dir, tmp_path):
    source = data_dir / "speech_commands_excerpt"
    same = prepared("speech_commands", source, tmp_path / "same", sample_rate=16000, mono=True)
    half = prepared("speech_commands", source, tmp_path / "half", sample_rate=8000)
    assert not (tmp_path / "same" / "audio").exists()
    for before, after in zip(same["test"], half["test"], strict=True):
        place = Path(after.recording.sources[0].source)
        assert place == tmp_path / "half" / "audio" / f"{after.id}.flac"
        assert soundfile.info(place).samplerate == after.sampling_rate == 8000
        assert after.num_samples == round(before.num_samples / 2)
        assert after.supervisions[0].custom == before.supervisions[0].custom


def test_conversion_keeps_what_is_below_half_the_new_rate(tmp_path):
    (tmp_path / "in" / "recordings").mkdir(parents=True)
    times = torch.arange(16000) / 16000
    tones = [0.3 * torch.sin(2 * torch.pi * pitch * times) for pitch in (500.0, 6000.0)]
    io.write(tmp_path / "in" / "recordings" / "3_ann_9.wav", torch.stack([sum(tones), tones[0]]), 16000)
    (cut,) = prepared_train(tmp_path, sample_rate=8000, mono=True)
    waveform = read_cut(cut, 0, cut.num_samples)
    expected = 0.3 * torch.sin(2 * torch.pi * 500.0 * torch.arange(8000) / 8000)
    assert waveform.shape == (1, 8000)
    assert (waveform[0] - expected)[200:-200].abs().max() < 1e-3


def prepared_train(folder: Path, **options) -> list:
    fsdd.prepare(folder / "in", folder / "out", PrepareOptions(**options))
    return load_cuts(folder / "out" / "train.jsonl.gz")


def test_stereo_that_is_kept_becomes_cuts_of_two_channels(tmp_path):
    (tmp_path / "in" / "recordings").mkdir(parents=True)
    waveform = torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 0.5
    io.write(tmp_path / "in" / "recordings" / "3_ann_9.wav", waveform, 8000)
    (cut,) = prepared_train(tmp_path)
    assert cut.num_channels == 2
    assert (read_cut(cut, 0, 4000) - waveform).abs().max() <= 0.5 / 2**15


def test_cuts_are_plain_lhotse_cuts(data_dir, tmp_path):
    from lhotse import CutSet

    cuts = prepared("speech_commands", data_dir / "speech_commands_excerpt", tmp_path)["dev"]
    theirs = CutSet.from_jsonl(tmp_path / "dev.jsonl.gz")
    for ours, cut in zip(cuts, theirs, strict=True):
        assert torch.equal(torch.from_numpy(cut.load_audio()), read_cut(ours, 0, ours.num_samples))


def test_seconds_of_the_report_are_those_of_the_cuts(data_dir, tmp_path):
    cuts = prepared("speech_commands", data_dir / "speech_commands_excerpt", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    for split, part in cuts.items():
        assert report["splits"][split]["cuts"] == len(part)
        assert report["splits"][split]["seconds"] == pytest.approx(total_seconds(part), abs=1e-3)
        assert sum(report["splits"][split]["labels"]["digit"].values()) == len(part)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_layout_is_refused_with_what_was_looked_for(name, tmp_path):
    (tmp_path / "stray.wav").touch()
    with pytest.raises(InputError, match=rf"{name}: .*{tmp_path.name}.*--source"):
        corpora.load(name).prepare(tmp_path, tmp_path / "out", PrepareOptions())
    with pytest.raises(InputError, match="no source"):
        corpora.load(name).prepare(None, tmp_path / "out", PrepareOptions())
    assert not (tmp_path / "out").exists()


def test_every_corpus_is_found_by_its_file_and_has_the_same_shape():
    assert set(corpora.names()) >= {"mini", *FOLDERS}
    for name in corpora.names():
        assert callable(corpora.load(name).prepare)
    with pytest.raises(InputError, match=r"unknown corpus 'sixty'.*fsdd.*mini"):
        corpora.load("sixty")


@pytest.fixture(scope="module")
def mini_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini")
    mini.prepare(None, out, PrepareOptions(seed=4))
    return out


def test_mini_has_its_counts_and_every_sound_equally_often(mini_folder):
    for split, count in mini.CLIPS.items():
        cuts = load_cuts(mini_folder / f"{split}.jsonl.gz")
        assert len(cuts) == count
        assert Counter(label_of(cut, "sound") for cut in cuts) == dict.fromkeys(
            mini.SOUNDS, count // len(mini.SOUNDS)
        )
        for cut in cuts:
            assert cut.sampling_rate == 8000
            assert 0.4 <= cut.duration <= 0.6


def test_mini_is_the_same_bytes_for_the_same_seed_only(mini_folder, tmp_path):
    mini.prepare(None, tmp_path / "same", PrepareOptions(seed=4))
    mini.prepare(None, tmp_path / "other", PrepareOptions(seed=5))
    for path in sorted((mini_folder / "audio").iterdir()):
        assert (tmp_path / "same" / "audio" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / "audio" / path.name).read_bytes() != path.read_bytes()


def test_mini_mends_a_clip_that_was_damaged(mini_folder):
    path = sorted((mini_folder / "audio").iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(content[:50])
    report = mini.prepare(None, mini_folder, PrepareOptions(seed=4))
    assert path.read_bytes() == content
    assert report["problems"] == []


def test_mini_strings_sound_at_the_pitch_of_their_class(mini_folder):
    for cut in load_cuts(mini_folder / "train.jsonl.gz")[:80]:
        sound = label_of(cut, "sound")
        if sound in mini.STRINGS:
            low, high = mini.STRINGS[sound]
            assert 0.98 * low <= pitch(read_cut(cut, 0, cut.num_samples)[0]) <= 1.02 * high


def pitch(waveform: torch.Tensor) -> float:
    """Returns the fundamental in Hz at 8 kHz: the first high peak of the autocorrelation, interpolated."""
    spectrum = torch.fft.rfft(waveform.double(), 2 * len(waveform))
    correlation = torch.fft.irfft(spectrum.abs() ** 2)[: len(waveform) // 2]
    correlation /= len(waveform) - torch.arange(len(correlation))
    inner = correlation[1:-1]
    peak = (inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0.85 * correlation[12:].max())
    lag = int(peak[11:].nonzero()[0]) + 12
    before, at, after = correlation[lag - 1 : lag + 2].tolist()
    return 8000 / (lag + 0.5 * (before - after) / (before - 2 * at + after))


def test_mini_vowels_have_their_energy_at_their_formants(mini_folder):
    mean = {}
    cuts = load_cuts(mini_folder / "train.jsonl.gz")
    for vowel in mini.VOWELS:
        spectra = [
            torch.fft.rfft(read_cut(cut, 0, cut.num_samples)[0], 8000).abs() ** 2
            for cut in cuts
            if label_of(cut, "sound") == vowel
        ]
        mean[vowel] = torch.stack([spectrum / spectrum.sum() for spectrum in spectra]).mean(dim=0)
    # The second formant tells front from back vowels, the first open from closed ones.
    second = {vowel: float(power[1500:2800].sum()) for vowel, power in mean.items()}
    first = {vowel: float(power[550:1000].sum()) for vowel, power in mean.items()}
    assert min(second["i"], second["e"]) > 3 * max(second["o"], second["u"])
    assert min(first["a"], first["o"]) > 3 * max(first["i"], first["u"])


def test_mini_follows_another_sample_rate_and_refuses_nonsense(tmp_path):
    report = mini.prepare(None, tmp_path, PrepareOptions(sample_rate=16000))
    assert (report["sample_rate"], report["cuts"]) == (16000, sum(mini.CLIPS.values()))
    with pytest.raises(InputError, match="sample rate 100 Hz"):
        mini.prepare(None, tmp_path, PrepareOptions(sample_rate=100))
    with pytest.raises(InputError, match="seed -1"):
        mini.prepare(None, tmp_path, PrepareOptions(seed=-1))
    with pytest.raises(InputError, match="leave --source out"):
        mini.prepare(tmp_path, tmp_path, PrepareOptions())
