"""Pictures of every kind become the same upright sRGB pixels; what is no picture, a sentence."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageStat, PngImagePlugin

from masuka.datasets import decoding
from masuka.datasets.decoding import decode, glance, sniff
from masuka.datasets.keeping import encode
from masuka.datasets.stripping import without_metadata
from masuka.datasets.taking import seen
from masuka.errors import InvalidInput

GPS_TAG, ORIENTATION_TAG = 0x8825, 0x0112
PICTURES = Path(__file__).parents[1] / "data" / "pictures"
"""`scene` as a phone stores it (HEIC), as it lies and turned; made with libheif and x265."""


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A picture whose four corners differ, soft enough for lossy formats."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    spot = Image.radial_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, spot))


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures of one size, in steps of 255."""
    assert one.size == other.size and one.mode == other.mode == "RGB"
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def stored(data: bytes) -> Image.Image:
    """The picture as it would lie in the set, opened again, its metadata with it."""
    image = Image.open(io.BytesIO(encode(decode(data)).data))
    image.load()
    return image


FORMATS = [
    ("PNG", {}, ".png", 0.0),
    ("JPEG", {"quality": 92}, ".jpg", 2.0),
    ("JPEG", {"quality": 92, "progressive": True, "subsampling": 0}, ".jpg", 2.0),
    ("WEBP", {"quality": 92}, ".webp", 3.0),
    ("WEBP", {"lossless": True}, ".webp", 0.0),
    ("BMP", {}, ".png", 0.0),
    ("TIFF", {}, ".png", 0.0),
    ("TIFF", {"compression": "tiff_lzw"}, ".png", 0.0),
    ("GIF", {}, ".png", 25.0),
    ("AVIF", {"quality": 90}, ".jpg", 4.0),
    ("AVIF", {"quality": 90, "subsampling": "4:4:4"}, ".jpg", 3.0),
]


@pytest.mark.parametrize(("name", "options", "suffix", "tolerance"), FORMATS)
def test_every_format_is_taken_by_content(
    name: str, options: dict[str, Any], suffix: str, tolerance: float
) -> None:
    decoded = decode(saved(scene(), name, **options))
    assert decoded.image.mode == "RGB" and decoded.remarks == ()
    assert decoded.suffix == suffix or (name == "WEBP" and decoded.file is not None)
    assert difference(decoded.image, scene()) <= tolerance
    again = stored(saved(scene(), name, **options))
    # AVIF is stored as JPEG at 95; everything else keeps each pixel as it was decoded.
    assert again.mode == "RGB" and difference(again, decoded.image) <= (1 if name == "AVIF" else 0)


@pytest.mark.parametrize("name", ["scene", "turned"])
def test_pictures_of_phones_are_taken(name: str) -> None:
    data = (PICTURES / f"{name}.heic").read_bytes()
    decoded = decode(data)
    assert decoded.suffix == ".jpg" and decoded.remarks == ()
    image = stored(data)
    assert image.format == "JPEG" and difference(image, scene()) < 4
    assert not image.getexif() and (b"CANARY" in data) == (name == "scene")


def test_the_first_picture_of_several_in_one_jpeg_is_taken() -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64), "blue")])
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO" and image.n_frames == 2
    kept = encode(decode(data))
    assert kept.suffix == ".jpg" and difference(decode(kept.data).image, scene()) < 3
    assert len(kept.data) < len(data) - 500, "the second one is gone"
    assert seen(data)[0] == kept


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "PNG"])
def test_storing_twice_changes_no_byte(name: str) -> None:
    once = encode(decode(saved(scene(), name)))
    assert encode(decode(once.data)) == once


def with_orientation(image: Image.Image, name: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"quality": 95, "subsampling": 0} if name == "JPEG" else {}
    return saved(image, name, exif=exif, **options)


