"""What holds for the project as a whole: floors, imports, versions, help texts, the README."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bltdata
import bltdata.cli
import bltmodel
import bltmodel.cli
import pipelines.cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {"bltdata": bltdata.cli, "bltmodel": bltmodel.cli}
COMMANDS = [(program, name) for program, module in GROUPS.items() for name in module.COMMANDS]
HEAVY = ("torch", "pyarrow", "polars", "datasets", "pandas", "matplotlib", "numba", "transformers", "ray", "loky")


def imported_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def help_of(program: str, name: str) -> str:
    result = CliRunner().invoke(GROUPS[program].main, [name, "-h"])
    assert result.exit_code == 0, result.output
    return result.output


def test_imports_keep_to_the_floors():
    check = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["bltdata", "bltmodel", "bltdata.config", "bltdata.cli", "bltmodel.cli"])
def test_importing_costs_nothing(module):
    assert imported_by(f"import {module}").isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["bltdata.corpus", "bltdata.patching", "bltdata.shards", "bltdata.stats"])
def test_data_needs_no_torch(module):
    assert "torch" not in imported_by(f"import {module}")


def test_using_a_public_name_brings_only_what_it_needs():
    assert "torch" not in imported_by("import bltdata; bltdata.open_corpus, bltdata.PatchRule, bltdata.patch, bltdata.open_shards")


@pytest.mark.parametrize("package", [bltdata, bltmodel])
def test_public_names_exist(package):
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("program", GROUPS)
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_are_instant(program, arguments):
    code = f"from {program}.cli import main; main({arguments!r}, standalone_mode=False)"
    assert imported_by(code).isdisjoint({*HEAVY, "numpy", "rich"})


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_speaks_the_language_of_options(program, name):
    # An option takes `none`, and TOML has no value of that name: `None` is Python's.
    assert not re.search(r"\bNone\b", help_of(program, name))
    # A folder is a folder, in every command.
    assert not re.search(r"\bDIR\b", help_of(program, name))


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_of_a_command_is_instant(program, name):
    code = f"from {program}.cli import main; main([{name!r}, '--help'], standalone_mode=False)"
    assert imported_by(code).isdisjoint(set(HEAVY) - {"numba"})


def test_versions_agree():
    assert PROJECT["project"]["version"] == bltdata.__version__ == bltmodel.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in changelog or f"## {bltdata.__version__}" in changelog


def test_constraints_pin_every_dependency_exactly():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted} - {"blt-toolkit"}
    assert names <= pinned
    assert "torch==2.13.0" in pins


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_command_has_help_and_an_example(program, name):
    lazy = GROUPS[program].COMMANDS[name]
    loaded = lazy.load()
    assert loaded.name == name
    assert loaded.help.strip().splitlines()[0] == lazy.help
    assert all(option.help for option in loaded.params if isinstance(option, click.Option))
    shown = help_of(program, name)
    assert f"Example:\n  {program} {name}" in shown
    assert "--debug" in shown


def test_help_says_of_every_command_that_resumes_that_it_does():
    commands = [GROUPS[program].COMMANDS[name].load() for program, name in COMMANDS]
    resuming = [loaded.name for loaded in commands if loaded.resumes]
    assert resuming == [loaded.name for loaded in commands if "again to go on after a stop" in " ".join(loaded.help.split())]
    assert resuming == ["train-entropy-model", "build-shards", "repatch", "convert", "train"]
    assert pipelines.cli.main.resumes


@pytest.mark.parametrize("program", GROUPS)
def test_list_of_commands(program):
    result = CliRunner().invoke(GROUPS[program].main, ["--help"])
    assert result.exit_code == 0
    for name, lazy in GROUPS[program].COMMANDS.items():
        assert name in result.output
        assert lazy.help in " ".join(result.output.split())


@pytest.mark.parametrize("program", GROUPS)
def test_version_option(program):
    result = CliRunner().invoke(GROUPS[program].main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"{program} {bltdata.__version__}\n")


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_readme_shows_every_command(program, name):
    assert f"{program} {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_of_the_guides_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_leads_to_every_guide():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in GUIDES[1:] if f"](docs/{path.name})" not in readme] == []


def command_lines() -> list[str]:
    """The command lines of the README and of `docs`, each in one line."""
    blocks = [block for path in GUIDES for block in re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    return [found[0] for line in lines if (found := re.search(r"\b(?:bltdata|bltmodel) [a-z-]+ [^\"]*", line))]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_the_guides_have_an_example_of_every_command(program, name):
    assert any(line.startswith(f"{program} {name} ") for line in command_lines())


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_of_the_guides_can_be_given(line):
    program, name, *arguments = shlex.split(line)
    with GROUPS[program].COMMANDS[name].load().make_context(name, arguments) as ctx:
        assert ctx.params


@pytest.mark.parametrize("package", ["bltdata", "bltmodel"])
def test_the_tour_of_the_code_is_complete(package):
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = [path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__"]
    folders = [f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")]
    assert [name for name in files + folders if f"`{name}`" not in tour] == []


def test_no_file_names_a_place_on_somebodys_machine():
    suspicious = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp)/\w+|\.\./shared|file:///")
    texts = [path for pattern in ("*.toml", "*.txt", "*.md", "docs/*.md", "Makefile") for path in ROOT.glob(pattern)]
    for package in ("bltdata", "bltmodel", "pipelines", "benchmarks", "notebooks"):
        texts += [path for suffix in ("py", "toml", "md") for path in (ROOT / package).rglob(f"*.{suffix}")]
    found = [f"{path.relative_to(ROOT)}: {hit[0]}" for path in texts for hit in suspicious.finditer(path.read_text(encoding="utf-8"))]
    assert not found


def test_cores_are_counted_in_one_place():
    """A container may have two of a machine's 64, and who counts anew forgets that."""
    files = [path for package in ("bltdata", "bltmodel", "pipelines") for path in (ROOT / package).rglob("*.py")]
    asking = [path for path in files if re.search(r"\b(cpu_count|sched_getaffinity)\b", path.read_text(encoding="utf-8"))]
    assert asking == [ROOT / "bltdata" / "usage.py"]
