"""The same work done by others, by tunekit, and by no framework at all; each runs in a process of its own.

Each is written as its documentation says; nothing is left out that it advises for speed on CPUs, and nothing added
that slows it down. What each function returns is {"accuracies": one per config, at its last epoch, ...}.
"""

import multiprocessing
import os
import tempfile
import time
from typing import Any

import measure
from work import CLASSES, Work, arrays_of, cores

_kept: dict[str, Any] = {}  # per process: what was loaded once


def ray_tutorial(work: Work, cpus: int = 1, num_workers: int = 0) -> dict[str, Any]:
    """Ray Tune as in "How to use Tune with PyTorch", without its scheduler.

    https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html: data loaded in the function, ToTensor and
    Normalize on each image, a checkpoint with every report. One core for each trial is Tune's default and fills the
    machine: https://docs.ray.io/en/latest/tune/tutorials/tune-resources.html. The data loader's workers are left at
    PyTorch's default, none, as in Ray's example on MNIST (ray/tune/examples/mnist_pytorch.py): there is no core free.
    """

    def trial(config: dict[str, Any], work: Work) -> None:
        import tutorials

        model, optimizer = tutorials.model_and_adam(work, config["lr"])
        loaders = tutorials.loaders(work, config["batch_size"], num_workers, normalize=True)
        for _ in range(work.epochs):
            accuracy = tutorials.epoch_of_ray(model, optimizer, *loaders)
            _report(work, accuracy, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})

    return _tune(work, trial, {"cpu": cpus}, reuse_actors=False)


def ray_tutorial_two(work: Work) -> dict[str, Any]:
    """The same with two cores for each trial, as the tutorial's own call has it, and two loader processes.

    It asks for eight of them; PyTorch warns of more than there are cores.
    """
    return ray_tutorial(work, cpus=min(2, cores()), num_workers=min(2, cores()))


def ray_tensors(work: Work) -> dict[str, Any]:
    """Ray Tune with warm workers, the images loaded once in each, one thread a trial, and the plain float32 loop.

    https://docs.ray.io/en/latest/tune/api/doc/ray.tune.TuneConfig.html: reuse_actors.
    """
    return _tune(work, _trial_on_tensors(fast=False), {"cpu": 1}, reuse_actors=True)


def ray_fast(work: Work) -> dict[str, Any]:
    """Ray Tune with all of that, and all that tunekit does in its loop: precision, layout and fused optimizer."""
    return _tune(work, _trial_on_tensors(fast=True), {"cpu": 1}, reuse_actors=True)


def optuna_example(work: Work) -> dict[str, Any]:
    """Optuna as in its PyTorch example: one process, torch's own number of threads, data loaders.

    https://github.com/optuna/optuna-examples/blob/main/pytorch/pytorch_simple.py. The fixed list comes by
    `enqueue_trial`, and nothing is pruned, as nobody here stops a trial early.
    """
    import optuna
    import torch
    import tutorials

    def objective(trial: Any) -> float:
        model, optimizer = tutorials.model_and_adam(work, trial.suggest_float("lr", 1e-5, 1e-1, log=True))
        batch_size = trial.suggest_categorical("batch_size", [32, 64, 128])
        loaders = tutorials.loaders(work, batch_size, 0, normalize=False)
        for epoch in range(work.epochs):
            accuracy = tutorials.epoch_of_optuna(model, optimizer, *loaders)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.exceptions.TrialPruned()
        return accuracy

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    for config in work.config_list:
        study.enqueue_trial(config)
    study.optimize(objective, n_trials=work.configs)
    return {"accuracies": [trial.value for trial in study.trials], "threads": torch.get_num_threads()}


def bare(work: Work) -> dict[str, Any]:
    """No framework: a process of one thread for each core, tensors in memory, and every trick.

    https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html: channels_last, bfloat16, one process a core.
    """
    import loops
    import torch

    torch.set_num_threads(1)
    tricks = loops.tricks_of(work)
    _kept["work"], _kept["tricks"] = work, tricks
    _kept["data"] = loops.tensors_of(work, tricks.layout)  # the processes that are forked share it
    began = time.time()
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        done = pool.map(_bare_config, work.config_list, chunksize=1)
    return {"accuracies": done, "span_s": time.time() - began}


