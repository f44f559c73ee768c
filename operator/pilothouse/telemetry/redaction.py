"""Hides secret values in texts.

Code that handles a secret value calls `hide`. The value is then hidden while the object is being reconciled
(`object_context`). In a text outside of every reconcile, such as a line that a thread logs without the
context of its reconcile, the values of all running reconciles and of the last 64 objects are hidden, except
short plain words.
`hide_everywhere` hides a value in the whole process. Every text that leaves the process passes through
`redacted`: errors, log lines, conditions, Events, diffs and reports.

Values are computed when a text is redacted, so `hide` costs only an append.
"""

import base64
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from pilothouse.telemetry.encodings import MARKS, PIECE_LENGTH, anchor, encoded, is_plain
from pilothouse.telemetry.parts import parts, without_basic

HIDDEN = "(hidden)"
HIDDEN_REASON = "Hidden"

Value: TypeAlias = str | bytes
Values: TypeAlias = Callable[[], Iterable[Value]]

# How many credentials of the process are remembered. A new one replaces the oldest.
_EVERYWHERE_LENGTH = 64
# How many ended scopes with values are remembered, one per object, for threads that outlive a reconcile. Also
# how many calls of `hide` outside of every scope are remembered.
_ENDED_LENGTH = 64
# Shorter values may occur inside ordinary words, so they are hidden only as whole words.
_WORD_LENGTH = 8
# Even shorter ones are hidden only in quotes.
_QUOTED_LENGTH = 3
# These values are not secret, and hiding them would make messages unreadable.
_PLAIN_WORDS = frozenset(("", "true", "false", "yes", "no", "on", "off", "null", "none", "default"))
# The beginning of a word, also after an escaped character: "\\nhunter2", "%20hunter2".
_BEFORE_WORD = r"(?:(?<![^\W_])|(?<=\\[abefnrtv0NLP])|(?<=\\u....)|(?<=\\x..)|(?<=%[0-9A-Fa-f]{2}))"
# How many texts without credentials of the process are remembered, and their longest length.
_CLEAN_COUNT = 256
_CLEAN_LENGTH = 256
# Longer values are not hidden as hex or as numbers.
_NUMBERS_LENGTH = 256
_SHORT_WORD = re.compile(r"[\"'`]?[a-z]+[\"'`]?")
_URL_PASSWORD = re.compile(r"(?<=://)[^/\s@\"'<>]+@")


class Form(NamedTuple):
    """A form in which a text may contain a value.

    Attributes:
        text: The form.
        pieces: The parts of it that an encoder may have changed, each with its anchor; see
            `pilothouse.telemetry.encodings`. Empty if no encoder changes the form.
    """

    text: str
    pieces: tuple[tuple[str, str], ...] = ()


class Secrets:
    """The secret values that are known while an object is being reconciled.

    Attributes:
        public: Words that are never hidden, even if a secret contains them, such as the object's name.
        outer: The scope around this one, whose values are hidden as well.
        ended: Whether the scope has ended. Tasks and threads that it started may still refer to it.
        values: Functions that return values. They are called when the values are first needed.
    """

    __slots__ = ("_forms", "_known", "ended", "outer", "public", "values")

    def __init__(self, *public: str, outer: "Secrets | None" = None) -> None:
        self.public = public
        self.outer = outer
        self.ended = False
        self.values: list[Values] = []
        self._forms: tuple[Form, ...] = ()
        self._known = 0

    def add(self, values: Values) -> None:
        """Adds values. They are computed when they are first needed."""
        self.values.append(values)

    def forms(self) -> tuple[Form, ...]:
        """Returns all forms in which a text may contain one of the values, longest first."""
        count = len(self.values)
        if count != self._known:
            found = {form for values in self.values for value in values() for form in forms_of(value)}
            secret = (form for form in found if form.text not in self.public)
            self._forms = tuple(sorted(secret, key=lambda form: (-len(form.text), form)))
            self._known = count
        return self._forms

    def distinct_forms(self) -> Iterator[Form]:
        """Yields the forms that are not short plain words.

        Such a word, for example a user name "admin", also occurs in texts about other objects.
        """
        return (
            form
            for form in self.forms()
            if len(form.text) >= _WORD_LENGTH or not _SHORT_WORD.fullmatch(form.text)
        )


