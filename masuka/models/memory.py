"""What a training or a drawing needs of memory and disk, and what is done where that is short.

Arithmetic over a base's `Size` alone: no file is looked at, no model is loaded, so that the
page, the command line and the table in the documents say the same. What a machine really
took is measured by the training (`training.meter`) and shown beside it.

Two models are never on the device at once, so the need is that of the hungriest phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from masuka.families import family_of
from masuka.families.base import Entry, Size
from masuka.models.ladder import rungs
from masuka.requests.training import TrainImage

GIB = 2**30
LARGE_PARAMETERS = 1_000_000_000
"""From this size on, 'auto' recomputes activations: they would not fit beside the weights."""

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
QUANTISED = {"nf4": 0.5625, "int8": 1.03}
"""Bytes a parameter: 4 bits and an fp32 scale for 64 of them; 8 bits, scales by row, and the
few layers that stay as they are."""
OPTIMISER_BYTES = {
    "adamw": 8.0, "adamw8bit": 2.1, "prodigy": 16.0, "adafactor": 0.3, "lion": 4.0, "came": 4.3,
    "schedulefree": 8.0,
}  # fmt: skip
"""Bytes of state a trained parameter. Adafactor keeps a row and a column of each matrix, CAME its
mean beside; Prodigy keeps where it began and what it summed."""
LIBRARIES_BYTES = int(0.7 * GIB)
"""What CUDA, cuBLAS and their workspaces take beside every tensor."""
USABLE = 0.97
"""Of free memory; the rest is lost between blocks of unlike size."""
PROCESS_BYTES = {"cpu": int(0.55 * GIB), "cuda": int(1.5 * GIB)}
"""Main memory of a worker after its imports, without any model; CUDA brings its kernels."""
IN_FLIGHT_BYTES = 5 * 10**9
"""The largest file of a model split into several, which passes through main memory."""


@dataclass(frozen=True)
class Network:
    """What a denoiser keeps for the backward pass.

    In units of one block's width a token, counted by the saved tensors of random models of
    the real classes, LoRA on all linear layers; a test counts those of FLUX again.
    """

    kept: float
    """A block whose activations stay."""
    recomputed: float
    """A block whose activations are computed again: its input, and what hangs on it."""
    at_work: float
    """The block that is being computed or gone back through, beside what is kept."""
    least_pixels_per_token: int = 1


TRANSFORMER = Network(kept=19.7, recomputed=1.1, at_work=32)
UNET = Network(kept=29, recomputed=2.1, at_work=150, least_pixels_per_token=1024)
"""Most of an SDXL's blocks see one token for 32 × 32 pixels; few and thinner ones see more."""
ENCODING_CHANNELS, DECODING_CHANNELS = 6 * 128, 12 * 128
"""Numbers a pixel at the hungriest layer of a VAE, which has 128 channels at full size going
in and 256 coming out, each a few times (before, after, normed, and a convolution's workspace)."""
LATENT_NUMBERS_PER_PIXEL = 0.5
"""Mean and deviation of 16 channels for 8 × 8 pixels, kept in fp32."""
TEXT_WIDTH = 4096


@dataclass(frozen=True)
class Machine:
    """What there is to train on; VRAM is None without a GPU.

    What is free is what a training finds: MASUKA's own warm models leave before it begins.
    """

    device: str
    name: str
    vram_bytes: int | None
    free_vram_bytes: int | None
    ram_bytes: int
    free_ram_bytes: int
    free_disk_bytes: int
    bf16: bool
    devices: int = 1

    @property
    def room_bytes(self) -> int:
        """What models may take: of the GPU's memory, else of the main memory."""
        if self.device.startswith("cuda") and self.free_vram_bytes is not None:
            return self.free_vram_bytes
        return self.free_ram_bytes


@dataclass(frozen=True)
class Estimate:
    """Peaks in bytes; `parts` are those of the training itself, by words.

    `phases` are the peaks of what comes before and between: the hungriest decides.
    """

    gpu_bytes: int
    ram_bytes: int
    disk_bytes: int
    parts: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self) | {"parts": dict(self.parts), "phases": dict(self.phases)}


