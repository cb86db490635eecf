"""Listening on this machine, and only on it."""

from __future__ import annotations

import logging
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn

from qpm_opt import InvalidInputError
from qpm_vision.run_folder import RunFolder
from qpm_vision.server.app import make_app

__all__ = ["PORT", "serve"]

HOST = "127.0.0.1"
PORT = 8642


def serve(run: RunFolder | str | Path, *, port: int = PORT, on_listening: Callable[[str], Any] | None = None) -> None:
    """Serve the page of a run until the process is told to end (Ctrl-C).

    Args:
        run: A run whose features are chosen.
        port: Where to listen on 127.0.0.1; 0: any free port.
        on_listening: Told the address of the page, with the token in it.

    Raises:
        InvalidInputError: The port is no port, or taken.
        RunFolderError: The run has no features yet.
    """
    folder = RunFolder.open(run)
    token = secrets.token_urlsafe(24)
    app = make_app(folder, token)
    with _listening(port) as listener:
        if on_listening is not None:
            on_listening(f"http://{HOST}:{listener.getsockname()[1]}/?token={token}")
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, ws="none", server_header=False)
        logging.getLogger("uvicorn.error").addFilter(_is_ours)
        uvicorn.Server(config).run(sockets=[listener])


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about this server, not about bytes that somebody sent and that are no request."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, h11.ProtocolError) and record.msg != "Invalid HTTP request received."


def _listening(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InvalidInputError(f"The 'port' parameter must be between 0 and 65535. Got {port}.")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two servers share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise InvalidInputError(
            f"The 'port' parameter must be one that is free. Got {port} ({error.strerror or error}); choose another, "
            "or 0 for any."
        ) from error
    return listener
