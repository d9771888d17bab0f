"""Make what the page's live decoder loads, and the picture that stands in its place until then: assets/live/.

python tools/live_assets.py          # after new weights ship
"""

import tempfile
from pathlib import Path

import torch

from cvae_support.data import load_fashion_mnist
from cvae_support.export import FIRST_SEED, export, shipped
from cvae_support.latents import as_picture, class_grid, mosaic

LIVE = Path(__file__).resolve().parents[1] / "assets" / "live"


def draw_still(path: Path = LIVE / "still.webp") -> None:
    """Every class from the z the page starts with: the adaLN model's row above, the spatial model's below."""
    rows = [class_grid(shipped(kind)[0], 1, FIRST_SEED, shared=True).squeeze(1) for kind in ("adaln", "spatial")]
    cells = torch.nn.functional.pad(torch.stack(rows), [0, 1, 0, 1])  # a dark line between neighbours
    as_picture(mosaic(cells)).save(path, lossless=True, quality=100, method=6)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), load_fashion_mnist())
        for file in sorted((Path(folder) / "web").iterdir()):
            (LIVE / file.name).write_bytes(file.read_bytes())
    draw_still()
    for file in sorted(LIVE.iterdir()):
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
