"""Makes the Parquet files of this folder, with pyarrow: a row of each kind of value and nesting, in the ways files are written."""
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent

schema = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("id", pa.int64()),
        ("label", pa.bool_()),
        ("score", pa.float32()),
        ("nested", pa.list_(pa.list_(pa.int32()))),
        ("s", pa.struct([("a", pa.int16()), ("b", pa.struct([("c", pa.list_(pa.string()))]))])),
    ]
)
rows = [
    {
        "messages": [{"role": "user", "content": f"q{i} é"}, {"role": "assistant", "content": "a" * (i % 7)}] if i % 11 else [],
        "id": i,
        "label": i % 3 == 0 if i % 5 else None,
        "score": i / 8 if i % 4 else None,
        "nested": [[1, None], [], None, [i]] if i % 2 else None,
        "s": {"a": None if i % 3 else i, "b": {"c": ["x"] * (i % 3)} if i % 5 else None} if i % 7 else None,
    }
    for i in range(40)
]
table = pa.Table.from_pylist(rows, schema=schema)
pq.write_table(table, HERE / "snappy.parquet", compression="snappy", row_group_size=16)
pq.write_table(table, HERE / "zstd.parquet", compression="zstd", use_dictionary=False, data_page_size=64)
pq.write_table(table, HERE / "gzip-v2.parquet", compression="gzip", data_page_version="2.0", row_group_size=25, data_page_size=64)
pq.write_table(table, HERE / "plain.parquet", compression="none")
pq.write_table(table.slice(0, 0), HERE / "empty.parquet")
types = {
    "b": pa.array([b"\xff\x00\x01", b"ok", None], pa.binary()),
    "u": pa.array([2**64 - 1, 0, 7], pa.uint64()),
    "i": pa.array([-5, None, 7], pa.int8()),
    "d": pa.array([0.1, float("nan"), 1e300]),
    "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    "n": pa.array([[(3, [1])], [(1, None), (2, [])], None], pa.map_(pa.int32(), pa.list_(pa.int32()))),
    "f": pa.array([b"\xffb", b"cd", None], pa.binary(2)),
    "l": pa.array(['"\n\x00', "é", None], pa.large_string()),
}
pq.write_table(pa.table(types), HERE / "types.parquet")
pq.write_table(pa.table({"t": ["x"], "x": pa.array([1], pa.decimal128(9, 2))}), HERE / "decimal.parquet")
