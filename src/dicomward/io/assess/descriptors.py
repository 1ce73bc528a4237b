"""How many sockets this process may have: a socket that is not to be had must not make a port look unreachable."""

import resource
from typing import Final

# The store, the audit log, the servers that are counted, and connections beside the first ones.
_OTHERS: Final = 256


def hosts_that_fit(hosts: int, ports: int) -> int:
    """Raise the limit as far as it goes; return for how many hosts, of so many ports each, it lets us have sockets."""
    wanted = hosts * ports + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return hosts
    return max(1, min(hosts, (soft - _OTHERS) // max(1, ports)))
