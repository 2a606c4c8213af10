"""Reading torch.save's files: torch's own values; damaged and hostile files refused."""

import hashlib
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from outgen_jax.models.pytorch import torch_file

# Files assembled by hand: no torch needed, and they may hold what torch would never write.


def _text(value: str) -> bytes:
    return b"V" + value.encode() + b"\n"


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"I%d\n" % v for v in values) + b"t"


def _tensor(
    size: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    storage: str = "torch\nFloatStorage",
    rebuild: str = "_rebuild_tensor_v2",
) -> bytes:
    """Pickle code that leaves a tensor over storage '0' of `size` elements on the stack."""
    persistent = (
        b"(" + _text("storage") + b"c%s\n" % storage.encode() + _text("0") + _text("cpu")
    ) + b"I%d\ntQ" % size
    rest = b"I%d\n" % offset + _tuple(shape) + _tuple(strides)
    if rebuild == "_rebuild_tensor_v2":  # which has two arguments more
        rest += b"I00\nccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n%s\n(" % rebuild.encode() + persistent + rest + b"tR"


def _dictionary(**values: bytes) -> bytes:
    body = b"".join(_text(name) + code + b"s" for name, code in values.items())
    return b"ccollections\nOrderedDict\n)R" + body + b"."


def _zip(path: Path, pickled: bytes, storage: bytes = b"", byteorder: bytes = b"little") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        archive.writestr("archive/data/0", storage)
    return path


def _legacy(
    path: Path, pickled: bytes, storage: bytes = b"", *, little_endian: bool = True
) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian}]
    parts = [pickle.dumps(part, 2) for part in head]
    keys, count = (["0"], struct.pack("<q", len(storage) // 4)) if storage else ([], b"")
    path.write_bytes(b"".join(parts) + pickled + pickle.dumps(keys, 2) + count + storage)
    return path


_VALUES = np.arange(6, dtype=np.float32)
_FORMATS = pytest.mark.parametrize("write", [_zip, _legacy])


@_FORMATS
def test_reads_strides_and_offsets(write, tmp_path):
    pickled = _dictionary(
        transposed=_tensor(6, (3, 2), (1, 3)),
        tail=_tensor(6, (2,), (2,), offset=3),
        scalar=_tensor(6, (), (), offset=5),
        empty=_tensor(6, (0, 4), (4, 1)),
    )
    state = torch_file.read(write(tmp_path / "f", pickled, _VALUES.tobytes()))
    assert list(state) == ["transposed", "tail", "scalar", "empty"]
    np.testing.assert_array_equal(state["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(state["tail"], [3, 5])
    assert state["scalar"] == 5
    assert state["scalar"].shape == ()
    assert state["empty"].shape == (0, 4)
    assert state["transposed"].flags.c_contiguous
    assert state["transposed"].flags.writeable


@_FORMATS
def test_reads_what_the_first_versions_of_torch_wrote(write, tmp_path):
    pickled = _dictionary(weight=_tensor(6, (2, 2), (2, 1), offset=2, rebuild="_rebuild_tensor"))
    state = torch_file.read(write(tmp_path / "f", pickled, _VALUES.tobytes()))
    np.testing.assert_array_equal(state["weight"], [[2, 3], [4, 5]])


@_FORMATS
def test_reads_parameters(write, tmp_path):
    hooks = b"I01\nccollections\nOrderedDict\n)R"
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + _tensor(6, (6,), (1,)) + hooks + b"tR"
    state = torch_file.read(write(tmp_path / "f", _dictionary(weight=parameter), _VALUES.tobytes()))
    np.testing.assert_array_equal(state["weight"], _VALUES)


@pytest.mark.parametrize("zip_format", [True, False])
def test_equals_torch(zip_format, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24)
    dtypes = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
    state = {name: (base % 5).to(getattr(torch, name)).reshape(2, 3, 4) for name in dtypes}
    state["transposed"] = state["float32"].permute(2, 0, 1)
    state["view"] = state["float32"][1, 1:, ::2]  # shares the storage
    state["expanded"] = torch.ones(3, 1).expand(3, 4)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    state |= module.state_dict()
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    arrays = torch_file.read(path)
    assert list(arrays) == list(state)
    for name, tensor in state.items():
        assert str(arrays[name].dtype) == str(tensor.dtype).removeprefix("torch."), name
        expected = tensor.double().numpy()
        np.testing.assert_array_equal(arrays[name].astype(np.float64), expected, err_msg=name)


def test_reads_a_modules_own_state_dict_with_its_metadata(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), tmp_path / "f")  # an OrderedDict with an attribute
    arrays = torch_file.read(tmp_path / "f")
    np.testing.assert_array_equal(arrays["weight"], module.weight.detach().numpy())


@_FORMATS
@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [
        ("os", "system", "touch {}"),
        ("builtins", "eval", "open({!r}, 'w')"),
        ("builtins", "open", "{}"),
        ("torch", "load", "{}"),
        ("torch._utils", "_rebuild_tensor_v3", "{}"),
        ("torch._utils", "_rebuild_tensor.__globals__", "{}"),
        ("collections", "OrderedDict.fromkeys", "{}"),
    ],
)
def test_refuses_other_globals_without_calling_them(write, module, name, argument, tmp_path):
    mark = tmp_path / "executed"
    call = f"c{module}\n{name}\n(".encode() + _text(argument.format(str(mark))) + b"tR"
    path = write(tmp_path / "f", _dictionary(weight=call))
    with pytest.raises(ValueError, match=rf"torch_file\.read: .*'{module}\.{name}'.*state_dict"):
        torch_file.read(path)
    assert not mark.exists()


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_refuses_other_globals_in_every_pickle_of_the_legacy_format(place, tmp_path):
    mark = tmp_path / "executed"
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    parts = [pickle.dumps(part, 2) for part in head]
    parts[place] = b"cos\nsystem\n(" + _text(f"touch {mark}") + b"tR."
    (tmp_path / "f").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"'os\.system'"):
        torch_file.read(tmp_path / "f")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"])
def test_a_pickle_leaves_nothing_behind_in_the_reader(name, tmp_path):
    # BUILD with a pair sets attributes on the object: here, on the function that rebuilds tensors.
    attribute = f"ctorch._utils\n{name}\n(N}}".encode() + _text("mark") + b"I1\nstb"
    torch_file_names = set(vars(torch_file))
    with pytest.raises(ValueError, match="expected only tensors"):
        torch_file.read(_zip(tmp_path / "f", _dictionary(weight=attribute)))
    assert set(vars(torch_file)) == torch_file_names
    assert not hasattr(torch_file._Tensor, "mark")


@_FORMATS
@pytest.mark.parametrize(
    "tensor",
    [
        _tensor(6, (7,), (1,)),
        _tensor(6, (2, 3), (4, 1)),
        _tensor(6, (2,), (1,), offset=5),
        _tensor(6, (2,), (1,), offset=-1),
        _tensor(6, (2,), (-1,), offset=3),
    ],
)
def test_refuses_views_outside_the_storage(write, tensor, tmp_path):
    path = write(tmp_path / "f", _dictionary(weight=tensor), _VALUES.tobytes())
    with pytest.raises(ValueError, match="'weight' reaches outside its storage of 6 elements"):
        torch_file.read(path)


@_FORMATS
def test_refuses_another_machines_byte_order(write, tmp_path):
    option = {"byteorder": b"big"} if write is _zip else {"little_endian": False}
    pickled = _dictionary(weight=_tensor(6, (6,), (1,)))
    with pytest.raises(ValueError, match=r"big-endian machine\. Load and save it .* little-endian"):
        torch_file.read(write(tmp_path / "f", pickled, _VALUES.tobytes(), **option))


@_FORMATS
def test_names_what_is_no_tensor(write, tmp_path):
    path = write(tmp_path / "f", _dictionary(epoch=b"I3\n"))
    with pytest.raises(ValueError, match="holds 'epoch': int, expected only tensors"):
        torch_file.read(path)
    with pytest.raises(ValueError, match="holds a list, expected a state dictionary"):
        torch_file.read(write(tmp_path / "g", b"]."))


@_FORMATS
def test_refuses_unknown_storages(write, tmp_path):
    tensor = _tensor(6, (6,), (1,), storage="torch\nQUInt8Storage")
    with pytest.raises(ValueError, match=r"'torch\.QUInt8Storage'"):
        torch_file.read(write(tmp_path / "f", _dictionary(weight=tensor), bytes(24)))


@_FORMATS
def test_truncated_anywhere_is_a_value_error(write, tmp_path):
    path = write(tmp_path / "f", _dictionary(weight=_tensor(6, (6,), (1,))), _VALUES.tobytes())
    whole = path.read_bytes()
    assert torch_file.read(path)["weight"].shape == (6,)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"torch_file\.read: .*(truncated|begin like)"):
            torch_file.read(path)


