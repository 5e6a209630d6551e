"""The rules of the house (CONTRIBUTING.md) as far as a machine can hold them: less for a review to look for."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "agent").rglob("*.py"), *(ROOT / "drivers").rglob("*.py")])

LAYERS = [
    ["events"],
    ["errors", "quantity", "logline", "ranges", "lazily"],
    ["model"],
    ["clock"],
    [
        "framing",
        "codec",
        "edges",
        "recording",
        "recognise",
        "fields",
        "modbus",
        "obis",
        "sml",
        "dsmr",
        "iec62056",
        "nmea",
        "outputs",
        "rules",
        "tally",
    ],
    ["fleet_document", "fleet_settings", "requests_settings"],
    ["outbox", "ports", "mqtt", "page_settings", "hotplug", "sysfs", "machine", "heap", "fleet_state"],
    ["driver", "parsing", "homeassistant"],
    ["registry", "config", "fleet_layers"],
    ["supervisor", "device", "context"],
    ["publisher", "commands"],
    [
        "status",
        "systemd",
        "log",
        "control",
        "page",
        "plan",
        "reload",
        "info",
        "stopping",
        "fleet",
        "certificate",
        "requests",
    ],
    ["testing"],
    ["app"],
    ["demo", "simulate"],
    ["cli", "__main__"],
]
"""From the ground up: a module imports from its own layer and those below. ``mqtt`` stands for ``mqtt_*`` too."""

BROAD = {
    "a callback": {"agent/events", "agent/device.py"},  # the event manager's, and a driver's own start and stop
    "a worker's job": {"agent/events", "agent/testing/context.py", "agent/outbox_writer.py", "agent/parsing_child.py"},
    "plugin loading": {"agent/registry.py"},
    "main": {"agent/cli.py", "agent/app.py"},
}
"""Where an ``except Exception`` may stand: code that is not ours runs there, and its failure must end nothing else."""

MAY_BLOCK = {"agent/events", "agent/testing", "agent/mqtt_connect.py", "agent/parsing.py", "agent/parsing_child.py"}
"""Where threads, their locks and waiting may stand: the pool itself, a test's way of waiting for a condition, and an
attempt to connect, which the loop must be able to call back from the worker that makes it, and a worker that waits for
a parser in another process."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def inside(path: Path, places: set[str]) -> bool:
    name = relative(path)
    return any(name == place or name.startswith(f"{place}/") for place in places)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_types_only(module: ast.Module) -> set[ast.AST]:
    """What stands under ``if TYPE_CHECKING``: names for the type checker, which nobody imports at run time."""
    return {
        node
        for block in ast.walk(module)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[tuple[int, str]]:
    """Each import of path, absolute, wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    module_tree = tree(path)
    left_out = for_types_only(module_tree) if at_run_time else set()
    for node in ast.walk(module_tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            if module in ("agent", "drivers"):  # "from agent import events" imports agent.events
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Each dotted name in path ("time.sleep"), with what ``from time import sleep as nap`` renames told back."""
    module = tree(path)
    renamed: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                renamed[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                renamed[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )

    def dotted(node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return renamed.get(node.id)
        if isinstance(node, ast.Attribute):
            base = dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return None

    for node in ast.walk(module):
        if isinstance(node, (ast.Name, ast.Attribute)) and (name := dotted(node)):
            yield node.lineno, name


def layer_of(module: str) -> int:
    word = module.split(".")[1]
    for index, layer in enumerate(LAYERS):
        if any(word == name or word.startswith(f"{name}_") for name in layer):
            return index
    pytest.fail(f"{module} stands in no layer: give it a place in LAYERS and in docs/architecture.md")


# ---- layers


@pytest.mark.parametrize("path", [p for p in SOURCES if module_name(p).startswith("agent.")], ids=relative)
def test_imports_go_down(path: Path) -> None:
    own = module_name(path)
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for line, module in imports(path)
        if module.startswith("agent.") and module != "agent.__version__" and layer_of(module) > layer_of(own)
    ]
    assert not wrong, "imports go from a later layer to an earlier one only:\n" + "\n".join(wrong)


def test_no_import_cycle() -> None:
    known = {module_name(path): path for path in SOURCES}
    graph = {
        module: {found for _, found in imports(path, at_run_time=True) if found in known and found != module}
        for module, path in known.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "import cycle: " + " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", [p for p in SOURCES if inside(p, {"agent/events"})], ids=relative)
def test_the_event_manager_is_a_library_of_its_own(path: Path) -> None:
    foreign = [
        f"{relative(path)}:{line} imports {module}"
        for line, module in imports(path)
        if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("agent.events")
    ]
    assert not foreign, "agent.events imports the standard library alone:\n" + "\n".join(foreign)


@pytest.mark.parametrize("path", [p for p in SOURCES if module_name(p).startswith("drivers.")], ids=relative)
def test_a_driver_imports_the_contract_alone(path: Path) -> None:
    allowed = {
        "agent.driver",
        "agent.driver_child",
        "agent.driver_chips",
        "agent.driver_frames",
        "agent.driver_gpio",
        "agent.driver_gpio_lines",
        "agent.driver_lines",
        "agent.driver_modbus",
        "agent.driver_parts",
        "agent.driver_readout",
        "agent.driver_sleeper",
        "agent.driver_socket",
        "agent.driver_worker",
        "agent.dsmr",
        "agent.edges",
        "agent.fields",
        "agent.fields_binary",
        "agent.fields_text",
        "agent.framing",
        "agent.framing_check",
        "agent.framing_frames",
        "agent.framing_packets",
        "agent.model",
        "agent.iec62056",
        "agent.machine",
        "agent.modbus",
        "agent.modbus_bus",
        "agent.modbus_pdu",
        "agent.nmea",
        "agent.obis",
        "agent.ports_child",
        "agent.ports_opening",
        "agent.ports_socket",
        "agent.ports_tail",
        "agent.sysfs_chips",
        "agent.sysfs_hwmon",
        "agent.sysfs_iio",
        "agent.sysfs_w1",
        "agent.quantity",
        "agent.sml",
    }
    wrong = [
        f"{relative(path)}:{line} imports {module}"
        for line, module in imports(path)
        if (module.startswith("agent") and module not in allowed) or module.startswith("drivers")
    ]
    assert not wrong, f"a driver imports of us only {', '.join(sorted(allowed))}, and no other driver:\n" + "\n".join(
        wrong
    )


def test_run_imports_nothing_that_draws() -> None:
    """`outstation run` serves for years: it does not carry what only `demo` and people at a terminal need."""
    # The demo's extra, what draws, and the heavy modules of the standard library that one import would drag in.
    heavy = {
        "h11",
        "prometheus_client",
        "psutil",
        "rich",
        "pygments",
        "iotcore",
        "markdown_it",
        "pytest",
        "hypothesis",
        "asyncio",
        "unittest",
        "tkinter",
        "curses",
        "http.server",
        "cryptography",
        "agent.fleet",
        "agent.fleet_layers",
    }
    code = "import agent.cli, agent.app, drivers.lines, drivers.host, sys; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(result.stdout.split())
    assert not heavy & loaded
    # What other commands are made of: each costs milliseconds until the first reading.
    assert not {name for name in loaded if name.startswith("agent.cli_")} - {"agent.cli_config"}
    others = {"agent.plan", "agent.tally", "agent.ranges", "agent.outbox_reader"}
    assert not (others | {"agent.testing", "agent.demo", "agent.simulate"}) & loaded


# ---- size and manners


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 400, "split it where its two halves know least of each other"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_hidden_time_and_no_waiting(path: Path) -> None:
    wrong = []
    for line, name in names(path):
        if (
            name in ("time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow")
            and path.name != "clock.py"
        ):
            wrong.append(f"{relative(path)}:{line}: {name}: wall time is agent/clock.py's alone")
        if name == "time.sleep" and not inside(path, {"agent/testing"}):
            wrong.append(f"{relative(path)}:{line}: time.sleep: never sleep, ask for a timer")
        if name.split(".")[0] in ("threading", "_thread", "concurrent", "multiprocessing", "asyncio") and not inside(
            path, MAY_BLOCK
        ):
            wrong.append(f"{relative(path)}:{line}: {name}: threads are the event manager's; use execute_work")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_exceptions_are_caught_narrowly(path: Path) -> None:
    def broad(kind: ast.expr | None) -> bool:
        if isinstance(kind, ast.Tuple):
            return any(broad(one) for one in kind.elts)
        return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))

    def cleans_up(handler: ast.ExceptHandler) -> bool:
        """Ends in a bare ``raise``: it tidies up and catches nothing."""
        return isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None

    found = [
        f"{relative(path)}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and broad(node.type) and not cleans_up(node)
    ]
    allowed = set().union(*BROAD.values())
    assert inside(path, allowed) or not found, f"broad `except` outside {', '.join(BROAD)}: {found}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py"], ids=relative)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "a module begins with what it is for"