_scope: ContextVar[Secrets | None] = ContextVar("pilothouse_secrets", default=None)
_everywhere: OrderedDict[str, tuple[Form, ...]] = OrderedDict()
# All forms of the above. Most texts are short, so one loop over all forms is the cheapest.
_everywhere_forms: list[Form] = []
# Texts that are known to have no credential of the process, because most objects have the same few texts. A
# new credential replaces the set: a thread that has checked a text before then adds it to the old one.
_clean: list[set[str]] = [set()]
# The scopes with values that have not ended.
_active: dict[int, Secrets] = {}
# The scopes with values that ended last, by their public words, which name the object.
_ended: dict[tuple[str, ...], Secrets] = {}
# The values that became known last outside of every scope, for example in a thread without the context of its
# reconcile. They are hidden in every text.
_unscoped: deque[Secrets] = deque(maxlen=_ENDED_LENGTH)


def enter(*public: str) -> Token[Secrets | None]:
    """Begins a scope without values; for the arguments see `Secrets.public`."""
    return _scope.set(Secrets(*public))


def leave(token: Token[Secrets | None]) -> None:
    """Ends a scope. Its values are remembered for a while for texts outside of every scope."""
    if (secrets := _leave(token)) is not None:
        _ended.pop(secrets.public, None)
        _ended[secrets.public] = secrets
        if len(_ended) > _ENDED_LENGTH:
            del _ended[next(iter(_ended))]


@contextmanager
def hiding(values: Values = tuple) -> Generator[None]:
    """Hides values in every text inside the block, and forgets them at its end.

    It is for short calls of an author's function outside of a reconcile, such as an index.

    Args:
        values: Returns the values; see `hide`.
    """
    token = _scope.set(Secrets(outer=_scope.get()))
    hide(values)
    try:
        yield
    finally:
        _leave(token)


def _leave(token: Token[Secrets | None]) -> Secrets | None:
    """Ends a scope, and returns it if it has values."""
    secrets = _scope.get()
    _scope.reset(token)
    if secrets is None:
        return None
    secrets.ended = True
    return _active.pop(id(secrets), None)


def hide(values: Values) -> None:
    """Hides values in every text of the current scope.

    Without a scope they are hidden in every text of the process, until 64 further calls without a scope.

    Args:
        values: Returns the values. It is called when a text is redacted.
    """
    secrets = _scope.get()
    if secrets is None:
        secrets = Secrets()
        _unscoped.append(secrets)
    elif not secrets.ended:
        _active[id(secrets)] = secrets
    secrets.add(values)


def hide_everywhere(value: Value) -> None:
    """Hides a credential in every text of the process.

    The last 64 credentials are remembered. Credentials with fewer than 8 characters are ignored.
    """
    text = value if isinstance(value, str) else value.decode(errors="replace")
    if len(text) < _WORD_LENGTH:
        return
    if text in _everywhere:
        _everywhere.move_to_end(text)
        return
    _everywhere[text] = tuple(sorted(forms_of(value), key=lambda form: -len(form.text)))
    if len(_everywhere) > _EVERYWHERE_LENGTH:
        _everywhere.popitem(last=False)
    _everywhere_forms[:] = [form for forms in _everywhere.values() for form in forms]
    _clean[0] = set()


def redacted(text: str) -> str:
    """Returns the text with each known secret value replaced by `(hidden)`.

    Passwords in URLs, and credentials after the word Basic, are replaced in every text.
    """
    text = _without_credentials(text)
    current = secrets = _scope.get()
    while secrets is not None:
        if secrets.values:
            text = _without(text, secrets.forms())
        secrets = secrets.outer
    if current is None or current.ended:
        # The caller's context is not that of a running reconcile, so the text may belong to any. The lists
        # are copies, because another thread may begin or end a scope.
        for each in (*list(_active.values()), *list(_ended.values())):
            text = _without(text, each.distinct_forms())
    if _unscoped:
        for each in list(_unscoped):
            text = _without(text, each.distinct_forms())
    return text


