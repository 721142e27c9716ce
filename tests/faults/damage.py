"""Files cut short, with flipped bits and lost sectors: what is damaged is told, and nothing else is changed by it."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from repairs import badly_mended, events_of
from storage import TRACE, Found, broken, points
from storage_worker import Ended, Worker

from tunekit import checkpoint, paths
from tunekit.errors import CheckpointError
from tunekit.trial import newest_state
from tunekit.trial_files import trial_files

Alteration = tuple[str, Callable[[bytes], bytes]]
SECTOR = 512


def cuts(size: int, step: int = SECTOR) -> list[Alteration]:
    """Return alterations that cut a file of this size short, at every `step` bytes."""
    return [(f"cut to {at} bytes", lambda data, at=at: data[:at]) for at in range(0, size, step)]


def flips(size: int, step: int) -> list[Alteration]:
    """Return alterations that flip one bit, of a byte in every `step`."""
    return [(f"bit {at % 8} of byte {at} flipped", lambda data, at=at: _flipped(data, at)) for at in _every(size, step)]


def lost_sectors(size: int, step: int = SECTOR) -> list[Alteration]:
    """Return alterations that make zeros of one sector."""
    zeros = bytes(SECTOR)
    return [(f"sector at {at} lost", lambda d, at=at: d[:at] + zeros + d[at + SECTOR :]) for at in range(0, size, step)]


def _every(size: int, step: int) -> range:
    return range(step // 3, size, step if step % 8 == 1 else step + 1)  # so that the bits differ


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def killed_before_the_end(worker: Worker) -> Path:
    """Return the folder of a search killed as it wrote its last event: nearly all of it is in SQLite's log."""
    name, count, _ = [point for point in points(worker) if "pwrite" in point[0] and "ledger.db-wal" in point[2]][-1]
    folder = worker.new_folder()
    worker.work(folder, [*TRACE, "-e", f"inject={name}:signal=SIGKILL:when={count}"])
    return folder


def damaged_ledgers(
    worker: Worker, begin: Path, alterations: Iterable[Alteration], mend_every: int = 1, file: str = "ledger.db"
) -> Found:
    """Damage a ledger, which must be told or change nothing, and repair it; return (cases, what was wrong).

    Args:
        worker: does the work.
        begin: the experiment whose ledger is damaged, each time anew.
        alterations: of the file.
        mend_every: of the damaged ones, every so manieth is repaired, and the search is made again.
        file: which one is altered: the ledger, or its backup.
    """
    copy = worker.new_folder(begin)
    known = events_of(copy)
    cases, num_damaged, found = 0, 0, []
    for label, alter in alterations:
        cases += 1
        folder = worker.new_folder(begin)
        (folder / file).write_bytes(alter((folder / file).read_bytes()))
        before = worker.new_folder(folder)
        read, written = events_of(folder), events_of(folder, write=True)
        wrong = []
        for got in (read, written):
            if isinstance(got, str) and (f"tunekit repair {folder}" not in got or "\n" in got):
                wrong.append(f"not one line that says how to repair it: {got!r}")
            elif not isinstance(got, str) and got != known:
                wrong.append(f"nothing was said, but {len(set(known) - set(got))} of {len(known)} events are others")
        if isinstance(written, str):
            num_damaged += 1
            wrong += badly_mended(worker, before, folder) if num_damaged % mend_every == 0 else []
        found += [f"{file} {label}: {text}" for text in wrong]
        shutil.rmtree(folder.parent)
        shutil.rmtree(before.parent)
    shutil.rmtree(copy.parent)
    return cases, found


def damaged_logs(worker: Worker, begin: Path, alterations: Iterable[Alteration], go_on_every: int = 1) -> Found:
    """Damage SQLite's log of a ledger, which must open with the events before the damage; return (cases, failures)."""
    copy = worker.new_folder(begin)
    known = events_of(copy)
    cases, found, longest = 0, [], {}
    for label, alter in alterations:
        cases += 1
        folder = worker.new_folder(begin)
        log = folder / "ledger.db-wal"
        log.write_bytes(alter(log.read_bytes()))
        (folder / "ledger.db-shm").unlink(missing_ok=True)  # as after the machine went down
        got = events_of(folder, write=True)
        wrong = []
        if isinstance(got, str) or got != known[: len(got)]:
            wrong.append(got if isinstance(got, str) else "the events are not the first of those that were written")
        else:
            longest[label] = len(got)
            if cases % go_on_every == 0:
                wrong += broken(worker, folder, [worker.work(folder)])
        found += [f"ledger.db-wal {label}: {text}" for text in wrong]
        shutil.rmtree(folder.parent)
    lengths = list(longest.values())
    if "cut" in next(iter(longest), "") and (lengths != sorted(lengths) or len(known) - lengths[-1] > 2):
        found.append(f"ledger.db-wal cut later holds less: {lengths}")
    shutil.rmtree(copy.parent)
    return cases, found


