"""`dicomward device bundle`: key and certificate in one PKCS#12 file, for a device that can't make a request."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.cli.common import RefusedError, now, print_json, require
from dicomward.cli.grant_arguments import describe_grant, grant_from
from dicomward.cli.registry_command import read_registry

if TYPE_CHECKING:
    from dicomward.settings import Settings


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe `device bundle`."""
    parser.add_argument("name", metavar="NAME", help="its name, registered or new")
    describe_grant(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="where the bundle goes, as NAME.p12")
    parser.add_argument(
        "--old", action="store_true", help="encrypt with 3DES and SHA-1, for devices that can't read AES"
    )
    parser.add_argument("--revoke-old", action="store_true", help="revoke the certificates that it has now")


def run(args: argparse.Namespace, settings: "Settings") -> int:
    """Make key, certificate and bundle here; the passphrase is printed once and kept nowhere."""
    from dataclasses import replace

    from dicomward.enrolment.refusal import EnrolmentRefusedError
    from dicomward.identity.operators import Permission
    from dicomward.io.ca.local import write_new_file
    from dicomward.io.ca.publish import Publisher
    from dicomward.io.ca.service import open_issuer
    from dicomward.io.ca.terms import CaError
    from dicomward.io.enrolment.bundle import make_bundle
    from dicomward.io.enrolment.inviting import new_passphrase
    from dicomward.io.registry.store import RegistryStoreError

    registered = read_registry(settings).device_by_name(args.name)
    grant = grant_from(args.name, args, settings, registered, revoke_others=args.revoke_old)
    if not grant.networks:
        raise RefusedError(f"nobody enrols {args.name}, so its network isn't learned: name it with --network CIDR")
    grant = replace(grant, needs_confirmation=settings.enrolment.confirm)
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings)
    if args.out.exists():
        raise RefusedError(f"{args.out} exists already, and nothing is overwritten; choose another")
    passphrase = new_passphrase()
    try:
        with open_issuer(settings) as issuer:
            issued, bundle = make_bundle(issuer, grant, now(), passphrase, by=operator, old=args.old)
        write_new_file(args.out, bundle, 0o600)
    except (CaError, RegistryStoreError, EnrolmentRefusedError) as error:
        raise RefusedError(str(error)) from error
    publisher = Publisher(settings)
    problem = publisher.publish(issued.revision)
    publisher.close()
    if problem is not None:
        raise RefusedError(f"{args.out} is written, but {problem}; its passphrase is {passphrase}")
    if args.json:
        print_json(
            {
                "name": issued.device,
                "file": str(args.out),
                "passphrase": passphrase,
                "sha256": issued.sha256,
                "not_after": issued.not_after.isoformat(),
                "revision": issued.revision,
            }
        )
        return 0
    print(f"device {issued.device}: {args.out} holds its key, its certificate and the CAs to trust")
    print(f"passphrase, shown once: {passphrase}")
    print(f"certificate {issued.sha256[:16]} is valid until {issued.not_after:%Y-%m-%d}; nothing renews it by itself")
    return 0
