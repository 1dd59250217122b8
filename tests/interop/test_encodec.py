"""EnCodec's continuous latents as a model diffuses them, with a tiny model of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from audiodiff.audio.latent_representation import Autoencoder, LatentRepresentation
from audiodiff.errors import InputError
from audiodiff.interop.encodec import EncodecLatents
from audiodiff.model import build, load
from audiodiff.training.saved_autoencoder import adopt, load_autoencoder
from tests.tiny import recipe_from

transformers = pytest.importorskip("transformers")
TINY = {
    "sampling_rate": 8000, "num_filters": 2, "hidden_size": 6, "upsampling_ratios": [4, 2], "codebook_size": 8,
    "codebook_dim": 6, "target_bandwidths": [6.0],
}  # fmt: skip


@pytest.fixture
def encodec() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.EncodecModel(transformers.EncodecConfig(**TINY)).eval()


@pytest.fixture
def folder(encodec: Any, tmp_path: Path) -> Path:
    from examples.encodec_latents import save_encodec

    save_encodec(encodec, "tiny", tmp_path / "encodec")
    return tmp_path / "encodec"


def test_latents_are_what_goes_into_the_quantiser(encodec: Any, folder: Path) -> None:
    autoencoder = load_autoencoder(folder)
    assert isinstance(autoencoder, Autoencoder)
    assert (autoencoder.hop_length, autoencoder.features, autoencoder.margin) == (8, 6, 1000)
    waveform = torch.randn(1, 1, 803, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latents = autoencoder.encode(waveform)
        assert torch.equal(latents, encodec.encoder(waveform))
        codes = encodec.quantizer.encode(latents, 6.0).transpose(0, 1)
        asked = encodec.encode(waveform, bandwidth=6.0).audio_codes[0]
        assert torch.equal(codes, asked)
        assert torch.equal(autoencoder.decode(latents), encodec.decoder(latents))


def test_a_model_of_its_latents_is_saved_with_it(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_from(
        "experiment=mini", "model=latent", "size=tiny", "conditioner=unconditional", f"autoencoder={folder}"
    )
    model = build(recipe).eval()
    adopt(model, str(folder))
    assert isinstance(model.representation, LatentRepresentation)
    assert model.representation.shape(801) == (6, 101)
    model.save(tmp_path / "model", recipe, {}, "")
    again = load(tmp_path / "model")
    waveform = torch.randn(1, 1, 801, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = model.representation.encode(waveform)
        assert torch.equal(again.representation.encode(waveform), x)
        assert again.representation.decode(x, 801).shape == (1, 1, 801)


def test_one_that_normalises_levels_or_has_other_features_is_refused() -> None:
    with pytest.raises(InputError, match="normalises the level"):
        EncodecLatents(6, TINY | {"normalize": True})
    with pytest.raises(InputError, match="features 5 and hidden_size 6"):
        EncodecLatents(5, TINY)
