"""run() and train(): from what was asked to results, through Ray Tune and the ledger."""

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import torch

from tunekit.asked import check_asked, check_config_alone
from tunekit.confirm import propose_confirmations
from tunekit.datasets import load_dataset
from tunekit.datasets.base import Dataset
from tunekit.engine import Engine
from tunekit.ledger import read_experiment
from tunekit.limits import check_limits
from tunekit.plan import Plan, make_plan
from tunekit.predictions import compare
from tunekit.recorder import Recorder
from tunekit.remote import place_of
from tunekit.reporter import reporting
from tunekit.results import Results, load_results
from tunekit.schedulers import Decisions
from tunekit.session import check_room, finish, followed, interruptible, open_folder, say, say_notes, session
from tunekit.space import Config, labels, max_size_of
from tunekit.spaces import find_space
from tunekit.storage import as_place
from tunekit.sweeps import arguments, is_sweep, read_sweep
from tunekit.tracking import check_trackers, tracked
from tunekit.training import pick_device
from tunekit.trial import TrainFunction, TrialSetup, run_trial
from tunekit.watch import view


# fmt: off
@overload
def run(
    space: Any, dataset: str | Path | Dataset, *, data_dir: str | Path | None = ..., metric: str | None = ...,
    mode: str | None = ..., num_trials: int = ..., max_epochs: int = ..., time_budget_s: float | None = ...,
    searcher: str = ..., scheduler: str = ..., start_from: Sequence[Config] = ..., confirm: int = ...,
    train: TrainFunction | None = ..., cpus_per_trial: int = ..., gpus_per_trial: float | str = ..., seed: int = ...,
    split_seed: int = ..., trial_timeout_s: float | None = ..., on_bad_image: str = ..., keep_best: int = ...,
    tracker: str | Sequence[str] | None = ..., verbose: int = ..., name: str | None = ..., folder: str | Path = ...,
    address: str | None = ..., dry_run: Literal[False] = ...,
) -> Results: ...
@overload
def run(space: Any, dataset: str | Path | Dataset, *, dry_run: Literal[True], **others: Any) -> Plan: ...
# fmt: on
def run(  # type: ignore[misc]  # the second signature leaves the others to this one
    space: Any,
    dataset: str | Path | Dataset,
    *,
    data_dir: str | Path | None = None,
    metric: str | None = None,
    mode: str | None = None,
    num_trials: int = 20,
    max_epochs: int = 10,
    time_budget_s: float | None = None,
    searcher: str = "forecast",
    scheduler: str = "auto",
    start_from: Sequence[Config] = (),
    confirm: int = 0,
    train: TrainFunction | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float | str = "auto",
    seed: int = 0,
    split_seed: int = 0,
    trial_timeout_s: float | None = None,
    on_bad_image: str = "error",
    keep_best: int = 5,
    tracker: str | Sequence[str] | None = None,
    verbose: int = 1,
    name: str | None = None,
    folder: str | Path = "experiments",
    address: str | None = None,
    dry_run: bool = False,
) -> Results | Plan:
    """Search a space for the config that trains best on a dataset.

    The same call goes on where it stopped, or gives the finished results; a larger `num_trials` or `time_budget_s`
    extends the search. Every experiment tries the default config first.

    Args:
        space: a dict of name to distribution, choice or constant; the name of a module of `search_spaces`; a path to
            such a file; or a W&B sweep configuration, a dict or a YAML file, which also sets searcher, scheduler,
            metric, mode, num_trials, max_epochs and name where the call does not.
        dataset: a registered name, a folder of class folders, a table of path and target, or a Dataset.
        data_dir: where a registered dataset's files lie: a path or a URL.
        metric: what is optimised; val_accuracy, or val_mse for regression, when None.
        mode: "max" or "min"; by the metric's name when None.
        num_trials: how many configs are tried, in all, at least 1.
        max_epochs: the most epochs a trial gets, at least 1.
        time_budget_s: seconds the search may run for, over all its sessions; None is no limit.
        searcher: which configs to try: tpe, gp, cmaes, qmc, random or grid; or forecast, which lets trials take turns,
            an epoch each, and goes on with the one, or tries the new config, whose end it expects most of.
        scheduler: which trials to stop early: asha, hyperband, median or none; "auto" is none with the searcher
            forecast, which does that itself, else asha.
        start_from: configs to try right after the default one; keys left out take their defaults.
        confirm: on how many seeds to re-train the winner and the default config, for a verdict; 0 is none.
        train: a training loop of your own: (config, dataset, state=None) -> iterator of (metrics, state).
        cpus_per_trial: cores, and threads, of each trial.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; "auto" finds out, where there are any, how
            much of one the largest config of the space needs, and lets as many trials share it, each held to its part;
            with a training loop of one's own it is one.
        seed: fixes the proposals and each trial's random numbers.
        split_seed: fixes which images are train, val and test.
        trial_timeout_s: a trial that ends no epoch for so many seconds is killed and tried again, one whose worker is
            being started after two minutes at the soonest; None is for ever.
        on_bad_image: "error", or "skip" to leave unreadable images out.
        keep_best: how many of the best trials keep their checkpoint.
        tracker: one name or several: "tensorboard" or "wandb" gets every epoch of every trial, a run for each trial.
        verbose: 0 is silent, 1 shows progress.
        name: of the experiment; made from the dataset and what was asked when None.
        folder: where experiments lie: a path, or a URL such as s3://bucket/experiments.
        address: of a Ray cluster, or "auto"; None is this machine.
        dry_run: begin nothing, but train a few steps of each backbone here, and return a Plan: how long the search
            would take on this machine, `plan.on(workers, price_per_hour)` on several, what it needs, what it costs.

    Returns:
        Results, which `load_results(folder)` gives again; with dry_run a Plan.

    Raises:
        TunekitError: anything that cannot work, before the first trial; see its subclasses.
        KeyboardInterrupt: after Ctrl-C, once all is safely stopped.

    Example:
        >>> import tunekit
        >>> space = {"lr": tunekit.loguniform(1e-4, 1e-2)}
        >>> results = tunekit.run(space, "digits", num_trials=2, max_epochs=1, verbose=0)
        >>> len(results.dataframe)
        2
    """
    trackers = check_trackers(tracker)
    where: dict[str, str] = {}
    if is_sweep(space):
        sweep = read_sweep(space, builtin=train is None)
        given = {"searcher": searcher, "metric": metric, "mode": mode, "scheduler": scheduler,
                 "num_trials": num_trials, "max_epochs": max_epochs, "name": name}  # fmt: skip
        said = arguments(sweep, given, {key: inspect.signature(run).parameters[key].default for key in given})
        searcher, metric, mode, scheduler, num_trials, max_epochs, name = (said[key] for key in given)
        space, where = sweep.space, {"project": sweep.project, "entity": sweep.entity}
        say(verbose, *sweep.notes)
    limits = {"num_trials": num_trials, "time_budget_s": time_budget_s, "confirm": confirm, "keep_best": keep_best,
              "cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial, "trial_timeout_s": trial_timeout_s,
              "tracker": trackers}  # fmt: skip
    check_limits(limits)
    space = find_space(space)
    size = max_size_of(space) if train is None else None
    data = load_dataset(dataset, data_dir=data_dir, max_size=size, split_seed=split_seed, on_bad_image=on_bad_image)
    asked = check_asked(space, data, metric, mode, max_epochs, searcher, scheduler, start_from, train, seed)
    if dry_run:
        return make_plan(asked, limits, as_place(folder), name)
    device = torch.device("cpu") if gpus_per_trial == 0 else pick_device()
    place, changed = open_folder(as_place(folder), name, asked, device)
    say_notes(verbose, data)
    say(verbose, *(f"since this experiment began: {line}" for line in changed))
    proposer = asked.proposer()
    num_trials = len(proposer.grid) or num_trials
    told = {"changed": changed, "trials_in_all": num_trials, "epochs_in_all": proposer.num_epochs(num_trials)}
    with session(place, limits | told, verbose) as ledger, tracked(trackers, place, where) as notes:
        decisions = Decisions(asked.scheduler, max_epochs, asked.metric, asked.mode, ledger.events())
        recorder = Recorder(ledger, decisions, keep_best, time_budget_s)
        engine = Engine(asked, ledger, recorder, cpus_per_trial, gpus_per_trial, trial_timeout_s, address)
        with followed(recorder), view(place, verbose), reporting(place, ledger.problems):
            confirmed = partial(propose_confirmations, ledger, asked.metric, asked.mode, seed, confirm)
            engine.search(proposer, num_trials, confirmed)
            compare(place_of(place), asked, limits, recorder)
    say(verbose, *notes)
    finish(recorder, place, verbose)
    return load_results(place, dataset=data, space=asked.space)


