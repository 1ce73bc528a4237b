"""The store of a run: what is done stays done, what is not waits."""

import json
import sqlite3
from pathlib import Path

import pytest

from dicomward.assess.observation import Protocol, Reach, ServerObservation, observation_to_json
from dicomward.io.assess.store import STORE_NAME, AssessStore, StoreError, TargetRow


def test_hosts_wait_until_they_are_done(tmp_path: Path) -> None:
    seen = ServerObservation(address="10.0.0.2", port=104, reach=Reach.ANSWERED)
    with AssessStore(tmp_path, create=True) as store:
        store.add_targets(TargetRow(address=f"10.0.0.{n}", ports=(104,)) for n in (1, 2, 3))
        store.exclude("10.0.0.9", "ventilator")
        store.finish_host("10.0.0.2", [seen])
        store.add_targets([TargetRow(address="10.0.0.2")])
    with AssessStore(tmp_path) as store:
        assert [each.address for each in store.waiting()] == ["10.0.0.1", "10.0.0.3"]
        assert store.waiting(after="10.0.0.1") == [TargetRow(address="10.0.0.3", ports=(104,))]
        assert store.progress() == (1, 3)
        assert store.excluded() == [("10.0.0.9", "ventilator")]
        assert list(store.observations()) == [seen]
        store.finish_hosts([("10.0.0.1", "refused")])
        assert (store.reach_of("10.0.0.1"), store.reach_of("10.0.0.2"), store.reach_of("10.0.0.3")) == (
            "refused",
            "",
            "",
        )
        assert store.progress() == (2, 3)


def test_facts_of_the_run(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        assert store.value("owner") is None
        store.set_value("owner", "a")
        store.set_value("owner", "b")
        assert store.values() == {"owner": "b", "schema": "2"}


def test_slices_are_kept_until_their_host_is_counted(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        store.add_targets([TargetRow(address="10.0.0.1")])
        store.finish_host(
            "10.0.0.1", [ServerObservation(address="10.0.0.1", port=104)], "answered", is_to_be_counted=True
        )
        assert (store.to_be_counted(), store.progress(), store.reach_of("10.0.0.1")) == (
            ["10.0.0.1"],
            (0, 1),
            "answered",
        )
        store.finish_slice("10.0.0.1", 104, "2020", {"records": 7})
        assert store.slices("10.0.0.1", 104) == [("2020", "done", {"records": 7})]
        store.finish_counting("10.0.0.1", [ServerObservation(address="10.0.0.1", port=104, probes=3)])
        assert (store.to_be_counted(), store.progress(), store.slices("10.0.0.1", 104)) == ([], (1, 1), [])
        assert [each.probes for each in store.observations_of("10.0.0.1")] == [3]
        assert store.observations_of("10.0.0.2") == []


def test_run_is_copied_from_another_store(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        store.copy_targets([(TargetRow(address="10.0.0.1", ports=(104,)), "done", "refused")])
        store.copy_targets([(TargetRow(address="10.0.0.2"), "excluded", "pump")])
        store.copy_observations([ServerObservation(address="10.0.0.1", port=104)])
        assert (store.progress(), store.excluded(), store.reach_of("10.0.0.1")) == (
            (1, 1), [("10.0.0.2", "pump")], "refused",
        )  # fmt: skip
        assert [each.port for each in store.observations()] == [104]


def test_what_fails_in_the_middle_of_a_host_leaves_it_waiting(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        store.add_targets([TargetRow(address="10.0.0.1")])
        bad = ServerObservation(address="10.0.0.1", port=1, problem=object())  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            store.finish_host("10.0.0.1", [ServerObservation(address="10.0.0.1", port=104), bad])
        assert store.progress() == (0, 1)
        assert list(store.observations()) == []


def test_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no assessment"):
        AssessStore(tmp_path)


def test_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / STORE_NAME).write_bytes(b"not a database, and long enough to be looked at as one" * 100)
    with pytest.raises(StoreError, match="can't be used"):
        AssessStore(tmp_path)


def test_other_schema_is_refused(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        store.set_value("schema", "99")
    with pytest.raises(StoreError, match="another version"):
        AssessStore(tmp_path)


@pytest.mark.parametrize("value", ["{}", "{"])
def test_broken_observation_is_named(tmp_path: Path, value: str) -> None:
    AssessStore(tmp_path, create=True).close()
    database = sqlite3.connect(tmp_path / STORE_NAME)
    with database:
        database.execute("INSERT INTO observation VALUES ('10.0.0.1', 104, ?)", (value,))
    database.close()
    with AssessStore(tmp_path) as store, pytest.raises(StoreError, match=r"10\.0\.0\.1 port 104"):
        list(store.observations())


def test_observations_come_as_values_of_json_too(tmp_path: Path) -> None:
    observation = ServerObservation(address="10.0.0.1", port=104, protocol=Protocol.DIMSE, reach=Reach.ANSWERED)
    with AssessStore(tmp_path, create=True) as store:
        store.add_targets([TargetRow(address="10.0.0.1")])
        store.finish_host("10.0.0.1", [observation])
        assert list(store.observations_as_json()) == json.loads(json.dumps([observation_to_json(observation)]))
    database = sqlite3.connect(tmp_path / STORE_NAME)
    with database:
        database.execute("UPDATE observation SET value = '{'")
    database.close()
    with AssessStore(tmp_path) as store, pytest.raises(StoreError, match=r"10\.0\.0\.1 port 104"):
        list(store.observations_as_json())
