"""Your own codec under a latent model: EnCodec from transformers as the autoencoder of `audiodiff train`.

    pip install audiodiff transformers
    python encodec_latents.py facebook/encodec_24khz exp/encodec
    audiodiff train experiment=music_latent autoencoder=exp/encodec data.sample_rate=24000 data.channels=1 data_dir=...

The folder holds configuration and weights; a model trained with it carries both. Another codec takes a class like
audiodiff.interop.encodec.EncodecLatents: encode, decode, sample_rate, channels, hop_length, features and margin. In
Python alone any such module serves: LatentRepresentation(codec, sample_rate, channels) is the first part of an
AudioDiffusion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from audiodiff.interop.encodec import EncodecLatents
from audiodiff.training.saved_autoencoder import save_autoencoder


def save_encodec(model: Any, name: str, folder: Path) -> None:
    """Writes a transformers EncodecModel as an autoencoder's folder."""
    given = model.config.to_diff_dict()
    config = {
        key: value
        for key, value in given.items()
        if key not in ("transformers_version", "model_type", "dtype")
    }
    features, margin = model.config.hidden_size, model.config.sampling_rate // model.config.hop_length
    node = {
        "_target_": "audiodiff.interop.encodec.EncodecLatents", "features": features, "config": config,
        "margin": margin,
    }  # fmt: skip
    latents = EncodecLatents(features, config)
    latents.encoder.load_state_dict(model.encoder.state_dict())
    latents.decoder.load_state_dict(model.decoder.state_dict())
    card = f"# {name}\n\nEncoder and decoder of {name}, without its quantiser.\n"
    save_autoencoder(folder, latents, {"experiment": name, "autoencoder": node}, {"source": name}, card)


if __name__ == "__main__":
    from transformers import EncodecModel

    parser = argparse.ArgumentParser(description="Saves an EnCodec model as an autoencoder of audiodiff.")
    parser.add_argument("name", help="of the model, for example facebook/encodec_24khz, or its folder")
    parser.add_argument("folder", type=Path, help="where the autoencoder goes")
    arguments = parser.parse_args()
    save_encodec(EncodecModel.from_pretrained(arguments.name), arguments.name, arguments.folder)
