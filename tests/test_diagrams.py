"""The hand-made SVGs: accessible, self-contained, legible on a phone and in both themes, and true to the models."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from cvae_support.config import Config
from cvae_support.data import CLASSES
from cvae_support.models import VAE, class_dim

ASSETS = Path(__file__).resolve().parents[1] / "assets"
DIAGRAMS = [*sorted((ASSETS / "diagrams").glob("*.svg")), *sorted(ASSETS.glob("*_thumbnail.svg"))]
SVG = "{http://www.w3.org/2000/svg}"
PHONE = 390  # css pixels: the width of a picture on a phone
each = pytest.mark.parametrize("path", DIAGRAMS, ids=lambda p: p.stem)


def rules(path: Path, dark: bool) -> dict[str, dict[str, str]]:
    """The style sheet as {class or tag: {property: value}}; dark adds what the media query overrides."""
    style = re.sub(r"(?s)/\*.*?\*/", "", ElementTree.parse(path).getroot().find(f"{SVG}style").text)
    light, _, night = style.partition("@media (prefers-color-scheme:dark){")
    found: dict[str, dict[str, str]] = {}
    for part in [light, night] if dark else [light]:
        for names, body in re.findall(r"([^{}]+)\{([^}]*)\}", part):
            pairs = dict(pair.split(":", 1) for pair in body.split(";") if ":" in pair)
            for name in names.split(","):
                found.setdefault(name.strip().lstrip("."), {}).update(pairs)
    return found


def looks(element, sheet: dict, inherited: dict[str, str]) -> dict[str, str]:
    """The properties of an element: inherited, then by tag, by its classes in the order of the sheet, by attribute."""
    classes = (element.get("class") or "").split()
    result = dict(inherited) | sheet.get(element.tag.removeprefix(SVG), {})
    for name, pairs in sheet.items():
        if name in classes:
            result |= pairs
    return result | dict(p.split(":", 1) for p in (element.get("style") or "").split(";") if ":" in p)


def size(sheet_font: str) -> float:
    return float(re.search(r"([\d.]+)px", sheet_font)[1])


def texts(path: Path, dark: bool = False):
    """Every text and tspan with words in it, and how it looks."""
    sheet = rules(path, dark)
    root = ElementTree.parse(path).getroot()
    start = {"font-size": f"{size(sheet['svg']['font'])}px"}
    for text in root.iter(f"{SVG}text"):
        style = looks(text, sheet, start)
        yield text, text.text, style
        for span in text.findall(f"{SVG}tspan"):
            inner = dict(style)
            for name in (span.get("class") or "").split():
                inner |= sheet.get(name, {})
            yield text, span.text, inner


@pytest.mark.parametrize("path", sorted(ASSETS.rglob("*.svg")), ids=lambda p: p.stem)
def test_names_itself_and_needs_nothing_else(path):
    source = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)
    assert root.get("role") == "img"
    named = {part.get("id"): part.text for part in (root.find(f"{SVG}title"), root.find(f"{SVG}desc"))}
    assert all(text and text.strip() for text in named.values())
    assert set(root.get("aria-labelledby").split()) == set(named)
    assert not re.search(r"<script|<foreignObject|\bon\w+=|@import|javascript:", source)
    links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', source)
    assert [a or b for a, b in links if not (a or b).startswith("#")] == []
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    assert {b.lstrip("#") for _, b in links if b} <= set(ids)  # every marker and pattern is there
    assert len(source.encode()) < 40_000


@each
def test_follows_the_theme_and_the_wish_for_stillness(path):
    source = path.read_text(encoding="utf-8")
    assert re.search(r"@media \(prefers-color-scheme:\s*dark\)", source)
    if re.search(r"@keyframes|animation|transition|<animate|<set\b", source):
        assert re.search(r"@media \(prefers-reduced-motion", source)
    light, dark = rules(path, False), rules(path, True)
    coloured = [n for n, pairs in light.items() if re.search(r"#[0-9a-f]{6}", " ".join(pairs.values()))]
    assert [n for n in coloured if dark[n] == light[n]] == []  # every colour has its dark counterpart


@each
def test_text_can_be_read_on_a_phone(path):
    width = float(ElementTree.parse(path).getroot().get("viewBox").split()[2])
    small = [
        (words, style["font-size"]) for _, words, style in texts(path) if size(style["font-size"]) * PHONE / width < 11
    ]
    assert small == []


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@each
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(path, dark):
    """Against the last filled rectangle that lies under the text's anchor."""
    sheet = rules(path, dark)
    order = list(ElementTree.parse(path).getroot().iter())
    boxes = []
    for place, element in enumerate(order):
        fill = looks(element, sheet, {}).get("fill", "none")
        if element.tag == f"{SVG}rect" and fill.startswith("#") and not element.get("transform"):
            boxes.append((place, *(float(element.get(k)) for k in ("x", "y", "width", "height")), fill))
    positions = [(float(e.get("x")), float(e.get("y")) - 5) for e in order if e.tag == f"{SVG}text"]
    where = [i for i, e in enumerate(order) if e.tag == f"{SVG}text"]
    shown = {}
    for text, words, style in texts(path, dark):
        shown.setdefault(id(text), (len(shown), []))[1].append((words, style["fill"]))
    low = []
    for number, pieces in shown.values():
        (x, y), after = positions[number], where[number]
        behind = [f for p, bx, by, w, h, f in boxes if p < after and bx <= x <= bx + w and by <= y <= by + h]
        for words, colour in pieces:
            a, b = sorted((luminance(colour), luminance(behind[-1])))
            if (b + 0.05) / (a + 0.05) < 4.5:
                low.append((words, colour, behind[-1]))
    assert low == []


