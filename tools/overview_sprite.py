"""Draw the samples of the overview figure: one greyscale picture, a row for each class.

    python tools/overview_sprite.py

They are those of the page's adaLN model, the first that the seed gives, and every z is another one: nothing is
selected. The figure's script (assets/overview.js) and its style (assets/overview.css) show parts of this picture and
count on COLUMNS.
"""

from pathlib import Path

from cvae_support.checkpoints import SHIPPED_FOLDER, load_model
from cvae_support.latents import as_picture, class_grid, mosaic
from cvae_support.models import VAE
from cvae_support.study import FULL_WIDTH

SPRITE = Path(__file__).resolve().parents[1] / "assets" / "overview_sprite.png"
PAGES_OWN = SHIPPED_FOLDER / f"{FULL_WIDTH['adaLN, full width'].name}.json"
COLUMNS = 24  # samples of each class
SEED = 7


def draw_sprite(model: VAE, path: Path = SPRITE) -> None:
    """Write COLUMNS samples of every class, z from N(0, I), as one picture with the classes in rows."""
    as_picture(mosaic(class_grid(model, COLUMNS, SEED))).save(path, optimize=True)


def main() -> None:
    draw_sprite(load_model(PAGES_OWN)[0])
    print(f"{SPRITE.name}: {SPRITE.stat().st_size / 1024:.0f} KiB, from {PAGES_OWN.name}")


if __name__ == "__main__":
    main()
