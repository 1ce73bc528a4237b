"""The packings of a backup: plain tar, gzip, or zstd by the program of that name."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# More is hardly smaller, and takes several times as long.
_GZIP_LEVEL: Final = 6


class PackingError(Exception):
    """A file can't be packed or unpacked; the message says why and what to do."""


def ending_of(path: Path) -> str:
    """Return the ending that says how a file is packed. Raises PackingError."""
    for ending in ENDINGS:
        if path.name.endswith(ending) and path.name != ending:
            return ending
    raise PackingError(f"{path.name} ends in none of {', '.join(ENDINGS)}; the ending says how it is packed")


def _zstd() -> str:
    program = shutil.which("zstd")
    if program is None:
        raise PackingError("the program zstd is not installed; install it, or use .tar.gz")
    return program


@contextmanager
def compressed(output: IO[bytes], ending: str) -> Iterator[IO[bytes]]:
    """Give a stream whose bytes arrive packed in `output`. Raises PackingError, OSError."""
    if ending == ".tar":
        yield output
    elif ending == ".tar.zst":
        command = [_zstd(), "-q", "-c"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output) as process:  # noqa: S603  fixed words
            if process.stdin is None:  # INVARIANT: we have asked for a pipe
                raise PackingError("zstd can't be written to")
            try:
                yield process.stdin
            finally:
                process.stdin.close()
        if process.returncode:
            raise PackingError(f"zstd failed with {process.returncode}; is the disk full?")
    else:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=output) as stream:
            yield stream  # type: ignore[misc]  # a GzipFile writes bytes, as IO[bytes] does


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Give the bytes of a packed file; its first bytes say how it is packed. Raises PackingError, OSError."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == _GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream  # type: ignore[misc]  # the same
        elif magic == _ZSTD_MAGIC:
            # The program reads the descriptor, which is further than our buffer has been read.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            command = [_zstd(), "-q", "-d", "-c"]
            with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE) as process:  # noqa: S603  fixed words
                if process.stdout is None:  # INVARIANT: we have asked for a pipe
                    raise PackingError("zstd can't be read from")
                yield process.stdout
            if process.returncode:
                raise PackingError(f"{path} is damaged: zstd says so")
        else:
            yield file
