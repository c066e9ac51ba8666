"""Formulas as text, and the slips that people make in them: mutants, as of mutation testing.

A formula is a few lines of Python. Each mutant has one slip: a term or a factor left out, a sign or
a division turned round, parentheses forgotten or elsewhere, a function left out or applied twice,
one name for another or two exchanged, a term outside a root or there twice, a sum over all axes or
one that goes on, n − 1 for n, two lines in another order, a factor too early.
"""

from __future__ import annotations

__all__ = ["assigned", "changed_lines", "evaluate", "mutants"]

import ast
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name for it)

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in ("sqrt", "abs", "exp", "erf", "sign", "sin", "cos", "tanh", "sigmoid", "maximum")
} | {
    "softplus": F.softplus,
    "where": lambda here, one, other: torch.where(here, *map(_array, (one, other))),
}
OPPOSITE: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


def _array(number: float | Tensor) -> Tensor:
    """A number in double precision, which torch.where would take for one of the default dtype."""
    return torch.as_tensor(number, dtype=None if isinstance(number, Tensor) else torch.float64)


def evaluate(source: str, names: dict[str, Any]) -> None:
    """Run the lines of a formula; what they assign is put among the names.

    Raises:
        ValueError: it takes a function of a number that has to be an array, or a name before that
            is assigned.
    """
    try:
        exec(_compiled(source), {"__builtins__": {}, **FUNCTIONS}, names)
    except (TypeError, NameError) as error:
        raise ValueError(str(error)) from error


@cache
def _compiled(source: str) -> CodeType:
    return compile(source, "formula", "exec")


@cache
def assigned(source: str) -> tuple[str, ...]:
    """The names to which a formula assigns, each once."""
    nodes = (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Name))
    return tuple(dict.fromkeys(one.id for one in nodes if isinstance(one.ctx, ast.Store)))


@cache
def mutants(
    source: str, alike: tuple[tuple[str, ...], ...] = (), factor: str = ""
) -> tuple[str, ...]:
    """All texts with one slip, each once; and with the same slip in all parts of one form.

    Args:
        source: the formula.
        alike: names that may be taken for one another, each with all of them.
        factor: a name by which the first of these may be multiplied too early.
    """
    tree = ast.parse(source)
    within = {
        node.args[0].id: node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.args[0], ast.Name)
    }
    plain = ast.unparse(tree)
    found: dict[str, None] = {}
    forms: dict[tuple[str, int], dict[int, ast.AST]] = {}
    for number, node in enumerate(ast.walk(tree)):
        form = re.sub(r"[a-z]\w*(?!\w*\()", "_", ast.unparse(node))
        slips = [*_slips(node, alike)]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            slips += _of_name(node, within, alike[0] if factor and alike else (), factor)
        for kind, other in enumerate(slips):
            found[_replaced(tree, {number: other})] = None
            if not isinstance(node, ast.Name):
                forms.setdefault((form, kind), {})[number] = other
            if isinstance(node, ast.Call):
                forms.setdefault((ast.unparse(node.func), kind), {})[number] = other
    for body in _reordered(tree.body):
        found[ast.unparse(ast.Module(body, []))] = None
    found |= dict.fromkeys(_without_parentheses(plain))
    for others in forms.values():
        found[_replaced(tree, others)] = None
    for names in alike:
        if len(names) == 2:
            found |= dict.fromkeys(_exchanged(plain.split("\n"), *names))
    found.pop(plain, None)
    return tuple(found)


def changed_lines(source: str, mutant: str) -> tuple[str, str]:
    """The lines in which a mutant differs: those of the formula, and the mutant's."""
    one, other = (ast.unparse(ast.parse(text)).split("\n") for text in (source, mutant))
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return "; ".join(a for a, _ in pairs), "; ".join(b for _, b in pairs)


