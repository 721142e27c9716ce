"""The shape of the package, read from its imports: data flows one way, and third-party libraries have owners."""

import ast
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tunekit"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors"},
    {"registry", "paths", "versions", "yaml_files", "quantiles", "scores", "safe_text", "locks", "compiler", "memory"}
    | {"usage", "completion", "collector", "denormals", "folding"},
    {"options"},
    {"cluster_shell", "cluster_token", "cluster_jobs"},
    {"cluster_rules"},
    {"cluster_upkeep"},
    {"cluster_file"},
    {"cluster_launch"},
    {"distributions", "optimization", "preprocessing", "metrics", "events", "samplers", "storage", "scratch"},
    {"rows", "space", "space_json", "config", "checkpoint", "datasets", "heads"},
    {"ledger", "claims", "trial_files", "rebuilding", "figures"}
    | {"grids", "small_cnns", "torchvision_models", "sweep_parameters"}
    | {"axes", "story", "frames"},
    {"importance", "reproduction"},
    {"backbones", "sweeps", "wandb_tracker", "tensorboard_tracker", "feeds"},
    {"frozen", "trackers"},
    {"training", "schedulers", "kept", "remote", "live", "cluster", "growing", "tracking", "spaces", "layers"},
    {"paces", "forecasts", "confirm", "inference", "arithmetic", "outcomes", "sealed"},
    {"beginnings", "encoding"},
    {"candidates", "screen", "notebook", "mistakes", "answer", "report_page"},
    {"report"},
    {"reporter"},
    {"proposer", "pausing"},
    {"forecaster"},
    {"places", "watched", "checks"},
    {"searchers", "trial", "recorder", "watch"},
    {"asked", "results", "worker", "callbacks", "follower"},
    {"preload"},
    {"session", "repair", "gpus", "status", "limits", "costs", "predictions", "optuna_export"},
    {"engine", "expected"},
    {"measuring", "machine"},
    {"plan", "doctor"},
    {"summary"},
    {"experiment"},
    {"resuming"},
    {"commands"},
    {"cluster_commands", "data_commands", "doctor_commands", "watch_commands"},
    {"cli"},
    {"__init__", "__main__"},
]  # lowest first; a file imports only from lower layers
OWNERS = {
    "ray": {"status", "places", "engine", "worker", "callbacks", "cluster", "growing", "searchers", "schedulers"}
    | {"cluster_file", "cluster_launch"},
    "optuna": {"space", "space_json", "distributions", "grids", "samplers", "proposer", "encoding", "paces"}
    | {"importance", "outcomes", "optuna_export"},
    "wandb": {"wandb_tracker"},
    "tensorboard": {"tensorboard_tracker"},
    "plotly": {"figures"},
    "pyarrow": {"storage"},
    "pandas": {"results", "summary", "inference", "figures", "frames", "datasets"},
    "torchvision": {"datasets", "torchvision_models"},
    "sklearn": {"datasets"},
    "rich": {"screen", "watch", "summary", "datasets"},
    "IPython": {"notebook"},
    "typer": {"cli", "commands", "cluster_commands", "data_commands", "doctor_commands", "watch_commands", "options"},
}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> list[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_lower_layers(path):
    part = part_of(path)
    for name in imports(path):
        if not name.startswith("tunekit."):
            continue
        imported = name.split(".")[1]
        if imported == part == "datasets" or (not (PACKAGE / f"{imported}.py").exists() and imported != "datasets"):
            continue
        assert layer(imported) < layer(part), f"{part} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_libraries_have_owners(path):
    for name in imports(path):
        library = name.split(".")[0]
        if library in OWNERS:
            assert part_of(path) in OWNERS[library], f"{path.name} imports {name}"


def test_base_knows_none_of_the_other_datasets():
    known = {name.split(".")[2] for name in imports(PACKAGE / "datasets" / "base.py") if "tunekit.datasets" in name}
    assert known <= {"splits", "arrays"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module's docstring says why the file exists"
    for node in tree.body:
        overload = isinstance(node, ast.FunctionDef) and [ast.unparse(d) for d in node.decorator_list] == ["overload"]
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not overload:
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_nothing_reads_pickle_or_runs_text():
    banned = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    calls = {"eval", "exec", "torch.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "pandas.read_pickle"}
    for path in FILES:
        assert not banned & {name.split(".")[0] for name in imports(path)}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    trusted = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                    assert keyword.arg not in ("shell", "allow_pickle") or trusted, f"{path}:{node.lineno}"


def test_nothing_committed_names_this_machine_or_an_index():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    here = {f"{folder}/" for folder in (ROOT, ROOT.parent)} - {f"{tempfile.gettempdir()}/"}  # which tests may name
    for name in tracked:
        if (ROOT / name).is_file() and name != "tests/test_architecture.py":
            text = (ROOT / name).read_text(errors="replace")
            assert (
                not any(folder in text for folder in here)
                and "/simple/" not in text
                and "index-url" not in text.replace("-emit-index-url", "")
            )