# ---- drivers


@pytest.mark.parametrize("path", [p for p in SOURCES if module_name(p).startswith("drivers.")], ids=relative)
def test_a_driver_is_read_at_one_sitting(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 150, "what has a meaning or a life of its own is a module below it (docs/decisions/068)"


def entry_points() -> dict[str, str]:
    found: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "outstation.drivers"
    ]
    return found


def test_every_driver_file_is_registered() -> None:
    registered = {target.partition(":")[0].removeprefix("drivers.") for target in entry_points().values()}
    files = {path.stem for path in (ROOT / "drivers").glob("*.py") if not path.name.startswith("_")}
    assert registered == files


@pytest.mark.parametrize("name", sorted(entry_points()))
def test_every_driver_has_a_sample_and_golden_cases(name: str) -> None:
    module = entry_points()[name].partition(":")[0].replace(".", "/")
    text = ast.get_docstring(ast.parse((ROOT / f"{module}.py").read_text())) or ""
    assert "[[device]]" in text, "the docstring of a driver ends with a sample of its TOML (docs/drivers.md)"
    assert f'driver = "{name}"' in text
    if name not in ("host", "hwmon", "iio"):  # they read no bytes: nothing to replay
        cases = ROOT / "tests" / "cases" / name
        assert any(cases.glob("*/expected.jsonl")), f"no golden case in {relative(cases)}"


