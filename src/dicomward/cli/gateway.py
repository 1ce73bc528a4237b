"""`dicomward gateway`: serve until SIGTERM."""

import argparse
import signal

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_operator_argument,
    load_settings_of,
    operator_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the gateway. Prints `listening on HOST:PORT` when it serves. SIGTERM lets open associations end "
        "(gateway.drain_seconds), a second one stops at once. SIGHUP loads the files again, as `dicomward reload` does."
    )
    add_config_argument(parser)
    add_operator_argument(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help='log more, to stderr: the same as [logging] level = "debug"'
    )


def run(args: argparse.Namespace) -> int:
    """Build and serve; see main for exit codes."""
    from dicomward.app import ConfigurationError, Gateway, StartError
    from dicomward.io.logs import configure

    # Who wants a reload before everything is loaded wants nothing that isn't done anyhow, and must not end us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = load_settings_of(args)
    configure(settings.logging.format, "debug" if args.verbose else settings.logging.level)
    try:
        gateway = Gateway(settings, operator=operator_of(args))
        return gateway.serve(lambda where: print(f"listening on {where}", flush=True))
    except ConfigurationError as error:
        raise UsageError(str(error)) from error
    except StartError as error:
        raise RefusedError(str(error)) from error
