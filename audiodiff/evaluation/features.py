"""Sounds as rows of numbers, for the measures in `distributions`: what a judge hears, or statistics of the log-mel.

    judge    the judge's features and class probabilities; copies and mere likeness are near alike
    mel      mean and standard deviation over time of 40 log-mel bands; nothing is trained
    a folder NAME.npy for every system, test.npy and train.npy, each [N, D]: any embedding, computed elsewhere

The features of a prepared corpus are kept beside its index, under a digest of features, manifest and audio files.
"""

from __future__ import annotations

import hashlib
import io as streams
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.data.manifests import label_of, labels_of, load_cuts
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from audiodiff.evaluation.judge import BATCH, WEIGHTS, Judge
from audiodiff.evaluation.samples import SamplesFolder
from audiodiff.files import write_whole
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

JUDGE, MEL = "judge", "mel"
MEL_BANDS = 40
MEL_FLOOR = 1e-4


@dataclass(frozen=True)
class Described:
    """A set of sounds as numbers.

    Attributes:
        features: [N, D], of the sounds that could be read.
        probabilities: [N, K] of a judge; None without one.
        names: [N], file or clip.
        classes: [N], what was asked for or is said; "" where unknown.
        reasons: why a sound could not be described, by name.
        silent: names of described sounds that are silent.
    """

    features: np.ndarray
    probabilities: np.ndarray | None
    names: tuple[str, ...]
    classes: np.ndarray
    reasons: dict[str, str]
    silent: tuple[str, ...] = ()

    def part(self, rows: np.ndarray) -> Described:
        """Returns some of its sounds."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        names = tuple(self.names[row] for row in rows)
        return Described(self.features[rows], probabilities, names, self.classes[rows], {})


@dataclass(frozen=True)
class Features:
    """A way to describe sounds.

    Attributes:
        name: for the names of scores, for example "judge digit".
        digest: tells two judges of one label apart.
        sample_rate: Hz, of what it describes.
        describe: waveforms [T] each -> features [N, D], and probabilities [N, K] or None.
    """

    name: str
    digest: str
    sample_rate: int
    describe: Callable[[Sequence[Tensor]], tuple[Tensor, Tensor | None]]


def judge_features(judge: Judge, folder: Path) -> Features:
    """Returns the features of a judge that was loaded from a folder."""

    def describe(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        features = judge.describe(waveforms)
        with torch.inference_mode():
            return features, judge.classify(features).softmax(-1)

    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:8]
    return Features(f"{JUDGE} {judge.label}", digest, judge.sample_rate, describe)


def mel_features(sample_rate: int) -> Features:
    """Returns mean and standard deviation over time of a log-mel: 80 numbers a sound."""
    n_fft = int(2 ** round(np.log2(0.032 * sample_rate)))
    log_mel = LogMel(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=sample_rate // 100,
        n_mels=MEL_BANDS,
        mel_scale="htk",
        mel_norm=None,
        floor=MEL_FLOOR,
    )

    def describe(waveforms: Sequence[Tensor]) -> tuple[Tensor, None]:
        rows = []
        for waveform in waveforms:
            padded = torch.nn.functional.pad(waveform, (0, max(0, n_fft - waveform.shape[0])))
            mel = log_mel(padded[None])[0]
            rows.append(torch.cat([mel.mean(-1), mel.std(-1, correction=0)]))
        return torch.stack(rows), None

    return Features(MEL, f"{sample_rate}", sample_rate, describe)


def describe_samples(features: Features, samples: SamplesFolder, label: str, show: bool = False) -> Described:
    """Returns a samples folder as numbers; files that cannot be read are left out, with the reason.

    Args:
        features: how.
        samples: the sounds.
        label: whose values are the classes.
        show: a progress bar on the terminal.

    Raises:
        InputError: no file can be read.
    """

    def read(file: str) -> Tensor:
        return io.read(samples.files[file], features.sample_rate, channels=1)[0][0]

    classes = {file: samples.labels.get(file, {}).get(label, "") for file in samples.files}
    return _described(features, list(samples.files), read, classes, f"{samples.folder}", show)


def describe_split(features: Features, data: Path, split: str, label: str, show: bool = False) -> Described:
    """Returns a split of a prepared corpus as numbers.

    Args:
        features: how.
        data: prepared folder.
        split: "train", "dev" or "test".
        label: whose values are the classes.
        show: a progress bar on the terminal.

    Raises:
        InputError: no such split, or none of its clips can be read.
    """
    path = data / f"{split}.jsonl.gz"
    cuts = load_cuts(path)
    kept = path.parent / ".index" / f"features_{split}_{_digest(features, path, cuts, label)}.npz"
    found = _load(kept)
    if found is not None:
        return found
    by_name = {cut.id: number for number, cut in enumerate(cuts)}

    def read(name: str) -> Tensor:
        cut = cuts[by_name[name]]
        waveform = read_cut(cut, 0, cut.num_samples).mean(0, keepdim=True)
        return io.resample(waveform, int(cut.sampling_rate), features.sample_rate)[0]

    classes = {cut.id: label_of(cut, label) if label in labels_of(cut) else "" for cut in cuts}
    described = _described(features, list(by_name), read, classes, f"{path}", show)
    _keep(kept, described)
    return described


def read_matrix(folder: Path, name: str) -> Described:
    """Returns the features that a user computed: folder/NAME.npy, [N, D].

    Raises:
        InputError: no such file, or something else in it.
    """
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise InputError(f"{path}: no such file; --features DIR needs {name}.npy, an array [N, D] of numbers")
    try:
        matrix = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: not an array of numbers ({error})") from error
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"{path}: got shape {matrix.shape}, expected [N, D], all finite")
    return Described(matrix, None, tuple(map(str, range(len(matrix)))), np.full(len(matrix), ""), {})


def _described(
    features: Features,
    names: Sequence[str],
    read: Callable[[str], Tensor],
    classes: dict[str, str],
    where: str,
    show: bool,
) -> Described:
    reasons: dict[str, str] = {}
    silent, good = [], []
    waiting: list[Tensor] = []
    parts: list[tuple[Tensor, Tensor | None]] = []
    for name, waveform in track(_readable(names, read, reasons), "listening", len(names), show):
        if float(waveform.abs().max()) < io.SILENCE_PEAK:
            silent.append(name)
        good.append(name)
        waiting.append(waveform)
        if len(waiting) == BATCH:
            parts.append(features.describe(waiting))
            waiting = []
    if waiting:
        parts.append(features.describe(waiting))
    if not parts:
        raise InputError(f"{where}: none of {len(names)} sounds can be read; {next(iter(reasons.values()))}")
    rows = torch.cat([part[0] for part in parts]).double().numpy()
    known = [part[1] for part in parts if part[1] is not None]
    probabilities = torch.cat(known).double().numpy() if known else None
    asked = np.array([classes[name] for name in good])
    return Described(rows, probabilities, tuple(good), asked, reasons, tuple(silent))


def _readable(
    names: Sequence[str], read: Callable[[str], Tensor], reasons: dict[str, str]
) -> Iterable[tuple[str, Tensor]]:
    """Yields name and waveform of what can be read, and notes why the rest cannot."""
    for name in names:
        try:
            yield name, read(name)
        except InputError as error:
            reasons[name] = str(error)


def _digest(features: Features, manifest: Path, cuts: Iterable[Cut], label: str) -> str:
    content = hashlib.sha256(f"{features.name} {features.digest} {label} ".encode())
    content.update(manifest.read_bytes())
    for cut in cuts:
        for source in cut.recording.sources:
            state = Path(source.source).stat()
            content.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
    return content.hexdigest()[:16]


def _load(path: Path) -> Described | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            probabilities = kept.get("probabilities")
            names = tuple(map(str, kept["names"]))
            return Described(kept["features"], probabilities, names, kept["classes"], {})
    except (ValueError, OSError, KeyError, EOFError, BadZipFile):  # cut off: made again
        return None


def _keep(path: Path, described: Described) -> None:
    if described.reasons:  # said every time, so that it is not forgotten
        return
    named = {"names": np.array(described.names), "classes": described.classes}
    buffer = streams.BytesIO()
    if described.probabilities is None:
        np.savez_compressed(buffer, features=described.features, **named, allow_pickle=False)
    else:
        numbers = {"features": described.features, "probabilities": described.probabilities}
        np.savez_compressed(buffer, **numbers, **named, allow_pickle=False)
    try:
        write_whole({path: buffer.getvalue()})
    except InputError:
        return  # a corpus on a read-only disk is described anew each time
