"""A pickle gets what the reader lists, and nothing else is imported or called."""

import collections
import io
import os
import pickle

import pytest

from outgen_jax import restricted_pickle

LISTED = {("collections", "OrderedDict"): collections.OrderedDict}


def test_plain_values_and_listed_names_are_read():
    value = {"a": [1, 2.5, None], "b": collections.OrderedDict(x=(True, "y"))}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(value, protocol)
        assert restricted_pickle.Unpickler(io.BytesIO(data), LISTED).load() == value


def test_strings_of_python_2_come_in_the_encoding():
    data = b"\x80\x02U\x01\xe9."
    load = restricted_pickle.Unpickler(io.BytesIO(data), {}, encoding="bytes").load
    assert load() == b"\xe9"


class Call:
    """Pickles as a call that makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_of_other_names_are_refused_before_they_happen(tmp_path, protocol):
    mark = tmp_path / "executed"
    data = pickle.dumps([collections.OrderedDict(), Call(str(mark))], protocol)
    with pytest.raises(restricted_pickle.RefusedError, match=r"asks for '\w+\.mkdir', which"):
        restricted_pickle.Unpickler(io.BytesIO(data), LISTED).load()
    assert not mark.exists()


def test_a_listed_name_gives_no_way_to_its_attributes():
    # STACK_GLOBAL, which Python resolves along dots: OrderedDict.fromkeys.
    data = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93."
    with pytest.raises(restricted_pickle.RefusedError, match=r"OrderedDict\.fromkeys"):
        restricted_pickle.Unpickler(io.BytesIO(data), LISTED).load()