def training(
    entry: Entry, request: TrainImage, *, pictures: int, dtype: str, device: str = "cuda"
) -> Estimate | None:
    """What the training takes at its peak; None for a base nobody has counted.

    `dtype` is fp32, bf16 or fp16. On a CPU everything is in main memory, and encoders
    compute in fp32 there.
    """
    size = entry.size
    if size is None:
        return None
    on_cpu = device == "cpu"
    pixels = request.resolution_px**2
    encoders = "fp32" if on_cpu else dtype
    vae = "fp32" if on_cpu or dtype == "fp16" else dtype
    parts = _parts(entry, size, request, pictures, dtype)
    libraries = 0 if on_cpu or device == "mps" else LIBRARIES_BYTES
    resident = parts["weights"] + parts["LoRA"] + parts["optimiser"] + parts["caches"]
    network = network_of(entry)
    unit = _unit(size, network, pixels, 1, dtype)
    phases = {
        "text encoders": int(1.05 * size.text_encoders * BYTES[encoders]),
        "VAE": int(size.autoencoder * BYTES[vae] + pixels * ENCODING_CHANNELS * BYTES[vae]),
        "training": resident + parts["activations"],
        "samples": 0,
    }
    if request.sample_every:
        # The pipeline around the live denoiser has one format, the VAE's included.
        work = max(pixels * DECODING_CHANNELS * BYTES[dtype], unit * network.at_work)
        drawing_bytes = size.autoencoder * BYTES[dtype] + work
        phases["samples"] = int(resident + drawing_bytes)
    gpu = max(phases.values()) + libraries
    on_host = int(request.blocks_on_host * size.denoiser * BYTES[dtype])
    in_flight = min(int(size.denoiser * BYTES[dtype]), IN_FLIGHT_BYTES)
    ram = (
        PROCESS_BYTES["cpu" if on_cpu else "cuda"] + on_host + (0 if on_cpu else in_flight) + parts["caches"]
    )
    return Estimate(gpu, ram, _disk(size, request, pictures), parts | {"libraries": libraries}, phases)


def drawing(entry: Entry, *, width: int, height: int, dtype: str, quantize: str = "none") -> Estimate | None:
    """What drawing one picture takes, its models coming one after another.

    `parts` are the weights of each; where all of them fit together, none waits.
    """
    size = entry.size
    if size is None:
        return None
    pixels, network = width * height, network_of(entry)
    per_weight = QUANTISED.get(quantize, BYTES[dtype])
    weights = int(size.denoiser * per_weight)
    text = int(size.text_encoders * BYTES[dtype])
    vae = int(size.autoencoder * BYTES[dtype])
    guided = 2 if entry.guidance == "true_cfg" else 1
    phases = {
        "text encoders": int(1.05 * text),
        "denoiser": int(weights + guided * _unit(size, network, pixels, 1, dtype) * network.at_work),
        "VAE": int(vae + pixels * DECODING_CHANNELS * BYTES[dtype]),
    }
    gpu = max(phases.values()) + LIBRARIES_BYTES
    parts = {"weights": weights, "text encoders": text, "VAE": vae, "libraries": LIBRARIES_BYTES}
    return Estimate(gpu, PROCESS_BYTES["cuda"] + weights + text + vae, pixels * 3, parts, phases)


@dataclass(frozen=True)
class Plan:
    """What will be done on this machine.

    `request` carries it out, `changes` says what differs from what was asked. Where it does not fit, `request` is what was asked and `sentence` says what would.
    """

    fits: bool
    request: TrainImage
    changes: tuple[str, ...]
    estimate: Estimate | None
    sentence: str
    short_of: Literal["", "memory", "disk"] = ""


