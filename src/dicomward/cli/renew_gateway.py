"""`dicomward renew-gateway`: new certificates for the gateway itself."""

import argparse

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    print_json,
    require,
    warn,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Give the gateway new keys and certificates of the local CA, for the same names, in the same files. "
        "check-config warns 30 days before they end. Run `dicomward reload` afterwards."
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="one more name or address under which devices reach the gateway",
    )
    parser.add_argument(
        "--days", metavar="N", type=int, default=397, help="life of the certificates (default: %(default)s)"
    )
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Renew; see main for exit codes."""
    settings = load_settings_of(args)

    from dicomward.identity.operators import Permission
    from dicomward.io.ca.local import MAX_LEAF_DAYS, LocalCaError
    from dicomward.io.installation.gateway_certificates import renew_gateway_certificates

    if not 1 <= args.days <= MAX_LEAF_DAYS:
        raise UsageError(f"--days {args.days}: a life of so many days is not possible; choose 1 to {MAX_LEAF_DAYS}")
    require(args, Permission.GATEWAY_CERTIFICATES, settings=settings)
    try:
        renewed = renew_gateway_certificates(settings, now(), more_hosts=args.host, days=args.days)
    except LocalCaError as error:
        raise RefusedError(str(error)) from error
    if args.json:
        print_json(
            [
                {"certificate": str(one.pair.certificate), "hosts": one.hosts, "not_after": one.not_after.isoformat()}
                for one in renewed
            ]
        )
    else:
        for one in renewed:
            print(f"{one.pair.certificate} is valid until {one.not_after:%Y-%m-%d} for {', '.join(one.hosts)}")
        warn("a running gateway takes them with: dicomward reload")
    return 0
