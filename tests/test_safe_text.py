"""Text from outside: secrets, control characters, formulas."""

import pytest

from tunekit.safe_text import csv_cell, is_secret, printable, redacted

SECRETS = ["WANDB_API_KEY", "WB_KEY", "hf_token", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "apikey", "PGPASSWORD",
           "GOOGLE_APPLICATION_CREDENTIALS", "DB_PWD", "DB_PASS", "SSH_PASSPHRASE"]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_names_that_say_secret(name):
    assert is_secret(name)


INNOCENT = ["PATH", "PWD", "OLDPWD", "passenger", "monkey", "keyboard", "XDG_SESSION_ID", "tokenizer", "lr", "backbone"]


@pytest.mark.parametrize("name", INNOCENT)
def test_names_that_do_not(name):
    assert not is_secret(name)


def test_secrets_of_the_environment_and_passwords_in_urls_are_blotted_out(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "long-enough")
    monkeypatch.setenv("SHORT_TOKEN", "1234567")
    monkeypatch.setenv("DATABASE_URL", "postgres://me:pass-word@example.org/db")
    assert redacted("x long-enough y 1234567 z pass-word") == "x *** y 1234567 z ***"
    assert redacted("http://a:b@c http://c") == "http://a:***@c http://c"


@pytest.mark.parametrize("text", ["plain", "two\nlines\t", "größe 猫 👩‍💻"])
def test_what_people_write_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("char", ["\x1b", "\r", "\x07", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\udc80"])
def test_what_a_terminal_would_obey_is_written_out(char):
    shown = printable(f"a{char}b")
    assert shown.isprintable() and shown.startswith("a\\") and shown.endswith("b")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\tx"])
def test_formulas_are_texts_in_a_table(text):
    assert csv_cell(text) == "'" + text


def test_no_cell_begins_a_new_row():
    assert csv_cell("good\r=1+1") == "good\\r=1+1"


@pytest.mark.parametrize("value", ["cat", "1=2", -1.5, None, 3])
def test_other_cells_stay(value):
    assert csv_cell(value) == value