def test_checks_the_hash_before_reading(tmp_path):
    path = _legacy(tmp_path / "f", _dictionary(weight=_tensor(6, (6,), (1,))), _VALUES.tobytes())
    whole = path.read_bytes()
    expected = hashlib.sha256(whole).hexdigest()
    assert torch_file.read(path, sha256=expected.upper())["weight"][5] == 5
    altered = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(altered)
    found = hashlib.sha256(altered).hexdigest()
    with pytest.raises(
        ValueError, match=f"SHA-256 {found}, expected {expected}.*Download it again"
    ):
        torch_file.read(path, sha256=expected)
    # Neither the pickle's error nor its effect: the hash comes first.
    path.write_bytes(b"cos\nsystem\n(" + _text(f"touch {tmp_path / 'executed'}") + b"tR.")
    with pytest.raises(ValueError, match=r"SHA-256 .* another version\. Reinstall it$"):
        torch_file.read(path, sha256=expected, remedy="Reinstall it")
    assert not (tmp_path / "executed").exists()


def test_an_altered_byte_in_the_zip_format_is_found_without_a_hash(tmp_path):
    path = _zip(tmp_path / "f", _dictionary(weight=_tensor(6, (6,), (1,))), _VALUES.tobytes())
    data = bytearray(path.read_bytes())
    data[data.index(_VALUES.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        torch_file.read(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"torch_file\.read: no file .*nothing\.pth"):
        torch_file.read(tmp_path / "nothing.pth")
