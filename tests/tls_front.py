"""TLS before a server that speaks plain HTTP, as a hospital's reverse proxy does it. Knows no HTTP.

Debian's Orthanc 1.10.1 dies at the first connection under HTTPS: its web server asks OpenSSL 3 for a function that is
not there any more.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOOPBACK = "127.0.0.1"


@contextmanager
def tls_front(behind: int, context: ssl.SSLContext, *, port: int = 0) -> Iterator[int]:
    """Listens, on the port that is given back, and hands every connection on to the port `behind`."""
    with socket.create_server((LOOPBACK, port)) as listener:
        ended = threading.Event()
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                if ended.is_set():
                    connection.close()
                    return
                threads.append(threading.Thread(target=_serve, args=(connection, behind, context, ended), daemon=True))
                threads[-1].start()

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[0].start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            with socket.create_connection(listener.getsockname()):
                pass
            for thread in list(threads):
                thread.join(10)


def _serve(connection: socket.socket, behind: int, context: ssl.SSLContext, ended: threading.Event) -> None:
    with connection, suppress(OSError):
        connection.settimeout(30)
        with (
            context.wrap_socket(connection, server_side=True) as client,
            socket.create_connection((LOOPBACK, behind)) as server,
        ):
            # One thread for both ways: a connection under TLS is not to be read and written at once.
            while not ended.is_set():
                ready = [client] if client.pending() else select.select([client, server], [], [], 0.05)[0]
                for one in ready:
                    piece = one.recv(1 << 16)
                    if not piece:
                        return
                    (server if one is client else client).sendall(piece)
