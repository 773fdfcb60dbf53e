"""The program runs with the packages that pyproject.toml declares, and no others."""

import importlib.metadata
import subprocess
import sys
import textwrap

import pytest
from packaging.requirements import Requirement

# Before anything else: what is no dependency cannot be imported.
BLOCKED = textwrap.dedent("""
    import sys
    BLOCKED = frozenset({blocked!r})
    class Walled:
        def __init__(self, finder):
            self.finder = finder
        def find_spec(self, name, *rest):
            return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, *rest)
        def __getattr__(self, name):
            return getattr(self.finder, name)
    sys.meta_path[:] = [Walled(finder) for finder in sys.meta_path]
""")


def normal(name):
    return name.lower().replace("_", "-").replace(".", "-")


def declared(name="stopgrad"):
    """The distributions that are installed with it when no extra is asked for."""
    found, left = set(), [(name, frozenset())]
    while left:
        name, extras = left.pop()
        if (normal(name), extras) in found:
            continue
        found.add((normal(name), extras))
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # For another system or Python.
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                left.append((requirement.name, frozenset(requirement.extras)))
    return {name for name, _ in found}


def blocked():
    """The top-level modules of every installed distribution that is not among them."""
    keep = declared() | {"pip"}
    homes = importlib.metadata.packages_distributions()
    return sorted(
        module for module, names in homes.items()
        if module != "stopgrad" and module.isidentifier() and not {normal(n) for n in names} & keep
    )  # fmt: skip


def run(program, cwd):
    code = BLOCKED.format(blocked=blocked()) + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=540, cwd=cwd)


def test_developers_packages_are_out_of_reach(tmp_path):
    walled = blocked()
    assert {"pytest", "hypothesis", "onnx", "h5py", "wandb"} <= set(walled)
    assert not {"torch", "numpy", "timm", "sklearn", "PIL", "plotly", "tensorboard"} & set(walled)
    assert "No module named 'onnx'" in run("import onnx", tmp_path).stderr


@pytest.mark.slow
def test_the_main_job_needs_no_package_that_is_not_declared(tmp_path):
    done = run(
        """
        sys.argv = ["stopgrad", "pretrain", "--out", "run", "--steps", "4", "--devices", "1", "--device", "cpu"]
        from stopgrad.cli.main import main
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        for command in (
            "check run", "search run --split test --duplicates 0.999 --page found.html", "embed run --out all.parquet",
            "evaluate knn run", "export run --to hub-folder --out hub", "recipes",
        ):
            sys.argv = ["stopgrad", *command.split()]
            try:
                main()
            except SystemExit as end:
                assert not end.code, (command, end.code)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
