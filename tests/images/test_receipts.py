from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.images import receipts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
@settings(max_examples=40, deadline=None)
def test_text_is_ascii_and_parses_back(recipe: dict[str, object]) -> None:
    line = receipts.text(recipe)
    assert line.isascii()
    assert "\0" not in line
    assert receipts.parse(line) == recipe


@pytest.mark.parametrize(
    "description",
    [
        None,
        3,
        b"atelier-recipe:{}",
        "",
        "a boat",
        "atelier-recipe:",
        "atelier-recipe:[1]",
        "atelier-recipe:" + "[" * 99_999,
    ],
)
def test_anything_else_is_no_recipe(description: object) -> None:
    assert receipts.parse(description) is None


def test_what_is_not_json_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        receipts.text({"x": float("nan")})
    with pytest.raises(TypeError):
        receipts.text({"x": object()})
