"""Configurations and arguments of the operations."""

from ctypes import c_float, c_size_t, c_uint32

from .cache import CacheFormat, Geometry
from .memory import Array, Tensor
from .structs import Struct, fields


class RopeAppendConfig(Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat), ("pairing", c_uint32)]


class RopeAppendArgs(Struct):
    _fields_ = [
        ("q_rope", Tensor),
        ("q_rotated", Tensor),
        ("k_rope", Tensor),
        ("c_kv", Tensor),
        ("positions", Array),
        ("slots", Array),
        ("cos", Array),
        ("sin", Array),
        ("frequencies", c_size_t),
        ("frequency_index", Array),
        ("norm_gain", Array),
        ("norm_epsilon", c_float),
        ("bias", Array),
        ("cache", Array),
        ("counters", Array),
    ]


class AbsorbConfig(Struct):
    _fields_ = [("geometry", Geometry), ("batch_invariant", c_uint32)]


class AbsorbQueryArgs(Struct):
    _fields_ = [("up_key", Tensor), ("q_nope", Tensor), ("q_latent", Tensor)]


class ExpandOutputArgs(Struct):
    _fields_ = [("up_value", Tensor), ("value_bias", Array), ("o_latent", Tensor), ("out", Tensor)]


class DecodeConfig(Struct):
    _fields_ = [
        ("geometry", Geometry),
        ("format", CacheFormat),
        ("scale", c_float),
        ("fixed_tokens", c_size_t),
        ("max_query_tokens", c_size_t),
        ("max_tokens", c_size_t),
    ]


class DecodeArgs(Struct):
    _fields_ = [("q_latent", Tensor), ("q_rope", Tensor), ("cache", Array), ("o_latent", Array), ("lse", Array)]


class CombineConfig(Struct):
    _fields_ = [("latent_rank", c_size_t), ("max_splits", c_size_t)]


class CombineArgs(Struct):
    _fields_ = fields(c_size_t, "rows splits") + fields(Array, "o_partial lse_partial o_latent lse")


class UpProjectConfig(Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat)]


class UpProjectArgs(Struct):
    _fields_ = [
        ("cache", Array),
        ("token_starts", Array),
        ("up_key", Tensor),
        ("up_value", Tensor),
        ("value_bias", Array),
        ("keys", Tensor),
        ("values", Tensor),
    ]


class GatherConfig(Struct):
    _fields_ = [("geometry", Geometry), ("format", CacheFormat)]


class GatherArgs(Struct):
    _fields_ = [("cache", Array), ("token_starts", Array), ("first_tokens", Array), ("gathered", Tensor)]
