"""The decoders outside Python: ONNX files, and what a page needs beside them to draw with them.

`export` writes the decoders of the small conditional models that ship and the judge in float32, with the table of
class embeddings, and in FOLDER/web what the page loads: the same in half precision, and live.json. Half precision
costs nothing here: the shipped weights are stored in it already.

The encoders are not among them. The page redraws thirty test garments, three of each class, whose codes are computed
here and lie in live.json: 70 KB, where the encoders would double the models' download for the same pictures.
"""

import base64
import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cvae_support.checkpoints import SHIPPED_FOLDER, load_model
from cvae_support.config import Config
from cvae_support.data import CLASSES, Dataset
from cvae_support.files import write_atomically
from cvae_support.judge import load_judge
from cvae_support.latents import encode_means, first_per_class, noise
from cvae_support.metrics import ACTIVE
from cvae_support.models import VAE

if TYPE_CHECKING:  # imported where they are used: only this module needs them
    import onnx

DECODERS = ("spatial", "adaln")
FIRST_SEED = 2  # of the z the page starts with
DRAWN = 1000  # images by which a file is compared with torch
GARMENTS = 3  # of each class, to redraw
SMALL = 64  # arrays with fewer numbers stay in float32: shapes and scalars, and little would be saved


def shipped(kind: str) -> tuple[VAE, dict[str, Any]]:
    """The small model of a kind, "spatial" or "adaln", and its record: one that a phone draws with in no time."""
    return load_model(SHIPPED_FOLDER / f"{Config(kind, width=0.25, recipe='muon').name}.json")


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], output: str, optimize: bool = True) -> "onnx.ModelProto":
    """The module as an ONNX model with named inputs and output, each (B, ...) with any B.

    The optimizer makes the graph smaller. It also multiplies the weights of a convolution by the factors of the batch
    norm that follows, which leaves numbers that half precision does not have: not for what is to be stored in it.
    """
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=tuple({0: batch} for _ in inputs))
        exported = torch.onnx.export(
            program, (), input_names=list(inputs), output_names=[output], optimize=optimize, verbose=False
        )
    model = exported.model_proto
    # Where each node came from fills a third of the file, and tells a reader nothing.
    for part in (model, model.graph, *model.graph.node):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model


def in_half(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model with its weights stored in half precision; it computes in float32 as before."""
    import onnx
    from onnx import numpy_helper

    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for weight in half.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == "float32" and values.size >= SMALL:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *half.graph.node]
    half.graph.ClearField("node")
    half.graph.node.extend(nodes)
    return half


def run(content: bytes, **inputs: Tensor) -> Tensor:
    """What onnxruntime makes of the inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@torch.no_grad()
def compared(model: VAE, judge: nn.Module, decoder: bytes, drawn: int = DRAWN) -> dict[str, float]:
    """A decoder file against torch on so many images, z from N(0, I), classes in turn: pixels, and judge's readings."""
    z = noise(model, drawn, seed=0)
    cond = model.embed(torch.arange(drawn) % model.config.num_classes)
    ours, theirs = model.decode(z, cond), run(decoder, z=z, cond=cond)
    apart = (ours - theirs).abs()
    agree = (judge(ours).argmax(dim=1) == judge(theirs).argmax(dim=1)).float().mean()
    return {
        "max_pixel_difference": apart.max().item(),
        "mean_pixel_difference": apart.mean().item(),
        "judge_agreement": agree.item(),
    }


def numbers(values: Tensor) -> list:
    """As JSON has them, with the seven digits float32 has."""
    return [numbers(row) for row in values] if values.ndim > 1 else [float(f"{v:.7g}") for v in values.tolist()]


@torch.no_grad()
def export(folder: Path, data: Dataset) -> dict[str, Any]:
    """Write folder/{spatial,adaln,judge}.onnx in float32 and classes.json; in folder/web half precision and live.json.

    A decoder takes z (B, 1, 7, 7) and cond, the class embedding ((B, 1, 7, 7) spatial, (B, 32) adaLN), and gives image
    (B, 1, 28, 28); the judge takes image and gives logits (B, 10). classes.json has the names of the classes, and for
    each decoder the shape of cond and its row for every class. Returns what live.json says: classes, class
    embeddings, variance and order of the active latents, test garments with their codes, sizes and hashes.
    """

    def write(name: str, model: "onnx.ModelProto") -> tuple[bytes, dict[str, Any]]:
        content = in_half(model).SerializeToString(deterministic=True)
        write_atomically(folder / f"{name}.onnx", model.SerializeToString(deterministic=True))
        write_atomically(folder / "web" / f"{name}.onnx", content)
        return content, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    judge = load_judge()
    chosen = first_per_class(data.test_labels, GARMENTS).view(-1, GARMENTS).T.flatten()  # one of each class, and again
    images, labels = data.test_images[chosen], data.test_labels[chosen]
    garments: list[dict[str, Any]] = [
        {
            "label": int(label),
            "index": int(index),
            "pixels": base64.b64encode(image.numpy().tobytes()).decode(),
            "mu": {},
        }
        for label, index, image in zip(labels, chosen, images, strict=True)
    ]
    decoders = {}
    for kind in DECODERS:
        model, record = shipped(kind)
        inputs = {"z": noise(model, 2, seed=0), "cond": model.embed(torch.arange(2))}
        content, written = write(kind, to_onnx(model.decoder, inputs, "image"))
        variance = encode_means(model, data.test_images, data.test_labels).var(dim=0)
        order = variance.argsort(descending=True)
        decoders[kind] = {
            **written,
            "weights": record["sha256"],
            "cond_shape": list(inputs["cond"].shape[1:]),
            "embeddings": numbers(model.embed(torch.arange(10)).flatten(1)),
            "active": [int(i) for i in order if variance[i] > ACTIVE],
            "variance": [round(float(v), 4) for v in variance],
            **compared(model, judge, content),
        }
        for garment, mu in zip(garments, encode_means(model, images, labels), strict=True):
            garment["mu"][kind] = numbers(mu)
    graph = to_onnx(judge, {"image": images[:2].float() / 255}, "logits", optimize=False)  # it has batch norms
    _, written = write("judge", graph)
    facts = {
        "classes": list(CLASSES),
        "z": numbers(noise(model, 1, FIRST_SEED).flatten()),
        "decoders": decoders,
        "judge": written,
        "garments": garments,
    }
    table = {kind: {key: made[key] for key in ("cond_shape", "embeddings")} for kind, made in decoders.items()}
    names = {"classes": list(CLASSES), "decoders": table}
    write_atomically(folder / "classes.json", (json.dumps(names) + "\n").encode())
    write_atomically(folder / "web" / "live.json", (json.dumps(facts) + "\n").encode())
    return facts
