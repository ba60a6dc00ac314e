"""Operations that wait without a thread: made from those that wait on one.

An operation fires events and waits for its turn at a file, both by calls that return when it is
done; that is quickest, and plain handlers need no more. A thousand requests that wait for `async
def` handlers would need a thousand threads. So a drive with such handlers runs the same operations
as coroutines. Their rules stand in the source once: this module makes the coroutine out of the
source of the plain function, with an `await` at each call that may come to an event.

Which calls may: those of `Engine.fire` and of the waits of `FileOrder`, whose coroutines are
written by hand (`waiting.py`), and those of every function of the engine that has such a call. A
method is recognised by its name, and a callable that is only known at run time is looked at then:
to await too often is only slower.
"""

from __future__ import annotations
import __future__

import ast
import functools
import pkgutil
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Iterator
from importlib import import_module
from inspect import getsource, isgeneratorfunction
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

Form: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]

_PACKAGE = "cbfsconnect.engine"
_WITHOUT_EVENTS = {"session", "workers", "resumable", "waiting", "flows", "notifier", "nodes"}
"""Modules whose functions no operation waits in."""
_FORM_OF = "_form_of"
_FLAGS = __future__.annotations.compiler_flag

FORMS: dict[object, Form] = {}
"""The coroutine function of each function that may come to an event."""

_making = threading.Lock()


_written: set[str] = set()


def written(owner: type, method: str) -> Callable[[Form], Form]:
    """Enter a coroutine that is written by hand for a method."""

    def enter(form: Form) -> Form:
        FORMS[vars(owner)[method]] = form
        _written.add(method)
        return form

    return enter


def find_form(callee: Any) -> Form | None:
    """The form of a function, a method, or an object that is called like one; None: it has none."""
    function = getattr(callee, "__func__", None)
    if function is not None:
        form = FORMS.get(function)
        return None if form is None else MethodType(form, callee.__self__)
    if isinstance(callee, FunctionType):
        return FORMS.get(callee)
    form = FORMS.get(type(callee).__call__)
    return None if form is None else MethodType(form, callee)


def form_of(callee: Any) -> Form:
    """What to await in the place of a call."""
    return find_form(callee) or _Plain(callee)


class _Plain:
    """A callable without a form; a lambda in a form returns a coroutine."""

    __slots__ = ("_callee",)

    def __init__(self, callee: Callable[..., Any]) -> None:
        self._callee = callee

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        result = self._callee(*arguments, **named)
        return await result if result.__class__ is types.CoroutineType else result


@functools.cache
def make_forms() -> None:
    """Make all forms, once in a process."""
    with _making:
        import_module(f"{_PACKAGE}.waiting")
        _Maker(list(_modules())).make()


def _modules() -> Iterator[ModuleType]:
    package = import_module(_PACKAGE)
    for found in pkgutil.walk_packages(package.__path__, f"{_PACKAGE}."):
        if found.name.rpartition(".")[2] not in _WITHOUT_EVENTS:
            yield import_module(found.name)


class _Source:
    """One function: what it is, where it stands, and its syntax."""

    def __init__(self, module: ModuleType, function: FunctionType, node: ast.FunctionDef) -> None:
        self.module = module
        self.function = function
        self.node = node
        code = function.__code__
        self.locals = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
        self.calls = [call for call in _of_itself(node) if isinstance(call, ast.Call)]


