"""The CA's directory: a root that may be elsewhere, issuing CAs of which one issues, and what others are to trust.

    ca.json              which issuing CA issues, which ones have retired, where each key is
    root.cert.pem        the root; its key, encrypted, is in root.key.pem or has been moved away
    issuing-1.cert.pem   an issuing CA, its key in issuing-1.key.pem (0600) or in a token
    trust.pem            the root and all issuing CAs: for `tls.client_ca` of gateways
    anchors.pem          what devices are to trust: the root, and the CA of the gateway's own certificate
    *.crl                one CRL for each CA, DER

`ca.json` is replaced last, so a crash leaves the old state or the new one.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from dicomward.io.ca.keys import key_pem, load_key, load_key_file, make_key
from dicomward.io.ca.local import LocalCaError, load_certificates, write_new_file
from dicomward.io.ca.sign import Authority, fingerprint_of, make_issuing, make_root, pem_of
from dicomward.io.ca.terms import CaError, CaKey
from dicomward.io.private_file import replace_file
from dicomward.io.system import calls

STATE_NAME: Final = "ca.json"
ROOT_CERTIFICATE: Final = "root.cert.pem"
ROOT_KEY: Final = "root.key.pem"
OFFLINE_ROOT: Final = "offline-root"
TRUST_NAME: Final = "trust.pem"
ANCHORS_NAME: Final = "anchors.pem"
ROOT_DAYS: Final = 7305
ISSUING_DAYS: Final = 1826
_FORMAT: Final = 1
_MADE_HERE: Final = "issuing-"

ACTIVE, RETIRED, COMPROMISED = "active", "retired", "compromised"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingCa:
    """One issuing CA. `key` is a file name or a PKCS#11 URI; `state`: active, retired or compromised; UTC times."""

    name: str
    key: str
    state: str
    since: str

    @property
    def is_adopted(self) -> bool:
        """Say if it was made elsewhere: those that are made here have a number."""
        return not self.name.startswith(_MADE_HERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaState:
    """What `ca.json` holds."""

    name: str
    issuing: tuple[IssuingCa, ...]

    @property
    def active(self) -> IssuingCa:
        """Return the one that issues. Raises CaError."""
        for each in self.issuing:
            if each.state == ACTIVE:
                return each
        raise CaError("no issuing CA is active; make one: dicomward ca rollover")


class CaDirectory:
    """An existing CA directory; the keys are opened only when something is signed."""

    def __init__(self, path: Path) -> None:
        """Read the state. Raises CaError."""
        self.path = path
        self.state = _read_state(path / STATE_NAME)

    @property
    def root(self) -> x509.Certificate:
        """Return the certificate of the root. Raises CaError."""
        return self._certificates(ROOT_CERTIFICATE)[0]

    def certificate_of(self, issuing: IssuingCa) -> x509.Certificate:
        """Return the certificate of an issuing CA. Raises CaError."""
        return self._certificates(f"{issuing.name}.cert.pem")[0]

    def anchors(self) -> tuple[x509.Certificate, ...]:
        """Return what devices are to trust, the root first. Raises CaError."""
        return self._certificates(ANCHORS_NAME)

    def open(self, issuing: IssuingCa | None = None) -> Authority:
        """Open the key of an issuing CA, by default the active one. Raises CaError."""
        issuing = issuing or self.state.active
        certificate = self.certificate_of(issuing)
        key = load_key(issuing.key, self.path)
        if key.public_key() != certificate.public_key():
            raise CaError(
                f"the key {issuing.key} is not the one of {issuing.name}.cert.pem in {self.path}; "
                "bring back the pair that belongs together"
            )
        return Authority(certificate, key)

    def open_root(self, passphrase: bytes, key_file: Path | None = None, *, key_uri: str = "") -> Authority:
        """Open the root's key, from wherever it has been moved to, or in a token. Raises CaError."""
        if key_uri:
            return self._root_with(load_key(key_uri, self.path), key_uri.partition("?")[0])
        path = key_file or next((each for each in self._root_key_places() if each.exists()), self.path / ROOT_KEY)
        if not path.exists():
            raise CaError(f"the root's key is not at {path}; bring it, and name it with --root-key FILE")
        return self._root_with(load_key_file(path, passphrase), str(path))

    def _root_with(self, key: CaKey, where: str) -> Authority:
        root = self.root
        if key.public_key() != root.public_key():
            raise CaError(f"{where} is not the key of {self.path / ROOT_CERTIFICATE}")
        return Authority(root, key)

    def roll_over(
        self,
        root: Authority,
        now: datetime,
        *,
        kind: str = "ecdsa",
        key_uri: str = "",
        days: int = ISSUING_DAYS,
        compromised: bool = False,
    ) -> "CaDirectory":
        """Let a new issuing CA issue from now on; the old one stays trusted, until its certificates are over.

        Raises CaError, OSError.
        """
        number = 1 + max((int(each.name.rpartition("-")[2]) for each in self._numbered()), default=0)
        made = _make_issuing_files(
            self.path, root, f"{self.state.name} issuing CA {number}", f"issuing-{number}", now, kind, key_uri, days
        )
        old_state = COMPROMISED if compromised else RETIRED
        issuing = tuple(
            replace(each, state=old_state, since=_moment(now)) if each.state == ACTIVE else each
            for each in self.state.issuing
        )
        return self._store(replace(self.state, issuing=(*issuing, made)))

    def adopt(self, name: str, certificate: bytes, key: bytes, now: datetime) -> "CaDirectory":
        """Take a CA that has retired: its certificates stay good, its CRL is signed here. Raises CaError, OSError."""
        if any(each.name == name for each in self.state.issuing):
            raise CaError(f"{self.path} has a CA {name!r} already")
        _write(self.path / f"{name}.key.pem", key, 0o600)
        _write(self.path / f"{name}.cert.pem", certificate, 0o644)
        adopted = IssuingCa(name=name, key=f"{name}.key.pem", state=RETIRED, since=_moment(now))
        return self._store(replace(self.state, issuing=(*self.state.issuing, adopted)))

    def _root_key_places(self) -> tuple[Path, ...]:
        return (self.path / ROOT_KEY, self.path / OFFLINE_ROOT / ROOT_KEY)

    def _numbered(self) -> Iterable[IssuingCa]:
        return (each for each in self.state.issuing if not each.is_adopted)

    def _store(self, state: CaState) -> "CaDirectory":
        certificates = [self.root, *(self.certificate_of(each) for each in state.issuing)]
        unique = {fingerprint_of(each): each for each in certificates}
        replace_file(self.path / TRUST_NAME, pem_of(*unique.values()).decode("ascii"))
        (self.path / TRUST_NAME).chmod(0o644)
        replace_file(self.path / STATE_NAME, _render(state))
        (self.path / STATE_NAME).chmod(0o644)
        return CaDirectory(self.path)

    def _certificates(self, name: str) -> tuple[x509.Certificate, ...]:
        try:
            return load_certificates(self.path / name)
        except LocalCaError as error:
            raise CaError(str(error)) from error


def make_ca_directory(
    path: Path,
    *,
    name: str,
    passphrase: bytes,
    now: datetime,
    kind: str = "ecdsa",
    key_uri: str = "",
    root_key: Path | None = None,
    root_uri: str = "",
    root_days: int = ROOT_DAYS,
    issuing_days: int = ISSUING_DAYS,
    more_anchors: Iterable[x509.Certificate] = (),
) -> CaDirectory:
    """Make a root and its first issuing CA in a new or empty directory. Raises CaError, OSError.

    `root_key`: where the root's encrypted key goes, if not into the directory; `key_uri`, `root_uri`: keys of the
    issuing CA and of the root that are in a PKCS#11 token.
    """
    if path.exists() and any(path.iterdir()):
        raise CaError(f"{path} is not empty, and nothing is overwritten; choose a new directory")
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _removed_on_failure(path):
        return _fill(
            path,
            name,
            passphrase,
            now,
            kind,
            key_uri,
            root_key or path / ROOT_KEY,
            root_uri,
            root_days,
            issuing_days,
            more_anchors,
        )


def _fill(
    path: Path,
    name: str,
    passphrase: bytes,
    now: datetime,
    kind: str,
    key_uri: str,
    root_key: Path,
    root_uri: str,
    root_days: int,
    issuing_days: int,
    more_anchors: Iterable[x509.Certificate],
) -> CaDirectory:
    key = load_key(root_uri, path) if root_uri else make_key(kind)
    certificate = make_root(f"{name} root CA", key, now, days=root_days)
    root = Authority(certificate, key)
    if not root_uri:
        root_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path / ROOT_CERTIFICATE, pem_of(certificate), 0o644)
    unique = {fingerprint_of(each): each for each in (certificate, *more_anchors)}
    _write(path / ANCHORS_NAME, pem_of(*unique.values()), 0o644)
    made = _make_issuing_files(path, root, f"{name} issuing CA 1", "issuing-1", now, kind, key_uri, issuing_days)
    state = CaState(name=name, issuing=(made,))
    _write(path / TRUST_NAME, pem_of(certificate, load_certificates(path / "issuing-1.cert.pem")[0]), 0o644)
    # Last but one: whatever fails before leaves no key of a root that is none.
    if not root_uri:
        _write(root_key, key_pem(key, passphrase), 0o600)
    _write(path / STATE_NAME, _render(state).encode(), 0o644)
    return CaDirectory(path)


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """Leave the directory as empty as it was."""
    try:
        yield
    except BaseException:
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise


