/**
 * MessagePack as vLLM's msgspec reads and writes it. An integer of 64 bits on the wire is a `bigint` here, in both
 * directions: ids of calls use all of them.
 */

import { decode, encode, ExtData } from '@msgpack/msgpack';

/** Extension type of vLLM's: the bytes of an array. */
const RAW_BYTES = 3;

export function pack(value: unknown): Uint8Array {
  return encode(value, { useBigInt64: true });
}

/** Throws an Error for bytes that are not one whole value. Unknown extensions come out as `ExtData`. */
export function unpack(bytes: Uint8Array): unknown {
  // Each item takes a byte at least: a longer array is a lie, for which no memory is taken.
  const most = bytes.length;
  return decode(bytes, { useBigInt64: true, maxArrayLength: most, maxMapLength: most });
}

/** Bytes that stand in the message itself. */
export function rawBytes(bytes: Uint8Array): ExtData {
  return new ExtData(RAW_BYTES, bytes);
}

/**
 * The first item of an array, if it is a text: the id of a request whose message cannot be read to its end. `null`: it
 * has none.
 */
export function firstText(bytes: Uint8Array): string | null {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const arrayHeader = headerLength(view[0], 0x90, 0xdc);
  if (arrayHeader === null) return null;
  const at = arrayHeader;
  const kind = view[at];
  if (kind === undefined) return null;
  const [from, length] =
    kind >> 5 === 0b101
      ? [at + 1, kind & 0x1f]
      : kind === 0xd9 && at + 1 < view.length
        ? [at + 2, view.readUInt8(at + 1)]
        : [0, -1];
  if (length < 0 || from + length > view.length) return null;
  return view.toString('utf8', from, from + length);
}

/** Of an array with up to 15 items, or up to 65,535. */
function headerLength(first: number | undefined, fixed: number, wide: number): number | null {
  if (first === undefined) return null;
  if ((first & 0xf0) === fixed) return 1;
  return first === wide ? 3 : null;
}
