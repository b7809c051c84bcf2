"""The surface of `shoal`: few names, sorted, each explained, each at home in `shoal`; and a light import."""

import importlib.metadata
import inspect
import subprocess
import sys
import types

import shoal

#: House rule 23.
MOST_NAMES = 40
#: What the first programs need; more may be public, these must be.
NEEDED = {
    "ObjectRef", "get", "get_actor", "init", "is_initialized", "kill", "put", "remote", "shutdown", "wait",
}  # fmt: skip
#: Costly or optional libraries that nobody pays for who only writes `import shoal`.
NEVER_AT_IMPORT = ("torch", "gymnasium", "tensorboardX", "matplotlib", "aiohttp", "ray", "rich", "tyro")


def test_all_is_sorted_small_and_has_what_programs_need():
    assert list(shoal.__all__) == sorted(shoal.__all__)
    assert len(set(shoal.__all__)) == len(shoal.__all__) <= MOST_NAMES
    assert set(shoal.__all__) >= NEEDED


def test_every_public_name_exists_and_nothing_else_shows():
    assert [name for name in shoal.__all__ if not hasattr(shoal, name)] == []
    shown = {
        name
        for name, value in vars(shoal).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert shown - set(shoal.__all__) == set()


def test_every_public_function_and_class_has_a_docstring():
    explained = (inspect.isclass, inspect.isroutine, inspect.ismodule)
    public = {name: getattr(shoal, name) for name in shoal.__all__}
    silent = [n for n, v in public.items() if any(kind(v) for kind in explained) and not inspect.getdoc(v)]
    assert silent == []


def test_tracebacks_and_reprs_say_shoal_not_where_it_is_kept():
    elsewhere = {
        name: value.__module__
        for name in shoal.__all__
        if inspect.isclass(value := getattr(shoal, name)) or inspect.isfunction(value)
        if value.__module__ != "shoal"
    }
    assert elsewhere == {}


def test_the_version_is_the_installed_one():
    assert shoal.__version__ == importlib.metadata.version("shoal")


def test_the_core_comes_with_the_first_name_that_is_used():
    code = "import sys, shoal; print('shoal.core.api' in sys.modules, shoal.ObjectRef, 'shoal.core.api' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout == "False <class 'shoal.ObjectRef'> True\n"


def test_import_shoal_is_light():
    code = f"import sys, shoal; shoal.init; print([name for name in {NEVER_AT_IMPORT} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"
