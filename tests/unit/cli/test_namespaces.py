"""The column for Kubernetes namespaces."""

import io

import pytest

from sealane.cli.namespaces import with_namespaces
from sealane.cli.output import Output

HEADERS = ("ID", "NAME", "NETWORK", "SANDBOX", "STATE")


@pytest.fixture
def table():
    out = io.StringIO()
    output = Output(out, out, as_json=False, environ={})

    def shown(*rows):
        output.table(*with_namespaces(HEADERS, rows, 1, 3))
        return out.getvalue()

    return shown


def test_it_is_there_where_any_name_has_one(table):
    assert table(
        ("e1", "blog/web-0", "pods", "blog/web-0", ("up", "green")),
        ("e2", "plain", "pods", "plain", ("up", "green")),
        ("e3", "shop/web-0", "pods", "shop/web-0-4026", ("up", "green")),
        ("e4", "shop/web-1", "pods", "other", ("up", "green")),
    ) == (
        "ID   NAMESPACE   NAME    NETWORK   SANDBOX      STATE\n"
        "e1   blog        web-0   pods      web-0        up\n"
        "e2               plain   pods      plain        up\n"
        "e3   shop        web-0   pods      web-0-4026   up\n"
        "e4   shop        web-1   pods      other        up\n"
    )


def test_without_one_the_table_is_as_it_was(table):
    assert table(("e1", "web", "front", "web", "up")) == (
        "ID   NAME   NETWORK   SANDBOX   STATE\ne1   web    front     web       up\n"
    )


def test_nor_has_an_empty_one_a_column(table):
    assert table() == "ID   NAME   NETWORK   SANDBOX   STATE\n"
