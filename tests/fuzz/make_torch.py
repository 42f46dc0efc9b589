"""Writes the samples of corpus/torch: files as torch.save writes them, and hostile ones, instruction by instruction and without
torch: make_torch.py [FOLDER]. The unit test of the reader says what is expected of each."""
import os, struct, sys


class Pickle(bytearray):
    """Instructions of protocol 2, with a memo place for each name, as torch writes them."""

    def __init__(self, protocol=2):
        super().__init__(b"\x80" + bytes([protocol]))
        self.protocol, self.memo, self.places = protocol, {}, 0

    def put(self):
        if self.protocol >= 4:
            self += b"\x94"
        else:
            self += b"q" + bytes([self.places]) if self.places < 256 else b"r" + struct.pack("<I", self.places)
        self.places += 1

    def seen(self, what):
        if what in self.memo:
            self.__iadd__(b"h" + bytes([self.memo[what]]) if self.memo[what] < 256 else b"j" + struct.pack("<I", self.memo[what]))
            return True
        self.memo[what] = self.places + (2 if self.protocol >= 4 and isinstance(what, tuple) else 0)
        return False

    def text(self, s):
        if not self.seen(s):
            raw = s.encode()
            self += (b"\x8c" + bytes([len(raw)]) if self.protocol >= 4 else b"X" + struct.pack("<I", len(raw))) + raw
            self.put()

    def name(self, module, name):
        if self.seen((module, name)):
            return
        if self.protocol >= 4:
            for s in (module, name):
                self += b"\x8c" + bytes([len(s)]) + s.encode()
                self.put()
            self += b"\x93"
        else:
            self += f"c{module}\n{name}\n".encode()
        self.put()

    def number(self, v):
        if 0 <= v < 256:
            self += b"K" + bytes([v])
        elif 0 <= v < 65536:
            self += b"M" + struct.pack("<H", v)
        elif -2 ** 31 <= v < 2 ** 31:
            self += b"J" + struct.pack("<i", v)
        else:
            self += b"\x8a\x08" + struct.pack("<q", v)

    def numbers(self, values):
        self += b"("
        for v in values:
            self.number(v)
        self += b"t"

    def storage(self, kind, key, count, old=False):
        self += b"("
        self.text("storage")
        self.name("torch.storage" if kind == "UntypedStorage" else "torch", kind)
        self.text(key)
        self.text("cpu")
        self.number(count)
        self += b"NtQ" if old else b"tQ"

    def tensor(self, t, old=False):
        self.name("torch._utils", "_rebuild_tensor_v3" if t.get("dtype") else "_rebuild_tensor_v2")
        self += b"("
        self.storage(t["kind"], t["key"], t["count"], old)
        self.number(t.get("offset", 0))
        self.numbers(t["shape"])
        self.numbers(t["stride"])
        self += b"\x89"
        self.name("collections", "OrderedDict")
        self += b")R"
        if t.get("dtype"):
            self.name("torch", t["dtype"])
        self += b"tR"

    def state(self, tensors, old=False, plain=False):
        if plain:
            self += b"}"
        else:
            self.name("collections", "OrderedDict")
            self += b")R"
        self.put()
        self += b"("
        for name, t in tensors.items():
            self.text(name)
            if t.get("parameter"):
                self.name("torch._utils", "_rebuild_parameter")
                self += b"("
            self.tensor(t, old)
            if t.get("parameter"):
                self += b"\x88"
                self.name("collections", "OrderedDict")
                self += b")RtR"
        self += b"u"

    def done(self):
        return bytes(self) + b"."


def strides(shape):
    s, n = [], 1
    for d in reversed(shape):
        s.insert(0, n)
        n *= d
    return s


def plain(kind, key, shape, **more):
    n = 1
    for d in shape:
        n *= d
    return {"kind": kind, "key": key, "count": n, "shape": shape, "stride": strides(shape), **more}


def zip_file(records, wide=False, method=0, flags=0, change=None):
    """records: {name: bytes}; each data starts at a multiple of 64, as torch has it."""
    body, central, count = bytearray(), bytearray(), 0
    for name, data in records.items():
        raw = name.encode()
        pad = -(len(body) + 30 + len(raw) + 4) % 64
        at = len(body)
        extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 0, flags, method, 0, 0, 0, len(data), len(data), len(raw), len(extra)) + raw + extra + data
        size, offset, more = len(data), at, b""
        if change:
            size, offset = change(name, size, offset)
        if wide:
            more = struct.pack("<2H3Q", 1, 24, size, size, offset)
            size = offset = 0xffffffff
        central += struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, flags, method, 0, 0, 0, size, size, len(raw), len(more), 0, 0, 0, 0, offset) + raw + more
        count += 1
    at, n = len(body), len(central)
    body += central
    if wide:
        end = len(body)
        body += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, n, at) + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        count, n, at = 0xffff, 0xffffffff, 0xffffffff
    return bytes(body + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, n, at, 0))


