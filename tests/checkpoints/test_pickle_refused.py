"""Pickled files that stay refused, each with the true reason: what would run code, hash for ever, or is too long."""

import argparse
import builtins
import collections
import datetime
import functools
import importlib
import operator
import os
import pathlib
import random
import re
import subprocess
import time
import types

import numpy as np
import pytest
import torch
from checkpoints.files import fails
from checkpoints.pickled_files import foreign, rewrite, save

import pixeldit_core as pc


class Trap:
    """Calls something when a careless reader unpickles it."""

    def __init__(self, *made):
        self.made = made

    def __reduce__(self):
        return self.made


def traps(marker):
    run = f"open({str(marker)!r}, 'w')"
    return {
        "system": Trap(os.system, (f"echo > {marker}",)),
        "eval": Trap(eval, (run,)),
        "exec": Trap(exec, (run,)),
        "getattr": Trap(builtins.getattr, (pathlib.Path, "touch")),
        "functools.partial": functools.partial(os.system, f"echo > {marker}"),
        "import_module": Trap(importlib.import_module, ("antigravity",)),
        "methodcaller": operator.methodcaller("touch"),
        "subprocess.Popen": Trap(subprocess.Popen, (["touch", str(marker)],)),
        "torch.load": Trap(torch.load, (str(marker),)),
        "torch.hub.load": Trap(torch.hub.load, (str(marker),)),
        "io.open": Trap(open, (str(marker), "w")),
        "numpy": Trap(np.load, (str(marker),)),
        "random.Random": random.Random(0),
        "typing": Trap(operator.getitem, ({1: 2}, 1)),
    }


WANTED = {
    "subprocess.Popen": "Popen",
    "torch.load": "torch.serialization.load",
    "typing": "_operator.getitem",
}


@pytest.mark.parametrize("container, protocol", [("zip", 2), ("zip", 5), ("legacy", 2)])
@pytest.mark.parametrize("kind", traps(""))
def test_code_in_the_state_of_a_namespace(tiny, tmp_path, kind, container, protocol):
    marker = tmp_path / "it-ran"
    args = argparse.Namespace(lr=1e-4, data=types.SimpleNamespace(on=[traps(marker)[kind]]))
    path = save(tmp_path / "evil.pt", {"model": tiny().network.state_dict(), "args": args}, container, protocol)
    fails(path, "evil.pt", WANTED.get(kind, kind), "wants to load", "nothing of it was run")
    assert not marker.exists()


def test_code_as_a_state_a_key_and_an_argument(tiny, tmp_path):
    state, marker = tiny().network.state_dict(), tmp_path / "it-ran"
    run = Trap(os.system, (f"echo > {marker}",))
    for value in (
        {"a": run}, {run: "a"}, [run], (run,), {"a": {(1, run): 2}}, collections.OrderedDict(a=run),
        Trap(collections.OrderedDict, (), {"a": run}), Trap(collections.OrderedDict, (), None, iter([run])),
        Trap(argparse.Namespace, (), run), Trap(types.SimpleNamespace, (), {"a": run}), Trap(set, ([run],)),
        Trap(datetime.datetime, (run,)), Trap(pathlib.PurePosixPath, (run,)), np.array([run], dtype=object),
        collections.defaultdict(list, {1: run}), collections.deque([run]),
    ):  # fmt: skip
        fails(save(tmp_path / "evil.pt", {"model": state, "args": value}), "system", "wants to load")
    assert not marker.exists()


@pytest.mark.parametrize("name, arguments", [
    ("some_trainer.utils.run", ("echo",)), ("some_trainer.run", ()), ("some_trainer.Runner", ("a", "b")),
    ("some_trainer.Runner", (["a"],)), ("some_trainer.Runner.run", ("a",)),
])  # fmt: skip
def test_calls_of_other_packages_are_refused_by_name(tiny, tmp_path, monkeypatch, name, arguments):
    path = tmp_path / "run.pt"
    with monkeypatch.context() as there:
        called = foreign(there, "some_trainer.utils.x" if name.count(".") < 2 else name)
        called = foreign(there, name) if "Runner.run" not in name else called
        save(path, {"model": tiny().network.state_dict(), "value": Trap(called, arguments)})
    fails(path, f'wants to load "{name}"', "nothing of it was run")


def nested():
    key = (1,)
    for _ in range(40):
        key = (key, key)
    return key


