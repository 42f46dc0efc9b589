"""Changes FOLDER/model.safetensors: edit_tensors.py FOLDER EDIT…, an EDIT being "drop NAME", "rename NAME NEW", "copy NAME NEW",
"rows NAME N" (the first N of them), "type DTYPE" (of all matrices: F16, BF16, F8_E4M3, F8_E5M2; the values must fit, see "round"),
"round DTYPE" (values become ones that DTYPE has), "scaled row", "scaled tensor" or "scaled N" (projections of f32 become F8_E4M3 with
scales beside them for each row, one, or for blocks of N x N, and config.json says so), or "size NAME N" (N rows of zeros, in a sparse file). Standard library only."""
import bisect, json, os, struct, sys

folder, edits = sys.argv[1], [e.split() for e in sys.argv[2:]]
path = os.path.join(folder, "model.safetensors")
with open(path, "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    header, data = json.loads(f.read(n)), f.read()
header.pop("__metadata__", None)
tensors = {k: [v["dtype"], v["shape"], data[v["data_offsets"][0]:v["data_offsets"][1]]] for k, v in header.items()}
bytes_of = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


def value8(code, e_bits):
    m_bits, bias = 7 - e_bits, 2 ** (e_bits - 1) - 1
    e, m = code >> m_bits & (2 ** e_bits - 1), code & (2 ** m_bits - 1)
    if e == 2 ** e_bits - 1 and (e_bits == 5 or m == 2 ** m_bits - 1):
        return None
    v = (2 ** m_bits + m) * 2.0 ** (e - bias - m_bits) if e else m * 2.0 ** (1 - bias - m_bits)
    return -v if code & 128 else v


def coder(dtype):
    """value -> (bytes, the value that they have)"""
    if dtype == "F16":
        return lambda v: (struct.pack("<e", v), struct.unpack("<e", struct.pack("<e", v))[0])
    if dtype == "BF16":
        return lambda v: (struct.pack("<f", v)[2:], struct.unpack("<f", b"\0\0" + struct.pack("<f", v)[2:])[0])
    table = sorted((v, c) for c in range(256) for v in [value8(c, 4 if dtype == "F8_E4M3" else 5)] if v is not None and c != 128)

    def code(v):
        i = bisect.bisect_left(table, (v, -1))
        best = min(table[max(i - 1, 0):i + 1], key=lambda t: abs(t[0] - v))
        return bytes([best[1]]), best[0]
    return code


sparse = None
for what, *a in edits:
    if what == "drop":
        del tensors[a[0]]
    elif what == "rename":
        tensors[a[1]] = tensors.pop(a[0])
    elif what == "copy":
        tensors[a[1]] = list(tensors[a[0]])
    elif what == "rows":
        t = tensors[a[0]]
        t[2] = t[2][:len(t[2]) // t[1][0] * int(a[1])]
        t[1] = [int(a[1])] + t[1][1:]
    elif what == "scaled":
        encode = coder("F8_E4M3")
        method = {"quant_method": "fp8", "weight_block_size": [int(a[0])] * 2} if a[0].isdigit() else {
            "quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}
        for name in [n for n in tensors if n.endswith("_proj.weight")]:
            (rows, width), values = tensors[name][1], [v for (v,) in struct.iter_unpack("<f", tensors[name][2])]
            high, wide = (int(a[0]), int(a[0])) if a[0].isdigit() else (1, width) if a[0] == "row" else (rows, width)
            shape = [-(-rows // high), -(-width // wide)]
            most = [0.0] * (shape[0] * shape[1])
            block = [i // width // high * shape[1] + i % width // wide for i in range(rows * width)]
            for b, v in zip(block, values):
                most[b] = max(most[b], abs(v))
            raw = struct.pack(f"<{len(most)}f", *(m / 448 for m in most))
            scale = [s for (s,) in struct.iter_unpack("<f", raw)]
            tensors[name] = ["F8_E4M3", [rows, width], b"".join(encode(v / scale[b])[0] for b, v in zip(block, values))]
            tensors[name + ("_scale_inv" if a[0].isdigit() else "_scale")] = ["F32", [1] if a[0] == "tensor" else shape, raw]
        path_of = os.path.join(folder, "config.json")
        config = json.load(open(path_of))
        json.dump(config | {"quantization_config": method}, open(path_of, "w"))
    elif what == "size":
        sparse, t = a[0], tensors.pop(a[0])
        t[1], t[2] = [int(a[1])] + t[1][1:], b""
        tensors[a[0]] = t  # the last of the file
    else:
        encode = coder(a[0])
        for t in tensors.values():
            if len(t[1]) < 2:
                continue
            done = [encode(v) for (v,) in struct.iter_unpack("<f", t[2])]
            if what == "type":
                t[0], t[2] = a[0], b"".join(d[0] for d in done)
            else:
                t[2] = struct.pack(f"<{len(done)}f", *(d[1] for d in done))
out, at = {}, 0
for name, (dtype, shape, raw) in tensors.items():
    size = bytes_of[dtype]
    for d in shape:
        size *= d
    out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
    at += size
text = json.dumps(out).encode()
text += b" " * (-len(text) % 8)
with open(path, "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))
    f.truncate(8 + len(text) + at)
