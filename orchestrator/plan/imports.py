"""The import statements and names of a Python source, without running it."""

import ast
from collections.abc import Iterator, Sequence


def needed_modules(node: ast.Import | ast.ImportFrom, package: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the dotted modules that an import statement needs, and those that it may import beside them."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, alias.name) for alias in node.names)
        return
    # One dot is the package itself, each further dot the one around it.
    above = package[: len(package) - node.level + 1] if node.level else ()
    base = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        yield base, base if alias.name == "*" else f"{base}.{alias.name}"


def find_imports(
    node: ast.AST, *, certain: bool = True
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield import statements at any depth, and whether they are unconditional."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, certain
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for each in child.orelse:
                yield from find_imports(ast.Module([each], []), certain=certain)
        else:
            yield from find_imports(
                child, certain=certain and not isinstance(child, ast.If | ast.Try | ast.TryStar)
            )


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def bound_names(tree: ast.Module) -> set[str]:
    """Return the names that a module binds at its top level, in any branch."""
    return set(_bound(tree))


def _bound(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
            continue
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, ast.alias):
            yield child.asname or child.name.split(".")[0]
        yield from _bound(child)


def is_dynamic(tree: ast.Module) -> bool:
    """Whether a module may have names that its source does not show."""
    stars = (alias.name == "*" for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names)
    return "__getattr__" in bound_names(tree) or any(stars)
