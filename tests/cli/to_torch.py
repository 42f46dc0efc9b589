"""Turns FOLDER/model.safetensors into files of torch.save: to_torch.py FOLDER N [old]. N files, with an index where they are
several; "old": in the format before torch 1.6. Standard library only."""
import json, os, struct, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz"))
from make_torch import Pickle, plain, torch_old, torch_zip

folder, parts, old = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["old"]
path = os.path.join(folder, "model.safetensors")
with open(path, "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    header, data = json.loads(f.read(n)), f.read()
header.pop("__metadata__", None)
kinds = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
names, index = sorted(header), {}
for part in range(parts):
    tensors, storages = {}, {}
    file = "pytorch_model.bin" if parts == 1 else f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
    for i, name in enumerate(names[part::parts]):
        h, key = header[name], str(i)
        storages[key] = data[h["data_offsets"][0]:h["data_offsets"][1]]
        tensors[name] = plain(kinds[h["dtype"]], key, h["shape"], parameter=True)
        index[name] = file
    p = Pickle()
    p.state(tensors, old)
    whole = torch_old(p.done(), storages, {t["key"]: t["count"] for t in tensors.values()}) if old else torch_zip(p.done(), storages)
    with open(os.path.join(folder, file), "wb") as f:
        f.write(whole)
if parts > 1:
    with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": index}, f)
os.remove(path)