def _replaced(tree: ast.Module, others: Mapping[int, ast.AST]) -> str:
    """The text with other parts in the place of those of these numbers."""
    tree = copy.deepcopy(tree)
    places = {id(node): others[k] for k, node in enumerate(ast.walk(tree)) if k in others}

    class Put(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return places.get(id(node)) or self.generic_visit(node)

    return ast.unparse(Put().visit(tree))


def _slips(node: ast.AST, alike: Sequence[Sequence[str]]) -> Iterator[ast.AST]:
    """What may be written in the place of a part of a formula."""
    match node:
        case ast.BinOp():
            yield from _of_operation(node)
            yield from _of_square(node, alike)
        case ast.Call(args=[argument]):
            yield from _of_call(node, argument)
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.Name("n"):
            yield ast.BinOp(node, ast.Sub(), ast.Constant(1))
        case ast.Name(name, ast.Load()):
            for names in alike:
                if name in names:
                    yield from (ast.Name(other, node.ctx) for other in names if other != name)
        case ast.Assign([ast.Name(name)]):
            yield from _of_line(node, name)


def _of_name(
    node: ast.Name, within: Mapping[str, ast.expr], many: Sequence[str], factor: str
) -> Iterator[ast.AST]:
    """A function that was applied in place before, and a factor that belongs further down."""
    if node.id in within:
        yield ast.Call(within[node.id], [node], [])
    if node.id in many:
        yield ast.BinOp(ast.Name(factor, ast.Load()), ast.Mult(), node)


def _of_operation(node: ast.BinOp) -> Iterator[ast.AST]:
    left, op, right = node.left, node.op, node.right
    yield left
    if isinstance(op, ast.Add | ast.Mult):
        yield right
    if isinstance(op, ast.Sub):
        yield ast.UnaryOp(ast.USub(), right)
    if isinstance(op, ast.Pow) and isinstance(right, ast.Constant) and right.value == 2:
        yield ast.Call(ast.Name("abs", ast.Load()), [left], [])
    if type(op) in OPPOSITE:
        yield ast.BinOp(left, OPPOSITE[type(op)](), right)
    if isinstance(op, ast.Add):
        yield from _distributed(left, right)
    if isinstance(op, ast.Add | ast.Sub):
        yield ast.BinOp(node, op, right)
    if isinstance(op, ast.Add) and isinstance(left, ast.Call):  # f(a) + b
        yield ast.Call(left.func, [ast.BinOp(left.args[0], op, right), *left.args[1:]], [])


def _of_square(node: ast.BinOp, alike: Sequence[Sequence[str]]) -> Iterator[ast.AST]:
    """The square of a name's distance from another one, and the product of both."""
    match node:
        case ast.BinOp(ast.Name(name), ast.Pow(), ast.Constant(2)):
            for other in sorted({o for names in alike if name in names for o in names} - {name}):
                beside = ast.Name(other, ast.Load())
                apart = ast.BinOp(node.left, ast.Sub(), beside)
                yield ast.BinOp(apart, node.op, node.right)
                yield ast.BinOp(node.left, ast.Mult(), beside)


def _distributed(left: ast.expr, right: ast.expr) -> Iterator[ast.AST]:
    """Parentheses around a sum where there is a product in it: (a + b) * c for a + b * c."""
    if isinstance(right, ast.BinOp) and isinstance(right.op, ast.Mult):
        yield ast.BinOp(ast.BinOp(left, ast.Add(), right.left), right.op, right.right)
    if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mult):
        yield ast.BinOp(left.left, left.op, ast.BinOp(left.right, ast.Add(), right))


def _of_call(node: ast.Call, argument: ast.expr) -> Iterator[ast.AST]:
    yield argument
    yield ast.Call(node.func, [node], [])
    if isinstance(node.func, ast.Name) and node.func.id == "total":
        yield ast.Call(ast.Name("total_of_all", ast.Load()), [argument], [])
    if isinstance(argument, ast.BinOp) and isinstance(argument.op, ast.Add):  # f(a + b)
        yield ast.BinOp(ast.Call(node.func, [argument.left], []), argument.op, argument.right)


def _of_line(node: ast.Assign, name: str) -> Iterator[ast.AST]:
    yield ast.Assign(node.targets, ast.UnaryOp(ast.USub(), node.value), lineno=0)
    if any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(node.value)):
        total = ast.BinOp(ast.Name(name, ast.Load()), ast.Add(), node.value)
        yield ast.Assign(node.targets, total, lineno=0)


def _without_parentheses(text: str) -> Iterator[str]:
    """A text without one pair of parentheses, that of a function's arguments excepted."""
    for opening in re.finditer(r"(?<!\w)\(", text):
        depth, begin = 0, opening.start()
        for end in range(begin, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                break
        bare = text[:begin] + text[begin + 1 : end] + text[end + 1 :]
        yield ast.unparse(ast.parse(bare))


def _exchanged(lines: Sequence[str], one: str, other: str) -> Iterator[str]:
    """The lines with two names exchanged, in two neighbours."""
    for k in range(len(lines) - 1):
        both = [
            re.sub(rf"\b({one}|{other})\b", lambda m: other if m[0] == one else one, line)
            for line in lines[k : k + 2]
        ]
        yield "\n".join([*lines[:k], *both, *lines[k + 2 :]])


def _reordered(body: Sequence[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """The lines with two neighbours in the other order."""
    for k in range(len(body) - 1):
        yield [*body[:k], body[k + 1], body[k], *body[k + 2 :]]
