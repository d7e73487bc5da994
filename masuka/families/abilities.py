"""What a request asks of a family that it cannot do, as sentences, before anything is loaded."""

from __future__ import annotations

from masuka.errors import InvalidInput
from masuka.families.base import Family, parent_of
from masuka.requests.training import TrainImage


def must_be_able(family: Family, request: TrainImage) -> None:
    """Raises InvalidInput for a setting that means nothing to this family."""
    _must_fit_together(request)
    able = family.capabilities
    entry = next((e for e in family.entries if e.id == parent_of(request.base)), None)
    if request.method == "full" and entry is not None and entry.training_adapter is not None:
        raise InvalidInput(
            f"{entry.title} learns with an adapter and cannot be trained whole.", "Train a LoRA.", field="method"
        )
    if request.train_text_encoder and not able.text_encoder_lora:
        raise InvalidInput(
            f"{family.title} cannot train its text encoder.", "Switch it off.", field="train_text_encoder"
        )
    if able.snr_weighting:
        return
    for field, name in (("min_snr_gamma", "Min-SNR"), ("noise_offset", "A noise offset")):
        if getattr(request, field):
            raise InvalidInput(
                f"{name} is for SDXL and its kind; {family.title} adds noise in another way.",
                "Set it to 0.",
                field=field,
            )


def _must_fit_together(request: TrainImage) -> None:
    """Raises InvalidInput for settings that exclude each other."""
    if request.method == "full" and request.quantize != "none":
        raise InvalidInput(
            "A quantised base is frozen and cannot be trained whole.",
            "Set 'Quantise the base' to none, or train a LoRA.",
            field="quantize",
        )
    if request.method == "full" and request.train_text_encoder:
        raise InvalidInput(
            "The whole model is trained without its text encoder.", "Switch it off.", field="train_text_encoder"
        )
    if not request.blocks_on_host:
        return
    against = {
        "quantize": request.quantize != "none",
        "gradient_checkpointing": request.gradient_checkpointing == "off",
        "compile_blocks": request.compile_blocks,
        "method": request.method == "full",
    }
    words = {
        "quantize": "a quantised base",
        "gradient_checkpointing": "gradient checkpointing off",
        "compile_blocks": "compiled blocks",
        "method": "training the whole model",
    }
    for field, stands in against.items():
        if stands:
            raise InvalidInput(
                f"Blocks in main memory and {words[field]} do not go together.",
                "Set one of the two back.",
                field=field,
            )
