"""What is installed, in an image say, is all of it: not only where the sources are."""

import shutil
import subprocess
import sys
import zipfile


def test_a_wheel_has_every_file(deploy, tmp_path):
    """A wheel has every file of the packages: modules, templates, checklists, the page."""
    root, source = deploy.parent, tmp_path / "source"
    without = shutil.ignore_patterns("__pycache__")
    for name in ("medvision", "pipelines"):
        shutil.copytree(root / name, source / name, ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    files = {path.relative_to(source).as_posix() for path in source.glob("*/**/*") if path.is_file()}
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run([*build, "--wheel-dir", tmp_path], cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert files - set(zipfile.ZipFile(wheel).namelist()) == set()
