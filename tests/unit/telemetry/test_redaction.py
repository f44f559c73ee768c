"""Secret values are hidden in every text, in every form in which a server or a library may quote them."""

import asyncio
import base64
import html
import json
import logging
import re
import shlex
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilothouse.packaging.documents import dump
from pilothouse.telemetry import (
    HIDDEN,
    configure,
    forget_defects,
    hide,
    hide_everywhere,
    hiding,
    log_defect,
    object_context,
    redacted,
    redacted_reason,
    redaction,
)

log = logging.getLogger("pilothouse.test")


def _go_json(value: str) -> str:
    """What encoding/json writes: without HTML, and without the line separators of JavaScript."""
    escaped = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    text = json.dumps(value, ensure_ascii=False)
    return "".join(escaped.get(each, each) for each in text)


def _go_quoted(value: str) -> str:
    """What strconv.Quote writes."""
    escapes = {
        "\a": "a",
        "\b": "b",
        "\f": "f",
        "\n": "n",
        "\r": "r",
        "\t": "t",
        "\v": "v",
        '"': '"',
        "\\": "\\",
    }
    return f'"{"".join(_go_escape(each, escapes) for each in value)}"'


def _go_escape(each: str, escapes: dict[str, str]) -> str:
    if each in escapes:
        return f"\\{escapes[each]}"
    if each.isprintable():
        return each
    point = ord(each)
    return f"\\x{point:02x}" if point < 0x80 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _lower(text: str) -> str:
    """Writes the percent escapes in lower case."""
    return re.sub("%..", lambda match: match[0].lower(), text)


KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
QUOTES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "go": lambda value: json.dumps(value, ensure_ascii=False),
    "json": json.dumps,
    "json in json": lambda value: json.dumps(json.dumps({"a": value})),
    "python": repr,
    "go json": _go_json,
    "go json in a go string": lambda value: _go_quoted(_go_json(value)),
    "go json in json": lambda value: _go_json(_go_json(value)),
    "go string": _go_quoted,
    "go string in json": lambda value: _go_json(_go_quoted(value)),
    "python ascii": ascii,
    "python in json": lambda value: json.dumps(repr(value)),
    "html": html.escape,
    "shell": shlex.quote,
    "url": lambda value: quote(value, safe=""),
    "url path": quote,
    "url of go": lambda value: quote(value, safe="$&+,;=:@"),
    "url in lower case": lambda value: _lower(quote(value, safe="")),
    "url query": quote_plus,
    "url query in lower case": lambda value: _lower(quote_plus(value)),
    "url in a url": lambda value: quote(quote(value, safe=""), safe=""),
    "hex": lambda value: value.encode().hex(),
    "numbers of go": lambda value: " ".join(map(str, value.encode())),
    "numbers of python": lambda value: str(list(value.encode())),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
}
secrets = st.text(st.characters(codec="utf-8"), min_size=3).filter(
    lambda text: (
        text.strip() == text
        and len(text.encode()) <= 256  # Longer ones are not hidden as hex or as numbers.
        and text.lower() not in ("true", "false", "yes", "off", "null", "none", "default")
    )
)


@pytest.mark.parametrize("how", QUOTES)
@settings(max_examples=40)
@given(value=secrets)
def test_no_form_of_a_value_is_shown(how: str, value: str) -> None:
    form = QUOTES[how](value)
    assume(form not in "refused: <>, sorry")
    with object_context("Site", "default", ""):
        hide(lambda: [value])
        shown = redacted(f"refused: <{form}>, sorry")
        assert form not in shown.replace(HIDDEN, "")
        assert shown.startswith("refused: <") or value in "refused"


REALISTIC = [
    "hunt&r2<9>",
    "Server=db;User=app;Password=hunt&r2<9>;Pooling=true",
    "p%w+d/1=2",
    "a\\b\"c'd`e\n f",
    "caf\xe9 \U0001f600 \u2028x",
    "C:\\new\\\\t",
    "&<>&<>!!",
    "tok  +en$&1",
]


