"""Python's garbage collector rests while tunekit is imported, is as it was afterwards, and misses no garbage."""

import subprocess
import sys

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
import tunekit
tunekit.run
assert sum(began) < 3  # when all is there, once
assert gc.isenabled() is ("off" not in sys.argv)
gc.callbacks.clear()
gc.disable()
Garbage()
print("ends")
"""


def test_importing_leaves_the_collector_as_it_was_and_garbage_goes_in_the_end():
    for arguments in ([], ["off"]):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["ends", "collected"]
