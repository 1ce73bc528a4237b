"""The one-time codes that an agent is given: in edge.toml, in a file, or on its command line. They are never logged."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dicomward.enrolment.code import URI_SCHEME, Code, CodeError, parse_code
from dicomward.io.system import calls
from dicomward.settings.edge import EdgeDevice, EdgeSettings
from dicomward.vocab.nearest import nearest_name

_log = logging.getLogger(__name__)

_USED_NAME: Final = "codes.used"
_MOST_BYTES: Final = 4096


class WrongCodeError(Exception):
    """A code can't be read, or nobody knows whose it is; the message says so without the code."""


def codes_given(settings: EdgeSettings, typed: Sequence[str]) -> dict[str, Code]:
    """Return the codes of edge.toml and of the command line (NAME=CODE), by device. Raises WrongCodeError."""
    own = {device.name: device for device in settings.devices if device.own is not None}
    codes = {
        name: _read(device.own.code, f"{settings.path.name}: the code of {name}")
        for name, device in own.items()
        if device.own is not None and device.own.code
    }
    given: set[str] = set()
    for text in typed:
        name, code = _split(text, own, settings)
        if name in given:
            raise WrongCodeError(f"--code: there are two for {name}; give one")
        given.add(name)
        codes[name] = _read(code, f"--code for {name}")
    return codes


def _split(text: str, own: dict[str, EdgeDevice], settings: EdgeSettings) -> tuple[str, str]:
    name, equals, code = text.partition("=")
    if not equals or name.strip().lower().startswith(f"{URI_SCHEME}:"):
        if len(own) != 1:
            raise WrongCodeError(f"--code: say whose code it is, as NAME=CODE; {_names(own)}")
        return next(iter(own)), text
    name = name.strip()
    if name in own:
        return name, code
    if any(device.name == name for device in settings.devices):
        raise WrongCodeError(
            f"--code: the credential of {name} comes from files that {settings.path.name} names; "
            "write [enrolment], and leave its certificate and key out"
        )
    close = nearest_name(name, own)
    raise WrongCodeError(
        f"--code: no device is called {name!r}; {f'did you mean {close!r}?' if close else _names(own)}"
    )


def _names(own: dict[str, EdgeDevice]) -> str:
    return f"there are {', '.join(own)}" if own else "no device gets its credential by itself: write [enrolment]"


def _read(text: str, what: str) -> Code:
    try:
        return parse_code(text)
    except CodeError as error:
        raise WrongCodeError(f"{what}: {error}") from error


class CodeBook:
    """The code of one device: whichever was not used yet. Used ones are remembered by their SHA-256."""

    def __init__(self, device: str, state: Path, given: Code | None, file: Path | None) -> None:
        self._device = device
        self._path = state / _USED_NAME
        self._given, self._file = given, file
        self._told = ""
        self._refused: set[str] = set()

    def current(self) -> Code | None:
        """Return a code that may be used, None if there is none."""
        for code in (self._given, self._from_file()):
            if code is not None and _sha256(code) not in {*self._used(), *self._refused}:
                return code
        return None

    @property
    def may_come(self) -> bool:
        """Say if a code can still come while the agent runs."""
        return self._file is not None

    def refuse(self, code: Code) -> None:
        """Don't use it again before the agent starts anew."""
        self._refused.add(_sha256(code))

    def spend(self, code: Code) -> None:
        """Never use it again, and remove its file. Raises OSError if that can't be remembered."""
        self.refuse(code)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text("\n".join(sorted({*self._used(), _sha256(code)})) + "\n", "ascii")
        calls.replace(new, self._path)
        if self._file is not None and self._from_file() == code:
            try:
                self._file.unlink()
            except OSError as error:
                _log.warning("%s: the used code can't be removed (%s); remove %s", self._device, error, self._file)

    def _used(self) -> list[str]:
        try:
            return self._path.read_text("ascii").split()
        except FileNotFoundError:
            return []

    def _from_file(self) -> Code | None:
        if self._file is None:
            return None
        problem = ""
        try:
            with self._file.open("rb") as file:
                return parse_code(file.read(_MOST_BYTES).decode("utf-8-sig"))
        except FileNotFoundError:
            # It was used, or nobody has put one there yet.
            pass
        except (OSError, UnicodeDecodeError, CodeError) as error:
            problem = str(error)
        if problem and problem != self._told:
            _log.error("%s: the code in %s can't be used: %s", self._device, self._file, problem)
        self._told = problem
        return None


def _sha256(code: Code) -> str:
    return hashlib.sha256(code.text.encode("ascii")).hexdigest()