@pytest.mark.parametrize("value", REALISTIC)
@pytest.mark.parametrize("how", QUOTES)
def test_no_form_of_a_realistic_value_is_shown(how: str, value: str) -> None:
    form = QUOTES[how](value)
    with object_context("Site", "default", ""):
        hide(lambda: [value])
        shown = redacted(f"Invalid value: {form}: field is immutable")
    assert shown.startswith("Invalid value: ")
    assert shown.endswith(": field is immutable")
    rest = shown.removeprefix("Invalid value: ").removesuffix(": field is immutable")
    # Quotes, padding and the document around the value may be left.
    rest = rest.removeprefix(r'"{\"a\": \"')
    assert re.sub(r"[\\\"'=\[\]\s.|>{}-]", "", rest) == HIDDEN


@pytest.mark.parametrize("user", ["u", "us", "use", "user"])
def test_a_value_inside_a_longer_base64_text_is_hidden(user: str) -> None:
    auth = base64.b64encode(f"{user}:hunt&r2<9>?~:x".encode()).decode()
    with object_context("Site", "default", ""):
        hide(lambda: ["hunt&r2<9>?~"])
        shown = redacted(f"Authorization: Basic {auth}")
    assert HIDDEN in shown
    assert not set(zip(*(shown[at:] for at in range(6)), strict=False)) & set(
        zip(*(base64.b64encode(b"hunt&r2<9>?~").decode()[at:] for at in range(6)), strict=False)
    )


@pytest.mark.parametrize("value", REALISTIC)
def test_no_form_in_yaml_is_shown(value: str) -> None:
    text = dump({"a": value, "b": f"long {'words ' * 10}{value}"})
    with object_context("Site", "default", ""):
        hide(lambda: [value])
        assert redacted(text).count(HIDDEN) == 2


def test_a_text_without_a_value_compiles_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_word", None)
    with object_context("Site", "default", ""):
        hide(lambda: [KEY, *REALISTIC[:2], "hunter2"])
        text = 'Job.batch "j" is invalid: spec: field is "immutable" & \\u003cfixed\\u003e'
        assert redacted(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (KEY, f"it is {KEY}"),
        (KEY, "line MIIEvQIBADANBgkqhkiG9w0BAQEFAASC of it"),
        ('{"auths": {"r.io": {"password": "hunter2", "auth": "dTpodW50ZXIy"}}}', "hunter2, dTpodW50ZXIy"),
        (b"hunter2", "hunter2"),
        (b"\xff\xfe\x00\x01", "//4AAQ=="),
        ("hunter2\n", "hunter2"),
        ("x", 'Invalid value: "x"'),
        ("8675309", "got Value:8675309}"),
    ],
)
def test_parts_and_short_values(value: str | bytes, text: str) -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: [value])
        shown = redacted(text)
    assert HIDDEN in shown
    for secret in ("hunter2", "dTpodW50ZXIy", "MIIE", "//4AAQ", '"x"', "8675309"):
        assert secret not in shown


def test_short_values_do_not_make_a_message_unreadable() -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: ["a", "true", "", "pod", "web", "default", "Site"])
        assert redacted("a true podium: pod of Site default/web") == (
            "a true podium: (hidden) of Site default/web"
        )


def test_values_are_hidden_while_the_object_is_reconciled() -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2"])
        assert redacted("hunter2") == HIDDEN
        with object_context("Site", "default", "other"):
            assert redacted("hunter2") == "hunter2"
        assert redacted("hunter2") == HIDDEN


def _in_thread(text: str) -> str:
    """Returns the redacted text of a thread that does not have the context of its caller."""
    shown: list[str] = []
    thread = threading.Thread(target=lambda: shown.append(redacted(text)))
    thread.start()
    thread.join()
    return shown[0]


def test_values_are_hidden_in_threads_without_the_context_of_the_reconcile() -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2", "admin", "a"])
        assert _in_thread("hunter2") == HIDDEN
    # The thread may outlive the reconcile.
    assert _in_thread("hunter2") == HIDDEN
    # These words may just as well concern another object.
    assert _in_thread('a User "admin" cannot list "a"') == 'a User "admin" cannot list "a"'
    with object_context("Site", "default", "other"):
        assert redacted("hunter2") == "hunter2"


async def test_values_are_hidden_in_a_task_of_another_reconcile_that_has_ended() -> None:
    proceed = asyncio.Event()

    async def client() -> str:
        await proceed.wait()
        return redacted("hunter2")

    with object_context("Site", "default", "first"):
        shared = asyncio.create_task(client())
        await asyncio.sleep(0)
    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2"])
        proceed.set()
        assert await shared == HIDDEN


