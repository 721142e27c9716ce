"""Weights & Biases as a tracker: a run for each trial."""

import hashlib
import netrc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tunekit import paths
from tunekit.errors import ConfigError, ExperimentError, UnknownNameError, unknown_name
from tunekit.events import Event, Trial
from tunekit.ledger import Ledger


class Wandb:
    """Weights & Biases: a run for each trial, in a group named like the experiment; online, offline or not at all.

    W&B's own environment variables hold: WANDB_MODE, WANDB_API_KEY, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR. WB_KEY,
    WB_PROJECT and WB_USER stand in for three of them. Offline files lie in the experiment's folder, unless WANDB_DIR
    says otherwise; `wandb sync` uploads them, and so does `tunekit sync` once W&B is online.

    A run's id comes from the experiment and the trial's number, and a step is an epoch. Online, a trial that was cut
    off is resumed behind the last step that W&B has. Offline, its file is written anew, as the file of a process that
    was killed lacks its last seconds: either way every epoch is there once.

    Source: W&B, Environment variables, https://docs.wandb.ai/models/track/environment-variables; Resume a run.
    """

    MODES: ClassVar = ("online", "offline", "disabled", "shared", "run", "dryrun")
    SECRETS: ClassVar[tuple[str, ...]] = ("WANDB_API_KEY", "WB_KEY")
    STAND_INS: ClassVar = {"WB_KEY": "WANDB_API_KEY", "WB_PROJECT": "WANDB_PROJECT", "WB_USER": "WANDB_ENTITY"}
    OF_ONE_RUN: ClassVar = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE",
                            "WANDB_SWEEP_ID", "WANDB_SERVICE", "WANDB_NOTEBOOK_NAME")  # fmt: skip
    # The machine that W&B would describe is the driver's, not the one that the trial runs on; console and code are
    # no metrics; and what is logged is to be in the file within a second.
    SETTINGS: ClassVar[dict[str, Any]] = {
        "silent": True, "console": "off", "symlink": False, "disable_git": True, "disable_code": True,
        "x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
        "x_transaction_log_flush_interval": 1.0,
    }  # fmt: skip

    @staticmethod
    def environment(environ: Mapping[str, str], folder: Path) -> dict[str, str] | None:
        """Return W&B's environment, or None when WANDB_MODE is disabled."""
        made = {key: value for key, value in environ.items() if key not in Wandb.OF_ONE_RUN}
        for ours, theirs in Wandb.STAND_INS.items():
            value = made.pop(ours, "")
            if value and not made.get(theirs):
                made[theirs] = value
        made.setdefault("WANDB_DIR", str(paths.tracker_folder(folder.resolve())))
        mode = made.get("WANDB_MODE", "online")
        if mode not in Wandb.MODES:
            raise UnknownNameError(unknown_name("WANDB_MODE", mode, Wandb.MODES))
        if mode == "disabled":
            return None
        if mode not in ("offline", "dryrun") and not has_key(made):
            raise ConfigError(
                "tracker 'wandb' has no API key: set WANDB_API_KEY (or WB_KEY), run `wandb login`, or set "
                "WANDB_MODE=offline to log into the experiment's folder"
            )
        return made

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        import wandb

        known = wandb.Settings.model_fields
        self.settings = wandb.Settings(**{key: value for key, value in self.SETTINGS.items() if key in known})
        in_force = wandb.setup(self.settings).settings
        self.destination = "offline" if in_force.mode in ("offline", "dryrun") else "online"
        self.wandb_dir = Path(in_force.wandb_dir)
        self.project = in_force.project or options.get("project") or "tunekit"
        self.entity = in_force.entity or options.get("entity") or None
        self.group = folder.resolve().name
        self.prefix = experiment_id(folder)
        asked = paths.read_json(paths.experiment_json(folder))["asked"]
        self.metric, self.mode = asked["metric"], asked["mode"]
        self.runs: dict[int, Any] = {}

    def log(self, trial: Trial, event: Event) -> None:
        """Log an epoch's metrics, at the time they came, unless W&B has them."""
        run, epoch = self._run(trial), event.epoch or 0
        if epoch >= run.starting_step:
            run.log({"epoch": epoch, **event.data, "_timestamp": event.time}, step=epoch, commit=True)

    def end(self, trial: Trial, event: Event) -> None:
        """Write the summary, and end the run: well for finished and stopped, else as failed."""
        run = self._run(trial)
        best = {f"best_{self.metric}": trial.best_value(self.metric, self.mode)}
        best["best_epoch"] = trial.best_epoch(self.metric, self.mode)
        run.summary.update({"state": trial.state, **{key: value for key, value in best.items() if value is not None}})
        run.finish(exit_code=0 if trial.state in ("finished", "stopped") else 1)
        del self.runs[trial.number]

    def close(self) -> None:
        """End the runs of trials that go on later: to W&B they are preempted."""
        for run in self.runs.values():
            run.mark_preempting()
            run.finish(exit_code=1)
        self.runs.clear()

    def _run(self, trial: Trial) -> Any:
        """Return a trial's run, begun or resumed if need be."""
        import wandb

        if trial.number not in self.runs:
            run_id = f"{self.prefix}-{trial.number:04d}"
            for cut_off in self.wandb_dir.glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(cut_off)
            self.runs[trial.number] = wandb.init(
                project=self.project, entity=self.entity, group=self.group, job_type=trial.role,
                id=run_id, name=f"{self.group}-{trial.number:04d}", config=trial.config,
                resume=None if self.destination == "offline" else "allow", reinit="create_new", settings=self.settings,
            )  # fmt: skip
        return self.runs[trial.number]


def has_key(environ: Mapping[str, str]) -> bool:
    """Return whether W&B will find a key: in the environment, or where `wandb login` leaves it."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    home = Path.home()
    for path in (environ.get("NETRC"), home / ".netrc", home / "_netrc"):
        try:
            if path and netrc.netrc(path).authenticators(host):
                return True
        except OSError:
            continue
        except netrc.NetrcParseError:
            return True  # W&B says what is wrong with it
    return False


def experiment_id(folder: Path) -> str:
    """Return what tells an experiment from all others, here and elsewhere, and stays when its folder is moved.

    Raises:
        ExperimentError: it has no ledger, or nothing has happened in it.
    """
    ledger = Ledger(folder)
    first = next(ledger.events(), None)
    ledger.close()
    if first is None:
        raise ExperimentError(f"nothing has happened in {folder} yet")
    return hashlib.sha256(f"{first.time!r} {sorted(first.data.items())}".encode()).hexdigest()[:12]
