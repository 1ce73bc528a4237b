"""`dicomward restore`: a gateway's directory out of a backup."""

import argparse
from pathlib import Path

from dicomward.cli.common import RefusedError, add_json_argument, add_operator_argument, operator_of, print_json, warn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a gateway's directory from a backup, after checking every file of it. DIR must be new or empty: nothing "
        "is overwritten, and a backup that is not whole leaves nothing behind. Never run it and its original at once."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the backup")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to make")
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Restore; see main for exit codes."""
    from dicomward.audit.event import AuditAccessed
    from dicomward.io.installation.backup import BackupError
    from dicomward.io.installation.restore import restore_backup
    from dicomward.io.people.operators import record_event
    from dicomward.settings import SettingsError, load_settings

    operator = operator_of(args)
    try:
        manifest = restore_backup(args.file, args.directory)
    except BackupError as error:
        raise RefusedError(str(error)) from error
    except OSError as error:
        raise RefusedError(f"the backup can't be restored: {error}; nothing was left behind") from error
    configuration = args.directory / Path(manifest.configuration).name
    for folder, origin in sorted(manifest.outside.items()):
        warn(f"{origin} is outside of the gateway's directory: it was restored to {args.directory / folder}; move it")
    try:
        settings = load_settings(configuration)
    except SettingsError as error:
        warn(f"the files are restored, but the settings can't be used: {error}")
    else:
        # Where the settings lead to places outside, the log there is another gateway's until somebody moves it.
        if settings.audit.directory.is_relative_to(args.directory.absolute()):
            problem = record_event(settings, AuditAccessed(operator=operator, action="restore"))
            if problem is not None:
                warn(f"this is not in the restored audit log: {problem}")
    if args.json:
        print_json(
            {
                "directory": str(args.directory),
                "configuration": str(configuration),
                "files": len(manifest.entries),
                "made": manifest.made,
                "audit_records": manifest.audit_records,
                "outside": manifest.outside,
            }
        )
    else:
        print(f"restored {len(manifest.entries)} files of {manifest.made} to {args.directory}")
        print(f"next:\n  dicomward check-config --config {configuration}")
        print(f"  dicomward gateway --config {configuration}")
    return 0
