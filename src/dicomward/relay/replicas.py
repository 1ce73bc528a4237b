"""Which archive answers for a called AE title: the one that has it, or a declared replica while that one is down.

It is asked once for each association, before anything is sent; an association that is open never changes its archive.
"""

from collections.abc import Callable

from dicomward.identity.registry import Archive, Device, RegistrySnapshot


def serving(registry: RegistrySnapshot, target: Archive | Device, is_down: Callable[[str], bool]) -> Archive | Device:
    """Return the target itself, or its first replica that is up while it is down; the target where none is."""
    if isinstance(target, Device) or not is_down(target.name):
        return target
    for replica in registry.replicas_of(target.name):
        if not is_down(replica.name):
            return replica
    return target


def is_served_by(registry: RegistrySnapshot, target: Archive | Device, name: str) -> bool:
    """Say if the archive of that name may answer for the target: it is the target, or one of its replicas."""
    return name == target.name or any(replica.name == name for replica in registry.replicas_of(target.name))


def name_in_rules(target: Archive | Device) -> str:
    """Return the name that rules are asked about: what is true of an archive is true of what stands in for it."""
    return (target.replica_of if isinstance(target, Archive) else "") or target.name
