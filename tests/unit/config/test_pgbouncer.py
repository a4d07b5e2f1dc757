"""PgBouncer's names for keys: each leads to a key that is there, and none hides one."""

from __future__ import annotations

import re

import msgspec
import pytest

from pgpooler.config import model
from pgpooler.config.keys import keys_of
from pgpooler.config.pgbouncer import RENAMED, renamed
from pgpooler.config.reader import LATER

KEYS = {
    name
    for kind in vars(model).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == model.__name__
    for name in keys_of(kind)
}


@pytest.mark.parametrize("name", RENAMED)
def test_a_name_of_pgbouncer_is_no_key_here_and_leads_to_keys_that_are(name: str) -> None:
    assert name not in KEYS | LATER
    quoted = re.findall(r"'(\w+)(?:: \w+)?'", RENAMED[name])
    assert quoted
    assert set(quoted) <= KEYS
    assert name in renamed(name)
    assert RENAMED[name] in renamed(name)


def test_other_names_are_not_explained() -> None:
    assert renamed("pool_size") == renamed("nonsense") == ""