def _of_itself(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The syntax of a function without that of functions inside it, which run elsewhere."""
    left: list[ast.AST] = [*function.body]
    while left:
        node = left.pop()
        if not isinstance(node, ast.FunctionDef):
            yield node
            left.extend(ast.iter_child_nodes(node))


class _Maker:
    """Finds the functions that may come to an event, and makes their forms."""

    def __init__(self, modules: list[ModuleType]) -> None:
        self._sources: dict[FunctionType, _Source] = {}
        self._methods = set(_written)
        self._waiting: set[object] = set(FORMS)
        for module in modules:
            self._read(module)

    def make(self) -> None:
        self._find()
        by_module: dict[ModuleType, list[_Source]] = {}
        for function in self._waiting - FORMS.keys():
            source = self._sources[function]  # type: ignore[index]
            by_module.setdefault(source.module, []).append(source)
        for module, sources in by_module.items():
            self._compile(module, sources)

    # --- reading -------------------------------------------------------------------------------

    def _read(self, module: ModuleType) -> None:
        for node in ast.parse(getsource(module)).body:
            if isinstance(node, ast.FunctionDef):
                self._enter(module, vars(module).get(node.name), node)
            elif isinstance(node, ast.ClassDef):
                self._read_class(module, vars(module)[node.name], node)

    def _read_class(self, module: ModuleType, owner: type, definition: ast.ClassDef) -> None:
        for node in definition.body:
            if isinstance(node, ast.FunctionDef):
                self._enter(module, vars(owner)[node.name], node)
            elif isinstance(node, ast.AnnAssign) and "Callable" in ast.unparse(node.annotation):
                assert isinstance(node.target, ast.Name)
                self._methods.add(node.target.id)  # a field that holds a function

    def _enter(self, module: ModuleType, found: object, node: ast.FunctionDef) -> None:
        if not isinstance(found, FunctionType) or found.__module__ != module.__name__:
            return
        if not isgeneratorfunction(found) and not hasattr(found, "__wrapped__"):
            self._sources[found] = _Source(module, found, node)

    # --- finding -------------------------------------------------------------------------------

    def _find(self) -> None:
        before = -1
        while before != len(self._waiting):
            before = len(self._waiting)
            for function, source in self._sources.items():
                if function not in self._waiting and self._waits(source):
                    self._waiting.add(function)
                    if "." in function.__qualname__:
                        self._methods.add(function.__name__)

    def _waits(self, source: _Source) -> bool:
        return any(self.may_wait(source, call.func) for call in source.calls)

    def may_wait(self, source: _Source, callee: ast.expr) -> bool:
        """Whether a call of this may come to an event."""
        if isinstance(callee, ast.Attribute):
            return callee.attr in self._methods and not self._is_of_module(source, callee.value)
        if not isinstance(callee, ast.Name) or callee.id in source.locals:
            return True
        found = vars(source.module).get(callee.id)
        return isinstance(found, FunctionType) and found in self._waiting

    @staticmethod
    def _is_of_module(source: _Source, owner: ast.expr) -> bool:
        """Whether this stands for a module, as in `os.open`. The engine imports no module of its
        own as a whole that has functions with events."""
        return (
            isinstance(owner, ast.Name)
            and owner.id not in source.locals
            and isinstance(vars(source.module).get(owner.id), ModuleType)
        )

    # --- making --------------------------------------------------------------------------------

    def _compile(self, module: ModuleType, sources: list[_Source]) -> None:
        body: list[ast.stmt] = []
        for number, source in enumerate(sources):
            body.append(_Rewrite(self, source).form(f"_form_{number}"))
        tree = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
        # A name of its own for what looks like the source's own scope: nothing of it is changed.
        scope = {**vars(module), _FORM_OF: form_of}
        exec(compile(tree, module.__file__ or "", "exec", _FLAGS, dont_inherit=True), scope)
        for number, source in enumerate(sources):
            form: Any = scope[f"_form_{number}"]
            name, qualified = source.function.__name__, source.function.__qualname__
            form.__name__, form.__qualname__ = name, qualified
            form.__code__ = form.__code__.replace(co_name=name)  # what tracebacks show
            FORMS[source.function] = form


class _Rewrite(ast.NodeTransformer):
    """The syntax of a form: `await _form_of(f)(…)` for each `f(…)` that may wait."""

    def __init__(self, maker: _Maker, source: _Source) -> None:
        self._maker = maker
        self._source = source
        self._in_lambda = False

    def form(self, name: str) -> ast.AsyncFunctionDef:
        node = self._source.node
        rewritten = [self.visit(statement) for statement in node.body]
        made = ast.AsyncFunctionDef(name, node.args, rewritten, [], None)
        if sys.version_info >= (3, 12):
            made.type_params = []
        return ast.copy_location(made, node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        waits = self._maker.may_wait(self._source, node.func)
        self.generic_visit(node)
        if not waits:
            return node
        name = ast.copy_location(ast.Name(_FORM_OF, ast.Load()), node)
        node.func = ast.copy_location(ast.Call(name, [node.func], []), node)
        # A lambda hands the coroutine on: who calls it awaits what it returns.
        return node if self._in_lambda else ast.copy_location(ast.Await(node), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        before, self._in_lambda = self._in_lambda, True
        self.generic_visit(node)
        self._in_lambda = before
        return node
