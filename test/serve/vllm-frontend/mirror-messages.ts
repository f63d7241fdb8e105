/** The messages of the mirror frontend: requests written, arrays read, in the words of the protocol's description. */

import { decode, encode, ExtData } from '@msgpack/msgpack';

const OPTIONS = { useBigInt64: true } as const;

export const pack = (value: unknown): Uint8Array => encode(value, OPTIONS);
export const unpack = (bytes: Uint8Array): unknown => decode(bytes, OPTIONS);

export type Json = Readonly<Record<string, unknown>>;

/** Rows as they come in one part. */
export type RowPart = Readonly<{ dtype: string; shape: readonly number[]; ids: readonly number[]; isFrame: boolean }>;

export type AddFields = Readonly<{
  id: string;
  prompt: readonly number[] | null;
  sampling?: Json;
  client?: number;
  /** Other positions of the array, by their number. */
  at?: Readonly<Record<number, unknown>>;
}>;

/** The array of a request: 21 positions. */
export function addArray({ id, prompt, sampling = {}, client = 0, at = {} }: AddFields): unknown[] {
  const items: unknown[] = Array.from({ length: 21 }, () => null);
  items[0] = id;
  items[1] = prompt;
  items[3] = { stop: [], stop_token_ids: [], bad_words: [], skip_reading_prefix_cache: false, ...sampling };
  items[5] = 1_700_000_000.25;
  items[11] = client;
  items[12] = 0;
  items[13] = 0;
  items[15] = false;
  items[16] = id;
  items[19] = false;
  for (const [position, value] of Object.entries(at)) items[Number(position)] = value;
  return items;
}

export function readArray(value: unknown, frames: readonly Buffer[]): RowPart {
  const [dtype, shape, data] = value as [string, number[], unknown];
  const isFrame = typeof data === 'number';
  check(isFrame || (data instanceof ExtData && data.type === 3), 'an array whose bytes are elsewhere');
  const bytes = isFrame ? frames[data]! : Buffer.from((data as ExtData).data as Uint8Array);
  check(isFrame === bytes.length >= 256, `${bytes.length} bytes ${isFrame ? 'in a frame' : 'inline'}`);
  const reader = READERS[dtype];
  check(reader !== undefined, `an array of ${dtype}`);
  const [size, read] = reader!;
  const ids = Array.from({ length: bytes.length / size }, (_, i) => read(bytes, i * size));
  check(ids.length === shape.reduce((a, b) => a * b, 1), `${ids.length} items for the shape ${shape.join('×')}`);
  return { dtype, shape, ids, isFrame };
}

type ItemReader = readonly [size: number, read: (bytes: Buffer, at: number) => number];
const int: ItemReader = [4, (bytes, at) => bytes.readInt32LE(at)];
const float: ItemReader = [4, (bytes, at) => bytes.readFloatLE(at)];
const READERS: Readonly<Record<string, ItemReader>> = {
  '|u1': [1, (bytes, at) => bytes.readUInt8(at)],
  '<u2': [2, (bytes, at) => bytes.readUInt16LE(at)],
  '<i4': int,
  int32: int,
  '<f4': float,
  float32: float,
};

/** Fails as vLLM's client would. */
export function check(isTrue: boolean, what: string): void {
  if (!isTrue) throw new Error(`the frontend would end: ${what}`);
}
