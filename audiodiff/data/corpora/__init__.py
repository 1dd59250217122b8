"""One module per corpus, each the only place that knows that corpus' folders, splits and transcripts.

Every module has `prepare(source, out, options)`, which writes the manifests and returns their report, and a
corpus with a public archive has `ARCHIVES`, what `audiodiff prepare --download` fetches (the first by
default). A new corpus is one new file here: `names()` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from audiodiff.errors import InputError


def names() -> tuple[str, ...]:
    """Returns the names of all corpora: the modules of this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> ModuleType:
    """Returns the module of a corpus.

    Raises:
        InputError: there is no such corpus.
    """
    if name not in names():
        raise InputError(f"unknown corpus {name!r}; expected one of: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