def plan(entry: Entry, request: TrainImage, machine: Machine, *, pictures: int) -> Plan:
    """The request as this machine can do it, or a refusal with what would fit."""
    dtype = dtype_of(entry, request, machine)
    asked = training(entry, request, pictures=pictures, dtype=dtype, device=machine.device)
    if asked is None:
        told = "How much memory this base takes is not known before; a trial of three steps tells."
        return Plan(True, request, (), None, told)
    if asked.disk_bytes > machine.free_disk_bytes:
        told = (
            f"The disk has {_gib(machine.free_disk_bytes)} free and this takes about {_gib(asked.disk_bytes)}. "
            "Make room, or keep fewer checkpoints."
        )
        return Plan(False, request, (), asked, told, "disk")
    found = _first_that_fits(entry, request, machine, pictures, dtype)
    if found is not None and (not found.changes or request.when_memory_runs_short == "adapt"):
        return found
    told = f"This takes about {_of(asked, machine)}: more than there is."
    if found is not None:
        would = f"It would fit so: {' '.join(found.changes)}"
    else:
        would = _what_would_fit(entry, request, machine, pictures, dtype)
    return Plan(False, request, (), asked, f"{told} {would}", "memory")


def dtype_of(entry: Entry, request: TrainImage, machine: Machine) -> str:
    """The format that the worker will compute in, as far as can be said before."""
    if request.precision != "auto":
        return request.precision
    if machine.bf16:
        return "bf16"
    fp16 = family_of(entry.id)[0].capabilities.fp16 and machine.device != "cpu"
    return "fp16" if fp16 else "fp32"


def _first_that_fits(
    entry: Entry, request: TrainImage, machine: Machine, pictures: int, dtype: str
) -> Plan | None:
    on_cuda = machine.device.startswith("cuda")
    for rung in rungs(request, recomputes=recomputes(entry, request), on_cuda=on_cuda):
        estimate = training(entry, rung.request, pictures=pictures, dtype=dtype, device=machine.device)
        if estimate is not None and _fits(estimate, machine):
            told = f"It fits: about {_of(estimate, machine)}."
            return Plan(True, rung.request, rung.changes, estimate, told)
    return None


def _fits(estimate: Estimate, machine: Machine) -> bool:
    room = machine.room_bytes * USABLE
    if machine.device.startswith("cuda"):
        return estimate.gpu_bytes <= room and estimate.ram_bytes <= machine.free_ram_bytes
    return estimate.gpu_bytes + estimate.ram_bytes <= room


def _of(estimate: Estimate, machine: Machine) -> str:
    """'11.2 of 14.7 GiB of GPU memory': what is shortest."""
    if not machine.device.startswith("cuda"):
        need, room, what = estimate.gpu_bytes + estimate.ram_bytes, machine.room_bytes, "main memory"
    elif estimate.ram_bytes > machine.free_ram_bytes and estimate.gpu_bytes <= machine.room_bytes:
        need, room, what = estimate.ram_bytes, machine.free_ram_bytes, "main memory"
    else:
        need, room, what = estimate.gpu_bytes, machine.room_bytes, "GPU memory"
        if _fits(estimate, machine) and machine.vram_bytes:
            room = machine.vram_bytes
    return f"{need / GIB:,.1f} of {room / GIB:,.1f} GiB of {what}"


def _what_would_fit(entry: Entry, request: TrainImage, machine: Machine, pictures: int, dtype: str) -> str:
    for side in range(request.resolution_px - 64, 255, -64):
        smaller = request.model_copy(update={"resolution_px": side})
        if _first_that_fits(entry, smaller, machine, pictures, dtype) is not None:
            return f"At {side:,} px it would fit."
    return "Choose a smaller base, or a machine with more memory."


def network_of(entry: Entry) -> Network:
    """How the base's denoiser is built."""
    return UNET if family_of(entry.id)[0].denoiser_part == "unet" else TRANSFORMER


def recomputes(entry: Entry, request: TrainImage) -> bool:
    """Whether activations are computed again instead of kept."""
    if request.gradient_checkpointing == "auto":
        return entry.size is not None and entry.size.denoiser >= LARGE_PARAMETERS
    return request.gradient_checkpointing == "on"


