"""Test which sandbox layers are used, and what `autograder doctor` reports about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.cli import main
from autograder.sandbox import doctor
from autograder.sandbox.walls import landlock, namespaces, privileges, wall

pytestmark = pytest.mark.slow


def test_the_doctor_finds_the_probe_that_only_one_layer_blocks() -> None:
    findings = doctor.examine()
    assert [f for f in findings if not f.passed] == []
    for layer, probe in doctor.ONLY_PROBE.items():
        last = [f for f in findings if f.layer == layer][-1]
        assert "with all layers except this one: the attempt succeeded" in last.seen, probe


@pytest.mark.parametrize(
    ("seconds", "executable", "problem"),
    [
        (0.001, sys.executable, "timed out"),
        (60.0, "/bin/false", "no output, exit code 1"),
        (60.0, "/no/python", "No such file"),
    ],
)
def test_probes_that_do_not_run_are_one_line_on_stderr(
    seconds: float,
    executable: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", seconds)
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "argv", ["autograder", "doctor"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("autograder: error: the sandbox probes ")
    assert problem in line


@pytest.mark.parametrize("layers", [[], ["seccomp"]])
def test_the_probes_leave_no_file_behind(layers: list[str]) -> None:
    """With seccomp, removing a file reports success but has no effect."""
    code = "import sys; from autograder.sandbox.walls.probes import main; main(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, *layers], stdout=subprocess.PIPE)
    output, _ = process.communicate()
    assert json.loads(output)["write"][1:] == [False, "the attempt succeeded"]
    assert list(Path("/tmp").glob(f"autograder-probe-{process.pid}-*")) == []


def test_hidden_paths_in_readable_folders_cannot_be_read(tmp_path: Path) -> None:
    for name in ("autograder", "torch", "deep/autograder", "deep/torch"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "code.py").write_text(name)

    def look() -> None:
        hidden = [str(tmp_path / name / "autograder") for name in ("", "deep")]
        rules = landlock.readable(str(tmp_path), hidden)
        privileges.no_new_privileges()
        landlock.restrict(rules)
        for folder in (tmp_path, tmp_path / "deep"):
            assert (folder / "torch" / "code.py").read_text().endswith("torch")
            assert {"autograder", "torch"} <= set(os.listdir(folder))
            with pytest.raises(PermissionError):
                (folder / "autograder" / "code.py").read_text()

    assert namespaces.error_in_child(look) == ""


def test_an_old_landlock_is_not_used_without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = {"namespaces": "not here"}
    monkeypatch.setattr(wall, "_refusal", lambda layer: refusals.get(layer, ""))
    monkeypatch.setattr(landlock, "version", lambda: 2)
    assert set(wall.refused_layers()) == {"namespaces", "landlock"}
    refusals.clear()
    assert wall.refused_layers() == {}
