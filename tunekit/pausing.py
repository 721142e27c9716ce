"""How many trials of searcher "forecast" may wait for their turn: each keeps its checkpoints."""

from tunekit.trial_files import NUM_CHECKPOINTS

LEAST_PAUSED, MOST_PAUSED = 16, 256  # trials that may pause at once
PAUSED_BYTES = 2**33  # of checkpoints: trials may pause for which there is room in so much


def most_paused(checkpoint_bytes: int, room: float = PAUSED_BYTES) -> int:
    """Return how many trials may pause at once.

    Args:
        checkpoint_bytes: what one checkpoint takes, 0 where that is not known.
        room: bytes for those of all that are paused.

    Example:
        >>> most_paused(10**6), most_paused(10**8), most_paused(10**9), most_paused(0)
        (256, 28, 16, 16)
        >>> most_paused(10**6, room=9 * 10**7)
        30
    """
    fitting = min(room, PAUSED_BYTES) // (NUM_CHECKPOINTS * checkpoint_bytes) if checkpoint_bytes else 0
    return int(min(max(LEAST_PAUSED, fitting), MOST_PAUSED))
