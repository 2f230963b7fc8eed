"""Which classes and functions a pickle may name, and what stands for their objects. Nothing is imported or called.

The line between what is stepped over and what is refused (`ForeignClass`):

* Of Python's standard library, torch, numpy and packages that run what they load, only the names in the tables here.
  Each may be called only as pickle does it for a plain value: a path, a date, a set, a Namespace, a number of numpy.
* Of all other packages (a trainer's own configurations, omegaconf, ...): an object that is made without a call
  (`cls.__new__`, then its attributes), a member of an enumeration (a class with one plain value), an empty
  dictionary of a class of its own. What lies in its attributes is held to the same rules.
* A call of anything else, and a function of another package with it, is refused by its name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import torch

from . import numpy_values as numpy
from .errors import ForeignClass, NotPlain
from .tensors import STORAGES, TENSOR_CLASSES, TENSORS
from .values import SCALARS, Blob, Foreign, Global, Places, Skipped, are_sizes, is_flat

# Packages of which only the names below are let through: those of Python, and some that run what they load.
_GUARDED = frozenset(sys.stdlib_module_names) | frozenset(
    "torch numpy pip setuptools pkg_resources distutils imp asyncore commands popen2 dill cloudpickle joblib IPython "
    "pandas numexpr sympy".split()
)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}
_PYTHON_2_NAMES = {
    "builtins.xrange": "builtins.range",
    "builtins.long": "builtins.int",
    "builtins.unicode": "builtins.str",
}

_TYPES = "bool bytearray bytes complex dict float frozenset int list object set slice str tuple type".split()
# May be named, but not called: classes beside an object, in a configuration, as the key of a callback.
_REFERENCES = re.compile(
    r"builtins\.(" + "|".join([*_TYPES, "Ellipsis", "NotImplemented"]) + r")"
    r"|typing\.[A-Z]\w*|array\.array|collections\.abc\.[A-Z]\w*"
    r"|torch\.(nn|optim)(\.\w+)+|torch\._C\._nn\.\w+"
    r"|torch\.(_utils\.torch\.)?(channels_last|channels_last_3d|contiguous_format|preserve_format)"
)
_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
_PATHS = [f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in (
    "Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")]  # fmt: skip
_PLAIN = [*_PATHS, "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
          "decimal.Decimal", "fractions.Fraction", "builtins.complex", "builtins.slice", "builtins.type",
          "builtins.range", "torch.device", "torch._C.Generator", "torch.Generator", "torch.serialization._get_layout",
          "re._compile"]  # fmt: skip


def resolve(module: str, name: str) -> Any:
    """What stands for a class or function: its name; for a dtype of torch, the dtype.

    Raises:
        ForeignClass: it is none that a file may name.
    """
    full = f"{_PYTHON_2.get(module, module)}.{name}"
    full = _PYTHON_2_NAMES.get(full, full)
    if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
        return found
    guarded = module.split(".", 1)[0] in _GUARDED or module in _PYTHON_2
    is_name = all(part.isidentifier() or part == "<locals>" for part in full.split("."))
    if not is_name or (guarded and not _is_listed(full)):
        raise ForeignClass(full[:200] if is_name else ascii(full[:200]))
    return Global(full)


def _is_listed(name: str) -> bool:
    if name in _CALLS or name in STORAGES or name in TENSORS or name in TENSOR_CLASSES or name in _NEW:
        return True
    return bool(_REFERENCES.fullmatch(name) or numpy.REFERENCES.fullmatch(name))


def call(places: Places, function: Any, arguments: Any) -> Any:
    """What stands for the result of a call.

    Raises:
        ForeignClass: it would run what is not known.
        NotPlain: it is known, but not with these arguments.
    """
    name = function.name if isinstance(function, Global) else ""
    if type(arguments) is not tuple or len(arguments) > 100:
        raise NotPlain(f"has a call of {name or 'something'} that pickle does not write")
    try:
        if name in TENSORS:
            return TENSORS[name](places, *arguments)
        if name in _CALLS:
            return _CALLS[name](*arguments)
    except TypeError as error:  # another number of arguments
        raise NotPlain(f"has a call of {name} that pickle does not write") from error
    if not name:
        raise NotPlain("has a call of something that is no function")
    return _foreign_value(name, arguments)


def _foreign_value(name: str, arguments: tuple[Any, ...]) -> Foreign:
    """A member of an enumeration, or an empty dictionary, of some program's class."""
    few = not arguments or (len(arguments) == 1 and _is_value(arguments[0]))
    is_class = name.rsplit(".", 1)[1][:1].isupper()
    if not few or not is_class or name.split(".", 1)[0] in _GUARDED:
        raise ForeignClass(name[:200])
    return Foreign(name)


def _is_value(value: Any) -> bool:
    return type(value) in SCALARS or (type(value) is dict and not value)


def new(cls: Any, arguments: Any) -> Any:
    """What stands for `cls.__new__(cls, *arguments)`: an object whose attributes follow."""
    name = cls.name if isinstance(cls, Global) else ""
    if type(arguments) is not tuple or not name:
        raise NotPlain(f"has an object of {name or 'something'} that pickle does not write")
    if name in _NEW:
        if arguments:
            raise NotPlain(f"has an object of {name} that pickle does not write")
        return Skipped(name)
    guarded = name.split(".", 1)[0] in _GUARDED
    if guarded and (arguments or not re.fullmatch(r"torch\.(nn|optim)\.[\w.]+\.[A-Z]\w*", name)):
        raise ForeignClass(name[:200])
    return Foreign(name)


