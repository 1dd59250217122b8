"""AudioDiffusion: representation + conditioner + denoiser, forwards to train and backwards to synthesize.

A saved model is a folder: `model.safetensors` (weights and statistics), `config.yaml` (the resolved recipe,
from which the model is rebuilt and the signal contract is read), `README.md` (model card) and
`training.json` (how it was trained). No pickled code is read, and a recipe may build only this package's
parts and torch.nn layers, since a downloaded recipe would otherwise run any code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.representation import Representation
from audiodiff.conditioning.conditioner import Conditioner
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.denoiser import Denoiser
from audiodiff.diffusion.guidance import guided
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.types import Batch, Condition

WEIGHTS, CONFIG, CARD, FACTS = "model.safetensors", "config.yaml", "README.md", "training.json"
# Not all of `audio`: a recipe must not be able to write files.
_BUILDABLE = tuple(
    f"audiodiff.{part}."
    for part in ("diffusion", "audio.mel", "audio.representation", "networks", "conditioning")
)
_BUILDABLE += ("audiodiff.model.AudioDiffusion", "torch.nn.")


class AudioDiffusion(nn.Module):
    """A trained or trainable model of audio."""

    representation: Representation
    conditioner: Conditioner

    def __init__(self, representation: nn.Module, conditioner: nn.Module, denoiser: Denoiser) -> None:
        """Joins the three parts.

        Args:
            representation: a Representation: waveform <-> x.
            conditioner: a Conditioner: batch -> condition.
            denoiser: the denoiser of x.

        Raises:
            InputError: a mel of another sample rate or hop length than the other parts have.
        """
        super().__init__()
        for part in conditioner.modules():
            if isinstance(part, Mel):
                _check_mel(part.log_mel, representation, denoiser)
        self.representation = representation  # type: ignore[assignment]
        self.conditioner = conditioner  # type: ignore[assignment]
        self.denoiser = denoiser
        self.recipe: dict[str, Any] = {}

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio in hertz."""
        return self.representation.sample_rate

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The label names that the model was trained with, and their values; empty when it is told none."""
        tables = [part.values for part in self.modules() if isinstance(part, Labels)]
        return {name: values for table in tables for name, values in table.items()}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.denoiser.parameters()).device

    def encode(self, batch: Batch) -> tuple[Tensor, Condition]:
        """Returns clean x [B, D, F] and the condition of a batch with waveforms."""
        if batch.waveform is None:
            raise InputError("encode needs a batch with waveforms")
        return self.representation.encode(batch.waveform), self.condition(batch)

    def condition(self, batch: Batch) -> Condition:
        """Returns the condition of a batch, with its valid frames."""
        return replace(self.conditioner(batch), frames=self._frames(batch.lengths))

    def synthesize(
        self,
        batch: Batch,
        sampler: Sampler,
        seed: int,
        items: Sequence[int] | None = None,
        guidance: float = 1.0,
        constraint: Constraint | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:
        """Returns one waveform [C, T] per item, made from noise.

        Args:
            batch: lengths, and what the model is conditioned on.
            sampler: step and grid.
            seed: non-negative integer; the same seed and item number give the same audio in any batch.
            items: item numbers for the noise, by default 0, 1, ...
            guidance: classifier-free guidance scale; 1 evaluates the plain conditional model.
            constraint: applied to x after each step.
            on_step: told (steps done, steps in all).

        Raises:
            InputError: unknown label, mel that breaks the contract, length below one sample.
            FloatingPointError: the model gave a number that is not finite.
        """
        if int(batch.lengths.min()) < 1:
            raise InputError(f"length: got {int(batch.lengths.min())} samples, expected at least 1")
        keys = range(batch.size) if items is None else items
        noise = KeyedNoise(seed, keys)
        shape = (batch.size, *self.representation.shape(int(batch.lengths.max())))
        with torch.inference_mode():
            denoise = self.denoiser.bind(self.condition(batch))
            if guidance != 1.0:
                nothing = replace(self.conditioner.null(batch), frames=self._frames(batch.lengths))
                denoise = guided(denoise, self.denoiser.bind(nothing), guidance)
            x = sampler(
                denoise,
                self.denoiser.schedule,
                noise(0, shape, self.device),
                lambda step: noise(step, shape, self.device),
                constraint,
                on_step,
            )
            waveforms = [
                self.representation.decode(x[i : i + 1, :, : self.representation.shape(length)[1]], length)[0]
                for i, length in enumerate(batch.lengths.tolist())
            ]
        for i, waveform in enumerate(waveforms):
            if not bool(waveform.isfinite().all()):
                raise FloatingPointError(f"item {keys[i]}: the model gave samples that are not finite")
        # Copies made outside inference mode are tensors that the caller may change in place.
        return [waveform.clone() for waveform in waveforms]

    def save(
        self, folder: str | Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str
    ) -> None:
        """Writes the model folder: beside it first, then renamed, so that no half folder is ever seen.

        Args:
            folder: where; an existing model folder there is replaced, any other folder with content refused.
            recipe: the resolved recipe with the key `model`.
            facts: how the model was trained (training.json).
            card: text of the model card.

        Raises:
            InputError: the disk is full or the place cannot be written or holds something else.
        """
        place = Path(folder)
        if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / CONFIG).is_file()):
            raise InputError(f"{place}: holds something that is no model; give another place to save to")
        with writing_folder(place) as draft:
            self.write(draft, recipe, facts, card)

    def write(self, folder: Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str) -> None:
        """Writes the four files of a model into an existing folder."""
        import yaml

        weights = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        (folder / WEIGHTS).write_bytes(to_bytes(weights))
        (folder / CONFIG).write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(dict(facts), indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")

    def _frames(self, lengths: Tensor) -> Tensor | None:
        if bool((lengths == lengths[0]).all()):
            return None
        return torch.tensor([self.representation.shape(length)[1] for length in lengths.tolist()])


def load(folder: str | Path, device: torch.device | str = "cpu") -> AudioDiffusion:
    """Returns the model saved in a folder, in evaluation mode, with its `recipe`.

    Args:
        folder: a model folder, or a run folder that holds one named `model`.
        device: where the weights go.

    Raises:
        InputError: no model folder, damaged or foreign weights, a recipe that asks for other code than this
            package's parts.
    """
    place = find_model(folder)
    recipe = read_recipe(place)
    model = build(recipe)
    try:
        weights = load_file(place / WEIGHTS)
    except Exception as error:  # safetensors raises its own type for a truncated file
        raise InputError(f"{place / WEIGHTS}: cannot be read as safetensors ({error})") from error
    expected = model.state_dict()
    problems = sorted(set(expected) ^ set(weights))
    problems += [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if problems:
        raise InputError(
            f"{place}: {len(problems)} weights do not fit the recipe in {CONFIG}, first {problems[0]}; "
            "the two files belong to different models"
        )
    model.load_state_dict(weights)
    return model.to(device).eval()


def find_model(folder: str | Path) -> Path:
    """Returns the model folder at `folder` or at `folder/model`.

    Raises:
        InputError: there is none; the message says what was found instead.
    """
    place = Path(folder)
    if place.is_file():
        raise InputError(
            f"{place}: is a file, expected a model folder with {WEIGHTS} and {CONFIG}; "
            "other projects' checkpoint files are imported with audiodiff.interop"
        )
    for candidate in (place, place / "model"):
        if (candidate / WEIGHTS).is_file() and (candidate / CONFIG).is_file():
            return candidate
    reason = "does not exist" if not place.exists() else f"holds no {WEIGHTS} and {CONFIG}"
    raise InputError(
        f"{place}: {reason}; expected a model folder, as `audiodiff train` leaves in exp/NAME/model"
    )


def read_recipe(folder: Path) -> dict[str, Any]:
    """Returns the recipe of a model folder as plain values."""
    import yaml

    try:
        recipe = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{folder / CONFIG}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(recipe, dict) or "model" not in recipe:
        raise InputError(f"{folder / CONFIG}: has no key `model`, expected a recipe of audiodiff")
    return recipe


def build(recipe: Mapping[str, Any]) -> AudioDiffusion:
    """Returns the untrained model that a recipe describes.

    Raises:
        InputError: a `_target_` outside the parts that may be built, or arguments that do not fit.
    """
    model = instantiate(recipe["model"])
    if not isinstance(model, AudioDiffusion):
        raise InputError(f"recipe: model builds a {type(model).__name__}, expected an AudioDiffusion")
    model.recipe = dict(recipe)
    return model


def instantiate(node: Any) -> Any:
    """Returns the object that a resolved recipe node describes.

    Raises:
        InputError: a `_target_` outside the parts that may be built, an interpolation (which could make such
            a target out of text), or arguments that do not fit.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate as hydra_instantiate
    from omegaconf.errors import OmegaConfBaseException

    _check_targets(node)
    try:
        return hydra_instantiate(node, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError("recipe: " + " ".join(str(error).split())) from error


def _check_targets(node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                _check_target(value)
            else:
                _check_targets(value)
    elif isinstance(node, str):
        if "${" in node:
            raise InputError(f"recipe: {node!r} is an interpolation; a saved recipe holds plain values")
    elif isinstance(node, Sequence):
        for value in node:
            _check_targets(value)


def _check_mel(log_mel: LogMel, representation: Any, denoiser: Denoiser) -> None:
    """Refuses a mel whose frames do not lie where the network looks for them."""
    # A sample-level network has a hop of its own, the stride of its upsampler.
    hop_length = representation.hop_length * getattr(denoiser.network, "hop_length", 1)
    ours, theirs = (representation.sample_rate, hop_length), (log_mel.sample_rate, log_mel.hop_length)
    if ours != theirs:
        raise InputError(
            f"mel of {theirs[0]} Hz with a frame every {theirs[1]} samples, the model makes audio of "
            f"{ours[0]} Hz and takes a frame every {ours[1]} samples; choose features, data and hop to match"
        )


def _check_target(target: Any) -> None:
    """Refuses a target that is not a class or function defined in an allowed package."""
    refused = InputError(
        f"recipe: _target_ {target!r} is refused; a model may be built only from {_BUILDABLE}"
    )
    if not isinstance(target, str) or not target.startswith(_BUILDABLE):
        raise refused
    module, _, name = target.rpartition(".")
    try:
        part = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"recipe: _target_ {target!r} does not exist in this version of audiodiff"
        ) from error
    # A name that a module merely imported (os, Path) is not one of its parts.
    home = f"{getattr(part, '__module__', None)}.{getattr(part, '__qualname__', None)}"
    if not callable(part) or not home.startswith(_BUILDABLE):
        raise refused
