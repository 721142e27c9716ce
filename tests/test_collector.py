"""Python's garbage collector rests while tunekit is imported, is as it was afterwards, and misses no garbage."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys

class Garbage:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("collected")

began = []
gc.callbacks.append(lambda phase, info: began.append("torch" in sys.modules) if phase == "start" else None)
if "off" in sys.argv:
    gc.disable()
if "frozen" in sys.argv:
    gc.freeze()
import tunekit
tunekit.run
assert sum(began) < 3  # when all is there, once
assert gc.isenabled() is ("off" not in sys.argv)
young, old = [*gc.get_objects(0), *gc.get_objects(1)], gc.get_objects(2)
assert "frozen" in sys.argv or len(young) < len(old) / 10  # what is imported is not looked through as young
assert ("frozen" in sys.argv) is (gc.get_freeze_count() > 0)
del young, old
gc.callbacks.clear()
gc.disable()
Garbage()
print("ends")
"""


@pytest.mark.long
def test_importing_leaves_the_collector_as_it_was_and_garbage_goes_in_the_end():
    commands = [[sys.executable, "-c", PROGRAM, *arguments] for arguments in ([], ["off"], ["frozen"])]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in started:
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and told.split() == ["ends", "collected"]