def _without_credentials(text: str) -> str:
    """Returns the text without the credentials of the process, passwords in URLs and those after Basic."""
    clean = _clean[0]
    if text in clean:
        return text
    found = text
    if "://" in found:
        found = _URL_PASSWORD.sub(f"{HIDDEN}@", found)
    if "asic " in found or "ASIC " in found:
        found = without_basic(found, HIDDEN)
    if _everywhere_forms:
        found = _without(found, _everywhere_forms)
    if found == text and len(text) <= _CLEAN_LENGTH:
        if len(clean) >= _CLEAN_COUNT:
            clean.clear()
        clean.add(text)
    return found


def redacted_reason(reason: str) -> str:
    """Returns a reason for machines, or `Hidden` if it contains a known secret value."""
    return reason if redacted(reason) == reason else HIDDEN_REASON


def forget_secrets() -> None:
    """Forgets the values of ended scopes and without a scope, as if the process had just started."""
    _ended.clear()
    _unscoped.clear()


def without_values(text: str, values: Values) -> str:
    """Returns the text with the given values replaced by `(hidden)`. The values are not remembered."""
    secrets = Secrets()
    secrets.add(values)
    return _without(text, secrets.forms())


def forms_of(value: Value) -> Iterator[Form]:
    """Yields the forms in which a text may contain a value: plain, in part, or as base64, hex or numbers.

    The forms that quoting and escaping produce are found by `_without`.
    """
    raw = value if isinstance(value, bytes) else value.encode(errors="replace")
    if len(raw) >= _QUOTED_LENGTH:
        yield from _binary(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    for part in parts(text):
        yield from map(_encodable, _quoted(part))


def _binary(raw: bytes) -> Iterator[Form]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield _encodable(encode(raw).decode().rstrip("="))
        # A longer text, such as "user:password", may be encoded as a whole. The value then begins at one of
        # three offsets, and its first and last characters also depend on the text around it.
        for offset in range(3):
            inner = encode(bytes(offset) + raw).decode().rstrip("=")
            part = inner[(0, 2, 3)[offset] : (len(raw) + offset) * 8 // 6]
            if len(part) >= _WORD_LENGTH:
                yield _encodable(part)
    if len(raw) <= _NUMBERS_LENGTH:
        yield Form(raw.hex())
        yield Form(raw.hex().upper())
        # A slice of bytes in Go, and a list of them in Python or JSON.
        for separator in (" ", ", ", ","):
            yield Form(separator.join(map(str, raw)))


def _encodable(text: str) -> Form:
    if is_plain(text):
        return Form(text)
    pieces = [text[at : at + PIECE_LENGTH] for at in range(0, len(text), PIECE_LENGTH)]
    return Form(text, tuple((anchor(piece), piece) for piece in pieces))


def _quoted(text: str) -> Iterator[str]:
    if text.lower() in _PLAIN_WORDS:
        return
    if len(text) < _QUOTED_LENGTH:
        yield from (f"{mark}{text}{mark}" for mark in "\"'`")
        return
    yield text


def _without(text: str, forms: Iterable[Form]) -> str:
    may_be_encoded: bool | None = None
    for form, pieces in forms:
        if form in text:
            text = text.replace(form, HIDDEN) if len(form) >= _WORD_LENGTH else _word(form).sub(HIDDEN, text)
        if not pieces:
            continue
        if may_be_encoded is None:
            may_be_encoded = MARKS.search(text) is not None
        if may_be_encoded:
            for part, piece in pieces:
                # Patterns are slow to compile and to search. Few texts contain the anchor.
                if part in text:
                    text = _word(piece).sub(HIDDEN, text)
    return text


@lru_cache(maxsize=256)
def _word(form: str) -> re.Pattern[str]:
    """Returns the pattern of a form and its encoded forms; a short one only as a whole word."""
    pattern = encoded(form)
    return re.compile(pattern if len(form) >= _WORD_LENGTH else f"{_BEFORE_WORD}(?:{pattern})(?![^\\W_])")
