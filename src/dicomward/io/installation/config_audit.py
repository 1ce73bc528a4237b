"""What can be checked of `[audit]` beyond its directory: files of syslog receivers, where heads go, the lockdown."""

from collections.abc import Iterator

from dicomward.identity.lockdown import LockdownError
from dicomward.io.audit.syslog import syslog_context
from dicomward.io.protection.lockdown import read_lockdown
from dicomward.io.tls import TlsConfigurationError
from dicomward.settings import Settings


def find_receiver_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where and what keeps the gateway from starting."""
    for destination in settings.audit.syslog:
        try:
            syslog_context(destination)
        except TlsConfigurationError as error:
            yield "[audit] syslog", str(error)


def find_outlet_warnings(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield where, what, and what to do, of what weakens the audit or narrows the gateway."""
    heads = settings.audit.heads_file
    if heads is not None and heads.is_relative_to(settings.audit.directory):
        yield str(heads), "the heads stay beside the log, where whoever rewrites it finds them", "name another machine"
    for destination in settings.audit.syslog:
        if destination.certificate is None:
            hint = "give it certificate and key"
            yield "[audit] syslog", f"{destination.name} can't know that it is this gateway who calls", hint
    if not settings.gateway.state_directory.is_dir():
        return  # others say so
    try:
        locked = read_lockdown(settings.gateway.state_directory).sites
    except LockdownError as error:
        yield "lockdown", str(error), ""
    else:
        for site, each in sorted(locked.items()):
            hint = f"dicomward lockdown --site {site} --lift"
            yield "lockdown", f"only the clinical floor is left to site {site} since {each.since}", hint
