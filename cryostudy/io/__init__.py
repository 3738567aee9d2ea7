"""MRC volumes, tilt stacks and tilt-angle files in and out; headers and voxel size survive.

Whatever cannot be used raises :class:`cryostudy.errors.InputError` with one line that names the file.
"""

from cryostudy.io.angles import check_angles, read_tilt_angles
from cryostudy.io.checks import check_volume, statistics, valid_mask
from cryostudy.io.destination import check_output
from cryostudy.io.output import create_volume, write_volume
from cryostudy.io.volumes import Volume, read_stack, read_volume

__all__ = [
    "Volume",
    "check_angles",
    "check_output",
    "check_volume",
    "create_volume",
    "read_stack",
    "read_tilt_angles",
    "read_volume",
    "statistics",
    "valid_mask",
    "write_volume",
]
