"""The XML form: the seed's backends, named pools and routes, onto the same model with the same checks."""

from __future__ import annotations

import re
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgpooler.config.load import load
from pgpooler.config.model import Configuration, PoolSettings, Rule, Timeouts
from pgpooler.config.routing import Router
from pgpooler.errors import ConfigurationError

SEED = """<?xml version="1.0" encoding="UTF-8"?>
<pgpooler>
  <listen host="127.0.0.1" port="6432"/>
  <log level="debug"/>
  <auth method="plain">
    <user name="reader" password="r"/>
    <user name="writer" password="w"/>
  </auth>
  <backends>
    <backend name="primary" host="pg-backend-1" port="5432"/>
    <backend name="replica" host="pg-backend-2" port="5432"/>
  </backends>
  <pools>
    <pool name="primary_pool" backend="primary" mode="transaction" size="20"/>
    <pool name="readonly_pool" backend="replica" mode="statement" size="50"/>
  </pools>
  <routing>
    <route user="writer" pool="primary_pool"/>
    <route user="reader" pool="readonly_pool"/>
  </routing>
</pgpooler>
"""
SAME_IN_YAML = """
listen: {host: 127.0.0.1, port: 6432}
logging: {level: debug}
auth: {method: plain, users: {reader: {password: r}, writer: {password: w}}}
backends:
  - {name: primary, host: pg-backend-1, port: 5432}
  - {name: replica, host: pg-backend-2, port: 5432}
routing:
  rules:
    - {name: primary_pool, user: writer, backend: primary, pool_mode: transaction, pool_size: 20}
    - {name: readonly_pool, user: reader, backend: replica, pool_mode: statement, pool_size: 50}
"""


POOL = '<pools><pool name="p" backend="a"/></pools>'
ROUTE = '<routing><route user="u" pool="p"/></routing>'


def without_places(configuration: Configuration) -> Configuration:
    rules = tuple(msgspec.structs.replace(rule, place="") for rule in configuration.routing.rules)
    routing = msgspec.structs.replace(configuration.routing, rules=rules)
    return msgspec.structs.replace(configuration, routing=routing, files=())


def xml(body: str) -> str:
    return (
        f'<pgpooler>\n<backends><backend name="a" host="x"/></backends>\n<auth method="trust"/>\n{body}\n</pgpooler>\n'
    )


def test_c1_the_xml_of_the_seed_is_the_same_configuration_as_its_yaml(folder) -> None:
    from_xml = folder.load(SEED, name="pgpooler.xml").configuration
    assert without_places(from_xml) == without_places(folder.load(SAME_IN_YAML).configuration)


def test_c2_a_rule_carries_the_name_of_its_pool(folder) -> None:
    router = Router(folder.load(SEED, name="pgpooler.xml").configuration)
    route = router.route("reader", "anything")
    assert route is not None
    assert (route.rule_name, route.pool_mode, route.pool_size) == ("readonly_pool", "statement", 50)
    assert route.place.endswith("pgpooler.xml:19:5")


def rules_of(folder, body: str) -> tuple[Rule, ...]:
    return folder.load(xml(body), name="pgpooler.xml").configuration.routing.rules


def test_several_routes_may_lead_to_one_pool_and_lists_are_repeated_elements(folder) -> None:
    rules = rules_of(
        folder,
        '<pools><pool name="p" backend="a"/></pools><routing><route pool="p" database="~ ^x"/>'
        '<route pool="p"><user>one</user><user>two*</user></route><route default="true" pool="p"/></routing>',
    )
    assert [rule.name for rule in rules] == ["p", "p", "p"]
    assert [pattern.text for pattern in rules[1].user] == ["one", "two"]
    assert rules[2].default


def test_every_pool_setting_can_be_written_in_a_pool_a_backend_and_the_defaults(folder) -> None:
    settings = {
        "server_reset_query": "SELECT my_reset()",
        "on_session_state": "error",
        "min_pool_size": 2,
        "reserve_pool_size": 3,
        "max_pinned": 4,
        "max_prepared_statements": 50,
        "max_queue": 5,
        "max_user_client_connections": 6,
        "max_db_client_connections": 7,
        **{name: number for number, name in enumerate(TIMES, 10)},
    }
    assert {"pool_mode", "pool_size", *settings} == set(PoolSettings.__struct_fields__)
    attributes = " ".join(f'{name}="{value}"' for name, value in settings.items())
    everywhere = [
        xml(f'<pools><pool name="p" backend="a" {attributes}/></pools>{ROUTE}'),
        xml(POOL + ROUTE).replace('host="x"', f'host="x" {attributes}'),
        xml(POOL + ROUTE.replace("<routing>", f"<routing><defaults {attributes}/>")),
    ]
    for text in everywhere:
        (route,) = Router(folder.load(text, name="pgpooler.xml").configuration).routes
        assert {name: getattr(route, name) for name in settings} == settings


