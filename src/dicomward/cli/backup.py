"""`dicomward backup`: everything that a gateway is made of, in one file; and whether such a file is whole."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from dicomward.io.installation.backup import Manifest

_VERIFY: Final = "verify"
_CREATE: Final = "create"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write settings, keys, CA, policy, registry and audit log into one file, also while the gateway runs; "
        "`dicomward backup verify FILE` reads one and says if it is whole. The file holds private keys: it is made "
        "with mode 0600, keep it as secret as they are. It is restored with: dicomward restore FILE DIR."
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the new file, .tar, .tar.gz, .tgz or .tar.zst; or the word verify, and then the file to check",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="after verify: the backup")
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write or verify; see main for exit codes."""
    if args.output == _VERIFY:
        if args.file is None:
            raise UsageError("name the backup to check: dicomward backup verify FILE")
        return _verify(args)
    if args.output == _CREATE and args.file is not None:
        args.output, args.file = str(args.file), None
    if args.file is not None:
        raise UsageError(f"there is one file too many; write: dicomward backup {args.output}")
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    settings = load_settings_of(args)

    from dicomward.audit.event import AuditAccessed
    from dicomward.identity.operators import Permission
    from dicomward.io.installation.backup import BackupError, make_backup
    from dicomward.io.installation.compression import PackingError, ending_of
    from dicomward.io.people.operators import record_event
    from dicomward.io.registry.store import RegistryStoreError

    path = Path(args.output)
    try:
        ending_of(path)
    except PackingError as error:
        raise UsageError(str(error)) from error
    operator = require(args, Permission.BACKUP, settings=settings)
    problem = record_event(settings, AuditAccessed(operator=operator, action="backup"))
    if problem is not None:
        # A gateway whose log is broken is the one that needs a backup most.
        warn(f"this backup is not in the audit log: {problem}")
    try:
        made = make_backup(settings, path, now())
    except (BackupError, PackingError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        raise RefusedError(f"the backup can't be written: {error}; nothing was left behind") from error
    for each in made.left_out:
        warn(f"not in the backup: {each}")
    if args.json:
        print_json({"file": str(path), **_to_json(made.manifest), "left_out": list(made.left_out)})
    else:
        print(f"{path}: {_describe(made.manifest)}")
        warn("it holds private keys: keep it as secret as the gateway's directory, and on another machine")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from dicomward.io.installation.backup import BackupError
    from dicomward.io.installation.restore import verify_backup

    try:
        manifest = verify_backup(args.file)
    except OSError as error:
        raise RefusedError(
            f"{args.file} can't be read: {error.strerror or error}; check the path and its rights"
        ) from error
    except BackupError as error:
        raise RefusedError(str(error)) from error
    if args.json:
        print_json({"file": str(args.file), "good": True, **_to_json(manifest)})
    else:
        print(f"good: {args.file}: {_describe(manifest)}")
    return 0


def _describe(manifest: "Manifest") -> str:
    return (
        f"{len(manifest.entries)} files, {manifest.bytes:,} bytes, made {manifest.made} by Dicomward "
        f"{manifest.version}; audit log up to record {manifest.audit_records}"
    )


def _to_json(manifest: "Manifest") -> dict[str, object]:
    return {
        "files": len(manifest.entries),
        "bytes": manifest.bytes,
        "made": manifest.made,
        "version": manifest.version,
        "audit_records": manifest.audit_records,
    }
