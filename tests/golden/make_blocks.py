#!/usr/bin/env python3
"""Digests of the values that ggml (llama-cpp-python's libggml-base) decodes of blocks of pseudo-random bytes, one line a type, as
tests/unit/test_quant.c has them: FNV-1a of the values as little-endian f32, where NaN counts as 0 and -0 as 0.

    make_blocks.py LIBGGML_BASE.so
"""
import ctypes
import sys

import numpy as np

BLOCKS = 256
NUMBERS = [2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 29, 34, 35, 39, 40, 41, 42]


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("values", ctypes.c_int64), ("interleaved", ctypes.c_int64), ("bytes", ctypes.c_size_t),
                ("quantised", ctypes.c_bool), ("to_float", ctypes.c_void_p), ("from_float", ctypes.c_void_p)]


def random_bytes(seed, n):
    out = bytearray(n)
    for i in range(n):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = seed >> 56
    return bytes(out)


def digest(data):
    h = 0xcbf29ce484222325
    for b in data:
        h = (h ^ b) * 0x100000001b3 % 2**64
    return h


lib = ctypes.CDLL(sys.argv[1])
lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
Decoder = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
for number in NUMBERS:
    t = lib.ggml_get_type_traits(number).contents
    decode = Decoder(t.to_float) if t.to_float else Decoder(("dequantize_row_" + t.name.decode(), lib))
    values = np.zeros(BLOCKS * t.values, np.float32)
    decode(random_bytes(number, BLOCKS * t.bytes), values.ctypes.data, len(values))
    values[np.isnan(values) | (values == 0)] = 0
    print('{"%s", 0x%016x},' % (t.name.decode(), digest(values.tobytes())))
