"""Ask for every address that the pages, the documents and the bibliography name; exit 1 if one is gone.

    python tools/check_links.py

Links inside the site are the tests' business. A server that refuses machines (401, 403, 405, 429) is
reported and passes.
"""

import http.client
import re
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("*.md", "*.qmd", "*.bib", "*.cff", "_quarto.yml", ":!tests")
ADDRESS = re.compile(r"https?://[^\s<>\"'`{}\[\]()]+")
# Not there yet, or not made to be visited.
SKIPPED = re.compile(r"_OWNER_|localhost|127\.0\.0\.1|https://download\.pytorch\.org/whl/cpu$")
REFUSALS = (401, 403, 405, 429)


def addresses(text: str) -> set[str]:
    """The addresses in a text, and those that its DOIs and arXiv numbers stand for."""
    found = {match.rstrip(".,;:*") for match in ADDRESS.findall(text)}
    found |= {f"https://doi.org/{doi}" for doi in re.findall(r"\bdoi = \{([^}]+)\}", text)}
    found |= {f"https://arxiv.org/abs/{number}" for number in re.findall(r"\beprint = \{(\d{4}\.\d{4,5})\}", text)}
    return {address for address in found if not SKIPPED.search(address)}


def answer(address: str) -> str:
    """What is wrong with an address, or nothing."""
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return f"refused ({error.code})" if error.code in REFUSALS else f"answers {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be reached: {error}"


def main() -> int:
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = sorted(
        set().union(*(addresses((ROOT / name).read_text(encoding="utf-8")) for name in listed.split("\n")[:-1]))
    )
    with ThreadPoolExecutor(8) as pool:
        wrong = {address: fault for address, fault in zip(found, pool.map(answer, found), strict=True) if fault}
    for address, fault in wrong.items():
        print(f"{address}: {fault}")
    gone = sum(not fault.startswith("refused") for fault in wrong.values())
    print(f"{len(found)} addresses, {gone} gone")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
