"""Shards: what was read from files comes from them bit for bit; order and failures do not depend on who reads."""

from __future__ import annotations

import http.server
import json
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lhotse
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiodiff.audio import io
from audiodiff.data import shard_store
from audiodiff.data.manifests import load_cuts, total_seconds
from audiodiff.data.order import ALONE, SegmentBatchSampler, Shards, Share, fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.data.shar import write_shar
from audiodiff.data.shards import ShardOptions, open_clips
from audiodiff.errors import InputError

CLIPS, SHARD = 23, 4
LONG = "long" * 40  # too long for a plain tar header


def make(folder: Path, channels: int = 1, suffix: str = ".wav", subtype: str = "PCM_16") -> Path:
    """Prepares a corpus of noise clips, writes it to shards and returns its folder."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for number in range(CLIPS):
        name = f"clip{number:02d}" if number != 9 else f"clip09{LONG}"
        path = folder / "source" / f"clip{number:02d}{suffix}"
        io.write(path, torch.rand(channels, 40 + 50 * number, generator=generator) * 2 - 1, 8000, subtype)
        clips.append(Clip(name, path, "train", "ann", "zwölf", {"digit": str(number % 5)}))
    out = folder / "out"
    write_corpus(Listing("noise", folder, clips, "all train"), out, PrepareOptions())
    write_shar(out, SHARD)
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache_home"))
    monkeypatch.setattr(shard_store, "_FIRST_PAUSE_SECONDS", 0.001)


def options(tmp_path: Path, together: int = 2, gigabytes: float = 1.0) -> ShardOptions:
    return ShardOptions(together, tmp_path / "cache", gigabytes)


def batches(
    clips: object, updates: int, start: int = 0, share: Share | None = None, workers: int = 0
) -> list:
    dataset = SegmentDataset(clips, 8000, 1, ("digit",))
    sampler = SegmentBatchSampler(dataset.lengths, 200, 4, 7, share or ALONE, start, dataset.shards)
    return list(islice(training_loader(dataset, sampler, workers), updates))


def content(found: list) -> list[tuple]:
    return [(batch.ids, batch.labels, batch.waveform.tolist(), batch.problems) for batch in found]


@pytest.mark.parametrize(
    ("channels", "suffix", "subtype", "kept"),
    [
        (1, ".wav", "PCM_16", "flac"),
        (2, ".wav", "PCM_24", "flac"),
        (1, ".flac", "PCM_16", "flac"),
        (1, ".wav", "FLOAT", "wav"),
        (1, ".wav", "PCM_U8", "flac"),
        (9, ".wav", "PCM_16", "wav"),
    ],
)
def test_a_shard_gives_the_very_samples_labels_and_lengths_of_the_files(
    channels, suffix, subtype, kept, tmp_path
):
    out = make(tmp_path, channels, suffix, subtype)
    files, sharded = load_cuts(out / "train.jsonl.gz"), open_clips(out / "shar", "train")
    assert sharded.lengths.tolist() == files.lengths.tolist()
    assert total_seconds(sharded) == pytest.approx(total_seconds(files))
    one, other = (SegmentDataset(clips, 8000, channels, ("digit", "speaker")) for clips in (files, sharded))
    for request in [*fixed_requests(one.lengths, 2000), *fixed_requests(one.lengths, 90)]:
        left, right = one[request], other[request]
        assert (left.id, left.labels, right.problems) == (right.id, right.labels, ())
        assert torch.equal(left.waveform, right.waveform)
    _, members = sharded._open(0)
    assert members[0].name.endswith(kept)


def test_lhotse_reads_our_shards(out):
    written = list(lhotse.CutSet.from_shar(in_dir=out / "shar" / "train"))
    expected = load_cuts(out / "train.jsonl.gz")
    assert [cut.id for cut in written] == [cut.id for cut in expected]
    for ours, theirs in zip(expected, written, strict=True):
        assert theirs.supervisions[0].custom == ours.supervisions[0].custom
        assert np.array_equal(theirs.load_audio(), ours.load_audio())


def test_we_read_the_shards_of_lhotse(out, tmp_path):
    cuts = [cut for cut in load_cuts(out / "train.jsonl.gz") if cut.num_samples > 300]
    parts = lhotse.CutSet.from_cuts([*cuts, cuts[3].truncate(offset=0.01, duration=0.02).with_id("part")])
    (tmp_path / "theirs" / "train").mkdir(parents=True)
    parts.to_shar(tmp_path / "theirs" / "train", {"recording": "wav"}, shard_size=5)
    clips = open_clips(tmp_path / "theirs", "train")
    dataset = SegmentDataset(clips, 8000, 1, ("digit",))
    assert len(dataset) == len(parts)
    for request, cut in zip(fixed_requests(dataset.lengths, 10**6), parts, strict=True):
        item = dataset[request]
        assert item.id == cut.id
        assert np.array_equal(item.waveform.numpy(), cut.load_audio())


counts = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(1, 4), st.integers(0, 5), st.integers(1, 6), st.integers(0, 30))
def test_the_order_takes_every_clip_once_and_few_shards_at_a_time(sizes, together, seed, clips, start):
    lying = Shards(np.concatenate([[0], np.cumsum(sizes)]), together)
    count = sum(sizes)

    def sampler(share: Share = ALONE, at: int = 0) -> SegmentBatchSampler:
        return SegmentBatchSampler([50] * count, 40, clips * share.world_size, seed, share, at, lying)

    stream = [r.index for batch in islice(sampler(), -(-2 * count // clips)) for r in batch][: 2 * count]
    assert sorted(stream[:count]) == sorted(stream[count:]) == list(range(count))
    assert list(islice(sampler(at=start), 4)) == list(islice(sampler(), start, start + 4))
    order = lying.permutation(np.random.default_rng(seed))
    shard_of = np.searchsorted(lying.starts, order, side="right") - 1
    begun: list[int] = list(dict.fromkeys(shard_of.tolist()))
    for place, shard in enumerate(shard_of):  # a shard's clips lie inside its group
        group = [begun.index(shard) // together, begun.index(shard_of[max(place - 1, 0)]) // together]
        assert group[0] - group[1] in (0, 1)
    halves = [list(islice(sampler(Share(rank, 2)), 5)) for rank in range(2)]
    whole = islice(SegmentBatchSampler([50] * count, 40, 2 * clips, seed, shards=lying), 5)
    for update, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert sorted((r for part in parts for r in part), key=repr) == sorted(update, key=repr)


class Server:
    """A web server over a folder, with byte ranges, that does to an answer what `fault` says."""

    def __init__(self, folder: Path, fault: Callable[[str, int], str | None]) -> None:
        requests: list[tuple[str, str | None]] = []
        self.requests = requests

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = folder / self.path.lstrip("/")
                requests.append((self.path, self.headers.get("Range")))
                what = fault(self.path, len(requests))
                if what == "503" or not path.is_file():
                    self.send_error(503 if what else 404)
                    return
                body = path.read_bytes()
                if what == "truncated":
                    body = body[: len(body) // 2]
                span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                start = int(span[1]) if span else 0
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if span else 200)
                if span:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                part = body[start:]
                self.wfile.write(part[: len(part) // 2] if what == "dropped" else part)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_web_server_gives_the_same_batches_as_the_folder(out, tmp_path, workers):
    local = content(batches(open_clips(out / "shar", "train", options(tmp_path)), 14))
    with Server(out / "shar", lambda *_: None).running() as server:
        clips = open_clips(server.address, "train", options(tmp_path))
        assert content(batches(clips, 14, workers=workers)) == local
        fetched = [path for path, _ in server.requests if path.endswith(".tar")]
        assert len(fetched) == len(set(fetched)) == -(-CLIPS // SHARD)


def test_a_server_that_fails_now_and_then_changes_nothing(out, tmp_path):
    local = content(batches(open_clips(out / "shar", "train", options(tmp_path)), 14))

    def fault(path: str, number: int) -> str | None:
        return {0: "503", 1: "dropped", 2: None}[number % 3]

    with Server(out / "shar", fault).running() as server:
        clips = open_clips(server.address, "train", options(tmp_path))
        assert content(batches(clips, 14)) == local
        assert any(
            span for path, span in server.requests if path.endswith(".tar")
        )  # went on where it stopped


def test_resuming_fetches_only_the_shards_that_its_updates_need(out, tmp_path):
    whole = content(batches(open_clips(out / "shar", "train", options(tmp_path, 1)), 4))
    with Server(out / "shar", lambda *_: None).running() as server:
        clips = open_clips(server.address, "train", options(tmp_path, 1))
        clips.fetch_ahead = lambda clips: None
        assert content(batches(clips, 1, start=3)) == whole[3:]
        assert len({path for path, _ in server.requests if path.endswith(".tar")}) <= 2


@pytest.mark.parametrize("remote", [True, False])
def test_a_shard_that_is_cut_off_is_counted_and_named_and_others_stand_in(tmp_path, remote):
    out = make(tmp_path)
    tar = out / "shar" / "train" / "recording.000002.tar"
    if remote:
        server = Server(out / "shar", lambda path, _: "truncated" if path.endswith(tar.name) else None)
        with server.running():
            clips = open_clips(server.address, "train", options(tmp_path))
            found = batches(clips, 12)
            asked = [path for path, _ in server.requests if path.endswith(tar.name)]
            assert len(asked) in (shard_store.ATTEMPTS, 2 * shard_store.ATTEMPTS)  # not once for each clip
            again = open_clips(server.address, "train", options(tmp_path))
            assert content(batches(again, 12)) == content(found)
    else:
        tar.write_bytes(tar.read_bytes()[:2000])
        found = batches(open_clips(out / "shar", "train", options(tmp_path)), 12)
    problems = {problem for batch in found for problem in batch.problems}
    lost = {f"clip{number:02d}" for number in (range(8, 12) if remote else range(9, 12))}
    assert {problem.split()[1][:6] for problem in problems} <= lost
    assert all(tar.name in problem for problem in problems)
    assert problems
    assert not {name for batch in found for name in batch.ids if name[:6] in lost}


def test_a_server_that_is_gone_is_one_error(out, tmp_path):
    with Server(out / "shar", lambda *_: None).running() as server:
        clips = open_clips(server.address, "train", options(tmp_path))
        clips.fetch_ahead = lambda clips: None
    with pytest.raises(InputError, match=r"clips cannot be read.*recording\.\d+\.tar: cannot be fetched"):
        batches(clips, 1)
    assert open_clips(server.address, "train", options(tmp_path)).lengths.tolist() == clips.lengths.tolist()


def test_the_local_folder_stays_within_its_bound_and_reading_goes_on(out, tmp_path):
    sizes = [tar.stat().st_size for tar in (out / "shar" / "train").glob("*.tar")]
    bound = 2 * max(sizes)
    local = content(batches(open_clips(out / "shar", "train", options(tmp_path, 1)), 14))
    with Server(out / "shar", lambda *_: None).running() as server:
        clips = open_clips(server.address, "train", options(tmp_path, 1, bound / 1e9))
        assert content(batches(clips, 14, workers=2)) == local
        assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("[!.]*-*")) <= bound
        with pytest.raises(InputError, match=r"too small for two groups of 3 shards; give it"):
            open_clips(server.address, "train", options(tmp_path, 3, bound / 1e9))


def test_an_object_store_is_read_through_fsspec(out, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(out / "shar"), "/bucket", recursive=True)
    local = content(batches(open_clips(out / "shar", "train", options(tmp_path)), 5))
    clips = open_clips("memory://bucket", "train", options(tmp_path))
    assert content(batches(clips, 5)) == local


def test_shards_travel_to_processes_that_are_not_forked(out, tmp_path):
    clips = open_clips(out / "shar", "train", options(tmp_path))
    expected = content(batches(clips, 3))
    assert content(batches(pickle.loads(pickle.dumps(clips)), 3)) == expected


def test_lists_that_are_damaged_or_lead_elsewhere_are_one_clear_error(out, tmp_path):
    good = json.loads((out / "shar" / "train.json").read_text())
    first = good["shards"][0]
    for text, word in (
        ("{", "not a list of shards"),
        (json.dumps({"version": 99, "shards": []}), "version 99"),
        (json.dumps({"version": 1, "shards": [{**first, "recording": "../x.tar"}]}), "outside its folder"),
        (json.dumps({"version": 1, "shards": [{**first, "clips": 0}]}), "a shard of 0 clips"),
        (json.dumps({"version": 1, "shards": [{"clips": 3}]}), "not a list of shards"),
        (json.dumps({"version": 1, "shards": []}), "holds no cuts"),
    ):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(InputError, match=word):
            open_clips(tmp_path, "train")
    with pytest.raises(InputError, match=r"no such file; make it with `audiodiff prepare"):
        open_clips(tmp_path / "nowhere", "train")


def test_writing_shards_of_nothing_or_of_a_corpus_that_changed_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="no manifest with cuts"):
        write_shar(tmp_path, 4)
    with pytest.raises(InputError, match="expected 1 or more"):
        write_shar(tmp_path, 0)
    out = make(tmp_path)
    before = sorted(path.name for path in (out / "shar").rglob("*"))
    (tmp_path / "source" / "clip07.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"clip07\.wav"):
        write_shar(out, 3)
    assert sorted(path.name for path in (out / "shar").rglob("*")) == before
    assert not list(out.glob(".shar*"))


def test_a_sampler_that_does_not_know_the_shards_is_refused(out, tmp_path):
    dataset = SegmentDataset(open_clips(out / "shar", "train", options(tmp_path)), 8000)
    with pytest.raises(InputError, match=r"shards=dataset\.shards"):
        training_loader(dataset, SegmentBatchSampler(dataset.lengths, 20, 4, 0), 0)
