/** What the ledger knows of blocks that are kept outside the device. */

import type { Judge } from './judge.ts';
import type { LoadedKv, TrackedRequest } from './tracked-request.ts';

/** What the slots of a block hold. */
export type SlotContents = Readonly<{
  tokens: readonly number[];
  positions: readonly number[];
  epochs: readonly number[];
  salts: readonly (string | null)[];
  /** With epochs. */
  rows: readonly (Uint16Array | null)[];
}>;

/** Blocks for a request, from position `from` on; `null`: nobody knows what a block holds. */
type KeptBlocks = Readonly<{ from: number; blocks: readonly (SlotContents | null)[]; blockSize: number; judge: Judge }>;

/** Returns blocks that were kept outside the device as KV of the request: it must be KV of its own tokens (L9). */
export function kvOf(request: TrackedRequest, { from, blocks, blockSize, judge }: KeptBlocks): LoadedKv {
  for (const [i, block] of blocks.entries()) {
    for (let s = 0; s < blockSize; s += 1) {
      const position = from + i * blockSize + s;
      const isOwn = block?.positions[s] === position && block.tokens[s] === request.tokens[position];
      if (isOwn && block.salts[s] === request.spec.salt) continue;
      const held = block === null ? 'nothing' : `token ${block.tokens[s]} at position ${block.positions[s]}`;
      judge.wrong('L9', `a block came back for position ${position} of ${request.name}, and holds ${held}`);
    }
  }
  const epochs = blocks.flatMap((block) => block?.epochs ?? []);
  const rows = blocks.flatMap((block) => (block?.rows ?? []) as Uint16Array[]);
  return { from, to: from + blocks.length * blockSize, epochs, rows };
}
