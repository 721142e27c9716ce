"""Damage to a ledger is found, and mended from its whole rows, its backup and the checkpoints' headers."""

import sqlite3

import pytest
from played import METRIC, new_ledger, play, propose

from tunekit import checkpoint, paths
from tunekit.errors import ExperimentError
from tunekit.ledger import Ledger
from tunekit.repair import repair


def known(folder):
    ledger = Ledger(folder)
    found = {n: (t.state, [m[METRIC] for m in t.history], t.config) for n, t in ledger.trials().items()}
    ledger.close()
    return found


def filled(folder, num_trials=30):
    """Play a search whose last trial is running, with its checkpoints."""
    ledger = new_ledger(folder)
    for number in range(num_trials):
        play(ledger, propose(ledger, {"lr": number / 7}), [number / 30, 0.5], "finished")
    number = propose(ledger, {"lr": 9.0})
    save(folder, ledger, [0.25, 0.75])
    play(ledger, number, [0.25, 0.75], None)
    ledger.close()


def save(folder, ledger, values):
    trial = list(ledger.unfinished.values())[-1]
    place = paths.make_private(paths.trial_folder(folder, trial.number))
    for epoch in range(1, len(values) + 1):
        history = [{METRIC: value} for value in values[:epoch]]
        about = {"trial": trial.number, **trial.proposal, "epoch": epoch, "history": history}
        checkpoint.save(paths.epoch_checkpoint(place, epoch), {"epoch": epoch}, about)


def change(folder, statement):
    """Change rows behind the ledger's back."""
    connection = sqlite3.connect(paths.ledger_db(folder))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("UPDATE events SET data = replace(data, '0.5', '0.9') WHERE number = 9", "event 9 is altered"),
        ("UPDATE events SET at_s = at_s + 1 WHERE number = 3", "event 3 is altered"),
        ("DELETE FROM events WHERE number = 5", "event 5 is missing"),
        ("DELETE FROM events WHERE number > 90", "it ends at event 90, but its backup at 154"),
        ("DROP TABLE events", "damaged"),
    ],
)
def test_what_was_changed_is_found_and_mended_from_the_backup(statement, how, tmp_path):
    filled(tmp_path)
    before = known(tmp_path)
    change(tmp_path, statement)
    with pytest.raises(ExperimentError, match=rf"{how}.*: tunekit repair"):
        Ledger(tmp_path, write=True)
    said = repair(tmp_path)
    assert how in said[0] and "ledger.damaged-1.db" in said[-1]
    assert known(tmp_path) == before
    assert repair(tmp_path) == [f"the ledger of {tmp_path} is whole: nothing to mend"]


def test_what_no_backup_holds_comes_from_the_checkpoints(tmp_path):
    filled(tmp_path)
    before = known(tmp_path)
    paths.backup_db(tmp_path).unlink()
    change(tmp_path, "DELETE FROM events WHERE number > 150 OR number = 4")
    said = repair(tmp_path)
    after = known(tmp_path)
    assert after[0] == ("running", [0.0], {"lr": 0.0})  # its second epoch is lost, and with it what followed
    assert after[30] == ("waiting", [0.25, 0.75], {"lr": 9.0})  # all of it was gone
    assert {n: trial for n, trial in after.items() if n not in (0, 30)} == {
        n: trial for n, trial in before.items() if n not in (0, 30)
    }
    assert "3 more were in checkpoints" in said[1]


def test_a_ledger_that_is_gone_comes_back(tmp_path):
    filled(tmp_path)
    before = known(tmp_path)
    paths.ledger_db(tmp_path).unlink()
    with pytest.raises(ExperimentError, match="its backup at"):
        Ledger(tmp_path, write=True)
    repair(tmp_path)
    assert known(tmp_path) == before


def test_only_an_experiment_is_mended_and_only_one_at_rest(tmp_path):
    with pytest.raises(ExperimentError, match="is no experiment"):
        repair(tmp_path)
    ledger = new_ledger(tmp_path)
    with pytest.raises(ExperimentError, match="in use by another run"):
        repair(tmp_path)
    ledger.close()
