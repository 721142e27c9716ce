"""A cut of every fault of the storage, and the sweeps over all of them among the long tests: see storage.py."""

import re

import damage
import disks
import pytest
import storage
import storage_worker

pytestmark = pytest.mark.skipif(not storage_worker.can_trace(), reason="needs strace, and the right to trace a process")
# Calls that were worth their own case: after a trial's last epoch but before its end is in the ledger, after the end of
# one that diverged; and the last call before an experiment's folder is made.
MADE = r"^ *unlink.*/\.experiment\.json"
TELLING = {"crash": r"^ *unlink.*/(0001/0001|0002/0002)\.safetensors", "EIO": MADE, "ENOSPC": MADE}
mounts = pytest.mark.skipif(not storage_worker.can_mount(), reason="needs the right to mount")


@pytest.fixture(scope="module")
def worker():
    with storage_worker.Worker() as worker:
        yield worker


@pytest.fixture(scope="module")
def half(worker):
    """A search that was killed in its middle."""
    return storage.half_done(worker)


def fine(*found):
    """Check that there were cases, and that nothing was wrong in any."""
    failures = [failure for _, some in found for failure in some]
    assert not failures, f"{len(failures)} in {sum(cases for cases, _ in found)} cases:\n" + "\n".join(failures[:20])
    assert all(cases for cases, _ in found)


def test_a_search_that_is_over_is_not_touched_again(worker):
    again = worker.work(worker.reference_folder)
    assert not again.trained and storage.broken(worker, worker.reference_folder, [worker.reference, again]) == []


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.long] if fault != "crash" else []) for fault in storage.FAULTS]
)
def test_a_fault_at_any_write_loses_nothing(fault, worker, half):
    every = storage.points(worker)
    telling = [point for point in every if re.search(TELLING[fault], point[2])]
    assert telling
    new, on = storage.spread(every, 3) + telling, storage.spread(storage.points(worker, half), 1)
    fine(storage.sweep(worker, fault, new), storage.sweep(worker, fault, on, half))


@mounts
@pytest.mark.long
def test_disks_that_fill_up_or_are_read_only(worker, half):
    fine(
        disks.fills_up(worker, [0, 16, 60, 208]),
        disks.fills_up(worker, [40, 96], half),
        disks.on_disks(worker, ["size=64k", "nr_inodes=3", "nr_inodes=13"]),
        disks.on_disks(worker, ["ro"], half),
    )


@pytest.mark.long
def test_files_that_may_not_grow_and_few_of_them_open(worker, half):
    fine(
        disks.limited(worker, "fsize", [0, 28672, 114688]),
        disks.limited(worker, "fsize", [98304], half),
        disks.limited(worker, "nofile", [5, 10, 13]),
    )


@pytest.mark.parametrize("what", ["done", "killed"])
def test_a_damaged_ledger_is_told_and_mended(what, worker, half):
    begin = half if what == "killed" else worker.reference_folder
    size = (begin / "ledger.db").stat().st_size
    alterations = damage.cuts(size, 2048) + damage.lost_sectors(size, 2560) + damage.flips(size, 640)
    fine(damage.damaged_ledgers(worker, begin, alterations, mend_every=4))
    size = (begin / "ledger.backup.db").stat().st_size
    alterations = damage.cuts(size, 4096) + damage.flips(size, 2048)
    fine(damage.damaged_ledgers(worker, begin, alterations, 4, "ledger.backup.db"))


def test_what_the_log_holds_outlives_the_main_file(worker, half):
    """The main file is damaged while SQLite's log, which is whole, holds most of the events."""
    fine(damage.damaged_ledgers(worker, half, damage.cuts(3000, 1024) + damage.flips(101, 100)))


@pytest.mark.long
def test_a_torn_log_gives_the_events_before_the_tear(worker):
    late = damage.killed_before_the_end(worker)
    size = (late / "ledger.db-wal").stat().st_size
    checkpoints = damage.cuts(7000, 3000) + damage.flips(7000, 3000)
    fine(
        damage.damaged_logs(worker, late, damage.cuts(size, 16 * 512), 6),
        damage.damaged_logs(worker, late, damage.flips(size, 16 * 512), 6),
        damage.rerun_after_damaged_checkpoints(worker, late, checkpoints),
    )


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    fine(damage.damaged_checkpoints(tmp_path, 2**16, lambda size: damage.cuts(size, 4096) + damage.flips(size, 2048)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["writes", "disks", "damage"])
def test_all_faults(name, worker, half):
    if name == "disks" and not storage_worker.can_mount():
        pytest.skip("needs the right to mount")
    every = {
        "writes": lambda: storage.every(worker, half, 48),
        "disks": lambda: disks.every(worker, half, 64),
        "damage": lambda: damage.every(worker, half, 8),
    }
    fine(*every[name]().values())
