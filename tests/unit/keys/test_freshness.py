from __future__ import annotations

import time

import pytest

from zta_authz.keys.freshness import MAX_CHARACTERS, max_age


@pytest.mark.parametrize(
    ("cache_control", "age", "seconds"),
    [
        ("max-age=300", "", 300),
        ("public, max-age=300, must-revalidate", "", 300),
        ("MAX-AGE=300", "", 300),
        ('max-age="300"', "", 300),
        ("max-age=300,max-age=60", "", 60),
        ("max-age=0", "", 0),
        ("no-store", "", 0),
        ("no-cache, max-age=300", "", 0),
        ("max-age=300", "100", 200),
        ("max-age=300", " 100 ", 200),
        ("max-age=300", "1000", 0),
        ("max-age=300", "soon", 300),
        ("max-age=99999999999999999999", "", 2**31),
        ("max-age=" + "9" * 8000, "", 2**31),
        ('private="max-age=5", max-age=300', "", 300),
        ("max-age=300, max-age=soon", "", 300),
        ('ext="a\\",max-age=5", max-age = 300', "", 300),
    ],
)
def test_the_lifetime_comes_from_the_headers(cache_control: str, age: str, seconds: float) -> None:
    assert max_age(cache_control, age) == seconds


@pytest.mark.parametrize(
    "cache_control",
    ["", "public", "max-age", "max-age=", "max-age=-1", "max-age=1.5", "s-maxage=300", "x-max-age=300", '"max-age=300'],
)
def test_headers_without_a_usable_max_age_give_no_lifetime(cache_control: str) -> None:
    assert max_age(cache_control) is None


@pytest.mark.parametrize("text", ["a" + " " * 8000 + ";", "a" * 8000 + ";", "," * 8000, '"' * 8000, "\\" * 8000])
def test_time_is_linear_in_the_length(text: str) -> None:
    begun = time.process_time()
    assert max_age(text) is None
    assert time.process_time() - begun < 0.05


def test_oversized_values_give_no_lifetime() -> None:
    assert max_age("max-age=300" + "," * MAX_CHARACTERS) is None
