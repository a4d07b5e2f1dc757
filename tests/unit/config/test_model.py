"""The model: it survives the way to a worker, hides its secrets, and says everything once."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
import msgspec.inspect as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config import model
from pgpooler.config.keys import keys_of
from pgpooler.config.model import (
    Backend,
    BackendOverrides,
    Configuration,
    Limits,
    Overrides,
    PoolSettings,
    Timeouts,
    User,
)
from pgpooler.config.reader import Reader
from pgpooler.config.source import Sources


def values_of(kind: types.Type) -> st.SearchStrategy[Any]:
    """Any value of a type of the model."""
    if isinstance(kind, types.Metadata):
        return values_of(kind.type)
    if isinstance(kind, types.UnionType):
        return st.one_of([values_of(part) for part in kind.types])
    if isinstance(kind, types.NoneType):
        return st.none()
    if isinstance(kind, types.StructType):
        return instances(kind.cls)
    if isinstance(kind, types.VarTupleType):
        return st.lists(values_of(kind.item_type), max_size=3).map(tuple)
    if isinstance(kind, types.DictType):
        return st.dictionaries(values_of(kind.key_type), values_of(kind.value_type), max_size=3)
    if isinstance(kind, types.EnumType):
        return st.sampled_from(kind.cls)
    if isinstance(kind, types.BoolType):
        return st.booleans()
    if isinstance(kind, types.IntType):
        return st.integers(kind.ge if kind.ge is not None else 0, kind.le if kind.le is not None else 9)
    if isinstance(kind, types.FloatType):
        return st.floats(0, kind.le)
    assert isinstance(kind, types.StrType), kind
    return st.text(max_size=8)


def instances(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return st.builds(kind, **{field.name: values_of(field.type) for field in info.fields})


@given(instances(Configuration))
def test_a_configuration_survives_the_way_to_a_worker(configuration: Configuration) -> None:
    assert msgspec.json.decode(msgspec.json.encode(configuration), type=Configuration) == configuration


@given(instances(Configuration))
def test_w32_no_password_is_in_the_repr_of_any_configuration(configuration: Configuration) -> None:
    backends = tuple(msgspec.structs.replace(backend, password="hunter2") for backend in configuration.backends)
    users = {name: User(name=name, password="hunter2") for name in configuration.auth.users}
    auth = msgspec.structs.replace(configuration.auth, users=users)
    assert "hunter2" not in repr(msgspec.structs.replace(configuration, backends=backends, auth=auth))


def test_the_absence_of_a_password_is_not_masked() -> None:
    assert "password=''" in repr(Backend(name="a", host="b"))
    assert "password='********'" in repr(Backend(name="a", host="b", user="c", password="d"))


def test_instances_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Limits().max_queue = 1  # type: ignore[misc]


def test_the_inheritable_keys_are_the_same_everywhere() -> None:
    settings = set(PoolSettings.__struct_fields__)
    assert set(Overrides.__struct_fields__) == settings
    assert set(BackendOverrides.__struct_fields__) == settings - {"pool_size"}
    in_limits = set(Limits.__struct_fields__) - {"max_client_conn"}
    in_timeouts = set(Timeouts.__struct_fields__) - {"client_login_timeout", "drain_timeout"}
    assert in_limits == {"max_queue", "max_user_client_connections", "max_db_client_connections"}
    assert in_timeouts == {name for name in settings if isinstance(getattr(PoolSettings(), name), float)}
    inherited = in_limits | in_timeouts
    assert all(getattr(Overrides(), name) is None for name in settings)
    assert all(getattr(kind(), name, None) is None for kind in (Limits, Timeouts) for name in inherited)


def test_the_built_in_values_of_the_pool_settings() -> None:
    assert msgspec.to_builtins(PoolSettings()) == {
        "pool_mode": "session",
        "server_reset_query": None,
        "on_session_state": "pin",
        "pool_size": 20,
        "min_pool_size": 0,
        "reserve_pool_size": 0,
        "reserve_pool_timeout": 5,
        "max_pinned": None,
        "max_prepared_statements": 200,
        "max_queue": 0,
        "max_user_client_connections": 0,
        "max_db_client_connections": 0,
        "query_wait_timeout": 60,
        "query_timeout": 0,
        "transaction_timeout": 0,
        "idle_transaction_timeout": 0,
        "pinned_idle_timeout": 0,
        "session_idle_timeout": 0,
        "cancel_wait_timeout": 10,
        "server_connect_timeout": 15,
        "server_idle_timeout": 600,
        "server_lifetime": 3600,
    }


SECTIONS = [
    kind
    for kind in vars(model).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == model.__name__
    if not kind.__name__.startswith("_") and kind is not model.Pattern
]


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_key_says_what_it_means_and_can_be_read(kind: type[msgspec.Struct]) -> None:
    reader = Reader(Sources("pgpooler.yaml", {}))
    known = {*reader._texts, *reader._nodes, "secret", "", "internal"}
    for name, key in keys_of(kind).items():
        assert key.description, name
        assert key.reader in known
        if isinstance(key.type, types.EnumType):
            assert issubclass(key.type.cls, enum.StrEnum)
        if isinstance(key.type, types.IntType | types.FloatType) and key.reader != "workers":
            assert key.type.ge is not None, name
            assert key.type.le is not None, name
