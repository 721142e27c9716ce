"""The lock file is pinned, hashed and free of versions with known holes; the check itself sees what it should."""

import pytest
from audit import LOCK, problems


def test_the_lock_file_passes():
    assert problems(LOCK.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\nray==2.60.0", "\nray==2.51.0", "ray 2.51.0 is older than 2.59.0"),
        ("\nray==", "\nray>=", "not pinned: ray>="),
        ("\nnumpy==", "\nlightning==2.6.2 \\\n    --hash=sha256:0\nnumpy==", "lightning 2.6.2 is malicious"),
        ("\nnumpy==", "\nnodigest==1.0\nnumpy==", "nodigest 1.0 has no hash"),
    ],
)
def test_what_is_wrong_is_said(old, new, said):
    text = LOCK.read_text()
    assert old in text
    assert any(said in problem for problem in problems(text.replace(old, new, 1)))
