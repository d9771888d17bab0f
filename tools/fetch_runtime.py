"""Bring onnxruntime-web, which runs the decoders in the reader's page, into a built site.

It comes from the npm registry (or the one NPM_CONFIG_REGISTRY names), at a pinned version, and is verified by SHA-512
before anything is unpacked. Two files of it are needed, the module and its WebAssembly; they are kept in the cache, so
only the first build needs the network. Where it cannot be had the site is built all the same: the page then says so
and shows its picture. No node is needed.

Only the build for WebAssembly, in one thread: the decoders draw an image in a few milliseconds with it, and several
threads need headers that static hosts do not send. Why not WebGPU, DESIGN.md says.
"""

import base64
import hashlib
import http.client
import io
import json
import os
import ssl
import sys
import tarfile
import urllib.request
from pathlib import Path

from cvae_support.files import cache_folder, write_atomically

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm states it
# Name on the site: name in the package, and the SHA-256 of the file. Every server knows what a .js is.
FILES = {
    "ort.js": (
        "package/dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort.wasm": (
        "package/dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}


def is_there(folder: Path) -> bool:
    """Whether a folder has both files, unaltered."""
    return all(
        (folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for name, (_, digest) in FILES.items()
    )


def download(folder: Path) -> None:
    """Put the two files into folder. Raises OSError if they cannot be had, ValueError if they are others."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry")
    registry = (registry or "https://registry.npmjs.org").rstrip("/")
    address = f"{registry}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    print(f"onnxruntime-web {VERSION}: downloading {address} (33 MB, once)", flush=True)
    import certifi  # here: only a download needs it, and not every environment that tests this file has it

    trusted = ssl.create_default_context()
    trusted.load_verify_locations(certifi.where())  # python.org's Python on a Mac comes without certificates
    with urllib.request.urlopen(address, timeout=60, context=trusted) as answer:
        content = answer.read()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise ValueError("its SHA-512 is not the pinned one")
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for name, (inside, _) in FILES.items():
            write_atomically(folder / name, package.extractfile(inside).read())


def bring_runtime(site: Path) -> bool:
    """Put the runtime into site/assets/live/ort; False, and a word about it, where it cannot be had."""
    cache = cache_folder() / f"onnxruntime-web-{VERSION}"
    target = site / "assets" / "live" / "ort"
    try:
        if not is_there(cache):
            download(cache)
        if not is_there(target):
            for name in FILES:
                write_atomically(target / name, (cache / name).read_bytes())
        # What the page's worker checks its download by.
        facts = {name: {"bytes": (cache / name).stat().st_size, "sha256": FILES[name][1]} for name in FILES}
        write_atomically(target / "ort.json", json.dumps(facts).encode())
        return True
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        print(f"onnxruntime-web {VERSION} cannot be had ({error}): the page will not run the decoder", file=sys.stderr)
        return False
