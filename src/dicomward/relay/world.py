"""The ports through which a relay sees what it shares with others: snapshots, limits, correlations, our own state."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from dicomward.dicom.limits import Limits
from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.limits.budgets import Charge, Holder, Outcome
from dicomward.policy.bypass import BypassTable
from dicomward.policy.model import Policy
from dicomward.relay.canaries import Canaries
from dicomward.relay.correlations import Correlations
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode


class SharedLimits(Protocol):
    """`limits.LimitBook` and the certificate back-off, behind a lock. `now` is monotonic seconds."""

    def admit_association(
        self,
        *,
        device: str,
        role: str,
        network: str,
        archive: str,
        floor: bool,
        now: float,
        lifted: bool = False,
        own_only: bool = False,
    ) -> ReasonCode | None:
        """Count an association in, or say which limit it would break.

        `lifted`: it is counted anyway; with `own_only` not at an archive that has no place for it.
        """

    def release_association(self, *, device: str, network: str, archive: str, floor: bool) -> None:
        """Count an association out."""

    def take_operation(
        self, *, device: str, role: str, network: str, operation: Operation, sop_class_uid: str, now: float
    ) -> ReasonCode | None:
        """Count an operation, or say which rate it would break."""

    def matches_allowed(self, role: str, floor: bool, device: str = "") -> int:
        """Most matches that one query may return."""

    def take_bytes(self, *, device: str, network: str, count: int, now: float, floor: bool = False) -> float:
        """Count bytes; return the seconds for which reading must pause."""

    def note_certificate_failure(self, sha256: str, now: float) -> float:
        """Count a failure of a caller that had proved its key; return the seconds of back-off that begin."""

    def certificate_back_off(self, sha256: str, now: float) -> float:
        """Seconds for which the certificate is narrowed to the clinical floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """What a relay needs of the settings; times in seconds."""

    limits: Limits
    expiry_grace: timedelta
    upstream_seconds: float
    answer_seconds: float
    release_seconds: float
    idle_seconds: float
    stalled_seconds: float
    identify_patients: bool = False
    person_seconds: float = 5.0
    canaries: Canaries = field(default_factory=Canaries)
    # An edge agent's: who is a destination, the gateway behind it knows and says.
    judges_destinations: bool = True
    # In the data sets of requests; 0: nobody looks.
    most_nested_sequences: int = 0


class SharedBudgets(Protocol):
    """`limits.BudgetBook` with its file, behind a lock. What was charged is kept once KeepCharges has been done."""

    def patient(self, archive: str, patient_id: bytes) -> int:
        """Return what stands for a patient of an archive."""

    def study(self, archive: str, study: bytes) -> int:
        """Return what stands for a study of an archive."""

    def check(self, holders: Sequence[Holder], charge: Charge) -> ReasonCode | None:
        """Say why a charge would be refused; count nothing."""

    def charge(self, holders: Sequence[Holder], charge: Charge, *, forced: bool = False) -> Outcome:
        """Count for every holder, or refuse and count for none; `forced` never refuses."""

    def lease(self, holders: Sequence[Holder], needed: int) -> Outcome:
        """Count bytes ahead, at least `needed`; never refuses."""

    def refund(self, holders: Sequence[Holder], count: int, minute: int) -> None:
        """Give back leased bytes."""


class MovedDevices(Protocol):
    """Which devices of legacy zones have been seen with TLS."""

    def has_moved(self, device: Device) -> bool:
        """Say if the device was seen with a certificate that it still has."""

    def note(self, device: str, certificate_sha256: str) -> None:
        """Remember that the device was seen with the certificate."""


class World(Protocol):
    """What is true now. Each property gives an immutable snapshot, or a port."""

    @property
    def settings(self) -> RelaySettings:
        """Settings."""

    @property
    def registry(self) -> RegistrySnapshot:
        """The registry at its present revision."""

    @property
    def policy(self) -> Policy:
        """The policy at its present revision."""

    @property
    def limits(self) -> SharedLimits:
        """Limits shared by all associations."""

    @property
    def budgets(self) -> SharedBudgets:
        """Budgets of all devices."""

    @property
    def correlations(self) -> Correlations:
        """Pending moves and commitments."""

    @property
    def bypasses(self) -> BypassTable:
        """The emergency bypasses that are open now."""

    @property
    def moved(self) -> MovedDevices:
        """Who has moved over from plaintext."""

    def is_down(self, archive: str) -> bool:
        """Say if an archive is known not to answer, so that a replica stands in for it."""

    def legacy_zone(self, name: str) -> LegacyZone | None:
        """Return the legacy zone of that name."""

    def verifies_identity(self, identity_type: int) -> bool:
        """Say if there is a verifier for this type of user identity (58H)."""

    def floor_reason(self, site: str = "") -> ReasonCode | None:
        """Why only the clinical floor is left to everybody, or to this site, now; None if nothing is narrowed."""
