"""Loading speed against other loaders, and a manifest of a million cuts: seconds and resident memory.

    python benchmarks/loader.py segments --data LJSpeech-1.1/wavs --lmnt diffwave --workers 0 2
    python benchmarks/loader.py manifest --cuts 1000000
    python benchmarks/loader.py features --data LJSpeech-1.1/wavs

`segments`: batches of random segments from wav files, all contestants in one run, interleaved, medians of the repeats.
lmnt's loader is its own code from a checkout (github.com/lmnt-com/diffwave), with mels computed beforehand; ours makes
the mel of each batch in the main process. `--copies` links every file several times, so that an epoch is longer than a
measurement. `manifest`: a made-up manifest, each way of opening it in a process of its own. `features`: the mel of a
segment made on the fly against one read from disk.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.data.manifests import encode_cuts, load_cuts
from audiodiff.data.order import SegmentBatchSampler, fixed_requests
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.data.shar import write_shar
from audiodiff.data.shards import open_clips

RATE, HOP, FRAMES = 22050, 256, 62  # lmnt's published configuration
SEGMENT = HOP * FRAMES
BATCH = 16
MEL = "lmnt_diffwave_22k80"
# What every process of `manifest` measures with.
MEASURE = """
import sys, time, psutil
def rss(): return psutil.Process().memory_info().rss / 1e6
import lhotse, torch, numpy
from audiodiff.data.manifests import load_cuts
from audiodiff.data.segments import SegmentDataset
from audiodiff.data.order import SegmentBatchSampler
path, before, began = sys.argv[1], rss(), time.perf_counter()
"""
OURS = """
cuts = load_cuts(path)
print(f"{sys.argv[2]}: {time.perf_counter() - began:.2f} s, {rss() - before:.0f} MB")
if sys.argv[2] == "ours, opened":
    data = SegmentDataset(cuts, 22050, 1, ("digit", "speaker"))
    sampler = SegmentBatchSampler(data.lengths, 15872, 16, 0)
    for first, last in ((0, 100), (100, 10_000)):
        began = time.perf_counter()
        for update in range(first, last):
            for request in sampler.update(update):
                data.clips.entry(request.index)
        seconds = (time.perf_counter() - began) / (last - first)
        print(f"ours, after {last} batches of requests: {seconds * 1e3:.2f} ms each, {rss() - before:.0f} MB")
"""
EAGER = """
cuts = lhotse.load_manifest(path)
print(f"lhotse eager, {len(cuts)} cuts: {time.perf_counter() - began:.2f} s, {rss() - before:.0f} MB")
"""
LAZY = """
cuts = lhotse.CutSet.from_jsonl_lazy(path)
print(f"lhotse lazy, opened: {time.perf_counter() - began:.2f} s, {rss() - before:.0f} MB")
began = time.perf_counter()
seconds = sum(cut.duration for cut in cuts)
print(f"lhotse lazy, read once front to back: {time.perf_counter() - began:.2f} s, {rss() - before:.0f} MB")
began = time.perf_counter()
sampler = lhotse.dataset.SimpleCutSampler(cuts, max_cuts=16, shuffle=True)
for number, batch in zip(range(1000), sampler):
    pass
seconds = time.perf_counter() - began
print(f"lhotse lazy, SimpleCutSampler, 1000 batches: {seconds:.2f} s, {rss() - before:.0f} MB")
"""


class PlainDataset(Dataset[Tensor]):
    """What one writes first: the whole file, then a crop."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        samples, _ = soundfile.read(self.files[number], dtype="float32")
        start = int(torch.randint(len(samples) - SEGMENT + 1, ()))
        return torch.from_numpy(samples[start : start + SEGMENT])


class LhotseDataset(Dataset[Any]):
    """lhotse's own: the sampler gives the cuts of a batch, cropped at random, and collates their audio."""

    def __getitem__(self, cuts: Any) -> Tensor:
        from lhotse.dataset.collation import collate_audio

        return collate_audio(cuts.truncate(max_duration=SEGMENT / RATE, offset_type="random"))[0]


