"""Every target of `tests.fuzz`, with inputs that Hypothesis makes of pieces that mean something, whole and spoilt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import END, TARGETS


@st.composite
def spoilt(draw: st.DrawFn, piece: bytes) -> bytes:
    """A piece with bytes of it replaced, left out or added."""
    start = draw(st.integers(0, len(piece)))
    stop = draw(st.integers(start, min(start + 4, len(piece))))
    return piece[:start] + draw(st.binary(max_size=4)) + piece[stop:]


def inputs(pieces: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    piece = st.sampled_from(pieces)
    return st.lists(piece | piece.flatmap(spoilt) | st.binary(max_size=20) | st.just(END), max_size=6).map(b"".join)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_target_comes_back_from_whatever_is_made_of_its_pieces(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target.run(data.draw(inputs(target.pieces)))


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_comes_back_from_each_of_its_pieces_cut_anywhere(name: str) -> None:
    target = TARGETS[name]
    for piece in target.pieces:
        for length in range(len(piece) + 1):
            target.run(piece[:length])
