"""Manifests: what is written comes back, equal cuts give equal bytes, anything else is one clear error."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from audiodiff.audio import io
from audiodiff.data import manifests
from audiodiff.data.inspection import Finding
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, _cut, write_corpus
from audiodiff.errors import InputError
from audiodiff.files import write_whole


@pytest.fixture
def folder(tmp_path):
    """A prepared corpus of three clips."""
    clips = []
    for number in range(3):
        path = tmp_path / f"c{number}.wav"
        io.write(path, torch.full((1, 1000 + number), 0.25), 8000)
        clips.append(Clip(f"c{number}", path, "train", "ann", 'zwölf | "x"', {"digit": str(number % 2)}))
    write_corpus(Listing("three", tmp_path, clips, "all train"), tmp_path / "out", PrepareOptions())
    return tmp_path / "out"


def lines(folder) -> list[str]:
    return gzip.decompress((folder / "train.jsonl.gz").read_bytes()).decode().splitlines()


def test_what_is_written_comes_back(folder):
    cuts = manifests.load_cuts(folder / "train.jsonl.gz")
    assert [cut.num_samples for cut in cuts] == [1000, 1001, 1002]
    assert manifests.labels_of(cuts[1]) == {"speaker": "ann", "text": 'zwölf | "x"', "digit": "1"}
    assert manifests.label_values(cuts, "digit") == ("0", "1")
    assert manifests.total_seconds(cuts) == pytest.approx(3003 / 8000)


def test_equal_cuts_give_equal_bytes_without_time_or_name(folder):
    content = (folder / "train.jsonl.gz").read_bytes()
    assert manifests.encode_cuts(manifests.load_cuts(folder / "train.jsonl.gz")) == content
    assert content[3:8] == bytes(5)  # RFC 1952: no flags (no file name), time 0


def test_the_length_in_samples_survives_the_duration_in_seconds(tmp_path):
    for rate in (8000, 11025, 22050, 44100, 48000, 96000):
        for length in (1, 7, 12345, rate * 3 + 1, rate * 400 + 11):
            cut = _cut(Clip("x", tmp_path / "x.wav", "train"), Finding("x.wav", rate, 1, length))
            assert cut.num_samples == length


def test_a_missing_manifest_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"no such file; make it with `audiodiff prepare"):
        manifests.load_cuts(tmp_path / "train.jsonl.gz")
    with pytest.raises(InputError, match="no such file"):
        manifests.load_cuts(tmp_path)


def test_a_manifest_cut_off_anywhere_is_an_error(folder):
    content = (folder / "train.jsonl.gz").read_bytes()
    for size in (3, 11, len(content) // 2, len(content) - 9, len(content) - 1):
        (folder / "cut.jsonl.gz").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.jsonl\.gz"):
            manifests.load_cuts(folder / "cut.jsonl.gz")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "holds no cuts"),
        (b"\n\n", "holds no cuts"),
        (b"hello\n", "line 1: not a cut"),
        (b"3\n", "line 1"),
        (b"[1, 2]\n", "line 1"),
        (b"{}\n", "line 1"),
        (b'{"type": "MonoCut", "id": "x"}\n', "line 1: not a cut"),
        (
            b'{"id": "r", "sources": [], "sampling_rate": 8000, "num_samples": 8, "duration": 0.001}\n',
            "Recording",
        ),
        (b"RIFF\xff\xfe\x00\x01", "holds no text"),
        (b"\x1f\x8b\x08\x00garbage", "cut off or damaged"),
    ],
)
def test_anything_else_than_cuts_is_one_clear_error(content, word, tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=word):
        manifests.load_cuts(tmp_path / "train.jsonl.gz")


def test_two_cuts_of_one_id_are_an_error(folder):
    (folder / "twice.jsonl").write_text("\n".join(lines(folder) + lines(folder)[:1]))
    with pytest.raises(InputError, match="two cuts have the id c0"):
        manifests.load_cuts(folder / "twice.jsonl")


def test_audio_that_is_gone_is_counted_and_named(folder):
    for name in ("c1.wav", "c2.wav"):
        (folder.parent / name).unlink()
    with pytest.raises(InputError, match=r"2 audio files that it names are gone, the first is .*c1\.wav"):
        manifests.load_cuts(folder / "train.jsonl.gz")


def test_cuts_that_ask_lhotse_to_change_the_audio_are_refused(folder):
    cut = manifests.load_cuts(folder / "train.jsonl.gz")[0]
    for changed, word in ((cut.perturb_speed(1.1), "transforms"), (cut.pad(1.0), "PaddedCut|MixedCut")):
        (folder / "changed.jsonl").write_text(json.dumps(changed.to_dict()))
        with pytest.raises(InputError, match=word):
            manifests.load_cuts(folder / "changed.jsonl")


def test_an_unknown_label_lists_the_known_ones(folder):
    cut = manifests.load_cuts(folder / "train.jsonl.gz")[0]
    with pytest.raises(InputError, match="no label 'mood'; this cut has: digit, speaker, text"):
        manifests.label_of(cut, "mood")
    cut.supervisions = []
    with pytest.raises(InputError, match="this cut has: none"):
        manifests.label_of(cut, "digit")


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()  # a file in the way of the second one's folder
    with pytest.raises(InputError, match="cannot be written"):
        write_whole({tmp_path / "a": b"1", tmp_path / "b" / "x" / "y": b"2"})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "x"]
    write_whole({tmp_path / "a": b"1", tmp_path / "c" / "d": b"2"})
    assert (tmp_path / "c" / "d").read_bytes() == b"2"
    assert not list(tmp_path.rglob("*.part"))