# ---- what is in the tree, and what goes out


def tracked() -> list[Path]:
    try:
        out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in out.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_index_and_no_machine_is_named() -> None:
    """Pins hold with any index, and files on any machine. (Spelt so that this file passes too.)"""
    forbidden = [
        re.compile(rb"pypi" + rb"\.(org|io)|python" + rb"hosted|npm" + rb"js\.org|deb\." + rb"debian\.org", re.I),
        re.compile(rb"--(extra-)?index" + rb"-url|--find" + rb"-links"),
        re.compile(rb"/ho" + rb"me/(?!pi/)[a-z]+/|/ro" + rb"ot/|/wo" + rb"rk/"),
        re.compile(rb"BEGIN [A-Z ]*PRIVATE" + rb" KEY"),
    ]
    wrong = [
        f"{relative(path)}: {match.group().decode()}"
        for path in tracked()
        for pattern in forbidden
        if (match := pattern.search(path.read_bytes()))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "name", ["requirements.txt", *(f"requirements-{set_}.txt" for set_ in ("build", "dev", "audit"))]
)
def test_every_pin_has_its_hashes(name: str) -> None:
    entries = [block for block in (ROOT / name).read_text().replace("\\\n", " ").splitlines() if block.strip()]
    loose = [entry for entry in entries if not re.match(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)]
    assert entries
    assert not loose


def test_the_pins_agree_and_cover_what_is_declared() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["demo"]]
    words = {re.split(r"[^A-Za-z0-9._-]", item)[0].lower().replace("_", "-") for item in declared}
    runtime, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert words <= runtime.keys(), "declared and not pinned: run `make pins`"
    for name, pinned in (("requirements.txt", runtime), ("requirements-build.txt", pins("requirements-build.txt"))):
        assert pinned.items() <= dev.items(), f"{name} and requirements-dev.txt differ: run `make pins`"


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside_wheel = set(archive.namelist())
    sources = {relative(path) for path in SOURCES} | {"agent/py.typed", "drivers/py.typed"}
    assert sources <= inside_wheel
    extra = {name for name in inside_wheel - sources if ".dist-info/" not in name}
    assert not {name for name in extra if not name.startswith(("agent/", "drivers/"))}
    assert not {name for name in extra if name.endswith((".pyc", ".db", ".log"))}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside_wheel)
