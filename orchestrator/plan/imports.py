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


def call_faults(tree: ast.Module, name: str) -> Iterator[tuple[int, str]]:
    """Yield why `name(context)` fails: where one plain statement at the top level binds the name, and no decorator changes it."""
    bound = [node for node in tree.body if name in bound_names(ast.Module([node], []))]
    if len(bound) != 1:
        return
    [node] = bound
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        yield node.lineno, f"{name} is no function; write def {name}(context)"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.decorator_list:
        return
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    by_name = any(default is None for default in given.kw_defaults)
    if required > 1 or by_name or not (positional or given.vararg):
        yield node.lineno, f"{name} is called with one argument, the context; write def {name}(context)"
    own = _own_nodes(node)
    if isinstance(node, ast.AsyncFunctionDef) or any(
        isinstance(one, ast.Yield | ast.YieldFrom) for one in own
    ):
        yield node.lineno, f"{name} does not run when it is called; write it without async and yield"


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body without those of the functions in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.GeneratorExp):
            yield from _own_nodes(child)
