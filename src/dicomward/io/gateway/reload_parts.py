"""What a reload loads besides the settings: the policy, the certificates, the registry."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime

from dicomward.audit.event import AuditEvent, PolicyChanged, RegistryChanged
from dicomward.identity.operators import Permission, is_for_two
from dicomward.identity.registry import RegistryError
from dicomward.io.gateway.gate import Gate, ListenerTls
from dicomward.io.gateway.policy_file import read_policy, remember_policy
from dicomward.io.gateway.reload import Loaded, ReloadError, needs_two
from dicomward.io.installation.certificate_check import check_certificate
from dicomward.io.tls import (
    CaDates,
    CertificateFiles,
    PeerCertificates,
    TlsConfigurationError,
    client_context,
    minimum_version_of,
    server_context,
)
from dicomward.policy.load import PolicyError
from dicomward.settings import Settings


class PolicyPart:
    """The rules: one snapshot is swapped for another."""

    name = "policy"

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def load(self, settings: Settings, *, unattended: bool) -> Loaded:
        """Load it and put it in force. Raises ReloadError."""
        before = self._gate.policy.revision
        try:
            policy = read_policy(settings.policy.file)
        except (OSError, PolicyError) as error:
            raise ReloadError(f"{error}. `dicomward policy check` tells more") from error
        if policy.revision == before:
            return Loaded(changed=False, facts=self.facts())
        if unattended and is_for_two(Permission.POLICY_CHANGE, settings.operators.second_person):
            raise needs_two(f"the policy is another one, revision {policy.revision}")
        self._gate.policy = policy

        def event(operator: str | None, action: str) -> AuditEvent:
            return PolicyChanged(
                operator=operator, action=action, policy_revision=policy.revision, detail=f"before it: {before}"
            )

        return Loaded(
            changed=True,
            facts={**self.facts(), "before": before},
            event=event,
            noted=lambda: remember_policy(policy, settings.gateway.state_directory),
        )

    def facts(self) -> Mapping[str, object]:
        """Return what is in force."""
        return {"revision": self._gate.policy.revision}


class RegistryPart:
    """Devices and archives: what they no longer allow is ended."""

    name = "registry"

    def __init__(self, gate: Gate, use: Callable[[], int]) -> None:
        """`use` reads the registry, puts it in force, and returns how many associations were ended for it."""
        self._gate = gate
        self._use = use

    def load(self, settings: Settings, *, unattended: bool) -> Loaded:
        """Load it and put it in force; each change of it had its operators. Raises ReloadError."""
        del unattended
        before = self._gate.registry
        try:
            aborted = self._use()
        except (OSError, RegistryError) as error:
            raise ReloadError(
                f"{settings.registry.snapshot}: {error}. Any `dicomward device` command that changes something writes "
                "it anew from the database"
            ) from error
        registry = self._gate.registry
        if registry == before:
            return Loaded(changed=False, facts=self.facts())

        def event(operator: str | None, action: str) -> AuditEvent:
            return RegistryChanged(operator=operator, action=action, count=aborted, registry_revision=registry.revision)

        return Loaded(changed=True, facts={**self.facts(), "before": before.revision, "aborted": aborted}, event=event)

    def facts(self) -> Mapping[str, object]:
        """Return what is in force."""
        return {"revision": self._gate.registry.revision}


class CertificatesPart:
    """Our certificates and the CAs that we believe: new connections get them; open ones keep what they have."""

    name = "certificates"

    def __init__(
        self,
        gate: Gate,
        settings: Settings,
        now: Callable[[], datetime],
        used: Callable[[Settings], None] = lambda _settings: None,
    ) -> None:
        """Note what the gateway has started with; `used` hears when others have come into force. Raises OSError."""
        self._gate = gate
        self._now = now
        self._used = used
        self._in_force = _digests(settings)
        self._ends: dict[str, str] = {}

    def load(self, settings: Settings, *, unattended: bool) -> Loaded:
        """Load them and put them in force; who may write them is for the system to say. Raises ReloadError."""
        del unattended
        minimum = minimum_version_of(settings.tls.minimum_version)
        files = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
        try:
            digests = _digests(settings)
            if digests == self._in_force:
                return Loaded(changed=False, facts=self.facts())
            server = server_context(files, settings.tls.client_ca, minimum)
            client = client_context(files, minimum)
            ends = {str(pair.certificate): check_certificate(pair, self._now()).isoformat() for pair in files}
        except (OSError, TlsConfigurationError) as error:
            raise ReloadError(str(error)) from error
        self._gate.use_tls(ListenerTls(server, PeerCertificates(CaDates(server))), client)
        self._in_force, self._ends = digests, ends
        self._used(settings)
        return Loaded(changed=True, facts=self.facts())

    def facts(self) -> Mapping[str, object]:
        """Return what is in force, as far as a reload has brought it."""
        return {"not_after": dict(self._ends)} if self._ends else {}


def _digests(settings: Settings) -> tuple[object, ...]:
    """Return what tells one set of certificates from another: the contents of all files. Raises OSError."""
    paths = [path for pair in settings.tls.certificates for path in (pair.certificate, pair.key)]
    contents = tuple(hashlib.sha256(path.read_bytes()).digest() for path in (*paths, settings.tls.client_ca))
    return (settings.tls.minimum_version, contents)
