"""Recorder: any loop's weights, copied; saved and loaded; what is no record is refused."""

import io
import zipfile

import numpy as np
import pytest
import torch

from gdtorch import Recorder, lockstep


def by_hand(record, steps=5, lr=0.1, first=True):
    w, b = np.array([1.0, 2.0, 4.0]), np.zeros(1)
    if first:
        record(W1=w, b1=b)
    for _ in range(steps):
        w -= lr * w**3 / 10
        b -= lr
        record(W1=w, b1=b)
    return record


def linear():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(4, 3).double()).square().sum().backward()
    optimizer.step()


def test_live_arrays_are_copied_and_read_many_times():
    one, two = by_hand(Recorder()), by_hand(Recorder())
    assert len(one) == 6
    for _ in range(2):
        assert lockstep(one, two).identical
    assert lockstep(one, by_hand(Recorder(), lr=0.3)).cause == "scale"


def test_a_module_and_the_steps_of_an_optimizer_are_one_record():
    model, optimizer = linear()
    whole, stepped = Recorder(), Recorder()
    whole(model)
    with stepped.steps_of(optimizer):
        for _ in range(3):
            step(model, optimizer)
            whole(model)
    step(model, optimizer)  # which nobody records
    assert len(whole) == len(stepped) == 4
    assert lockstep(whole, stepped, 3).identical


def test_the_hooks_are_gone_afterwards():
    model, optimizer = linear()
    with pytest.raises(ZeroDivisionError), Recorder().steps_of(optimizer):
        step(model, optimizer) or 1 / 0
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_names_are_those_of_the_optimizer_the_module_or_numbers():
    model, _ = linear()
    wrapped = torch.nn.Sequential(model, torch.nn.ReLU())
    names = []
    for parameters in (
        wrapped.named_parameters(),
        wrapped.parameters(),
        [torch.ones(2, requires_grad=True)],
    ):
        optimizer, record = torch.optim.SGD(parameters, lr=0.1), Recorder()
        with record.steps_of(optimizer):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        names.append([*next(iter(record))])
    assert names == [["0.weight", "0.bias"], ["weight", "bias"], ["p0"]]


def test_what_is_saved_is_loaded_and_is_plain_numpy(tmp_path):
    record = by_hand(Recorder())
    record.save(tmp_path / "mine.npz")
    assert lockstep(Recorder.load(tmp_path / "mine.npz"), record).identical
    with np.load(tmp_path / "mine.npz", allow_pickle=False) as file:
        assert {name: file[name].shape for name in file} == {"W1": (6, 3), "b1": (6, 1)}
        np.savez(tmp_path / "theirs.npz", **file)
    assert lockstep(Recorder.load(tmp_path / "theirs.npz"), record).identical


def test_names_and_precisions_of_any_kind_are_kept(tmp_path):
    record = Recorder()
    for k in range(2):
        record({"params": {"file": np.float32([k])}, "b": torch.ones(2, dtype=torch.bfloat16) * k})
    record.save(tmp_path / "a.npz")
    loaded = Recorder.load(tmp_path / "a.npz")
    assert [*next(iter(loaded))] == ["params/file", "b"]
    assert next(iter(loaded))["params/file"].dtype == torch.float32
    assert lockstep(loaded, record).agree


def write(path, **arrays):
    np.savez(path, **arrays)


def damaged(path):
    write(path, w=np.ones((3, 100)))
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)


def odd_member(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.txt", "hello")


def an_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


BAD = {
    "is no .npz file": [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("w"),
        an_array,
    ],
    "is damaged, or holds objects": [
        damaged,
        lambda path: write(path, w=np.array([{}, {}])),
        lambda path: write(path),
    ],
    "no array of numbers": [
        odd_member,
        lambda path: path.write_bytes(zipped("w.npy", b"")),
        lambda path: write(path, w=np.array(["a", "b"])),
    ],
    "is empty, complex or sparse": [lambda path: write(path, w=np.ones((0, 3)))],
    "must be the steps": [
        lambda path: write(path, w=1.0),
        lambda path: write(path, w=np.ones((3, 2)), b=np.ones((4, 2))),
    ],
}


def zipped(name, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(("words", "make"), [(w, m) for w, makes in BAD.items() for m in makes])
def test_bad_files_are_refused_in_one_line(tmp_path, main, words, make):
    make(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match=words) as caught:
        Recorder.load(tmp_path / "mine.npz")
    assert "\n" not in str(caught.value)
    status, out, error = main("lockstep", "mine.npz", "builtin:sgd")
    assert (status, out) == (2, "")
    assert error.startswith("gdtorch: mine.npz")
    assert error.count("\n") == 1


def test_files_and_functions_on_the_command_line(tmp_path, main):
    by_hand(Recorder()).save(tmp_path / "mine.npz")
    by_hand(Recorder(), lr=0.3).save(tmp_path / "theirs.npz")
    assert main("lockstep", "mine.npz", "mine.npz", "--steps", 5)[0] == 0
    status, out, _ = main("lockstep", "mine.npz", "theirs.npz", "--steps", 5)
    assert (status, out.splitlines()[0]) == (1, "cause: scale")
    status, _, error = main("lockstep", "missing.npz", "mine.npz")
    assert (status, error) == (2, "gdtorch: missing.npz: there is no file missing.npz\n")


def test_what_is_no_entry_is_refused():
    record = Recorder()
    with pytest.raises(ValueError, match="nothing is recorded"):
        record.save("never.npz")
    for nothing in ((), (None,), (3.0,), (print,)):
        with pytest.raises(ValueError, match=r"entry 0 of the record is .* record\(W1=W1, b1=b1\)"):
            record(*nothing)
    with pytest.raises(ValueError, match="entry 0 of the record: w is no array"):
        record(w="one")
    record(w=[1.0])
    with pytest.raises(ValueError, match="entry 1 of the record: other weights or shapes"):
        record(v=[1.0])
    assert len(record) == 1


def test_arrays_without_names_are_numbered():
    given = w, b = np.ones((3, 2)), torch.zeros(2)
    for arrays in (given, (given,), ([*given],)):
        record = Recorder()
        record(*arrays)
        assert [*next(iter(record))] == ["0", "1"]
        assert next(iter(record))["0"].tolist() == w.tolist()
    record = Recorder()
    record(b, self=w)
    assert {name: tuple(w.shape) for name, w in next(iter(record)).items()} == {
        "0": (2,),
        "self": (3, 2),
    }


def test_a_name_that_does_not_end_in_npz_is_given_that_ending(tmp_path):
    by_hand(Recorder()).save(tmp_path / "mine")
    by_hand(Recorder()).save(tmp_path / "mine.2.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.2.npz", "mine.npz"]


def test_a_first_entry_that_is_missing_is_said():
    late, whole = by_hand(Recorder(), first=False), by_hand(Recorder())
    said = "mine begins where theirs is after the first step: what it holds before"
    found = lockstep(late, whole)
    assert found.cause == "initial weights"
    assert said in str(found)
    assert "theirs begins where mine is after the first step" in str(lockstep(whole, late))
    other = Recorder()
    for k in range(4):
        other(W1=[k, 0.0, 0.0], b1=[1.0])
    assert "begins where" not in str(lockstep(other, whole))
