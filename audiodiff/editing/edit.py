"""One edit of one recording with one model: in memory, or from file to file in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from audiodiff.editing.picture import draw_edit
from audiodiff.editing.recording import (
    InMemory,
    OnDisk,
    Target,
    Written,
    encoding_of,
    patched,
    write_patched,
)
from audiodiff.editing.restore import Recovery, Restorer
from audiodiff.editing.tasks import Task
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.progress import progress_bar


def edit_waveform(
    model: AudioDiffusion,
    waveform: Tensor,
    sample_rate: int,
    task: Task,
    recovery: Recovery = Recovery(),  # noqa: B008 a frozen value
) -> Tensor:
    """Returns the edited waveform [C, T]; what the task does not touch is as it was.

    Args:
        model: unconditional, or told labels.
        waveform: [C, T].
        sample_rate: hertz.
        task: what is asked for.
        recovery: how it is sampled.

    Raises:
        InputError: a waveform without samples or not finite, or what the task refuses.
        FloatingPointError: the model gave numbers that are not finite.
    """
    if waveform.dim() != 2 or waveform.numel() == 0:
        raise InputError(f"waveform: got shape {tuple(waveform.shape)}, expected [C, T] with samples")
    if not bool(waveform.isfinite().all()):
        raise InputError("waveform: holds numbers that are not finite")
    plan = task.plan(InMemory(waveform.detach().cpu(), sample_rate), Restorer(model, recovery))
    return patched(plan.recording, plan.patches(), plan.span)


@dataclass(frozen=True)
class Edited:
    """What was done to a file.

    Attributes:
        written: samples that are new.
        remarks: lines for the user.
        picture: before and after.
    """

    written: Written
    remarks: tuple[str, ...]
    picture: Path


def edit_file(
    model: AudioDiffusion,
    path: Path,
    out: Path,
    task: Task,
    recovery: Recovery = Recovery(),  # noqa: B008 a frozen value
) -> Edited:
    """Edits a file into another one, with a picture of before and after beside it, in bounded memory.

    Args:
        model: unconditional, or told labels.
        path: of the recording.
        out: of the result, in the recording's encoding; the picture has the same name and the suffix .png.
        task: what is asked for.
        recovery: how it is sampled.

    Raises:
        InputError: no audio, an output that cannot hold the samples as they are or is the input, or what the task
            refuses; nothing is written then.
        FloatingPointError: the model gave numbers that are not finite.
    """
    recording = OnDisk(path)
    if out.exists() and out.samefile(path):
        raise InputError(f"{out}: is the input; give the result another name")
    plan = task.plan(recording, Restorer(model, recovery))
    encoding = encoding_of(recording, out, plan.floating)
    with progress_bar() as bar:
        running = bar.add_task("edit", total=None)
        patches = plan.patches(lambda done, total: bar.update(running, completed=done, total=total))
        written = write_patched(
            Target(recording, plan.recording.sample_rate, plan.span, encoding), patches, out
        )
    picture = out.with_suffix(".png")
    draw_edit(recording, OnDisk(out), plan.span, plan.marks, picture)
    remarks = plan.remarks
    if written.clipped:
        remarks += (f"{written.clipped} new sample(s) beyond full scale were limited to it",)
    return Edited(written, remarks, picture)
