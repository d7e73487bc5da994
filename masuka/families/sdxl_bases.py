"""The bases of SDXL's architecture: what each is, may be used for, and draws best with.

Sizes are counted from the published configurations, built on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masuka.families.base import Entry, Preset, Size
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

CLIP_L, CLIP_G = 123_060_480, 694_659_840
SIZE = Size(
    denoiser=2_567_463_684,
    text_encoders=CLIP_L + CLIP_G,
    autoencoder=83_653_863,
    largest_text_encoder=CLIP_G,
    # 60 attention blocks stand at 1/32 of a side, 1,280 wide; the 10 at 1/16, half as wide, make
    # twice as many numbers each, and the convolutions about as many as ten more.
    width=1280,
    blocks=90,
    pixels_per_token=1024,
    text_tokens=77,
)
FINITE_IN_FP16 = "madebyollin/sdxl-vae-fp16-fix"
"""SDXL's own VAE overflows in fp16."""
_SIDE = Limit(256, 2048, 32, 1024)
"""The UNet halves latents twice; other sides would be cut within."""
_FAIR = "Fair AI Public License 1.0-SD"


def _draws(steps: int, guidance: float) -> Mapping[str, Limit]:
    return {
        **DRAW,
        "width": _SIDE,
        "height": _SIDE,
        "num_inference_steps": Limit(1, 100, default=steps),
        "guidance_scale": Limit(1, 20, default=guidance),
    }


LEARNS: Mapping[str, Limit] = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=2000),
    "learning_rate": Limit(1e-6, 1e-2, default=1e-4),
    "rank": Limit(4, 256, default=32),
    "resolution_px": Limit(256, 2048, 32, default=1024),
}
SNR_LEARNS: Mapping[str, Limit] = {**LEARNS, "min_snr_gamma": Limit(default=5.0)}
_COMMON: Mapping[str, Any] = {
    "tier": "low",
    "guidance": "true_cfg",
    "size": SIZE,
    "architecture": "stable-diffusion-xl-v1-base",
    "kohya_version": "sdxl_base_v1-0",
}

SDXL = Entry(
    id="sdxl",
    title="SDXL 1.0",
    repo="stabilityai/stable-diffusion-xl-base-1.0",
    revision="462165984030d82259a11f4367a4eed129e94a7b",
    licence="CreativeML Open RAIL++-M",
    size_gib=6.7,
    about="The base of most LoRAs there are; learns and draws on small cards.",
    prediction="epsilon",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(28, 6.5),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
JUGGERNAUT = Entry(
    id="juggernaut-xl-v9",
    title="Juggernaut XL v9",
    repo="RunDiffusion/Juggernaut-XL-v9",
    licence="CreativeML Open RAIL-M",
    size_gib=6.7,
    about="SDXL for photographs: skin, light and contrast.",
    prediction="epsilon",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(35, 4.5),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
ILLUSTRIOUS = Entry(
    id="illustrious-xl",
    title="Illustrious XL 0.1",
    repo="OnomaAIResearch/Illustrious-xl-early-release-v0",
    revision="6dd6e09de8aad74e3e944327dcfa080c5aaa2194",
    licence=_FAIR,
    size_gib=6.7,
    about="SDXL for anime and illustration; takes Danbooru tags. Models made from it must be shared.",
    prediction="epsilon",
    captions="tags",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(28, 6.0),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
PONY = Entry(
    id="pony-v6-xl",
    title="Pony Diffusion V6 XL",
    repo="kitty7779/ponyDiffusionV6XL",
    revision="b0b14dd9f27190bdff916493e0bef66471f9764a",
    licence=f"{_FAIR}, modified: no paid services",
    size_gib=6.7,
    about="SDXL for cartoons, animals and fantasy; prompts begin with score_9. A copy in diffusers' layout.",
    commercial=False,
    prediction="epsilon",
    captions="tags",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(25, 7.0),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
NOOB = Entry(
    id="noobai-xl",
    title="NoobAI XL 1.0",
    repo="Laxhar/noobai-XL-1.0",
    revision="70dee4d903b83cc6d1e8d12e65051cfdbcf54ab3",
    licence=f"{_FAIR}, with a ban on commercial use",
    size_gib=6.7,
    about="Illustrious taught all of Danbooru and e621; takes tags.",
    commercial=False,
    prediction="epsilon",
    captions="tags",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(28, 5.5),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
NOOB_V = Entry(
    id="noobai-xl-v",
    title="NoobAI XL V-Pred 1.0",
    repo="Laxhar/noobai-XL-Vpred-1.0",
    licence=f"{_FAIR}, with a ban on commercial use",
    size_gib=6.7,
    about="NoobAI with truer dark and light pictures; needs LoRAs of its own.",
    commercial=False,
    prediction="v",
    captions="tags",
    autoencoder_repo=FINITE_IN_FP16,
    draw_limits=_draws(28, 4.5),
    train_limits=SNR_LEARNS,
    **_COMMON,
)
PLAYGROUND = Entry(
    id="playground-v2.5",
    title="Playground v2.5",
    repo="playgroundai/playground-v2.5-1024px-aesthetic",
    revision="1e032f13f2fe6db2dc49947dbdbd196e753de573",
    licence="Playground v2.5 Community (free below a million monthly users)",
    size_gib=6.7,
    about="Vivid and polished; of SDXL's build, taught in another way, and takes no LoRA of SDXL.",
    prediction="edm",
    draw_limits=_draws(50, 3.0),
    train_limits=LEARNS,
    presets=(
        Preset("Square", {"width": 1024, "height": 1024, "num_inference_steps": 30, "guidance_scale": 7.0}),
    ),
    **_COMMON,
)
