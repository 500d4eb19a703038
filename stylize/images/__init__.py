"""Pictures: file <-> (1, 3, H, W) float32 sRGB in [0, 1], with alpha, EXIF and ICC kept.

A picture file may carry a record, a text saying how the picture was made.
"""

from stylize.images.edits import keeping_edits
from stylize.images.exchange import Source, as_picture, as_pictures
from stylize.images.picture import FORMATS, SPARE, About, Origin, Picture, fill_transparent, fit, resize
from stylize.images.profiles import srgb_profile
from stylize.images.read import digest, load
from stylize.images.record import RECORD_LIMIT, Saved, read_record, saved_state
from stylize.images.silence import MAX_PIXELS
from stylize.images.thumbnail import thumbnail
from stylize.images.write import atomic_write, check_file, check_folder, check_target, is_leftover, save

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "RECORD_LIMIT",
    "SPARE",
    "About",
    "Origin",
    "Picture",
    "Saved",
    "Source",
    "as_picture",
    "as_pictures",
    "atomic_write",
    "check_file",
    "check_folder",
    "check_target",
    "digest",
    "fill_transparent",
    "fit",
    "is_leftover",
    "keeping_edits",
    "load",
    "read_record",
    "resize",
    "save",
    "saved_state",
    "srgb_profile",
    "thumbnail",
]
