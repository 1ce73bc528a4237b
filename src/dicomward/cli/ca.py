"""`dicomward ca`: the certificate authority for devices. docs/ca-guide.md."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from dicomward.cli.ca_passphrase import read_passphrase
from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    config_path,
    load_settings_of,
    now,
    print_json,
    print_table,
    require,
    warn,
)

if TYPE_CHECKING:
    from dicomward.io.ca.crl import WrittenCrl
    from dicomward.io.ca.directory import CaDirectory
    from dicomward.io.ca.service import CaStatus
    from dicomward.settings import Settings

_Result = TypeVar("_Result")
_IN_DIRECTORY: Final = "in DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "The certificate authority for devices: docs/ca-guide.md."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    child = actions.add_parser(
        "init",
        help="make a root and an issuing CA",
        description="Make a root, its key encrypted with a passphrase, and an issuing CA. Nothing is overwritten. "
        "Where a gateway's settings are found, the gateway trusts it from its next reload.",
    )
    _describe_directory(child)
    child.add_argument(
        "--offline-root",
        metavar="FILE",
        nargs="?",
        const=_IN_DIRECTORY,
        help="keep the root's key out of the way: written to FILE (a stick), or DIR/offline-root to be moved away",
    )
    child.add_argument(
        "--root-pkcs11", metavar="URI", default="", help="the root's key is this one of a token, and exists already"
    )
    child.add_argument("--name", metavar="NAME", default="Dicomward", help="the CA's name (default: %(default)s)")
    child.add_argument("--root-days", metavar="N", type=int, default=7305, help="life of the root (default: 20 years)")
    _describe_passphrase(child)
    _describe_issuing(child)
    _describe_common(child)
    child = actions.add_parser(
        "rollover",
        help="let a new issuing CA issue from now on",
        description="Make a new issuing CA. The old one stays trusted until its certificates are over; devices move "
        "with their next renewal, and `ca status` shows how far they are.",
    )
    _describe_directory(child)
    child.add_argument(
        "--root-key", metavar="FILE", default="", help="where the root's key is now: a file, or a PKCS#11 URI"
    )
    child.add_argument(
        "--compromised", action="store_true", help="the old issuing key is in other hands: the root's CRL says so"
    )
    _describe_passphrase(child)
    _describe_issuing(child)
    _describe_common(child)
    for action, text in (
        ("status", "show the CA, its CRLs, and which devices still have certificates of which issuing CA"),
        ("crl", "sign the CRLs anew"),
        ("adopt", "take over the local CA of `dicomward init` as a retired one, so that its devices move over"),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _describe_directory(child)
        if action == "crl":
            child.add_argument("--if-due", action="store_true", help="only if one is at half of its life, or missing")
            child.add_argument(
                "--out", metavar="FILE", type=Path, help="write that of the active issuing CA there, too"
            )
            child.add_argument("--pem", action="store_true", help="PEM in --out instead of DER")
        _describe_common(child)
    child = actions.add_parser(
        "trust",
        help="let the gateway believe a CA that is made elsewhere",
        description="Add the CAs of a file (trust.pem of the other host) to tls.client_ca, then reload the gateway.",
    )
    child.add_argument("file", metavar="FILE", type=Path, help="CA certificates (PEM or DER)")
    _describe_common(child)


def _describe_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", metavar="DIR", type=Path, nargs="?", help="the CA's directory (default: [enrolment] ca)"
    )


def _describe_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="the root's passphrase is the first line of FILE (default: asked for)",
    )


def _describe_issuing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", choices=("ecdsa", "rsa"), default="ecdsa", help="kind of the CA's keys (default: %(default)s)"
    )
    parser.add_argument(
        "--pkcs11", metavar="URI", default="", help="the issuing CA's key is this one of a token, and exists already"
    )
    parser.add_argument(
        "--issuing-days", metavar="N", type=int, default=1826, help="life of the issuing CA (default: 5 years)"
    )


def _describe_common(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "init": _init,
        "rollover": _roll_over,
        "status": _status,
        "crl": _crl,
        "adopt": _adopt,
        "trust": _trust,
    }
    return actions[args.action](args)


# --- making ----------------------------------------------------------------------------------------------------------


def _init(args: argparse.Namespace) -> int:
    from dicomward.io.ca.crl import write_root_crl
    from dicomward.io.ca.directory import ROOT_KEY, make_ca_directory
    from dicomward.io.ca.service import gateway_anchors

    settings = _settings_if_any(args)
    directory = _directory(args, settings)
    _check_days(args, "root_days", "issuing_days")
    _check_uri(args.pkcs11)
    _check_uri(args.root_pkcs11)
    if args.root_pkcs11 and (args.offline_root is not None or args.passphrase_file is not None):
        raise UsageError("a root in a token has no file and no passphrase; leave --offline-root, --passphrase-file out")
    operator = _require_change(args, settings)
    root_key = _root_key_place(args, directory)
    passphrase, is_new = (b"", False) if args.root_pkcs11 else read_passphrase(args.passphrase_file, new=True)

    def make() -> "CaDirectory":
        anchors = gateway_anchors(settings) if settings is not None else ()
        ca = make_ca_directory(
            directory,
            name=args.name,
            passphrase=passphrase,
            now=now(),
            kind=args.key,
            key_uri=args.pkcs11,
            root_key=root_key,
            root_uri=args.root_pkcs11,
            root_days=args.root_days,
            issuing_days=args.issuing_days,
            more_anchors=anchors,
        )
        write_root_crl(ca, ca.open_root(passphrase, root_key, key_uri=args.root_pkcs11), now())
        return ca

    ca = _explained(make)
    trusted = _trust_certificates(settings, ca)
    _record(settings, operator, "init", str(directory))
    where = args.root_pkcs11.partition("?")[0] or str(root_key or directory / ROOT_KEY)
    if args.json:
        print_json(
            {
                "directory": str(directory),
                "root_key": where,
                "passphrase": passphrase.decode() if is_new else None,
                "trusted": trusted,
                **_fingerprints(ca),
            }
        )
        return 0
    print(
        f"made the CA {directory}: root until {ca.root.not_valid_after_utc:%Y-%m-%d}, issuing CA until "
        f"{ca.certificate_of(ca.state.active).not_valid_after_utc:%Y-%m-%d}"
    )
    print(f"root fingerprint (SHA-256): {_fingerprints(ca)['root_sha256']}")
    if is_new:
        print(f"passphrase of the root's key, shown this once: {passphrase.decode()}")
    move = "take the token away" if args.root_pkcs11 else "move it away"
    print(f"the root's key is {where}: {move} from this machine; it is needed for `dicomward ca rollover` only")
    if settings is None:
        print(f"on the gateway's host: dicomward ca trust {directory / 'trust.pem'}")
        return 0
    if settings.enrolment.ca.absolute() != directory.absolute():
        print(f'in {settings.path}: [enrolment] ca = "{directory.absolute()}"')
    if trusted:
        print(f"the gateway trusts it from the next: dicomward reload --config {settings.path}")
    return 0


def _root_key_place(args: argparse.Namespace, directory: Path) -> Path | None:
    """Return where the root's key goes; None for the CA's directory."""
    from dicomward.io.ca.directory import OFFLINE_ROOT, ROOT_KEY

    if args.offline_root is None:
        return None
    if args.offline_root == _IN_DIRECTORY:
        return directory / OFFLINE_ROOT / ROOT_KEY
    place = Path(args.offline_root)
    return place / ROOT_KEY if place.is_dir() else place


def _roll_over(args: argparse.Namespace) -> int:
    from dicomward.io.ca.crl import write_root_crl

    settings = _settings_if_any(args)
    directory = _directory(args, settings)
    _check_days(args, "issuing_days")
    _check_uri(args.pkcs11)
    operator = _require_change(args, settings)
    root_uri = args.root_key if args.root_key.startswith("pkcs11:") else ""
    _check_uri(root_uri)
    passphrase = b"" if root_uri else read_passphrase(args.passphrase_file, new=False)[0]
    root_key = Path(args.root_key) if args.root_key and not root_uri else None

    def roll() -> "CaDirectory":
        ca = _open(directory)
        root = ca.open_root(passphrase, root_key, key_uri=root_uri)
        rolled = ca.roll_over(
            root,
            now(),
            kind=args.key,
            key_uri=args.pkcs11,
            days=args.issuing_days,
            compromised=args.compromised,
        )
        write_root_crl(rolled, root, now())
        return rolled

    ca = _explained(roll)
    trusted = _trust_certificates(settings, ca)
    _record(settings, operator, "rollover", f"{ca.state.active.name}{', the old one compromised' * args.compromised}")
    if args.json:
        print_json({"active": ca.state.active.name, "trusted": trusted, **_fingerprints(ca)})
        return 0
    print(
        f"{ca.state.active.name} issues from now on, until "
        f"{ca.certificate_of(ca.state.active).not_valid_after_utc:%Y-%m-%d}"
    )
    print(
        "running enrolment servers notice by themselves; "
        "next: dicomward reload on every gateway, then follow: dicomward ca status"
    )
    if settings is None:
        print(f"on the gateway's host: dicomward ca trust {directory / 'trust.pem'}")
    return 0


def _adopt(args: argparse.Namespace) -> int:
    from dicomward.io.ca.local import CA_CERTIFICATE_NAME, CA_KEY_NAME, LocalCa, LocalCaError

    settings = load_settings_of(args)
    directory = _directory(args, settings)
    operator = _require_change(args, settings)
    source = settings.tls.client_ca.parent

    def adopt() -> "CaDirectory":
        ca = _open(directory)
        try:
            local = LocalCa.load(source)
            key = (source / CA_KEY_NAME).read_bytes()
        except LocalCaError as error:
            raise RefusedError(str(error)) from error
        return ca.adopt("local", local.certificate_pem, key, now())

    ca = _explained(adopt)
    _record(settings, operator, "adopt", str(source / CA_CERTIFICATE_NAME))
    if args.json:
        print_json({"directory": str(ca.path), "adopted": "local"})
        return 0
    print(f"{ca.path} has the local CA as a retired one; its devices move over with their next renewal")
    print(
        f"when `dicomward ca status` shows no device beside it, delete {source / CA_KEY_NAME}; "
        "until then `dicomward device add --out` and `dicomward renew-gateway` use it"
    )
    return 0


def _trust(args: argparse.Namespace) -> int:
    from dicomward.io.ca.local import LocalCaError, load_certificates
    from dicomward.io.ca.service import trust

    settings = load_settings_of(args)
    operator = _require_change(args, settings, evidence=[args.file])
    try:
        certificates = load_certificates(args.file)
    except LocalCaError as error:
        raise RefusedError(str(error)) from error
    for each in certificates:
        if not _is_ca(each):
            raise RefusedError(f"{args.file}: {each.subject.rfc4514_string()} is no CA; name its trust.pem")
    added = _explained(lambda: trust(settings, certificates))
    _record(settings, operator, "trust", f"{args.file.name}: {added} new")
    if args.json:
        print_json({"added": added, "client_ca": str(settings.tls.client_ca)})
    else:
        print(f"{added} CA{'' if added == 1 else 's'} added to {settings.tls.client_ca}; next: dicomward reload")
    return 0


def _is_ca(certificate: object) -> bool:
    from cryptography import x509

    if not isinstance(certificate, x509.Certificate):
        return False
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


# --- CRLs and status -------------------------------------------------------------------------------------------------


def _crl(args: argparse.Namespace) -> int:
    from dataclasses import asdict
    from datetime import timedelta

    from dicomward.io.ca.crl import is_due, renew_crls
    from dicomward.io.registry.store import RegistryStore

    settings = load_settings_of(args)
    directory = _directory(args, settings)

    def renew() -> "tuple[WrittenCrl, ...]":
        ca = _open(directory)
        if args.if_due and not is_due(ca, now()):
            return ()
        with RegistryStore.open(settings.registry.url) as store:
            written = renew_crls(store, ca, now(), life=timedelta(days=settings.enrolment.crl_days))
        if args.out is not None:
            active = next(each for each in written if each.name == ca.state.active.name)
            _copy(active.path, args.out, pem=args.pem)
        return written

    written = _explained(renew)
    if args.json:
        print_json(
            [{**asdict(each), "path": str(each.path), "next_update": each.next_update.isoformat()} for each in written]
        )
        return 0
    for each in written:
        print(f"{each.path}: {each.entries} certificates revoked, current until {each.next_update:%Y-%m-%d %H:%M} UTC")
    if not written:
        print("no CRL is due")
    return 0


def _copy(source: Path, target: Path, *, pem: bool) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from dicomward.io.private_file import replace_bytes

    data = source.read_bytes()
    replace_bytes(target, x509.load_der_x509_crl(data).public_bytes(Encoding.PEM) if pem else data)
    target.chmod(0o644)


def _status(args: argparse.Namespace) -> int:
    from dicomward.identity.operators import Permission
    from dicomward.io.ca.service import ca_status
    from dicomward.io.registry.store import RegistryStore

    settings = load_settings_of(args)
    directory = _directory(args, settings)
    require(args, Permission.VIEW, settings=settings)

    def look() -> "CaStatus":
        with RegistryStore.open(settings.registry.url) as store:
            return ca_status(store, _open(directory), now())

    status = _explained(look)
    if args.json:
        print_json(_status_to_json(status))
        return 0
    print(f"CA {status.name} in {directory}: root until {status.root_until:%Y-%m-%d}")
    rows = [
        [
            each.name,
            each.state,
            f"{each.not_after:%Y-%m-%d}",
            f"{each.crl_until:%Y-%m-%d %H:%M}" if each.crl_until is not None else "none",
            str(len(each.devices)),
        ]
        for each in status.issuing
    ]
    rows.append(["(issued elsewhere)", "-", "-", "-", str(len(status.others))])
    print_table(("ISSUING CA", "STATE", "UNTIL", "CRL UNTIL (UTC)", "DEVICES"), rows)
    for each in status.issuing:
        if each.state != "active" and each.devices:
            print(f"still with {each.name}: {', '.join(each.devices)}")
    for held in status.held:
        print(f"renewal {held.state}: {held.device}: {held.held_detail}")
    return 0


def _status_to_json(status: "CaStatus") -> dict[str, object]:
    return {
        "name": status.name,
        "root_until": status.root_until.isoformat(),
        "issuing": [
            {
                "name": each.name,
                "state": each.state,
                "not_after": each.not_after.isoformat(),
                "crl_until": each.crl_until.isoformat() if each.crl_until is not None else None,
                "devices": each.devices,
            }
            for each in status.issuing
        ],
        "others": status.others,
        "held": [
            {
                "device": each.device,
                "state": each.state.value,
                "held_at": each.held_at.isoformat() if each.held_at is not None else None,
                "detail": each.held_detail,
            }
            for each in status.held
        ],
    }


# --- what they share -------------------------------------------------------------------------------------------------


def _settings_if_any(args: argparse.Namespace) -> "Settings | None":
    """Return the gateway's settings; None on a host that has only the CA."""
    if args.config is None and not config_path(args).exists() and "DICOMWARD_CONFIG" not in os.environ:
        return None
    return load_settings_of(args)


