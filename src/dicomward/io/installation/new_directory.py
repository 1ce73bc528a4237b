"""A new gateway directory: built beside its place and moved there whole, so that a failure leaves nothing behind."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Final

from dicomward.identity.operators import Operator, OperatorRole, Operators, render_operators
from dicomward.identity.registry import Archive
from dicomward.io.ca.local import KeyKind, LocalCa, write_new_file
from dicomward.io.registry.change import apply_change
from dicomward.limits.settings import ArchiveLimits, DeviceLimits
from dicomward.settings import CONFIG_NAME, SECTIONS, ListenAddress, load_settings

POLICY_NAME: Final = "policy.toml"
OPERATORS_NAME: Final = "operators.toml"
_DIRECTORIES: Final = ("ca", "tls", "audit", "run")
_NAMES: Final = (CONFIG_NAME, POLICY_NAME, OPERATORS_NAME, "registry.db", "registry.json", *_DIRECTORIES)
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  these are left out of certificates
# Written for everybody to see; the others are in the file as comments with their defaults.
_SHOWN: Final = frozenset(
    {
        "listen",
        "archive_listen",
        "archive_listen_tls",
        "certificates",
        "client_ca",
        "url",
        "snapshot",
        "file",
        "directory",
    }
)


class DirectoryTakenError(Exception):
    """The directory holds something that we would have to overwrite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGateway:
    """What a new gateway directory is made from. `hosts` are more names for the gateway's certificates.

    `unix_user` becomes its first administrator; "" for no operators: whoever may write the directory is one.
    """

    archive: Archive
    listen: ListenAddress
    archive_listen: ListenAddress
    hosts: tuple[str, ...]
    policy: str
    operator: str
    unix_user: str = ""


def make_gateway_directory(directory: Path, new: NewGateway, now: datetime) -> None:
    """Make everything that a gateway needs.

    Raises DirectoryTakenError (nothing was touched), OSError, and what registering the archive raises.
    """
    directory = directory.absolute()
    taken = [name for name in _NAMES if (directory / name).exists() or (directory / name).is_symlink()]
    if taken:
        raise DirectoryTakenError(
            f"{directory} has {', '.join(taken)} already, and nothing is overwritten; choose another"
        )
    if directory.exists() and not directory.is_dir():
        raise DirectoryTakenError(f"{directory} is not a directory; choose another")
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _fill(building, new, now)
        _move(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(directory: Path, new: NewGateway, now: datetime) -> None:
    for name in _DIRECTORIES:
        (directory / name).mkdir(mode=0o700)
    values: dict[str, object] = {
        "gateway.listen": str(new.listen),
        "gateway.archive_listen": str(new.archive_listen),
        # An archive that is known by its certificate has to show it when it calls.
        "gateway.archive_listen_tls": new.archive.tls,
    }
    write_new_file(directory / CONFIG_NAME, render_config(values).encode(), 0o644)
    write_new_file(directory / POLICY_NAME, new.policy.encode(), 0o644)
    if new.unix_user:
        first = Operator(name=new.operator, role=OperatorRole.ADMINISTRATOR, unix_users=(new.unix_user,))
        write_new_file(directory / OPERATORS_NAME, render_operators(Operators((first,))).encode(), 0o600)
    # A name of its own: a peer that trusts two such CAs must be able to tell them apart.
    authority = LocalCa.make(f"Dicomward local CA {token_hex(4)}", now)
    authority.save(directory / "ca")
    hosts = dict.fromkeys((*_LOCAL_HOSTS, *(h for h in (new.listen.host, *new.hosts) if h not in _WILDCARDS)))
    for kind in KeyKind:
        issued = authority.issue_gateway(kind, hosts, now)
        write_new_file(directory / "tls" / f"gateway-{kind}.key.pem", issued.key_pem, 0o600)
        write_new_file(directory / "tls" / f"gateway-{kind}.cert.pem", issued.certificate_pem, 0o644)
    settings = load_settings(directory / CONFIG_NAME)
    apply_change(settings, lambda store: store.add_archive(new.archive, by=new.operator, at=now), create=True)


def _move(building: Path, directory: Path) -> None:
    """Give the finished directory its place; into one that exists, entry by entry, and all or none."""
    if not directory.exists():
        building.rename(directory)
        return
    moved: list[Path] = []
    with _undone_on_failure(building, moved):
        for entry in sorted(building.iterdir()):
            target = directory / entry.name
            entry.rename(target)
            moved.append(target)


@contextmanager
def _undone_on_failure(building: Path, moved: list[Path]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Also when the person interrupts us: a half-made directory must not stay.
        for target in moved:
            target.rename(building / target.name)
        raise


def render_config(values: Mapping[str, object]) -> str:
    """Return the text of dicomward.toml with every setting in it; `values` replace defaults (`gateway.listen`)."""
    lines = [
        "# Settings of this Dicomward gateway. docs/settings.md explains each of them.",
        "# A line that begins with # shows a default: remove the # to change it. Paths start from this directory.",
        "# After a change: dicomward check-config",
    ]
    for name, section in SECTIONS.items():
        lines += ["", f"[{name}]"]
        # Tables of a list come last in TOML: what follows them would belong to them.
        members = sorted(fields(section), key=lambda item: item.name == "certificates")
        for item in members:
            default, unit, reason = (item.metadata[key] for key in ("default", "unit", "reason"))
            value = values.get(f"{name}.{item.name}", default)
            lines.append(f"# {reason[:1].upper()}{reason[1:]}{f' ({unit})' if unit else ''}.")
            if item.name == "certificates" and isinstance(value, list):
                for entry in value:
                    lines += [f"[[{name}.{item.name}]]", *(f"{key} = {to_toml(each)}" for key, each in entry.items())]
            else:
                lines.append(f"{'' if item.name in _SHOWN else '# '}{item.name} = {to_toml(value)}")
    lines += [
        "",
        "# Rates, caps and sizes: docs/limits.md has all of them with their defaults.",
        "# [limits]",
        f"# queries_per_minute = {DeviceLimits().queries_per_minute}",
        "# [limits.archive]",
        f"# associations = {ArchiveLimits().associations}",
        "",
    ]
    return "\n".join(lines)


def to_toml(value: object) -> str:
    """Return a default as TOML writes it: texts without quotes or backslashes in them, numbers, booleans."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case Mapping():
            return "{" + ", ".join(f"{key} = {to_toml(each)}" for key, each in value.items()) + "}"
        case Iterable():
            return "[" + ", ".join(map(to_toml, value)) + "]"
        case _:
            return str(value)
