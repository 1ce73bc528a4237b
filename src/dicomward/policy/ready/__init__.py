"""The ready policies: one TOML file for each usual role, and all of them as the policy that `dicomward init` writes."""

from typing import Final

from dicomward.vocab.principal import Role

# Who sends images comes first, who reads them after: an administrator scrolls from harmless to powerful.
_ORDER: Final = (
    Role.MODALITY,
    Role.UPLOADER,
    Role.WORKSTATION,
    Role.TELERADIOLOGY,
    Role.RESEARCH,
    Role.ARCHIVE,
)


def ready_policy_text(role: Role) -> str:
    """Return the TOML of one role's ready policy."""
    return _read(f"{role}.toml")


def default_policy_text() -> str:
    """Return the TOML of all ready policies, with a head that says how to read it."""
    return "\n".join((_read("head.toml"), *(ready_policy_text(role) for role in _ORDER)))


def _read(name: str) -> str:
    from importlib.resources import files

    return files(__name__).joinpath(name).read_text(encoding="utf-8")
