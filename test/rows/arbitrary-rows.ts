/** Random rows: of any start, element type, chunking and axis of layers, with rows missing anywhere. */

import fc from 'fast-check';
import type { PositionRange, RoutedRows } from '../../src/contract/routed-rows.ts';

export type ModelRows = Readonly<{ rows: RoutedRows; numExperts: number }>;

type Drawn = Readonly<{
  start: number;
  count: number;
  numLayers: number;
  topK: number;
  numExperts: number;
  rowsPerChunk: number;
  /** Whether chunks are counted from `start`, as a design that emits as it goes has them. */
  isPiece: boolean;
  isInt32: boolean;
  isMissing: readonly boolean[];
  /** Dense layers in front of each layer with a router, and behind the last. */
  numDense: readonly number[];
  axis: 'unnamed' | 'routers' | 'all';
  seed: number;
}>;

const drawn: fc.Arbitrary<Drawn> = fc.record({
  start: fc.nat(40),
  count: fc.nat(60),
  numLayers: fc.integer({ min: 1, max: 5 }),
  topK: fc.integer({ min: 1, max: 4 }),
  numExperts: fc.constantFrom(4, 127, 128, 129, 255, 256, 257, 512, 1024),
  rowsPerChunk: fc.integer({ min: 1, max: 20 }),
  isPiece: fc.boolean(),
  isInt32: fc.boolean(),
  isMissing: fc.array(fc.boolean(), { maxLength: 60 }),
  numDense: fc.array(fc.nat(2), { minLength: 6, maxLength: 6 }),
  axis: fc.constantFrom('unnamed', 'routers', 'all'),
  seed: fc.nat(),
});

/** The layers' axis of rows: how many layers a row counts, and which have a router. */
function layersOf({ numLayers, numDense, axis }: Drawn): Partial<Pick<RoutedRows, 'layers'>> & { numLayers: number } {
  if (axis === 'unnamed') return { numLayers };
  const layers: number[] = [];
  for (let i = 0, layer = 0; i < numLayers; i++, layer++) layers.push((layer += numDense[i]!));
  return { numLayers: axis === 'routers' ? numLayers : layers.at(-1)! + 1 + numDense[5]!, layers };
}

/** Memory of missing rows holds ids, which no reader may take for a routing. */
export const arbitraryRows: fc.Arbitrary<ModelRows> = drawn.map((shape) => {
  const { start, count, numLayers, topK, numExperts, rowsPerChunk, isPiece, isInt32, isMissing, seed } = shape;
  const dtype = isInt32 ? 'int32' : numExperts > 256 ? 'uint16' : 'uint8';
  const origin = isPiece ? start : 0;
  const numChunks = Math.ceil((start + count - origin) / rowsPerChunk);
  let state = seed;
  const chunks = Array.from({ length: numChunks }, () => {
    const length = rowsPerChunk * numLayers * topK;
    const ids = dtype === 'int32' ? new Int32Array(length) : dtype === 'uint16' ? new Uint16Array(length) : null;
    const chunk = ids ?? new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      chunk[i] = (state >>> 8) % numExperts;
    }
    return chunk;
  });
  const missing: PositionRange[] = [];
  for (let i = 0; i < count; i++) {
    if (isMissing[i] !== true) continue;
    const last = missing.at(-1);
    if (last?.[1] === start + i) missing[missing.length - 1] = [last[0], start + i + 1];
    else missing.push([start + i, start + i + 1]);
  }
  const rows = { start, count, ...layersOf(shape), topK, dtype, rowsPerChunk, chunks, missing } as const;
  return { rows: isPiece ? { ...rows, chunkOrigin: origin } : rows, numExperts };
});
