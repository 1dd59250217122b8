"""What labels and mels become, what nothing becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.conditioner import Joint, Unconditional
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition

DIGITS, SPEAKERS = ("zero", "one", "two"), ("ann", "bob")
FRAMINGS = ["center", "same"]


def labels() -> Labels:
    torch.manual_seed(0)
    return Labels({"digit": DIGITS, "speaker": SPEAKERS}, 4)


def batch_of(size: int, **named: tuple[str, ...]) -> Batch:
    return Batch(waveform=None, lengths=torch.full((size,), 100), labels=named)


def vector(conditioner: nn.Module, batch: Batch) -> Tensor:
    found = conditioner(batch).vector
    assert found is not None
    return found.detach()


def mel_conditioner(framing: str = "center") -> Mel:
    conditioner = Mel(
        LogMel(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=6, framing=framing)
    )
    conditioner.mean.copy_(torch.linspace(-7, -3, 6))
    conditioner.std.copy_(torch.linspace(1, 3, 6))
    return conditioner


def speech(data_dir: Path, *lengths: int) -> Batch:
    """Real speech, cut to several lengths and zero-padded to the longest."""
    files = io.find([data_dir / "fsdd" / "recordings"])
    waveform, _ = io.read(next(file for file in files if io.probe(file).length >= max(lengths)))
    padded = torch.stack([waveform[:, : max(lengths)]] * len(lengths))
    for item, length in zip(padded, lengths, strict=True):
        item[:, length:] = 0
    return Batch(waveform=padded, lengths=torch.tensor(lengths))


def local(conditioner: nn.Module, batch: Batch) -> Tensor:
    found = conditioner(batch).local
    assert found is not None
    return found


def test_every_combination_of_labels_has_its_own_vector() -> None:
    conditioner = labels()
    pairs = [(digit, speaker) for digit in ("", *DIGITS) for speaker in ("", *SPEAKERS)]
    digit, speaker = zip(*pairs, strict=True)
    vectors = vector(conditioner, batch_of(len(pairs), digit=digit, speaker=speaker))
    assert vectors.shape == (12, 4)
    assert len(vectors.unique(dim=0)) == 12


def test_vector_is_the_sum_of_one_row_per_name() -> None:
    conditioner = labels()

    def one(digit: str, speaker: str) -> Tensor:
        return vector(conditioner, batch_of(1, digit=(digit,), speaker=(speaker,)))

    # Changing the digit moves the vector by the same amount for every speaker.
    torch.testing.assert_close(
        one("one", "ann") - one("zero", "ann"), one("one", "bob") - one("zero", "bob"), rtol=1e-5, atol=1e-6
    )


def test_missing_name_empty_value_and_null_all_mean_any() -> None:
    conditioner = labels()
    nothing = vector(conditioner, batch_of(2))
    assert torch.equal(nothing, vector(conditioner, batch_of(2, digit=("", ""), speaker=("", ""))))
    null = conditioner.null(batch_of(2, digit=("one", "two"), speaker=("ann", "bob"))).vector
    assert null is not None
    assert torch.equal(nothing, null)
    partial = vector(conditioner, batch_of(1, digit=("one",)))
    assert torch.equal(partial, vector(conditioner, batch_of(1, digit=("one",), speaker=("",))))


def test_items_do_not_influence_one_another() -> None:
    conditioner = labels()
    together = vector(conditioner, batch_of(3, digit=("one", "", "two"), speaker=("bob", "ann", "")))
    alone = vector(conditioner, batch_of(1, digit=("two",), speaker=("",)))
    assert torch.equal(together[2:], alone)


def test_every_row_is_trained() -> None:
    conditioner = labels()
    batch = batch_of(4, digit=("", *DIGITS), speaker=("", "", *SPEAKERS))
    conditioner(batch).vector.square().sum().backward()
    for name, parameter in conditioner.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad.abs().sum(1) > 0).all()), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"digit": ("nine",)}, "digit 'nine' is unknown .* zero, one, two"),
        ({"colour": ("red",)}, "label 'colour' is unknown .* digit, speaker"),
        ({"digit": ("one", "two")}, "label 'digit': got 2 values for 1 items"),
        ({"digit": ()}, "label 'digit': got 0 values for 1 items"),
    ],
)
def test_labels_that_the_model_does_not_know_are_refused(
    given: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        labels()(batch_of(1, **given))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no label name"),
        ({"digit": ("one", "two", "one")}, "label 'digit': a value is listed twice"),
        ({"digit": (1, "1")}, "a value is listed twice"),
        ({"a.b": ("x",)}, "'a.b' cannot be used"),
        ({"type": ("x",)}, "'type' cannot be used"),
    ],
)
def test_tables_that_cannot_be_are_refused(values: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Labels(values, 4)


def test_unconditional_says_nothing() -> None:
    batch = batch_of(2, digit=("one", "two"))
    assert Unconditional()(batch) == Unconditional().null(batch) == Condition()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_mel_is_normalised_with_the_statistics(framing: str, data_dir: Path) -> None:
    conditioner, batch = mel_conditioner(framing), speech(data_dir, 2000)
    assert batch.waveform is not None
    raw = conditioner.log_mel(batch.waveform[:, 0])
    found = local(conditioner, batch)
    torch.testing.assert_close(found * conditioner.std[:, None] + conditioner.mean[:, None], raw)
    conditioner.mean.copy_(raw.mean((0, 2)))
    conditioner.std.copy_(raw.std((0, 2), correction=0))
    normalised = local(conditioner, batch)
    torch.testing.assert_close(normalised.mean((0, 2)), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalised.std((0, 2), correction=0), torch.ones(6))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("lengths", [(2000,), (2000, 2000), (2000, 1600, 1, 15, 16, 77)])
def test_given_mel_equals_the_mel_of_the_waveform(
    framing: str, lengths: tuple[int, ...], data_dir: Path
) -> None:
    conditioner, batch = mel_conditioner(framing), speech(data_dir, *lengths)
    assert batch.waveform is not None
    mels = [
        conditioner.log_mel(item[:, :length]) for item, length in zip(batch.waveform, lengths, strict=True)
    ]
    # Frames that are padding hold anything; an item shorter than one hop has no frame of its own.
    given = torch.full((len(lengths), 6, max(mel.shape[-1] for mel in mels)), -4.0)
    for row, mel in zip(given, mels, strict=True):
        row[:, : mel.shape[-1]] = mel[0]
    own = torch.tensor([mel.shape[-1] > 0 for mel in mels])
    found = local(conditioner, replace(batch, waveform=None, mel=given))
    torch.testing.assert_close(found[own], local(conditioner, batch)[own], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_mel_of_an_item_in_a_padded_batch_equals_the_item_alone(framing: str, data_dir: Path) -> None:
    lengths = (2000, 1600, 1, 15, 16, 77)
    conditioner, batch = mel_conditioner(framing), speech(data_dir, *lengths)
    assert batch.waveform is not None
    together = local(conditioner, batch)
    assert together.isfinite().all()
    for i, length in enumerate(lengths):
        waveform = batch.waveform[i : i + 1, :, :length]
        alone = local(conditioner, Batch(waveform=waveform, lengths=torch.tensor([length])))
        own = alone.shape[-1]
        assert own == max(conditioner.log_mel.frames(length), 1)
        torch.testing.assert_close(together[i : i + 1, :, :own], alone, rtol=1e-4, atol=1e-4)
        last = alone[..., -1:].expand(-1, -1, together.shape[-1] - own)
        torch.testing.assert_close(together[i : i + 1, :, own:], last, rtol=1e-4, atol=1e-4)


def test_null_keeps_the_mel_and_drops_the_labels(data_dir: Path) -> None:
    mel = mel_conditioner()
    joint, batch = Joint([mel, labels()]), replace(speech(data_dir, 2000), labels={"digit": ("one",)})
    torch.testing.assert_close(local(joint, batch), local(mel, batch), rtol=0, atol=0)
    torch.testing.assert_close(vector(joint, batch), vector(labels(), batch), rtol=0, atol=0)
    null = joint.null(batch)
    torch.testing.assert_close(null.local, local(mel, batch), rtol=0, atol=0)
    torch.testing.assert_close(null.vector, labels().null(batch).vector, rtol=0, atol=0)
    assert null.vector is not None
    assert not torch.equal(null.vector, vector(joint, batch))


def test_two_parts_for_one_field_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"two conditioners fill condition.vector"):
        Joint([labels(), labels()])(batch_of(1))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (batch_of(1), "give a mel or a waveform"),
        (replace(batch_of(1), mel=torch.full((1, 7, 5), -4.0)), "expected 6 bands"),
        (replace(batch_of(1), mel=torch.full((1, 6, 5), 40.0)), "values from 40 to 40"),
        (replace(batch_of(1), mel=torch.full((1, 6, 5), float("nan"))), "NaN"),
        (replace(batch_of(3), mel=torch.full((2, 6, 5), -4.0)), "got 2 items for 3 lengths"),
    ],
)
def test_mel_that_breaks_the_contract_is_refused(batch: Batch, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mel_conditioner()(batch)
