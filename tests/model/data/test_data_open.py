from pathlib import Path

import pytest

from model import data
from model.data import DataError, open_data


@pytest.mark.parametrize("name", ["", "kuairand", "kuairand:", "data/kuairand_pure"])
def test_a_name_without_adapter_or_path_states_the_form_and_the_choices(name: str) -> None:
    with pytest.raises(
        DataError, match="ADAPTER:PATH, with ADAPTER one of kuairand, movielens, amazon, taobao, canonic"
    ):
        open_data(name)


def test_an_unknown_adapter_states_the_choices() -> None:
    with pytest.raises(DataError, match="adapter 'csv' must be one of kuairand, movielens, amazon, taobao, canonical"):
        open_data("csv:some/file")


@pytest.mark.parametrize("adapter", ["kuairand", "movielens", "amazon", "taobao", "canonical"])
def test_a_missing_path_is_named(adapter: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{adapter}:{tmp_path}/none: no such (file|folder)"):
        open_data(f"{adapter}:{tmp_path}/none")


@pytest.mark.parametrize("adapter", ["kuairand", "movielens", "amazon", "canonical"])
def test_a_file_is_no_folder(adapter: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(DataError, match="not a folder"):
        open_data(f"{adapter}:{tmp_path}/file")


@pytest.mark.parametrize("adapter", ["kuairand", "movielens", "amazon", "taobao", "canonical"])
def test_an_empty_folder_says_what_it_must_hold(adapter: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold|no such file|not a file"):
        open_data(f"{adapter}:{tmp_path}")


@pytest.mark.parametrize("adapter", ["kuairand", "movielens"])
def test_prefixes_are_refused_where_impressions_have_splits(adapter: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prefixes=True is for sequences"):
        open_data(f"{adapter}:{tmp_path}", prefixes=True)


def test_public_names_exist() -> None:
    assert all(hasattr(data, name) for name in data.__all__)
