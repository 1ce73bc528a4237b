"""What the `policy` commands share: files, the registry, and counting."""

from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import UsageError
from dicomward.vocab.principal import Assurance, Role

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device, RegistrySnapshot
    from dicomward.policy.lint import RegisteredNames
    from dicomward.policy.model import Policy
    from dicomward.settings import Settings


def read_policy_file(path: Path) -> "Policy":
    """Read a policy that must be sound. Raises UsageError with every problem."""
    from dicomward.policy.load import PolicyError, load_policy

    try:
        return load_policy(read_file(path), source=path.name)
    except PolicyError as error:
        raise UsageError(f"{error}\nthe policy has errors: correct them first") from error


def read_file(path: Path) -> str:
    """Read a text. Raises UsageError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): check the file and its rights") from error


def count(number: int, what: str) -> str:
    """Return the number with its word."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def registry_of(settings: "Settings") -> "RegistrySnapshot":
    """Read the registry of a gateway directory. Raises UsageError."""
    from dicomward.identity.registry import RegistryError
    from dicomward.identity.registry_json import decode_snapshot

    try:
        return decode_snapshot(read_file(settings.registry.snapshot))
    except RegistryError as error:
        raise UsageError(str(error)) from error


def names_of(registry: "RegistrySnapshot") -> "RegisteredNames":
    """Return the names that rules may use."""
    from dicomward.policy.lint import RegisteredNames

    devices, archives = registry.devices, registry.archives
    titles = {title for device in devices for title in device.ae_titles}
    return RegisteredNames(
        devices={device.name for device in devices} | {archive.name for archive in archives},
        sites={device.site for device in devices} | {archive.site for archive in archives},
        targets={archive.name for archive in archives} | {d.name for d in devices if d.is_destination},
        ae_titles=titles | {title for archive in archives for title in archive.called_ae_titles},
    )


def facts_of(caller: "Device | Archive") -> tuple[tuple[str, ...], str, Assurance]:
    """Return the AE titles that it calls with, its role, and how well the gateway knows it when it calls."""
    from dicomward.identity.registry import Device

    if isinstance(caller, Device):
        return caller.ae_titles, caller.role, Assurance.TLS_DEVICE
    assurance = Assurance.NETWORK_PIN if caller.certificate_sha256 is None else Assurance.TLS_DEVICE
    return caller.calling_ae_titles or (caller.ae_title,), Role.ARCHIVE, assurance