TIMES = [name for name in Timeouts.__struct_fields__ if name in PoolSettings.__struct_fields__]


def test_the_limits_and_all_times_can_be_written_in_their_sections(folder) -> None:
    times = " ".join(f'{name}="{number}s"' for number, name in enumerate(TIMES, 10))
    limits = '<limits max_user_client_connections="3" max_db_client_connections="4"/>'
    (route,) = Router(folder.load(xml(f"{limits}<timeouts {times}/>"), name="pgpooler.xml").configuration).routes
    assert [getattr(route, name) for name in TIMES] == list(range(10, 10 + len(TIMES)))
    assert (route.max_user_client_connections, route.max_db_client_connections) == (3, 4)
    assert {route.origins[name] for name in TIMES} == {"timeouts"}
    assert route.origins["max_user_client_connections"] == route.origins["max_db_client_connections"] == "limits"


def test_every_section_and_the_defaults_can_be_written(folder) -> None:
    configuration = folder.load(
        xml(
            '<listen port="7000"><host>127.0.0.1</host><host>::1</host></listen>'
            '<log level="info" format="json"><file path="x.log" rotation_age="1d"/></log>'
            '<limits max_client_conn="5"/><timeouts query_wait_timeout="5s"/>'
            '<pools><pool name="p" backend="a" max_queue="4" server_lifetime="1h"/></pools>'
            '<routing><defaults pool_size="3"/><route default="true" pool="p"/></routing>'
        ),
        name="pgpooler.XML",
    ).configuration
    assert configuration.listen.hosts == ("127.0.0.1", "::1")
    assert configuration.logging.file.path == str(folder.path / "x.log")
    assert (configuration.limits.max_client_conn, configuration.timeouts.query_wait_timeout) == (5, 5)
    (route,) = Router(configuration).routes
    assert (route.pool_size, route.max_queue, route.server_lifetime) == (3, 4, 3600)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<listen port="▸0"/>', "from 1 to 65535"),
        ('<listen ▸prot="1"/>', "did you mean 'port'"),
        ("<listen  port = \"6432\"\n  host\n= '▸a b' />", "neither a host name"),
        ('<log level="▸loud"/>', "expected one of"),
        ("▸<logging/>", "did you mean <log>"),
        ("▸<gui/>", "not in this version"),
        ("▸<backnds/>", "did you mean 'backends'"),
        ("<listen>▸words</listen>", "expected the keys of 'listen'"),
        ('<listen port="1">▸words</listen>', "means nothing"),
        ('<listen port="1"/>\n▸<listen port="2"/>', "here twice"),
        ('<listen host="::1">▸<host>::2</host></listen>', "as an attribute and as an element"),
        ("▸words", "means nothing"),
        ("<listen port='1'>\n  ▸words</listen>", "means nothing"),
        ("<listen port='1'>  ▸words</listen>", "means nothing"),
        ("<pools>▸words</pools>", "means nothing"),
        ("<routing>▸words</routing>", "means nothing"),
        ("<routing><route>▸words</route></routing>", "means nothing"),
        ('<routing><route ▸usr="x" user="u" pool="p"/></routing>' + POOL, "did you mean 'user'"),
        (POOL + POOL.replace('name="p"', 'name="▸p"') + ROUTE, "another pool called 'p'"),
        ('<pools>▸<pool name="p"/></pools>' + ROUTE, "<pool> needs the attribute 'backend'"),
        ('<pools ▸size="3"/>', "unknown attribute 'size'"),
        ('<pools>▸<pol name="p"/></pools>', "unknown element <pol> in <pools>; did you mean 'pool'"),
        ('<pools>▸<pool backend="a"/></pools>', "<pool> needs the attribute 'name'"),
        ('<pools>▸<pool name="p" backend="a"/></pools>', "no route leads"),
        ('<routing>▸<route user="u"/></routing>', "<route> needs the attribute 'pool'"),
        ('<routing><route user="u" pool="▸p"/></routing>', "there is no pool called 'p'"),
        ("<routing>▸<rout/></routing>", "did you mean 'route'"),
        ('<pools><pool name="p" backend="a"/></pools><routing>▸<route pool="p"/></routing>', "matches nobody"),
        ('<auth method="trust"/>'.replace("<auth", "▸<auth"), "here twice"),
    ],
)
def test_what_is_wrong_in_xml_is_refused_at_its_place(folder, body: str, message: str) -> None:
    assert message in folder.marked(xml(body), name="pgpooler.xml")[0]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ('backend="▸b"', "there is no backend called 'b'"),
        ('backend="a" ▸pool_mode="session"', "did you mean 'mode'"),
        ('backend="a" ▸sise="4"', "unknown key 'sise'"),
        ('backend="a" mode="▸sesion"', "did you mean 'session'"),
        ('backend="a" size="▸x"', "whole number"),
        ('backend="a" ▸user="u"', "unknown attribute 'user' of <pool>"),
        ('backend="a" ▸default_pool_size="4"', "is 'pool_size' of a rule or of 'defaults' here"),
        ('backend="a" server_reset_query="▸DISCARD"', "at least two words"),
        ('backend="a" on_session_state="▸alow"', "did you mean 'allow'"),
        ('backend="a" max_pinned="▸-1"', "from 0 to"),
        ('backend="a" transaction_timeout="▸soon"', "expected a time"),
        ('backend="a" size="2" min_pool_size="▸3"', "'min_pool_size' 3 is more than the 'pool_size' 2"),
    ],
)
def test_a_wrong_pool_is_refused_at_its_place_once_however_many_routes_use_it(folder, pool: str, message: str) -> None:
    body = (
        f'<pools><pool name="p" {pool}/></pools><routing><route user="x" pool="p"/><route user="y" pool="p"/></routing>'
    )
    (found,) = folder.marked(xml(body), name="pgpooler.xml")
    assert message in found


