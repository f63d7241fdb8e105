"""Reads routed experts in the form `packed`, with NumPy alone (zstd: Python 3.14, or the package zstandard).

    rows = read_packed(base64.b64decode(choice["routed_experts"]))
    rows.ids                  # [count, L, K], uint8 or uint16; rows of `missing` positions are -1 in int32
    answer, parts = read_answer(body)        # of "Accept: application/octet-stream"

The bytes are described in docs/packed-rows.md.
"""

import json
import struct
import zlib
from typing import Callable, NamedTuple, Optional

import numpy as np

CLIENTS_ROWS = 2**32 - 1


class Rows(NamedTuple):
    ids: np.ndarray  # [count, L, K]
    start: int  # position of ids[0]
    missing: list  # [from, to) in positions
    num_bytes: int


def read_packed(data: bytes, rows_of_choice: Optional[Callable] = None) -> Rows:
    """`rows_of_choice(index or None)`: the Rows of an earlier choice; None: those that the request said it has."""
    if data[:4] != b"rxp1":
        raise ValueError("not packed rows")
    header = struct.unpack_from("<BBH7I", data, 4)
    bits, content, k, layers, start, count, per_block, prefix_end, choice, num_missing = header
    at = 36
    missing = [struct.unpack_from("<2I", data, at + 8 * i) for i in range(num_missing)]
    at += 8 * num_missing
    dtype = np.dtype("u1" if bits <= 8 else "<u2")
    blocks = []
    left = _present(start, count, max(start, prefix_end), missing).sum()
    while True:
        (size,) = struct.unpack_from("<I", data, at)
        block = data[at + 4 : at + 4 + size]
        if len(block) != size:
            raise ValueError("the rows break off")
        at += 4 + size
        if size == 0:
            break
        num_ids = int(min(left, per_block)) * layers * k
        left -= min(left, per_block)
        blocks.append(_planes(block, dtype, num_ids) if content == 1 else _bits(block, bits, dtype, num_ids))
    if left:
        raise ValueError("the rows break off")
    ids = np.zeros((count, layers, k), dtype)
    if blocks:
        ids[_present(start, count, max(start, prefix_end), missing)] = np.concatenate(blocks).reshape(-1, layers, k)
    if prefix_end > start:
        if rows_of_choice is None:
            raise ValueError("the first rows are those of another choice: give rows_of_choice")
        source = rows_of_choice(None if choice == CLIENTS_ROWS else choice)
        ids[: prefix_end - start] = source.ids[start - source.start : prefix_end - source.start]
    if missing:
        ids = ids.astype(np.int32)
        for first, end in missing:
            ids[first - start : end - start] = -1
    return Rows(ids, start, [list(span) for span in missing], at)


def read_answer(data: bytes, known: Optional[Rows] = None):
    """The answer, and the Rows of each part, by the number in `routed_experts["part"]`."""
    if data[:4] != b"rxa1":
        raise ValueError("not an answer with packed rows")
    (length,) = struct.unpack_from("<I", data, 4)
    answer = json.loads(data[8 : 8 + length])
    choices = answer if isinstance(answer, list) else answer.get("choices", [answer])
    parts, at = [], 8 + length

    def rows_of_choice(index):
        return known if index is None else parts[choices[index]["routed_experts"]["part"]]

    while at < len(data):
        rows = read_packed(data[at:], rows_of_choice)
        parts.append(rows)
        at += rows.num_bytes
    return answer, parts


def known_rows(rows: Rows, end: int) -> dict:
    """What a request says of rows that its client has: `vllm_xargs.routed_experts_known`."""
    if rows.start != 0 or rows.missing or end > len(rows.ids):
        raise ValueError("not all rows before the end are there")
    return {"end": end, "crc32": zlib.crc32(np.ascontiguousarray(rows.ids[:end]).tobytes())}


def _present(start, count, first, missing) -> np.ndarray:
    mask = np.arange(start, start + count) >= first
    for begin, end in missing:
        mask[begin - start : end - start] = False
    return mask


def _bits(block: bytes, bits: int, dtype: np.dtype, num_ids: int) -> np.ndarray:
    flags = np.unpackbits(np.frombuffer(block, np.uint8), bitorder="little")[: num_ids * bits].reshape(num_ids, bits)
    weights = (1 << np.arange(bits)).astype(dtype)
    return (flags * weights).sum(axis=1, dtype=dtype)


def _planes(block: bytes, dtype: np.dtype, num_ids: int) -> np.ndarray:
    try:
        from compression import zstd  # Python 3.14

        planes = zstd.decompress(block)
    except ImportError:
        import zstandard

        planes = zstandard.ZstdDecompressor().decompress(block, max_output_size=num_ids * dtype.itemsize)
    return np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, num_ids).T.copy().view(dtype).reshape(-1)
