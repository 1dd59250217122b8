"""Imports point one way, wherever in a file they stand, and the command line starts without heavy packages."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import audiodiff

PACKAGE = Path(audiodiff.__file__).resolve().parent
MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}
BASE = {
    "",
    "types",
    "errors",
    "files",
    "compiled",
    "interval",
    "progress",
    "recipes_folder",
    "hardware",
    "model_folder",
}
MIDDLE = {"diffusion", "audio", "networks", "conditioning", "data", "text"}
UPPER = {"synthesis", "editing", "training", "evaluation", "anomaly", "interop", "release"}
# Part of the package -> what it may import besides itself; "audio.mel" allows that module alone.
ALLOWED: dict[str, set[str]] = {
    **{part: BASE for part in (*BASE, "progress")},
    **{part: BASE for part in MIDDLE},
    "conditioning": BASE | {"audio.mel"},
    "data": BASE | {"audio.io", "audio.loudness"},
    "instantiation": BASE,
    "fitting": BASE | MIDDLE,
    "weights": BASE,
    "model": BASE | MIDDLE | {"instantiation", "fitting", "weights"},
    **{part: BASE | MIDDLE | {"instantiation", "model", "progress"} for part in UPPER},
    # A metric is a function of two signals; training ranks its checkpoints by one.
    "training": BASE | MIDDLE | {"instantiation", "model", "weights", "progress", "evaluation.metrics"},
    "evaluation": BASE | MIDDLE | {"instantiation", "model", "weights", "progress", "synthesis"},
    "editing": BASE | MIDDLE | {"instantiation", "model", "synthesis"},
    "anomaly": BASE
    | MIDDLE
    | {"instantiation", "model", "progress", "evaluation", "editing.recording", "editing.whole"},
    "release": BASE
    | MIDDLE
    | {"instantiation", "model", "weights", "progress", "synthesis", "evaluation"}
    | {"training.record", "training.adapter"},
    "serving": BASE | MIDDLE | {"model", "synthesis"},
    "cli": BASE | MIDDLE | UPPER | {"instantiation", "model", "progress", "serving"},
}
# The mathematics and the layers know tensors and nothing else.
TENSORS_ONLY = {"diffusion", "networks", "conditioning"}
HEAVY = ("torch", "lhotse", "librosa", "matplotlib")


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at the top, in functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import in line {node.lineno}"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return found


def inside(module: str) -> str:
    """Name of a module within the package, "" for the package itself."""
    return module.removeprefix("audiodiff").removeprefix(".")


def may_import(importer: str, module: str) -> bool:
    part, name = inside(importer).split(".")[0], inside(module)
    allowed = ALLOWED[part]
    return name.split(".")[0] in {part, *allowed} or name in allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module: str) -> None:
    assert inside(module).split(".")[0] in ALLOWED, f"{module}: say in this test where it stands"
    ours = {name for name in imported(MODULES[module]) if name.split(".")[0] == "audiodiff"}
    wrong = sorted(name for name in ours if not may_import(module, name))
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


@pytest.mark.parametrize(
    ("importer", "module", "allowed"),
    [
        ("audiodiff.diffusion.times", "audiodiff.diffusion.schedules", True),
        ("audiodiff.diffusion.times", "audiodiff.audio.io", False),
        ("audiodiff.conditioning.mel", "audiodiff.audio.mel", True),
        ("audiodiff.conditioning.mel", "audiodiff.audio.io", False),
        ("audiodiff.data.segments", "audiodiff.audio.io", True),
        ("audiodiff.data.segments", "audiodiff.audio.mel", False),
        ("audiodiff.audio.mel", "audiodiff.files", True),
        ("audiodiff.files", "audiodiff.audio.mel", False),
        ("audiodiff.model", "audiodiff.text.front_end", True),
        ("audiodiff.text.front_end", "audiodiff.audio.io", False),
        ("audiodiff.conditioning.text", "audiodiff.text.front_end", False),
        ("audiodiff.model", "audiodiff.training.loop", False),
        ("audiodiff.evaluation.evaluate", "audiodiff.synthesis.samples", True),
        ("audiodiff.synthesis.samples", "audiodiff.evaluation.evaluate", False),
        ("audiodiff.training.loop", "audiodiff.synthesis.vocoder", False),
        ("audiodiff.training.loop", "audiodiff.cli.app", False),
        ("audiodiff.training.selection", "audiodiff.evaluation.metrics", True),
        ("audiodiff.training.selection", "audiodiff.evaluation.evaluate", False),
        ("audiodiff.cli.app", "audiodiff.training.loop", True),
    ],
)
def test_the_rule_is_the_one_that_the_architecture_states(importer: str, module: str, allowed: bool) -> None:
    assert may_import(importer, module) == allowed


@pytest.mark.parametrize("module", sorted(m for m in MODULES if inside(m).split(".")[0] in TENSORS_ONLY))
def test_mathematics_and_layers_import_no_package_but_torch_and_numpy(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert roots - set(sys.stdlib_module_names) <= {"audiodiff", "torch", "numpy"}


def test_every_public_name_exists() -> None:
    for name in audiodiff.__all__:
        assert getattr(audiodiff, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        audiodiff.nothing  # noqa: B018


def test_public_names_are_imported_from_where_they_are_defined() -> None:
    for name, home in audiodiff._HOMES.items():
        assert f"audiodiff.{home}" in MODULES
        assert getattr(importlib.import_module(f"audiodiff.{home}"), name) is getattr(audiodiff, name)


def test_the_command_line_starts_without_heavy_packages() -> None:
    code = f"import sys, audiodiff.cli.app; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
