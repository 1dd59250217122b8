"""Vocoding files: audio is analysed and resynthesized channel by channel, mel files are vocoded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.progress import progress_bar
from audiodiff.synthesis.cost import Meter
from audiodiff.synthesis.samples import Sample, draw_samples, write_record, write_sample
from audiodiff.synthesis.sampling import describe
from audiodiff.synthesis.vocoder import Vocoder

MEL_SUFFIXES = (".npy", ".npz", ".pt")
_DRAWN = 8  # files in the picture


@dataclass(frozen=True)
class Source:
    """One input, ready to vocode.

    Attributes:
        mel: [C, n_mels, F], one item per channel.
        lengths: samples wanted per channel, None for what the frames give.
        original: the audio [C, T] it was analysed from, at the model's rate; None for a mel file.
    """

    mel: Tensor
    lengths: list[int] | None
    original: Tensor | None


def vocode_files(
    vocoder: Vocoder,
    source: Path,
    inputs: Sequence[str],
    out: Path,
    labels: Mapping[str, str],
    seed: int,
    command: str,
) -> list[Sample]:
    """Vocodes every input into the samples folder `out` and returns what is in it.

    Args:
        vocoder: the vocoder.
        source: its model folder, for the record.
        inputs: audio files, mel files, folders and globs, or a manifest of `audiodiff prepare`.
        out: the samples folder.
        labels: told to the model for all files.
        seed: of the noise.
        command: for the record.

    Raises:
        InputError: an input that cannot be read or breaks the mel contract, before anything is made of it;
            two inputs of the same name.
    """
    if seed < 0:
        raise InputError(f"--seed: got {seed}, expected 0 or more")
    files = _find(inputs)
    names = _names(files)
    hearing = copy.copy(vocoder)
    hearing.layout = "bands_first"  # as read_source returns them
    samples: list[Sample] = []
    pictured: dict[str, list[Tensor]] = {}
    meter, audio_seconds = Meter(vocoder.model.device), 0.0
    with progress_bar() as progress:
        task = progress.add_task("vocode", total=len(files))
        for file, name in zip(files, names, strict=True):
            read = read_source(vocoder, file)
            channels = read.mel.shape[0]
            with meter:
                waveform = hearing(
                    read.mel, read.lengths, {key: [value] * channels for key, value in labels.items()}, seed,
                    on_step=lambda done, total: progress.advance(task, 1 / total),
                ).cpu()  # fmt: skip
            audio_seconds += waveform.numel() / vocoder.sample_rate
            is_audio = read.original is not None
            sample = Sample(name, labels, reference=str(file.resolve()) if is_audio else None)
            samples.append(write_sample(out, sample, waveform, vocoder.sample_rate))
            if len(pictured) < _DRAWN:
                pictured[file.stem] = [*([read.original] if read.original is not None else []), waveform]
    record: dict[str, Any] = {"model": str(source), "seed": seed, "command": command}
    record["sampler"] = describe(vocoder.sampler)
    record |= {"mel_iterations": vocoder.mel_iterations, "finish": asdict(vocoder.finish)}
    work = vocoder.work(read_source(vocoder, files[0]).mel[:1], labels)
    write_record(out, record, samples, meter.cost(audio_seconds, [work]))
    draw_samples(out, pictured, vocoder.sample_rate)
    return samples


def read_source(vocoder: Vocoder, file: Path) -> Source:
    """Returns the mel of a file, read or analysed.

    Audio at another rate is resampled to the model's; each channel is an item of its own.

    Raises:
        InputError: the file cannot be read, or its mel breaks the contract.
    """
    if file.suffix.lower() in MEL_SUFFIXES:
        return Source(vocoder.check(read_mel(file), str(file)), None, None)
    original, _ = io.read(file, vocoder.sample_rate)
    mel = vocoder.log_mel(original)
    if mel.shape[-1] == 0:
        raise InputError(f"{file}: {original.shape[-1]} samples are shorter than one frame")
    return Source(mel, [original.shape[-1]] * original.shape[0], original)


def read_mel(file: Path) -> Tensor:
    """Returns the mel of a .npy, .npz (its only array, or `mel`) or .pt file; no code in it is run.

    Raises:
        InputError: the file cannot be read or holds no single array.
    """
    try:
        if file.suffix.lower() == ".pt":
            content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            content = np.load(file, allow_pickle=False)
    except Exception as error:  # each reader raises its own kinds for a damaged or unsafe file
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file}: cannot be read as a mel ({reason}); expected a plain array, no pickle"
        ) from error
    if not isinstance(content, np.ndarray | Tensor):
        keys = list(content)
        key = "mel" if "mel" in keys else keys[0] if len(keys) == 1 else None
        if key is None:
            raise InputError(
                f"{file}: holds {', '.join(map(str, keys))}; expected one array, or one named mel"
            )
        content = content[key]
    return torch.as_tensor(content)


def _find(inputs: Sequence[str]) -> list[Path]:
    manifests = [given for given in inputs if str(given).endswith(".jsonl.gz")]
    rest = [given for given in inputs if given not in manifests]
    files = io.find(rest, (*io.AUDIO_SUFFIXES, *MEL_SUFFIXES)) if rest or not manifests else []
    if manifests:
        from audiodiff.data.manifests import load_cuts, whole_file

        files += [whole_file(cut) for manifest in manifests for cut in load_cuts(manifest)]
    return files


def _names(files: Sequence[Path]) -> list[str]:
    names = [f"{file.stem}.wav" for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{len(twice)} names occur twice among the inputs, first {twice[0]}; vocode them separately"
        )
    return names
