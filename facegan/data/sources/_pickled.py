"""A reader of pickles that runs nothing: lists, tuples, bytes, whole numbers and bools, and where the bytes lie.

Nothing is unpickled. The operations of the file (`pickletools`) are followed one by one on a stack of plain data, so
that no module is imported and nothing called, whatever the file names. Bytes stay in the file. Arrays of NumPy, which
some files hold, are recognised by the names that they are written with and read as their bytes.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

ARRAY = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
BUFFER = {f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")}  # with protocol 5
NAMES = {*ARRAY, *BUFFER, "numpy ndarray", "numpy dtype"}
_MARK = object()
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
_BYTES = {
    "SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9, "SHORT_BINSTRING": 2, "BINSTRING": 5,
}  # fmt: skip
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE")
_NOTHING = ("PROTO", "FRAME")


@dataclass(frozen=True)
class Slice:
    """Bytes that lie in a file."""

    offset: int
    size: int


@dataclass
class _Object:
    """What NumPy writes: a name, with what it is called with and set to. Never made."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


def read(path: Path) -> tuple[Any, Any]:
    """The two parts of a pickled pair, each a list of ints, bools and slices, or one of those.

    A `Slice` says where bytes lie, or those of a flat array of uint8 or bool.

    Raises ValueError for a file that holds anything else or is damaged; OSError when it cannot be read.
    """
    with open(path, "rb") as file:
        machine = _Machine(path.stat().st_size)
        bounded = cast(IO[bytes], _Bounded(file, machine.size))
        for operation, argument, offset in pickletools.genops(bounded):
            machine.step(operation.name, argument, offset or 0)
    value = machine.pop()
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError("it is no pair of images and answers")
    first, second = (
        [_scalar(item) for item in part] if isinstance(part, list | tuple) else _scalar(part) for part in value
    )
    return first, second  # one level and no more: lists that hold each other would grow without bound


class _Bounded:
    """A file that refuses to read further than it goes, before any memory is asked for."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("cut short")
        return self._file.read(count)  # type: ignore[no-any-return]

    def readline(self) -> bytes:
        return self._file.readline(10_000)  # type: ignore[no-any-return]


class _Machine:
    """The stack and memo of a pickle (Python's `pickletools` says what each operation does)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("nothing to take from the stack")
        return self._stack.pop()

    def step(self, name: str, argument: Any, offset: int) -> None:
        """One operation; raises ValueError for one that plain data has no use for."""
        push = self._stack.append
        if name in _NOTHING or name == "STOP":
            return
        if name in _BYTES:
            push(Slice(offset + _BYTES[name], len(argument)))
        elif name in _NUMBERS or name in _TEXTS:
            push(argument)  # INT 00 and 01 are bools already
        elif name in ("NEWTRUE", "NEWFALSE"):
            push(name == "NEWTRUE")
        elif name in ("NONE", "EMPTY_LIST", "EMPTY_TUPLE"):
            push({"NONE": None, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
        elif name == "MARK":
            push(_MARK)
        elif name in ("APPENDS", "LIST", "TUPLE"):
            items = self._to_mark()
            if name == "APPENDS":
                self._list().extend(items)
            else:
                push(items if name == "LIST" else tuple(items))
        elif name == "APPEND":
            item = self.pop()
            self._list().append(item)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple([self.pop() for _ in range(int(name[-1]))][::-1]))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[argument] if argument in self._memo else self._missing())
        else:
            self._name(name, argument)

    def _name(self, name: str, argument: Any) -> None:
        """The operations that would import and call: allowed on NumPy's own names, and then only noted."""
        if name == "GLOBAL":
            self._stack.append(_numpy_object(argument))
        elif name == "STACK_GLOBAL":
            last, module = self.pop(), self.pop()
            self._stack.append(_numpy_object(f"{module} {last}"))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            if not isinstance(function, _Object) or not isinstance(arguments, tuple):
                raise ValueError("it calls something")
            self._stack.append(_Object(function.name, arguments))
        elif name == "BUILD":
            state, array = self.pop(), self._top()
            if not isinstance(array, _Object):
                raise ValueError("it sets something")
            array.state = state
        else:
            raise ValueError(f"it holds more than plain data ({name})")

    def _top(self) -> Any:
        item = self.pop()
        self._stack.append(item)
        return item

    def _list(self) -> list[Any]:
        item = self._top()
        if not isinstance(item, list):
            raise ValueError("it appends to what is no list")
        return item

    def _to_mark(self) -> list[Any]:
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise ValueError("a mark is missing")
        self._stack.pop()
        return items[::-1]

    @staticmethod
    def _missing() -> Any:
        raise ValueError("it takes from the memo what was never put there")


def _numpy_object(name: str) -> _Object:
    if name not in NAMES:
        raise ValueError(f"it would import '{name.replace(' ', '.')[:100]}'")
    return _Object(name)


def _scalar(value: Any) -> Any:
    """A number, a bool or a slice, which a flat array of uint8 or bool becomes; raises ValueError for anything else."""
    if isinstance(value, Slice | int):
        return value
    if isinstance(value, _Object):
        data, kind, shape = None, None, None
        if value.name in ARRAY and isinstance(value.state, tuple) and len(value.state) == 5:
            _, shape, kind, _, data = value.state
        elif value.name in BUFFER and len(value.arguments) == 4:
            data, kind, shape, _ = value.arguments
        code = kind.arguments[:1] if isinstance(kind, _Object) and kind.name == "numpy dtype" else None
        if code in (("u1",), ("b1",)) and isinstance(data, Slice) and shape == (data.size,):
            return data
        raise ValueError(f"it holds {value.name.replace(' ', '.')} that is no flat array of bytes")
    raise ValueError(f"it holds {type(value).__name__} where an image or an answer should be")
