"""Faces on photographs, none on robots and cups, and a machine without a detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from PIL import Image, ImageEnhance, ImageOps

from masuka.datasets import crops, faces
from masuka.datasets.crops import Face
from masuka.pocket.world import character_set
from tests import tiny_yunet

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
FACE = (0.43, 0.22)
"""Between the astronaut's eyes and mouth."""


def photo(name: str) -> Image.Image:
    with Image.open(PHOTOS / f"{name}.jpg") as opened:
        return opened.convert("RGB")


def holds(face: Face, x: float, y: float) -> bool:
    return face.x < x < face.x + face.width and face.y < y < face.y + face.height


@pytest.mark.parametrize("thorough", [False, True])
def test_a_face_is_found_where_it_is(thorough: bool) -> None:
    found = faces.detect(photo("astronaut"), thorough=thorough)
    assert len(found) == 1
    assert holds(found[0], *FACE) and 0.15 < found[0].width < 0.3 and 0.5 < found[0].score <= 1
    mirrored = faces.detect(ImageOps.mirror(photo("astronaut")), thorough=thorough)
    assert holds(mirrored[0], 1 - FACE[0], FACE[1])


def test_two_faces_are_two_and_the_largest_is_first() -> None:
    both = Image.new("RGB", (480, 320), "grey")
    both.paste(photo("astronaut").resize((240, 240)), (240, 80))
    both.paste(photo("astronaut"), (-70, 0))
    found = faces.detect(both, thorough=True)
    assert len(found) == 2 and found[0].area > found[1].area
    assert found[0].x < 0.5 < found[1].x


@pytest.mark.parametrize("light", [0.6, 1.0, 1.3])
@pytest.mark.parametrize("share", [0.16, 0.25, 0.4])
@pytest.mark.parametrize("place", [0.1, 0.5])
def test_faces_of_all_sizes_are_found_in_light_and_shade(share: float, light: float, place: float) -> None:
    """The quick search: `share` of the frame's width is the face's."""
    frame = photo("coffee").resize((800, 600))
    person = ImageEnhance.Brightness(photo("astronaut").crop((64, 0, 240, 240))).enhance(light)
    scale = share * 800 / (0.21 * 320)
    person = person.resize((round(person.width * scale), round(person.height * scale)))
    left, top = round(place * (800 - person.width)), max(0, round(place * (600 - person.height)))
    frame.paste(person, (left, top))
    eyes = ((left + scale * (FACE[0] * 320 - 64)) / 800, (top + scale * FACE[1] * 320) / 600)
    assert any(holds(face, *eyes) for face in faces.detect(frame))


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_no_face_is_seen_where_none_is(name: str) -> None:
    assert faces.detect(photo(name)) == []
    assert faces.detect(photo(name), thorough=True) == []


def test_on_robots_hardly_a_face_is_seen_and_then_it_is_theirs() -> None:
    """The detector knows people; a drawn face with two eyes may still look like one."""
    pictures = [picture for seed in (1, 7) for picture, _ in character_set(seed, 20)]
    found = [face for picture in pictures for face in faces.detect(picture)]
    assert len(found) <= 0.15 * len(pictures)
    assert all(0.3 < face.centre[0] < 0.7 and 0.3 < face.centre[1] < 0.8 for face in found)


def test_what_was_measured_is_read_back() -> None:
    found = faces.detect(photo("astronaut"))
    assert crops.faces_of({}) is None and crops.faces_of({"faces": []}) == []
    again = crops.faces_of({"faces": [face.as_list() for face in found]})
    assert again is not None and again[0].as_list() == found[0].as_list()


def test_without_a_detector_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faces.why_none(tmp_path) == "" and faces.which(tmp_path) == "OpenCV's cascades"
    # As OpenCV 5 is: the classifier and its files went to another package.
    monkeypatch.delattr(cv2, "CascadeClassifier")
    monkeypatch.delattr(cv2, "data")
    monkeypatch.setattr(faces, "_own", faces.threading.local())
    assert faces.detect(photo("astronaut")) == [] and faces.which(tmp_path) == ""
    assert "Download YuNet" in faces.why_none(tmp_path)


def test_yunet_is_read_by_opencvs_own_class(tmp_path: Path) -> None:
    net = faces.YuNet(tiny_yunet.write(tmp_path / "squares.onnx"))
    picture = Image.new("RGB", (320, 256), "black")
    picture.paste("white", (192, 64, 224, 96))
    found = net.find(picture, thorough=False)
    assert len(found) == 1
    assert found[0].centre == pytest.approx((208 / 320, 80 / 256), abs=0.01)
    assert (found[0].width, found[0].height) == pytest.approx((64 / 320, 64 / 256), abs=0.01)
    assert net.find(Image.new("RGB", (200, 100), "black"), thorough=True) == []


def test_only_the_pinned_file_is_taken_for_yunet(tmp_path: Path) -> None:
    params = faces.download_params(tmp_path)
    assert params["revision"] == faces.YUNET_REVISION and len(params["revision"]) == 40
    file = Path(params["folder"]) / faces.YUNET_FILE
    file.parent.mkdir()
    tiny_yunet.write(file)
    assert faces.yunet_file(tmp_path) is None and faces.which(tmp_path) == "OpenCV's cascades"
    file.write_bytes(bytes(faces.YUNET_BYTES))
    assert faces.yunet_file(tmp_path) is None


def test_crops_show_more_and_more_of_the_person() -> None:
    face = Face(0.4, 0.1, 0.1, 0.1, 1)
    small, half, body = (crops.crop_to(face, part, 1000, 1000) for part in ("face", "half", "body"))
    assert (small[2] - small[0], small[3] - small[1]) == pytest.approx((0.15, 0.15))
    for inner, outer in ((small, half), (half, body)):
        assert outer[0] <= inner[0] and outer[2] >= inner[2] and outer[3] > inner[3]
        assert 0 <= outer[0] < outer[2] <= 1 and 0 <= outer[1] < outer[3] <= 1


def test_a_face_crop_is_square_and_one_and_a_half_times_the_face() -> None:
    left, top, right, bottom = crops.crop_to(Face(0.4, 0.4, 0.1, 0.2, 1), "face", 2000, 1000)
    assert ((right - left) * 2000, (bottom - top) * 1000) == pytest.approx((300, 300), abs=1)
    corner = crops.crop_to(Face(0.0, 0.0, 0.3, 0.3, 1), "face", 800, 800)
    assert corner[:2] == (0, 0) and corner[2] == pytest.approx(0.45)
    whole = crops.crop_to(Face(0.05, 0.1, 0.9, 0.8, 1), "face", 800, 800)
    assert whole == (0, 0, 1, 1)


def test_a_crop_to_what_matters_leaves_an_empty_side_out() -> None:
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste(photo("coffee").resize((160, 160)), (20, 20))
    left, _, right, _ = crops.crop_to_detail(picture)
    assert left < 0.1 and 0.44 < right < 0.62
    assert crops.crop_to_detail(Image.new("RGB", (100, 50), "red")) == (0, 0, 1, 1)
