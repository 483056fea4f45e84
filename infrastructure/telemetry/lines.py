"""Lines on their way to a file: those of one round of the event loop are written together."""

import asyncio
from typing import BinaryIO


class Lines:
    """Writes lines to `file` in their order: when the event loop comes round, or at once where none is running.

    A write lets the server's other threads run before the loop goes on: that takes longer than all else about a line.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[bytes] = []

    def msg(self, line: bytes) -> None:
        """`line` will be written."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._flush_soon()

    debug = info = warning = error = msg

    def flush(self) -> None:
        """All lines have been written."""
        waiting, self._waiting = self._waiting, []
        self._file.writelines(line + b"\n" for line in waiting)
        self._file.flush()

    def _flush_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()
