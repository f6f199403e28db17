"""A TCP relay between a partner and the coordinator, which can be cut: TLS goes through it unopened."""

import contextlib
import select
import socket
import threading
import time

_BUFFER = 1 << 16


class Relay:
    """Listens on the loopback and passes everything on, until it is cut.

    Args:
        target: port of the coordinator's gateway on this machine.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._cut_until = 0.0
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Nothing goes through for so long; what was open is broken."""
        self._cut_until = time.monotonic() + seconds
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @property
    def is_cut(self) -> bool:
        """Whether it is now."""
        return time.monotonic() < self._cut_until

    def close(self) -> None:
        """For good."""
        self.cut(1e9)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.is_cut:
                    near.close()
                    continue
                threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            pair = {near: far, far: near}
            self._open |= set(pair)
            try:
                while not self.is_cut:
                    ready, _, _ = select.select(list(pair), [], [], 1.0)
                    for one in ready:
                        content = one.recv(_BUFFER)
                        if not content:
                            return
                        pair[one].sendall(content)
            finally:
                self._open -= set(pair)
