"""Corpora in their true layouts, made up in small: splits, labels, texts, and what is left out by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from audiodiff.audio import io
from audiodiff.data import corpora, splits
from audiodiff.data.download import Archive
from audiodiff.data.manifests import SPLITS, label_of, labels_of, load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from tests.data import made_up

OPTIONS = {"common_voice": {"sample_rate": 24000}, "maestro": {"sample_rate": 44100}}


def prepared(name: str, source: Path, out: Path, **options) -> tuple[dict, dict]:
    """Report, and the cuts of every split that has some, by id."""
    report = corpora.load(name).prepare(source, out, PrepareOptions(**options))
    cuts = {}
    for split in SPLITS:
        if report["splits"][split]["cuts"]:
            cuts[split] = {cut.id: cut for cut in load_cuts(out / f"{split}.jsonl.gz")}
    return report, cuts


def all_cuts(cuts: dict) -> dict:
    return {name: cut for part in cuts.values() for name, cut in part.items()}


@pytest.mark.parametrize("name", made_up.MAKERS)
def test_every_clip_arrives_and_a_second_run_gives_the_same_bytes(name, tmp_path):
    source = made_up.MAKERS[name](tmp_path / "in")
    options = OPTIONS.get(name, {})
    report, cuts = prepared(name, source, tmp_path / "out", **options)
    assert report["excluded"] == 0
    assert report["cuts"] == len(all_cuts(cuts))
    for cut in all_cuts(cuts).values():
        waveform = read_cut(cut, 0, cut.num_samples)
        assert waveform.shape == (cut.num_channels, cut.num_samples)
        assert float(waveform.abs().max()) > 0
    files = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    prepared(name, source, tmp_path / "out", **options)
    for path, content in files.items():
        assert path.read_bytes() == content, path.name


@pytest.mark.parametrize("name", made_up.MAKERS)
def test_a_folder_of_another_layout_is_refused_in_one_line(name, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=rf"^{name}: .*--source") as refused:
        corpora.load(name).prepare(tmp_path / "in", tmp_path / "out", PrepareOptions())
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=rf"^{name}: no source"):
        corpora.load(name).prepare(None, tmp_path / "out", PrepareOptions())
    assert not (tmp_path / "out").exists()


def test_libritts_follows_the_official_subsets_and_keeps_text_reader_and_gender(tmp_path):
    report, cuts = prepared("libritts", made_up.libritts(tmp_path / "in"), tmp_path / "out")
    assert {split: report["splits"][split]["cuts"] for split in SPLITS} == {"train": 4, "dev": 1, "test": 1}
    cut = cuts["train"]["84_121123_000007_000001"]
    assert labels_of(cut) == {"speaker": "84", "text": 'Number 1, "read" by 84.', "gender": "F"}
    assert cut.supervisions[0].gender == "F"
    assert cut.custom["subset"] == "train-clean-100"
    assert "train-other-500, dev-other, test-clean" in report["notes"][0]


def test_libritts_names_clips_without_transcript_and_refuses_two_copies(tmp_path):
    source = made_up.libritts(tmp_path / "in")
    transcript = next(source.rglob("84_*_000000.normalized.txt"))
    transcript.unlink()
    report, _ = prepared("libritts", source, tmp_path / "out")
    (problem,) = report["problems"]
    assert "transcript missing" in problem["reason"]
    assert problem["path"].endswith("84_121123_000007_000000.wav")
    shutil.copytree(source / "LibriTTS", source / "LibriTTS_R")
    with pytest.raises(InputError, match="dev-clean is there twice"):
        prepared("libritts", source, tmp_path / "out")


def test_libritts_archives_of_several_parts_are_read_from_where_they_are_unpacked(tmp_path):
    source = made_up.libritts(tmp_path / "in")
    for part in ("train-clean-100", "train-clean-360", "dev-clean", "test-other"):
        place = tmp_path / "download" / part / "LibriTTS"
        place.mkdir(parents=True)
        shutil.move(source / "LibriTTS" / part, place / part)
    report, _ = prepared("libritts", tmp_path / "download", tmp_path / "out")
    assert report["cuts"] == 6


def test_vctk_reads_the_first_microphone_and_holds_whole_speakers_out(tmp_path):
    report, cuts = prepared("vctk", made_up.vctk(tmp_path / "in"), tmp_path / "out", sample_rate=24000)
    speakers = {split: {label_of(cut, "speaker") for cut in part.values()} for split, part in cuts.items()}
    assert [len(speakers[split]) for split in SPLITS] == [5, 1, 1]
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert report["cuts"] == 14
    assert "p315 has no transcripts in this corpus, left out: 2 files" in report["notes"]
    cut = all_cuts(cuts)["p280_001"]
    assert labels_of(cut)["accent"] == "English"
    assert label_of(cut, "text") == "Please call Stella, 1."


def test_vctk_of_the_older_layout_is_read_too(tmp_path):
    source = tmp_path / "in" / "VCTK-Corpus"
    for number in range(4):
        made_up.sound(source / "wav48" / f"p22{number}" / f"p22{number}_001.wav", 48000)
        made_up.text(source / "txt" / f"p22{number}" / f"p22{number}_001.txt", "Hello.")
    made_up.text(source / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS\n220 23 M Irish\n")
    _, cuts = prepared("vctk", tmp_path / "in", tmp_path / "out")
    assert labels_of(all_cuts(cuts)["p220_001"])["accent"] == "Irish"


def test_common_voice_follows_its_tables_and_transcodes_its_clips(tmp_path):
    source = made_up.common_voice(tmp_path / "in")
    report, cuts = prepared("common_voice", source, tmp_path / "out", sample_rate=24000)
    assert {split: len(part) for split, part in cuts.items()} == {"train": 4, "dev": 1, "test": 1}
    assert report["transcoded"] == {"MP3": 6}
    assert report["notes"] == ["in none of the three tables, left out: 1 clips"]
    first = cuts["train"]["common_voice_cy_train0"]
    assert labels_of(first) == {
        "speaker": "trainspeaker0",
        "text": '"Bore da" meddai 0',
        "language": "cy",
        "gender": "female_feminine",
    }
    assert first.supervisions[0].language == "cy"
    assert "gender" not in labels_of(cuts["train"]["common_voice_cy_train1"])


def test_common_voice_of_mixed_rates_needs_a_sample_rate(tmp_path):
    source = made_up.common_voice(tmp_path / "in")
    with pytest.raises(InputError, match=r"mixed sample rates.*--sample-rate"):
        prepared("common_voice", source, tmp_path / "out")


def test_common_voice_names_bad_rows_and_absent_columns_and_tables(tmp_path):
    source = made_up.common_voice(tmp_path / "in")
    folder = next(source.glob("*/cy"))
    header = (folder / "train.tsv").read_text().splitlines()[0]
    rows = ["a\t\t\tno path" + "\t" * 6, "a\t../x.mp3\t\tup" + "\t" * 6, "\tx.mp3\t\tnobody" + "\t" * 6]
    rows += ["a\tgone\t\tfirst releases leave the suffix out"]
    (folder / "train.tsv").write_text("\n".join([header, *rows]))
    report, _ = prepared("common_voice", source, tmp_path / "out", sample_rate=24000)
    reasons = [problem["reason"] for problem in report["problems"]]
    assert reasons == [
        "no file name in train.tsv", "no file name in train.tsv", "no speaker in train.tsv", "audio file missing",
    ]  # fmt: skip
    (folder / "dev.tsv").write_text("path\tsentence\n")
    with pytest.raises(InputError, match=r"dev\.tsv: no column client_id; it has: path, sentence"):
        prepared("common_voice", source, tmp_path / "out", sample_rate=24000)
    (folder / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"lacks dev\.tsv"):
        prepared("common_voice", source, tmp_path / "out")


def test_maestro_keeps_composer_title_and_score(tmp_path):
    source = made_up.maestro(tmp_path / "in")
    report, cuts = prepared("maestro", source, tmp_path / "out", sample_rate=44100)
    assert {split: len(part) for split, part in cuts.items()} == {"train": 2, "dev": 1, "test": 1}
    cut = cuts["train"]["piece_1"]
    assert (cut.num_channels, cut.sampling_rate, cut.num_samples) == (2, 44100, 13230)
    assert labels_of(cut) == {"composer": "Franz Liszt"}
    assert cut.custom["title"] == 'Etude No. 1, "La Campanella"'
    assert Path(cut.custom["midi"]).read_bytes() == b"MThd"
    assert report["transcoded"] == {}


def test_maestro_names_a_missing_score_and_a_row_that_leads_elsewhere(tmp_path):
    source = made_up.maestro(tmp_path / "in", rates=(44100,))
    folder = source / "maestro-v3.0.0"
    (folder / "2018" / "piece_0.midi").unlink()
    with (folder / "maestro-v3.0.0.csv").open("a") as table:
        table.write("X,y,train,2018,a.midi,../../secret.wav,1\nX,y,later,2018,a.midi,2018/b.wav,1\n")
    report, _ = prepared("maestro", source, tmp_path / "out")
    reasons = [(problem["reason"], problem["excluded"]) for problem in report["problems"]]
    assert reasons[0] == ("its MIDI file is missing", False)
    assert "no path of an audio file" in reasons[1][0]
    assert "split 'later'" in reasons[2][0]


def test_musan_knows_kinds_sources_and_licences(tmp_path):
    report, cuts = prepared("musan", made_up.musan(tmp_path / "in"), tmp_path / "out")
    assert {split: len(part) for split, part in cuts.items()} == {"train": 3, "dev": 3, "test": 3}
    for cut in all_cuts(cuts).values():
        assert cut.id.startswith(f"{label_of(cut, 'kind')}-{label_of(cut, 'source')}-")
        assert Path(cut.custom["licence"]).read_text() == "CC BY"
    assert "SHA256" in report["split_rule"]


def test_nsynth_keeps_pitch_velocity_family_source_and_instrument(tmp_path):
    report, cuts = prepared("nsynth", made_up.nsynth(tmp_path / "in"), tmp_path / "out")
    assert {split: len(part) for split, part in cuts.items()} == {"train": 3, "dev": 2, "test": 2}
    cut = cuts["train"]["vocal_acoustic_001-061-100"]
    assert labels_of(cut) == {
        "pitch": "61", "velocity": "100", "instrument_family": "vocal", "source": "acoustic",
    }  # fmt: skip
    assert cut.custom == {"instrument": "vocal_acoustic_001", "qualities": "bright percussive"}
    assert report["notes"] == []


def test_nsynth_reads_what_is_there_wherever_the_archives_were_unpacked(tmp_path):
    source = made_up.nsynth(tmp_path / "in")
    shutil.rmtree(source / "nsynth-valid")
    for subset in ("nsynth-train", "nsynth-test"):
        (tmp_path / "download" / subset).mkdir(parents=True)
        shutil.move(source / subset, tmp_path / "download" / subset / subset)
    report, cuts = prepared("nsynth", tmp_path / "download", tmp_path / "out")
    assert {split: len(part) for split, part in cuts.items()} == {"train": 3, "test": 2}
    assert report["notes"] == ["subsets that are not there: nsynth-valid"]
    one = tmp_path / "download" / "nsynth-test" / "nsynth-test"
    _, alone = prepared("nsynth", one, tmp_path / "alone")
    assert {split: set(part) for split, part in alone.items()} == {"test": set(cuts["test"])}


def test_nsynth_names_notes_that_cannot_be_used(tmp_path):
    source = made_up.nsynth(tmp_path / "in")
    table = source / "nsynth-train" / "examples.json"
    notes = json.loads(table.read_text())
    good = next(iter(notes.values()))
    notes |= {"../up": good, "bare": {"pitch": 3}, "shrill": good | {"pitch": 128}, "gone": good}
    table.write_text(json.dumps(notes))
    report, _ = prepared("nsynth", source, tmp_path / "out")
    reasons = {problem["id"]: problem["reason"] for problem in report["problems"]}
    assert set(reasons) == {"../up", "bare", "shrill", "gone"}
    assert "no name of a file" in reasons["../up"]
    assert "instrument_family_str" in reasons["bare"]
    assert "pitch 128" in reasons["shrill"]
    assert report["cuts"] == 7
    table.write_text("{")
    with pytest.raises(InputError, match=r"examples\.json: not JSON"):
        prepared("nsynth", source, tmp_path / "out")


def test_ranks_depend_on_names_alone_and_hold_a_twentieth_of_each_group_out():
    groups = {f"{kind}{number}": kind for kind in "ab" for number in range(100)} | {"c0": "c", "c1": "c"}
    ranked = splits.ranked(groups)
    assert ranked == splits.ranked(dict(reversed(groups.items())))
    for kind in "ab":
        own = [split for name, split in ranked.items() if groups[name] == kind]
        assert [own.count(split) for split in SPLITS] == [90, 5, 5]
    assert ranked["c0"] == ranked["c1"] == "train"
    # A name more moves few of the others.
    more = splits.ranked(groups | {"a100": "a"})
    assert sum(more[name] != split for name, split in ranked.items()) <= 4


def test_every_archive_has_a_name_of_its_own_and_the_defaults_are_there():
    for name in corpora.names():
        module = corpora.load(name)
        archives: tuple[Archive, ...] = getattr(module, "ARCHIVES", ())
        names = [archive.name for archive in archives]
        assert len(set(names)) == len(names)
        assert {archive.url for archive in archives if not archive.url.startswith("https://")} == set()
        assert set(getattr(module, "DEFAULT_ARCHIVES", ())) <= set(names)


def test_the_peak_memory_of_a_long_file_is_that_of_a_short_one(tmp_path):
    """Two minutes of stereo at 48 kHz are 46 MB as floats; decoding them takes blocks of two."""
    import tracemalloc

    from audiodiff.data.inspection import Wanted, examine

    made_up.sound(tmp_path / "long.wav", 48000, 120.0, channels=2)
    tracemalloc.start()
    finding = examine(tmp_path / "long.wav", Wanted(24000, 1), tmp_path / "long.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert finding.length == 120 * 24000
    assert peak < 15e6
    whole, _ = io.read(tmp_path / "long.wav", 24000, 1)
    streamed, _ = io.read(tmp_path / "long.flac")
    assert torch.equal(streamed, (whole * 2**15).round() / 2**15)