def _make_issuing_files(
    path: Path, root: Authority, common_name: str, name: str, now: datetime, kind: str, key_uri: str, days: int
) -> IssuingCa:
    where = key_uri or f"{name}.key.pem"
    key: CaKey = load_key(key_uri, path) if key_uri else make_key(kind)
    certificate = make_issuing(root, common_name, key.public_key(), now, days=days)
    if not key_uri:
        # A rollover that broke off before ca.json has left them: nothing was issued with them.
        (path / where).unlink(missing_ok=True)
        (path / f"{name}.cert.pem").unlink(missing_ok=True)
        _write(path / where, key_pem(key, None), 0o600)
    else:
        (path / f"{name}.cert.pem").unlink(missing_ok=True)
    _write(path / f"{name}.cert.pem", pem_of(certificate), 0o644)
    return IssuingCa(name=name, key=where, state=ACTIVE, since=_moment(now))


def _write(path: Path, data: bytes, mode: int) -> None:
    write_new_file(path, data, mode)
    calls.give_to_owner_of(path, path.parent)


def _moment(now: datetime) -> str:
    return now.isoformat(timespec="seconds")


def _render(state: CaState) -> str:
    issuing = [asdict(each) for each in state.issuing]
    return json.dumps({"format": _FORMAT, "name": state.name, "issuing": issuing}, indent=2) + "\n"


def _read_state(path: Path) -> CaState:
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CaError(f"there is no CA in {path.parent}; make one: dicomward ca init {path.parent}") from error
    except OSError as error:
        raise CaError(f"{path} can't be read ({error.strerror}); run as the owner of the CA") from error
    except ValueError as error:
        raise CaError(f"{path} is damaged ({error}); bring it back from a backup") from error
    match document:
        case {"format": 1, "name": str(name), "issuing": [*entries]}:
            return CaState(name=name, issuing=tuple(_read_issuing(each, path) for each in entries))
    raise CaError(f"{path} is not of format {_FORMAT}; a newer Dicomward has written it, or it is damaged")


def _read_issuing(value: object, path: Path) -> IssuingCa:
    match value:
        case {"name": str(name), "key": str(key), "state": str(state), "since": str(since)} if state in (
            ACTIVE,
            RETIRED,
            COMPROMISED,
        ):
            return IssuingCa(name=name, key=key, state=state, since=since)
    raise CaError(f"{path} is damaged: {value!r} is no issuing CA; bring it back from a backup")
