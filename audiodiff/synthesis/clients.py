"""Vocoders in the calling styles of other projects, so that a pipeline of theirs runs with a vocoder of ours.

Every class takes a vocoder (a `Vocoder` or a `GriffinLim`) and a Contract: the mel definition that the client makes.
The two definitions are compared when the adapter is built. What differs after the filterbank alone is converted
exactly at every call; anything else is refused with the fields named, or bridged by estimation on request.
docs/vocoder.md has the table of clients, and examples/ a program for each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel, preset
from audiodiff.audio.mel_conversion import Approximation, approximate, obstacles
from audiodiff.audio.mel_input import bands_first
from audiodiff.errors import InputError


class Face(Protocol):
    """What Vocoder and GriffinLim have in common."""

    layout: str | None

    @property
    def log_mel(self) -> LogMel:
        """Definition of the mels."""
        ...

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, hertz."""
        ...

    def check(self, mel: Tensor, name: str = "mel") -> Tensor:
        """Returns the mel as [B, n_mels, F], or refuses it."""
        ...

    def __call__(self, mel: Tensor, lengths: Sequence[int] | None = None, *, seed: int = 0) -> Tensor:
        """Returns waveforms [B, T]."""
        ...


@dataclass(frozen=True)
class Contract:
    """What mel a client makes, and what may be done about a difference.

    Attributes:
        source: the client's mel definition: a LogMel, or the name of one of recipes/features/.
        approximation: whether differences that no pointwise map bridges are bridged by estimation.
        mean: [n_mels] of a client that hands out (mel - mean) / std; None where it does not.
        std: [n_mels] likewise; given together with the mean.
        seed: of the vocoder's noise.
    """

    source: LogMel | str
    approximation: bool = False
    mean: Tensor | None = None
    std: Tensor | None = None
    seed: int = 0


class Adapter(nn.Module):
    """A vocoder that hears a client's mel; the calling styles below are its children.

    It is a module, since clients move their vocoders between devices and ask them for their parameters.
    """

    def __init__(self, vocoder: Face, contract: Contract) -> None:
        """Compares the definitions; the vocoder is taken as it is set up now.

        Raises:
            InputError: the client's mel cannot be converted to the vocoder's; every field in the way is named.
        """
        super().__init__()
        source = contract.source if isinstance(contract.source, LogMel) else preset(contract.source)
        lines = obstacles(source, vocoder.log_mel)
        if lines and not contract.approximation:
            raise InputError(
                f"the client's mel is not this vocoder's: {'; '.join(lines)}; take a vocoder of the client's mel, or "
                "Contract(..., approximation=True) to bridge it by estimation"
            )
        if (contract.mean is None) != (contract.std is None):
            raise InputError("contract: mean and std belong together; give both or none")
        self.source, self.contract = source, contract
        self.approximation: Approximation = approximate(source, vocoder.log_mel)
        self.vocoder = copy.copy(vocoder)
        self.vocoder.layout = "bands_first"  # what `waveforms` hands on
        self.config = SimpleNamespace(sampling_rate=vocoder.sample_rate)  # asked for by transformers
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells clients a device

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in hertz."""
        return self.vocoder.sample_rate

    def waveforms(
        self, mel: Tensor, layout: str, frames: Sequence[int] | None = None, normalized: bool = True
    ) -> Tensor:
        """Returns waveforms [B, T] of the client's mels, on their device.

        Args:
            mel: [B, n_mels, F] or [B, F, n_mels] as `layout` says, or one item without the batch axis.
            layout: "bands_first" or "frames_first".
            frames: valid frames of each item; None for all.
            normalized: whether the contract's mean and std, where it has them, are in the mel.

        Raises:
            InputError: the mel is not of the client's definition, or a number of frames that it does not have.
        """
        told = bands_first(mel.detach().float(), self.source.n_mels, layout, "mel of the client")
        assert isinstance(told, Tensor)
        told = told if told.dim() != 2 else told[None]
        mean, std = self.contract.mean, self.contract.std
        if normalized and mean is not None and std is not None:
            told = told * std.to(told)[:, None] + mean.to(told)[:, None]
        counts = None if frames is None else _counts(frames, told)
        checked = self.source.check(told if counts is None else _held(told, counts), "mel of the client")
        lengths = None
        if counts is not None:
            lengths = [self.vocoder.log_mel.samples(self.approximation.frames(count)) for count in counts]
        made = self.vocoder(self.approximation(checked), lengths, seed=self.contract.seed)
        return made.to(mel.device)


def _counts(frames: Sequence[int], mel: Tensor) -> list[int]:
    counts = [int(count) for count in frames]
    if mel.dim() != 3 or len(counts) != mel.shape[0] or any(not 1 <= n <= mel.shape[-1] for n in counts):
        raise InputError(
            f"lengths: got {counts} frames for a mel of shape {tuple(mel.shape)}, expected one number of frames an item"
        )
    return counts


def _held(mel: Tensor, counts: Sequence[int]) -> Tensor:
    """Returns mel [B, n_mels, F] with each item's last valid frame repeated over its padding."""
    last = torch.tensor(counts, device=mel.device)[:, None] - 1
    index = torch.minimum(torch.arange(mel.shape[-1], device=mel.device), last)  # [B, F]
    return mel.gather(2, index[:, None].expand_as(mel))


