"""Everything that can be checked about a configuration without starting it: files, keys, dates, names that must meet.

Reads only. An ERROR keeps the gateway from starting or somebody from being served; a WARNING will, or weakens it.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from dicomward.identity.network import parse_network
from dicomward.identity.registry import Device, RegistryError, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.identity.zone import alarm_of
from dicomward.io.ca.local import LocalCaError, is_issued_by, load_certificates, verify_key_matches, verify_strength
from dicomward.io.gateway.archive_link import LOOPBACK_NETWORKS, is_loopback
from dicomward.io.installation.config_audit import find_outlet_warnings, find_receiver_problems
from dicomward.io.installation.config_ca import find_ca_warnings
from dicomward.io.installation.config_people import find_operator_problems, find_verifier_problems
from dicomward.io.protection.bypass_keeper import describe
from dicomward.io.protection.bypass_store import find_contradictions, read_bypasses
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from dicomward.policy import Effect, Policy, PolicyError, Rule, load_policy
from dicomward.settings import CertificatePair, Settings
from dicomward.vocab.nearest import nearest_name
from dicomward.vocab.principal import Role

# DCMTK takes no maximum length below it.
_LEAST_USUAL_PDU_BYTES: Final = 4096
# Enough time to renew on an ordinary working day, with a holiday in between.
EXPIRY_WARNING: Final = timedelta(days=30)


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what, and what to do."""

    severity: Severity
    location: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.location}: {self.message}" + (f"; {self.hint}" if self.hint else "")


def _error(location: object, message: str, hint: str) -> Finding:
    return Finding(Severity.ERROR, str(location), message, hint)


def _warning(location: object, message: str, hint: str) -> Finding:
    return Finding(Severity.WARNING, str(location), message, hint)


def check_configuration(settings: Settings, now: datetime) -> tuple[Finding, ...]:
    """Check everything; an empty result means that the gateway can start and serve everybody who is registered."""
    findings: list[Finding] = []
    policy = _check_policy(settings, findings)
    findings += _check_directories(settings)
    findings += _check_metrics(settings)
    findings += _check_authorities(settings, now)
    for number, pair in enumerate(settings.tls.certificates):
        findings += _check_pair(settings, f"tls.certificates[{number}]", pair, now)
    findings += _check_bypasses(settings)
    findings += [_error(where, problem, "") for where, problem in find_receiver_problems(settings)]
    findings += [_warning(*each) for each in (*find_outlet_warnings(settings), *find_ca_warnings(settings, now))]
    # Devices go on without operators and persons, so these never keep a gateway from starting.
    for where, problem in (*find_operator_problems(settings), *find_verifier_problems(settings)):
        findings.append(_warning(where, problem, ""))
    registry = _check_registry(settings, findings)
    if registry is not None:
        findings += _check_devices(registry, now)
        findings += _check_archives(settings, registry)
        findings += _check_zones(settings, registry, now)
        if policy is not None:
            findings += _check_names(settings, registry, policy)
    return tuple(findings)


# --- policy ----------------------------------------------------------------------------------------------------------


def _check_policy(settings: Settings, findings: list[Finding]) -> Policy | None:
    path = settings.policy.file
    try:
        policy = load_policy(path.read_text(encoding="utf-8-sig"), source=path.name)
    except OSError as error:
        findings.append(_error(path, f"the policy can't be read ({error.strerror})", "correct [policy] file"))
    except UnicodeDecodeError:
        findings.append(_error(path, "it is not UTF-8 text", "save it as UTF-8"))
    except PolicyError as error:
        findings += [_error(problem.location, problem.message, problem.hint) for problem in error.problems]
    else:
        findings += [_warning(problem.location, problem.message, problem.hint) for problem in policy.warnings]
        return policy
    return None


# --- directories -----------------------------------------------------------------------------------------------------


def _check_directories(settings: Settings) -> Iterator[Finding]:
    for key, path in (
        ("[audit] directory", settings.audit.directory),
        ("[gateway] state_directory", settings.gateway.state_directory),
    ):
        yield from _check_private_directory(key, path)
    second = settings.audit.second_sink
    if second is not None:
        if not _is_writable_place(second):
            yield _error(second, "the second sink can't be written", 'correct [audit] second_sink, or use "stderr"')
        elif second.is_relative_to(settings.audit.directory):
            yield _warning(
                second, "the second sink is inside the audit directory, and fails with it", "put it on another disk"
            )


