"""Mels that a corpus brings along: those of a text model for the recordings of the texts, to fine-tune a vocoder on.

`audiodiff align` writes them beside manifests whose cuts name them, and their definition into `aligned.json`. A vocoder
is trained on these; a model that hears no mel, or is told a text, takes the corpus for any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.data.reading import MelGrid
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate

RECORD = "aligned.json"


def given_mels(recipe: dict[str, Any], data_dir: Path | str) -> MelGrid | None:
    """Returns where the frames of a corpus' own mels lie; None where it has none, or the model is no vocoder.

    Args:
        recipe: resolved.
        data_dir: a prepared folder, or an address.

    Raises:
        InputError: the model hears another mel, or the record is damaged.
    """
    record = Path(data_dir) / RECORD
    if recipe.get("text") is not None or "://" in str(data_dir) or not record.is_file():
        return None
    conditioner: nn.Module = instantiate(recipe["model"]["conditioner"])
    heard = [part.log_mel for part in conditioner.modules() if isinstance(part, Mel)]
    if not heard:
        return None
    given = read_definition(record)
    for log_mel in heard:
        different = log_mel.difference(given)
        if different:
            raise InputError(
                f"{record}: mels of another definition than this recipe's: {'; '.join(different)}; take the features "
                "of the text model that made them, or a text model with these features"
            )
    return MelGrid(given.n_mels, given.hop_length, given.framing == "center")


def read_definition(record: Path) -> LogMel:
    """Returns the mel definition that a record of `audiodiff align` names.

    Raises:
        InputError: it is damaged.
    """
    try:
        return LogMel.from_definition(json.loads(record.read_text(encoding="utf-8"))["mel"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record}: damaged ({error}); run `audiodiff align` again") from error
