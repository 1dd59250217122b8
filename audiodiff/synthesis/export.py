"""A model as files for other runtimes: ONNX graphs, a torch.export program or an AOTInductor package.

The folder holds `sampler.*` (noise and condition in, waveform out), `denoiser.*` (one call of the denoiser) and
`export.json` (what goes in and comes out, and the sampler written out as sums, so that a few lines of any language
walk it with the denoiser alone). Every graph is compared with the model before it is left there.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiodiff.diffusion.plan import Plan, plan
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import AudioDiffusion
from audiodiff.synthesis.graphs import DenoiserGraph, Door, SamplerGraph, settings_at

FORMATS = ("onnx", "torch", "aotinductor")
PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest error that an export may have, of the range of what the model gives; fp16 rounds the weights."""

_LARGE = 1024  # weights smaller than this stay in float32 under fp16
_CHECKED = ((1, 9), (3, 23))  # batch and hops or mel frames that a graph is checked at


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        errors: largest difference from the model by graph name, of range.
        bytes: size of each file by name.
    """

    errors: dict[str, float]
    bytes: dict[str, int]


def export(
    model: AudioDiffusion, sampler: Sampler, folder: Path, kind: str = "onnx", precision: str = "fp32"
) -> Exported:
    """Writes a model for another runtime.

    Args:
        model: conditioned on a mel, labels, both or nothing, of a linear representation.
        sampler: without thresholds; its steps are written into the graph.
        folder: where; an export there is replaced.
        kind: one of FORMATS.
        precision: one of PRECISIONS; fp16 stores large weights in half precision, ONNX only.

    Raises:
        InputError: an unknown kind, a model or sampler that no graph can express, a package that is not installed,
            or a graph that differs from the model by more than TOLERANCE.
    """
    if kind not in FORMATS or precision not in PRECISIONS or (precision != "fp32" and kind != "onnx"):
        raise InputError(
            f"export: got format {kind!r} and precision {precision!r}; expected one of {', '.join(FORMATS)}, and fp32, "
            "or fp16 with onnx"
        )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "export.json").is_file():
        raise InputError(f"{folder}: holds something that is no export; give another folder with --out")
    writer = _writer(kind, precision)
    sums = plan(sampler, model.denoiser.schedule)
    graphs: dict[str, nn.Module] = {
        "sampler": SamplerGraph(model, sums, model.steering.guidance).eval(),
        "denoiser": DenoiserGraph(model).eval(),
    }
    examples = _Examples(model, len(sums.draws))
    errors = {}
    with writing_folder(folder) as draft, torch.no_grad(), _quiet():
        for name, graph in graphs.items():
            run = writer(graph, examples.inputs(name, 2, 12), draft / name)
            errors[name] = max(_error(graph, run, examples.inputs(name, *size)) for size in _CHECKED)
            if not errors[name] <= TOLERANCE[precision]:
                raise InputError(
                    f"export: {name} differs from the model by {errors[name]:.1e} of range, at most "
                    f"{TOLERANCE[precision]:.0e} is allowed; nothing was written"
                )
        (draft / "export.json").write_text(
            json.dumps(_description(model, sums, examples, errors), indent=1) + "\n"
        )
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return Exported(errors, sizes)


Inputs = dict[str, Tensor]
Run = Callable[[Inputs], Tensor]


class _Examples:
    """Inputs of the graphs, of any batch and length."""

    def __init__(self, model: AudioDiffusion, draws: int) -> None:
        self.model = model
        self.draws = draws
        self.door = Door(model)

    def hop(self) -> int:
        """Returns the samples of one mel frame, or of one position of x without a mel."""
        return self.door.hop_length if self.door.mel is None else self.door.mel.log_mel.hop_length

    def inputs(self, graph: str, batch: int, units: int) -> Inputs:
        """Returns inputs by name for a batch of so many hops or mel frames."""
        generator = torch.Generator().manual_seed(units)
        features, frames = self.model.representation.shape(units * self.hop())
        if graph == "sampler":
            given = {"noise": torch.randn(self.draws, batch, features, frames, generator=generator)}
        else:
            label, *coefficients = settings_at(self.model.denoiser, (0.5,))[0]
            given = {
                "x": torch.randn(batch, features, frames, generator=generator),
                "label": torch.full((batch,), label),
                "coefficients": torch.tensor([coefficients]).repeat(batch, 1),
            }
        if self.door.mel is not None:
            normal = torch.randn(batch, self.door.mel.log_mel.n_mels, units, generator=generator)
            given["mel"] = normal * self.door.mel.std[:, None] + self.door.mel.mean[:, None]
        if self.door.labels is not None:
            given["rows"] = torch.zeros(batch, len(self.door.labels.values), dtype=torch.int64)
        return given


def _writer(kind: str, precision: str) -> Callable[[nn.Module, Inputs, Path], Run]:
    if kind == "onnx":
        return lambda graph, inputs, path: _to_onnx(graph, inputs, path, precision)
    return _to_torch if kind == "torch" else _to_aotinductor


def _to_onnx(graph: nn.Module, inputs: Inputs, path: Path, precision: str) -> Run:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 torch's exporter needs it
    except ImportError as error:
        raise InputError(f"export: {error.name} is not installed; pip install 'audiodiff[export]'") from error
    path = path.with_suffix(".onnx")
    program = torch.onnx.export(
        graph, kwargs=dict(inputs), dynamo=True, dynamic_shapes=_dynamic(inputs), input_names=list(inputs),
        output_names=["waveform" if path.stem == "sampler" else "clean"], optimize=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(path)
    if precision == "fp16":
        onnx.save(_halved(onnx.load(path)), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(
        session.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0]
    )


def _halved(model: Any) -> Any:
    """Returns an ONNX model with its large weights in half precision, cast back where they are used."""
    from onnx import TensorProto, helper, numpy_helper

    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.size < _LARGE:
            continue
        half = numpy_helper.from_array(array.astype(np.float16), weight.name + ".half")
        cast = helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT)
        weight.CopyFrom(half)
        model.graph.node.insert(0, cast)
    return model


def _program(graph: nn.Module, inputs: Inputs) -> Any:
    return torch.export.export(graph, (), dict(inputs), dynamic_shapes=_dynamic(inputs))


def _to_torch(graph: nn.Module, inputs: Inputs, path: Path) -> Run:
    path = path.with_suffix(".pt2")
    torch.export.save(_program(graph, inputs), path)
    loaded = torch.export.load(path).module()
    return lambda given: loaded(**given)


def _to_aotinductor(graph: nn.Module, inputs: Inputs, path: Path) -> Run:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    package = aoti_compile_and_package(_program(graph, inputs), package_path=str(path.with_suffix(".pt2")))
    loaded = aoti_load_package(package)
    return lambda given: loaded(**given)


def _dynamic(inputs: Inputs) -> dict[str, dict[int, Any]]:
    """Returns which axes of each input may have any size: batch and length."""
    free = torch.export.Dim.DYNAMIC
    axes = {"noise": (1, 3), "x": (0, 2), "label": (0,), "coefficients": (0,), "mel": (0, 2), "rows": (0,)}
    return {name: {axis: free for axis in axes[name]} for name in inputs}


def _error(graph: nn.Module, run: Run, inputs: Inputs) -> float:
    expected = graph(**inputs)
    return float((run(inputs) - expected).abs().max() / expected.abs().max())


def _description(
    model: AudioDiffusion, sums: Plan, examples: _Examples, errors: dict[str, float]
) -> dict[str, Any]:
    """Returns export.json: everything that a client needs beside the graphs."""
    door = examples.door
    features, frames = model.representation.shape(examples.hop())
    steps = [
        {
            "t": time, "label": label, "coefficients": [c_in, c_skip, c_out],
            "noise": sums.noise[row], "estimates": sums.estimates[row][:row],
        }
        for row, (time, (label, c_in, c_skip, c_out)) in enumerate(
            zip(sums.times, settings_at(model.denoiser, sums.times), strict=True)
        )
    ]  # fmt: skip
    return {
        "experiment": model.recipe.get("experiment"),
        "sample_rate": model.sample_rate,
        "channels": model.representation.channels,
        "features": features,
        "hop_length": examples.hop(),
        "frames_per_hop": frames - door.added,
        "frames_added": door.added,
        "mel": None if door.mel is None else door.mel.log_mel.definition(),
        "labels": {} if door.labels is None else door.labels.values,
        "inputs": {name: list(examples.inputs(name, 1, 2)) for name in ("sampler", "denoiser")},
        "noises": len(sums.draws),
        "guidance": model.steering.guidance.scale,
        "steps": steps,
        "signal": {"noise": sums.noise[-1], "estimates": sums.estimates[-1]},
        "error_of_range": errors,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks about its own inside off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
