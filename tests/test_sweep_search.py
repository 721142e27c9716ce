"""The tutorial's W&B sweep, as its YAML stands: searched here with no server, and read back with W&B's own reader."""

import pytest
from wandb_read import read_run

import tunekit

SWEEP = """
method: bayes
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}
  batch_size: {values: [32, 64, 128, 256]}
  backbone: {value: mlp}
run_cap: 3
"""


@pytest.mark.long
def test_the_tutorials_sweep(ray, data, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    mnist = tunekit.load_dataset("mnist", data_dir=data)
    small = tunekit.Dataset.from_arrays(train=(mnist.train.images[:600], mnist.train.targets[:600]))
    results = tunekit.run(
        tmp_path / "sweep.yaml", small, tracker="wandb", max_epochs=2, folder=tmp_path, name="sweep", verbose=0
    )
    assert (results.metric, results.mode) == ("val_loss", "min")
    assert len(results.dataframe) == 3
    assert set(results.dataframe["config/batch_size"]) <= {32, 64, 128, 256}
    runs = [read_run(path) for path in results.folder.rglob("*.wandb")]
    assert len(runs) == 3
    assert {run["group"] for run in runs} == {"sweep"}
    logged = sorted((run["config"]["lr"], len(run["history"])) for run in runs)
    assert logged == sorted((trial.config["lr"], len(trial.history)) for trial in results.trials.values())
    for run in runs:
        trial = next(trial for trial in results.trials.values() if trial.config["lr"] == run["config"]["lr"])
        assert [row["val_loss"] for row in run["history"]] == [metrics["val_loss"] for metrics in trial.history]
