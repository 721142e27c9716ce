"""What Ray's workers import in advance, before they know what they are for."""

from tunekit import collector

with collector.at_rest():
    import tunekit.worker as worker

__all__ = ["worker"]