LAID = {
    1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
}  # fmt: skip
"""How a camera that writes this orientation has laid down an upright scene."""


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_upright(orientation: int, name: str) -> None:
    upright = scene()
    laid = upright
    for turn in LAID[orientation]:
        laid = laid.transpose(turn)
    image = stored(with_orientation(laid, name, orientation))
    assert image.size == upright.size
    assert difference(image, upright) < 4
    assert ORIENTATION_TAG not in image.getexif()


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_orientations_that_mean_nothing_leave_the_picture(orientation: int) -> None:
    assert difference(decode(with_orientation(scene(), "PNG", orientation)).image, scene()) == 0


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_nothing_but_pixels_is_stored(name: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "CANARY description"
    exif.get_ifd(GPS_TAG)[1] = "CANARY north"
    options: dict[str, Any] = {"exif": exif}
    if name == "JPEG":
        options["comment"] = b"CANARY comment"
        options["xmp"] = b"<x:xmpmeta>CANARY</x:xmpmeta>"
    if name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("parameters", "CANARY prompt")
    data = saved(scene(), name, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
                 **options)  # fmt: skip
    assert b"CANARY" in data
    kept = encode(decode(data)).data
    assert b"CANARY" not in kept
    image = Image.open(io.BytesIO(kept))
    assert not image.getexif() and "icc_profile" not in image.info and "comment" not in image.info


def test_what_follows_the_picture_is_cut_off() -> None:
    data = saved(scene(), "JPEG")
    encoded = encode(decode(data + b"motion photo" * 100))
    assert encoded == encode(decode(data)) and len(encoded.data) <= len(data)


def test_a_file_of_nothing_but_pixels_is_stored_as_it_came() -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(stream, "JPEG")
    data = stream.getvalue()
    assert without_metadata(data, "JPEG") is data
    sized = bytearray(data)
    sized[18:20] = b"\x09\x09"  # of a thumbnail that is not there
    assert without_metadata(bytes(sized), "JPEG") == data
    assert without_metadata(data + b"more", "JPEG") == data


def test_the_thumbnail_in_a_jfif_header_is_cut_off() -> None:
    data = saved(scene(), "JPEG")
    assert data[2:4] == b"\xff\xe0"
    pixels = b"CANARY" + bytes(3 * 4 * 4 - 6)
    header = b"JFIF\x00" + data[11:18] + bytes([4, 4]) + pixels
    data = data[:2] + b"\xff\xe0" + (len(header) + 2).to_bytes(2, "big") + header + data[20:]
    kept = encode(decode(data)).data
    assert b"CANARY" in data and b"CANARY" not in kept
    assert difference(decode(kept).image, decode(data).image) == 0


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_transparency_becomes_white(name: str) -> None:
    image = Image.new("RGBA", (32, 32), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    decoded = decode(saved(image, name, **({"lossless": True} if name == "WEBP" else {})))
    assert decoded.image.getpixel((4, 4)) == (255, 255, 255)
    assert decoded.image.getpixel((28, 4)) == (200, 0, 0)


def test_half_transparency_is_mixed_with_white() -> None:
    data = saved(Image.new("RGBA", (32, 32), (0, 0, 0, 128)), "PNG")
    assert decode(data).image.getpixel((0, 0)) == (127, 127, 127)


def palette_picture(**options: Any) -> bytes:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 16, 32))
    return saved(image, options.pop("name"), **options)


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_palettes(name: str) -> None:
    plain, clear = (decode(palette_picture(name=name, **o)).image for o in ({}, {"transparency": 0}))
    assert plain.getpixel((4, 4)) == (0, 0, 0) and clear.getpixel((4, 4)) == (255, 255, 255)
    assert plain.getpixel((28, 4)) == clear.getpixel((28, 4)) == (10, 200, 30)


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_greys_keep_their_tones(name: str) -> None:
    image = Image.frombytes("I;16", (64, 16), struct.pack("<64H", *range(0, 65536, 1024)) * 16)
    decoded = decode(saved(image, name)).image
    greys = [decoded.getpixel((x, 3))[0] for x in range(64)]  # type: ignore[index]
    assert greys[0] == 0 and greys[-1] == 251 and greys == sorted(greys) and len(set(greys)) == 64


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [("I", 32768, 128), ("F", 0.5, 128), ("F", 100.0, 100), ("1", 1, 255), ("L", 7, 7)],
)
def test_other_depths(mode: str, value: float, grey: int) -> None:
    image = Image.new(mode, (32, 32), value)
    image.putpixel((0, 0), 0)
    decoded = decode(saved(image, "TIFF")).image
    assert decoded.getpixel((5, 5)) == (grey, grey, grey)


