"""AudioDiffusion: synthesis that depends on seed and item alone, model folders that are whole, recipes that run no code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import AudioDiffusion, build, instantiate, load
from audiodiff.types import Batch

RATE, HOP = 8000, 16
SAMPLERS = {"ddim": Sampler(DDIM(), UniformGrid(3)), "ancestral": Sampler(Ancestral(), UniformGrid(3))}
MEL = {
    "_target_": "audiodiff.audio.mel.LogMel", "sample_rate": RATE, "n_fft": 64, "win_length": 64,
    "hop_length": HOP, "n_mels": 6,
}  # fmt: skip
LABELS = {"_target_": "audiodiff.conditioning.label.Labels", "values": {"digit": ["one", "two"]}, "features": 4}
HEARS = {"_target_": "audiodiff.conditioning.mel.Mel", "log_mel": MEL}
BOTH = {"_target_": "audiodiff.conditioning.conditioner.Joint", "parts": [HEARS, LABELS]}
FRAMES = {
    "_target_": "audiodiff.audio.representation.ComplexSTFT", "sample_rate": RATE, "n_fft": 2 * HOP,
    "hop_length": HOP,
}  # fmt: skip
SAMPLES = {"_target_": "audiodiff.audio.representation.Waveform", "sample_rate": RATE}


def convnext(local: int | None, vector: int | None) -> dict[str, Any]:
    return {
        "_target_": "audiodiff.networks.convnext.ConvNeXt", "features": 2 * HOP, "width": 8, "dilations": [1, 2],
        "kernel_size": 3, "embedding_width": 8, "local_features": local, "vector_features": vector,
    }  # fmt: skip


def wavenet(local: int | None, vector: int | None) -> dict[str, Any]:
    return {
        "_target_": "audiodiff.networks.wavenet.WaveNet", "residual_layers": 3, "residual_channels": 4,
        "skip_channels": 4, "dilation_cycle": 3,
        "condition": {
            "_target_": "audiodiff.networks.wavenet.ConditionShape", "local_features": local,
            "vector_features": vector, "upsample_factors": [4, 4],
        },
    }  # fmt: skip


def recipe_of(representation: dict[str, Any], conditioner: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    label = "LogSnr" if "convnext" in network["_target_"] else "StepIndex"
    model = {
        "_target_": "audiodiff.model.AudioDiffusion",
        "representation": representation,
        "conditioner": conditioner,
        "denoiser": {
            "_target_": "audiodiff.diffusion.denoiser.Denoiser",
            "network": network,
            "schedule": {
                "_target_": "audiodiff.diffusion.schedules.linear", "beta_start": 1e-4, "beta_end": 0.05,
                "steps": 50,
            },
            "parameterization": {"_target_": "audiodiff.diffusion.parameterizations.epsilon", "_partial_": True},
            "noise_label": {"_target_": f"audiodiff.diffusion.denoiser.{label}"},
        },
    }  # fmt: skip
    return {"experiment": "test", "model": deepcopy(model)}


RECIPES = {
    "frames and labels": recipe_of(FRAMES, LABELS, convnext(None, 4)),
    "frames, mel and labels": recipe_of(FRAMES, BOTH, convnext(6, 4)),
    "samples and labels": recipe_of(SAMPLES, LABELS, wavenet(None, 4)),
    "samples and mel": recipe_of(SAMPLES, HEARS, wavenet(6, None)),
}


def random_model(kind: str = "frames and labels") -> AudioDiffusion:
    """A model with random weights everywhere, also where a fresh one has zeros."""
    model = build(RECIPES[kind])
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("std"):
            buffer.copy_(torch.linspace(0.5, 1.5, buffer.numel()))
    return model.eval()


def request(lengths: list[int], kind: str = "frames and labels") -> Batch:
    """Something to synthesize: labels in turn, and for models that hear a mel some audio to take it from."""
    waveform = torch.zeros(len(lengths), 1, max(lengths))
    for i, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length + i)
        waveform[i, :, :length] = torch.randn(1, length, generator=generator) / 4
    labels = {"digit": tuple(("one", "two", "")[i % 3] for i in range(len(lengths)))}
    mel = "mel" in kind
    return Batch(
        waveform if mel else None, torch.tensor(lengths), labels if "labels" in kind else {}
    )


def one_of(batch: Batch, i: int) -> Batch:
    length = int(batch.lengths[i])
    waveform = None if batch.waveform is None else batch.waveform[i : i + 1, :, :length]
    labels = {name: values[i : i + 1] for name, values in batch.labels.items()}
    return Batch(waveform, batch.lengths[i : i + 1], labels)


def assert_same_audio(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; tests copy it before they damage it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    random_model().save(folder, RECIPES["frames and labels"], {"updates": 3}, "# card\n")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_item_gives_the_same_audio_alone_in_a_batch_and_in_any_order(kind: str, sampler: str) -> None:
    model, lengths = random_model(kind), [130, 1, 64, 77]
    batch = request(lengths, kind)
    together = model.synthesize(batch, SAMPLERS[sampler], 5)
    assert [tuple(waveform.shape) for waveform in together] == [(1, length) for length in lengths]
    alone = [
        model.synthesize(one_of(batch, i), SAMPLERS[sampler], 5, items=[i])[0] for i in range(len(lengths))
    ]
    assert_same_audio(alone, together)
    order = [2, 0]
    parts = [one_of(batch, i) for i in order]
    audio = None
    if batch.waveform is not None:
        audio = torch.zeros(2, 1, 130)
        for row, part in zip(audio, parts, strict=True):
            assert part.waveform is not None
            row[:, : part.waveform.shape[-1]] = part.waveform[0]
    labels = {name: tuple(values[i] for i in order) for name, values in batch.labels.items()}
    reordered = Batch(audio, batch.lengths[order], labels)
    assert_same_audio(
        model.synthesize(reordered, SAMPLERS[sampler], 5, items=order), [together[i] for i in order]
    )


def test_seed_item_and_label_each_change_the_audio() -> None:
    model, sampler = random_model(), SAMPLERS["ddim"]
    batch = Batch(None, torch.tensor([80]), {"digit": ("one",)})
    plain = model.synthesize(batch, sampler, 5)[0]
    assert torch.equal(plain, model.synthesize(batch, sampler, 5)[0])
    for other in (
        model.synthesize(batch, sampler, 6)[0],
        model.synthesize(batch, sampler, 5, items=[1])[0],
        model.synthesize(replace(batch, labels={"digit": ("two",)}), sampler, 5)[0],
    ):
        assert not torch.allclose(plain, other, rtol=0, atol=1e-2 * float(plain.abs().max()))


@pytest.mark.parametrize("kind", RECIPES)
def test_guidance_one_is_the_plain_model_and_zero_the_model_told_nothing(kind: str) -> None:
    model, sampler, batch = random_model(kind), SAMPLERS["ddim"], request([80, 50], kind)
    plain = model.synthesize(batch, sampler, 5)
    assert_same_audio(model.synthesize(batch, sampler, 5, guidance=1.0), plain)
    told_nothing = model.synthesize(replace(batch, labels={}), sampler, 5)
    assert_same_audio(model.synthesize(batch, sampler, 5, guidance=0.0), told_nothing)
    strong = model.synthesize(batch, sampler, 5, guidance=4.0)
    if "labels" in kind:
        assert not torch.allclose(strong[0], plain[0], rtol=1e-2, atol=1e-2)
    else:
        assert_same_audio(strong, plain)


def test_constraint_and_progress_reach_the_sampler() -> None:
    model, told = build(RECIPES["samples and labels"]), []
    batch = request([50], "samples and labels")
    waveform = model.synthesize(
        batch, SAMPLERS["ancestral"], 5, constraint=Clip(-0.125, 0.125), on_step=lambda *done: told.append(done)
    )[0]
    assert float(waveform.abs().max()) == 0.125
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_audio_may_be_changed_in_place_and_trained_on() -> None:
    waveform = random_model().synthesize(request([40]), SAMPLERS["ddim"], 0)[0]
    waveform *= 0.5
    scale = torch.ones((), requires_grad=True)
    (scale * waveform).square().sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize(
    ("lengths", "seed", "message"),
    [([0], 0, "length: got 0"), ([40, -3], 0, "length: got -3"), ([40], -1, "seed: got -1")],
)
def test_impossible_requests_are_refused(lengths: list[int], seed: int, message: str) -> None:
    batch = Batch(None, torch.tensor(lengths))
    with pytest.raises(InputError, match=message):
        random_model().synthesize(batch, SAMPLERS["ddim"], seed)


def test_a_model_that_gives_nan_is_an_error_that_names_the_item() -> None:
    model = random_model()
    table = model.conditioner.get_parameter("tables.digit.weight")  # type: ignore[attr-defined]
    nn.init.constant_(table[1], float("nan"))
    with pytest.raises(FloatingPointError, match="item 8"):
        model.synthesize(request([40, 40]), SAMPLERS["ddim"], 0, items=[7, 8])


@pytest.mark.parametrize("kind", RECIPES)
def test_encoded_items_know_their_frames(kind: str) -> None:
    model, batch = random_model(kind), request([130, 40], "mel and " + kind)
    batch = replace(batch, labels=request([130, 40], kind).labels)
    x, condition = model.encode(batch)
    assert tuple(x.shape[1:]) == model.representation.shape(130)
    assert condition.frames is not None
    assert condition.frames.tolist() == [model.representation.shape(length)[1] for length in (130, 40)]
    assert not x[1, :, condition.frames[1] :].any()
    with pytest.raises(InputError, match="with waveforms"):
        model.encode(replace(batch, waveform=None))


@pytest.mark.parametrize(("field", "value"), [("sample_rate", 16000), ("hop_length", 32)])
@pytest.mark.parametrize("kind", ["frames, mel and labels", "samples and mel"])
def test_a_mel_of_another_rate_or_hop_than_the_model_is_refused(kind: str, field: str, value: int) -> None:
    recipe = deepcopy(RECIPES[kind])
    conditioner = recipe["model"]["conditioner"]
    conditioner.get("parts", [conditioner])[0]["log_mel"][field] = value
    with pytest.raises(InputError, match=f"{value}.* the model makes audio of 8000 Hz"):
        build(recipe)


@pytest.mark.parametrize("kind", RECIPES)
def test_a_saved_model_gives_the_same_audio(kind: str, tmp_path: Path) -> None:
    model, batch = random_model(kind), request([100, 33], kind)
    model.save(tmp_path / "run" / "model", RECIPES[kind], {"updates": 3}, "# card\n")
    expected = model.synthesize(batch, SAMPLERS["ancestral"], 2)
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        again = load(place)
        assert again.recipe == RECIPES[kind]
        assert not again.training
        for found, known in zip(again.synthesize(batch, SAMPLERS["ancestral"], 2), expected, strict=True):
            assert torch.equal(found, known)
    files = {file.name for file in (tmp_path / "run" / "model").iterdir()}
    assert files == {"model.safetensors", "config.yaml", "README.md", "training.json"}
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text()) == {"updates": 3}
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["model"]


def test_saving_again_replaces_the_model_whole(folder: Path) -> None:
    (folder / "leftover").write_text("of the old model")
    model = random_model("samples and labels")
    model.save(folder, RECIPES["samples and labels"], {}, "# new\n")
    assert load(folder).recipe == RECIPES["samples and labels"]
    assert not (folder / "leftover").exists()
    assert [entry.name for entry in folder.parent.iterdir()] == ["model"]


def test_saving_does_not_replace_what_is_no_model(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "song.wav").write_bytes(b"precious")
    for place in (music, music / "song.wav"):
        with pytest.raises(InputError, match="holds something that is no model"):
            random_model().save(place, RECIPES["frames and labels"], {}, "")
    assert (music / "song.wav").read_bytes() == b"precious"
    empty = tmp_path / "empty"
    empty.mkdir()
    random_model().save(empty, RECIPES["frames and labels"], {}, "")
    load(empty)


class Interrupting(Mapping[str, Any]):
    """Facts during whose writing somebody presses Ctrl-C: weights and config are in the draft by then."""

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_interrupted_save_leaves_the_old_model_whole(folder: Path) -> None:
    before = contents(folder.parent)
    with pytest.raises(KeyboardInterrupt):
        random_model().save(folder, RECIPES["frames and labels"], Interrupting(), "")
    assert contents(folder.parent) == before


def test_a_save_that_fails_between_its_two_renames_leaves_the_old_model_whole(folder: Path) -> None:
    before = contents(folder.parent)
    with pytest.raises(InputError, match="cannot be written"), writing_folder(folder) as draft:
        draft.rmdir()
    assert contents(folder.parent) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from audiodiff.errors import InputError
from audiodiff.model import load
folder = Path(sys.argv[1])
model = load(folder)
torch.nn.init.zeros_(model.denoiser.network.head.bias)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        model.save(folder, model.recipe, {"updates": 4}, "# card")
    except InputError as error:
        print("refused:", error)
"""


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_model_whole(folder: Path) -> None:
    # No file may grow beyond the limit, as on a disk that fills up: at once, in the weights, in the config.
    before = contents(folder.parent)
    limits = [0, 300, len(before["model/config.yaml"]) - 1]
    assert len(before["model/model.safetensors"]) > limits[1]
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), *map(str, limits)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert len(lines) == len(limits), result.stderr
    assert all(line.startswith(f"refused: {folder}: cannot be written (") for line in lines)
    assert contents(folder.parent) == before


