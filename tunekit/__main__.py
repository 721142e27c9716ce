"""`python -m tunekit`: the same as the command `tunekit`."""

from tunekit.cli import main

main()
