"""Files that a kill cannot damage."""

import pytest

from lowland.files import atomic_write, write_text


def test_a_failure_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    write_text(path, "new σ")
    assert path.read_text(encoding="utf-8") == "new σ"


def test_writing_in_place_loses_the_old_file(tmp_path) -> None:
    """The broken twin of the test above."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with open(path, "w") as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "half"


def test_a_stray_temporary_file_is_ignored(tmp_path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / ".a.txt.tmp").write_text("from a killed process, and longer than the new one")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1
