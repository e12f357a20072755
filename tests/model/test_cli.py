import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from written_data import call, write_impressions

from kernels import BackendUnavailableError, KernelInputError
from model import distill, evaluate, train
from model.artifact import ArtifactError
from model.cli import CommandLine, DataConfig, add_settings, device_of, main, settings
from model.config import ConfigError, ModelConfig
from model.data import DataError
from model.distill import RocketConfig
from model.training import TrainConfig


@dataclass(frozen=True)
class Odd:
    """Every kind of setting."""

    number: int = field(default=3, metadata={"help": "how many"})
    share: float = 0.5
    wide: tuple[int, ...] = (4, 2)
    names: tuple[str, ...] | None = None
    flag: bool = True
    kind: str = field(default="a", metadata={"choices": ("a", "b")})
    free_text: str = "x"


def parsed(*words: str) -> Odd:
    line = CommandLine("odd", None)
    add_settings(line, Odd)
    return settings(line.parse_args(list(words)), Odd)


def test_options_become_the_dataclass() -> None:
    assert parsed() == Odd()
    words = ["--number", "7", "--share", "1e-3", "--wide", "8", "--names", "p,q", "--no-flag", "--kind", "b"]
    due = Odd(number=7, share=0.001, wide=(8,), names=("p", "q"), flag=False, kind="b", free_text="y z")
    assert parsed(*words, "--free-text", "y z") == due
    assert parsed("--names", "").names == ()


@pytest.mark.parametrize("words", [["--number", "1.5"], ["--wide", "a"], ["--kind", "c"], ["--nothing", "1"]])
def test_a_bad_option_is_a_config_error(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="--help lists the options"):
        parsed(*words)


def test_a_setting_without_a_default_is_a_mistake() -> None:
    @dataclass
    class Bare:
        """One without."""

        number: int

    with pytest.raises(TypeError, match="number: a setting needs a default"):
        add_settings(argparse.ArgumentParser(), Bare)


KINDS: list[tuple[Callable[[], argparse.ArgumentParser], tuple[type, ...]]] = [
    (train.parser, (DataConfig, ModelConfig, TrainConfig)),
    (distill.parser, (DataConfig, ModelConfig, TrainConfig, RocketConfig)),
]


@pytest.mark.parametrize(("parser", "kinds"), KINDS)
def test_defaults_of_a_command_are_those_of_its_settings(
    parser: Callable[[], argparse.ArgumentParser], kinds: tuple[type, ...]
) -> None:
    args = parser().parse_args(["--out", "x"])
    for kind in kinds:
        assert settings(args, kind) == kind()


@pytest.mark.parametrize("run", [train.run, distill.run, evaluate.run])
def test_help_says_something_of_every_option(run: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run, "--help") == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    options = [line for line in text.splitlines() if line.startswith("  -")]
    following = dict(zip(text.splitlines(), text.splitlines()[1:], strict=False))
    assert len(options) > 8
    for line in options:
        said = line[2:].split("  ", 1)[-1] if "  " in line[2:].strip() else following[line]
        assert len(said.strip()) > 8, line
    assert "None" not in text
    assert ".:" not in text


@pytest.mark.parametrize(
    "error", [ArtifactError, BackendUnavailableError, ConfigError, DataError, KernelInputError, OSError]
)
def test_what_the_user_did_wrong_is_one_line_and_code_2(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        raise error("what, where, the rule")

    with pytest.raises(SystemExit) as leaving:
        main(body)
    assert leaving.value.code == 2
    assert capsys.readouterr().err == "error: what, where, the rule\n"


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        main(lambda: print(1 // 0))


def test_an_interrupt_without_words(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as leaving:
        main(body)
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_device_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(name: str, threads: int = 0) -> torch.device:
        return device_of(argparse.Namespace(device=name, threads=threads))

    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert chosen("cpu", 3) == chosen("cpu") == torch.device("cpu")
    assert set_to == [3]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("auto").type == "cpu"
    asked: list[str] = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: asked.append(str(device)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [str(chosen(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda:3", "cuda:3", "cuda:1"]
    assert asked == ["cuda:3", "cuda:3", "cuda:1"]


def test_the_run_folder_is_named_after_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_impressions(tmp_path / "data", rows=200)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    words = ("--data", name, "--out", "models/mine/../mine", "--hidden", 3, "--embedding", 2, "--head", 4)
    assert call(train.run, *words) == 0
    assert (tmp_path / "runs" / "mine" / "checkpoint.pt").is_file()
    assert {part.name for part in (tmp_path / "models" / "mine").iterdir()} == {"model.json", "model.safetensors"}
