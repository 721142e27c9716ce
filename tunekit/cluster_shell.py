"""The shell lines of a cluster file, cut into commands: which of them start Ray, and with what."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

ENDS = re.compile(r"[;&|()\n]+")  # of a simple command
REDIRECTION = re.compile(r"[<>&]+")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
RAY_START = re.compile(r"\bray\b['\"\\\s]+start\b")


class Command(NamedTuple):
    """A simple command.

    Args:
        environment: the variables that are set for it alone, in front of it.
        words: the program and its arguments.
    """

    environment: dict[str, str]
    words: list[str]

    def option(self, name: str) -> str | None:
        """Return the value of an option, given as `--name value` or `--name=value`; None where it is not given.

        Where it is given twice, the last one counts, as it does for Ray.
        """
        found = None
        for word, following in zip(self.words, [*self.words[1:], ""], strict=True):
            if word == name:
                found = following
            elif word.startswith(f"{name}="):
                found = word.partition("=")[2]
        return found


def commands_in(line: str) -> list[Command]:
    """Return the simple commands of a shell line, in order. What stands in quotes is a word, and not looked into.

    Raises:
        ValueError: a quote is not closed.

    Example:
        >>> commands_in("ulimit -n 65536; A=1 ray start --head && echo 'all; well'")[1]
        Command(environment={'A': '1'}, words=['ray', 'start', '--head'])
    """
    lexer = shlex.shlex(line.replace("\\\n", ""), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    found: list[Command] = []
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if ENDS.fullmatch(word):
            found += [_command(words)] if words else []
            words, skip = [], False
        elif REDIRECTION.fullmatch(word):
            skip = True  # the file's name
        elif skip:
            skip = False
        else:
            words.append(word)
    return found


def _command(words: list[str]) -> Command:
    environment = {}
    while words and (match := ASSIGNMENT.fullmatch(words[0])):
        environment[match[1]] = match[2]
        words = words[1:]
    return Command(environment, words)


def ray_starts(line: str) -> list[Command]:
    """Return those commands of a shell line that start Ray.

    Raises:
        ValueError: a quote is not closed, or Ray is started in a way that cannot be read: in quotes, or through sudo.
    """
    starts = [command for command in commands_in(line) if _is_ray(command.words) and "start" in command.words[1:2]]
    if len(RAY_START.findall(line)) > len(starts):
        raise ValueError("ray start is hidden in it")
    return starts


def pip_installs(line: str) -> Iterator[Command]:
    """Yield those commands of a shell line that install packages: pip's, uv's and conda's.

    Raises:
        ValueError: a quote is not closed.
    """
    for command in commands_in(line):
        programs = {word.rpartition("/")[2] for word in command.words}
        if "install" in command.words and programs & {"pip", "pip3", "uv", "conda", "mamba"}:
            yield command


def _is_ray(words: list[str]) -> bool:
    return bool(words) and words[0].rpartition("/")[2] == "ray"
