"""Plain loops over arrays, compiled: for what neither torch nor numpy does without a loop over every cell.

numba comes with librosa. It takes half a second to import, so that it is imported when something is called first; what
was compiled is kept on disk, beside the source or in the user's cache folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of numpy arrays and numbers as machine code, made at its first call for each kind of array.

    Args:
        function: of a module, which calls nothing but numpy; it runs without Python's lock.
    """
    from numba import njit

    machine_code: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return machine_code
