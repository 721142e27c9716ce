"""The call that gives an experiment again, written out as Python, from what its folder remembers."""

import json
import re
from typing import Any

from tunekit.space import max_size_of
from tunekit.space_json import space_from_json

NAMES = ("metric", "mode", "max_epochs", "searcher", "scheduler", "seed")
LIMITS = ("num_trials", "time_budget_s", "confirm")
UNSAID: tuple[Any, ...] = (None, 0, [], "")  # what a call need not say of its limits
WIDTH = 80  # characters of a line, more or less
SHARED = ("data_dir", "split_seed", "on_bad_image")  # arguments of `run` that are the dataset's too


def call_of(asked: dict[str, Any], source: dict[str, Any], limits: dict[str, Any], name: str) -> str:
    """Return the Python that asks for the same experiment.

    Args:
        asked: as experiment.json has it.
        source: the arguments of `load_dataset`; empty for data made in memory.
        limits: of the last session.
        name: of the experiment.

    Example:
        >>> asked = {"space": {"lr": 0.1}, "searcher": "given", "max_epochs": 3, "seed": 0, "train": None}
        >>> print(call_of(asked, {"name_or_path": "digits", "split_seed": 0}, {}, "first"))
        import tunekit
        <BLANKLINE>
        results = tunekit.train(
            {
                "lr": 0.1,
            },
            "digits",
            max_epochs=3,
            seed=0,
            split_seed=0,
            name="first",
        )
    """
    trained = asked["searcher"] == "given"
    said = {key: asked[key] for key in (("max_epochs", "seed") if trained else NAMES)}
    said |= {} if trained else {key: limits[key] for key in LIMITS if limits.get(key) not in UNSAID}
    options = {key: value for key, value in source.items() if key not in ("name_or_path", "download")}
    own = {key: value for key, value in options.items() if key not in (*SHARED, "max_size") and value is not None}
    by_itself = None if asked["train"] else max_size_of(space_from_json(asked["space"], named=True))
    if own or (source and source.get("max_size") != by_itself):
        data = f"tunekit.load_dataset({_arguments([_quoted(source['name_or_path'])], options)})"
    else:
        data = _quoted(source["name_or_path"]) if source else "dataset"
        said |= {
            key: value
            for key, value in options.items()
            if key in SHARED and value is not None and (key, value) != ("on_bad_image", "error")
        }
    space = code_of(asked["space"], "    ")
    lines = [space, data, *(f"{key}={code_of(value)}" for key, value in said.items())]
    if asked.get("start_from"):
        lines.append(f"start_from={code_of(asked['start_from'])}")
    if asked["train"]:
        lines.append(f"train={code_of(asked['train'])}")
    lines.append(f"name={_quoted(name)}")
    body = "".join(f"    {line},\n" for line in lines)
    return f"{_imports(space)}\nresults = tunekit.{'train' if trained else 'run'}(\n{body})"


def code_of(described: Any, indent: str = "") -> str:
    """Return a space, or a part of one, as Python, from what `space_json.as_json` made of it.

    Args:
        described: that.
        indent: of the lines of a space; on one line without it.

    Example:
        >>> code_of({"name": "FloatDistribution", "attributes": {"low": 0.1, "high": 1.0, "log": True, "step": None}})
        'loguniform(0.1, 1.0)'
        >>> code_of({"choice": ["a", {"function": "mine:net"}]})
        'choice(["a", net])'
    """
    if isinstance(described, list):
        return f"[{', '.join(code_of(value) for value in described)}]"
    if not isinstance(described, dict):
        return _quoted(described) if isinstance(described, str) else repr(described)
    if set(described) == {"name", "attributes"} and str(described["name"]).endswith("Distribution"):
        return _distribution(described["name"], described["attributes"])
    kind, content = next(iter(described.items())) if len(described) == 1 else ("", None)
    if kind in ("choice", "grid") and isinstance(content, list):
        options = [code_of(option) for option in content]
        whole = f"{kind}([{', '.join(options)}])"
        if not indent or len(whole) < WIDTH:
            return whole
        return f"{kind}([\n" + "".join(f"{indent}    {option},\n" for option in options) + f"{indent}])"
    if kind == "function" and isinstance(content, str):
        return content.rpartition(":")[2]
    inner = f"{indent}    " if indent else ""
    pairs = [f"{_quoted(key)}: {code_of(value, inner)}" for key, value in described.items()]
    if indent and pairs:
        return "{\n" + "".join(f"{inner}{pair},\n" for pair in pairs) + indent + "}"
    return "{" + ", ".join(pairs) + "}"


def _distribution(name: str, attributes: dict[str, Any]) -> str:
    low, high, log = (attributes.get(key) for key in ("low", "high", "log"))
    if name == "FloatDistribution" and not attributes.get("step"):
        return f"{'loguniform' if log else 'uniform'}({low!r}, {high!r})"
    if name == "IntDistribution" and not log and attributes.get("step") == 1:
        return f"randint({low!r}, {high!r})"
    if name == "TransformedDistribution":
        return f"{name}({code_of(attributes.get('parameters'))})"
    return f"{name}({', '.join(f'{key}={code_of(value)}' for key, value in attributes.items())})"


def _imports(space: str) -> str:
    own = [name for name in ("choice", "grid", "loguniform", "randint", "uniform") if re.search(rf"\b{name}\(", space)]
    lines = ["import tunekit"] + ([f"from tunekit import {', '.join(own)}"] if own else [])
    others = [name for name in ("FloatDistribution", "IntDistribution") if f"{name}(" in space]
    lines += [f"from optuna.distributions import {', '.join(others)}"] if others else []
    lines += (
        ["from tunekit.distributions import TransformedDistribution"] if "TransformedDistribution(" in space else []
    )
    return "\n".join(lines) + "\n"


def _arguments(first: list[str], named: dict[str, Any]) -> str:
    return ", ".join([*first, *(f"{key}={code_of(value)}" for key, value in named.items() if value is not None)])


def _quoted(text: Any) -> str:
    """Return a text as Python reads it back."""
    text = str(text)
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)
