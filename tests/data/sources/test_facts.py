"""What a row says of an image."""

from __future__ import annotations

import base64

import pytest

from facegan.data.sources._facts import decode_base64, is_base64


def test_text_is_base64_or_a_path() -> None:
    photo = base64.b64encode(b"\xff\xd8\xff" + bytes(range(200))).decode()
    assert is_base64(photo) and decode_base64(photo)[:3] == b"\xff\xd8\xff"
    assert is_base64("data:image/jpeg;base64,") and decode_base64("data:image/jpeg;base64,") == b""
    for path in ("/9j/0001.jpg", "/9j/" + "a" * 40, "R0lGOD/faces/ann/" + "a" * 60 + ".gif", "data:x.png", "", None, 3):
        assert not is_base64(path)
    for broken in (photo[:-1], photo[:100] + "?" + photo[100:], "data:image/png;base64,###"):
        with pytest.raises(OSError, match="base64 is broken"):
            decode_base64(broken)
