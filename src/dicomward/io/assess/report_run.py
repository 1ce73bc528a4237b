"""A run on disk as values for its report, and the files of a plan and of advisories."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dicomward.assess.observation import ServerObservation
from dicomward.assess.report_compare import Comparison, compare_runs
from dicomward.assess.report_csaf import Advisory
from dicomward.assess.report_model import RunFacts
from dicomward.assess.report_plan import Plan, draft_of, host_port, plan_text, plan_to_json
from dicomward.assess.sites import Sites
from dicomward.identity.draft import Draft, draft_text
from dicomward.io.assess.place import with_place
from dicomward.io.assess.store import AssessStore
from dicomward.io.installation.new_directory import render_config
from dicomward.policy import default_policy_text


def read_run(directory: Path, sites: Sites | None = None) -> tuple[RunFacts, list[ServerObservation]]:
    """Return the facts of a run and its observations, placed anew by a list of sites. Raises StoreError."""
    with AssessStore(directory) as store:
        values = store.values()
        done, hosts = store.progress()
        excluded = len(store.excluded())
        observations = [with_place(each, sites) for each in store.observations()]
    names = ("owner", "authorisation", "contact", "scope_sha256", "started_at", "ended_at")
    facts = RunFacts(**{name: values.get(name, "") for name in names}, hosts=hosts, hosts_done=done, excluded=excluded)
    return facts, observations


def compare_directories(old: Path, new: Path) -> Comparison:
    """Compare two runs. Raises StoreError."""
    _, before = read_run(old)
    with AssessStore(new) as store:
        return compare_runs(before, store.observations(), store.reach_of)


def write_plan(directory: Path, plan: Plan, devices: Draft, made_at: datetime) -> list[Path]:
    """Write the plan, and a directory of files for each of its gateways; return what was written. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "plan.md": plan_text(plan, made_at),
        "plan.json": json.dumps(plan_to_json(plan), indent=2, ensure_ascii=False) + "\n",
    }
    for gateway in plan.gateways:
        settings = {
            "gateway.listen": host_port(gateway.listen),
            "gateway.archive_listen": host_port(gateway.archive_listen),
        }
        (directory / gateway.directory).mkdir(exist_ok=True)
        texts |= {
            f"{gateway.directory}/dicomward.toml": render_config(settings),
            f"{gateway.directory}/policy.toml": default_policy_text(),
            f"{gateway.directory}/registry-draft.toml": draft_text(draft_of(gateway, devices.devices)),
        }
    return _write(directory, texts)


def write_advisories(directory: Path, advisories: Sequence[Advisory]) -> list[Path]:
    """Write each advisory under the name that CSAF asks for; return what was written. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {each.file_name: json.dumps(each.document, indent=2, ensure_ascii=False) + "\n" for each in advisories}
    return _write(directory, texts)


def _write(directory: Path, texts: dict[str, str]) -> list[Path]:
    paths = []
    for name, text in texts.items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
