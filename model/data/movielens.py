"""MovieLens (Harper and Konstan, 2015): ratings in RecBole's atomic files or in any of GroupLens's own forms.

A rating of 4 or more is a click. Every rating is an impression at its time and a behaviour from then on; ratings of
the same second do not see one another. Splits by time over all ratings, 80/10/10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.data.dataset import Behaviors, DataError, DataSet, Impressions, IntArray
from model.data.tables import MISSING, catalogue, folder
from model.data.text_tables import header, is_int64, read_text, split_line, stable_id, text_lines
from model.data.timeline import grouped, split_by_time

ACTIONS = ("disliked", "neutral", "liked")  # below 3, below 4, from 4
YEAR = re.compile(r"\((\d{4})\)\s*$|-(\d{4})$|^(\d{4})$")  # at a title's end, in a release date, alone
NO_GENRE = ("", "(no genres listed)", "unknown")
# The 19 columns of 0 and 1 that end a line of u.item.
FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

Fields = Mapping[str, str]


class Form(NamedTuple):
    """The layout of one published form; the first field of a movie is its id, as `columns` has it."""

    ratings: str
    delimiter: str
    columns: tuple[str, str, str, str]  # user, item, rating, seconds
    names: tuple[str, ...] | None  # all columns of the ratings, where the file has no header
    movies: str
    movie_delimiter: str
    movie_names: tuple[str, ...] | None
    encoding: str  # of the movies
    year_and_genre: Callable[[Fields], tuple[str, str]]  # the text that tells the year, and the first genre


def _of_recbole(fields: Fields) -> tuple[str, str]:
    return fields.get("release_year", ""), fields.get("class", fields.get("genre", "")).partition(" ")[0]


def _of_movies(fields: Fields) -> tuple[str, str]:
    return fields.get("title", ""), fields.get("genres", "").partition("|")[0]


def _of_flags(fields: Fields) -> tuple[str, str]:
    return fields["date"], next((genre for genre in FLAGS if fields[genre] == "1"), "")


PLAIN = ("user_id", "item_id", "rating", "timestamp")
# The .dat files separate by "::": between single colons there are empty columns.
COLONS = ("user_id", "_", "item_id", "__", "rating", "___", "timestamp")
CSV = ("userId", "movieId", "rating", "timestamp")
MOVIE = ("item_id", "title", "genres")
MOVIE_FLAGS = ("item_id", "title", "date", "video", "url", *FLAGS)
FORMS = (
    Form("*.inter", "\t", PLAIN, None, "*.item", "\t", None, "utf-8-sig", _of_recbole),
    Form("ratings.csv", ",", CSV, None, "movies.csv", ",", None, "utf-8-sig", _of_movies),
    Form("ratings.dat", ":", PLAIN, COLONS, "movies.dat", "::", MOVIE, "latin-1", _of_movies),
    Form("u.data", "\t", PLAIN, PLAIN, "u.item", "|", MOVIE_FLAGS, "latin-1", _of_flags),
)


def open_movielens(path: Path) -> DataSet:
    """The data set in a folder of one of FORMS; side fields `release_year` and `genre` (the first), as integers."""
    folder(path, "movielens")
    for form in FORMS:
        if found := sorted(path.glob(form.ratings)):
            break
    else:
        raise DataError(f"movielens:{path}: must hold one of {', '.join(form.ratings for form in FORMS)}")
    if len(found) > 1:
        raise DataError(f"movielens:{path}: {' and '.join(file.name for file in found)}: must be one")
    impressions, ratings = _impressions(form, found[0])
    movies = sorted(path.glob(form.movies))
    if len(movies) != 1:
        raise DataError(f"movielens:{path}: {len(movies)} files {form.movies}: must be one")
    item_ids, fields = _movies(form, movies[0])
    return DataSet(
        name=f"movielens:{path}",
        items=catalogue(item_ids, fields, np.unique(impressions.item_ids)),
        behaviors=_behaviors(impressions, ratings),
        impressions=impressions,
        actions=ACTIONS,
        default_action="liked",
        description=f"MovieLens: {len(impressions)} ratings of {len(np.unique(impressions.user_ids))} users",
    )


def _impressions(form: Form, path: Path) -> tuple[Impressions, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    user, item, rating, seconds = form.columns
    kinds = {user: int, item: int, rating: float, seconds: float}
    table = read_text(path, kinds, delimiter=form.delimiter, names=form.names)
    if not len(table):
        raise DataError(f"{path}: no ratings: at least one")
    ratings = table.numbers(rating, minimum=0, maximum=5)
    timestamps_ms = np.round(table.numbers(seconds, minimum=0, maximum=1e12) * 1000).astype(np.int64)
    impressions = Impressions(
        user_ids=table.integers(user),
        item_ids=table.integers(item),
        timestamps_ms=timestamps_ms,
        clicks=(ratings >= 4).astype(np.int8),
        splits=split_by_time(timestamps_ms),
    )
    return impressions, ratings


def _behaviors(impressions: Impressions, ratings: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Behaviors:
    order = np.lexsort((impressions.timestamps_ms, impressions.user_ids))
    user_ids, offsets = grouped(impressions.user_ids[order])
    actions = np.searchsorted([3.0, 4.0], ratings, side="right").astype(np.int8)
    return Behaviors(user_ids, offsets, impressions.item_ids[order], impressions.timestamps_ms[order], actions[order])


def _movies(form: Form, path: Path) -> tuple[IntArray, dict[str, IntArray]]:
    names = form.movie_names or header(path, form.movie_delimiter)
    movies: dict[int, tuple[int, int]] = {}
    for number, line in text_lines(path, form.encoding):
        if number == 1 and not form.movie_names:
            continue
        fields = split_line(path, number, line, form.movie_delimiter)
        if len(fields) != len(names):
            raise DataError(f"{path}: line {number}: {len(fields)} fields: must have {len(names)}")
        if not is_int64(fields[0]) or int(fields[0]) in movies:
            raise DataError(
                f"{path}: line {number}, column {names[0]!r}: {fields[0]!r}: must be a 64-bit integer, given once"
            )
        year, genre = form.year_and_genre(dict(zip(names, fields, strict=True)))
        movies[int(fields[0])] = _year(year), MISSING if genre in NO_GENRE else stable_id(genre)
    both = np.array(list(movies.values()), dtype=np.int64).reshape(-1, 2)
    return np.array(list(movies), dtype=np.int64), {"release_year": both[:, 0], "genre": both[:, 1]}


def _year(text: str) -> int:
    found = YEAR.search(text.strip())
    return int(next(filter(None, found.groups()))) if found else MISSING
