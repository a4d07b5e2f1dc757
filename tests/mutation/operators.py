"""What a mutant is: one small change of one module, made by an operator, as a replacement of a stretch of its text.

Operators look at the syntax tree and answer with positions in the text, so that a mutant keeps the line numbers and can
be shown as a diff.  Left alone is what no test should pin down: docstrings, annotations, decorators, assertions,
f-strings and other texts for people, `__repr__`, `__slots__`, and what only type checkers read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "|",
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
METHODS = {"popleft": "pop", "startswith": "endswith", "endswith": "startswith", "partition": "rpartition"}
OPERATOR_TEXT = re.compile(rb"not\s+in\b|is\s+not\b|is\b|in\b|and\b|or\b|[-+*/%<>=!&|^]+")

NOT_READ = {"annotation", "returns", "decorator_list", "bases", "keywords"}  # of classes: `keywords`
NOT_CHANGED = ("__repr__", "__slots__", "__all__")
NEGATED_BY_ITSELF = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)

PLAIN = (ast.Constant, ast.Name, ast.Attribute)

Change = tuple[int, int, str, str]  # from, to, what stands there then, name of the operator


@dataclass(frozen=True)
class Mutant:
    """A module with one change.  `name` is that of the operator, or of the rule that the change breaks."""

    path: str
    name: str
    original: str
    source: str
    lines: tuple[int, ...]  # whoever runs these lines may notice
    at_import: bool  # the change is outside any function: whoever imports the module may notice

    @property
    def key(self) -> str:
        """Identify the mutant as long as nothing else in its module changes."""
        return sha256(f"{self.path}\n{self.source}".encode()).hexdigest()[:16]

    @property
    def module(self) -> str:
        """The module's name for `import`."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def diff(self) -> tuple[str, ...]:
        """The lines from the first to the last that differs, each after its sign."""
        before, after = self.original.splitlines(), self.source.splitlines()
        shorter = min(len(before), len(after))
        head = next((line for line in range(shorter) if before[line] != after[line]), shorter)
        tail = next((line for line in range(shorter - head) if before[-1 - line] != after[-1 - line]), shorter - head)
        removed, added = before[head : len(before) - tail], after[head : len(after) - tail]
        return (*(f"-{line}" for line in removed), *(f"+{line}" for line in added))

    def __str__(self) -> str:
        return f"{self.path}:{self.lines[0]} {self.name}"


