"""The one error that is the user's to mend."""

from __future__ import annotations


class InputError(ValueError):
    """A mistake in what the user gave: file, label, option, checkpoint.

    The message says what, got, expected and how to mend it; the command line prints it as one line and
    exits with code 2. Everything else that escapes is a bug and keeps its traceback.
    """
