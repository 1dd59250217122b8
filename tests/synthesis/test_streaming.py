"""Streaming equals synthesis of the whole mel: every vocoder network, sampler and way to cut the mel into chunks."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.representation import ComplexSTFT, Waveform
from audiodiff.audio.wavelet import Wavelet
from audiodiff.conditioning.conditioner import Joint
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior, SubbandEnergyPrior
from audiodiff.diffusion import parameterizations
from audiodiff.diffusion.constraints import Clip, DynamicThreshold
from audiodiff.diffusion.continuous import Cosine, Flow, Karras
from audiodiff.diffusion.denoiser import Denoiser, LogSnr, StepIndex, VarianceDenoiser
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.multistep import PLMS, CleanMultistep, UniPC, dpmpp_third
from audiodiff.diffusion.renoising import AddedNoise, Churn
from audiodiff.diffusion.samplers import DDIM, Ancestral, CFGPlusPlus, Consistency, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.singlestep import Heun
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.networks.convnext import ConvNeXt
from audiodiff.networks.dilated import FrequencyAware, LookingBack, Reflected, ZeroPadded
from audiodiff.networks.wavegrad import Blocks, WaveGrad
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet
from audiodiff.synthesis.streaming import Stream, StreamRequest, stream
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch

RATE, HOP, MELS = 8000, 16, 6
LABELS = {"digit": ("one", "two")}
EXACT = 1e-6  # of the range
TABLE = linear(1e-4, 0.05, 50)


def log_mel(framing: str = "center") -> LogMel:
    return LogMel(sample_rate=RATE, n_fft=64, win_length=64, hop_length=HOP, n_mels=MELS, framing=framing)


def convnext(features: int, **options: Any) -> ConvNeXt:
    return ConvNeXt(features, 8, (1, 2), kernel_size=3, embedding_width=8, local_features=MELS, **options)


def wavenet(kind: Any, factors: tuple[int, ...], channels: int = 1, shared: bool = True) -> WaveNet:
    small = NoiseEmbedding(dim=8, hidden_dim=8, out_dim=8)
    return WaveNet(3, 6, 8, 3, channels, small, ConditionShape(MELS, factors, shared), convolution=kind())


def wavegrad(interpolate: bool) -> WaveGrad:
    blocks = Blocks((4, 2, 2), 6, (6, 4, 4), ((1, 2, 1, 2),) * 3, 4, (4, 6), (1, 2), interpolate, 1.0)
    return WaveGrad(blocks, local_features=MELS)


def stft(overlap: int) -> ComplexSTFT:
    return ComplexSTFT(RATE, overlap * HOP, HOP)


NETWORKS: dict[str, Any] = {
    "convnext": lambda: (stft(2), convnext(2 * HOP), Mel(log_mel())),
    "convnext, four frames over a sample": lambda: (stft(4), convnext(4 * HOP), Mel(log_mel())),
    "convnext, prior": lambda: (stft(4), convnext(4 * HOP), MelEnergyPrior(log_mel(), stft(4))),
    "convnext, causal": lambda: (stft(2), convnext(2 * HOP, causal=True), Mel(log_mel("same"))),
    "convnext, causal, prior": lambda: (
        stft(4), convnext(4 * HOP, causal=True), MelEnergyPrior(log_mel(), stft(4))
    ),
    "wavenet": lambda: (Waveform(RATE), wavenet(ZeroPadded, (4, 4)), Mel(log_mel("same"))),
    "wavenet, reflected, prior": lambda: (
        Waveform(RATE), wavenet(Reflected, (16,), shared=False), MelEnergyPrior(log_mel(), Waveform(RATE))
    ),
    "wavenet, causal": lambda: (Waveform(RATE), wavenet(LookingBack, (4, 4)), Mel(log_mel())),
    "wavenet, causal, wavelet": lambda: (Wavelet(RATE, 1, "db4"), wavenet(LookingBack, (4, 2), 2), Mel(log_mel())),
    "wavelet wavenet": lambda: (Wavelet(RATE), wavenet(FrequencyAware, (4, 2), 2), Mel(log_mel())),
    "wavelet wavenet, long filter": lambda: (
        Wavelet(RATE, 1, "db4"), wavenet(FrequencyAware, (4, 2), 2), Mel(log_mel())
    ),
    "wavegrad": lambda: (Waveform(RATE), wavegrad(False), Mel(log_mel())),
    "wavegrad, interpolating": lambda: (Waveform(RATE), wavegrad(True), Mel(log_mel())),
}  # fmt: skip
SAMPLERS = {
    "ddim": DDIM(), "ancestral": Ancestral(), "dpmpp_3m": CleanMultistep(dpmpp_third, 3), "heun": Heun(),
    "unipc": UniPC(3), "plms": PLMS(), "sde": CleanMultistep(dpmpp_third, 3, eta=1.0), "consistency": Consistency(),
    "churn": Churn(Heun(), gamma=0.3), "ancestral heun": AddedNoise(Heun()),
}  # fmt: skip


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Draws every weight, so that nothing is zero by start and the network matters."""
    generator = torch.Generator().manual_seed(seed)
    std = 0.2 if any(isinstance(part, WaveGrad) for part in model.modules()) else 0.3
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("std"):
            buffer.copy_(torch.linspace(0.5, 1.5, buffer.numel()))
    for part in model.modules():
        if isinstance(part, Mel):
            part.mean.fill_(-6.0)
            part.std.fill_(2.0)


