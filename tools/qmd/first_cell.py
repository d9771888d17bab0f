# @title Get the tutorial's code (does nothing where it is installed already)
import importlib
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = os.environ.get("CVAE_REPOSITORY", "<address>")
NEEDED = dict[str, str]()  # name on PyPI: name in an import


def run(aim, *command, hint=""):
    """Run a command; if it fails, say what was wanted and what it said."""
    try:
        silent = os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # a wrong address is an error, not a question for a password
        subprocess.run(command, check=True, capture_output=True, text=True, env=silent)
    except FileNotFoundError:
        raise RuntimeError(f"could not {aim}: {command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"could not {aim}: {(error.stderr or error.stdout).strip()} {hint}") from None


# Only what is not there: a second torch would take minutes and might not fit the machine's driver.
missing = [name for name, module in NEEDED.items() if not find_spec(module)]
if find_spec("cvae_support") and not missing:
    print("cvae_support is installed: nothing to do.")
else:
    # Opened in a clone or an unpacked archive, it takes what lies there. Else a clone, always a new one: whole.
    around = () if "CVAE_REPOSITORY" in os.environ else (Path.cwd(), *Path.cwd().parents)
    checkout = next((path for path in around if (path / "cvae_support" / "__init__.py").is_file()), None)
    source = checkout or Path(tempfile.mkdtemp()) / "cvae-tutorial"
    if not checkout:
        hint = "\nSet CVAE_REPOSITORY to an address that works."
        run(f"clone {REPOSITORY}", "git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(source), hint=hint)
    pip = (sys.executable, "-m", "pip", "install", "--quiet")
    if missing:
        run(f"install {', '.join(missing)}", *pip, *missing)
    # With a setuptools at hand that can make wheels, the build need not fetch one.
    can_build = find_spec("setuptools") and find_spec("setuptools.command.bdist_wheel")
    offline = ["--no-build-isolation"] if can_build else []
    run("install the tutorial's package", *pip, "--no-deps", *offline, str(source))
    importlib.invalidate_caches()
    if not find_spec("cvae_support"):
        raise RuntimeError("cvae_support is installed, but this kernel can't see it yet: restart it and run this again")
    print(f"cvae_support installed from {checkout or REPOSITORY}")