@pytest.mark.parametrize("value, reason", [
    ({((1, 2), 3): 4}, "a dictionary with a key that is neither a string nor a small number"),
    ({2**61: 4}, "neither a string nor a small number"), ({tuple(range(17)): 4}, "neither a string nor a small number"),
    (Trap(bytearray, (2**40,)), "bytes that pickle does not write"),
    (Trap(argparse.Namespace, (), [1]), None),
    (Trap(argparse.Namespace, (), {"__class__": 1}), "attributes of argparse"),
    (Trap(types.SimpleNamespace, (), {"__dict__": 1}), "attributes of types.SimpleNamespace"),
    (Trap(types.SimpleNamespace, (), {3: 1}), "attributes of types.SimpleNamespace"),
    (Trap(set, (3,)), "a call of builtins.set"), (torch.zeros(2).expand(3, 2), "is larger than its storage"),
    (torch.zeros(2, device="meta"), "has tensors without numbers"),
    (torch.zeros(2).to_sparse(), "_rebuild_sparse_tensor"),
])  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_only_looks_plain(tiny, tmp_path, value, reason, protocol):
    path = save(tmp_path / "odd.pt", {"model": tiny().network.state_dict(), "value": value}, "zip", protocol)
    message = fails(path, reason or "argparse.Namespace", "as .safetensors")
    assert "damaged" not in message and "again" not in message


@pytest.mark.parametrize("old, new, reason", [
    (b"X\x02\x00\x00\x00f8", b"X\x02\x00\x00\x00O8", "a number of numpy whose type"),
    (b"X\x02\x00\x00\x00f8", b"X\x02\x00\x00\x00f4", "a number of numpy whose type"),
    (b"X\x02\x00\x00\x00f8", b"X\x08\x00\x00\x00V9999999", "a number of numpy whose type"),
    (b"X\x02\x00\x00\x00f8", b"X\x03\x00\x00\x00f8,", "a dtype of numpy that is not readable"),
    (b"J\xff\xff\xff\xffJ\xff\xff\xff\xff", b"J\xff\xff\xff\x7fK\x01", "a number of numpy whose type"),
])  # fmt: skip
def test_numbers_of_numpy_that_are_none(tiny, tmp_path, old, new, reason):
    path = save(tmp_path / "odd.pt", {"model": tiny().network.state_dict(), "value": np.float64(4.5)})
    assert "damaged" not in fails(rewrite(path, (old, new)), reason)


@pytest.mark.parametrize("shape", [b"K\x04\x85", b"\x8a\x07\x00\x00\x00\x00\x00\x00\x40\x85", b"J\xff\xff\xff\xff\x85"])
def test_arrays_of_numpy_larger_than_their_bytes(tiny, tmp_path, shape):
    path = save(tmp_path / "odd.pt", {"model": tiny().network.state_dict(), "value": np.zeros(3)})
    fails(rewrite(path, (b"K\x01K\x03\x85", b"K\x01" + shape)), "an array of numpy")


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_model(tiny, tmp_path, monkeypatch, container):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.SiLU())
    message = "holds weights inside of a whole object of the class torch.nn.modules.container.Sequential"
    fails(save(tmp_path / "whole.pt", network, container), message, "save model.state_dict() in place")
    fails(save(tmp_path / "inside.pt", {"model": network, "epoch": 3}, container), message, "nothing of it was run")
    network.act = functools.partial(torch.nn.functional.silu, inplace=True)
    path = save(tmp_path / "whole.pt", network, container)
    fails(path, 'load "functools.partial"', "It holds a whole torch.nn.modules.container.Sequential")
    with monkeypatch.context() as there:
        made = foreign(there, "my_models.PixDiT", torch.nn.Module)()
        made.proj = torch.nn.Linear(2, 2)
        path = save(tmp_path / "own.pt", made, container)
    assert "damaged" not in fails(path, "a whole object of the class my_models.PixDiT")


@pytest.mark.parametrize("content", [
    lambda state: {"shadow_params": list(state.values())},
    lambda state: {"module": {"inner": 1}, "shadow": dict(state)},
])  # fmt: skip
def test_an_average_as_an_object_is_not_passed_over(tiny, tmp_path, monkeypatch, content):
    """The raw weights beside it would be taken silently."""
    state = tiny().network.state_dict()
    with monkeypatch.context() as there:
        ema = foreign(there, "torch_ema.ema.ExponentialMovingAverage")()
        ema.__dict__ = content(state)
        path = save(tmp_path / "run.pt", {"model": state, "ema": ema})
        other = save(tmp_path / "other.pt", {"model": state, "lpips": ema, "ema_config": type(ema)()})
    fails(path, "inside of a whole object of the class torch_ema.ema.ExponentialMovingAverage")
    assert pc.load_checkpoint(other).params == tiny().params