def test_users_need_names_and_each_only_once(folder) -> None:
    text = xml("").replace(
        '<auth method="trust"/>',
        '<auth><user name="a" password="x"/><user name="▸a" password="y"/>▸<user password="z"/>▸<usr/>▸words</auth>',
    )
    messages = folder.marked(text, name="pgpooler.xml")
    assert len(messages) == 4


def test_without_users_trust_must_be_written_out_in_xml_too(folder) -> None:
    text = xml("").replace('<auth method="trust"/>', "").replace("<pgpooler>", "▸<pgpooler>")
    (message,) = folder.marked(text, name="pgpooler.xml")
    assert "nobody could log in" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE pgpooler [<!ENTITY a "b">]><pgpooler/>', "document types"),
        ('<!DOCTYPE pgpooler SYSTEM "file:///etc/passwd"><pgpooler/>', "document types"),
        ("<pgpooler>&a;</pgpooler>", "not valid XML: undefined entity"),
        ("<pgpooler><a></b></pgpooler>", "not valid XML: mismatched tag"),
        ('<pgpooler a="1" a="2"/>', "not valid XML: duplicate attribute"),
        ("", "not valid XML: no element found"),
        ("<configuration/>", "expected <pgpooler>"),
        ('<?xml version="1.0" encoding="latin1"?><pgpooler/>', "write the file in UTF-8"),
        ("<a>" * 50, "nested too deeply"),
        ("<pgpooler>" + "<a>" * 50, "nested too deeply"),
    ],
)
def test_what_is_not_our_xml_is_refused(folder, text: str, message: str) -> None:
    (problem,) = folder.problems(text, name="pgpooler.xml")
    assert message in problem.message
    assert problem.line == 1


def test_the_place_of_a_syntax_error_is_where_it_is(folder) -> None:
    folder.marked("<pgpooler>\n <a>▸&b;</a>\n</pgpooler>", name="pgpooler.xml")
    folder.marked("<!-- x -->\n  ▸<!DOCTYPE a><a/>", name="pgpooler.xml")


def test_elements_may_be_twenty_deep_and_no_deeper(folder) -> None:
    folder.marked(xml("▸" + "<a>" * 19 + "</a>" * 19), name="pgpooler.xml")
    folder.marked(xml("<a>" * 19 + "▸<a>" + "</a>" * 20), name="pgpooler.xml")


def test_columns_count_characters_not_bytes(folder) -> None:
    folder.marked(xml('<!-- äöü€ --><listen host="127.0.0.1" port="▸0"/>'), name="pgpooler.xml")


CHECKED = [match.span(2) for match in re.finditer(r'(host|port|level|method|mode|size|backend)="([^"]*)"', SEED)]


@pytest.mark.parametrize("span", CHECKED)
def test_a_bad_value_anywhere_is_reported_exactly_there(folder, span: tuple[int, int]) -> None:
    folder.marked(f"{SEED[: span[0]]}▸\N{SNOWMAN} *{SEED[span[1] :]}", name="pgpooler.xml")


SIGNS = "< > / = \" ' & ; ! ? - [ ] <pgpooler> </pgpooler> <a> </a> <auth/> <user name= <!-- --> <![CDATA[ ]]>"
TOKENS = st.sampled_from([*SIGNS.split(), " "])
garbage = st.text(max_size=40) | st.lists(TOKENS, max_size=20).map("".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good file with a stretch of it replaced."""
    start = draw(st.integers(0, len(SEED)))
    end = draw(st.integers(start, min(len(SEED), start + 12)))
    return SEED[:start] + draw(garbage) + SEED[end:]


@given(text=garbage | damaged())
def test_any_text_gives_a_configuration_or_a_configuration_error(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.xml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(ConfigurationError):
        assert load(path, {}).configuration.backends
