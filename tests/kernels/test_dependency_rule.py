"""kernels <- model <- service, and nothing the other way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {
    f"model.{name}"
    for name in (
        *("training", "train", "objective", "regularization", "distill", "evaluate", "plots"),
        *("batches", "workers", "checkpoint"),
    )
}
TORCHRUN = {"os.environ.get('WORLD_SIZE', '1')", "os.environ.get('LOCAL_RANK', '0')"}
FORBIDDEN = {
    "kernels": {"model", "service"},
    "model": {"service", "fastapi", "starlette", "uvicorn", "redis", "httpx"},
    "service": {"kernels", "triton", "loadtest"} | TRAINING,
    "loadtest": {"kernels", "model", "service"},
    "loadtest/baseline": {"kernels", "service"},
}
# What a load is compared with is a server and no load: it serves the same model with the model's own code, beside the
# packages that speak HTTP alone and without a share in Augur's server.
SERVERS = ROOT / "loadtest" / "baseline"
# But for the rung of the ladder that is the plain server with the kernels and nothing else.
ALLOWED = {("loadtest/baseline/fused.py", "kernels")}


# What every caller has, and loads are callers.
CLIENT = {"service.client"}


def imported(source: str) -> Iterator[str]:
    """Every module that a source imports anywhere, and every name it takes from one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    sources = sorted((ROOT / package).rglob("*.py"))
    if ROOT / package != SERVERS:
        sources = [path for path in sources if SERVERS not in path.parents]
    assert sources
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources
        for module in imported(path.read_text())
        if within(module, FORBIDDEN[package] - {name for file, name in ALLOWED if ROOT / file == path})
        and not (package == "loadtest" and within(module, CLIENT))
    ]
    assert not wrong


def test_nobody_imports_the_baseline() -> None:
    for package in ("kernels", "loadtest", "model", "service"):
        for path in (ROOT / package).rglob("*.py"):
            inside = SERVERS in path.parents
            assert inside or not any(within(m, {"loadtest.baseline"}) for m in imported(path.read_text())), path


def test_the_client_is_nobodys_but_the_callers() -> None:
    """The server needs neither it nor its packages, and an example needs nothing of the project besides."""
    client = ROOT / "service" / "client"
    for path in (ROOT / "service").rglob("*.py"):
        inside = client in path.parents
        found = set(imported(path.read_text()))
        assert inside or not any(within(module, CLIENT | {"httpcore"}) for module in found), path
    for path in [*(ROOT / "examples").glob("*.py"), *client.rglob("*.py")]:
        ours = {module for module in imported(path.read_text()) if within(module, {*FORBIDDEN})}
        assert all(within(module, CLIENT) for module in ours), path


def reached_by_the_service() -> set[str]:
    """The model's modules that the server loads, through whatever others."""
    seen: set[str] = set()
    waiting = [module for path in (ROOT / "service").rglob("*.py") for module in imported(path.read_text())]
    while waiting:
        module = waiting.pop()
        path = ROOT / Path(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module not in seen and within(module, {"model"}) and file.exists():
            seen.add(module)
            waiting += list(imported(file.read_text()))
    return seen


def test_service_reaches_no_training_code_through_others() -> None:
    reached = reached_by_the_service()
    assert {"model.scorer", "model.zoo", "model.zoo.dien"} <= reached
    assert not reached & TRAINING


def environment_reads(source: str) -> list[str]:
    """What a source takes from the environment: the calls' or subscripts' text."""
    tree = ast.parse(source)
    whole = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call | ast.Subscript)]
    reads = [text for text in whole if text.startswith(("os.environ", "os.getenv", "environ", "getenv"))]
    mentions = sum(
        (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
        or (isinstance(node, ast.alias) and node.name in ("environ", "getenv"))
        for node in ast.walk(tree)
    )
    return reads if len(reads) == mentions else [*reads, "os.environ"]


def test_no_environment_variable_is_read() -> None:
    """But torchrun's own, in data-parallel training, which the server does not load."""
    served = reached_by_the_service()
    for path in sorted([*(ROOT / "kernels").rglob("*.py"), *(ROOT / "model").rglob("*.py")]):
        reads = set(environment_reads(path.read_text()))
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        training = module.startswith("model.") and module not in served
        assert reads <= (TORCHRUN if training else set()), path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import service.app", {"service.app"}),
        ("def f():\n    from model import train", {"model", "model.train"}),
        ("import os, kernels as k", {"os", "kernels"}),
    ],
)
def test_the_scan_sees_every_form(source: str, found: set[str]) -> None:
    assert set(imported(source)) == found


@pytest.mark.parametrize(
    "source",
    ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ", "import os\ne = os.environ"],
)
def test_the_scan_sees_every_read(source: str) -> None:
    assert environment_reads(source)
