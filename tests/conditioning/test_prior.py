"""What the mel-energy prior tells: exact deviations, at the positions of x, item by item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.representation import ComplexSTFT, Representation, Waveform
from audiodiff.audio.wavelet import Wavelet
from audiodiff.conditioning.conditioner import Joint
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior, SubbandEnergyPrior
from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.priors import color, whiten
from audiodiff.diffusion.samplers import Ancestral, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.networks.wavenet import ConditionShape, NoiseEmbedding, WaveNet
from audiodiff.training import statistics
from audiodiff.types import Batch, Condition

HOP, BANDS = 16, 6
LENGTHS = (160, 37, 1)
REPRESENTATIONS: dict[str, Representation] = {
    "waveform": Waveform(8000),
    "haar": Wavelet(8000),
    "db4": Wavelet(8000, wavelet="db4"),
    "stft": ComplexSTFT(8000, 2 * HOP, HOP),
    "stft of another hop": ComplexSTFT(8000, 32, 8),
}
WAVEFORM, HAAR = REPRESENTATIONS["waveform"], REPRESENTATIONS["haar"]
each_representation = pytest.mark.parametrize(
    "representation", REPRESENTATIONS.values(), ids=REPRESENTATIONS.keys()
)


def log_mel(framing: str = "same", changes: dict[str, object] | None = None) -> LogMel:
    definition = {"sample_rate": 8000, "n_fft": 64, "win_length": 64, "hop_length": HOP, "n_mels": BANDS}
    return LogMel.from_definition(definition | {"framing": framing} | (changes or {}))


def mel_of(energies: list[float]) -> Tensor:
    """A mel of one item whose frames have these energies, spread over all bands."""
    return (torch.tensor(energies).square() / BANDS).log().expand(1, BANDS, -1)


def prior_std(conditioner: Callable[[Batch], Condition], batch: Batch) -> Tensor:
    found = conditioner(batch).prior_std
    assert found is not None
    return found


def voice(*lengths: int) -> Batch:
    """Items that grow louder, zero beyond their lengths."""
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(len(lengths), 1, max(lengths), generator=generator) * torch.linspace(
        0.01, 0.5, max(lengths)
    )
    for item, length in zip(waveform, lengths, strict=True):
        item[:, length:] = 0
    return Batch(waveform, torch.tensor(lengths))


def test_deviation_is_the_normalised_energy_between_its_bounds() -> None:
    prior = MelEnergyPrior(log_mel(), WAVEFORM, energy_max=0.6, std_min=0.1)
    prior.set_energy_min(0.2)
    batch = Batch(None, torch.tensor([5 * HOP]), mel=mel_of([0.1, 0.22, 0.4, 0.6, 1.2]))
    expected = torch.tensor([0.1, 0.1, 0.5, 1.0, 1.0]).repeat_interleave(HOP)
    torch.testing.assert_close(prior_std(prior, batch)[0, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"log_base": "10"}, {"log_base": "db20", "scale": 0.01, "offset": 1.0}]
)
def test_deviation_is_the_same_in_every_logarithm(changes: dict[str, object]) -> None:
    natural, other = MelEnergyPrior(log_mel(), WAVEFORM), MelEnergyPrior(log_mel("same", changes), WAVEFORM)
    torch.testing.assert_close(
        prior_std(other, voice(160)), prior_std(natural, voice(160)), rtol=1e-4, atol=1e-4
    )


def test_mel_that_is_heard_is_that_of_the_mel_conditioner() -> None:
    prior, mel = MelEnergyPrior(log_mel(), WAVEFORM), Mel(log_mel())
    for part in (prior, mel):
        part.mean.fill_(-3.0)
        part.std.fill_(2.0)
    heard, expected = prior(voice(160)), mel(voice(160))
    torch.testing.assert_close(heard.local, expected.local, rtol=0, atol=0)
    # Statistics change what the network hears, not how loud the noise is.
    torch.testing.assert_close(
        heard.prior_std, prior_std(MelEnergyPrior(log_mel(), WAVEFORM), voice(160)), rtol=1e-4, atol=1e-4
    )
    null = prior.null(voice(160)).prior_std
    assert null is not None
    assert torch.equal(prior_std(prior, voice(160)), null)


@pytest.mark.parametrize("framing", ["same", "center"])
@each_representation
@pytest.mark.parametrize("length", [1, 15, 16, 17, 160, 171])
def test_prior_has_the_positions_of_x_and_is_positive_everywhere(
    framing: str, representation: Representation, length: int
) -> None:
    prior = MelEnergyPrior(log_mel(framing), representation, energy_max=0.5)
    batch = voice(length)
    assert batch.waveform is not None
    std = prior_std(prior, batch)
    x = representation.encode(batch.waveform)
    assert std.shape == (1, 1, x.shape[-1])
    assert float(std.min()) >= torch.tensor(prior.std_min)
    condition = Condition(prior_std=std)
    torch.testing.assert_close(color(whiten(x, condition), condition), x)


@each_representation
def test_loud_noise_lies_where_the_sound_is(representation: Representation) -> None:
    waveform = torch.zeros(1, 1, 40 * HOP)
    waveform[..., 20 * HOP : 21 * HOP] = torch.randn(HOP, generator=torch.Generator().manual_seed(0))
    prior = MelEnergyPrior(log_mel("center"), representation, 0.5, 0.01)
    std = prior_std(prior, Batch(waveform, torch.tensor([40 * HOP])))[0, 0]
    energy = representation.encode(waveform)[0].square().sum(0)
    positions = torch.arange(len(std), dtype=torch.float32)
    loud, sound = std - std.min(), energy
    middles = [
        float((weight * positions).sum() / weight.sum()) * representation.hop_length
        for weight in (loud, sound)
    ]
    assert middles[0] == pytest.approx(middles[1], abs=HOP)


@pytest.mark.parametrize("kind", [MelEnergyPrior, SubbandEnergyPrior])
@pytest.mark.parametrize("framing", ["same", "center"])
def test_prior_of_an_item_in_a_padded_batch_equals_the_item_alone(
    kind: type[MelEnergyPrior], framing: str
) -> None:
    prior, batch = kind(log_mel(framing), HAAR), voice(*LENGTHS)
    assert batch.waveform is not None
    together = prior_std(prior, batch)
    for i, length in enumerate(LENGTHS):
        alone = prior_std(prior, Batch(batch.waveform[i : i + 1, :, :length], torch.tensor([length])))
        torch.testing.assert_close(together[i : i + 1, :, : alone.shape[-1]], alone, rtol=1e-4, atol=1e-4)


def test_sub_band_prior_follows_each_half_of_the_bands() -> None:
    prior = SubbandEnergyPrior(log_mel(), HAAR, 0.5, 0.01)
    quiet, loud = -11.0, -3.0
    low_only = torch.full((1, BANDS, 4), quiet)
    low_only[:, : BANDS // 2] = loud
    both = [
        prior_std(prior, Batch(None, torch.tensor([4 * HOP]), mel=mel))
        for mel in (low_only, low_only.flip(1))
    ]
    assert both[0].shape == (1, 2, 2 * HOP)
    assert float(both[0][:, 0].min()) > 5 * float(both[0][:, 1].max())
    torch.testing.assert_close(both[0], both[1].flip(1))


def test_steady_level_is_forgotten_by_the_sub_band_prior_as_by_torchaudios_high_pass() -> None:
    from torchaudio.functional import highpass_biquad, lowpass_biquad

    prior = SubbandEnergyPrior(log_mel(), HAAR, 0.5, 0.01)
    found = prior.deviation(torch.full((1, BANDS, 400), -3.5))[0, 0]
    energy = (BANDS / 2 * torch.tensor(-3.5).exp()).sqrt()
    level = ((energy - prior.energy_min) / (0.5 - prior.energy_min)).double().expand(400)
    expected = lowpass_biquad(highpass_biquad(level, 11025, 15.0), 11025, 5500.0).clamp(min=0.01)
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-3)
    assert float(found[0]) > 20 * float(found[-1])


def test_joint_carries_the_prior_beside_the_labels() -> None:
    joint = Joint([MelEnergyPrior(log_mel(), WAVEFORM), Labels({"digit": ("one", "two")}, 4)])
    batch = replace(voice(160), labels={"digit": ("two",)})
    condition = joint(batch)
    assert condition.prior_std is not None
    assert condition.vector is not None
    assert torch.equal(condition.prior_std, prior_std(MelEnergyPrior(log_mel(), WAVEFORM), batch))
    with pytest.raises(ValueError, match=r"two conditioners fill condition.local"):
        Joint([MelEnergyPrior(log_mel(), WAVEFORM), MelEnergyPrior(log_mel(), WAVEFORM)])(batch)


def model(prior: MelEnergyPrior, representation: Representation) -> AudioDiffusion:
    torch.manual_seed(0)
    condition = ConditionShape(local_features=BANDS, upsample_factors=(HOP // representation.hop_length,))
    channels = representation.shape(1)[0]
    network = WaveNet(2, 8, 8, 2, channels, NoiseEmbedding(8, 12, 10), condition)
    nn.init.normal_(network.output_projection.weight, std=0.1)
    denoiser = Denoiser(network, linear(1e-4, 0.05, 50), epsilon, StepIndex())
    assert isinstance(representation, nn.Module)
    return AudioDiffusion(representation, prior, denoiser)


def test_statistics_find_the_quietest_frame_and_hand_it_to_the_prior() -> None:
    made = model(MelEnergyPrior(log_mel(), WAVEFORM), Waveform(8000))
    batches = [voice(160), voice(96)]
    found = statistics.measure(made, batches)
    prior = made.conditioner
    assert isinstance(prior, MelEnergyPrior)
    energies = [prior.energy(prior.log_mel(batch.waveform)).min() for batch in batches]
    assert found["energy_min"] == pytest.approx(float(min(energies)), rel=1e-6)
    statistics.apply(made, found)
    assert float(prior.energy_min) == pytest.approx(found["energy_min"], rel=1e-6)
    assert "conditioner.energy_min" in made.state_dict()
    del found["energy_min"]
    with pytest.raises(InputError, match="no energy_min; measure them again"):
        statistics.apply(made, found)


@pytest.mark.parametrize("representation", [WAVEFORM, HAAR], ids=["waveform", "haar"])
def test_model_with_a_prior_synthesizes_items_alone_as_in_a_batch(representation: Representation) -> None:
    made = model(MelEnergyPrior(log_mel(), representation), representation).eval()
    mel = made.conditioner.log_mel(voice(160).waveform).expand(2, -1, -1)  # type: ignore[attr-defined]
    sampler = Sampler(Ancestral(), UniformGrid(3))
    together = made.synthesize(Batch(None, torch.tensor([160, 64]), mel=mel), sampler, 0)
    alone = made.synthesize(Batch(None, torch.tensor([64]), mel=mel[1:, :, :4]), sampler, 0, items=[1])
    torch.testing.assert_close(together[1], alone[0], rtol=1e-4, atol=1e-5)
    assert together[0].shape == (1, 160)


def test_untrained_network_starts_from_noise_as_loud_as_the_mel() -> None:
    made = model(MelEnergyPrior(log_mel(), WAVEFORM, energy_max=1.0, std_min=0.01), Waveform(8000)).eval()
    nn.init.zeros_(made.denoiser.network.output_projection.weight)  # type: ignore[attr-defined]
    nn.init.zeros_(made.denoiser.network.output_projection.bias)  # type: ignore[attr-defined]
    length = 400 * HOP
    mel = mel_of([0.02] * 200 + [0.9] * 200)
    batch = Batch(None, torch.tensor([length]), mel=mel)
    waveform = made.synthesize(batch, Sampler(Ancestral(), UniformGrid(4)), 0)[0][0]
    quiet, loud = waveform[: length // 2].std(), waveform[length // 2 :].std()
    expected = prior_std(made.conditioner, batch)[0, 0]
    assert float(loud / quiet) == pytest.approx(float(expected[-1] / expected[0]), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std_min": 0.0}, "std_min: got 0.0"),
        ({"std_min": 1.5}, "std_min: got 1.5"),
        ({"energy_max": 0.001}, "less than energy_max"),
    ],
)
def test_numbers_out_of_their_bounds_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MelEnergyPrior(log_mel(), WAVEFORM, **changes)


@pytest.mark.parametrize("energy", [4.0, 7.5, -0.1, float("nan")])
def test_quietest_frame_that_is_not_below_the_loudest_is_refused(energy: float) -> None:
    with pytest.raises(InputError, match="set energy_max to the energy of loud frames"):
        MelEnergyPrior(log_mel(), WAVEFORM).set_energy_min(energy)
