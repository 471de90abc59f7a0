"""Sizes of a layer, formats of a cache, and batches of sequences in it."""

from ctypes import POINTER, byref, c_char_p, c_size_t, c_uint32

from .constants import RANGE_MIN_MAX, ROW_BF16
from .loading import declare, library
from .memory import Array
from .structs import Struct, fields


class Geometry(Struct):
    _fields_ = fields(c_size_t, "query_heads kv_heads latent_rank rope_heads rope_dim nope_dim value_dim")

    @classmethod
    def named(cls, name):
        """The sizes of a named model, such as deepseek-v3."""
        geometry = cls()
        library().la_geometry_named(name.encode(), byref(geometry))
        return geometry


class CacheLayout(Struct):
    _fields_ = [
        (name, c_size_t)
        for name in (
            "token_bytes page_bytes latent_row_bytes rope_offset rope_row_bytes affine_offset affine_row_bytes"
        ).split()
    ]


class CacheFormat(Struct):
    _fields_ = [
        ("latent_row", c_uint32),
        ("latent_group", c_uint32),
        ("rope_row", c_uint32),
        ("rope_group", c_uint32),
        ("page_size", c_size_t),
        ("range", c_uint32),
    ]

    @classmethod
    def int4(cls, page_size, range=RANGE_MIN_MAX):
        format = cls()
        library().la_cache_format_int4(page_size, byref(format))
        format.range = range
        return format

    @classmethod
    def bf16(cls, page_size):
        return cls(ROW_BF16, 0, ROW_BF16, 0, page_size)

    def layout(self, geometry):
        """Where things lie in a page."""
        layout = CacheLayout()
        library().la_cache_layout(byref(geometry), byref(self), byref(layout))
        return layout


class Batch(Struct):
    _fields_ = fields(Array, "query_starts seq_lens page_table page_starts") + fields(c_size_t, "max_pages page_count")


declare(
    la_geometry_named=[c_char_p, POINTER(Geometry)],
    la_cache_format_int4=[c_size_t, POINTER(CacheFormat)],
    la_cache_layout=[POINTER(Geometry), POINTER(CacheFormat), POINTER(CacheLayout)],
)