def _directory(args: argparse.Namespace, settings: "Settings | None") -> Path:
    if args.directory is not None:
        directory: Path = args.directory
        return directory
    if settings is None:
        raise UsageError("name the CA's directory, or with --config FILE the settings that name it")
    return settings.enrolment.ca


def _require_change(
    args: argparse.Namespace, settings: "Settings | None", *, evidence: Sequence[Path] = ()
) -> str | None:
    from dicomward.identity.operators import Permission

    if settings is None:
        return None
    return require(args, Permission.CA_CHANGE, settings=settings, evidence=evidence)


def _record(settings: "Settings | None", operator: str | None, action: str, detail: str) -> None:
    from dicomward.audit.event import CaChanged
    from dicomward.io.people.operators import record_event

    if settings is None:
        return
    problem = record_event(settings, CaChanged(operator=operator, action=action, detail=detail))
    if problem is not None:
        warn(f"this is done, but not in the audit log: {problem}")


def _trust_certificates(settings: "Settings | None", ca: "CaDirectory") -> int:
    from dicomward.io.ca.service import trust

    if settings is None:
        return 0
    certificates = [ca.root, *(ca.certificate_of(each) for each in ca.state.issuing)]
    return _explained(lambda: trust(settings, certificates))


def _open(directory: Path) -> "CaDirectory":
    from dicomward.io.ca.directory import CaDirectory

    return CaDirectory(directory)