def tunekit_run(work: Work) -> dict[str, Any]:
    """tunekit: the same configs, given with `start_from`; the first of them is the default config."""
    import tunekit
    from tunekit.ledger import Ledger, read_experiment

    arrays = arrays_of(work)
    space = {
        "backbone": work.backbone,
        "optimizer": "adam",
        "lr": tunekit.loguniform(1e-4, 1e-2),
        "batch_size": tunekit.choice([32, 64, 128]),
    }
    results = tunekit.run(
        space, tunekit.Dataset.from_arrays(**arrays, name="work"), start_from=work.config_list,
        num_trials=work.configs, max_epochs=work.epochs, searcher="random", scheduler="none", seed=work.seed,
        gpus_per_trial=work.gpus, verbose=0, name="work", folder=work.scratch,
    )  # fmt: skip
    trials = list(results.trials.values())
    tried = [{key: trial.config[key] for key in ("lr", "batch_size")} for trial in trials]
    assert tried == work.config_list, tried
    assert all(len(trial.history) == work.epochs for trial in trials)
    times = {kind: [e.time for e in Ledger(results.folder).events() if e.kind == kind] for kind in ("started", "ended")}
    return {
        "accuracies": [trial.history[-1]["val_accuracy"] for trial in trials],
        "speeds": [epoch["images_per_s"] for trial in trials for epoch in trial.history],
        "span_s": max(times["ended"]) - min(times["started"]),
        "arithmetic": read_experiment(results.folder)["arithmetic"],
    }


def arithmetic(work: Work) -> dict[str, Any]:
    """Return the precision and layout that tunekit finds to be fastest here, for the work's network and images."""
    import numpy as np

    import tunekit
    from tunekit.ledger import read_experiment

    images = np.random.default_rng(0).integers(0, 256, (200, work.size, work.size, work.channels), np.uint8)
    dataset = tunekit.Dataset.from_arrays(train=(images, np.arange(200) % CLASSES))
    results = tunekit.train({"backbone": work.backbone}, dataset, max_epochs=1, verbose=0, folder=work.scratch)
    chosen = next(iter(read_experiment(results.folder)["arithmetic"].values()))
    return {key: chosen[key] for key in ("precision", "memory_format")}


def _tune(work: Work, trial: Any, resources: dict[str, float], reuse_actors: bool) -> dict[str, Any]:
    import ray
    from ray import tune

    ray.init(address="local", _temp_dir=os.path.join(work.scratch, "ray"))

    def trainable(config: dict[str, Any], work: Work) -> None:
        trial(config["picked"], work)

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, work=work), resources),
        param_space={"picked": tune.grid_search(work.config_list)},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", reuse_actors=reuse_actors),
        run_config=tune.RunConfig(storage_path=os.path.join(work.scratch, "results"), verbose=0),
    )
    found = {}
    for result in tuner.fit():
        if result.error:
            raise result.error
        found[tuple(result.config["picked"].values())] = result.metrics
    assert all(metrics["training_iteration"] == work.epochs for metrics in found.values())
    ray.shutdown()
    return {"accuracies": [found[tuple(config.values())]["accuracy"] for config in work.config_list]}


def _trial_on_tensors(fast: bool) -> Any:
    def trial(config: dict[str, Any], work: Work) -> None:
        import loops
        import torch

        torch.set_num_threads(1)
        tricks = loops.tricks_of(work) if fast else loops.Tricks()
        if not hasattr(loops, "kept"):
            loops.kept = loops.tensors_of(work, tricks.layout)  # the process runs many trials, and loads once
        for epoch in loops.train(config, loops.kept, work, tricks):
            _report(work, epoch["accuracy"], epoch["state"])

    return trial


def _report(work: Work, accuracy: float, state: dict[str, Any]) -> None:
    import torch
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if work.checkpoints:
            torch.save(state, os.path.join(folder, "checkpoint.pt"))
            checkpoint = tune.Checkpoint.from_directory(folder)
        tune.report({"accuracy": accuracy}, checkpoint=checkpoint)


def _bare_config(config: dict[str, Any]) -> float:
    import loops

    return [epoch["accuracy"] for epoch in loops.train(config, _kept["data"], _kept["work"], _kept["tricks"])][-1]


PEERS = (
    ray_tutorial, ray_tutorial_two, ray_tensors, ray_fast, optuna_example, bare, tunekit_run, arithmetic
)  # fmt: skip

if __name__ == "__main__":
    measure.inside(PEERS)
