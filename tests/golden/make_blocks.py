#!/usr/bin/env python3
"""Digests of the values that ggml (llama-cpp-python's libggml-base) decodes of blocks of pseudo-random bytes, one line a type, as
tests/unit/test_quant.c has them: FNV-1a of the values as little-endian f32, where NaN counts as 0 and -0 as 0.

    make_blocks.py LIBGGML_BASE.so

With a folder of golden cases (tests/golden/quant/gguf) it writes what ggml makes of source.safetensors in Q1_0 and Q2_0 instead.

    make_blocks.py LIBGGML_BASE.so DIR
"""
import ctypes
import json
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


def write_case(folder, number):
    from safetensors.numpy import load_file, save_file
    t = lib.ggml_get_type_traits(number).contents
    name, out, rmse = t.name.decode(), {}, {}
    encode, decode = (getattr(lib, f) for f in (f"quantize_row_{name}_ref", f"dequantize_row_{name}"))
    for key, x in load_file(folder + "/source.safetensors").items():
        packed, values = np.zeros((x.shape[0], x.shape[1] // t.values * t.bytes), np.uint8), np.zeros_like(x)
        encode(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(packed.ctypes.data), ctypes.c_int64(x.size))
        decode(ctypes.c_void_p(packed.ctypes.data), ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(x.size))
        out["bytes/" + key], out["dequant/" + key] = packed, values
        rmse[key] = round(float(np.sqrt(np.mean((x.astype(np.float64) - values) ** 2))), 10)
    case = f"{folder}/{name.upper()}"
    save_file(out, case + ".safetensors")
    with open(case + ".json", "w") as f:
        json.dump({"type": name.upper(), "ggml_type": number, "block": [t.values, t.bytes], "rmse": rmse, "origin": "ggml"}, f, indent=1)
        f.write("\n")


if len(sys.argv) > 2:
    for number in (41, 42):
        write_case(sys.argv[2], number)
    sys.exit()
for number in NUMBERS:
    t = lib.ggml_get_type_traits(number).contents
    decode = Decoder(t.to_float) if t.to_float else Decoder(("dequantize_row_" + t.name.decode(), lib))
    values = np.zeros(BLOCKS * t.values, np.float32)
    decode(random_bytes(number, BLOCKS * t.bytes), values.ctypes.data, len(values))
    values[np.isnan(values) | (values == 0)] = 0
    print('{"%s", 0x%016x},' % (t.name.decode(), digest(values.tobytes())))
