"""The projects whose checkpoints are imported: what each one's importer finds, in the words of a recipe.

An importer returns what it knows of a project's model under that project's facts; here each becomes a Foreign, with
the sampler and the training of the project, from which `folder` writes an ordinary model folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.audio.representation import Waveform
from audiodiff.audio.wavelet import Wavelet
from audiodiff.conditioning.conditioner import Unconditional
from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.continuous import Cosine
from audiodiff.diffusion.denoiser import Alpha, NoiseLabel, StepIndex, Time
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.times import BetaGrid, TableGrid, TimesGrid
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.interop import (
    amphion_diffwave,
    dance_diffusion,
    fregrad,
    gradtts,
    ivanvovk_wavegrad,
    lmnt_diffwave,
    lmnt_wavegrad,
    nodes,
    philsyn_diffwave,
    priorgrad,
    speechbrain_diffwave,
)
from audiodiff.interop.foreign import Foreign, Options, Project, Training
from audiodiff.interop.nodes import Node

_VOCODER_FRAMES, _WAVEGRAD_FRAMES = (
    62,
    24,
)  # mel frames of a training segment in DiffWave's and WaveGrad's code
_GRADTTS_SECONDS = 2.0  # of mel, of which Grad-TTS trains its decoder at a time
_LABELS: Mapping[str, NoiseLabel] = {"StepIndex": StepIndex(), "Alpha": Alpha(), "Time": Time()}


class TableModel(Protocol):
    """What the importers of models with a table of betas have in common."""

    @property
    def betas(self) -> tuple[float, ...]:
        """Training schedule."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        ...

    @property
    def noise_label(self) -> str:
        """Name of the noise label."""
        ...

    @property
    def licence(self) -> str:
        """Of code and weights."""
        ...


def values_of(path: Path | None) -> dict[str, Any] | None:
    """Returns the content of a configuration file, JSON or YAML; None for no file.

    Raises:
        InputError: it cannot be read, or holds no mapping of plain values.
    """
    if path is None:
        return None
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}), expected a configuration of plain values as "
            "JSON or YAML"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a configuration with names")
    return content


def _table_model(
    imported: TableModel,
    plan: Node,
    conditioner: nn.Module,
    sampler: Sampler,
    training: Training,
    unknown: tuple[str, ...],
    bands: Node | None = None,
) -> Foreign:
    """Returns a model that predicts the noise on a table of betas; it diffuses the waveform, or the given bands."""
    representation = bands or nodes.target(Waveform, sample_rate=imported.sample_rate, channels=1)
    network = getattr(imported, "network")  # noqa: B009 each importer has a class of its own
    return Foreign(
        network=network,
        plan=plan,
        representation=representation,
        conditioner=conditioner,
        told=nodes.conditioner(conditioner, representation),
        log_mel=conditioner.log_mel if isinstance(conditioner, Mel) else None,
        sample_rate=imported.sample_rate,
        channels=1,
        schedule=nodes.schedule(imported.betas),
        prediction="epsilon",
        noise_label=_LABELS[imported.noise_label],
        sampler=sampler,
        training=training,
        licence=imported.licence,
        unknown=unknown,
    )


def _clamped(betas: tuple[float, ...], clip: tuple[float, float]) -> Sampler:
    """Returns ancestral steps on a short table, clamped after each."""
    return Sampler(Ancestral(), BetaGrid(betas), constraint=Clip(*clip))


def _seconds(frames: int, log_mel: LogMel) -> float:
    return frames * log_mel.hop_length / log_mel.sample_rate


def _lmnt_diffwave(file: Path, options: Options) -> Foreign:
    imported = lmnt_diffwave.load(file, _params(options))
    log_mel = imported.mel()
    seconds = imported.audio_length / imported.sample_rate
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        Unconditional() if log_mel is None else Mel(log_mel),
        _clamped(imported.fast_betas, imported.clip),
        Training("l1", "rows", seconds if log_mel is None else _seconds(_VOCODER_FRAMES, log_mel)),
        _without_params(file, options),
    )


