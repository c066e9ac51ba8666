"""A run's folder: claimed whole or not at all, cleared of nothing but what gdtorch wrote."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from gdtorch import rundir


def claim(*arguments, **options):
    """Claim a folder and let go of it again."""
    with rundir.claim(*arguments, **options) as folder:
        return folder


def fake_run(folder):
    """The files of a run, as the board lays them out."""
    for place in (folder, folder / "manual", folder / "sgd"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "events.out.tfevents.1.gdtorch").write_bytes(b"events")
    for place in (folder / "manual", folder / "sgd"):
        for name in ("initial.pt", "final.pt"):
            (place / name).write_bytes(b"weights")
    return folder


def test_names_by_time_never_collide(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(
            pool.map(lambda _: claim(tmp_path / "runs", None, overwrite=False), range(50))
        )
    assert len(set(folders)) == 50
    assert all(folder.is_dir() and not any(folder.iterdir()) for folder in folders)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", "a\0b", "a\nb", "a\udcff"])
def test_a_name_is_one_folder_name(tmp_path, name):
    with pytest.raises(ValueError, match="is not a folder name"):
        claim(tmp_path, name, overwrite=False)
    assert not any(tmp_path.iterdir())


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "x").mkdir()
    assert claim(tmp_path, "x", overwrite=False) == tmp_path / "x"


def test_an_existing_run_is_refused_and_untouched(tmp_path):
    folder = fake_run(tmp_path / "x")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="--overwrite"):
        claim(tmp_path, "x", overwrite=False)
    assert sorted(folder.rglob("*")) == before


def test_overwrite_removes_what_gdtorch_wrote_and_nothing_else(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "notes.txt").write_text("mine")
    (folder / "sgd" / "plot.png").write_text("mine")
    (folder / "weights").mkdir()
    (folder / "weights" / "final.pt").write_text("mine: no event file of gdtorch's beside it")
    claim(tmp_path, "x", overwrite=True)
    assert sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()) == [
        "notes.txt",
        "sgd/plot.png",
        "weights/final.pt",
    ]
    assert not (folder / "manual").exists()


def test_a_folder_that_is_not_ours_is_not_overwritten(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="no run of gdtorch's to overwrite"):
        claim(tmp_path, "x", overwrite=True)
    assert (tmp_path / "x" / "thesis.tex").read_text() == "mine"


def test_foreign_events_are_never_mixed_into(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "sgd" / "events.out.tfevents.1.host").write_text("another program's")
    with pytest.raises(ValueError, match="would mix with the run"):
        claim(tmp_path, "x", overwrite=True)
    assert (folder / "sgd" / "final.pt").exists()


def test_a_log_directory_that_cannot_be_made_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):  # noqa: PT011 (which one depends on the system)
        claim(tmp_path / "file" / "runs", "x", overwrite=False)
    with pytest.raises(OSError):  # noqa: PT011
        claim(tmp_path / "new" / ("n" * 300) / "runs", "x", overwrite=False)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_links_are_not_followed(tmp_path):
    other = fake_run(tmp_path / "other")
    folder = fake_run(tmp_path / "x")
    (folder / "best").symlink_to(other / "sgd")
    claim(tmp_path, "x", overwrite=True)
    assert len(list((other / "sgd").iterdir())) == 3
    assert (folder / "best").is_symlink()
    (tmp_path / "link").symlink_to(other)
    with pytest.raises(ValueError, match="not a folder"):
        claim(tmp_path, "link", overwrite=True)


def test_a_run_that_cannot_be_removed_is_refused_whole(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "post").write_text("a file where a trainer's folder should be")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="move it away"):
        claim(tmp_path, "x", ("post",), overwrite=True)
    assert sorted(folder.rglob("*")) == before


def test_a_run_in_a_locked_folder_is_refused_whole(tmp_path, monkeypatch):
    folder = fake_run(tmp_path / "x")
    # Root may write anywhere, so that permissions would prove nothing there.
    monkeypatch.setattr(os, "access", lambda place, _: place != folder / "sgd")
    with pytest.raises(ValueError, match="cannot be written"):
        claim(tmp_path, "x", overwrite=True)
    assert len(list((folder / "manual").iterdir())) == 3


def test_overwrite_removes_the_quartics_picture_beside_its_events_alone(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "quartic.png").write_bytes(b"ours")
    (folder / "mine").mkdir()
    (folder / "mine" / "quartic.png").write_bytes(b"no event file of gdtorch's beside it")
    claim(tmp_path, "x", overwrite=True)
    assert [str(f.relative_to(folder)) for f in folder.rglob("*.png")] == ["mine/quartic.png"]


def test_a_folder_by_time_is_left_empty_by_no_run_that_fails(tmp_path):
    with pytest.raises(KeyError), rundir.claim(tmp_path, None):
        raise KeyError
    assert not any(tmp_path.iterdir())


def test_a_name_is_measured_in_bytes(tmp_path):
    with pytest.raises(ValueError, match="longer than 200 bytes"):
        claim(tmp_path, "ä" * 101)


def test_a_log_directory_below_a_file_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a folder"):
        rundir.check(tmp_path / "file" / "runs", "x", free=True)


def test_a_link_in_place_of_a_trainers_folder_is_refused(tmp_path):
    """Else the run would write into whatever it leads to."""
    folder, other = fake_run(tmp_path / "x"), tmp_path / "other"
    other.mkdir()
    (folder / "post").symlink_to(other)
    with pytest.raises(ValueError, match="move it away"):
        claim(tmp_path, "x", ("post",), overwrite=True)


def test_overwrite_removes_what_a_kill_left_half_written(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "sgd" / "unfinished-final.pt").write_bytes(b"wei")
    claim(tmp_path, "x", overwrite=True)
    assert not any(folder.iterdir())


def test_a_file_that_a_kill_left_half_written_is_written_over(tmp_path):
    (tmp_path / "unfinished-final.pt").write_bytes(b"wei")
    rundir.write(tmp_path / "final.pt", b"weights")
    assert [file.name for file in tmp_path.iterdir()] == ["final.pt"]


def test_a_folder_named_like_our_files_stays(tmp_path):
    folder = fake_run(tmp_path / "x")
    (folder / "mine.gdtorch").mkdir()
    (folder / "mine.gdtorch" / "thesis.tex").write_text("mine")
    claim(tmp_path, "x", overwrite=True)
    assert (folder / "mine.gdtorch" / "thesis.tex").read_text() == "mine"


def test_blocks_without_settings_are_an_ensembles(tmp_path):
    blocks = tmp_path / "x" / "blocks"
    blocks.mkdir(parents=True)
    (tmp_path / "x" / "notes.txt").write_text("mine")
    claim(tmp_path, "x", ("blocks",), resume=True)
    assert blocks.is_dir()


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(rundir.fcntl, "flock", without)
    assert claim(tmp_path, "x") == tmp_path / "x"


def test_rivals_for_a_new_folder_do_not_take_it_from_its_winner(tmp_path):
    """A refused rival may have made the folder that the winner has locked, and is to leave it."""

    def rival(contest):
        try:
            with rundir.claim(tmp_path / f"{contest}", "x") as folder:
                rundir.write(folder / "events.gdtorch", b"events")
        except ValueError:  # the name is taken: what the others are told
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(rival, [contest for contest in range(100) for _ in range(8)]))
    assert [sum(won[8 * contest :][:8]) for contest in range(100)] == [1] * 100


def test_a_folder_that_its_failed_run_removes_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(rundir.fcntl, "flock", lambda *_: (tmp_path / "x").rmdir())
    with pytest.raises(ValueError, match="is that of a run under way"):
        claim(tmp_path, "x")