class Module:
    """The text of a module, its tree, and where in the text each node stands."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.data = text.encode()
        self.tree = ast.parse(text)
        self.unordered = set(_unordered(self.tree))
        self.starts = [0]
        for line in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text_of(self, node: ast.AST) -> str:
        start, stop = self.span(node)
        return self.data[start:stop].decode()

    def line_at(self, offset: int) -> int:
        return next(number for number, start in enumerate(self.starts, 0) if start > offset)

    def outside(self, lines: Iterable[int]) -> bool:
        """Whether one of these lines is outside any function's body, so that it runs when the module is imported."""
        bodies = [
            range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        return any(all(line not in body for body in bodies) for line in lines)

    def between(self, left: ast.AST, right: ast.AST) -> tuple[int, int]:
        """Find the operator that stands between two operands."""
        start, stop = self.span(left)[1], self.span(right)[0]
        found = OPERATOR_TEXT.search(self.data, start, stop)
        assert found is not None, self.data[start:stop]
        return found.span()


def _unordered(tree: ast.AST) -> Iterator[ast.AST]:
    """Find the tuples and lists whose order means nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = zip(node.ops, node.comparators, strict=True)
            yield from (right for kind, right in operands if isinstance(kind, ast.In | ast.NotIn))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("frozenset", "set"):
            yield from node.args


def mutants(path: str, text: str) -> list[Mutant]:
    """Make all mutants of a module, each once, in the order of the text."""
    module = Module(path, text)
    found: dict[str, Mutant] = {}
    for change, statement, function in _changes(module):
        start, stop, replacement, name = change
        mutated = (module.data[:start] + replacement.encode() + module.data[stop:]).decode()
        last = module.line_at(max(start, stop - 1))
        lines = (module.line_at(start), *range(module.line_at(start), last + 1), statement.lineno)
        mutant = Mutant(path, name, text, mutated, tuple(dict.fromkeys(lines)), function is None)
        if mutated != text and _compiles(mutated):
            found.setdefault(mutated, mutant)
    return list(found.values())


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _changes(module: Module) -> Iterator[tuple[Change, ast.stmt, ast.AST | None]]:
    """Walk through the tree; with each change goes the statement and the function that hold it."""
    stack: list[tuple[ast.AST, ast.stmt | None, ast.AST | None]] = [(module.tree, None, None)]
    while stack:
        node, statement, function = stack.pop()
        if _is_left_alone(node):
            continue
        holder = node if isinstance(node, ast.stmt) else statement
        if holder is not None:
            for kind, operators in OPERATORS.items():
                if isinstance(node, kind):
                    for operator in operators:
                        for change in operator(module, node, function):
                            yield change, holder, function
        inside = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else function
        children: list[tuple[ast.AST, ast.stmt | None, ast.AST | None]] = []
        for field, value in ast.iter_fields(node):
            if field in NOT_READ and not (field == "keywords" and isinstance(node, ast.Call)):
                continue
            here = function if field == "args" and inside is node else inside  # defaults are made outside
            nodes = value if isinstance(value, list) else [value]
            children += [(child, holder, here) for child in nodes if isinstance(child, ast.AST)]
        stack += reversed(children)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Raise):
        return node.exc is not None and ast.unparse(node.exc) == "NotImplementedError"
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if isinstance(node, ast.FunctionDef):
        return node.name in NOT_CHANGED
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id in NOT_CHANGED for target in node.targets)
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)  # a type


# -- operators ---------------------------------------------------------------------------------------------------------


def _comparison(module: Module, node: ast.Compare, function: ast.AST | None) -> Iterator[Change]:
    operands = [node.left, *node.comparators]
    for left, right, kind in zip(operands, operands[1:], node.ops, strict=False):
        for text in COMPARISONS[type(kind)]:
            yield *module.between(left, right), text, "comparison"


def _and_or(module: Module, node: ast.BoolOp, function: ast.AST | None) -> Iterator[Change]:
    text = "or" if isinstance(node.op, ast.And) else "and"
    for left, right in zip(node.values, node.values[1:], strict=False):
        yield *module.between(left, right), text, "and/or"


def _arithmetic(module: Module, node: ast.BinOp, function: ast.AST | None) -> Iterator[Change]:
    if not isinstance(node.left, ast.Constant) or not isinstance(node.left.value, str):  # a text built from parts
        yield *module.between(node.left, node.right), ARITHMETIC[type(node.op)], "arithmetic"


def _augmented(module: Module, node: ast.AugAssign, function: ast.AST | None) -> Iterator[Change]:
    yield *module.between(node.target, node.value), ARITHMETIC[type(node.op)] + "=", "arithmetic"


def _not_removed(module: Module, node: ast.UnaryOp, function: ast.AST | None) -> Iterator[Change]:
    if isinstance(node.op, ast.Not):
        yield *module.span(node), f"({module.text_of(node.operand)})", "not removed"


def _condition(module: Module, node: ast.If | ast.While | ast.IfExp, function: ast.AST | None) -> Iterator[Change]:
    yield from _negated(module, node.test)


def _filter(module: Module, node: ast.comprehension, function: ast.AST | None) -> Iterator[Change]:
    for condition in node.ifs:
        yield from _negated(module, condition)


def _negated(module: Module, node: ast.expr) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], NEGATED_BY_ITSELF):
        return  # the comparison's own mutant says the same
    if not isinstance(node, ast.UnaryOp | ast.Constant):
        yield *module.span(node), f"(not ({module.text_of(node)}))", "condition negated"


def _constant(module: Module, node: ast.Constant, function: ast.AST | None) -> Iterator[Change]:
    value, span = node.value, module.span(node)
    if isinstance(value, bool):
        yield *span, str(not value), "constant"
    elif isinstance(value, int | float):
        yield *span, str(value + 1), "constant"
        if value > 0:
            yield *span, f"({value - 1})", "constant"
    elif isinstance(value, bytes) and value:
        yield *span, 'b""', "constant"


def _returned(module: Module, node: ast.Return, function: ast.AST | None) -> Iterator[Change]:
    value = node.value
    if value is None or (isinstance(value, ast.Constant) and not value.value):
        return  # nothing, or what is as good as None to most callers
    returns = getattr(function, "returns", None)
    if isinstance(returns, ast.Name) and returns.id == "bool":
        if not isinstance(value, ast.Constant | ast.Compare):
            yield *module.span(value), f"not ({module.text_of(value)})", "return value"
    else:
        yield *module.span(value), "None", "return value"


def _statement_dropped(module: Module, node: ast.stmt, function: ast.AST | None) -> Iterator[Change]:
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Await):
        return
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not any(isinstance(part, ast.Attribute | ast.Subscript) for target in targets for part in _parts(target)):
            return
        if getattr(function, "name", "") == "__init__":  # nothing works without its attributes
            return
    yield *module.span(node), "pass", "statement dropped"


def _parts(target: ast.expr) -> list[ast.expr]:
    return target.elts if isinstance(target, ast.Tuple) else [target]


def _loop(module: Module, node: ast.Break | ast.Continue, function: ast.AST | None) -> Iterator[Change]:
    yield *module.span(node), "continue" if isinstance(node, ast.Break) else "break", "break/continue"


def _called(module: Module, node: ast.Call, function: ast.AST | None) -> Iterator[Change]:
    if isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield *module.span(node.func), NAMES[node.func.id], "function"
    elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        _, stop = module.span(node.func)
        yield stop - len(node.func.attr), stop, METHODS[node.func.attr], "function"


def _values_swapped(module: Module, node: ast.Dict, function: ast.AST | None) -> Iterator[Change]:
    yield from _swapped(module, node.values)


def _entries(module: Module, node: ast.Tuple | ast.List, function: ast.AST | None) -> Iterator[Change]:
    """Swap entries; drop each where it matters what is there, not where: in tables of plain names or values."""
    if not isinstance(node.ctx, ast.Load):
        return
    if node in module.unordered or (function is None and all(isinstance(entry, PLAIN) for entry in node.elts)):
        yield from _entry_dropped(module, node, function)
    else:
        yield from _swapped(module, node.elts)


def _swapped(module: Module, nodes: list[ast.expr]) -> Iterator[Change]:
    for first, second in pairwise(nodes):
        (start, end), (begin, stop) = module.span(first), module.span(second)
        between = module.data[end:begin].decode()
        yield start, stop, module.text_of(second) + between + module.text_of(first), "entries swapped"


def _entry_dropped(module: Module, node: ast.Tuple | ast.List | ast.Set, function: ast.AST | None) -> Iterator[Change]:
    if len(node.elts) > 1:
        start, stop = module.span(node.elts[0])[0], module.span(node.elts[-1])[1]
        for entry in node.elts:
            rest = [module.text_of(other) for other in node.elts if other is not entry]
            yield start, stop, ", ".join(rest) + "," * (len(rest) == 1), "entry dropped"


OPERATORS: dict[type[ast.AST] | tuple[type[ast.AST], ...], tuple[Callable[..., Iterator[Change]], ...]] = {
    ast.Compare: (_comparison,),
    ast.BoolOp: (_and_or,),
    ast.BinOp: (_arithmetic,),
    ast.AugAssign: (_augmented, _statement_dropped),
    ast.UnaryOp: (_not_removed,),
    (ast.If, ast.While, ast.IfExp): (_condition,),
    ast.comprehension: (_filter,),
    ast.Constant: (_constant,),
    ast.Return: (_returned,),
    (ast.Expr, ast.Assign, ast.Delete, ast.Raise): (_statement_dropped,),
    (ast.Break, ast.Continue): (_loop,),
    ast.Call: (_called,),
    ast.Dict: (_values_swapped,),
    (ast.Tuple, ast.List): (_entries,),
    ast.Set: (_entry_dropped,),
}
