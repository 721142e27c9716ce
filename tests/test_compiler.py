"""torch's compiler is imported when somebody compiles, and works as ever then."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.long  # each imports torch anew

PROGRAM = """
import inspect, sys
import torch, tunekit

def is_imported():
    return "torch._dynamo.eval_frame" in sys.modules

tunekit.train({"backbone": "mlp"}, "digits", max_epochs=1, verbose=0, folder=sys.argv[1])
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters())
inspect.getmodule(tunekit.train)  # looks through all modules
assert not is_imported()

@torch.compile(backend="eager")
def step(images):
    loss = model(images).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()

losses = [step(torch.ones(2, 4)) for _ in range(3)]
assert losses[0] > losses[1] > losses[2], losses
assert is_imported() and torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.__file__
assert torch.optim.Optimizer.zero_grad.__wrapped__.__dynamo_disable is not torch.optim.Optimizer.zero_grad.__wrapped__
"""


def test_training_imports_no_compiler_and_compiling_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_those_who_ask_for_more_get_the_real_one():
    program = """
import tunekit.backbones, sys
import torch
assert "torch._dynamo.eval_frame" not in sys.modules
left = torch.compiler.disable(lambda: 7)
assert left() == 7 and "torch._dynamo.eval_frame" in sys.modules
from torch._dynamo.utils import is_compile_supported
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
