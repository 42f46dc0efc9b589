"""Cuts a GGUF file into two, as llama.cpp's gguf-split does: split_gguf.py FILE NAME makes NAME-00001-of-00002.gguf and its second.
Standard library only."""
import struct, sys

data = open(sys.argv[1], "rb").read()
at = 8
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def number(form):
    global at
    at += struct.calcsize("<" + form)
    return struct.unpack_from("<" + form, data, at - struct.calcsize("<" + form))[0]


def skip(kind):
    global at
    if kind == 8:
        n = number("Q")
        at += n
    elif kind == 9:
        item, n = number("I"), number("Q")
        for _ in range(n):
            skip(item)
    else:
        at += SIZES[kind]


tensors, values = number("Q"), number("Q")
begin = at
for _ in range(values):
    skip(8)
    skip(number("I"))
metadata = data[begin:at]
infos = []
for _ in range(tensors):
    start = at
    skip(8)
    dims = number("I")
    at += 8 * dims + 4
    infos.append((data[start:at], number("Q")))
base = (at + 31) // 32 * 32
ends = [offset for _, offset in infos[1:]] + [len(data) - base]


def key(name, kind, form, v):
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I" + form, kind, v)


half = tensors // 2
for no, (part, kept) in enumerate([(range(half), metadata), (range(half, tensors), b"")]):
    split = key("split.no", 2, "H", no) + key("split.count", 2, "H", 2) + key("split.tensors.count", 5, "i", tensors)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(part), (0 if no else values) + 3) + kept + split
    body = b""
    for i in part:
        head += infos[i][0] + struct.pack("<Q", len(body))
        body += data[base + infos[i][1]:base + ends[i]]
        body += bytes(-len(body) % 32)
    open(f"{sys.argv[2]}-0000{no + 1}-of-00002.gguf", "wb").write(head + bytes(-len(head) % 32) + body)