@pytest.mark.parametrize("value", [1e20, -1e20, float("nan"), float("inf")])
def test_wild_floats_do_no_harm(value: float) -> None:
    image = Image.new("F", (32, 32), value)
    image.putpixel((3, 3), 1.0)
    assert decode(saved(image, "TIFF")).image.size == (32, 32)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk(name: str) -> None:
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red, green, blue = decode(saved(image, name)).image.getpixel((5, 5))  # type: ignore[misc]
    assert red > 240 and green < 20 and blue < 20


def test_lab() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(scene(), to_lab)
    assert lab is not None
    assert difference(decode(saved(lab, "TIFF")).image, scene()) < 3


def wide_profile() -> bytes:
    """An ICC profile like sRGB's, but with the red and green colourants swapped."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    places = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        data[green + 4 : green + 12],
        data[red + 4 : red + 12],
    )
    return bytes(data).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colour_profiles_are_applied(name: str) -> None:
    image = Image.new("RGB", (32, 32), (250, 10, 10))
    decoded = decode(saved(image, name, icc_profile=wide_profile()))
    red, green, _ = decoded.image.getpixel((5, 5))  # type: ignore[misc]
    assert green > 200 > 60 > red and decoded.remarks == ()


def test_transparent_pictures_get_their_profile_too() -> None:
    image = Image.new("RGBA", (32, 32), (250, 10, 10, 255))
    red, green, _ = decode(saved(image, "PNG", icc_profile=wide_profile())).image.getpixel((5, 5))  # type: ignore[misc]
    assert green > 200 > 60 > red


@pytest.mark.parametrize("profile", [b"nonsense", wide_profile()[:200], bytes(128)])
def test_a_broken_profile_is_left_out_and_said(profile: bytes) -> None:
    decoded = decode(saved(scene(), "JPEG", icc_profile=profile))
    assert decoded.remarks == ("its colour profile is broken and was left out",)
    assert difference(decoded.image, scene()) < 3


def test_a_profile_for_other_pixels_is_left_out_and_said() -> None:
    decoded = decode(saved(scene().convert("L"), "PNG", icc_profile=wide_profile()))
    assert decoded.remarks == ("its colour profile does not fit its pixels and was left out",)


def test_broken_exif_is_said() -> None:
    data = saved(scene(), "PNG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    decoded = decode(data)
    assert difference(decoded.image, scene()) == 0


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    for name in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if name == "WEBP" else {}
        data = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert decode(data).image.getpixel((5, 5)) == (255, 0, 0), name


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = saved(scene(), "PNG")
HOSTILE = {
    "empty": (b"", "The file is empty."),
    "text": (b"hello world, I am a picture", "The file is not a picture."),
    "BM text": (b"BMW is a car maker " * 9, "The file is not a picture."),
    "svg": (b'<?xml version="1.0"?><svg/>', "The file is an SVG, HTML or XML text, not a picture."),
    "html": (b"\xef\xbb\xbf \n<!DOCTYPE html><html>", "The file is an SVG, HTML or XML text, not a picture."),
    "pdf": (b"%PDF-1.7 ...", "The file is a PDF document, not a picture."),
    "program": (b"\x7fELF" + bytes(60), "The file is a program, not a picture."),
    "zip": (zipped(a=b"a"), "The file is an archive, not a picture."),
    "heic": (b"\x00\x00\x00\x18ftypheic" + bytes(20), "The picture is damaged or cut off."),
    "half a heic": ((PICTURES / "scene.heic").read_bytes()[:900], "The picture is damaged or cut off."),
    "avif": (b"\x00\x00\x00\x18ftypavif" + bytes(20), "The picture is damaged or cut off."),
    "video": (b"\x00\x00\x00\x18ftypisom" + bytes(20), "The file is a video, not a picture."),
    "no brand": (b"\xff\xff\xff\xffftyp", "The file is a video, not a picture."),
    "photoshop": (b"8BPS\x00\x01" + bytes(40), "The file is a Photoshop document, not a picture."),
    "header only": (GOOD[:40], "The picture is damaged or cut off."),
    "half": (GOOD[: len(GOOD) // 2], "The picture is damaged or cut off."),
    "bomb": (png(13_000, 13_000), "The picture has 13,000 × 13,000 pixels, 169.0 megapixels."),
    "big bomb": (png(20_000, 20_000), "The picture has too many pixels."),
    "41 megapixels": (png(41_000, 1000), "The picture has 41,000 × 1,000 pixels, 41.0 megapixels."),
    "thread": (png(15, 2000), "The picture has only 15 × 2,000 pixels."),
    "no height": (png(20, 0), "The picture is damaged or cut off."),
    "too many bytes": (GOOD + bytes(50_000_000), "The file has 50.1 MB."),
    "scan bomb": (saved(scene(), "JPEG")[:-2] + b"\xff\xda\x00\x02" * 500 + b"\xff\xd9", "The picture is stored in more than 500 layers."),
    "picture and archive": (GOOD + zipped(a=b"evil"), "The file is a picture and an archive in one."),
    "picture and page": (GOOD + b"<SCRIPT>alert(1)</SCRIPT>", "The file is a picture and a web page in one."),
    "picture and pdf": (b"GIF89a%PDF-1.4" + bytes(90), "The file is a picture and a PDF document in one."),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_get_a_sentence_each(what: str) -> None:
    data, sentence = HOSTILE[what]
    with pytest.raises(InvalidInput) as refused:
        decode(data)
    assert refused.value.message == sentence
    assert refused.value.hint.endswith(".")


def test_the_caps_are_where_the_sentences_say() -> None:
    assert (decoding.LARGEST_BYTES, decoding.LARGEST_PIXELS) == (50_000_000, 40_000_000)
    with pytest.raises(InvalidInput, match="damaged"):
        decode(png(40_000, 1000))  # 40 MP: judged by its pixels, of which there are none
    with pytest.raises(InvalidInput, match="At most 40 megapixels are taken"):
        decode(png(40_001, 1000))
    at_the_cap = GOOD + bytes(50_000_000 - len(GOOD))
    assert difference(decode(at_the_cap).image, scene()) == 0
    with pytest.raises(InvalidInput, match=r"The file has 50.1 MB. At most 50 MB are taken."):
        decode(at_the_cap + b"\x00")


@pytest.mark.parametrize(("name", "options"), [(n, o) for n, o, _, _ in FORMATS])
def test_cut_off_files_are_refused_at_every_length(name: str, options: dict[str, Any]) -> None:
    data = saved(scene(), name, **options)
    whole = decode(data).image
    for percent in range(0, 100, 5):
        try:
            decoded = decode(data[: len(data) * percent // 100])
        except InvalidInput as error:
            assert error.message and error.hint
        else:  # only what comes after the pixels was missing
            assert percent >= 90 and difference(decoded.image, whole) == 0


SEEDS = [saved(scene(32, 24), name, **options) for name, options, _, _ in FORMATS]


@settings(max_examples=100)
@given(data=st.sampled_from(SEEDS), seed=st.integers(0, 2**32), changes=st.integers(1, 20))
def test_mutated_pictures_decode_or_are_refused(data: bytes, seed: int, changes: int) -> None:
    rng = random.Random(seed)
    mutated = bytearray(data)
    for _ in range(changes):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    try:
        encoded = encode(decode(bytes(mutated)))
    except InvalidInput as error:
        assert error.message and error.hint
    else:
        with Image.open(io.BytesIO(encoded.data)) as image:
            assert image.mode == "RGB" and image.size == (encoded.width, encoded.height)


@settings(max_examples=100)
@given(
    st.binary(max_size=200), st.sampled_from([b"", *(magic for magic, _ in decoding._MAGIC), b"RIFF0000WEBP"])
)
def test_any_bytes_decode_or_are_refused(body: bytes, magic: bytes) -> None:
    try:
        sniff(magic + body)
        decode(magic + body)
    except InvalidInput as error:
        assert error.message.endswith(".") and error.hint.endswith(".")


# The short way


def photograph(width: int, height: int, name: str = "JPEG", **options: Any) -> bytes:
    return saved(scene(width, height), name, **options)


@pytest.mark.parametrize(
    ("name", "options", "short"),
    [
        ("JPEG", {"quality": 88}, True),
        ("JPEG", {"quality": 88, "progressive": True}, True),
        ("JPEG", {"quality": 88, "comment": b"hello"}, True),
        ("JPEG", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}, True),
        ("JPEG", {"icc_profile": b"nonsense"}, True),
        ("WEBP", {"quality": 88}, True),
        ("WEBP", {"lossless": True}, True),
        ("JPEG", {"icc_profile": wide_profile()}, False),
        ("PNG", {}, False),
        ("TIFF", {}, False),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (2100, 1400)])
def test_the_short_way_gives_the_same_file(
    name: str, options: dict[str, Any], short: bool, size: tuple[int, int]
) -> None:
    data = photograph(*size, name, **options)
    glanced = glance(data)
    assert (glanced is not None) == short
    encoded, small, about = seen(data)
    decoded = decode(data)
    assert encoded == encode(decoded) and about["remarks"] == list(decoded.remarks)
    assert max(small.size) == min(1024, max(size)) and small.mode == "RGB"
    assert difference(small, decoded.image.resize(small.size)) < 3
    assert about["scores"]["v"] >= 1


@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_is_turned_goes_the_long_way(orientation: int) -> None:
    data = with_orientation(scene(), "JPEG", orientation)
    assert glance(data) is None
    encoded, small, _ = seen(data)
    assert encoded == encode(decode(data)) and small.size == (encoded.width, encoded.height)


def test_other_colours_go_the_long_way() -> None:
    for mode in ("L", "CMYK"):
        assert glance(saved(scene().convert(mode), "JPEG")) is None
    assert glance(saved(Image.new("RGBA", (32, 32), (200, 0, 0, 99)), "WEBP")) is None


@pytest.mark.parametrize("what", HOSTILE)
def test_the_short_way_says_the_same_sentences(what: str) -> None:
    data, sentence = HOSTILE[what]
    with pytest.raises(InvalidInput) as refused:
        seen(data)
    assert refused.value.message == sentence


@settings(max_examples=100)
@given(data=st.sampled_from(SEEDS), seed=st.integers(0, 2**32), changes=st.integers(1, 20))
def test_what_is_stored_in_a_hurry_can_be_opened(data: bytes, seed: int, changes: int) -> None:
    """The scaled decode of a mutated file finds what a whole decode would choke on later."""
    rng = random.Random(seed)
    mutated = bytearray(data)
    for _ in range(changes):
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
    try:
        encoded, small, _ = seen(bytes(mutated))
    except InvalidInput as error:
        assert error.message and error.hint
    else:
        with Image.open(io.BytesIO(encoded.data)) as image:
            image.load()
            assert image.mode == small.mode == "RGB" and image.size == (encoded.width, encoded.height)