def _lmnt_wavegrad(file: Path, options: Options) -> Foreign:
    imported = lmnt_wavegrad.load(file, _params(options))
    clip = Clip(*imported.clip)
    if options.schedule is None:
        sampler = Sampler(Ancestral(), TableGrid(), constraint=clip)
        unknown: tuple[str, ...] = (
            f"a short schedule: the project published none, so that all {len(imported.betas)} rows are sampled; "
            "give one with --schedule, or choose --grid wavegrad-6, or search one",
        )
    else:
        betas = ivanvovk_wavegrad.read_schedule(options.schedule)
        sampler, unknown = Sampler(Ancestral(), BetaGrid(betas), constraint=clip), ()
    log_mel = imported.mel()
    return _table_model(
        imported,
        nodes.wavegrad(imported.network),
        Mel(log_mel),
        sampler,
        Training("l1", "uniform", _seconds(_WAVEGRAD_FRAMES, log_mel)),
        (*_without_params(file, options), *unknown),
    )


def _ivanvovk_wavegrad(file: Path, options: Options) -> Foreign:
    imported = ivanvovk_wavegrad.load(file, values_of(options.config), options.schedule)
    log_mel = imported.mel()
    return _table_model(
        imported,
        nodes.wavegrad(imported.network),
        Mel(log_mel),
        Sampler(Ancestral(), BetaGrid(imported.fast_betas), projection=Clip(*imported.clip_clean)),
        Training("l1", "uniform", _seconds(_WAVEGRAD_FRAMES, log_mel)),
        _without_config(options),
    )


def _philsyn_diffwave(file: Path, options: Options) -> Foreign:
    in_place = not options.corrected
    imported = philsyn_diffwave.load(file, options.config, in_place)
    log_mel = imported.mel()
    assumed = (
        "whether the step embedding was added in place: taken as in the published code and weights; if the model gives "
        "static noise, import it with --corrected",
    )
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        Unconditional() if log_mel is None else Mel(log_mel),
        Sampler(Ancestral(), TableGrid()),
        Training("mse", "rows", imported.segment_length / imported.sample_rate),
        assumed if options.corrected is None else (),
    )


def _priorgrad(file: Path, options: Options) -> Foreign:
    imported = priorgrad.load(file, options.stats, values_of(options.config))
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        imported.conditioner(),
        _clamped(imported.fast_betas, imported.clip),
        Training("mse", "rows", _seconds(_VOCODER_FRAMES, imported.log_mel)),
        (*_without_params(file, options), *_without_stats(options)),
    )


def _fregrad(file: Path, options: Options) -> Foreign:
    imported = fregrad.load(file, options.stats, values_of(options.config))
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        imported.conditioner(),
        Sampler(Ancestral(), TableGrid(), constraint=Clip(*imported.clip)),
        Training("mse_stft", "rows", _seconds(_VOCODER_FRAMES, imported.log_mel)),
        (*_without_params(file, options), *_without_stats(options)),
        nodes.target(Wavelet, sample_rate=imported.sample_rate),
    )


def _speechbrain_diffwave(file: Path, options: Options) -> Foreign:
    imported = speechbrain_diffwave.load(file, values_of(options.config))
    log_mel = imported.log_mel
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        Unconditional() if log_mel is None else Mel(log_mel),
        _clamped(imported.fast_betas, imported.clip),
        Training("l1", "rows", 1.0 if log_mel is None else _seconds(_VOCODER_FRAMES, log_mel)),
        _without_config(options),
    )


def _amphion_diffwave(file: Path, options: Options) -> Foreign:
    imported = amphion_diffwave.load(file, values_of(options.config))
    return _table_model(
        imported,
        nodes.wavenet(imported.network),
        Mel(imported.log_mel),
        _clamped(imported.fast_betas, imported.clip),
        Training("l1", "rows", _seconds(_VOCODER_FRAMES, imported.log_mel)),
        _without_config(options),
    )


