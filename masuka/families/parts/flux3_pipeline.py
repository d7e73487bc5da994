"""FLUX 3 drawn by diffusers' modular blocks, and used like any other pipeline.

Both of them: the base, and the one that was distilled to few steps, whose transformer is told
where each step leads.

The blocks have no callback after a step, know nothing of offloading, and their own loader may
fetch parts from the net. This pipeline holds the parts, as all of diffusers' do, and lets the
blocks compute: with one more block inside their loop that tells of each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ClassifierFreeGuidance, DiffusionPipeline, Flux3ModularPipeline
from diffusers.loaders import Flux3LoraLoaderMixin
from diffusers.modular_pipelines import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.flux3.before_denoise import Flux3SetTimestepsStep
from diffusers.modular_pipelines.flux3.decoders import Flux3DecodeStep
from diffusers.modular_pipelines.flux3.denoise import Flux3DenoiseStep, Flux3DistilledDenoiseStep
from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep
from diffusers.modular_pipelines.flux3.modular_blocks_flux3 import Flux3CoreDenoiseStep
from diffusers.modular_pipelines.flux3.modular_blocks_flux3_distilled import Flux3DistilledCoreDenoiseStep
from torch import Tensor

AfterStep = Callable[[Any, int, Any, dict[str, Any]], Any]


class Flux3Pipeline(DiffusionPipeline, Flux3LoraLoaderMixin):  # type: ignore[misc]
    """A text-to-image pipeline of FLUX 3, from loaded parts.

    Without a scheduler it takes the one that the blocks themselves would make.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(
        self, transformer: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any = None
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler or _own_scheduler(),
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | None = None,
        *,
        width: int,
        height: int,
        num_inference_steps: int,
        guidance_scale: float,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        generator: Any = None,
        output_type: str = "pil",
        callback_on_step_end: AfterStep | None = None,
    ) -> Any:
        """Pictures in `.images`, or latents (B, C, h, w) with `output_type='latent'`.

        There is a second pass where there are negative embeddings.
        """
        guided = negative_prompt_embeds is not None
        led = {"negative_prompt_embeds": negative_prompt_embeds} if guided else {}
        running = self._running(guidance_scale, guided, callback_on_step_end, decode=output_type != "latent")
        state = running(
            prompt_embeds=self._encoded(prompt) if prompt is not None else prompt_embeds,
            **led,
            width=width,
            height=height,
            num_inference_steps=num_inference_steps,
            generator=generator,
            **({} if output_type == "latent" else {"output_type": output_type}),
        )
        self.maybe_free_model_hooks()
        return SimpleNamespace(images=state.get("latents" if output_type == "latent" else "images"))

    def _running(self, scale: float, guided: bool, after_step: AfterStep | None, *, decode: bool) -> Any:
        distilled = bool(self.transformer.config.flow_map)
        core = Flux3DistilledCoreDenoiseStep() if distilled else Flux3CoreDenoiseStep()
        # A loop of its own: diffusers shares the one inside among all that are made.
        loop = Flux3DistilledDenoiseStep() if distilled else Flux3DenoiseStep()
        loop.set_progress_bar_config(disable=True)
        if after_step is not None:
            loop.sub_blocks["told"] = _told(self, after_step)
        core.sub_blocks["denoise"] = loop
        blocks = {"denoise": core, **({"decode": Flux3DecodeStep()} if decode else {})}
        running = Flux3ModularPipeline(SequentialPipelineBlocks.from_blocks_dict(blocks))
        parts = {"transformer": self.transformer, "scheduler": self.scheduler}
        if not distilled:
            parts["guider"] = ClassifierFreeGuidance(guidance_scale=scale, enabled=guided)
        running.update_components(**parts, **({"vae": self.vae} if decode else {}))
        return running

    def _encoded(self, prompt: str) -> Tensor:
        """The text as the blocks encode it; they want a processor around the tokenizer."""
        processor = SimpleNamespace(
            tokenizer=self.tokenizer, apply_chat_template=self.tokenizer.apply_chat_template
        )
        embeds: Tensor = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds(
            self.text_encoder, processor, prompt, device=self._execution_device
        )
        return embeds


def modular_folder(folder: Any, parts: dict[str, Any]) -> None:
    """Writes the parts as the modular pipeline publishes them, with its index."""
    from diffusers.modular_pipelines.flux3.modular_blocks_flux3 import Flux3AutoBlocks

    blocks = Flux3AutoBlocks()
    blocks.sub_blocks.pop("prompt_upsampler")
    publishing = blocks.init_pipeline()
    publishing.update_components(**parts)
    publishing.save_pretrained(str(folder), overwrite_modular_index=True)


def _told(pipeline: Any, after_step: AfterStep) -> Any:
    """A block for the end of each step of the loop, which tells of its latents."""

    class Told(ModularPipelineBlocks):  # type: ignore[misc]
        model_name = "flux3"

        @property
        def description(self) -> str:
            return "Tells of the step that was done."

        @property
        def inputs(self) -> Sequence[Any]:
            return []

        def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> Any:
            changed = after_step(pipeline, i, t, {"latents": block_state.latents})
            block_state.latents = (changed or {}).get("latents", block_state.latents)
            return components, block_state

    return Told()


def _own_scheduler() -> Any:
    return Flux3SetTimestepsStep().expected_components[0].create()