class TransformersVocoder(Adapter):
    """transformers: `generate_speech(..., vocoder=v)`, `generate(..., vocoder=v)`, `pipeline(..., vocoder=v)`.

    SpeechT5: Contract("speecht5_16k80"). FastSpeech2Conformer: `fastspeech2_contract(model.vocoder)`, and the adapter
    takes the place of model.vocoder.
    """

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Returns [T] of a mel [F, n_mels], [B, T] of [B, F, n_mels].

        Frames of nothing but zeros at an item's end, which transformers pads a batch with, are not heard.
        """
        if spectrogram.dim() == 2:
            return self.waveforms(spectrogram, "frames_first")[0]
        sounding = (spectrogram != 0).any(-1)  # [B, F]
        numbers = torch.arange(1, spectrogram.shape[1] + 1, device=spectrogram.device)
        frames = (sounding * numbers).amax(1).clamp_min(1).tolist()
        made = self.waveforms(spectrogram, "frames_first", frames)
        # transformers works out the items' lengths from T / F.
        whole = self.vocoder.log_mel.samples(self.approximation.frames(spectrogram.shape[1]))
        return nn.functional.pad(made, (0, whole - made.shape[-1]))


def fastspeech2_contract(hifigan: Any, approximation: bool = False) -> Contract:
    """Returns the contract of a FastSpeech2Conformer, whose mel its own vocoder de-normalizes.

    Args:
        hifigan: the FastSpeech2ConformerHifiGan that the model came with: it knows mean and scale.
        approximation: see Contract.
    """
    mean, std = (getattr(hifigan, name).detach().clone() for name in ("mean", "scale"))
    return Contract("espnet_22k80", approximation, mean, std)


class SpeechBrainHifiGan(Adapter):
    """SpeechBrain's HIFIGAN: `decode_batch(mel, mel_lens, hop_len)`. Contract("tacotron2_22k80") for its Tacotron2."""

    def decode_batch(
        self, spectrogram: Tensor, mel_lens: Sequence[int] | None = None, hop_len: int | None = None
    ) -> Tensor:
        """Returns [B, 1, T] of [B, n_mels, F]; an item is zero beyond its `mel_lens` frames."""
        _check_hop(hop_len, self.source)
        return self.waveforms(spectrogram, "bands_first", mel_lens)[:, None]


