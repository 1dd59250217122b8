"""A judge: a small convolutional network that recognises a label (a digit, a drum) in a waveform.

    waveform -> one level -> log-mel -> 3 x (conv 3x3, batch norm, ReLU, max pool) -> mean, max over time -> class

It scores class-conditional generation: the share of samples in which it recognises the class asked for. It
never sees dev or test clips in training, and its accuracy on the real test split is saved with it, for a
score means little more than that. The level of a waveform does not change its verdict.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.files import writing_folder

WEIGHTS, CONFIG = "model.safetensors", "config.json"
WIDTH = 32  # channels of the first layer
FEATURES = 64  # that the classes are read from
LEVEL = 0.1  # of every waveform that the network hears, see _level
BATCH = 64


def judge_mel(sample_rate: int) -> LogMel:
    """Returns the log-mel that a judge hears: windows of about 32 ms every 10 ms, 40 bands to half the rate.

    The floor lies about 80 dB below the loudest band of speech at the judge's level.
    """
    n_fft = int(2 ** round(torch.tensor(0.032 * sample_rate).log2().item()))
    return LogMel(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=sample_rate // 100,
        n_mels=40,
        mel_scale="htk",
        mel_norm=None,
        floor=0.01,
    )


class Judge(nn.Module):
    """Recognises one label of a corpus.

    Attributes:
        label: name of the label, for example "digit".
        names: its values, in the order of the outputs.
        log_mel: what it hears.
        facts: how it was trained and what it reached, as saved in config.json.
    """

    def __init__(self, label: str, names: Sequence[str], log_mel: LogMel) -> None:
        """Builds an untrained judge.

        Args:
            label: name of the label.
            names: at least two values.
            log_mel: definition of its input, at the sample rate of its corpus.

        Raises:
            InputError: less than two values.
        """
        super().__init__()
        if len(names) < 2:
            raise InputError(
                f"label {label!r}: got the values {list(names)}, expected at least two to tell apart"
            )
        self.label = label
        self.names = tuple(names)
        self.log_mel = log_mel
        self.facts: dict[str, Any] = {}
        widths = (1, WIDTH, 2 * WIDTH, 4 * WIDTH)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        bands = -(-log_mel.n_mels // 8)
        self.embed = nn.Linear(2 * widths[-1] * bands, FEATURES)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(FEATURES, len(names))

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of what it judges."""
        return self.log_mel.sample_rate

    def features(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Returns [B, D], what the classes are read from, of waveform [B, T] with lengths [B] in samples."""
        x, frames = self._hear(waveform, lengths)
        x = x[:, None]  # [B, 1, n_mels, F]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
            x = nn.functional.max_pool2d(_masked(x, frames), 2, ceil_mode=True)
            frames = (frames + 1) // 2
        x = x.flatten(1, 2)  # [B, channels * bands, F']
        mean = x.sum(-1) / frames[:, None]
        return torch.relu(self.embed(torch.cat([mean, x.amax(-1)], dim=1)))

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Returns class scores [B, N] before the softmax, of waveform [B, T] with lengths [B] in samples."""
        return self.classify(self.dropout(self.features(waveform, lengths)))

    def predict(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Returns the probability of each class [B, N].

        Args:
            waveforms: [T] or [1, T] each, at the judge's sample rate.

        Raises:
            InputError: a waveform of another shape, empty, or not finite.
        """
        return self._batched(waveforms, lambda *batch: self(*batch).softmax(-1))

    def describe(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Returns the features [B, D] of waveforms, see `predict`: near for clips that sound alike."""
        return self._batched(waveforms, self.features)

    def save(self, folder: Path) -> None:
        """Writes weights and config.json; the folder appears whole or not at all, in place of an older judge.

        Raises:
            InputError: something else is there, or the place cannot be written.
        """
        if (
            folder.exists()
            and not (folder / CONFIG).is_file()
            and (folder.is_file() or any(folder.iterdir()))
        ):
            raise InputError(f"{folder}: exists and holds no judge; name a new or empty folder")
        config = {
            "label": self.label,
            "names": list(self.names),
            "log_mel": self.log_mel.definition(),
            "facts": self.facts,
        }
        with writing_folder(folder) as draft:
            save_file(
                {name: value.contiguous() for name, value in self.state_dict().items()}, draft / WEIGHTS
            )
            (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path | str) -> Judge:
        """Returns the judge saved in a folder, in evaluation mode.

        Raises:
            InputError: no judge there, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
            raise InputError(
                f"{folder}: holds no judge; make one with `audiodiff judge DATA --label NAME --out {folder}`"
            )
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            judge = Judge(config["label"], config["names"], LogMel.from_definition(config["log_mel"]))
            judge.facts = config["facts"]
            judge.load_state_dict(load_file(folder / WEIGHTS))
        except Exception as error:  # json, safetensors and torch each raise their own
            raise InputError(f"{folder}: not a judge, or damaged ({str(error).splitlines()[0]})") from error
        return judge.eval()

    def _hear(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the level-free log-mel [B, n_mels, F], 0 in silence and padding, and valid frames [B]."""
        lengths = lengths.to(waveform.device)
        valid = torch.arange(waveform.shape[-1], device=waveform.device) < lengths[:, None]
        waveform = waveform * valid
        # Zeros behind every item, so that its last frames do not depend on the batch's longest.
        scaled = nn.functional.pad(waveform * (LEVEL / _level(waveform))[:, None], (0, self.log_mel.n_fft))
        mel = self.log_mel(scaled) - self.log_mel.floor_value
        frames = torch.tensor([self.log_mel.frames(n) for n in lengths.tolist()], device=waveform.device)
        return _masked(mel / 5, frames), frames

    def _batched(self, waveforms: Sequence[Tensor], function: Any) -> Tensor:
        signals = [_signal(waveform, number) for number, waveform in enumerate(waveforms)]
        results = []
        with torch.inference_mode():
            for start in range(0, len(signals), BATCH):
                part = signals[start : start + BATCH]
                lengths = torch.tensor([signal.shape[0] for signal in part])
                padded = nn.utils.rnn.pad_sequence(part, batch_first=True)
                results.append(function(padded, lengths))
        return torch.cat(results)


def _level(waveform: Tensor) -> Tensor:
    """Returns the RMS [B] of waveform [B, T], each sample weighted by its power: silence does not count."""
    power = waveform.square()
    return (power.square().sum(-1) / power.sum(-1).clamp_min(1e-20)).sqrt().clamp_min(1e-6)


def _masked(x: Tensor, frames: Tensor) -> Tensor:
    """Returns x [B, ..., F] with zeros from each item's first invalid frame on."""
    valid = torch.arange(x.shape[-1], device=x.device) < frames[:, None]
    return x * valid.view(x.shape[0], *[1] * (x.dim() - 2), x.shape[-1])


def _signal(waveform: Tensor, number: int) -> Tensor:
    signal = torch.as_tensor(waveform, dtype=torch.float32)
    if signal.dim() == 2 and signal.shape[0] == 1:
        signal = signal[0]
    if signal.dim() != 1 or signal.numel() == 0 or not bool(signal.isfinite().all()):
        raise InputError(
            f"waveform {number}: got shape {tuple(torch.as_tensor(waveform).shape)}, expected [T] or [1, T], "
            "at least one sample, all finite"
        )
    return signal