def torch_zip(pickle, storages, order=b"little", **more):
    return zip_file({"m/data.pkl": pickle, "m/byteorder": order, **{f"m/data/{k}": v for k, v in storages.items()}, "m/version": b"3\n"}, **more)


def torch_old(pickle, storages, counts, little=True):
    p = Pickle()
    p += b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
    q = Pickle()
    q.number(1001)
    s = Pickle()
    s += b"}("
    s.text("protocol_version")
    s.number(1001)
    s.text("little_endian")
    s += b"\x88" if little else b"\x89"
    s += b"u"
    k = Pickle()
    k += b"]("
    for key in storages:
        k.text(key)
    k += b"e"
    data = b"".join(struct.pack("<q", counts[key]) + storages[key] for key in storages)
    return p.done() + q.done() + s.done() + pickle + k.done() + data


def main(out):
    def write(name, data):
        with open(os.path.join(out, name), "wb") as f:
            f.write(data)

    os.makedirs(out, exist_ok=True)

    # ---- good files: value k (from 0) of a storage is k + 1, or true

    kinds = {"f32": ("FloatStorage", "f"), "f64": ("DoubleStorage", "d"), "f16": ("HalfStorage", "e"), "i64": ("LongStorage", "q"),
             "i32": ("IntStorage", "i"), "i16": ("ShortStorage", "h"), "i8": ("CharStorage", "b"), "u8": ("ByteStorage", "B"),
             "bool": ("BoolStorage", "?")}
    tensors, storages = {}, {}
    for name, (kind, letter) in kinds.items():
        storages[name] = struct.pack(f"<6{letter}", *([True] * 6 if letter == "?" else range(1, 7)))
        tensors["t." + name] = plain(kind, name, [2, 3])
    storages["bf16"] = b"".join(struct.pack("<f", k)[2:] for k in range(1, 7))
    tensors["t.bf16"] = plain("BFloat16Storage", "bf16", [2, 3])
    storages["e4m3"] = bytes([0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c])
    storages["e5m2"] = bytes([0x3c, 0x40, 0x42, 0x44, 0x45, 0x46])
    tensors["t.f8_e4m3"] = plain("UntypedStorage", "e4m3", [2, 3], dtype="float8_e4m3fn")
    tensors["t.f8_e5m2"] = plain("UntypedStorage", "e5m2", [2, 3], dtype="float8_e5m2")
    storages["big"] = struct.pack("<24f", *range(1, 25))
    big = {"kind": "FloatStorage", "key": "big", "count": 24}
    tensors["tied"] = {**big, "shape": [4, 6], "stride": [6, 1]}
    tensors["tie"] = {**big, "shape": [4, 6], "stride": [6, 1], "parameter": True}
    tensors["rows"] = {**big, "shape": [2, 6], "stride": [6, 1], "offset": 6}
    tensors["turned"] = {**big, "shape": [6, 4], "stride": [1, 6]}
    tensors["every"] = {**big, "shape": [4, 3], "stride": [6, 2], "offset": 1}
    tensors["scalar"] = {**big, "shape": [], "stride": [], "offset": 4}
    tensors["empty"] = {"kind": "FloatStorage", "key": "none", "count": 0, "shape": [0, 4], "stride": [4, 1]}
    storages["none"] = b""
    counts = {k: (len(v) if k in ("e4m3", "e5m2") else 24 if k == "big" else 0 if k == "none" else 6) for k, v in storages.items()}


    def state(protocol=2, old=False):
        p = Pickle(protocol)
        if protocol >= 4:
            p += b"\x95" + struct.pack("<Q", 0)
        p.state(tensors, old)
        if protocol == 2:  # OrderedDict's attribute _metadata
            p += b"}"
            p.text("_metadata")
            p += b"}sb"
        return p.done()

    write("zip", torch_zip(state(), storages))
    write("zip-protocol4", torch_zip(state(4), storages))
    write("zip64", torch_zip(state(), storages, wide=True))
    write("old", torch_old(state(old=True), storages, counts))  # torch writes raw storages so, and cannot read them
    p = Pickle()
    p += b"}("
    p.text("epoch")
    p.number(-7)
    p.text("loss")
    p += b"G" + struct.pack(">d", 0.5)
    p.text("notes")
    p += b"N"
    p.text("state_dict")
    p.state({"a": plain("FloatStorage", "f32", [6])}, plain=True)
    p += b"u"
    write("nested", torch_zip(p.done(), {"f32": storages["f32"]}))

    # ---- files that are refused

    one = {"0": struct.pack("<4f", 1, 2, 3, 4)}


    def zipped(pickle):
        return torch_zip(bytes(pickle) + b".", one)


    def single(name="a", **more):
        p = Pickle()
        p.state({name: {**plain("FloatStorage", "0", [4]), **more}})
        return p.done()

    write("bad-system", zipped(Pickle() + b"cposix\nsystem\nX\x02\0\0\0id\x85R"))
    write("bad-system4", zipped(Pickle(4) + b"\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R"))
    write("bad-eval-in-dict", zipped(Pickle() + b"ccollections\nOrderedDict\n)R(X\x01\0\0\0ac__builtin__\neval\nX\x01\0\0\x001\x85Ru"))
    write("bad-inst", zipped(Pickle() + b"(X\x02\0\0\0idios\nsystem\n"))
    write("bad-ext", zipped(Pickle() + b"\x82\x01"))
    write("bad-module", zipped(Pickle() + b"ctorch.nn.modules.linear\nLinear\n)\x81}b"))
    write("bad-complex", torch_zip(Pickle() + b"ctorch\nComplexFloatStorage\n.", one))
    write("bad-memo", zipped(Pickle() + b"}r\xf0\xff\xff\xff"))
    write("bad-get", zipped(Pickle() + b"h\x07"))
    write("bad-nesting", zipped(Pickle() + b"]" * 3000 + b"a" * 2999))
    write("bad-length", zipped(Pickle() + b"\x8d" + struct.pack("<Q", 2 ** 63)))
    write("bad-stack", zipped(Pickle() + b"0"))
    write("bad-mark", zipped(Pickle() + b"(R"))
    write("bad-protocol", zipped(b"\x80\x09}"))
    write("bad-self", zipped(Pickle() + b"]q\0h\0a"))
    write("bad-none", zipped(Pickle() + b"}"))
    write("bad-offset", torch_zip(single(offset=2 ** 62), one))
    write("bad-reach", torch_zip(single(offset=1), one))
    write("bad-stride", torch_zip(single(stride=[2 ** 62]), one))
    write("bad-shape", torch_zip(single(shape=[2 ** 40, 2 ** 40], stride=[0, 0]), one))
    write("bad-negative", torch_zip(single(shape=[-4]), one))
    write("bad-expanded", torch_zip(single(shape=[1000], stride=[0]), one))
    write("bad-dims", torch_zip(single(shape=[1] * 9, stride=[1] * 9), one))
    write("bad-count", torch_zip(single(count=2 ** 62), one))
    write("bad-storage-size", torch_zip(single(count=5), one))
    write("bad-storage-gone", torch_zip(single(key="7"), one))
    p = Pickle()
    p.state({"a": plain("FloatStorage", "0", [4]), "b": plain("IntStorage", "0", [4])})
    write("bad-two-types", torch_zip(p.done(), one))
    write("bad-name", torch_zip(single(name="a\0b"), one))
    p = Pickle()
    p.state({"a": plain("FloatStorage", "0", [4])})
    p += b"X\x01\0\0\0a"
    p.tensor(plain("FloatStorage", "0", [4]))
    p += b"s"
    write("bad-twice", torch_zip(p.done(), one))
    # views of one storage, each of which would need memory of its own
    p = Pickle()
    p.state({f"v{i}": {**big, "shape": [6, 4], "stride": [1, 6]} for i in range(60)})
    write("bad-copies", torch_zip(p.done(), {"big": storages["big"]}))
    good = single()
    write("bad-order", torch_zip(good, one, order=b"big"))
    write("bad-script", zip_file({"m/data.pkl": good, "m/constants.pkl": b"\x80\x02)."}))
    write("bad-no-pickle", zip_file({"m/version": b"3\n"}))
    write("bad-compressed", torch_zip(good, one, method=8))
    write("bad-encrypted", torch_zip(good, one, flags=1))
    write("bad-cut", torch_zip(good, one)[:-30])
    write("bad-size", torch_zip(good, one, change=lambda n, s, o: (2 ** 31 if n.endswith("/0") else s, o)))
    write("bad-place", torch_zip(good, one, change=lambda n, s, o: (s, 2 ** 31 if n.endswith("/0") else o)))
    write("bad-place64", torch_zip(good, one, wide=True, change=lambda n, s, o: (s, 2 ** 63 if n.endswith("/0") else o)))
    write("bad-size64", torch_zip(good, one, wide=True, change=lambda n, s, o: (2 ** 64 - 8 if n.endswith("/0") else s, o)))
    write("bad-header", torch_zip(good, one, change=lambda n, s, o: (s, 1 if n.endswith("/0") else o)))
    write("bad-overlap", torch_zip(good, one, change=lambda n, s, o: (s + 64 if n.endswith("pkl") else s, o)))
    old = torch_old(single(), one, {"0": 4})
    write("bad-old-cut", old[:-4])
    write("bad-old-long", old + b"\0")
    write("bad-old-count", torch_old(single(), one, {"0": 2 ** 62}))
    write("bad-old-order", torch_old(single(), one, {"0": 4}, little=False))
    write("bad-old-system", Pickle() + b"cposix\nsystem\nX\x02\0\0\0id\x85R.")
    write("bad-old-magic", Pickle() + b"K\x07.")
    write("bad-text", b"hello, this is no model")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "torch"))
