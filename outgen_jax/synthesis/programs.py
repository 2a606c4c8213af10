"""Compiled programs that live as long as the network they were compiled for, and no longer.

A program of jax.jit holds on to its static arguments. Were the network one of them, a study that makes many networks
would keep all their programs. Here each network has jitted functions of its own, which refer to it weakly.
"""

import contextlib
import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax

from outgen_jax.models.acceleration.accelerate import accelerate
from outgen_jax.networks import ApplyFn
from outgen_jax.synthesis.views import Views

T = TypeVar("T")


class Network(NamedTuple):
    """A network as the engine runs it; hashed by the identity of `apply_fn`."""

    apply_fn: ApplyFn
    # Of its matrix products and convolutions; None: the device's default.
    precision: str | None = "highest"

    def views(self) -> Views | None:
        """The network as `og.views` made it; None if another function did."""
        function = self.apply_fn.function() if isinstance(self.apply_fn, _Weak) else self.apply_fn
        return function if isinstance(function, Views) else None


@contextlib.contextmanager
def relaxed() -> Iterator[None]:
    """Sets aside the global switches of jax that would forbid what the package does on purpose, or spoil it.

    NaN marks free entries of targets, and vectors are broadcast against matrices. The solvers' own products are at full
    precision: rounded to TF32 or bfloat16, some images would not converge. The network's are as `Network` says.
    """
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
    ):
        yield


def kept_settings() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context manager with this thread's settings of jax that a network may depend on, for another thread."""
    x64, random = jax.config.jax_enable_x64, jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    partitionable = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def kept() -> Iterator[None]:
        with (
            jax.enable_x64(x64),
            jax.default_prng_impl(random),
            jax.threefry_partitionable(partitionable),
        ):
            yield

    return kept


def per_network(*, donate_argnames: str | None = None, static_argnames: Any = ()) -> Callable:
    """Jits `function(network, ...)` once for each network, as a decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        programs: _PerObject[_PerObject[dict]] = _PerObject(lambda: _PerObject(dict))

        def program_of(network: Network) -> Any:
            owner, called = _owner(network.apply_fn)
            by_precision = programs.of(owner).of(called)
            if network.precision not in by_precision:
                weak = Network(_Weak(network.apply_fn), network.precision)
                by_precision[network.precision] = jax.jit(
                    functools.partial(function, weak),
                    static_argnames=static_argnames,
                    donate_argnames=donate_argnames,
                )
            return by_precision[network.precision]

        @functools.wraps(function)
        def call(network: Network, *args: Any, **options: Any) -> Any:
            with relaxed():
                return program_of(network)(*args, **options)

        call.program_of = program_of  # type: ignore[attr-defined]
        return call

    return decorate


class _PerObject(Generic[T]):
    """What `make` returns for every object, by its identity: objects that are equal may still be different networks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._found: dict[int, tuple[weakref.ref[Any], T]] = {}

    def of(self, owner: Any) -> T:
        """What was made for an object; it lives as long as the object."""
        key = id(owner)
        if key not in self._found:
            forget = functools.partial(lambda key, _: self._found.pop(key, None), key)
            self._found[key] = weakref.ref(owner, forget), self._make()
        return self._found[key][1]


class _Weak:
    """Calls a network, accelerated, that it does not keep alive."""

    def __init__(self, function: Callable[..., Any]) -> None:
        is_method = isinstance(function, types.MethodType)
        self._reference = weakref.WeakMethod(function) if is_method else weakref.ref(function)

    def function(self) -> Callable[..., Any]:
        function = self._reference()
        assert function is not None, "a program outlived its network"
        return function

    def __call__(self, *args: Any) -> Any:
        return accelerate(self.function())(*args)


def _owner(function: Callable[..., Any]) -> tuple[Any, Callable[..., Any]]:
    """The object whose life decides, and the function that is called: of a bound method, its object and function."""
    if isinstance(function, types.MethodType):
        return function.__self__, function.__func__
    return function, function