def set_state(of: Any, state: Any) -> None:
    """Checks the attributes that an object is given; none of them is kept.

    Raises:
        NotPlain: it is no object that pickle gives such attributes.
    """
    if isinstance(of, Foreign):
        if type(state) not in (dict, tuple, list) and type(state) not in SCALARS:
            raise NotPlain(f"has attributes of {of.name} that are none")
        of.look_at(state)
    elif isinstance(of, numpy.Dtype):
        numpy.set_dtype(of, state)
    elif isinstance(of, numpy.Array):
        numpy.set_array(of, state)
    elif isinstance(of, Skipped) and of.name == "_io.BytesIO":
        if type(state) is not tuple or len(state) != 3 or not isinstance(state[0], Blob) or not is_flat(state[1:]):
            raise NotPlain("has a file of bytes that pickle does not write")
    elif type(of) is dict or (isinstance(of, Skipped) and of.name in _WITH_ATTRIBUTES):
        if type(state) is not dict or not all(map(_is_attribute, state)):
            raise NotPlain(f"has attributes of {getattr(of, 'name', 'a dictionary')} that are none")
    elif not isinstance(of, Skipped) or of.name not in _WITH_STATE or type(state) not in (dict, tuple):
        raise NotPlain(f"has attributes of {getattr(of, 'name', type(of).__name__)}, which has none")


def _is_attribute(key: Any) -> bool:
    return type(key) is str and not (key.startswith("__") and key.endswith("__"))


def _skip(name: str, check: Callable[..., bool]) -> Callable[..., Skipped]:
    """Of a value that is stepped over, if `check` takes the arguments."""

    def made(*arguments: Any) -> Skipped:
        if not check(*arguments):
            raise NotPlain(f"has a call of {name} that pickle does not write")
        return Skipped(name)

    return made


def _bytes(*content: Any) -> Blob:
    """bytes(), bytearray(bytes), bytearray(text, "latin-1"): never of a number, which would be a size."""
    if len(content) > 2 or not all(isinstance(part, Blob) or type(part) is str for part in content):
        raise NotPlain("has bytes that pickle does not write")
    first = content[0] if content else ""
    return first if isinstance(first, Blob) else Blob(len(first))


def _encode(text: Any, encoding: Any) -> Blob:
    """Bytes, as protocols before 3 have them."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise NotPlain("has a text that is packed in another way than pickle does it")
    return Blob(len(text))


def _size(sizes: Any) -> tuple[int, ...]:
    if not are_sizes(sizes):
        raise NotPlain("has a torch.Size that is not readable")
    return sizes


def _default_dictionary(*factory: Any) -> dict[Any, Any]:
    if len(factory) > 1 or not is_flat(factory):
        raise NotPlain("has a defaultdict that pickle does not write")
    return {}


def _annotation(of: Any, part: Any) -> Skipped:
    """typing.Union[...] and the like."""
    if not isinstance(of, Global) or not of.name.startswith("typing."):
        raise ForeignClass("_operator.getitem")
    return Skipped(of.name)


def _reconstruct(cls: Any, base: Any, state: Any) -> Any:
    """copyreg._reconstructor, as protocols before 2 make objects."""
    return new(cls, ())


def _new_object(cls: Any, *arguments: Any) -> Any:
    return new(cls, arguments)


def _without_numbers(*arguments: Any) -> Any:
    raise NotPlain('has tensors without numbers in them, saved on the device "meta"')


# What may be called besides tensors, and what stands for the result.
_CALLS: dict[str, Callable[..., Any]] = {
    **numpy.CALLS,
    **{name: _skip(name, lambda *it: len(it) <= 64 and is_flat(it)) for name in _PLAIN},
    **{f"builtins.{name}": _skip(f"builtins.{name}", lambda *it: not it or (len(it) == 1 and type(it[0]) is list))
       for name in ("set", "frozenset")},
    **{name: _skip(name, lambda *it: not it) for name in _NAMESPACES},
    **dict.fromkeys(("builtins.bytes", "builtins.bytearray"), _bytes),
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_numbers,
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": _default_dictionary,
    "collections.Counter": _skip("collections.Counter", lambda *it: len(it) == 1 and type(it[0]) is dict),
    "collections.deque": _skip("collections.deque", lambda of=(), *most: type(of) in (list, tuple) and is_flat(most)),
    "array.array": _skip("array.array", lambda kind, of: type(kind) is str and type(of) in (list, str)),
    "array._array_reconstructor": _skip("array.array", lambda *it: len(it) == 4 and is_flat(it)),
    "types.GenericAlias": _skip("types.GenericAlias", lambda of, it: isinstance(of, Global) and type(it) is tuple),
    "_operator.getitem": _annotation,
    "copyreg._reconstructor": _reconstruct,
    "copyreg.__newobj__": _new_object,
}  # fmt: skip
# Objects that are made without a call, and those that are given attributes or a state.
_NEW = frozenset(("argparse.Namespace", "uuid.UUID", "_io.BytesIO"))
_WITH_ATTRIBUTES = frozenset((*_NEW, *_NAMESPACES)) - {"_io.BytesIO"}
_WITH_STATE = frozenset(("numpy.random", "torch._C.Generator", "torch.Generator"))
