"""All that a media file says beside its samples, and that WebM can say as well."""

from dataclasses import dataclass, field
from fractions import Fraction

from vpxrc.media.frames import Colours

# Code points of ITU-T H.273, tables 2 to 4, and ffmpeg's names for them.
MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
}
TRANSFERS = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
UNKNOWN_CODE = 2
LIMITED_RANGE, FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG


def code(names: dict[int, str], name: str) -> int:
    """Return the code point of a name in one of the tables above; 2 for an unknown one."""
    return next((point for point, one in names.items() if one == name), UNKNOWN_CODE)


@dataclass(frozen=True)
class Chapter:
    """A chapter of a video.

    Attributes:
        title: Its title; may be empty.
        start: Its beginning in seconds, on the file's own clock.
        end: Its end in seconds, on the same clock.
    """

    title: str
    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class MasteringDisplay:
    """The screen that a video was made on (SMPTE ST 2086).

    Attributes:
        chromaticities: x and y of red, green, blue and white in CIE 1931; empty where unknown.
        luminances: The lowest and the highest luminance in cd/m2; empty where unknown.
    """

    chromaticities: tuple[float, ...] = ()
    luminances: tuple[float, ...] = ()


@dataclass(frozen=True)
class ContentLight:
    """How light a video's pictures are (CTA-861.3).

    Attributes:
        highest: The light of the lightest pixel, MaxCLL, in cd/m2.
        highest_mean: The mean light of the lightest picture, MaxFALL, in cd/m2.
    """

    highest: int
    highest_mean: int


@dataclass(frozen=True)
class Labels:
    """What goes into a WebM file beside the packets.

    Attributes:
        colours: How the samples are to be shown.
        aspect: Width of a pixel over its height, once the picture is upright.
        stereo_mode: Matroska's name for the places of two eyes' pictures in a frame, as in
            ``"left_right"``; empty for one picture.
        title: The title of the whole; empty without.
        language: The language of the pictures in three letters; empty without.
        chapters: In the order of the file.
        mastering: The screen that it was made on; None where unknown.
        light: How light it is; None where unknown.
    """

    colours: Colours = field(default_factory=Colours)
    aspect: Fraction = Fraction(1)
    stereo_mode: str = ""
    title: str = ""
    language: str = ""
    chapters: tuple[Chapter, ...] = ()
    mastering: MasteringDisplay | None = None
    light: ContentLight | None = None
