"""The grammar of filters: from text to a small tree that knows nothing of fields or databases.

What the words of the language mean stands in `perfuse.storage.filters`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark import v_args as arguments

MAX_BYTES = 1024
MAX_DEPTH = 8
MAX_RESTRICTIONS = 32

# A keyword is no bare word, so that a forgotten value is noticed. A word may hold a colon but not
# begin with one: `digest = sha256:ab` needs no quotes, and `a::b` is a slip.
_GRAMMAR = r"""
?expression: sequence (_AND sequence)*      -> all_of
?sequence: factor+                          -> all_of
?factor: term (_OR term)*                   -> any_of
?term: simple
     | (_NOT | _MINUS) simple               -> negated
?simple: restriction
       | LPAR expression _RPAR              -> group
restriction: FIELD [_DOT (KEY | STRING)] COMPARATOR (WORD | STRING)

LPAR: "("
_RPAR: ")"
_AND.2: /AND(?![A-Za-z0-9_])/
_OR.2: /OR(?![A-Za-z0-9_])/
_NOT.2: /NOT(?![A-Za-z0-9_])/
_MINUS: /-(?=\S)/
_DOT: "."
FIELD: /(?!(?:AND|OR|NOT)(?![A-Za-z0-9_]))[A-Za-z_][A-Za-z0-9_]*/
KEY: /[A-Za-z0-9_][A-Za-z0-9_-]*/
COMPARATOR: /<=|>=|!=|=|<|>|:/
WORD: /(?!(?:AND|OR|NOT)(?:[\s()]|$))[^\s()"',=<>!:\\][^\s()"',=<>!\\]*/
STRING: /"(?:[^"\\]|\\[\s\S])*"|'(?:[^'\\]|\\[\s\S])*'/
%ignore /\s+/
"""

# What a reader is told was expected; several terminals may be one thing to them.
_SPOKEN = {
    "LPAR": "(",
    "_RPAR": ")",
    "_AND": "AND",
    "_OR": "OR",
    "_NOT": "NOT",
    "_MINUS": "-",
    "FIELD": "a field",
    "KEY": "a key",
    "COMPARATOR": "one of = != < <= > >= :",
    "WORD": "a value",
    "STRING": "a value",
    "$END": "the end",
}


class Refused(Exception):
    """A filter that breaks a rule, `what`, at a character position counted from 1."""

    def __init__(self, position: int, what: str) -> None:
        super().__init__(f"position {position}: {what}")


@dataclass(frozen=True)
class Literal:
    """A value as written.

    Attributes:
        text: Without quotes, escapes and wildcards.
        head: Whether a wildcard stood before the text.
        tail: Whether one stood after it. A lone `*` is a head before empty text.
        position: Where it began.
    """

    text: str
    head: bool
    tail: bool
    position: int

    @property
    def wild(self) -> bool:
        """Whether it stands for more than one text."""
        return self.head or self.tail


@dataclass(frozen=True)
class Restriction:
    """One comparison; `key` is what stood behind the field's dot."""

    field: str
    key: Literal | None
    comparator: str
    value: Literal
    position: int
    depth: int = 0
    restrictions: int = 1


@dataclass(frozen=True)
class Not:
    """The opposite of a node."""

    node: Node
    depth: int
    restrictions: int


@dataclass(frozen=True)
class All:
    """Nodes that must all hold."""

    nodes: tuple[Node, ...]
    depth: int
    restrictions: int


@dataclass(frozen=True)
class AnyOf:
    """Nodes of which one must hold."""

    nodes: tuple[Node, ...]
    depth: int
    restrictions: int


# Each counts the parentheses around its innermost restriction, and its restrictions.
Node = Restriction | Not | All | AnyOf


def parse(text: str) -> Node:
    """The tree of a filter that is not blank.

    Raises:
        Refused: It is no filter, or too long, too deep or too wide a one.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Refused(error.start + 1, "half of a surrogate pair is not a character") from error
    if size > MAX_BYTES:
        raise Refused(1, f"{size} bytes long; a filter has at most {MAX_BYTES}")
    if "\0" in text:
        raise Refused(text.index("\0") + 1, "a NUL character cannot be stored, so never matches")
    try:
        # The transformer runs while parsing, so what comes back is a node, not lark's tree.
        node: Node = _PARSER.parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        _explain(error, text)
    return node


def _explain(error: UnexpectedInput, text: str) -> NoReturn:
    expected: set[str] = set()
    if isinstance(error, UnexpectedToken):
        expected = set(error.expected)
    elif isinstance(error, UnexpectedCharacters):
        expected = set(error.allowed or ())
    words = dict.fromkeys(word for name, word in _SPOKEN.items() if name in expected)
    spoken = ", ".join(words) or _SPOKEN["$END"]
    # At the end of the text lark gives the place of the last token, or none.
    ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    start = len(text) if ended or error.pos_in_stream is None else error.pos_in_stream
    found = repr(text[start : start + 20]) if text[start:].strip() else "the end"
    raise Refused(start + 1, f"expected {spoken}, found {found}") from error


def _literal(token: Token) -> Literal:
    position = (token.start_pos or 0) + 1
    quoted = token.type == "STRING"
    characters: list[str] = []
    stars: list[int] = []
    source = iter(token[1:-1] if quoted else token)
    for character in source:
        if character == "*":
            stars.append(len(characters) + len(stars))
        elif character == "\\" and quoted:
            escaped = next(source)
            if escaped not in "\"'\\*":
                raise Refused(position, rf"\{escaped} means nothing; \ goes before \" ' \ or *")
            characters.append(escaped)
        else:
            characters.append(character)
    last = len(characters) + len(stars) - 1
    if any(star not in (0, last) for star in stars):
        raise Refused(position, r'* is a wildcard only at either end; write "\*" for a star')
    head, tail = 0 in stars, last in stars and last > 0
    return Literal("".join(characters), head, tail, position)


@arguments(inline=True)
class _Builder(Transformer[Token, Node]):
    """Builds the nodes from the leaves up, so that no limit is met by recursion first."""

    def restriction(
        self, field: Token, key: Token | None, comparator: Token, value: Token
    ) -> Restriction:
        position = (field.start_pos or 0) + 1
        path = None if key is None else _literal(key)
        return Restriction(str(field), path, str(comparator), _literal(value), position)

    def negated(self, node: Node) -> Node:
        return Not(node, node.depth, node.restrictions)

    def group(self, opening: Token, node: Node) -> Node:
        if node.depth == MAX_DEPTH:
            position = (opening.start_pos or 0) + 1
            raise Refused(position, f"parentheses more than {MAX_DEPTH} deep")
        return replace(node, depth=node.depth + 1)

    def all_of(self, *nodes: Node) -> Node:
        return All(nodes, max(node.depth for node in nodes), _count(nodes))

    def any_of(self, *nodes: Node) -> Node:
        return AnyOf(nodes, max(node.depth for node in nodes), _count(nodes))


def _count(nodes: tuple[Node, ...]) -> int:
    count = sum(node.restrictions for node in nodes)
    if count > MAX_RESTRICTIONS:
        raise Refused(1, f"more than {MAX_RESTRICTIONS} restrictions")
    return count


_PARSER = Lark(
    _GRAMMAR,
    parser="lalr",
    start="expression",
    maybe_placeholders=True,
    transformer=_Builder(),
)
