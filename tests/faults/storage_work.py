"""Real work on an experiment's storage, without Ray: what the storage faults hit.

    python storage_work.py FOLDER     search a small space in FOLDER, or go on with that search
    python storage_work.py --serve    import all once, then do it in a forked process for each line of standard input

It is `tunekit.run` itself; only the engine is another, which runs one trial after the other in this process. Each event
is said on standard output once the ledger's `append` has returned, and each epoch as it is trained.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")

import numpy as np
import torch
from ray.tune.search import Searcher

import tunekit
from tunekit import experiment
from tunekit.errors import TunekitError
from tunekit.ledger import Ledger
from tunekit.searchers import RaySearcher
from tunekit.trial import TrialSetup, run_trial

NUM_TRIALS, MAX_EPOCHS, WIDTH = 3, 3, 40  # a checkpoint is of 6.4 KB: more than a block of a file system
TIMEOUT_S = 60
append = Ledger.append
filler = {}  # a file's path, and how many bytes it leaves free on its disk once the search has begun


def say(what):
    """Write a line at once, by a system call that the faults do not hit."""
    os.writev(1, [json.dumps(what).encode() + b"\n"])


def append_and_say(self, *arguments, **named):
    """Append to the ledger, and say what it acknowledged."""
    event = append(self, *arguments, **named)
    say({"acknowledged": list(event)})
    if filler and event.kind == "opened":
        disk = os.statvfs(self.folder)
        with open(filler["path"], "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - filler["leave"]))
    return event


class OnePlace:
    """One trial at a time, here."""

    def __call__(self):
        return 1

    def take(self, taken):
        return "", {}


class Engine:
    """Runs a search's trials one after the other, by the searcher and the messages that Ray would carry."""

    def __init__(self, asked, ledger, recorder, *options):
        self.asked, self.ledger, self.recorder = asked, ledger, recorder

    def search(self, proposer, num_trials, confirm):
        """Run every trial that has not ended, propose new ones up to `num_trials`, then confirm."""
        asked = self.asked
        setup = TrialSetup(
            self.ledger.folder.resolve(), asked.dataset, asked.space, asked.metric, asked.mode, asked.max_epochs,
            asked.train, 1,
        )  # fmt: skip

        def over():
            self.recorder.end_paused()
            confirm()

        searcher = RaySearcher(self.ledger, proposer, num_trials, OnePlace(), over)
        self.recorder.turns = searcher
        while not self.recorder.stop_reason():
            suggested = searcher.suggest("")
            if suggested == Searcher.FINISHED:
                break
            for message in run_trial(setup, json.loads(suggested["request"])):
                carried = json.loads(json.dumps(message))
                if self.recorder.record(suggested["trial"], carried) or self.recorder.stop_reason():
                    break


def train(config, dataset, state=None):
    """Walk at random; from its second epoch on, the trial of the highest rate has no value any more."""
    epoch, weight = (state["epoch"], state["weight"]) if state else (0, torch.zeros(WIDTH, WIDTH))
    while True:
        epoch += 1
        noise = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(config["seed"] % 2**40 + epoch))
        weight = weight * 0.9 + config["lr"] * noise
        value = float("nan") if config["lr"] > 0.5 and epoch > 1 else float(weight.mean())
        say({"trained": [config["seed"], config["lr"], epoch]})
        yield {"val_accuracy": value, "val_loss": float(weight.std())}, {"epoch": epoch, "weight": weight}


def search(folder):
    """Search, or go on; as on the command line, a mistake is one line and status 2."""
    images = np.zeros((20, 4, 4), np.uint8)
    dataset = tunekit.Dataset.from_arrays(train=(images, np.arange(20) % 2))
    space = {"lr": tunekit.loguniform(1e-3, 1), "width": tunekit.choice([1, 2])}
    try:
        tunekit.run(
            space, dataset, num_trials=NUM_TRIALS, max_epochs=MAX_EPOCHS, scheduler="none", keep_best=1, confirm=1,
            seed=1, train=train, verbose=0, name=folder.name, folder=folder.parent,
        )  # fmt: skip
    except TunekitError as error:
        print(f"tunekit: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def prepare():
    """Put what is special here in its place, once."""
    torch.set_num_threads(1)
    Ledger.append, experiment.Engine = append_and_say, Engine


def read(folder):
    """Read what the experiment holds, as anyone may at any time."""
    try:
        trials = tunekit.load_results(folder).trials
    except TunekitError as error:
        print(f"tunekit: {error}", file=sys.stderr, flush=True)
        return 2
    say({"read": {number: trial.history for number, trial in trials.items()}})
    return 0


def child(request, go, said):
    """What a forked process does: wait for the tracer, take on the limits, work."""
    signal.alarm(TIMEOUT_S)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.read(go, 1)
    status = 1
    filler.update(request["fill"])
    try:
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
        status = (read if request["read"] else search)(Path(request["folder"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def serve():
    """Do the work once for each request on standard input, and answer with how it ended and what it said."""
    for line in sys.stdin:
        request = json.loads(line)
        wait, go = os.pipe()
        heard, said = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            child(request, wait, said)
        os.close(wait)
        os.close(said)
        tracer = trace(request, pid) if request["strace"] else None
        os.write(go, b"!")
        os.close(go)
        with open(heard, encoding="utf-8", errors="replace") as lines:
            text = lines.read()
        _, status = os.waitpid(pid, 0)
        if tracer is not None:
            tracer.communicate()
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "text": text}), flush=True)


def trace(request, pid):
    """Attach strace to a process, and return it once it is attached."""
    command = ["strace", "-f", "-y", "-s", "0", "-o", request["log"], *request["strace"], "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = tracer.stderr.readline()
    if "attached" not in said:
        os.kill(pid, signal.SIGKILL)
        sys.exit(f"strace cannot attach: {said}")
    return tracer


if __name__ == "__main__":
    prepare()
    if sys.argv[1:] == ["--serve"]:
        print("ready", flush=True)
        serve()
    else:
        sys.exit(search(Path(sys.argv[1])))
