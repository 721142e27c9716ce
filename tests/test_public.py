"""The public names: what `__all__` lists is there, and what a person needs is on it."""

import subprocess
import sys

import tunekit


def test_all_is_what_imports():
    for name in tunekit.__all__:
        assert getattr(tunekit, name).__doc__, name
    assert sorted(tunekit.__all__) == tunekit.__all__
    assert set(dir(tunekit)) == set(tunekit.__all__)


def test_every_error_is_a_tunekit_error():
    errors = [getattr(tunekit, name) for name in tunekit.__all__ if name.endswith("Error")]
    assert len(errors) == 11
    assert all(issubclass(error, tunekit.TunekitError) for error in errors)


def test_importing_tunekit_does_not_import_ray_or_torch():
    script = "import sys, tunekit; sys.exit(any(name in sys.modules for name in ('ray', 'torch', 'optuna')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
