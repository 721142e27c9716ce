"""A cut of every family of kills and mishaps, and more of them among the long tests: see kills.py and mishaps.py."""

import random
import signal
from pathlib import Path

import kills
import load
import mishaps
import pytest
from cases import Case

from tunekit.ledger import Ledger

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux: it looks into /proc")


def fine(found):
    """Check that there were cases, and that nothing was wrong in any."""
    cases, failures = found[:2]
    assert not failures, f"{len(failures)} in {cases} cases:\n" + "\n".join(failures)
    if cases == 0:
        pytest.skip("this machine has not what it needs")


def test_a_search_survives_the_death_of_a_worker_and_of_its_driver():
    with Case(4, "--epochs", "4", "--loop", "counted", "--scheduler", "none") as case:
        process = case.fork()
        case.wait_for_epochs(2, process)
        assert kills.kill_worker(case, random.Random(0), signal.SIGKILL)
        case.wait_for_epochs(1, process)
        assert case.kill(process)
        case.finish(case.fork())
        case.check()
        ledger = Ledger(case.folder)
        kinds = [event.kind for event in ledger.events()]
        ledger.close()
        assert kinds.count("opened") == 2 and kinds.count("retry") >= 1


@pytest.mark.long
def test_a_search_killed_as_it_ends_leaves_nothing_behind():
    with Case(2, "--epochs", "1", "--loop", "counted", "--scheduler", "none") as case:
        process = case.fork()
        case.wait_for_epochs(2, process)
        assert case.kill(process, group=True)
        case.finish(case.fork())
        case.check()


@pytest.mark.long
def test_training_killed_at_random_ends_with_the_same_bits():
    fine(kills.train_kills(3))


@pytest.mark.long
@pytest.mark.parametrize("group", [False, True])
def test_drivers_killed_at_random(group):
    fine(kills.driver_kills(3, seed=int(group), group=group))


@pytest.mark.long
def test_workers_killed_one_after_the_other():
    fine(kills.worker_kills(3, num_trials=6))


FAMILIES = {
    "hung": lambda: kills.hung_workers(1),
    "hung-between": kills.hung_between_trials,
    "ways": mishaps.ways_to_die,
    "signals": lambda: mishaps.signals(1),
    "twice": lambda: mishaps.twice_at_once(1),
    "moved": mishaps.moved,
    "clock": mishaps.wrong_clock,
    "lock": mishaps.stale_lock,
    "read-only": mishaps.read_only,
    "alike": mishaps.fails_alike,
    "determinism": lambda: mishaps.determinism(1),
    "first-writes": lambda: mishaps.first_writes(3),
}


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_mishaps(family):
    fine(FAMILIES[family]())


@pytest.mark.long
def test_many_results_a_second():
    fine(load.many_results(100))