def train(
    config: Config,
    dataset: str | Path | Dataset,
    *,
    data_dir: str | Path | None = None,
    max_epochs: int = 10,
    seed: int = 0,
    split_seed: int = 0,
    train: TrainFunction | None = None,
    on_bad_image: str = "error",
    tracker: str | Sequence[str] | None = None,
    verbose: int = 1,
    name: str | None = None,
    folder: str | Path = "experiments",
) -> Results:
    """Train one config in this process, where a debugger can follow; the same call goes on where it stopped.

    Args:
        config: any part of `tunekit.config.KEYS`; the rest takes its default.
        dataset, data_dir, max_epochs, seed, split_seed, train, on_bad_image, tracker, verbose, name, folder: as in
            `run`.

    Returns:
        Results of an experiment of one trial.

    Raises:
        TunekitError: as `run`.
        TrainingError: the training failed; its reason is in the trial's error.txt.

    Example:
        >>> import tunekit
        >>> results = tunekit.train({"backbone": "mlp"}, "digits", max_epochs=2, verbose=0)
        >>> results.best_epoch
        2
    """
    trackers = check_trackers(tracker)
    size = max_size_of(config) if train is None and isinstance(config, dict) else None
    data = load_dataset(dataset, data_dir=data_dir, max_size=size, split_seed=split_seed, on_bad_image=on_bad_image)
    asked = check_config_alone(config, data, max_epochs, train, seed)
    place, changed = open_folder(as_place(folder), name, asked, pick_device())
    say_notes(verbose, data)
    say(verbose, *(f"since this experiment began: {line}" for line in changed))
    with session(place, {"num_trials": 1, "changed": changed}, verbose) as ledger, tracked(trackers, place) as notes:
        metric, mode = asked.metric, asked.mode
        recorder = Recorder(ledger, Decisions("none", max_epochs, metric, mode), 1, None)
        if ledger.next_number == 0:
            described = {"config": labels(config), "params": {}, "role": "search", "source": "given", "seed": seed}
            ledger.append("proposed", described, 0)
        setup = TrialSetup(
            place_of(place), data, config, metric, mode, max_epochs, asked.train, num_threads=None,
            choices=read_experiment(place)["arithmetic"],
        )  # fmt: skip
        with followed(recorder), view(place, verbose), reporting(place, ledger.problems), interruptible(recorder):
            if ledger.unfinished:
                check_room(place, asked, num_going=1, keep_best=1)
            while ledger.unfinished and not recorder.stop_reason():  # again, where its memory ran out
                for message in run_trial(setup, ledger.unfinished[0].request):
                    if recorder.record(0, message) or recorder.stop_reason():
                        break
    say(verbose, *notes)
    finish(recorder, place, verbose)
    return load_results(place, dataset=data, space=config)
