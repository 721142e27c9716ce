"""What was measured of a search's configs, worked out from the ledger of the tiny search that measuring.py runs."""

import itertools
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunekit import training
from tunekit.asked import Asked
from tunekit.config import complete
from tunekit.distributions import label_of
from tunekit.events import Event
from tunekit.scores import is_better
from tunekit.space import Config

KEYS = ("backbone", "image_size", "freeze")  # of a config: what it costs depends on these, and on the batch size


class Cost(NamedTuple):
    """What configs of one kind take: seconds per image and per step of training, and per image of val.

    Args:
        image_s, step_s, val_image_s: as said.
        begin_image_s: per image of train and val, once, where a frozen backbone's features are computed.
        value: of the metric, the best that was seen; None if none.
    """

    image_s: float
    step_s: float
    val_image_s: float
    begin_image_s: float
    value: float | None

    def epoch_s(self, num_images: int, num_val_images: int, batch_size: int) -> float:
        """Return the seconds of an epoch.

        Example:
            >>> Cost(0.001, 0.01, 0.0005, 0.0, None).epoch_s(1000, 200, batch_size=10)
            2.1
        """
        return num_images * (self.image_s + self.step_s / batch_size) + num_val_images * self.val_image_s


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Args:
        slots: trials side by side.
        load_s: seconds until a process has imported what it needs and has the data, which lies in the cache by now.
        begin_s, end_s: of Ray: until the first trial starts, and after the last has ended.
        decide_s: the searcher's, over what to do next.
        turn_s: until a worker that has one trial's epoch behind it begins another trial's.
        between_s: from an epoch's end to the next of the same trial: checkpoint, ledger, Ray.
        costs: by `kind_of` a config.
        memory_gb: the most that all processes had for themselves.
        checkpoint_gb: the largest checkpoint.
        features_gb: of frozen backbones, that trials share, for an image of train and of val.
    """

    slots: int
    load_s: float
    begin_s: float
    end_s: float
    decide_s: float
    turn_s: float
    between_s: float
    costs: dict[str, Cost]
    memory_gb: float
    checkpoint_gb: float
    features_gb: float


def kind_of(config: Config, asked: Asked) -> str:
    """Return what kind of config it is, of which all cost alike but for the batch size; "" with a loop of one's own."""
    whole = complete(config)
    return " ".join(str(label_of(whole[key])) for key in KEYS) if asked.train is training.train else ""


def measured_from(
    events: list[Event], asked: Asked, points: list[Config], slots: int, alone_s: tuple[float, float],
    gigabytes: tuple[float, float, float],
) -> Measured:  # fmt: skip
    """Work it all out from the events of the tiny search.

    Args:
        events: all of its ledger.
        asked: of it; its dataset is what it was trained on.
        points: the configs, by the number that each trial's config calls "point".
        slots: see `Measured`.
        alone_s: load_s and decide_s, see there.
        gigabytes: of memory, of the largest checkpoint, and of features for an image.
    """
    of = {event.trial: points[int(event.data["config"]["point"])] for event in events if event.kind == "proposed"}
    started = {event.trial: event.at_s for event in events if event.kind == "started"}
    epochs: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        if event.kind == "epoch":
            epochs[event.trial].append(event)
    firsts = sorted(started.values())[:slots]  # each of these begins in a new process
    setups: dict[Any, float] = {}
    between: list[float] = []
    for trial, seen in epochs.items():
        setups[trial] = max(0.0, seen[0].at_s - started[trial] - seen[0].data.get("epoch_s", seen[0].at_s))
        for before, event in itertools.pairwise(seen):
            between.append(max(0.0, event.at_s - before.at_s - event.data.get("epoch_s", event.at_s)))
    plain = [s for trial, s in setups.items() if complete(of[trial])["freeze"] is None] or list(setups.values())
    again = [s for trial, s in setups.items() if started[trial] not in firsts and complete(of[trial])["freeze"] is None]
    turn_s = statistics.median(again or [min(plain)])
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for trial in epochs:
        by_kind[kind_of(of[trial], asked)].append(trial)
    costs = {
        kind: _cost([(of[trial], epochs[trial], setups[trial] - turn_s) for trial in trials], asked)
        for kind, trials in by_kind.items()
    }
    ended = max(event.at_s for event in events if event.kind in ("ended", "epoch"))
    return Measured(
        slots, alone_s[0], min(started.values()), events[-1].at_s - ended, alone_s[1], turn_s,
        statistics.median(between or [0.0]), costs, *gigabytes,
    )  # fmt: skip


def _cost(trials: list[tuple[Config, list[Event], float]], asked: Asked) -> Cost:
    """Fit seconds per image and per step to the epochs of trials with small and with large batches."""
    train, val = asked.dataset.num_images["train"], asked.dataset.num_images["val"]
    by_steps: dict[int, list[float]] = defaultdict(list)
    val_s, values = [], []
    for config, seen, _ in trials:
        batch_size = complete(config)["batch_size"] if asked.train is training.train else train
        for before, event in zip(seen, seen[1:] or seen, strict=False):
            metrics = event.data
            whole_s = metrics.get("epoch_s", event.at_s - before.at_s)
            train_s = train / metrics["images_per_s"] if metrics.get("images_per_s") else whole_s
            by_steps[max(1, (train + batch_size - 2) // batch_size)].append(train_s)
            val_s.append(max(0.0, whole_s - train_s))
        values += [event.data[asked.metric] for event in seen]
    few, many = min(by_steps), max(by_steps)
    least, most = statistics.mean(by_steps[few]), statistics.mean(by_steps[many])
    step_s = max(0.0, (most - least) / (many - few)) if many > few else 0.0
    best: float | None = None
    for value in values:
        best = value if is_better(value, best, asked.mode) else best
    frozen = complete(trials[0][0])["freeze"] is not None
    begin_s = max(0.0, statistics.median(setup for *_, setup in trials)) if frozen else 0.0
    image_s = max(0.0, least - few * step_s) / train
    return Cost(image_s, step_s, statistics.mean(val_s) / val, begin_s / (train + val), best)