def _check_private_directory(key: str, path: Path) -> Iterator[Finding]:
    if not path.exists():
        if not _is_writable_place(path):
            yield _error(path, "there is no such directory, and it can't be made", f"make it, or correct {key}")
        return
    if not path.is_dir():
        yield _error(path, "it is not a directory", f"correct {key}")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield _error(path, "it can't be written by this user", "give it to the user that the gateway runs as")
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield _warning(path, "other users may look into it", f"run: chmod 700 {path}")


def _check_metrics(settings: Settings) -> Iterator[Finding]:
    where = settings.metrics.listen
    if where is not None and not is_loopback(where.host):
        yield _warning(
            "[metrics] listen",
            f"whoever reaches {where} may read the metrics: it has no TLS and asks nobody who they are",
            "use 127.0.0.1, or a management network behind a firewall",
        )


def _is_writable_place(path: Path) -> bool:
    """Say if the file is writable, or could be made."""
    if path.exists():
        return path.is_file() and os.access(path, os.W_OK)
    parent = next(each for each in path.parents if each.exists())
    return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)


# --- emergency bypasses ---------------------------------------------------------------------------------------------


def _check_bypasses(settings: Settings) -> Iterator[Finding]:
    """Report what is open, what nobody has reviewed, and files that are not as the audit log has them."""
    stored = read_bypasses(settings.gateway.state_directory)
    problems = list(stored.problems)
    for bypass in stored.bypasses.values():
        if not bypass.is_reviewed:
            hint = f"run: dicomward bypass review {bypass.bypass_id} --note TEXT"
            if bypass.is_open:
                hint = f"run: dicomward bypass close {bypass.bypass_id}, as soon as it isn't needed"
            yield _warning(f"bypass {bypass.bypass_id}", describe(bypass), hint)
    try:
        problems += find_contradictions(settings.audit.directory, stored.bypasses)
    except FileNotFoundError:
        pass  # a gateway that has never run
    except OSError as error:
        problems.append(f"the audit log can't be compared with them: {error}")
    for problem in problems:
        yield _warning("bypass", problem, "find out who changed it (docs/emergency-bypass.md)")


# --- certificates ----------------------------------------------------------------------------------------------------


def _check_authorities(settings: Settings, now: datetime) -> Iterator[Finding]:
    path = settings.tls.client_ca
    try:
        authorities = load_certificates(path)
    except LocalCaError as error:
        yield _error("[tls] client_ca", str(error), "")
        return
    for authority in authorities:
        if not _may_sign(authority):
            yield _error(path, f"{_subject(authority)} is not a CA", "put CA certificates there, not those of devices")
        yield from _check_dates(
            f"{path}: {_subject(authority)}", authority, now, "make a new CA in time: devices need it"
        )
    key = path.parent / "ca.key.pem"
    if key.exists():
        yield from _check_private_file(key)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_pair(settings: Settings, key: str, pair: CertificatePair, now: datetime) -> Iterator[Finding]:
    try:
        chain = load_certificates(pair.certificate)
        verify_key_matches(chain[0], pair.key)
    except LocalCaError as error:
        yield _error(key, str(error), "")
        return
    try:
        verify_strength(chain[0])
    except LocalCaError as error:
        yield _error(pair.certificate, str(error), "")
    yield from _check_private_file(pair.key)
    yield from _check_dates(str(pair.certificate), chain[0], now, "run: dicomward renew-gateway, then dicomward reload")
    yield from _check_purposes(pair.certificate, chain[0])
    if len(chain) > 1 and not is_issued_by(chain[0], chain[1:2]):
        yield _error(
            pair.certificate, "its second certificate did not issue the first", "order the chain: own one first"
        )


