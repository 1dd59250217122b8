"""How a command ends on a mistake: one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from typing import NoReturn


def fail(message: str) -> NoReturn:
    """Prints one line and exits with code 2."""
    print("audiodiff: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
