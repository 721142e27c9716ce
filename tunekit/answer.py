"""The answer of a search in words and figures, for the top of its report."""

import math
from collections import Counter
from typing import Any

from tunekit.axes import in_figures
from tunekit.confirm import NO_VERDICT, default_of, verdict_of
from tunekit.events import Trial, winner_of
from tunekit.live import clock, counted
from tunekit.metrics import wilson_interval
from tunekit.story import Story

MOST_NOTES = 5


def asked_in_words(asked: dict[str, Any], dataset: dict[str, Any], story: Story) -> str:
    """Return what was asked, in words."""
    _, height, width = dataset["image_shape"]
    classes = f", {len(dataset['classes'])} classes" if dataset["classes"] else ""
    images = f"{sum(dataset['num_images'].values()):,} images of {height} x {width} px{classes}"
    noted = f" Of the data: {_some(dataset['notes'])}." if dataset["notes"] else ""
    verb = "highest" if asked["mode"] == "max" else "lowest"
    if asked["searcher"] == "given":
        return f"One config trained for up to {asked['max_epochs']} epochs on {dataset['name']} ({images}).{noted}"
    stopped = "" if asked["scheduler"] == "none" else f", stopped early by {asked['scheduler']}"
    return (
        f"Which config gives the {verb} {asked['metric']} on {dataset['name']} ({images})? Up to "
        f"{story.limits.get('num_trials', len(story.trials))} configs for up to {asked['max_epochs']} epochs each, "
        f"proposed by {asked['searcher']}{stopped}.{noted}"
    )


def answer_of(
    asked: dict[str, Any],
    dataset: dict[str, Any],
    story: Story,
    going: bool,
    tested: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the answer in one sentence, the verdict, the best config and the figures beside them.

    Args:
        asked, dataset: as experiment.json has them.
        story: what the ledger tells.
        going: whether the search goes on.
        tested: the test split's figures, if it was opened.
    """
    metric, mode = asked["metric"], asked["mode"]
    winner, default = winner_of(story.trials, metric, mode), default_of(story.trials)
    trials = [trial for trial in story.trials.values() if trial.role == "search"]
    counts = Counter(trial.state for trial in trials)
    states = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    confirming = len(story.trials) - len(trials)
    also = f", and {counted(confirming, 'more trial')} to confirm," if confirming else ""
    effort = {"label": "effort", "value": counted(story.num_epochs, "epoch"),
              "note": f"{counted(len(trials), 'trial')} ({states}){also} in {clock(story.now_s)}"}  # fmt: skip
    if winner is None:
        return {"sentence": "No trial has come to a result yet.", "cards": [effort], "verdict": "", "config": []}
    value, epoch = winner.best_value(metric, mode), winner.best_epoch(metric, mode)
    assert value is not None
    num_val = dataset["num_images"]["val"]
    interval = metric == "val_accuracy" and not asked["train"] and _interval_in_words(value, num_val)
    cards: list[dict[str, Any]] = [{"label": f"best {metric}", "value": f"{value:.4f}", "best": True,
              "note": interval or f"trial {winner.number}, epoch {epoch}"}]  # fmt: skip
    beside = ""
    before = default.best_value(metric, mode) if default else None
    if default is not None and before is not None and default is not winner:
        compared = f"{metric}; the best is {abs(value - before):.4f} {'higher' if value > before else 'lower'}"
        cards.append({"label": "default config", "value": f"{before:.4f}", "note": compared})
        beside = f", against {before:.4f} of the default config"
    if tested:
        cards.append(_test_card(tested))
    so_far = " so far" if going else ""
    searched = asked["searcher"] != "given"
    sentence = (
        f"The best{so_far} of {len(trials):,} trials is trial {winner.number}: {metric} {value:.4f} after epoch {epoch}"
        f"{beside}."
        if searched else f"{metric} was {value:.4f} at its best{so_far}, after epoch {epoch} of {len(winner.history)}."
    )  # fmt: skip
    config = [[key, in_figures(worth)] for key, worth in winner.config.items()]
    verdict = _verdict(story, metric, mode, winner, default) if searched else ""
    return {"sentence": sentence, "cards": [*cards, effort], "verdict": verdict, "config": config}


def _some(notes: list[str]) -> str:
    more = f"; and {len(notes) - MOST_NOTES} more" if len(notes) > MOST_NOTES else ""
    return "; ".join(notes[:MOST_NOTES]) + more


def _verdict(story: Story, metric: str, mode: str, winner: Trial, default: Trial | None) -> str:
    verdict = verdict_of(story.trials, metric, mode)
    if verdict is not None:
        return f"{str(verdict)[0].upper()}{str(verdict)[1:]}."
    if default is winner:
        return "The default config is the best that was found."
    return f"{NO_VERDICT[0].upper()}{NO_VERDICT[1:]}."


def _interval_in_words(value: float, num_images: int) -> str:
    low, high = wilson_interval(round(value * num_images), num_images)
    return f"95 % interval {low:.4f} to {high:.4f}, on {num_images:,} val images"


def _test_card(tested: dict[str, Any]) -> dict[str, str]:
    if "interval" in tested:
        low, high = tested["interval"]
        note = f"95 % interval {low:.4f} to {high:.4f}, on {tested['num_images']:,} test images"
        return {"label": "test_accuracy", "value": f"{tested['test_accuracy']:.4f}", "note": note}
    pearson = tested.get("test_pearson")
    note = f"Pearson {'undefined' if pearson is None else f'{pearson:.4f}'}, on {tested['num_images']:,} test images"
    return {"label": "test_mse", "value": f"{tested['test_mse'] or math.nan:.4f}", "note": note}