def _fingerprints(ca: "CaDirectory") -> dict[str, str]:
    from dicomward.io.ca.sign import fingerprint_of

    return {
        "root_sha256": fingerprint_of(ca.root),
        "issuing_sha256": fingerprint_of(ca.certificate_of(ca.state.active)),
    }


def _check_days(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        if not 1 <= getattr(args, name) <= 36_500:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)} is not possible; choose 1 to 36500")


def _check_uri(uri: str) -> None:
    from dicomward.io.ca.pkcs11 import parse_uri
    from dicomward.io.ca.terms import CaError

    if not uri:
        return
    try:
        _path, query = parse_uri(uri)
    except CaError as error:
        raise UsageError(str(error)) from error
    if "pin-value" in query:
        raise UsageError("a PIN in the URI would be stored where all can read it; write it to a file: pin-source=FILE")


def _explained(work: "Callable[[], _Result]") -> "_Result":
    """Do it, and turn what is wrong into words. Raises RefusedError."""
    from dicomward.identity.registry import RegistryError
    from dicomward.io.ca.terms import CaError
    from dicomward.io.registry.store import RegistryStoreError

    try:
        return work()
    except (CaError, RegistryError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise RefusedError(f"{where}{error.strerror or error}; check rights and disk, then repeat") from error
