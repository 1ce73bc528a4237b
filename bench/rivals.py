"""The rivals, configured as well as they can be for this work; each says its configuration for the report."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import BenchError, free_port, server
from bench.pki import Credentials, Pki

HAPROXY_NAME = "haproxy"
HAPROXY = "/usr/sbin/haproxy"
NGINX = "/usr/sbin/nginx"
STUNNEL = "/usr/bin/stunnel4"
NGINX_STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A way to an archive: the port to call, the process tree that stands between (None: nothing), and who we are."""

    name: str
    port: int
    pid: int | None
    credentials: Credentials | None
    configuration: str
    calling_ae_title: str = "BENCH"
    called_ae_title: str = "ARCHIVE"


def direct(port: int, *, name: str = "direct") -> Door:
    """Nothing between: plaintext to the archive itself."""
    return Door(name=name, port=port, pid=None, credentials=None, configuration="no proxy, plaintext")


@contextlib.contextmanager
def haproxy(directory: Path, pki: Pki, upstream_port: int, *, threads: int, name: str = HAPROXY_NAME) -> Iterator[Door]:
    """Run haproxy as an mTLS terminator in mode tcp."""
    _needed(HAPROXY, "haproxy")
    port = free_port()
    configuration = directory / f"haproxy-{port}.cfg"
    configuration.write_text(
        f"""global
  nbthread {threads}
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend devices
  bind 127.0.0.1:{port} ssl crt {pki.server_bundle} ca-file {pki.ca} verify required
  default_backend archive
backend archive
  server archive 127.0.0.1:{upstream_port}
"""
    )
    command = [HAPROXY, "-db", "-f", str(configuration)]
    with server("haproxy", command, port=port, directory=directory) as running:
        yield Door(
            name=name,
            port=port,
            pid=running.pid,
            credentials=pki.client,
            configuration=f"mode tcp, nbthread {threads}, ssl crt/ca-file, verify required, default buffers, no log",
        )


@contextlib.contextmanager
def nginx(directory: Path, pki: Pki, upstream_port: int) -> Iterator[Door]:
    """Run nginx stream as an mTLS terminator, one worker a core."""
    _needed(NGINX, "nginx")
    _needed(NGINX_STREAM_MODULE, "libnginx-mod-stream")
    port, workers = free_port(), os.cpu_count() or 1
    prefix = directory / f"nginx-{port}"
    prefix.mkdir()
    configuration = prefix / "nginx.conf"
    # As root nginx would change to an account that cannot read the run's private directory.
    account = "user root root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"""load_module {NGINX_STREAM_MODULE};
{account}
worker_processes {workers};
daemon off;
pid {prefix}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
stream {{
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {pki.server_certificate};
    ssl_certificate_key {pki.server_key};
    ssl_client_certificate {pki.ca};
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:bench:10m;
    proxy_buffer_size 64k;
    proxy_timeout 300s;
    proxy_pass 127.0.0.1:{upstream_port};
  }}
}}
"""
    )
    command = [NGINX, "-p", str(prefix), "-c", str(configuration)]
    with server("nginx", command, port=port, directory=directory) as running:
        yield Door(
            name="nginx",
            port=port,
            pid=running.pid,
            credentials=pki.client,
            configuration=f"stream, {workers} workers, ssl_verify_client on, TLSv1.2 TLSv1.3, proxy_buffer_size 64k,"
            " shared session cache",
        )


@contextlib.contextmanager
def stunnel(directory: Path, pki: Pki, upstream_port: int) -> Iterator[Door]:
    """Run stunnel as an mTLS terminator: a thread for each connection."""
    _needed(STUNNEL, "stunnel4")
    port = free_port()
    configuration = directory / f"stunnel-{port}.conf"
    configuration.write_text(
        f"""foreground = yes
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[devices]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{upstream_port}
cert = {pki.server_bundle}
CAfile = {pki.ca}
verifyChain = yes
"""
    )
    with server("stunnel", [STUNNEL, str(configuration)], port=port, directory=directory) as running:
        yield Door(
            name="stunnel",
            port=port,
            pid=running.pid,
            credentials=pki.client,
            configuration="verifyChain = yes, TCP_NODELAY on both sockets",
        )


def proxies(stack: contextlib.ExitStack, directory: Path, pki: Pki, upstream_port: int, *, threads: int) -> list[Door]:
    """Start haproxy and nginx in front of one archive.

    haproxy is the rival with as many threads as the gateway has processes. Where that is fewer than there are cores, a
    second one with a thread for each core stands beside it: our one process has threads too.
    """
    doors = [stack.enter_context(haproxy(directory, pki, upstream_port, threads=threads))]
    cores = os.cpu_count() or 1
    if threads < cores:
        name = f"{HAPROXY_NAME}, {cores} threads"
        doors.append(stack.enter_context(haproxy(directory, pki, upstream_port, threads=cores, name=name)))
    doors.append(stack.enter_context(nginx(directory, pki, upstream_port)))
    return doors


def _needed(path: str, package: str) -> None:
    if not Path(path).exists():
        raise BenchError(f"{path} is missing: install the package {package}")


def versions() -> Mapping[str, str]:
    """Return where each rival was found, for the report."""
    return {name: shutil.which(name) or "not installed" for name in ("haproxy", "nginx", "storescu", "Orthanc")}
