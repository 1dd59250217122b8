"""Drums, piano notes and excerpts of music: real ones in full, and what people may hand over instead."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.data import corpora
from audiodiff.data.corpora import drums, piano
from audiodiff.data.corpora.music import excerpts
from audiodiff.data.manifests import SPLITS, label_of, load_cuts
from audiodiff.data.one_shots import of_length
from audiodiff.data.preparation import PrepareOptions
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from tests.data import made_up


def prepared(name: str, source: Path, out: Path, **options) -> tuple[dict, dict]:
    """The report, and the cuts of every split by id."""
    report = corpora.load(name).prepare(source, out, PrepareOptions(**options))
    present = [split for split in SPLITS if report["splits"][split]["cuts"]]
    return report, {split: {cut.id: cut for cut in load_cuts(out / f"{split}.jsonl.gz")} for split in present}


def all_cuts(cuts: dict) -> dict:
    return {name: cut for part in cuts.values() for name, cut in part.items()}


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_real_drum_arrives_with_class_loudness_and_split(data_dir, tmp_path):
    source = data_dir / "drums_osdk"
    report, cuts = prepared("drums", source, tmp_path, sample_rate=22050, mono=True)
    expected = {Path(row["file"]).stem: row for row in rows(source / "metadata.csv")}
    assert set(all_cuts(cuts)) == set(expected)
    assert report["problems"] == []
    for split, part in cuts.items():
        for name, cut in part.items():
            row = expected[name]
            assert (label_of(cut, "class"), label_of(cut, "articulation")) == (
                row["class"],
                row["articulation"],
            )
            assert (split, cut.custom["stroke"]) == (row["split"], row["velocity_index"])
            assert cut.num_samples == 33075
            original, rate = io.read(source / row["file"])
            waveform = read_cut(cut, 0, cut.num_samples)
            assert torch.equal(waveform[:, : original.shape[1]], original)
            assert not waveform[:, original.shape[1] :].any()
            assert float(label_of(cut, "loudness")) == pytest.approx(loudness_db(original, rate), abs=0.051)
    # The stroke's number was put in order by loudness, so the measure has to rise with it.
    kicks = [
        float(label_of(cut, "loudness")) for name, cut in sorted(all_cuts(cuts).items()) if "kick" in name
    ]
    ranks = torch.tensor(kicks).argsort().argsort().double()
    places = torch.arange(len(ranks)).double()
    assert float(torch.corrcoef(torch.stack([ranks, places]))[0, 1]) > 0.9


def test_a_kit_as_published_is_cut_faded_mixed_and_resampled(tmp_path):
    source = made_up.drums(tmp_path / "in", rate=96000)
    report, cuts = prepared("drums", source, tmp_path / "out", sample_rate=22050, mono=True)
    assert {split: set(part) for split, part in cuts.items()} == {
        "train": {
            *(f"kick{number:02d}" for number in range(1, 10) if number != 5),
            "large-tom03",
            "crash-bell01",
        },
        "dev": {"kick05", "crash-bell05"},
        "test": {"kick10"},
    }
    assert report["notes"] == ["of no known articulation, left out: 1 files in 1 folders (gong)"]
    crash = read_cut(cuts["dev"]["crash-bell05"], 0, 33075)
    whole, _ = io.read(source / "kit" / "crash" / "crash-bell5.wav", 22050)
    torch.testing.assert_close(crash[:, :31900], whole[:, :31900], rtol=0, atol=2**-15)
    assert float(crash[:, -20:].abs().max()) < 0.01 * float(crash.abs().max())


@pytest.mark.parametrize("name", ["drums", "piano"])
def test_one_shots_come_to_one_peak_and_again_from_the_same_source(tmp_path, name):
    source = getattr(made_up, name)(tmp_path / "in")
    _, plain = prepared(name, source, tmp_path / "plain")
    for peak in (0.5, 0.25, 0.25):
        report, cuts = prepared(name, source, tmp_path / "out", peak=peak)
        assert report["problems"] == []
        for identifier, cut in all_cuts(cuts).items():
            even = read_cut(cut, 0, cut.num_samples)
            loud = read_cut(all_cuts(plain)[identifier], 0, cut.num_samples)
            torch.testing.assert_close(even, peak * loud / loud.abs().max(), rtol=0, atol=2**-13)
            if name == "drums":  # the label is that of the copy
                rate = report["sample_rate"]
                assert float(label_of(cut, "loudness")) == pytest.approx(loudness_db(even, rate), abs=0.06)


def test_the_same_stroke_twice_is_refused(tmp_path):
    source = made_up.drums(tmp_path / "in")
    shutil.copytree(source / "kit", source / "kit (copy)")
    with pytest.raises(InputError, match="are the same stroke"):
        prepared("drums", source, tmp_path / "out")


def test_a_damaged_stroke_is_left_out_by_name(tmp_path):
    source = made_up.drums(tmp_path / "in")
    (source / "kit" / "kick" / "kick3.wav").write_bytes(b"RIFF")
    report, cuts = prepared("drums", source, tmp_path / "out")
    (problem,) = report["problems"]
    assert problem["id"] == "kick03"
    assert "kick03" not in all_cuts(cuts)


@pytest.mark.parametrize(("length", "fade"), [(1, 50), (30, 50), (100, 50), (250, 50), (300, 50), (301, 50)])
def test_one_length_for_all_keeps_the_attack_and_ends_in_silence(length, fade):
    waveform = torch.ones(2, 300)
    fitted = of_length(waveform, length, fade)
    assert fitted.shape == (2, length)
    kept = min(300, length - fade if length < 300 else length)
    assert torch.equal(fitted[:, : max(kept, 0)], waveform[:, : max(kept, 0)])
    if length < 300:
        assert bool((fitted.diff(dim=1) <= 0).all())
        assert float(fitted[0, -1]) < 0.5 if length == 1 else float(fitted[0, -1]) < 0.01
    assert torch.equal(waveform, torch.ones(2, 300))


def test_every_real_piano_note_has_its_midi_number(data_dir, tmp_path):
    source = data_dir / "piano_salamander"
    report, cuts = prepared("piano", source, tmp_path, sample_rate=22050, mono=True)
    expected = {row["midi"]: row for row in rows(source / "metadata.csv")}
    assert {label_of(cut, "pitch") for cut in all_cuts(cuts).values()} == set(expected)
    assert {split: len(part) for split, part in cuts.items()} == {"train": 28, "dev": 1, "test": 1}
    assert report["problems"] == []
    for cut in all_cuts(cuts).values():
        row = expected[label_of(cut, "pitch")]
        assert cut.num_samples == 44100
        assert torch.equal(read_cut(cut, 0, 44100), io.read(source / row["file"])[0])
        assert 440 * 2 ** ((int(row["midi"]) - 69) / 12) == pytest.approx(float(row["f0_hz"]), rel=1e-4)


def test_notes_are_found_beside_other_pianos_and_once_each(tmp_path):
    report, cuts = prepared("piano", made_up.piano(tmp_path / "in"), tmp_path / "out")
    pitches = {split: [label_of(cut, "pitch") for cut in part.values()] for split, part in cuts.items()}
    assert pitches == {"train": ["21", "60", "108"], "dev": ["51"], "test": ["78"]}
    assert report["problems"] == []
    assert cuts["train"]["piano060"].custom["source"].endswith("C4.wav")
    shutil.rmtree(tmp_path / "in" / "audio-master" / "salamander")
    (tmp_path / "in" / "other").mkdir()
    made_up.sound(tmp_path / "in" / "other" / "F#2.wav", 22050)
    with pytest.raises(InputError, match="several folders of notes"):
        prepared("piano", tmp_path / "in", tmp_path / "out2")


def test_layers_of_loudness_are_a_label(tmp_path):
    for layer in (1, 16):
        made_up.sound(tmp_path / "in" / "48khz24bit" / f"F#3v{layer}.wav", 48000)
    _, cuts = prepared("piano", tmp_path / "in", tmp_path / "out")
    labels = {name: (label_of(cut, "pitch"), label_of(cut, "layer")) for name, cut in all_cuts(cuts).items()}
    assert labels == {"piano054_01": ("54", "1"), "piano054_16": ("54", "16")}


def test_midi_numbers_of_notes():
    known = {"A0": 21, "C4": 60, "Cs4": 61, "C#4": 61, "A4": 69, "B4": 71, "C8": 108}
    assert {note: piano.midi_number(note) for note in known} == known
    for wrong in ("H4", "A", "Ab4", "A4v3", "a4"):
        with pytest.raises(InputError, match="expected a letter A to G"):
            piano.midi_number(wrong)


@pytest.mark.parametrize("seconds", [0.1, 9.99, 10.0, 47.0, 133.3, 7200.0])
@pytest.mark.parametrize("longest", [0.5, 10.0, 60.0])
def test_excerpts_cover_a_recording_once_and_hold_out_its_end(seconds, longest):
    found = list(excerpts(seconds, longest))
    ends = [seconds if end is None else end for _, _, end in found]
    assert found[0][1] == 0
    assert ends[-1] == seconds
    assert [start for _, start, _ in found[1:]] == ends[:-1]
    shares = Counter()
    for (split, start, _), end in zip(found, ends, strict=True):
        assert 0 < end - start < 1.5 * longest + 1e-9
        shares[split] += (end - start) / seconds
    if seconds < 10:
        assert set(shares) == {"train"}
    else:
        assert shares == pytest.approx({"train": 0.8, "dev": 0.1, "test": 0.1})
    assert [split for split, _, _ in found] == sorted(
        (split for split, _, _ in found), key=["train", "dev", "test"].index
    )


def test_excerpts_point_into_the_file_and_are_its_samples(tmp_path):
    source = made_up.music(tmp_path / "in")
    report, cuts = prepared("music", source, tmp_path / "out", excerpt_seconds=10.0)
    assert report["transcoded"] == {"Vorbis": 1}
    assert sorted(path.name for path in (tmp_path / "out" / "audio").iterdir()) == ["live-second.flac"]
    by_piece: dict[str, list] = {}
    for cut in all_cuts(cuts).values():
        by_piece.setdefault(label_of(cut, "piece"), []).append(cut)
    assert {piece: len(part) for piece, part in by_piece.items()} == {
        "first_take": 6,
        "live-second": 3,
        "jingle": 1,
    }
    whole = {"first_take": source / "first take.wav", "live-second": source / "live" / "second.ogg"}
    for piece, path in whole.items():
        parts = [
            read_cut(cut, 0, cut.num_samples) for cut in sorted(by_piece[piece], key=lambda cut: cut.start)
        ]
        torch.testing.assert_close(torch.cat(parts, 1), io.read(path)[0], rtol=0, atol=2**-15)
    places = {cut.recording.sources[0].source for cut in by_piece["first_take"]}
    assert places == {str(source / "first take.wav")}


def test_music_of_mixed_rates_and_channels_is_converted_or_refused(tmp_path):
    source = made_up.music(tmp_path / "in")
    made_up.sound(source / "stereo.wav", 44100, 11.0, channels=2)
    with pytest.raises(InputError, match="mixed sample rates"):
        prepared("music", source, tmp_path / "out")
    with pytest.raises(InputError, match="mixed channel counts"):
        prepared("music", source, tmp_path / "out", sample_rate=8000)
    report, _ = prepared("music", source, tmp_path / "out", sample_rate=8000, mono=True)
    assert (report["sample_rate"], report["channels"], report["excluded"]) == (8000, 1, 0)
    assert (tmp_path / "out" / "recipe.txt").read_text() == "data.sample_rate=8000\ndata.channels=1\n"


def test_music_names_what_it_cannot_read_and_excerpts_of_no_length(tmp_path):
    source = made_up.music(tmp_path / "in")
    (source / "broken.flac").write_bytes(b"fLaC")
    made_up.text(source / "song.m4a", "x")
    report, _ = prepared("music", source, tmp_path / "out")
    assert {problem["id"] for problem in report["problems"]} == {"broken.flac", "song.m4a"}
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="--excerpt-seconds"):
            prepared("music", source, tmp_path / "out2", excerpt_seconds=seconds)


def test_the_real_music_holds_the_end_of_every_piece_out(data_dir, tmp_path):
    report, cuts = prepared("music", data_dir / "music", tmp_path, sample_rate=22050, mono=True)
    assert report["excluded"] == 0
    assert report["transcoded"] == {"Vorbis": 7}
    pieces = {split: {label_of(cut, "piece") for cut in part.values()} for split, part in cuts.items()}
    assert len(pieces["train"]) == 7
    assert pieces["dev"] == pieces["test"] < pieces["train"]
    assert len(pieces["test"]) == 5
    for split, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
        assert report["splits"][split]["seconds"] == pytest.approx(share * report["seconds"], rel=0.05)


def test_classes_of_drums_are_those_of_the_recipe():
    import yaml

    from audiodiff.recipes_folder import recipes_folder

    recipe = yaml.safe_load((recipes_folder() / "data" / "drums.yaml").read_text())
    assert tuple(recipe["labels"]["class"]) == drums.CLASSES
    assert recipe["segment_seconds"] == drums.SECONDS
    recipe = yaml.safe_load((recipes_folder() / "data" / "piano.yaml").read_text())
    assert recipe["segment_seconds"] == piano.SECONDS