def damaged_checkpoints(folder: Path, size: int, make: Callable[[int], list[Alteration]]) -> Found:
    """Damage a trial's newest checkpoint, which must be noticed, and the one before taken; return (cases, failures)."""
    files = trial_files(folder, 0)
    files.prepare()
    folder = files.folder
    for epoch in (1, 2):
        about = {"trial": 0, "params": {}, "epoch": epoch, "history": [{"val_accuracy": 0.5}] * epoch}
        state = {"weight": torch.arange(size // 4, dtype=torch.float32) + epoch, "epoch": epoch}
        checkpoint.save(paths.epoch_checkpoint(folder, epoch), state, about)
    path = paths.epoch_checkpoint(folder, 2)
    whole = path.read_bytes()
    found, alterations = [], make(len(whole))
    for label, alter in alterations:
        path.write_bytes(alter(whole))
        for load in (checkpoint.load, lambda path: checkpoint.from_bytes(path.read_bytes(), path.name)):
            try:
                load(path)
                found.append(f"checkpoint {label}: it was loaded")
            except CheckpointError as error:
                if "\n" in str(error):
                    found.append(f"checkpoint {label}: more than a line: {error}")
        state, history, *_ = newest_state(files, {"epoch": 2, "proposal": {"params": {}}})
        if state is None or state["epoch"] != 1 or len(history) != 1:
            found.append(f"checkpoint {label}: the search goes on from {state and state['epoch']}")
    path.write_bytes(whole)
    return len(alterations), found


def rerun_after_damaged_checkpoints(worker: Worker, half: Path, alterations: Iterable[Alteration]) -> Found:
    """Damage every checkpoint of a search that was killed, and go on with it; return (cases, what was wrong)."""
    cases, found = 0, []
    for label, alter in alterations:
        cases += 1
        folder = worker.new_folder(half)
        for path in folder.glob("trials/*/0*.safetensors"):
            path.write_bytes(alter(path.read_bytes()))
        again: Ended = worker.work(folder)
        found += [f"checkpoints {label}: {text}" for text in broken(worker, folder, [again])]
        shutil.rmtree(folder.parent)
    return cases, found


def every(worker: Worker, half: Path, step: int = 1) -> dict[str, Found]:
    """Return what every kind of damage found, by name.

    Args:
        worker: does the work.
        half: the folder of a search that was killed in its middle.
        step: 1 takes all cuts, every 64th byte and every sector; n about every nth of these, and mends fewer.
    """
    late, done, trial = killed_before_the_end(worker), worker.reference_folder, worker.new_folder()
    trial.mkdir()
    found: dict[str, Found] = {}
    for what, begin in (("of a search that is done", done), ("of a search that was killed", half)):
        size = (begin / "ledger.db").stat().st_size
        for how, alterations in (
            ("cut short", cuts(size, step * SECTOR)),
            ("with lost sectors", lost_sectors(size, step * SECTOR)),
            ("with a flipped bit", flips(size, step * 64)),
        ):
            found[f"the ledger {what}, {how}"] = damaged_ledgers(worker, begin, alterations, 1 + step // 2)
    size = paths.backup_db(done).stat().st_size
    for how, alterations in (("cut short", cuts(size, step * SECTOR)), ("with a flipped bit", flips(size, step * 128))):
        found[f"the ledger's backup {how}"] = damaged_ledgers(worker, done, alterations, 1, "ledger.backup.db")
    size = (late / "ledger.db-wal").stat().st_size
    found["SQLite's log cut short"] = damaged_logs(worker, late, cuts(size, step * SECTOR), 8)
    found["SQLite's log with a flipped bit"] = damaged_logs(worker, late, flips(size, step * SECTOR), 8)
    found["a checkpoint cut short"] = damaged_checkpoints(trial, 2**18, lambda size: cuts(size, 4096))
    found["a checkpoint with a flipped bit"] = damaged_checkpoints(trial, 2**18, lambda size: flips(size, step * 512))
    both = cuts(7000, step * 500) + flips(7000, step * 500)
    found["checkpoints damaged, and gone on from"] = rerun_after_damaged_checkpoints(worker, late, both)
    return found