class SpeechBrainDiffWave(Adapter):
    """SpeechBrain's DiffWaveVocoder: `decode_batch(mel, hop_len, mel_lens)`; steps are chosen with the vocoder."""

    def decode_batch(self, mel: Tensor, hop_len: int, mel_lens: Sequence[int] | None = None) -> Tensor:
        """Returns [B, 1, T] of [B, n_mels, F]; an item is zero beyond its `mel_lens` frames."""
        _check_hop(hop_len, self.source)
        return self.waveforms(mel, "bands_first", mel_lens)[:, None]


def _check_hop(hop_len: int | None, source: LogMel) -> None:
    if hop_len is not None and hop_len != source.hop_length:
        raise InputError(
            f"hop_length: got hop_len {hop_len}, but the contract's mel has {source.hop_length}; "
            "give the contract of the mel that is made"
        )


class EspnetVocoder(Adapter):
    """ESPnet2's Text2Speech: `t2s.vocoder = v`. Contract("espnet_22k80") for its LJSpeech recipe."""

    @property
    def fs(self) -> int:
        """Sample rate of the waveforms in hertz."""
        return self.sample_rate

    def forward(self, features: Tensor) -> Tensor:
        """Returns [T] of [F, n_mels]."""
        return self.waveforms(features, "frames_first")[0]


class ParallelWaveGanVocoder(Adapter):
    """kan-bayashi's ParallelWaveGAN models: `inference(c, normalize_before)`. Contract("pwg_22k80_log10", ...)."""

    def inference(self, c: Tensor, normalize_before: bool = False) -> Tensor:
        """Returns [T, 1] of [F, n_mels], normalized already unless `normalize_before`.

        Raises:
            InputError: a normalized mel, and no mean and std in the contract.
        """
        if not normalize_before and self.contract.std is None:
            raise InputError(
                "inference: a normalized mel comes, and the contract has no mean and std to undo it; give them, or "
                "call with normalize_before=True and the mel as it was analysed"
            )
        return self.waveforms(c, "frames_first", normalized=not normalize_before)[0, :, None]


class CoquiVocoder(Adapter):
    """Coqui TTS's Synthesizer: `vocoder_model.inference(x)`. Contract("coqui_22k80")."""

    def inference(self, x: Tensor) -> Tensor:
        """Returns [B, 1, T] of [B, n_mels, F]."""
        return self.waveforms(x, "bands_first")[:, None]


class NemoVocoder(Adapter):
    """NeMo: `convert_spectrogram_to_audio(spec=...)`. Contract("nemo_22k80")."""

    def convert_spectrogram_to_audio(self, spec: Tensor) -> Tensor:
        """Returns [B, T] of [B, n_mels, F]."""
        return self.waveforms(spec, "bands_first")


class HifiGanVocoder(Adapter):
    """HiFi-GAN, BigVGAN and what calls them, as Matcha-TTS and Grad-TTS do: `v(mel)`. Contract("hifigan_22k80")."""

    def forward(self, mel: Tensor) -> Tensor:
        """Returns [B, 1, T] of [B, n_mels, F]."""
        return self.waveforms(mel, "bands_first")[:, None]


class VocosVocoder(Adapter):
    """Vocos: `decode(features)`. Contract("vocos_24k100")."""

    def decode(self, features: Tensor) -> Tensor:
        """Returns [B, T] of [B, n_mels, F]."""
        return self.waveforms(features, "bands_first")


class TorchaudioVocoder(Adapter):
    """torchaudio's Tacotron2TTSBundle.Vocoder: `v(specgrams, lengths)`. Contract("tacotron2_22k80")."""

    def forward(self, specgrams: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns (waveforms [B, T] of [B, n_mels, F], samples of each item [B] or None)."""
        if lengths is None:
            return self.waveforms(specgrams, "bands_first"), None
        frames = [int(count) for count in lengths]
        made = self.waveforms(specgrams, "bands_first", frames)
        samples = [self.vocoder.log_mel.samples(self.approximation.frames(count)) for count in frames]
        return made, torch.tensor(samples, device=lengths.device)
