"""Mel chunks in, waveform pieces out: the audio that the whole mel gives, in bounded memory.

A window of mel frames is to every part of the model a small utterance of its own: the conditioner, the network and the
representation see it as they see a whole one, and what they make near an end that is no true end is not used
(`diffusion.streaming`). The noise of a position does not depend on what else is made, so the pieces join without a
seam. A piece is finished once the mel is known as far ahead as the steps look: `Lookahead`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import SubbandEnergyPrior
from audiodiff.diffusion.data_space import in_data_space
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.priors import color
from audiodiff.diffusion.samplers import NotFiniteError, Sampler
from audiodiff.diffusion.streaming import Cascade, Reach, check_local
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering
from audiodiff.networks.streaming import Causal, Margins, Memory, Windowed
from audiodiff.synthesis.window import Cut, view_of
from audiodiff.types import Batch, Condition

_LEAST_CHUNK = 32  # frames; below, what a window costs besides arithmetic shows
_LEVEL_FRAMES = 64  # frames from which on the level of a mel tells of its convention

Chunk = Tensor | np.ndarray


@dataclass(frozen=True)
class StreamRequest:
    """What is to be streamed.

    Attributes:
        labels: for models that are also told a label: name -> one value.
        seed: of the noise.
        chunk_frames: mel frames that are worked on at a time; None: as many as the margins of a window, so that every
            network evaluation covers twice what it makes. A causal network does not wait for them.
        steering: guidance.
    """

    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    chunk_frames: int | None = None
    steering: Steering = UNSTEERED


@dataclass(frozen=True)
class Lookahead:
    """When a stream gives audio, and at what price.

    Attributes:
        frames: mel frames beyond a piece's last one that must have come.
        seconds: the same in seconds.
        chunk_frames: mel frames that are waited for and worked on at a time.
        overlap: frames that each evaluation makes again and throws away, over those that are kept.
    """

    frames: int
    seconds: float
    chunk_frames: int
    overlap: float


class Stream:
    """One stream of a mel: `push` chunks, take `pieces`, `finish`, take the last pieces."""

    def __init__(self, model: AudioDiffusion, sampler: Sampler, request: StreamRequest) -> None:
        """Stands at the first frame.

        Raises:
            InputError: a part of the model or of the sampler looks at the whole signal.
        """
        networks = [model.denoiser.network]
        if request.steering.against is not None:
            networks.append(request.steering.against.denoiser.network)
        margins = [margins_of(network) for network in networks]
        _check_prior(model)
        check_local(sampler, request.steering.guidance)
        representation = model.representation
        self._model, self._request = model, request
        self._mel_hop = _log_mel(model).hop_length
        self._rate = self._mel_hop // representation.hop_length  # positions of x in a frame
        self._extra = representation.shape(self._mel_hop)[1] - self._rate  # positions more than frames
        self._grain = math.lcm(self._rate, *(margin.grain for margin in margins))
        self.causal = all(_is_causal(network) for network in networks)
        before, after = (max(sides) for sides in zip(*(_sides(margin) for margin in margins), strict=True))
        reach = Reach(0, 0) if self.causal else Reach(self._aligned(before), self._aligned(after))
        self._sampler = sampler
        self._cascade = Cascade(sampler, model.denoiser.schedule, reach, self._bind, self._noise)
        self._memories: dict[tuple[int, int], list[Memory]] = {}  # of (step, model), causal networks
        self._around = (reach.before + reach.after) // self._rate
        self._chunk = self._whole_chunk(request.chunk_frames)
        self._mel: Tensor | None = None
        self._mel_start = self._frames = self._done = (
            0  # first frame kept, frames that came, frames that are made
        )
        self._x: Tensor | None = None  # what is sampled and not decoded
        self._finished = False

    @property
    def lookahead(self) -> Lookahead:
        """When this stream gives audio."""
        frames = -(-self._ahead // self._rate)
        seconds = frames * self._mel_hop / self._model.sample_rate
        return Lookahead(frames, seconds, self._chunk, self._around / self._chunk)

    def push(self, mel: Tensor) -> None:
        """Appends mel [1, n_mels, F]."""
        self._mel = mel if self._mel is None else torch.cat([self._mel, mel], dim=-1)
        self._frames += mel.shape[-1]

    def finish(self) -> None:
        """Says that no more mel comes.

        Raises:
            InputError: none came at all.
        """
        if self._frames == 0:
            raise InputError("mel chunks: the stream ended without a single frame")
        self._finished = True

    def pieces(self) -> Iterator[Tensor]:
        """Yields the waveform [T] that what came determines, a chunk at a time.

        Raises:
            FloatingPointError: the model gave a number that is not finite.
        """
        while (stop := self._next_stop()) > self._done:
            # Neither the caller nor its tensors are to be in inference mode.
            yield self._piece(stop).clone()

    @property
    def _ahead(self) -> int:
        """Positions beyond a piece's last frame that must be known."""
        return self._aligned(self._extra) + self._cascade.lookahead

    def _next_stop(self) -> int:
        """Returns the frame up to which the next piece goes; the one where the last stopped if it is too early."""
        if self._finished:
            return min(self._done + self._chunk, self._frames)
        frames_per_grain = self._grain // self._rate
        ready = (self._frames * self._rate - self._ahead) // self._grain * frames_per_grain - self._done
        least = frames_per_grain if self.causal else self._chunk
        return self._done + (min(ready, self._chunk) if ready >= least else 0)

    @torch.inference_mode()
    def _piece(self, stop: int) -> Tensor:
        """Returns the waveform [T] of the frames up to `stop`."""
        representation, count = self._model.representation, stop - self._done
        x = self._sampled(stop)
        x = x if self._x is None else torch.cat([self._x, x], dim=-1)
        self._x = x[..., count * self._rate :].clone()
        length = count * self._mel_hop
        waveform = representation.decode(x[..., : representation.shape(length)[1]], length)[0, 0]
        if not bool(waveform.isfinite().all()):
            raise FloatingPointError("the model gave samples that are not finite")
        self._done = stop
        self._forget()
        return waveform

    def _sampled(self, stop: int) -> Tensor:
        """Returns the next positions of x [1, D, F], as many as decoding up to frame `stop` needs."""
        start = self._done * self._rate + (0 if self._x is None else self._x.shape[-1])
        target, end = stop * self._rate + self._aligned(self._extra), None
        if self._finished:
            end = self._frames * self._rate + self._extra
            target = min(target, end)
        try:
            x = self._cascade.advance(target, end)
        except NotFiniteError as error:
            raise FloatingPointError(str(error)) from error
        return x if target == start else color(x, self._window(start, target, None)[1])

    def _forget(self) -> None:
        """Drops mel frames that no coming window shows."""
        assert self._mel is not None
        oldest = min(self._cascade.oldest, self._done * self._rate) // self._rate - self._lead
        # The last frame stands for those beyond the end.
        count = min(max(0, oldest), self._frames - 1) - self._mel_start
        if count > 0:
            self._mel, self._mel_start = self._mel[..., count:], self._mel_start + count

    def _bind(self, number: int, start: int, stop: int) -> tuple[Denoise, Sampler]:
        denoise, condition = self._window(start, stop, number if self.causal else None)
        return denoise, in_data_space(self._sampler, condition)

    def _window(self, start: int, stop: int, step: int | None) -> tuple[Denoise, Condition]:
        """Returns the denoiser and the condition of some positions.

        Args:
            start: first position, that of a frame.
            stop: the one after the last.
            step: number of the sampler's step that goes on where it stopped; None for a window by itself.
        """
        steering = self._request.steering
        first, last = start // self._rate, -(-stop // self._rate)
        lead = min(first, self._lead)
        cut = Cut(lead, lead * self._rate, stop - start)
        view = view_of(self._model, cut, self._memory(step, 0))
        if steering.against is not None:
            steering = replace(steering, against=view_of(steering.against, cut, self._memory(step, 1)))
        batch = Batch(
            waveform=None,
            lengths=torch.tensor([(last - first + lead) * self._mel_hop]),
            labels={name: tuple(values) for name, values in self._request.labels.items()},
            mel=self._mel_frames(first - lead, last),
        )
        return view.bind(batch, steering)

    @property
    def _lead(self) -> int:
        """Frames before a window on which its condition may depend, where a position spans several frames."""
        return self._extra // self._rate + 1

    def _mel_frames(self, start: int, stop: int) -> Tensor:
        """Returns frames of the mel; the last one again beyond the end."""
        assert self._mel is not None
        frames = torch.arange(start, stop).clamp(max=self._frames - 1) - self._mel_start
        return self._mel[..., frames.to(self._mel.device)]

    def _memory(self, step: int | None, model: int) -> list[Memory] | None:
        return None if step is None else self._memories.setdefault((step, model), [])

    def _noise(self, step: int, draw: int, start: int, stop: int) -> Tensor:
        features = self._model.representation.shape(1)[0]
        source = KeyedNoise(self._request.seed, [0], frame=start)
        return source(step, (1, features, stop - start), self._model.device, draw)

    def _aligned(self, positions: int) -> int:
        return -(-positions // self._grain) * self._grain

    def _whole_chunk(self, frames: int | None) -> int:
        """Returns the frames of a chunk, a multiple of what windows are aligned to."""
        if frames is not None and frames < 1:
            raise InputError(f"chunk_frames: got {frames}, expected 1 or more")
        wanted = max(self._around, _LEAST_CHUNK) if frames is None else frames
        return self._aligned(wanted * self._rate) // self._rate


def stream(
    running: Stream, chunks: Iterable[Chunk], log_mel: LogMel, check: Callable[[Tensor, str], None]
) -> Iterator[Tensor]:
    """Yields the waveform [T] of mel chunks as soon as it is determined.

    Args:
        running: a new Stream.
        chunks: [n_mels, F] or [1, n_mels, F], any F, 0 included.
        log_mel: the definition of the mel.
        check: refuses a mel [1, n_mels, F] of the wrong level, named for the message.

    Raises:
        InputError: a chunk that breaks the contract, named by its number.
        FloatingPointError: the model gave a number that is not finite.
    """
    total, count = torch.zeros(1, log_mel.n_mels, 1, dtype=torch.float64), 0
    for number, chunk in enumerate(chunks, 1):
        mel = _checked(chunk, log_mel, f"mel chunk {number}")
        if mel is None:
            continue
        total, count = total + mel.double().sum(-1, keepdim=True).cpu(), count + mel.shape[-1]
        if count >= _LEVEL_FRAMES:  # the level is that of the mean frame
            check((total / count).float(), f"mel up to chunk {number}")
        running.push(mel)
        yield from running.pieces()
    running.finish()
    check((total / count).float(), "mel")
    yield from running.pieces()


def margins_of(network: object) -> Margins:
    """Returns the margins of a network.

    Raises:
        InputError: every position of its output depends on the whole signal.
    """
    if isinstance(network, Windowed):
        return network.margins()
    assert isinstance(network, nn.Module)
    parts = {
        type(part).__name__
        for part in network.modules()
        if "Attention" in type(part).__name__ or isinstance(part, nn.GroupNorm)
    }
    raise InputError(
        f"streaming: {type(network).__name__} looks at the whole signal at every position "
        f"({', '.join(sorted(parts)) or 'it states no margins'}), so nothing is determined before the end; "
        "synthesize offline, or use a model of wavenet, wavelet_wavenet, wavegrad or convnext"
    )


def _checked(chunk: Chunk, log_mel: LogMel, name: str) -> Tensor | None:
    """Returns a chunk as [1, n_mels, F], None for one without frames."""
    shape = tuple(getattr(chunk, "shape", ()))
    if shape in ((log_mel.n_mels, 0), (1, log_mel.n_mels, 0)):
        return None
    mel = log_mel.check(chunk, name)
    if mel.shape[0] != 1:
        raise InputError(f"{name}: {mel.shape[0]} items, a stream is of one; open one stream for each")
    return mel


def _check_prior(model: AudioDiffusion) -> None:
    if any(isinstance(part, SubbandEnergyPrior) for part in model.modules()):
        raise InputError(
            "streaming: the prior SubbandEnergyPrior filters the energies of the whole mel and remembers its start; "
            "synthesize offline, or use a model with another conditioner"
        )


def _log_mel(model: AudioDiffusion) -> LogMel:
    return next(part for part in model.modules() if isinstance(part, Mel)).log_mel


def _is_causal(network: object) -> bool:
    return isinstance(network, Causal) and network.causal


def _sides(margins: Margins) -> tuple[int, int]:
    return margins.before, margins.after