def trained_parameters(entry: Entry, request: TrainImage) -> int:
    """About how many numbers are learnt; 0 for a base nobody has counted.

    A LoRA of rank r on a square layer of width w has 2r/w of its parameters. Of a FLUX.1,
    whose large modulation layers get none, r/w of all was counted for all linear layers
    and 0.43 of that for attention alone.
    """
    size = entry.size
    if size is None:
        return 0
    if request.method == "full":
        return size.denoiser
    share = {"attention": 0.6}.get(request.layers, 1.1)
    if request.method == "lokr":
        return int(share * size.denoiser / request.lokr_factor**2) + size.width * size.blocks
    lora = int(share * size.denoiser * request.rank / size.width)
    return min(lora, size.denoiser)


def tokens_of(entry: Entry, request: TrainImage) -> int:
    """Tokens that the denoiser sees in a micro-step; 0 where nobody counted."""
    if entry.size is None:
        return 0
    network = network_of(entry)
    return request.batch_size * _tokens(entry.size, network, request.resolution_px**2)


def _parts(entry: Entry, size: Size, request: TrainImage, pictures: int, dtype: str) -> dict[str, int]:
    """What is on the device while it learns."""
    network, width = network_of(entry), BYTES[dtype]
    trained = trained_parameters(entry, request)
    weights = size.denoiser * QUANTISED.get(request.quantize, width)
    if request.quantize != "none":
        # The layer at work is put back into full numbers; the largest is a third of a block.
        weights += size.denoiser / max(1, size.blocks) / 3 * width
    weights *= 1 - _on_host(request, size)
    if request.train_text_encoder:
        weights += (size.text_encoders - size.largest_text_encoder) * width
    separate = 2 * width if dtype != "fp32" else 0.0  # a working copy and its gradients
    learnt = trained * (8 + separate) + (4 * trained if request.ema_decay else 0)
    unit = _unit(size, network, request.resolution_px**2, request.batch_size, dtype)
    lean = request.quantize == "none" and request.method in ("lora", "full")
    # peft's own forward, which quantised layers and DoRA need, keeps a few more.
    kept = network.recomputed if recomputes(entry, request) else network.kept * (1.0 if lean else 1.4)
    at_work = network.at_work * (1.0 if lean else 1.4)
    return {
        "weights": int(weights),
        "LoRA": int(learnt),
        "optimiser": int(trained * OPTIMISER_BYTES[request.optimizer]),
        "activations": int(unit * (kept * size.blocks + at_work)),
        "caches": min(_cache_bytes(size, request, pictures, width), GIB),
    }


def _on_host(request: TrainImage, size: Size) -> float:
    """The share of the weights that is not on the device; two blocks are always under way."""
    return max(0.0, request.blocks_on_host - 2 / max(1, size.blocks)) if request.blocks_on_host else 0.0


def _tokens(size: Size, network: Network, pixels: int) -> int:
    per_token = max(size.pixels_per_token, network.least_pixels_per_token)
    # Cross-attention reads the text but keeps no tokens of it.
    return pixels // per_token + (0 if network is UNET else size.text_tokens)


def _unit(size: Size, network: Network, pixels: int, batch: int, dtype: str) -> float:
    """Bytes of one number per width of every token."""
    return batch * _tokens(size, network, pixels) * size.width * BYTES[dtype]


def _cache_bytes(size: Size, request: TrainImage, pictures: int, width: float) -> int:
    latents = request.resolution_px**2 * LATENT_NUMBERS_PER_PIXEL * 4
    return int(pictures * (latents + size.text_tokens * TEXT_WIDTH * width))


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"


def _disk(size: Size, request: TrainImage, pictures: int) -> int:
    """Caches, checkpoints with one that is being written, the result, the samples."""
    trained = size.denoiser if request.method == "full" else 0
    if not trained:
        trained = int(1.1 * size.denoiser * request.rank / size.width)
    state = 4 + OPTIMISER_BYTES[request.optimizer] + (4 if request.ema_decay else 0)
    kept = min(request.keep_checkpoints, 1 + request.steps // request.checkpoint_every) + 1
    drawn = request.steps // request.sample_every if request.sample_every else 0
    pictures_bytes = drawn * max(1, len(request.sample_prompts) or 2) * request.resolution_px**2 * 2
    return int(_cache_bytes(size, request, pictures, 4) + trained * (state * kept + 2) + pictures_bytes)
