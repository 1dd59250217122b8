"""Manifests: what is written comes back, equal cuts give equal bytes, anything else is one clear error."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from lhotse import MonoCut, Recording

from audiodiff.audio import io
from audiodiff.data import cut_index, manifests
from audiodiff.data.entries import entry_of, missing_label
from audiodiff.data.inspection import Finding
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, _cut, _Part, write_corpus
from audiodiff.data.reading import read_entry
from audiodiff.data.segments import SegmentDataset
from audiodiff.errors import InputError
from audiodiff.files import write_whole


@pytest.fixture
def folder(tmp_path):
    """A prepared corpus of three clips."""
    clips = []
    for number in range(3):
        path = tmp_path / f"c{number}.wav"
        io.write(path, 0.25 * torch.arange(1000 + number)[None].sin(), 8000)
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
            clip = Clip("x", tmp_path / "x.wav", "train")
            cut = _cut(_Part(clip, Finding("x.wav", rate, 1, length), 0, length))
            assert cut.num_samples == entry_of(cut.to_dict()).length == length


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


def test_an_index_is_built_once_and_again_when_the_manifest_changes(folder, monkeypatch):
    path, built = folder / "train.jsonl.gz", []
    build = cut_index._build
    monkeypatch.setattr(cut_index, "_build", lambda *given: (built.append(1), build(*given)))
    first = manifests.load_cuts(path)
    assert [cut.id for cut in manifests.load_cuts(path)] == ["c0", "c1", "c2"]
    os.utime(path)  # touched, not changed
    manifests.load_cuts(path)
    assert len(built) == 1
    write_whole({path: manifests.encode_cuts(first[1:])})
    assert [cut.id for cut in manifests.load_cuts(path)] == ["c1", "c2"]
    assert len(built) == 2
    assert len(list((folder / ".index").glob("train.jsonl.gz*"))) == 3  # those of the old one are gone
    assert [cut.id for cut in first] == ["c0", "c1", "c2"]  # who has it open goes on reading it


def test_an_index_that_was_damaged_or_only_begun_is_built_anew(folder):
    path = folder / "train.jsonl.gz"
    manifests.load_cuts(path)
    for suffix, content in ((".json", b"{}"), (".json", b""), (".npy", b"x")):
        (damaged,) = (folder / ".index").glob(f"train.jsonl.gz*{suffix}")
        damaged.write_bytes(content)
        assert [cut.id for cut in manifests.load_cuts(path)] == ["c0", "c1", "c2"]
    next((folder / ".index").glob("*.jsonl")).unlink()
    assert [cut.id for cut in manifests.load_cuts(path)] == ["c0", "c1", "c2"]


def test_an_index_beside_a_manifest_that_cannot_be_written_goes_to_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / ".index").write_text("in the way")  # as good as a read-only folder, also for root
    assert len(manifests.load_cuts(folder / "train.jsonl.gz")) == 3
    assert list((tmp_path / "cache").rglob("train.jsonl.gz.json"))
    (tmp_path / "cache2").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache2"))
    with pytest.raises(InputError, match="its index can be written neither to"):
        manifests.load_cuts(folder / "train.jsonl.gz")


def test_processes_that_index_at_once_do_not_disturb_one_another(folder):
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        counts = list(pool.map(_count, [folder / "train.jsonl.gz"] * 8))
    assert counts == [3] * 8
    assert len(list((folder / ".index").iterdir())) == 3


def _count(path: Path) -> int:
    return len(manifests.load_cuts(path))


def test_entries_say_what_lhotse_says_of_a_cut(tmp_path):
    generator = torch.Generator().manual_seed(0)
    io.write(tmp_path / "two.wav", torch.rand(2, 4000, generator=generator), 11025)
    recording = Recording.from_file(tmp_path / "two.wav", recording_id="r")
    whole = recording.to_cut()
    parts = [whole.truncate(offset=k * 0.01, duration=0.0123 * (k + 1)).with_id(f"p{k}") for k in range(9)]
    mono = [MonoCut(f"m{c}", 0.05, 0.1, c, recording=recording) for c in (0, 1)]
    for cut in (whole, *parts, *mono):
        entry = entry_of(cut.to_dict())
        assert (entry.id, entry.length, entry.sample_rate) == (cut.id, cut.num_samples, 11025)
        assert torch.equal(read_entry(entry, 0, entry.length), torch.from_numpy(cut.load_audio()))


def test_labels_are_counted_once_and_a_missing_one_is_named(folder):
    cuts = [cut.to_dict() for cut in manifests.load_cuts(folder / "train.jsonl.gz")]
    cuts[1]["supervisions"][0]["custom"]["mood"] = "calm"
    cuts[2]["supervisions"] = []
    (folder / "odd.jsonl").write_text("\n".join(map(json.dumps, cuts)))
    odd = manifests.load_cuts(folder / "odd.jsonl")
    assert missing_label(odd.summary, "digit") == 2
    assert missing_label(odd.summary, "mood") == 0
    with pytest.raises(InputError, match="cut c2: no label 'digit'; this cut has: none"):
        SegmentDataset(odd, 8000, 1, ("digit",))
    with pytest.raises(InputError, match="cut c0: no label 'mood'"):
        manifests.label_values(odd, "mood")


def test_rates_are_counted(folder):
    cuts = [cut.to_dict() for cut in manifests.load_cuts(folder / "train.jsonl.gz")]
    for cut in cuts[1:]:
        cut["recording"]["sampling_rate"] = 16000
    (folder / "odd.jsonl").write_text("\n".join(map(json.dumps, cuts)))
    with pytest.raises(
        InputError, match=r"cut c1: sample rate 16000 Hz, model needs 8000 Hz \(as of 2 cuts\)"
    ):
        SegmentDataset(manifests.load_cuts(folder / "odd.jsonl"), 8000, 1)


def test_resident_memory_does_not_grow_with_the_number_of_cuts(folder):
    """20,000 cuts as lhotse's objects take some 100 MB; those that an epoch asks for stay nowhere."""
    line = json.loads(lines(folder)[0])
    with gzip.open(folder / "many.jsonl.gz", "wt") as many:
        for number in range(20_000):
            many.write(json.dumps({**line, "id": f"cut{number}"}) + "\n")
    manifests.load_cuts(folder / "many.jsonl.gz")
    asked = (
        "import psutil; from audiodiff.data.manifests import load_cuts;"
        "from audiodiff.data.segments import SegmentDataset;"
        "from audiodiff.data.order import SegmentBatchSampler;"
        "cuts = load_cuts({!r}); data = SegmentDataset(cuts, 8000, 1, ('digit',));"
        "sampler = SegmentBatchSampler(data.lengths, 400, 16, 0);"
        "ask = lambda first, last: [0 for update in range(first, last) for request in sampler.update(update)"
        " if data.clips.entry(request.index) is None]; ask(0, 20);"
        "before = psutil.Process().memory_info().rss; ask(20, 700);"
        "print(psutil.Process().memory_info().rss - before)"
    )
    code = asked.format(str(folder / "many.jsonl.gz"))
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 4e6