def _dance_diffusion(file: Path, options: Options) -> Foreign:
    imported = dance_diffusion.load(file, options.sample_rate, options.sample_size)
    channels = imported.plan.channels
    unknown = () if imported.averaged else ("averaged weights: the file holds none, the raw ones are taken",)
    return Foreign(
        network=imported.network,
        plan=nodes.unet1d(imported.plan),
        representation=nodes.target(Waveform, sample_rate=imported.sample_rate, channels=channels),
        conditioner=Unconditional(),
        told=nodes.target(Unconditional),
        log_mel=None,
        sample_rate=imported.sample_rate,
        channels=channels,
        schedule=nodes.target(Cosine),
        prediction=imported.parameterization,
        noise_label=Time(),
        sampler=Sampler(DDIM(imported.eta), TimesGrid(imported.times)),
        training=Training("mse", "stratified", imported.sample_size / imported.sample_rate),
        licence=imported.licence,
        unknown=unknown,
    )


def _gradtts(file: Path, options: Options) -> Foreign:
    model = gradtts.load(file, values_of(options.config))
    recipe, parts = model.recipe, model.recipe["model"]
    network, conditioner, representation = model.denoiser.network, model.conditioner, model.representation
    assert isinstance(network, nn.Module)
    assert isinstance(conditioner, nn.Module)
    assert isinstance(representation, MelRepresentation)
    return Foreign(
        network=network,
        plan=parts["denoiser"]["network"],
        representation=parts["representation"],
        conditioner=conditioner,
        told=parts["conditioner"],
        log_mel=representation.log_mel,
        sample_rate=model.sample_rate,
        channels=representation.channels,
        schedule=parts["denoiser"]["schedule"],
        prediction="score",
        noise_label=Time(),
        sampler=instantiate(recipe["sampler"]),
        training=Training("mse", "uniform", _GRADTTS_SECONDS),
        licence=gradtts.LICENCE,
        unknown=_without_config(options),
        labels=model.labels,
    )


def _params(options: Options) -> dict[str, Any]:
    """Returns lmnt's params as the user gives them."""
    rate = {} if options.sample_rate is None else {"sample_rate": options.sample_rate}
    return (values_of(options.config) or {}) | rate


def _without_params(file: Path, options: Options) -> tuple[str, ...]:
    if options.config is not None or file.suffix != ".safetensors":
        return ()
    return (
        "params: a file of weights alone has none, the project's defaults are taken; --config gives others",
    )


def _without_config(options: Options) -> tuple[str, ...]:
    if options.config is not None:
        return ()
    return ("configuration: the project's default is taken; --config gives that of this checkpoint",)


def _without_stats(options: Options) -> tuple[str, ...]:
    if options.stats is not None:
        return ()
    return ("energy of the quietest training frame: silence is taken; --stats gives the project's numbers",)


PROJECTS: Mapping[str, Project] = {
    "lmnt_diffwave": Project("github.com/lmnt-com/diffwave", ("config", "sample_rate"), _lmnt_diffwave),
    "lmnt_wavegrad": Project(
        "github.com/lmnt-com/wavegrad", ("config", "schedule", "sample_rate"), _lmnt_wavegrad
    ),
    "philsyn_diffwave": Project(
        "github.com/philsyn/DiffWave-Vocoder and DiffWave-unconditional",
        ("config", "corrected"),
        _philsyn_diffwave,
    ),
    "ivanvovk_wavegrad": Project("github.com/ivanvovk/WaveGrad", ("config", "schedule"), _ivanvovk_wavegrad),
    "priorgrad": Project(
        "github.com/microsoft/NeuralSpeech, PriorGrad-vocoder", ("config", "stats"), _priorgrad
    ),
    "fregrad": Project("github.com/kaistmm/fregrad", ("config", "stats"), _fregrad),
    "speechbrain_diffwave": Project("github.com/speechbrain/speechbrain", ("config",), _speechbrain_diffwave),
    "amphion_diffwave": Project("github.com/open-mmlab/Amphion", ("config",), _amphion_diffwave),
    "gradtts": Project("github.com/huawei-noah/Speech-Backbones, Grad-TTS", ("config",), _gradtts),
    "dance_diffusion": Project(
        "github.com/Harmonai-org/sample-generator", ("sample_rate", "sample_size"), _dance_diffusion
    ),
}
"""The projects by the name that the command line knows them by."""
