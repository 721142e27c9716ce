"""Ray's side of a trial: a process that runs one after the other."""

import gc
import json
from typing import Any

import ray
import torch
from ray import tune

from tunekit.trial import TrialSetup, run_trial


class RayTrial(tune.Trainable):
    """Ray's side of a trial: each step is one message. A process runs many trials, one after the other.

    That a trial has started is said of the first of them only: the driver then knows where the others start.
    """

    def setup(self, config: dict[str, Any], setup: TrialSetup | None = None) -> None:
        """Start with the first trial of this process."""
        self.trial_setup = setup
        if config["gpu_memory"] is not None:  # the same for all trials of a process: Ray gives it those alike in this
            torch.cuda.set_per_process_memory_fraction(config["gpu_memory"])
        gc.freeze()  # what was imported stays: a trial's end need not look through it for what may go
        self.is_known = False  # whether the driver knows where this process runs
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go over to another trial."""
        assert self.trial_setup is not None
        self.messages = run_trial(self.trial_setup, json.loads(new_config["request"]))
        return True

    def step(self) -> dict[str, Any]:
        """Return the next message, as JSON so that Ray takes no part in it."""
        message = next(self.messages)
        if message["kind"] == "started" and self.is_known:
            message = next(self.messages)  # see RayCallback.on_trial_start
        elif message["kind"] == "started":
            message["node_id"], self.is_known = ray.get_runtime_context().get_node_id(), True
        return {"message": json.dumps(message)}