def soundfile_in_place_of_torchaudio() -> None:
    """torchaudio.load needs torchcodec since 2.9; lmnt's code is given soundfile under the same name."""
    import torchaudio

    def load(path: str) -> tuple[Tensor, int]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T.copy()), rate

    torchaudio.load = load


def lmnt_batches(checkout: Path, files: Path, workers: int) -> Iterable[Tensor]:
    """Returns lmnt's loader, with as many workers as the others have."""
    sys.path.insert(0, str(checkout / "src"))
    soundfile_in_place_of_torchaudio()
    dataset = importlib.import_module("diffwave.dataset")
    params = importlib.import_module("diffwave.params").params
    prepared = dataset.ConditionalDataset([str(files)])
    collate = dataset.Collator(params).collate
    loader = DataLoader(
        prepared, BATCH, shuffle=True, collate_fn=collate, num_workers=workers, drop_last=True
    )
    return (batch["audio"] for batch in loader)


def prepare_lmnt(checkout: Path, files: Path) -> None:
    """Computes lmnt's mels with its own code, once for all links to a file."""
    sys.path.insert(0, str(checkout / "src"))
    soundfile_in_place_of_torchaudio()
    preprocess = importlib.import_module("diffwave.preprocess")
    for file in sorted(files.glob("*_000.wav")):
        preprocess.transform(str(file))
        for link in files.glob(f"{file.stem[:-4]}_*.wav"):
            if link != file:
                Path(f"{link}.spec.npy").symlink_to(f"{file}.spec.npy")


def linked(data: Path, folder: Path, copies: int) -> list[Path]:
    """Links every wav that is long enough several times into a folder."""
    folder.mkdir()
    files = [file for file in sorted(data.rglob("*.wav")) if io.probe(file).length > SEGMENT + 4 * HOP]
    links = []
    for copy in range(copies):
        for file in files:
            links.append(folder / f"{file.stem}_{copy:03d}.wav")
            links[-1].symlink_to(file.resolve())
    return links


def write_manifest(files: list[Path], path: Path) -> None:
    """Writes lhotse cuts of whole files."""
    from lhotse import Recording

    path.parent.mkdir()
    path.write_bytes(
        encode_cuts(Recording.from_file(file, recording_id=file.stem).to_cut() for file in files)
    )


def contestants(
    arguments: argparse.Namespace, work: Path, workers: int
) -> dict[str, Callable[[], Iterator[Any]]]:
    """Returns for each loader a call that begins it anew."""
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler, SimpleCutSampler

    manifest, wavs = work / "ours" / "train.jsonl.gz", work / "wavs"
    mel = preset(MEL)

    def ours(cache: float = 0, shards: bool = False, heard: bool = False) -> Iterator[Any]:
        clips = open_clips(work / "ours" / "shar", "train") if shards else load_cuts(manifest)
        dataset = SegmentDataset(clips, RATE, cache_megabytes=cache)
        if cache:
            for request in fixed_requests(dataset.lengths, SEGMENT):  # an epoch later
                dataset[request]
        sampler = SegmentBatchSampler(dataset.lengths, SEGMENT, BATCH, 0, shards=dataset.shards)
        for batch in training_loader(dataset, sampler, workers):
            yield mel(batch.waveform[:, 0]) if heard else batch.waveform

    def plain() -> Iterator[Any]:
        dataset = PlainDataset([str(file) for file in sorted(wavs.glob("*.wav"))])
        return iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True))

    def lhotse(sampler: Callable[[Any], Any]) -> Iterator[Any]:
        cuts = CutSet.from_jsonl_lazy(manifest)
        return iter(DataLoader(LhotseDataset(), sampler=sampler(cuts), batch_size=None, num_workers=workers))

    systems = {
        "plain torch Dataset": plain,
        "lhotse SimpleCutSampler": lambda: lhotse(
            lambda cuts: SimpleCutSampler(cuts, max_cuts=BATCH, shuffle=True)
        ),
        "lhotse DynamicBucketingSampler": lambda: lhotse(
            lambda cuts: DynamicBucketingSampler(
                cuts, max_cuts=BATCH, max_duration=1e6, shuffle=True, num_buckets=10
            )
        ),
        "ours": ours,
        "ours, mel on the fly": lambda: ours(heard=True),
        "ours, from shards, mel on the fly": lambda: ours(shards=True, heard=True),
        "ours, in memory, mel on the fly": lambda: ours(cache=1e4, heard=True),
    }
    if arguments.lmnt is not None:
        lmnt = {"lmnt, mel precomputed": lambda: iter(lmnt_batches(arguments.lmnt, wavs, workers))}
        systems = lmnt | systems
    return systems


