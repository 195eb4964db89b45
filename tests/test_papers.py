"""What README and docs tell people to type and to ask for is what there is."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = {f"-m {target.split(':')[0]}": name for name, target in COMMANDS.items()}


def lines(page):
    """The commands in the code of a page: with their name first, without comments, continued lines joined."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    code = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
    for line in code:
        for module, name in MODULES.items():
            line = line.replace(f"python {module}", name).replace(f"torchrun {module}", name)
        if found := re.search(rf"(?<![\w/.-])({'|'.join(COMMANDS)})(?![\w-])(.*)", line):
            yield found[1], found[2].split(" # ")[0].split("| ")[0]


def help_of(command, words, capsys):
    module, function = COMMANDS[command].split(":")
    with pytest.raises(SystemExit) as ended:
        getattr(import_module(module), function)([*words, "--help"])
    assert ended.value.code == 0, f"{command} {' '.join(words)}"
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_a_page_gives_them(page, capsys):
    helps = {}
    for command, rest in lines(page):
        try:
            words = shlex.split(rest)
        except ValueError:  # a placeholder that no shell would take
            words = rest.split()
        options = {word.split("=")[0].rstrip(".,;:)") for word in words if re.fullmatch(r"--[a-z][\w-]*.*", word)}
        subcommands = []
        while True:
            key = (command, *subcommands)
            if key not in helps:
                helps[key] = help_of(command, subcommands, capsys)
            here = words[len(subcommands) : len(subcommands) + 1]
            if " ..." not in helps[key].split("\n\n")[0] or not here or not re.fullmatch("[a-z]+", here[0]):
                break
            subcommands += here
        for option in options - {"--help"}:
            assert re.search(rf"{option}(?![\w-])", helps[key]), f"{page.name}: {' '.join(key)} has no {option}"
