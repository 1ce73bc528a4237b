"""`dicomward edge`: the agent beside a device that can speak only plaintext."""

import argparse
import signal
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the edge agent: plaintext DICOM towards its devices, mutual TLS towards the gateway. Prints `listening on "
        "HOST:PORT for DEVICE` for each when it serves; SIGTERM ends it."
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("edge.toml"),
        help="settings file of the agent (default: ./edge.toml)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, to stderr")


def run(args: argparse.Namespace) -> int:
    """Serve; see main for exit codes."""
    from dicomward.app import StopSignals
    from dicomward.cli.common import RefusedError, UsageError
    from dicomward.io.edge_agent import EdgeAgent, EdgeStartError
    from dicomward.io.logs import configure
    from dicomward.settings import ListenAddress, SettingsError
    from dicomward.settings.edge import load_edge_settings

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        settings = load_edge_settings(args.config)
    except SettingsError as error:
        raise UsageError(str(error)) from error
    configure(settings.log_format, "debug" if args.verbose else settings.log_level)
    agent = EdgeAgent(settings)
    with StopSignals() as signals:
        try:
            agent.open()
        except EdgeStartError as error:
            raise RefusedError(str(error)) from error
        for name, (host, port) in agent.addresses.items():
            print(f"listening on {ListenAddress(host=host, port=port)} for {name}", flush=True)
        signals.wait(lambda: None)
        agent.close(lambda: signals.count > 1)
    return 0