def test_values_that_a_thread_reads_without_the_context_of_the_reconcile_are_hidden() -> None:
    with object_context("Site", "default", "web"):
        thread = threading.Thread(target=hide, args=(lambda: ["hunter2"],))
        thread.start()
        thread.join()
        assert redacted("hunter2") == HIDDEN
    assert redacted("hunter2") == HIDDEN
    for number in range(64):
        hide(lambda number=number: [f"password-{number:03}"])  # type: ignore[misc]
    assert redacted("hunter2 password-000 password-063") == f"hunter2 {HIDDEN} {HIDDEN}"


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_uncaught_error_of_a_thread_shows_no_value(
    format: Any,  # noqa: A002 - the setting's own name
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(format, "info")

    def fail(error: BaseException) -> None:
        raise error

    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2"])
        for error in (KeyError("hunter2"), SystemExit("hunter2")):
            thread = threading.Thread(target=fail, args=(error,), name="poller")
            thread.start()
            thread.join()
    written = capsys.readouterr().err
    assert "Uncaught error in the thread poller" in written
    assert f"KeyError: '{HIDDEN}'" in written
    assert "SystemExit" not in written
    assert "hunter2" not in written


def test_the_values_of_the_last_objects_are_remembered() -> None:
    kept = 64
    for number in range(kept + 1):
        with object_context("Site", "default", f"site-{number}"):
            hide(lambda number=number: [f"password-{number:03}"])  # type: ignore[misc]
    assert _in_thread("password-000") == "password-000"
    assert _in_thread("password-001") == HIDDEN
    for _ in range(kept + 1):
        with object_context("Site", "default", "web"):
            hide(lambda: ["hunter2"])
    assert _in_thread("password-064") == HIDDEN


def test_values_are_hidden_during_a_call_outside_of_a_reconcile() -> None:
    with hiding(lambda: ["hunter2"]):
        assert redacted("hunter2") == HIDDEN
    assert redacted("hunter2") == "hunter2"
    with object_context("Site", "default", "web"):
        hide(lambda: ["outer secret"])
        with hiding():
            hide(lambda: ["hunter2"])
            assert redacted("outer secret hunter2") == f"{HIDDEN} {HIDDEN}"
        assert redacted("outer secret hunter2") == f"{HIDDEN} hunter2"


async def test_tasks_and_threads_of_the_same_object_share_what_is_known() -> None:
    with object_context("Site", "default", "web"):
        await asyncio.gather(asyncio.to_thread(hide, lambda: ["hunter2"]), asyncio.sleep(0))
        assert redacted("hunter2") == HIDDEN


def test_values_are_expanded_only_when_a_text_is_redacted() -> None:
    expanded = []

    def values() -> list[str]:
        expanded.append(1)
        return ["hunter2"]

    with object_context("Site", "default", "web"):
        hide(values)
        assert expanded == []
        redacted("x")
        redacted("y")
        assert expanded == [1]


def test_a_later_credential_is_hidden_in_a_text_that_was_checked_before() -> None:
    text = "The gateway refused the token of-the-second-gateway."
    with object_context("Ticket", "default", "a"):
        assert [redacted(text) for _ in range(2)] == [text, text]
        hide_everywhere("of-the-second-gateway")
        assert redacted(text) == "The gateway refused the token (hidden)."
        texts = [f"text number {number}" for number in range(1000)]
        assert list(map(redacted, texts)) == texts


def test_credentials_of_the_process_and_passwords_in_urls_are_hidden_everywhere() -> None:
    hide_everywhere("eyJhbGciOiJSUzI1NiJ9.e30.x")
    assert redacted("Bearer eyJhbGciOiJSUzI1NiJ9.e30.x refused") == "Bearer (hidden) refused"
    assert (
        redacted("proxy http://me:hunter2@proxy:3128 refused") == "proxy http://(hidden)@proxy:3128 refused"
    )
    assert redacted("see https://example.com/a@b and c@d") == "see https://example.com/a@b and c@d"
    for number in range(100):
        hide_everywhere(f"token number {number}")
    assert redacted("token number 99") == HIDDEN


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_log_line_and_no_traceback_shows_a_value(
    format: str,  # noqa: A002 - the setting's own name
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("json" if format == "json" else "console", "info")
    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2"])
        log.info("password %s", "hunter2", extra={"given": {"password": "hunter2"}, "seconds": 1})
        try:
            raise KeyError("hunter2")
        except KeyError as error:
            log.exception("failed")
            forget_defects()
            log_defect(log, error, "task %r failed", "x")
    written = capsys.readouterr().err
    assert "hunter2" not in written
    assert written.count(HIDDEN) >= 4
    assert "KeyError" in written


def test_a_defect_hides_values_from_handlers_of_other_libraries_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    forget_defects()
    with object_context("Site", "default", "web"):
        hide(lambda: ["hunter2"])
        try:
            raise KeyError("hunter2")
        except KeyError as error:
            log_defect(log, error, "task %r failed", "x")
    assert "hunter2" not in caplog.text
    assert "task 'x' failed" in caplog.text
    assert "Traceback" in caplog.text


ENV = "PASSWORD=s3cr3tpassw0rd\nUSER=bob"
BASIC = base64.b64encode(b"bob:s3cr3tpassw0rd").decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("line1secret99\nline2secret99\n", "login failed for user with line2secret99"),
        ("s3cr3tpassw0rd\n0therpassw0rd\n", "password 0therpassw0rd rejected"),
        (ENV, "error near PASSWORD=s3cr3tpassw0rd"),
        (ENV, "password s3cr3tpassw0rd rejected"),
        ("export PASSWORD='s3cr3tpassw0rd'", "password s3cr3tpassw0rd rejected"),
        ('A="s3cr3t passw0rd"', "password s3cr3t passw0rd rejected"),
        ("user=bob password=s3cr3tpassw0rd host=db", "password s3cr3tpassw0rd rejected"),
        ("Server=db;Password=s3cr3tpassw0rd;Port=1", "password s3cr3tpassw0rd rejected"),
        ("user: bob\npassword: s3cr3tpassw0rd\n", "password s3cr3tpassw0rd rejected"),
        ("db:\n  pw: hunter2\n", "password hunter2 rejected"),
        ("key: |\n  s3cr3tpassw0rd\n", "password s3cr3tpassw0rd rejected"),
        ("db:5432:app:bob:s3cr3tpassw0rd\n", "password s3cr3tpassw0rd rejected"),
        ("postgres://bob:hunter2@db/app", "password hunter2 rejected"),
        ("postgres://bob:p%40sswordlong@db/app", "password p@sswordlong rejected"),
        ("postgres://bob:p@sswordlong@db/app", "password p@sswordlong rejected"),
        (f"Authorization: Basic {BASIC}", "password s3cr3tpassw0rd rejected"),
        (f'{{"auths": {{"r.io": {{"auth": "{BASIC}"}}}}}}', "password s3cr3tpassw0rd rejected"),
        ('{"dsn": "user=bob password=hunter2"}', "password hunter2 rejected"),
        ("unrelated", f"refused Authorization: Basic {BASIC}"),
    ],
)
def test_a_part_of_a_value_is_hidden_on_its_own(value: str, text: str) -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: [value])
        shown = redacted(text)
    assert HIDDEN in shown
    for secret in ("s3cr3t", "0therpassw0rd", "hunter2", "sswordlong", BASIC, "line2secret99"):
        assert secret not in shown


def test_ordinary_words_in_a_value_stay_readable() -> None:
    config = (
        "user: bob\nhost: database\nport: 5432\nmode: read-only\nenabled: true\nPASSWORD=s3cr3tpassw0rd\n"
    )
    text = "bob cannot reach the database on port 5432 in read-only mode. Basic authentication failed."
    with object_context("Site", "default", "web"):
        hide(lambda: [config])
        assert redacted(text) == text


@pytest.mark.parametrize(
    "value", ["x" * 200_000, "a.b-" * 50_000, "://a:" * 40_000, "a=" * 100_000, "a:" * 100_000]
)
def test_finding_the_parts_of_a_long_value_takes_linear_time(value: str) -> None:
    """A search in quadratic time would not end within the timeout of the tests."""
    with object_context("Site", "default", "web"):
        hide(lambda: [value])
        assert redacted("nothing secret") == "nothing secret"


def test_a_reason_that_is_a_secret_is_hidden() -> None:
    with object_context("Site", "default", "web"):
        hide(lambda: ["Hunter2Hunter2"])
        assert redacted_reason("Hunter2Hunter2") == "Hidden"
        assert redacted_reason("Reconciled") == "Reconciled"
