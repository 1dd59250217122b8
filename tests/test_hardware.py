"""Devices: those that are there are taken, others refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiodiff.errors import InputError
from audiodiff.hardware import check_device
from audiodiff.model import load
from tests.tiny import save_random_model


def test_the_processor_can_always_be_used() -> None:
    check_device("cpu")
    check_device(torch.device("cpu"))


@pytest.mark.parametrize("device", ["gpu", "cpu0", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_with_the_reason(device: str) -> None:
    with pytest.raises(InputError, match=rf"^device {device}: cannot be used here \(.+\); cpu always can$"):
        check_device(device)


def test_a_model_is_not_loaded_onto_it(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "experiment=mini", "size=tiny")
    with pytest.raises(InputError, match="device cuda:99"):
        load(folder, "cuda:99")