def test_other_objects_in_the_place_of_a_dictionary(tmp_path, monkeypatch):
    fails(save(tmp_path / "args.pt", argparse.Namespace(a=1)), "holds a argparse.Namespace, not a dictionary")
    with monkeypatch.context() as there:
        path = save(tmp_path / "trainer.pt", foreign(there, "my_trainer.Trainer")())
    fails(path, "holds a my_trainer.Trainer, not a dictionary of tensors")


@pytest.mark.parametrize("count", [2_100_000, 6_800_000])
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_too_long_is_said_soon(tmp_path, container, count):
    """No damage where there is none: more operations than are followed, more than 64 MiB of them."""
    path = save(tmp_path / "long.pt", {"state_dict": {"a": torch.zeros(1)}, "history": [0.5]}, container)
    value = b"G?\xe0" + b"\0" * 6 + b"a"
    if container == "zip":
        rewrite(path, (value, value * count))
    else:
        path.write_bytes(path.read_bytes().replace(value, value * count))
    began = time.process_time()
    with pytest.raises(ValueError, match="is not damaged, but too long to be read safely: .*more than") as caught:
        pc.load_checkpoint(path)
    assert time.process_time() - began < 4 and "again" not in str(caught.value)


@pytest.mark.parametrize("part", [b"}", b"]", b"\x8f", b")", b"(", b"N", b"K\x00", b"]\x94", b"2"])
def test_a_pickle_of_nothing_but_one_operation(tmp_path, part):
    """64 MiB that each ask for an object: refused soon."""
    path = tmp_path / "many.pt"
    path.write_bytes(b"\x80\x04N" + part * (2**26 // len(part)))
    began = time.process_time()
    with pytest.raises(ValueError, match=r"many.pt is not damaged, but too long"):
        pc.load_checkpoint(path)
    assert time.process_time() - began < 4


@pytest.mark.parametrize("old, new, reason", [
    (b"\x80\x02", b"\x80\x09", "protocol 9"), (b"}q\x00", b"(d", "the pickle operation DICT"),
    (b"}q\x00", b"\x82\x01", "the pickle operation EXT1"), (b"}q\x00", b"\x97", "the pickle operation NEXT_BUFFER"),
])  # fmt: skip
def test_operations_that_torch_does_not_write(tmp_path, old, new, reason):
    path = save(tmp_path / "odd.pt", {"a": torch.zeros(1)})
    assert "damaged" not in fails(rewrite(path, (old, new)), reason)


def test_numbers_of_another_byte_order(tmp_path):
    path = save(tmp_path / "big.pt", {"a": torch.zeros(1)})
    path.write_bytes(path.read_bytes().replace(b"little", b"big   "))
    assert "damaged" not in fails(path, "byte order 'big", "another kind of computer")
    path = save(tmp_path / "older.pt", {"a": torch.zeros(1)}, "legacy")
    content, count = re.subn(rb"(little_endianq.)\x88", lambda found: found[1] + b"\x89", path.read_bytes())
    assert count == 1
    path.write_bytes(content)
    assert "damaged" not in fails(path, "byte order of another kind of computer")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_damage_is_called_damage(tiny, tmp_path, share):
    for container in ("zip", "legacy"):
        path = save(tmp_path / "cut.pt", {"model": tiny().network.state_dict()}, container, 4)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        fails(path, "is damaged or truncated", "Get the file again")


def test_lists_without_end(tiny, tmp_path):
    state, inside = tiny().network.state_dict(), []
    inside.extend([inside] * 64)
    torch.save({"model": state, "ema": inside}, tmp_path / "a.pt")
    fails(tmp_path / "a.pt", "more than 500,000 entries")
    shared = {"x": torch.zeros(1)}
    for _ in range(12):
        shared = [shared] * 64
    torch.save({"model": state, "ema": shared}, tmp_path / "b.pt")
    fails(tmp_path / "b.pt", "more than 500,000 entries")
    torch.save({"model": state, "ema": [list(state.values())] * 60}, tmp_path / "c.pt")
    fails(tmp_path / "c.pt", "networks, more than 16")
