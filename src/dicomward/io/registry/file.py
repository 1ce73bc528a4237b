"""The compiled registry, as the gateway reads it."""

from pathlib import Path

from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot


def read_registry(path: Path) -> RegistrySnapshot:
    """Read and check it. Raises OSError, RegistryError."""
    try:
        return decode_snapshot(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RegistryError(f"{path} is not UTF-8 text") from error