def rewrite(folder: Path, **changes: Any) -> None:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))


def damage(folder: Path, how: str) -> Path:
    """Damages a model folder; returns the place to load."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    if how == "no such folder":
        return folder / "nowhere"
    if how == "a file":
        return weights
    if how == "another folder":
        (folder.parent / "else").mkdir()
        return folder.parent / "else"
    if how.startswith("without "):
        (folder / how.removeprefix("without ")).unlink()
    elif how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "cut in the header":
        weights.write_bytes(weights.read_bytes()[:50])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "one weight missing":
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights)
    elif how == "one weight more":
        save_file(tensors | {"extra": torch.zeros(1)}, weights)
    elif how == "another shape":
        save_file(tensors | {first: torch.zeros(3, 3, 3, 3)}, weights)
    elif how == "another architecture":
        rewrite(folder, model=RECIPES["samples and labels"]["model"])
    elif how == "config without model":
        (folder / "config.yaml").write_text("experiment: test\n")
    elif how == "config is a list":
        (folder / "config.yaml").write_text("- 1\n")
    elif how == "config is no yaml":
        (folder / "config.yaml").write_text("model: [1, 2\n")
    elif how == "config is binary":
        (folder / "config.yaml").write_bytes(b"\xff\xfe\x00\x01")
    elif how == "model is a number":
        rewrite(folder, model=3)
    elif how == "model is nothing":
        rewrite(folder, model=None)
    elif how == "model is another part":
        rewrite(folder, model={"_target_": "torch.nn.Identity"})
    elif how == "unknown argument":
        model = deepcopy(RECIPES["frames and labels"]["model"])
        model["denoiser"]["network"]["widht"] = 4
        rewrite(folder, model=model)
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no such folder", "nowhere: does not exist; expected a model folder"),
        ("a file", "is a file, expected a model folder"),
        ("another folder", "else: holds no model.safetensors and config.yaml"),
        ("without model.safetensors", "holds no model.safetensors"),
        ("without config.yaml", "holds no model.safetensors and config.yaml"),
        ("truncated weights", "model.safetensors: cannot be read as safetensors"),
        ("cut in the header", "model.safetensors: cannot be read as safetensors"),
        ("empty weights", "model.safetensors: cannot be read as safetensors"),
        ("one weight missing", "1 weights do not fit"),
        ("one weight more", "1 weights do not fit the recipe in config.yaml, first extra"),
        ("another shape", "1 weights do not fit"),
        ("another architecture", "weights do not fit"),
        ("config without model", "config.yaml: has no key `model`"),
        ("config is a list", "config.yaml: has no key `model`"),
        ("config is no yaml", "config.yaml: cannot be read"),
        ("config is binary", "config.yaml: cannot be read"),
        ("model is a number", "recipe: "),
        ("model is nothing", "builds a NoneType"),
        ("model is another part", "builds a Identity, expected an AudioDiffusion"),
        ("unknown argument", "unexpected keyword argument 'widht'.* full_key: denoiser.network"),
    ],
)
def test_a_damaged_model_folder_is_one_clear_line(folder: Path, how: str, message: str) -> None:
    place = damage(folder, how)
    with pytest.raises(InputError, match=message):
        load(place)


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_in_place_of_the_weights_is_not_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load(folder)
    torch.save({"weights": Payload(marker)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload is harmless; the test shows nothing"


def test_python_tags_in_the_config_are_not_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    text = f"model: !!python/object/apply:os.mkdir ['{marker}']\n"
    (folder / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="config.yaml: cannot be read"):
        load(folder)
    assert not marker.exists()
    yaml.load(text, yaml.UnsafeLoader)
    assert marker.exists(), "the payload is harmless; the test shows nothing"


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "builtins.eval", "torch.save", "torch.load", "pathlib.Path.touch",
        # Through modules of this package that may be built from, and modules that they import.
        "audiodiff.model.os.system", "audiodiff.model.importlib.import_module", "audiodiff.model.torch.save",
        "audiodiff.model.load", "audiodiff.model.load_file", "audiodiff.model.build",
        "audiodiff.audio.mel.Path", "audiodiff.audio.representation.torch.save",
        "audiodiff.diffusion.times.warnings.warn", "audiodiff.diffusion.noise.np.save",
        "audiodiff.networks.blocks.torch.save", "torch.nn.modules.module.torch.save",
        "torch.nn.functional.torch.save",
        # Parts of this package that touch files or the network.
        "audiodiff.data.download.download", "audiodiff.audio.io.write", "audiodiff.audio.pictures.write_png",
        "audiodiff.files.write_whole", "audiodiff.training.loop.train", "audiodiff.cli.app.main",
        # Names that are none.
        "", ".", "torch.nn.", "torch.nn..Linear", "audiodiff.diffusion", "audiodiff.diffusionx.y",
        "audiodiff.networks.convnext.Nothing", "audiodiff.networks.nothing.ConvNeXt",
        ["torch.save"], {"_target_": "torch.save"}, None, 3,
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "wrap",
    [
        lambda node: node,
        lambda node: {"_target_": "torch.nn.Sequential", "_args_": [node]},
        lambda node: {"_target_": "torch.nn.Identity", "a": {"b": [[node]]}},
        lambda node: {"_target_": "torch.nn.Identity", "_partial_": True, "_recursive_": False, "a": node},
    ],
    ids=["bare", "in arguments", "deep in a keyword", "partial"],
)
def test_recipe_builds_nothing_but_the_parts_of_a_model(target: Any, wrap: Any, tmp_path: Path) -> None:
    node = wrap({"_target_": target, "_args_": ["x", str(tmp_path / "executed")]})
    with pytest.raises(InputError, match="recipe: _target_"):
        instantiate(node)
    assert not list(tmp_path.iterdir())


INTERPOLATED = "${oc.create:{_target_:torch.save,_args_:[x,MARKER]}}"


@pytest.mark.parametrize("node", [
    {"_target_": "torch.nn.Identity", "a": INTERPOLATED},
    {"_target_": "torch.nn.Identity", "_args_": [[INTERPOLATED]]},
    {"_target_": "${evil}", "evil": "torch.save"},
    {"_target_": "torch.nn.Identity", "a": "${oc.env:HOME}"},
])  # fmt: skip
def test_interpolations_that_could_make_a_target_of_text_are_refused(node: Any, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    node = json.loads(json.dumps(node).replace("MARKER", str(marker)))
    with pytest.raises(InputError, match="recipe: .* (is an interpolation|is refused)"):
        instantiate(node)
    assert not marker.exists()


def test_the_interpolation_that_is_refused_is_one_that_would_run(tmp_path: Path) -> None:
    from hydra.utils import instantiate as hydra_instantiate

    marker = tmp_path / "executed"
    hydra_instantiate({"_target_": "torch.nn.Identity", "a": INTERPOLATED.replace("MARKER", str(marker))})
    assert marker.exists()


def test_a_model_with_a_foreign_target_is_refused_on_loading(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    model = deepcopy(RECIPES["frames and labels"]["model"])
    model["denoiser"]["noise_label"] = {"_target_": "torch.save", "_args_": ["x", str(marker)]}
    rewrite(folder, model=model)
    with pytest.raises(InputError, match="_target_ 'torch.save' is refused"):
        load(folder)
    assert not marker.exists()


def test_parts_of_a_model_and_torch_layers_are_built() -> None:
    assert isinstance(instantiate({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}), nn.Linear)
    for recipe in RECIPES.values():
        assert isinstance(build(recipe), AudioDiffusion)
