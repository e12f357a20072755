"""What is installed where: the package with and without a compiler, and the line that says which."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import kernels
import loadtest
import model
import service
from kernels.aot.__main__ import unavailable

ROOT = Path(__file__).resolve().parents[1]
NO_COMPILER = {**os.environ, "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
OBJECTS = Path(sys.prefix) / "native/CMakeFiles"
ONE_SET = ("avx2", "avx512", "avx512vnni", "amx")  # compiled for more than every CPU has


def needs(missing: bool, what: str) -> None:
    if missing and os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    if missing:
        pytest.skip(f"needs {what}")


def test_nothing_that_tests_need_is_missing_in_ci() -> None:
    """They skip where it is; a machine of one's own may lack it."""
    packages = ["triton", "deepctr_torch", "torch_rechub", "kernels.native._native"]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    assert not (missing and os.environ.get("CI")), missing
    assert not (os.environ.get("CI") and unavailable())


@pytest.mark.parametrize("package", [kernels, loadtest, model, service])
def test_the_packages_are_this_checkouts(package: object) -> None:
    """There is another `kernels` among public packages, and another checkout may be installed."""
    assert Path(str(getattr(package, "__file__", None))) == ROOT / str(getattr(package, "__name__", "")) / "__init__.py"


def test_a_wheel_is_made_without_a_compiler(tmp_path: Path) -> None:
    options = ["--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", tmp_path, ROOT],
        cwd=tmp_path,
        env=NO_COMPILER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "kernels/native/__init__.py",
        "model/data/dataset.py",
        "model/artifacts/kuairand/model.json",
        "model/artifacts/kuairand/model.safetensors",
        "service/stores/append.lua",
        "service/console/index.html",
        "service/console/console.css",
        "service/console/icon.svg",
        "service/console/main.js",
        "service/py.typed",
    } <= names
    code = (".py", ".pyi", ".json", ".safetensors", ".lua", ".html", ".css", ".svg", ".js", "/py.typed")
    assert not {name for name in names if not name.endswith(code)} - {name for name in names if ".dist-info/" in name}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "kernels",
        "loadtest",
        "model",
        "service",
    }


def make(folder: Path, goal: str, environment: Mapping[str, str]) -> str:
    """Of what `make GOAL` says, the part about the kernels, with the installations taken for done."""
    done = [f"--old-file=.venv/{each}.stamp" for each in ("serve", "full")]
    ran = subprocess.run(
        ["make", *done, goal], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def test_what_is_lost_without_a_compiler_is_said_once(tmp_path: Path) -> None:
    needs(not shutil.which("make"), "make")
    for name in ("Makefile", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "kernels/native", tmp_path / "kernels/native", ignore=shutil.ignore_patterns("*.so"))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    stale = tmp_path / "kernels/native/_native.so"
    stale.touch()
    environment = {name: value for name, value in NO_COMPILER.items() if not name.startswith("MAKE")}
    said = make(tmp_path, ".venv/native.stamp", environment)
    assert "No CPU kernels: '/nonexistent/c++' cannot compile" in said
    assert "then run make setup" in said
    assert said.count("\n") == 1
    assert not stale.exists()
    assert not make(tmp_path, ".venv/native.stamp", environment)
    assert make(tmp_path, "setup", environment) == said
    os.utime(tmp_path / ".venv/native.stamp", (0, 0))  # as if a source had changed
    assert make(tmp_path, ".venv/native.stamp", environment) == said


@pytest.mark.parametrize("name", ONE_SET)
def test_no_code_for_one_instruction_set_can_take_anothers_place(name: str) -> None:
    """A function that the linker may merge with its namesakes, or one that runs at loading, could run on any CPU."""
    objects = list((OBJECTS / f"{name}.dir").rglob("*.o"))
    needs(not shutil.which("nm") or not OBJECTS.exists(), "nm, and the extension compiled by make")
    if not objects:
        pytest.skip(f"this compiler or platform has no {name}")
    for path in objects:
        lines = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
        defined = [line.split(maxsplit=2)[1:] for line in lines if line[0] != " "]
        assert defined
        assert not [symbol for kind, symbol in defined if kind in "uvVwW" or "_GLOBAL__sub_I" in symbol]
        sections = subprocess.run(["objdump", "-h", path], capture_output=True, text=True, check=True).stdout
        assert ".text" in sections
        assert ".init_array" not in sections
