/**
 * How many bytes rows take in the `packed` form, against base64 of a `.npy` file, and how fast ids are packed on one
 * core.
 */

import { readFileSync } from 'node:fs';
import { routedRows } from '../src/capture/routed-rows.ts';
import type { RoutedRows } from '../src/contract/routed-rows.ts';
import { scramble } from '../src/kernels/model/mix/mix.ts';
import { compressZstd } from '../src/rows/files/zstd.ts';
import { bitsOfId, narrowIds, packIds, targetWords } from '../src/rows/packed/pack-ids.ts';
import { BLOCK_BYTES, packedParts } from '../src/rows/packed/write-packed.ts';
import { rowMembers, type RowFormat } from '../src/rows/row-formats.ts';

type Sample = Readonly<{ name: string; rows: RoutedRows; numExperts: number }>;

const traces = new URL('../../shared/traces', import.meta.url).pathname;

function rowsOf(ids: ArrayLike<number>, numLayers: number, topK: number, isWide = false): RoutedRows {
  const chunk = isWide ? Uint16Array.from(ids) : Uint8Array.from(ids);
  const form = { numLayers, topK, dtype: isWide ? 'uint16' : 'uint8' } as const;
  return routedRows(form, 0, chunk.length / (numLayers * topK), { chunks: [chunk] });
}

/** K different experts a layer, all equally likely: nothing can be saved but bits. */
function synthetic(numExperts: number, topK: number): Sample {
  const [numLayers, count] = [60, 2000];
  const ids = new Uint16Array(count * numLayers * topK);
  let state = 0;
  for (let at = 0; at < ids.length; at++) {
    const from = at - (at % topK);
    do {
      ids[at] = (scramble(++state) >>> 0) % numExperts;
    } while (ids.subarray(from, at).includes(ids[at]!));
  }
  return { name: `E ${numExperts}, top ${topK}`, rows: rowsOf(ids, numLayers, topK, numExperts > 256), numExperts };
}

function read(name: string): never {
  return JSON.parse(readFileSync(`${traces}/${name}`, 'utf8')) as never;
}

function traced(): Sample[] {
  try {
    const qwen: { rows: number[][]; layers: number[]; topK: number; numExperts: number } =
      read('qwen1.5-moe-routing.json');
    const granite: {
      model: { layers: number; experts: number; topK: number };
      requests: { rows: string }[];
    } = read('granite-routing.json');
    const { layers, experts, topK } = granite.model;
    const bytes = Buffer.concat(granite.requests.map(({ rows }) => Buffer.from(rows, 'base64')));
    return [
      {
        name: 'Qwen1.5-MoE',
        rows: rowsOf(qwen.rows.flat(), qwen.layers.length, qwen.topK),
        numExperts: qwen.numExperts,
      },
      { name: 'Granite 1B', rows: rowsOf(bytes, layers, topK), numExperts: experts },
    ];
  } catch (error) {
    console.error(`no traces in ${traces}: ${(error as Error).message}`);
    return [];
  }
}

const total = (parts: Iterable<string | Uint8Array>): number => [...parts].reduce((sum, part) => sum + part.length, 0);
const inJson = (format: RowFormat, { rows, numExperts }: Sample): number =>
  total([...rowMembers(format, rows, numExperts)][0]![1]);

export async function run(): Promise<void> {
  for (const sample of [synthetic(128, 8), synthetic(256, 8), synthetic(384, 8), ...traced()]) {
    const npy = inJson('npy', sample);
    const { rows, numExperts } = sample;
    const sizes = {
      raw: total(packedParts(rows, { numExperts })),
      'in JSON': inJson('packed', sample),
      'raw, zstd': total(packedParts(rows, { numExperts, compress: compressZstd })),
    };
    const shown = Object.entries(sizes).map(([name, size]) => `${name} ${(size / npy).toFixed(3)}`);
    console.log(`${sample.name.padEnd(14)} of base64 .npy: ${shown.join('   ')}`);
  }

  // The best of many blocks: a core that others use too adds noise to the others.
  for (const numExperts of [32, 60, 128, 160, 384, 512, 896]) {
    const bits = bitsOfId(numExperts);
    const ids = narrowIds(bits, BLOCK_BYTES / (bits <= 8 ? 1 : 2));
    for (let i = 0; i < ids.length; i++) ids[i] = (Math.imul(i, 0x9e3779b1) >>> 8) % numExperts;
    const target = new Uint32Array(targetWords(ids.length, bits));
    let best = Infinity;
    for (let i = 0; i < 2000; i++) {
      const startedAt = performance.now();
      packIds(ids, ids.length, bits, target);
      best = Math.min(best, performance.now() - startedAt);
    }
    console.log(`E ${String(numExperts).padEnd(4)} ${bits} bits an id: ${(BLOCK_BYTES / best / 1e6).toFixed(2)} GB/s`);
  }
}
