"""Reads PyTorch's state dictionaries without PyTorch and without calling what a pickle names.

A file of `torch.save` is a pickle, and a pickle may name any function to be called. The reader
here knows three kinds of names, all harmless: `OrderedDict`, the rebuilding of a tensor (under the
name of today, that of the first PyTorch versions, and a parameter's), and the storage types.
Anything else is refused. Both formats are read: the zip archive (PyTorch 1.6 and
later) and the sequence of pickles and raw storages that came before it.

Tensors become numpy arrays in C order; bfloat16 becomes `ml_dtypes.bfloat16`, as in JAX.
"""

import hashlib
import io
import os
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from outgen_jax import restricted_pickle
from outgen_jax.restricted_pickle import RefusedError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_MAGIC = b"PK\x03\x04"
_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


def read(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    remedy: str = "Download it again, or if it is the file you mean, give its own hash as sha256",
) -> dict[str, np.ndarray]:
    """Reads the state dictionary that `torch.save(module.state_dict(), path)` wrote.

    Args:
      path: the file, in the zip or the legacy format.
      sha256: hexadecimal SHA-256 of the whole file, checked before anything in it is interpreted.
      remedy: what the message for another hash recommends.

    Returns:
      Name -> array of the tensor's shape and dtype, in the file's order.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another hash, a truncated or damaged file, a pickle that names anything but
        tensors, or contents that are not a dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"torch_file.read: no file {str(path)!r}; check the path")
    data = path.read_bytes()
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256.lower():
        raise ValueError(
            f"torch_file.read: {path} has SHA-256 {found}, expected {sha256.lower()}: the file is "
            f"damaged or another version. {remedy}"
        )
    try:
        return _read_zip(data) if data.startswith(_ZIP_MAGIC) else _read_legacy(data)
    except RefusedError as error:
        raise ValueError(f"torch_file.read: {path} {error}{_remedy(error)}") from None
    # A damaged pickle can end in any exception, from EOFError to UnicodeDecodeError.
    except Exception as error:
        raise ValueError(
            f"torch_file.read: {path} is truncated, damaged or no PyTorch file "
            f"({type(error).__name__}: {error}). Download it again, or save it anew with "
            "torch.save(module.state_dict(), path)"
        ) from error


class _ByteOrderError(RefusedError):
    """Numbers of the other byte order."""

    def __init__(self) -> None:
        super().__init__("was saved on a big-endian machine")


def _remedy(error: RefusedError) -> str:
    if isinstance(error, _ByteOrderError):
        return ". Load and save it with PyTorch on a little-endian machine"
    return ". Save the weights alone: torch.save(module.state_dict(), path)"


class _Storage(NamedTuple):
    kind: str  # a key of _DTYPES
    key: str
    size: int  # in elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # in elements, like the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(restricted_pickle.Unpickler):
    """Builds tuples that describe tensors."""

    def __init__(self, file: io.BytesIO) -> None:
        # Fresh functions for every file, as a pickle may set attributes on them.
        def tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _Tensor:
            return _Tensor(storage, offset, shape, strides)

        def parameter(data: _Tensor, *_: object) -> _Tensor:
            return data

        super().__init__(
            file,
            {
                ("collections", "OrderedDict"): OrderedDict,
                ("torch._utils", "_rebuild_tensor"): tensor,  # before PyTorch 0.4
                ("torch._utils", "_rebuild_tensor_v2"): tensor,
                ("torch._utils", "_rebuild_parameter"): parameter,
                **{("torch", name): name for name in _DTYPES},
            },
        )
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, size, *view = pid
        if kind != "storage" or storage_type not in _DTYPES or any(v is not None for v in view):
            raise RefusedError(f"holds a persistent object of an unknown form: {pid!r}")
        return self.storages.setdefault(key, _Storage(storage_type, key, size))


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/data.pkl")).removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise _ByteOrderError
        unpickler = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
        state = unpickler.load()
        storages = {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}
    return _arrays(state, storages)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Pickles of magic number, protocol, system, state and storage keys; then the raw storages."""
    file = io.BytesIO(data)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise RefusedError("does not begin like a file of torch.save")
    _Unpickler(file).load()
    if not _Unpickler(file).load()["little_endian"]:
        raise _ByteOrderError
    unpickler = _Unpickler(file)
    state = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        size = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(size * _DTYPES[unpickler.storages[key].kind].itemsize)
    return _arrays(state, storages)


def _arrays(state: Any, storages: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    if not isinstance(state, Mapping):
        raise RefusedError(f"holds a {type(state).__name__}, expected a state dictionary")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, _Tensor)):
            raise RefusedError(
                f"holds {name!r}: {type(value).__name__}, expected only tensors by name"
            )
    return {name: _array(name, tensor, storages) for name, tensor in state.items()}


def _array(name: str, tensor: _Tensor, storages: Mapping[str, bytes]) -> np.ndarray:
    (kind, key, size), offset, shape, strides = tensor
    dtype = _DTYPES[kind]
    if len(storages[key]) != size * dtype.itemsize:
        raise EOFError(f"{name!r} has {len(storages[key])} of {size * dtype.itemsize} bytes")
    # as_strided trusts its arguments: nothing outside the storage may be reached.
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (0 not in shape and last >= size):
        raise ValueError(f"{name!r} reaches outside its storage of {size} elements")
    flat = np.frombuffer(storages[key], dtype)
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], shape, tuple(stride * dtype.itemsize for stride in strides)
    )
    return view.copy()
