"""The error tree. Every mistake a person can make ends in one of these, before the first trial starts.

TunekitError
├── UnknownNameError     a name that no registry knows
├── SpaceError           a space that cannot be searched
├── ConfigError          a config, or an argument of run() and train(), that cannot be honoured
├── DataError            data that is missing, unreadable or unfit
├── ExperimentError      an experiment folder that is in use, damaged or was asked for something else
│   └── StorageError     a disk that is full or broken, or a folder that may not be written
├── CheckpointError      a checkpoint that is torn, altered or of another shape
├── TrainingError        a training loop that broke the rules of its form, or a search in which nothing worked
├── ClusterError         Ray, or a cluster, that cannot be used or would be open to anybody
├── MisplacedError       a trial on a machine that lacks what it needs
└── MissingExtraError    an optional dependency that is not installed
"""

import difflib
from collections.abc import Iterable

MOST_KNOWN = 24  # names that an error lists; of more, those that look most alike


class TunekitError(Exception):
    """Base of all errors that tunekit raises on purpose; its text says what to do next."""


class UnknownNameError(TunekitError):
    """A name that no registry knows; the text gives the nearest one and all that are known."""


class SpaceError(TunekitError):
    """A space that cannot be searched: empty, a range upside down, the logarithm of zero."""


class ConfigError(TunekitError):
    """A config, or an argument of run() and train(), that cannot be honoured."""


class DataError(TunekitError):
    """Data that is missing, unreadable or unfit for training."""


class ExperimentError(TunekitError):
    """An experiment folder that is in use, damaged, or that was asked for something else."""


class StorageError(ExperimentError):
    """A disk that is full or broken, or a folder that may not be written."""


class CheckpointError(TunekitError):
    """A checkpoint that is torn, altered or of another shape than the model."""


class TrainingError(TunekitError):
    """A training loop that broke the rules of its form, or a search in which nothing worked."""


class ClusterError(TunekitError):
    """Ray, or a cluster, that cannot be used or would be open to anybody."""


class MisplacedError(TunekitError):
    """A trial on a machine that lacks what it needs: it is tried on another."""


class MissingExtraError(TunekitError):
    """An optional dependency that is not installed; the text names the extra to install."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return the message for a name that is not among the known ones.

    Example:
        >>> unknown_name("dataset", "cifar", ["cifar10", "digits"])
        "unknown dataset 'cifar': did you mean 'cifar10'? Known: cifar10, digits"
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    shown = known if len(known) <= MOST_KNOWN else difflib.get_close_matches(str(name), known, n=8, cutoff=0)
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    return f"unknown {kind} {name!r}: {hint}Known: {', '.join(shown) or 'none'}{more}"
