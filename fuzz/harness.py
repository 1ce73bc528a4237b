"""Runs a fuzz target: with atheris (coverage-guided) where it is installed, else with plain random mutations.

A target is a function that takes bytes and raises only if a promise is broken. Both ways take libFuzzer's
`-runs=N`, `-max_total_time=SECONDS` and `-seed=N`, and files to try again. What breaks a promise is written to a file
named crash-*.
"""

import hashlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Target = Callable[[bytes], None]

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    import atheris
except ImportError:
    atheris = None


def instrumented() -> object:
    """Return the context in which the package under test is imported."""
    if atheris is None:
        return _Nothing()
    return atheris.instrument_imports(include=["dicomward"])


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def main(target: Target, seeds: Sequence[bytes], arguments: Sequence[str] | None = None) -> None:
    """Fuzz `target` from `seeds` as the command line says."""
    options = list(sys.argv[1:] if arguments is None else arguments)
    files = [Path(option) for option in options if not option.startswith("-") and Path(option).is_file()]
    if files:
        for file in files:
            target(file.read_bytes())
        return
    for seed in seeds:
        target(seed)
    if atheris is None:
        print("atheris is not installed, so nothing guides the mutations: pip install -e '.[fuzz]'", file=sys.stderr)
        _mutate(target, seeds, options)
        return
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], target)
        atheris.Fuzz()


def _option(options: Sequence[str], name: str, default: int) -> int:
    return next((int(option.split("=", 1)[1]) for option in options if option.startswith(f"-{name}=")), default)


def _mutate(target: Target, seeds: Sequence[bytes], options: Sequence[str]) -> None:
    runs = _option(options, "runs", -1)
    seconds = _option(options, "max_total_time", 0)
    source = random.Random(_option(options, "seed", 1))
    corpus = list(seeds) or [b""]
    started = time.monotonic()
    done = 0
    while done != runs and not (seconds and time.monotonic() - started > seconds):
        data = mutated(source.choice(corpus), corpus, source)
        try:
            target(data)
        except BaseException:
            name = Path(f"crash-{hashlib.sha256(data).hexdigest()[:16]}")
            name.write_bytes(data)
            print(f"broken promise after {done} runs; the input is in {name}", file=sys.stderr)
            raise
        done += 1
    print(f"done {done} runs in {time.monotonic() - started:.0f} s", file=sys.stderr)


def mutated(data: bytes, corpus: Sequence[bytes], source: random.Random) -> bytes:
    """Return `data` with one to eight changes."""
    out = bytearray(data)
    for _ in range(source.randint(1, 8)):
        at = source.randint(0, len(out))
        match source.randrange(6):
            case 0 if at < len(out):
                out[at] = source.randrange(256)
            case 1 if at < len(out):
                out[at] ^= 1 << source.randrange(8)
            case 2:
                del out[at : at + source.randint(1, 32)]
            case 3:
                out[at:at] = source.randbytes(source.randint(1, 8))
            case 4:
                other = source.choice(corpus)
                begin = source.randint(0, len(other))
                out[at:at] = other[begin : begin + source.randint(1, 64)]
            case _:
                out[at : at + 4] = source.choice((b"\xff" * 4, bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff"))
    return bytes(out)
