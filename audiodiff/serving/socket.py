"""The socket that a server listens on, opened first, so that a free port is known and a taken one is said."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from audiodiff.errors import InputError


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Opens a listening socket and closes it in the end.

    Args:
        host: name or address.
        port: 0 for a free one.

    Raises:
        InputError: an unknown host, or a port that is taken or not allowed.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"--port: got {port}, expected 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        raise InputError(f"{host}:{port}: {error.strerror}; choose another --host or --port") from error
    with contextlib.closing(opened):
        yield opened