def rate(batches: Iterator[Any], count: int, clock: Callable[[], float]) -> float:
    """Returns segments per second, from the first batch on."""
    next(batches)
    began = clock()
    found = sum(1 for _ in islice(batches, count))
    return BATCH * found / (clock() - began)


def segments(arguments: argparse.Namespace) -> None:
    """Prints a table of the loaders."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = linked(arguments.data, work / "wavs", arguments.copies)
        write_manifest(files, work / "ours" / "train.jsonl.gz")
        write_shar(work / "ours", 200)
        if arguments.lmnt is not None:
            prepare_lmnt(arguments.lmnt, work / "wavs")
        describe(arguments)
        print("| workers | loader | segments/s, median | least | most | lmnt = 1 |")
        print("|---|---|---|---|---|---|")
        for workers in arguments.workers:
            systems = contestants(arguments, work, workers)
            clock = time.process_time if arguments.cpu else time.perf_counter
            found: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(arguments.repeats):
                for name, begin in systems.items():
                    found[name].append(rate(begin(), arguments.batches, clock))
            first = found.get("lmnt, mel precomputed", [])
            for name, rates in found.items():
                ratio = statistics.median(r / f for r, f in zip(rates, first, strict=True)) if first else 0
                middle, least, most = statistics.median(rates), min(rates), max(rates)
                times = f"{ratio:.2f}" if first else ""
                print(
                    f"| {workers} | {name} | {middle:.0f} | {least:.0f} | {most:.0f} | {times} |", flush=True
                )


def describe(arguments: argparse.Namespace) -> None:
    """Prints the circumstances."""
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} thread(s), load {load:.1f}; "
        f"batches of {BATCH} segments of {SEGMENT} samples at {RATE} Hz; {arguments.repeats} interleaved repeats"
        f"{', CPU seconds' if arguments.cpu else ''}\n"
    )


def manifest(arguments: argparse.Namespace) -> None:
    """Prints what it takes to open a large manifest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl.gz"
        audio = Path(folder) / "clip.wav"
        io.write(audio, torch.zeros(1, 200_000), RATE)
        with gzip.open(path, "wt", compresslevel=1) as lines:
            for number in range(arguments.cuts):
                lines.write(json.dumps(made_up(number, str(audio))) + "\n")
        size = path.stat().st_size / 1e6
        print(f"{arguments.cuts} cuts, {size:.0f} MB; load {os.getloadavg()[0]:.1f}", flush=True)
        for code, name in (
            (OURS, "ours, indexed"), (OURS, "ours, opened"), (LAZY, ""), (EAGER, "")
        ):  # fmt: skip
            subprocess.run([sys.executable, "-c", MEASURE + code, str(path), name], check=True)
        index = sum(file.stat().st_size for file in (Path(folder) / ".index").iterdir())
        print(f"index on disk: {index / 1e6:.0f} MB")


