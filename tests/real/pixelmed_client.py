"""PixelMed as a client: the SCU classes of its Java library, by PixelmedClient.java beside this file."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from tests.real.clients import Outcome, Route, _Unsupported, received_in
from tests.real.pixelmed import class_path, java
from tests.real.processes import run
from tests.real.samples import Sample

_SOURCE: Final = Path(__file__).with_name("PixelmedClient.java")
_PORT: Final = re.compile(r"localhost:\d+")
_KINDS: Final = ("error", "status", "match")


class PixelmedClient(_Unsupported):
    """Through the tunnel: its own TLS offers one cipher suite, TLS_RSA_WITH_AES_128_CBC_SHA, which RFC 9325 forbids."""

    name = "pixelmed"
    services = frozenset({"echo", "store", "find", "worklist", "get", "move"})

    def echo(self, route: Route) -> Outcome:
        return self._run("echo", route)

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        return self._run("store", route, *(sample.path for sample in samples))

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        return self._run("find", route, *_pairs(keys))

    def worklist(self, route: Route) -> Outcome:
        return self._run("worklist", route, "PatientName=", "PatientID=", "AccessionNumber=")

    def get(self, route: Route, study: str) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            outcome = self._run("get", route, folder, *_of_study(study))
            return replace(outcome, received=received_in(Path(folder)))

    def move(self, route: Route, study: str, destination: str) -> Outcome:
        return self._run("move", route, destination, *_of_study(study))

    def _run(self, operation: str, route: Route, *arguments: str | Path) -> Outcome:
        with route.plain() as port:
            peer = (str(port), route.called_ae_title, route.calling_ae_title)
            lines = run(java("PixelmedClient", operation, *peer, *arguments, classes=[_compiled()])).stdout.splitlines()
        # The port is another one each time.
        said = [(what, _PORT.sub("", detail)) for what, _, detail in (line.partition(" ") for line in lines)]
        errors, statuses, matches = ([text for what, text in said if what == kind] for kind in _KINDS)
        if not errors and not statuses:
            raise AssertionError(f"PixelMed said nothing: {lines[-20:]}")
        return Outcome(succeeded=not errors, statuses=(*statuses, *errors), matches=tuple(sorted(matches)))


def _pairs(keys: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in keys.items()]


def _of_study(study: str) -> list[str]:
    return _pairs({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study})


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _compiled() -> Path:
    """Return the folder with the compiled client: once, for a start of it takes half as long then."""
    folder = Path(_folder().name)
    done = run(java("-m", "jdk.compiler/com.sun.tools.javac.Main", "-cp", class_path(), "-d", folder, _SOURCE))
    if done.returncode:
        raise AssertionError(done.stdout)
    return folder
