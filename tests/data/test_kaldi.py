"""Kaldi data directories in and out: the same samples, speakers and words; commands are never run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.data.corpora import kaldi, libritts
from audiodiff.data.kaldi_export import export
from audiodiff.data.manifests import SPLITS, labels_of, load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from tests.data import made_up


def clips(out: Path) -> dict[str, tuple]:
    """Split, labels and samples of every cut by id."""
    found = {}
    for split in SPLITS:
        for cut in load_cuts(out / f"{split}.jsonl.gz"):
            found[cut.id] = (split, labels_of(cut), read_cut(cut, 0, cut.num_samples))
    return found


def assert_same(one: tuple, other: tuple) -> None:
    assert one[:2] == other[:2]
    assert torch.equal(one[2], other[2])


def test_segments_become_parts_of_recordings(tmp_path):
    source = made_up.kaldi(tmp_path / "in")
    report = kaldi.prepare(source, tmp_path / "out", PrepareOptions())
    assert {split: report["splits"][split]["cuts"] for split in SPLITS} == dict.fromkeys(SPLITS, 2)
    found = clips(tmp_path / "out")
    from audiodiff.audio import io

    whole, _ = io.read(tmp_path / "in" / "wavs" / "dev.wav")
    split, labels, samples = found["ann-dev-1"]
    assert (split, labels) == ("dev", {"speaker": "ann", "text": "one"})
    assert torch.equal(samples, whole[:, 1600:6400])
    assert torch.equal(found["ann-dev-2"][2], whole[:, 8000:])


def test_what_is_written_is_read_again_sample_by_sample(tmp_path):
    kaldi.prepare(made_up.kaldi(tmp_path / "in"), tmp_path / "one", PrepareOptions())
    export(tmp_path / "one", tmp_path / "kaldi")
    kaldi.prepare(tmp_path / "kaldi", tmp_path / "two", PrepareOptions())
    one, two = clips(tmp_path / "one"), clips(tmp_path / "two")
    assert set(one) == set(two)
    for name in one:
        assert_same(one[name], two[name])


def test_whole_clips_need_no_segments_and_ids_begin_with_the_speaker(tmp_path):
    libritts.prepare(made_up.libritts(tmp_path / "in"), tmp_path / "one", PrepareOptions())
    done = export(tmp_path / "one", tmp_path / "kaldi", copy_to_wav=True)
    assert (done.utterances, done.not_wav, done.without_text) == ({"train": 4, "dev": 1, "test": 1}, 0, 0)
    train = tmp_path / "kaldi" / "train"
    assert not (train / "segments").exists()
    tables = {path.name: path.read_bytes().splitlines() for path in train.iterdir()}
    assert set(tables) == {"wav.scp", "utt2spk", "spk2utt", "text", "utt2dur", "reco2dur"}
    for lines in tables.values():
        assert lines == sorted(lines)
    pairs = [line.split() for line in tables["utt2spk"]]
    assert all(utterance.startswith(speaker + b"-") for utterance, speaker in pairs)
    assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    assert b"14 14-14_121123_000007_000000 14-14_121123_000007_000001" in tables["spk2utt"]
    kaldi.prepare(tmp_path / "kaldi", tmp_path / "two", PrepareOptions())
    one, two = clips(tmp_path / "one"), clips(tmp_path / "two")
    for name, clip in one.items():
        twin = two[f"{clip[1]['speaker']}-{name}"]
        assert {**twin[1], "gender": "F"} == {**clip[1], "gender": "F"}
        assert torch.equal(twin[2], clip[2])


def test_lhotse_reads_what_is_written(tmp_path):
    from lhotse.kaldi import load_kaldi_data_dir

    kaldi.prepare(made_up.kaldi(tmp_path / "in"), tmp_path / "one", PrepareOptions())
    export(tmp_path / "one", tmp_path / "kaldi")
    recordings, supervisions, _ = load_kaldi_data_dir(tmp_path / "kaldi" / "train", sampling_rate=16000)
    ours = clips(tmp_path / "one")
    for supervision in supervisions:
        split, labels, samples = ours[supervision.id]
        assert (split, labels) == ("train", {"speaker": supervision.speaker, "text": supervision.text})
        recording = recordings[supervision.recording_id]
        theirs = recording.load_audio(offset=supervision.start, duration=supervision.duration)
        assert torch.equal(torch.from_numpy(theirs), samples)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("touch {trap} |", "commands are not run"),
        ("| touch {trap}", "commands are not run"),
        ("sph2pipe -f wav x.sph; touch {trap} |", "commands are not run"),
        ("raw.ark:1234", "archives and streams are not read"),
        ("-", "archives and streams are not read"),
    ],
)
def test_a_command_or_an_archive_in_wav_scp_is_refused_by_name_and_not_run(entry, word, tmp_path):
    source = made_up.kaldi(tmp_path / "in")
    trap = tmp_path / "trap"
    scp = source / "train" / "wav.scp"
    scp.write_text(scp.read_text() + f"reco-bad {entry.format(trap=trap)}\n")
    with pytest.raises(InputError, match=rf"wav\.scp, reco-bad: .*{word}"):
        kaldi.prepare(source, tmp_path / "out", PrepareOptions())
    assert not trap.exists()
    assert not (tmp_path / "out").exists()


def test_bad_lines_are_left_out_and_named(tmp_path):
    source = made_up.kaldi(tmp_path / "in") / "train"
    with (source / "segments").open("a") as table:
        table.write(
            "ann-train-3 reco-train 0.9 99\nann-train-4 nowhere 0 1\nann-train-5 reco-train zero one\n"
        )
        table.write("ann-train-6 reco-train 0 1\nann-train-7 reco-train 0 1 A\nann-train-1 reco-train 0 1\n")
        table.write("ann-train-8 reco-train 0.5 1.2\nann-train-9 reco-train 0.5 0.5\n")
    with (source / "text").open("a") as table:
        table.writelines(f"ann-train-{number} words\n" for number in (3, 4, 5, 7, 8, 9))
    with (source / "utt2spk").open("a") as table:
        table.writelines(f"ann-train-{number} ann\n" for number in (3, 4, 5, 6, 7, 8, 9))
    report = kaldi.prepare(source, tmp_path / "out", PrepareOptions())
    reasons = {problem["id"]: problem["reason"] for problem in report["problems"]}
    assert "is no part of its recording" in reasons["ann-train-3"]
    assert "not in wav.scp" in reasons["ann-train-4"]
    assert "is not: recording start end" in reasons["ann-train-5"]
    assert "no line in text" in reasons["ann-train-6"]
    assert "one file per channel" in reasons["ann-train-7"]
    assert "duplicate id in line 8 of segments" in reasons["ann-train-1"]
    assert "is no part" in reasons["ann-train-9"]
    assert report["cuts"] == 3  # 1 and 2, and 8, which is cut at its recording's end
    assert sorted(report["splits"][split]["cuts"] for split in SPLITS) == [0, 0, 3]


def test_relative_paths_are_found_from_the_folders_above(tmp_path):
    source = made_up.kaldi(tmp_path / "in")
    for split in SPLITS:
        (source / split / "wav.scp").write_text(f"reco-{split} wavs/{split}.wav\n")
    assert kaldi.prepare(source, tmp_path / "out", PrepareOptions())["cuts"] == 6


def test_a_recording_with_a_path_as_id_is_converted_inside_the_prepared_folder(tmp_path):
    path = made_up.sound(tmp_path / "a.wav", 16000)
    made_up.text(tmp_path / "in" / "wav.scp", f"../../escaped {path}\n")
    report = kaldi.prepare(tmp_path / "in", tmp_path / "deep" / "out", PrepareOptions(sample_rate=8000))
    assert report["cuts"] == 1
    assert [found.name for found in tmp_path.rglob("*.flac")] == ["%2E.%2F..%2Fescaped.flac"]
    assert next(tmp_path.rglob("*.flac")).parent == tmp_path / "deep" / "out" / "audio"


def test_the_command_says_what_it_wrote_and_mistakes_are_one_line(tmp_path):
    kaldi.prepare(made_up.kaldi(tmp_path / "in"), tmp_path / "one", PrepareOptions())
    arguments = ["export-kaldi", str(tmp_path / "one"), "--out", str(tmp_path / "kaldi")]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "train: 2 utterances" in shown.output
    assert CliRunner().invoke(app, arguments).exit_code == 0  # what an export wrote may be replaced
    (tmp_path / "kaldi" / "mine").touch()
    with pytest.raises(InputError, match="holds something else"):
        export(tmp_path / "one", tmp_path / "kaldi")
    with pytest.raises(InputError, match="no manifest with clips"):
        export(tmp_path / "in", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_speakers_that_kaldi_could_not_sort_are_refused(tmp_path):
    for speaker in ("a", "a-b"):
        made_up.sound(tmp_path / "wavs" / f"{speaker}.wav", 16000, seed=len(speaker))
    made_up.text(tmp_path / "in" / "wav.scp", "z {}\na-c {}\n".format(*sorted((tmp_path / "wavs").iterdir())))
    made_up.text(tmp_path / "in" / "utt2spk", "z a\na-c a-b\n")
    kaldi.prepare(tmp_path / "in", tmp_path / "one", PrepareOptions())
    with pytest.raises(InputError, match="rename a speaker"):
        export(tmp_path / "one", tmp_path / "kaldi")