def made_up(number: int, audio: str) -> dict[str, Any]:
    """Returns a cut as `audiodiff prepare` writes it."""
    name, length = f"clip{number:07d}", 2 * RATE + number * 7919 % 150_000
    facts = {"id": name, "recording_id": name, "start": 0.0, "duration": length / RATE, "channel": 0}
    spoken = {
        "text": f"the made-up text of clip {number}, as long as a sentence is",
        "speaker": f"s{number % 999}",
    }
    return {
        "id": name, "start": 0.0, "duration": length / RATE, "channel": 0, "type": "MonoCut",
        "supervisions": [{**facts, **spoken, "custom": {"digit": str(number % 10)}}],
        "recording": {
            "id": name, "sampling_rate": RATE, "num_samples": length, "duration": length / RATE, "channel_ids": [0],
            "sources": [{"type": "file", "channels": [0], "source": audio}],
        },
    }  # fmt: skip


def features(arguments: argparse.Namespace) -> None:
    """Prints what the mel of a segment costs, made and read, and how far a slice of the clip's mel is from it."""
    mel = preset(MEL)
    files = [
        file for file in sorted(arguments.data.rglob("*.wav")) if io.probe(file).length > SEGMENT + 4 * HOP
    ]
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for number, file in enumerate(files):
            whole = mel(io.read(file)[0])[0]
            places.append(Path(folder) / f"{number}.npy")
            np.save(places[-1], whole.numpy())
        spoken = torch.stack([io.read(file, length=SEGMENT)[0][0] for file in files[:BATCH]])
        ways: dict[str, Callable[[], Any]] = {
            "made, a batch at once": lambda: mel(spoken),
            "read whole": lambda: [torch.from_numpy(np.load(place)) for place in places[:BATCH]],
            "read by memory map": lambda: [
                torch.from_numpy(np.load(place, mmap_mode="r")[:, 8 : 8 + FRAMES].copy())
                for place in places[:BATCH]
            ],
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _, (name, way) in zip(
            range(arguments.repeats * 3 * len(ways)), cycle(ways.items()), strict=False
        ):
            began = time.process_time()
            way()
            found[name].append((time.process_time() - began) / BATCH)
        describe(arguments)
        for name, seconds in found.items():
            print(f"{name}: {statistics.median(seconds) * 1e6:.0f} us of CPU a segment")
        start = 8 * HOP
        clip = io.read(files[0])[0]
        cropped = mel(clip[:, start : start + SEGMENT])[0]
        sliced = torch.from_numpy(np.load(places[0]))[:, 8 : 8 + cropped.shape[-1]]
        apart = (cropped - sliced).abs().amax(0)
        equal = [number for number, value in enumerate(apart.tolist()) if value < 1e-4]
        print(
            f"slice of the clip's mel against the segment's own: frames {equal[0]}..{equal[-1]} of {len(apart)} agree"
        )
        print(f"largest difference elsewhere: {float(apart.max()):.3f} of the mel's own unit")
        audio = sum(file.stat().st_size for file in files)
        print(
            f"on disk: mels {sum(place.stat().st_size for place in places) / audio:.2f} of the wav files' bytes"
        )


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("segments", "manifest", "features"))
    parser.add_argument("--data", type=Path, help="folder of wav files at 22050 Hz, mono")
    parser.add_argument("--lmnt", type=Path, help="checkout of github.com/lmnt-com/diffwave")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--batches", type=int, default=60, help="batches of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cuts", type=int, default=1_000_000)
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="count the main process' CPU seconds, for a busy machine; takes --workers 0",
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch in the main process")
    arguments = parser.parse_args()
    if arguments.what != "manifest" and arguments.data is None:
        parser.error("--data is needed: a folder of wav files")
    if arguments.cpu and arguments.workers != [0]:
        parser.error("--cpu counts the main process alone; pass --workers 0")
    torch.set_num_threads(arguments.threads)
    {"segments": segments, "manifest": manifest, "features": features}[arguments.what](arguments)


if __name__ == "__main__":
    main()
