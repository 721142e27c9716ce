"""Text from outside, made fit for where it goes: no secrets in records, no control characters, no formulas."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

SECRET = re.compile(
    r"passw|passphrase|(?:^|_)(?:(?:api|access|secret|private)?_?keys?|tokens?|secrets?|pass|pwd|credentials?)(?:_|$)",
    re.IGNORECASE,
)
SHORTEST = 8  # characters of a secret: a shorter value would be found in innocent text
URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)@")
JOINERS = "\u200c\u200d"  # of Persian words and of emoji: they change no order
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def is_secret(name: str) -> bool:
    """Return whether a name says that its value is secret.

    Example:
        >>> is_secret("WANDB_API_KEY"), is_secret("monkey")
        (True, False)
    """
    return name not in ("PWD", "OLDPWD") and SECRET.search(name) is not None


def secrets_of(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values of an environment that are secret, the longest first."""
    whole = {value for name, value in environ.items() if is_secret(name)}
    lines = {line for value in whole for line in value.splitlines()}  # of a private key, say
    passwords = {match[2] for value in environ.values() for match in URL_PASSWORD.finditer(value)}
    found = {secret for secret in whole | lines | passwords if len(secret) >= SHORTEST and not os.path.exists(secret)}
    return sorted(found | {repr(secret)[1:-1] for secret in found}, key=len, reverse=True)


def redacted(text: str, secrets: Sequence[str] | None = None) -> str:
    """Return a text without secrets (this process's when None), and without the passwords in URLs.

    Example:
        >>> redacted("cannot reach https://me:hunter2@example.org/data")
        'cannot reach https://me:***@example.org/data'
    """
    for secret in secrets_of() if secrets is None else secrets:
        text = text.replace(secret, "***")
    return URL_PASSWORD.sub(r"\1:***@", text)


def printable(text: Any) -> str:
    """Return a text whose control characters, which a terminal would obey, are written out.

    Newlines and tabs stay. Lone surrogates, of file names that are no UTF-8, are written out too.

    Example:
        >>> printable("cat\\x1b[2J")
        'cat\\\\x1b[2J'
    """
    return "".join(
        char if char in JOINERS + "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else char.encode("unicode_escape").decode()
        for char in str(text)
    )  # fmt: skip


def csv_cell(value: Any) -> Any:
    """Return a table's cell that no spreadsheet takes for a formula: such a text gets a quote in front.

    Control characters, of which a carriage return would begin a new row, are written out.

    Source: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection.

    Example:
        >>> csv_cell("=HYPERLINK(...)"), csv_cell(-1.5)
        ("'=HYPERLINK(...)", -1.5)
    """
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(FORMULA) else printable(value)