def _check_purposes(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    extensions = certificate.extensions
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = None
    if purposes is not None and ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        yield _error(path, "it is not for servers (EKU serverAuth)", "issue one for serverAuth and clientAuth")
    elif purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        yield _warning(path, "it is not for clients (EKU clientAuth)", "archives and devices with TLS may refuse us")
    try:
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        yield _warning(path, "it names no host (SAN)", "devices that check the name of the gateway will refuse it")


def _check_private_file(path: Path) -> Iterator[Finding]:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield _error(path, "other users may read this private key", f"run: chmod 600 {path}")


def _check_dates(location: str, certificate: x509.Certificate, now: datetime, hint: str) -> Iterator[Finding]:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end:
        yield _error(location, f"it ended at {end:%Y-%m-%d %H:%M} UTC", hint)
    elif now < begin:
        yield _error(location, f"it begins at {begin:%Y-%m-%d %H:%M} UTC", "check the clock of this machine")
    elif end - now < EXPIRY_WARNING:
        yield _warning(location, f"it ends at {end:%Y-%m-%d %H:%M} UTC", hint)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"


# --- registry --------------------------------------------------------------------------------------------------------


def _check_registry(settings: Settings, findings: list[Finding]) -> RegistrySnapshot | None:
    """Return what the gateway would read."""
    path = settings.registry.snapshot
    repeat = "repeat the last command that changed the registry, as: dicomward device resume NAME"
    try:
        snapshot = decode_snapshot(path.read_text(encoding="utf-8"))
    except OSError as error:
        findings.append(_error(path, f"the registry snapshot can't be read ({error.strerror})", repeat))
        return None
    except (RegistryError, UnicodeDecodeError) as error:
        findings.append(_error(path, str(error), repeat))
        return None
    try:
        with RegistryStore.open(settings.registry.url, migrate=False) as store:
            stored, unaudited = store.read(), store.unaudited_changes()
    except (RegistryError, RegistryStoreError) as error:
        # The gateway starts and serves without the database; only commands need it.
        findings.append(_warning("[registry] url", str(error), "until then devices can't be added or revoked"))
        return snapshot
    if stored != snapshot:
        message = f"it is at revision {snapshot.revision}, the database at {stored.revision}"
        findings.append(_error(path, message, repeat))
    if unaudited:
        findings.append(
            _warning("[audit] directory", f"{len(unaudited)} registry changes are not in the audit log", repeat)
        )
    return snapshot


def _check_devices(registry: RegistrySnapshot, now: datetime) -> Iterator[Finding]:
    for device in registry.devices:
        if not device.is_active:
            continue
        location = f"device {device.name}"
        ends = [record.not_after for record in device.certificates if record.status == "active"]
        hint = f"run: dicomward device renew {device.name} --out DIR"
        if not ends and device.legacy_zone:
            continue
        if not ends:
            yield _warning(location, "no active certificate is bound, so it can't connect", hint)
        elif max(ends) <= now:
            yield _warning(location, f"its certificate ended at {max(ends):%Y-%m-%d}", hint)
        elif max(ends) - now < EXPIRY_WARNING:
            yield _warning(location, f"its certificate ends at {max(ends):%Y-%m-%d}", hint)


def _check_archives(settings: Settings, registry: RegistrySnapshot) -> Iterator[Finding]:
    if not registry.archives:
        yield _warning("registry", "no archive is registered, so nobody can be served", "run: dicomward archive add")
    is_open = not settings.gateway.archive_listen_tls and not is_loopback(settings.gateway.archive_listen.host)
    for archive in registry.archives:
        location = f"archive {archive.name}"
        if not (archive.tls or archive.dedicated_link or is_loopback(archive.endpoint.host)):
            hint = "register it with --tls --pin CERT, or with --dedicated-link"
            yield _error(location, "the gateway refuses plaintext to another machine", hint)
        elif (
            is_open
            and archive.calling_ae_titles
            and not archive.dedicated_link
            and not _only_loopback(archive.networks)
        ):
            hint = "set [gateway] archive_listen_tls = true, or register the archive with --dedicated-link"
            yield _error(location, "it would call the gateway in plaintext over a shared network", hint)
        if archive.tls and archive.calling_ae_titles and not settings.gateway.archive_listen_tls:
            hint = "set [gateway] archive_listen_tls = true"
            yield _error(location, "it is known by its certificate, but calls a listener without TLS", hint)


def _check_zones(settings: Settings, registry: RegistrySnapshot, now: datetime) -> Iterator[Finding]:
    """Legacy zones that end, devices that aren't in theirs, and devices that are observed."""
    zones = {each.zone.name: each.zone for each in settings.legacy_zones}
    local = now.astimezone()
    hint = "give its devices TLS (dicomward device list --plaintext), or set a later end_date"
    for zone in zones.values():
        location = f"legacy zone {zone.name}"
        if zone.is_over(local):
            message = f"it was over at the end of {zone.end_date}: only the clinical floor is left in it"
            yield _warning(location, message, hint)
        elif alarm_of(zone, local) is not None:
            yield _warning(location, f"it ends on {zone.end_date}, {zone.days_left(local)} days from now", hint)
    for device in registry.devices:
        if not device.is_active:
            continue
        location = f"device {device.name}"
        own = zones.get(device.legacy_zone)
        if device.legacy_zone and own is None:
            message = f"the settings have no legacy zone {device.legacy_zone!r}, so it can't call in plaintext"
            yield _warning(location, message, f"run: dicomward device legacy {device.name} --zone ZONE (or --off)")
        elif own is not None and not any(own.holds(network) for network in device.networks):
            message = f"none of its networks lies in those of the legacy zone {own.name!r}"
            yield _warning(location, message, "correct the networks of the zone")
        if device.is_observed(now):
            message = f"it is observed until {device.observe_until:%Y-%m-%d %H:%M} UTC, so nothing is refused to it"
            hint_observed = f"run: dicomward policy suggest --device {device.name}, then device enforce {device.name}"
            yield _warning(location, message, hint_observed)


def _only_loopback(networks: Iterable[str]) -> bool:
    loopback = {parse_network(network) for network in LOOPBACK_NETWORKS}
    return all(parse_network(network) in loopback or is_loopback(network.partition("/")[0]) for network in networks)


def _is_about(rule: Rule, device: Device) -> bool:
    return (
        (rule.devices is None or device.name in rule.devices)
        and (rule.roles is None or device.role in rule.roles)
        and (rule.sites is None or device.site in rule.sites)
    )


def _check_names(settings: Settings, registry: RegistrySnapshot, policy: Policy) -> Iterator[Finding]:
    """Names in rules, limits and budgets that nobody has, and devices without a rule: mostly slips of the pen."""
    allowing = [rule for rule in policy.rules if rule.effect is Effect.ALLOW]
    for device in registry.devices:
        if device.is_active and not any(_is_about(rule, device) for rule in allowing):
            message = f"no rule allows anything to it (role {device.role!r}, site {device.site!r})"
            yield _warning(f"device {device.name}", message, "write rules for it in the policy")
    devices = {device.name for device in registry.devices}
    archives = {archive.name for archive in registry.archives}
    named = devices | archives
    for rule in policy.rules:
        for name in sorted((rule.devices or frozenset()) - named):
            yield _warning(f"rule {rule.id}", f"no device {name!r} is registered", "correct the name, or register it")
        for name in sorted((rule.archives or frozenset()) - named):
            yield _warning(f"rule {rule.id}", f"no archive {name!r} is registered", "correct the name, or register it")
    stand_ins = {archive.name: archive.replica_of for archive in registry.archives if archive.replica_of}
    for rule in policy.rules:
        for name in sorted((rule.archives or frozenset()) & stand_ins.keys()):
            message = f"{name!r} is a replica, and has no rules of its own: those of {stand_ins[name]!r} count for it"
            yield _warning(f"rule {rule.id}", message, f"name {stand_ins[name]!r} instead")
    yield from _check_limits(settings, registry, policy, devices | archives)


def _check_limits(settings: Settings, registry: RegistrySnapshot, policy: Policy, named: Set[str]) -> Iterator[Finding]:
    """Names in limits and budgets that nobody has, and sizes that peers don't take."""
    for name in sorted(settings.limits.devices.keys() - named):
        yield _warning(f"limits.device.{name}", "no such device is registered", "correct the name")
    for name in sorted(settings.budgets.devices.keys() - named):
        yield _warning(f"budgets.device.{name}", "no such device or archive is registered", "correct the name")
    for name in sorted(settings.limits.archives.keys() - named):
        yield _warning(f"limits.archive.{name}", "no such target is registered", "correct the name")
    known_roles = {*(role.value for role in Role), *(device.role for device in registry.devices)}
    known_roles |= frozenset().union(*(rule.roles or () for rule in policy.rules))
    for section, roles in (("limits", settings.limits.roles), ("budgets", settings.budgets.roles)):
        for name in sorted(roles.keys() - known_roles):
            near = nearest_name(name, sorted(known_roles))
            hint = f"did you mean {near!r}?" if near else "correct the name"
            yield _warning(f"{section}.role.{name}", "no device and no rule has this role", hint)
    if settings.dicom_limits.max_pdu_bytes < _LEAST_USUAL_PDU_BYTES:
        message = f"PDUs of {settings.dicom_limits.max_pdu_bytes} bytes: some peers take no maximum below 4,096"
        yield _warning("limits.dicom.max_pdu_bytes", message, "write 16384 or more")