@each
def test_words_of_the_code_are_spelled_as_in_the_code(path):
    assert not re.search(r"initialis|normalis", path.read_text(encoding="utf-8"))


SHAPE = r"\d+×\d+×\d+"
LATENT = "1×7×7"


def written(shape) -> str:
    """A shape without its batch, as the diagrams write it."""
    return "×".join(map(str, shape[1:]))


def flow(model: VAE, layers) -> list[str]:
    """The shapes that enter and leave the layers, in order, each change once."""
    shapes: list[str] = []
    hooks = [layer.register_forward_hook(lambda _, given, out: shapes.extend((given[0], out))) for layer in layers]
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28), torch.tensor([0]))
    for hook in hooks:
        hook.remove()
    return changes([written(part.shape) for part in shapes])


def changes(shapes: list[str]) -> list[str]:
    return [shape for i, shape in enumerate(shapes) if i == 0 or shape != shapes[i - 1]]


def encoder_flow(model: VAE) -> list[str]:
    return flow(model, [*model.encoder.trunk, model.encoder.to_latent])


def decoder_flow(model: VAE) -> list[str]:
    return flow(model, model.decoder.trunk)


def words_of(name: str) -> list[str]:
    """Every text of a diagram, in the order in which it is drawn: that of the data."""
    root = ElementTree.parse(ASSETS / "diagrams" / f"{name}.svg").getroot()
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def drawn_flow(name: str) -> list[str]:
    """The shapes along the main line of a diagram: latents and class maps, which are alike, stand beside it."""
    shapes = re.findall(SHAPE, " ".join(words_of(name)))
    return changes([shape for shape in shapes if shape != LATENT])


def test_the_map_of_both_networks_has_the_models_shapes():
    drawn = set(re.findall(SHAPE, " ".join(words_of("networks"))))
    shapes = {
        name: {*encoder_flow(VAE(Config(name))), *decoder_flow(VAE(Config(name)))} for name in ("spatial", "adaln")
    }
    assert drawn == shapes["spatial"] | {LATENT}  # and z, mu, log var
    assert shapes["adaln"] <= drawn


def test_concatenation_is_drawn_with_the_shapes_of_the_spatial_model():
    model = VAE(Config("spatial"))
    mu, _ = model.encode(torch.zeros(1, 1, 28, 28), torch.tensor([0]))
    maps = [embed(torch.tensor([0])) for embed in (model.encoder.embed, model.decoder.embed)]
    assert {written(part.shape) for part in (mu, *maps)} == {LATENT}
    encoder, decoder = encoder_flow(model), decoder_flow(model)
    assert drawn_flow("concat_encoder") == encoder
    assert drawn_flow("concat_decoder") == decoder
    # The whole model has but the ends of both, and the two places where a class map joins.
    assert drawn_flow("concat_overall") == [encoder[0], *encoder[-3:-1], decoder[0], decoder[-1]]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_concatenation_is_drawn_with_the_layers_of_the_spatial_model(part):
    trunk = getattr(VAE(Config("spatial")), part).trunk
    kinds = [type(layer).__name__ for layer in trunk]
    drawn = " ".join(words_of(f"concat_{part}"))
    assert sum(map(int, re.findall(r"(\d) residual blocks", drawn))) == kinds.count("ResnetBlock")
    assert drawn.count("attention between") == kinds.count("SelfAttention")
    assert drawn.count("Upsample") == kinds.count("Upsample")
    assert drawn.count("stride 2") == sum(getattr(layer, "stride", 1) == (2, 2) for layer in trunk)


def test_the_class_map_is_drawn_with_the_sizes_and_names_of_the_models():
    words = words_of("class_map")
    embed = VAE(Config("spatial")).decoder.embed
    rows, numbers = embed.embedding.weight.shape
    assert f"Embedding table, {rows} × {numbers}" in words
    assert [word for word in words if word in CLASSES] == list(CLASSES)
    row = int(re.search(r"y = (\d)", " ".join(words))[1])
    assert f"row {row} (the first is 0): {numbers} numbers" in words
    source = ElementTree.parse(ASSETS / "diagrams" / "class_map.svg").getroot()
    marked = [text.text for text in source.iter(f"{SVG}text") if text.text in CLASSES and "iy" in text.get("class")]
    assert marked == [CLASSES[row]]
    assert re.findall(SHAPE, " ".join(words)) == [written(embed(torch.tensor([row])).shape)]


def test_the_adaln_block_is_drawn_with_the_length_of_the_class_vector():
    assert re.findall(r"(\d+)-d\b", " ".join(words_of("adaln_block"))) == [str(class_dim(Config("adaln")))]


@each
def test_a_description_has_no_shape_that_the_picture_lacks(path):
    root = ElementTree.parse(path).getroot()
    drawn = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert set(re.findall(SHAPE, root.find(f"{SVG}desc").text)) <= set(re.findall(SHAPE, drawn))