def vocoder(name: str, step: Any = None, steps: int = 3) -> Vocoder:
    representation, network, conditioner = NETWORKS[name]()
    label = LogSnr() if isinstance(network, ConvNeXt) else StepIndex()
    denoiser = Denoiser(network, TABLE, parameterizations.epsilon, label)
    model = AudioDiffusion(representation, conditioner, denoiser).eval()
    randomize(model)
    return Vocoder(model, Sampler(step or DDIM(), UniformGrid(steps)), mel_iterations=0, layout="bands_first")


def mel_of(frames: int, seed: int = 0) -> Tensor:
    noise = torch.randn(MELS, frames, generator=torch.Generator().manual_seed(seed))
    return (-6 + 1.5 * noise).clamp(-11, -2)


def chunks_of(mel: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """The mel in chunks of these sizes, again and again."""
    start = 0
    for size in itertools.cycle([*sizes, 1]):
        yield mel[:, start : start + size]
        start += size
        if start >= mel.shape[-1]:
            return


def assert_same(pieces: list[Tensor], whole: Tensor) -> None:
    streamed = torch.cat(pieces)
    assert streamed.shape == whole.shape
    assert float((streamed - whole).abs().max()) <= EXACT * float(whole.max() - whole.min())


@pytest.mark.parametrize("name", NETWORKS)
def test_one_frame_of_the_mel_is_heard(name: str) -> None:
    """Else the equalities below would say nothing of the network."""
    system, mel = vocoder(name), mel_of(40)
    changed = mel.clone()
    changed[:, 20] += 1
    first, second = system(mel)[0], system(changed)[0]
    assert float((first - second).abs().max()) > 1000 * EXACT * float(first.max() - first.min())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "unipc"])
def test_stream_equals_the_whole(name: str, sampler: str) -> None:
    system, mel = vocoder(name, SAMPLERS[sampler]), mel_of(75)
    pieces = list(system.stream(chunks_of(mel, [3, 0, 11]), seed=5, chunk_frames=6))
    assert len(pieces) > 5
    assert_same(pieces, system(mel, seed=5)[0])


