"""Does an association that was admitted still stand, after the registry has changed: suspension, revocation, routes."""

from dicomward.identity.registry import Device, DeviceStatus, RegistrySnapshot
from dicomward.relay.admission import Admitted
from dicomward.relay.inputs import Caller, Listener
from dicomward.relay.replicas import is_served_by
from dicomward.vocab.reason import ReasonCode


def why_no_longer_allowed(registry: RegistrySnapshot, caller: Caller, admitted: Admitted) -> ReasonCode | None:
    """Return why the registry, as it is now, doesn't allow the association any more; None if it does."""
    principal = admitted.principal
    archive = registry.archive_by_name(principal.device)
    if archive is not None:
        titles: tuple[str, ...] = (*archive.calling_ae_titles, archive.ae_title)
    else:
        device = registry.device_by_name(principal.device)
        if device is None or device.status is DeviceStatus.REVOKED:
            return ReasonCode.DEVICE_REVOKED
        if not device.is_active:
            return ReasonCode.DEVICE_SUSPENDED
        reason = _why_not_as_it_called(device, caller, admitted)
        if reason is not None:
            return reason
        titles = device.ae_titles
    if principal.calling_ae_title not in titles:
        return ReasonCode.CALLING_AE_TITLE_NOT_BOUND
    route = registry.route(admitted.request.called_ae_title)
    if route is None or not is_served_by(registry, route, admitted.target.name):
        return ReasonCode.CALLED_AE_TITLE_UNKNOWN
    return None


def _why_not_as_it_called(device: Device, caller: Caller, admitted: Admitted) -> ReasonCode | None:
    """Judge what it was known by: its certificate, or its place in a legacy zone."""
    if caller.listener is Listener.LEGACY:
        return ReasonCode.NOT_IN_LEGACY_ZONE if device.legacy_zone != caller.listener_name else None
    record = device.certificate(admitted.principal.certificate_sha256)
    return ReasonCode.CERTIFICATE_REVOKED if record is None or record.status == "revoked" else None