@pytest.mark.parametrize("name", ["convnext", "wavenet, causal"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stream_equals_the_whole_with_every_kind_of_step(name: str, sampler: str) -> None:
    system, mel = vocoder(name, SAMPLERS[sampler], steps=5), mel_of(90)
    pieces = list(system.stream(chunks_of(mel, [4, 9]), seed=5, chunk_frames=8))
    assert_same(pieces, system(mel, seed=5)[0])


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None)
@given(
    frames=st.integers(1, 60),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    chunk_frames=st.integers(1, 40),
)
def test_how_the_mel_is_cut_changes_nothing(
    name: str, frames: int, sizes: list[int], chunk_frames: int
) -> None:
    system, mel = vocoder(name, Ancestral(), steps=2), mel_of(frames, seed=frames)
    pieces = list(system.stream(chunks_of(mel, sizes), chunk_frames=chunk_frames))
    assert_same(pieces, system(mel)[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_item_is_the_same_alone_and_in_a_batch(name: str) -> None:
    system, first, second = vocoder(name, Ancestral()), mel_of(30), mel_of(30, seed=1)
    together = system(torch.stack([first, second]))
    assert_same([together[0]], system(first)[0])
    shorter = first[:, :20]
    padded = torch.cat([shorter, shorter[:, -1:].expand(-1, 10)], dim=1)
    together = system(torch.stack([padded, second]), lengths=[20 * HOP, 30 * HOP])
    assert_same([together[0, : 20 * HOP]], system(shorter)[0])


PREDICTIONS = {
    "epsilon": (parameterizations.epsilon, TABLE), "score": (parameterizations.score, TABLE),
    "velocity": (parameterizations.velocity, Cosine()), "clean": (parameterizations.clean, Cosine()),
    "flow": (parameterizations.flow, Flow()),
    "edm": (partial(parameterizations.edm, data_std=0.5), Karras()),
}  # fmt: skip


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_stream_equals_the_whole_with_every_kind_of_prediction(prediction: str) -> None:
    system, mel = vocoder("convnext"), mel_of(60)
    parameterization, schedule = PREDICTIONS[prediction]
    system.model.denoiser.parameterization, system.model.denoiser.schedule = parameterization, schedule
    assert_same(list(system.stream(chunks_of(mel, [7]), chunk_frames=9)), system(mel)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_stream_equals_the_whole_with_a_learned_variance(causal: bool) -> None:
    network = convnext(2 * HOP, outputs=2, causal=causal)
    denoiser = VarianceDenoiser(network, TABLE, parameterizations.epsilon, LogSnr())
    model = AudioDiffusion(stft(2), Mel(log_mel()), denoiser).eval()
    randomize(model)
    system = Vocoder(
        model,
        Sampler(Ancestral("learned"), UniformGrid(3), Clip(-3, 3)),
        mel_iterations=0,
        layout="bands_first",
    )
    mel = mel_of(60)
    assert_same(list(system.stream(chunks_of(mel, [7]), chunk_frames=9)), system(mel)[0])


def labelled(causal: bool, seed: int = 0) -> AudioDiffusion:
    hears = Joint([Mel(log_mel()), Labels(LABELS, 4)])
    denoiser = Denoiser(
        convnext(2 * HOP, vector_features=4, causal=causal), TABLE, parameterizations.epsilon, LogSnr()
    )
    model = AudioDiffusion(stft(2), hears, denoiser).eval()
    randomize(model, seed)
    return model


@pytest.mark.parametrize("step", [DDIM(), CFGPlusPlus(), Heun()], ids=lambda step: type(step).__name__)
@pytest.mark.parametrize(("causal", "auto"), [(False, False), (True, False), (True, True)])
def test_guided_stream_equals_the_whole(step: Any, causal: bool, auto: bool) -> None:
    model, mel, sampler = labelled(causal), mel_of(60), Sampler(step, UniformGrid(3))
    scale = 0.6 if isinstance(step, CFGPlusPlus) else 1.7
    steering = Steering(Guidance(scale, interval=(0.2, 1.0)), labelled(False, seed=1) if auto else None)
    request = StreamRequest({"digit": ("two",)}, 3, 8, steering)
    pieces = list(
        stream(Stream(model, sampler, request), chunks_of(mel, [5]), log_mel(), lambda mel, name: None)
    )
    batch = Batch(None, torch.tensor([60 * HOP]), {"digit": ("two",)}, mel[None])
    assert_same(pieces, model.synthesize(batch, sampler, 3, steering=steering)[0][0])


def test_labels_reach_the_stream() -> None:
    system, mel = (
        Vocoder(labelled(False), Sampler(DDIM(), UniformGrid(2)), mel_iterations=0, layout="bands_first"),
        mel_of(40),
    )
    one, two = (torch.cat(list(system.stream([mel], {"digit": (value,)}))) for value in ("one", "two"))
    assert_same([one], system(mel, labels={"digit": ("one",)})[0])
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_piece_comes_as_soon_as_the_stated_lookahead_is_there(name: str) -> None:
    system, came = vocoder(name), 0
    stated = system.lookahead(chunk_frames=4)

    def one_by_one() -> Iterator[Tensor]:
        nonlocal came
        for frame in mel_of(80).split(1, dim=1):
            came += 1
            yield frame

    first = next(system.stream(one_by_one(), chunk_frames=4))
    waited = 1 if "causal" in name else stated.chunk_frames
    assert len(first) == waited * HOP
    assert came == waited + stated.frames
    assert stated.seconds == pytest.approx(stated.frames * HOP / RATE)


def test_a_causal_network_looks_ahead_as_far_as_its_representation_alone() -> None:
    assert vocoder("wavenet, causal", steps=9).lookahead().frames == 0
    assert vocoder("convnext, causal", steps=9).lookahead().frames == 1  # a sample lies in two frames
    assert vocoder("convnext, causal").lookahead().overlap == 0


def test_lookahead_grows_with_the_evaluations_that_follow_one_another() -> None:
    ahead = [vocoder("convnext", SAMPLERS[name], steps=2).lookahead().frames for name in ("ddim", "heun")]
    field = vocoder("convnext").model.denoiser.network.receptive_field() // 2
    assert ahead == [1 + 2 * field, 1 + 3 * field]  # Heun's last step evaluates once


def test_pieces_are_plain_tensors_and_the_caller_stays_out_of_inference_mode() -> None:
    for piece in vocoder("convnext").stream([mel_of(50)], chunk_frames=10):
        assert not torch.is_inference_mode_enabled()
        assert not piece.is_inference()
        piece.mul_(2)


def test_chunks_of_numpy_with_a_batch_axis_or_frames_first_are_the_same() -> None:
    system, mel = vocoder("wavenet"), mel_of(40)
    whole = system(mel)[0]
    assert_same(list(system.stream([mel[:, :9].numpy(), mel[None, :, 9:]])), whole)
    turned = Vocoder(system.model, system.sampler, mel_iterations=0, layout="frames_first")
    # As many frames as bands, too.
    assert_same(list(turned.stream([mel[:, :MELS].T, mel[:, :0].T, mel[None, :, MELS:].mT])), whole)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(MELS - 1, 4), rf"mel chunk 3: .*expected {MELS} bands"),
        (torch.zeros(MELS - 1, 0), rf"mel chunk 3: .*expected {MELS} bands"),
        (torch.full((MELS, 4), torch.nan), "mel chunk 3: 24 of 24 values are NaN"),
        (torch.zeros(2, MELS, 4) - 5, "mel chunk 3: 2 items"),
        (np.zeros((MELS, 4), dtype=np.int16), "mel chunk 3: values of type int16"),
    ],
)
def test_a_chunk_that_breaks_the_contract_is_refused_by_its_number(bad: Any, message: str) -> None:
    running = vocoder("wavenet, causal").stream([mel_of(20), mel_of(20), bad, mel_of(20)])
    made = sum(len(next(running)) for _ in range(2))
    assert made == 40 * HOP  # what came before was made
    with pytest.raises(InputError, match=message):
        next(running)
    running.close()  # type: ignore[attr-defined]


def test_a_mel_of_another_level_is_refused_before_it_is_all_made() -> None:
    system = vocoder("wavenet, causal")
    system._conditioner.mean.fill_(6.0)
    system._conditioner.std.fill_(0.5)
    with pytest.raises(InputError, match="standard deviations"):
        list(system.stream([mel_of(10)] * 100))


@pytest.mark.parametrize("chunks", [[], [torch.zeros(MELS, 0)]])
def test_a_stream_without_a_frame_is_refused(chunks: list[Tensor]) -> None:
    with pytest.raises(InputError, match="without a single frame"):
        list(vocoder("convnext").stream(chunks))


def test_one_frame_is_enough() -> None:
    for name in NETWORKS:
        system, mel = vocoder(name), mel_of(1)
        assert_same(list(system.stream([mel])), system(mel)[0])


def refused(change: Any, message: str) -> None:
    system = vocoder("convnext")
    change(system)
    with pytest.raises(InputError, match=message):
        system.stream([mel_of(5)])
    assert message


def test_what_looks_at_the_whole_signal_is_refused_before_the_first_chunk() -> None:
    def norm(system: Vocoder) -> None:
        system.model.denoiser.network = nn.Sequential(nn.GroupNorm(1, 4))  # type: ignore[assignment]

    def threshold(system: Vocoder) -> None:
        system.sampler = replace(system.sampler, projection=DynamicThreshold())

    def prior(system: Vocoder) -> None:
        system.model.conditioner = SubbandEnergyPrior(log_mel(), Wavelet(RATE))

    def projection(system: Vocoder) -> None:
        system.mel_iterations = 7

    refused(norm, "looks at the whole signal at every position.*GroupNorm")
    refused(threshold, "DynamicThreshold looks at the whole signal")
    refused(prior, "SubbandEnergyPrior")
    refused(projection, "ends with 7 mel_iterations.*pass mel_iterations=0")
    request = StreamRequest(steering=Steering(Guidance(2.0, rescale=0.5)))
    with pytest.raises(InputError, match="guidance_rescale"):
        Stream(labelled(False), Sampler(DDIM(), UniformGrid(2)), request)
    with pytest.raises(InputError, match="chunk_frames: got 0"):
        vocoder("convnext").stream([mel_of(5)], chunk_frames=0)


def test_a_model_with_a_final_projection_streams_without_it_when_told() -> None:
    system, mel = vocoder("convnext"), mel_of(30)
    without = system(mel)[0]
    system.mel_iterations = 3
    assert_same(list(system.stream([mel], mel_iterations=0)), without)


def test_an_abandoned_stream_leaves_nothing_behind() -> None:
    system = vocoder("convnext")
    made = Stream(system.model, system.sampler, StreamRequest(chunk_frames=5))
    alive, before = weakref.ref(made), dict(system.model.denoiser.network.named_modules())
    running = stream(made, itertools.repeat(mel_of(10)), log_mel(), lambda mel, name: None)
    del made
    next(running)
    assert alive() is not None
    running.close()  # type: ignore[attr-defined]
    del running
    gc.collect()
    assert alive() is None
    assert dict(system.model.denoiser.network.named_modules()) == before


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
@pytest.mark.parametrize("name", ["convnext", "wavenet, causal"])
def test_a_hundred_thousand_frames_take_no_more_memory_than_some_thousand(name: str) -> None:
    system, sizes, held, samples = vocoder(name, steps=2), itertools.cycle([1, 999, 250]), [], 0
    chunks = (mel_of(size, seed) for seed, size in zip(range(240), sizes, strict=False))
    for number, piece in enumerate(system.stream(chunks, chunk_frames=250)):
        samples += len(piece)
        if number % 20 == 0:
            held.append(resident())
    assert samples == 100_000 * HOP
    assert max(held[3:]) - held[2] < 8 * 2**20
