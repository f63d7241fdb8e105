/** Files in virtual time: slow, full, read-only, or with something else in them than their names say. */

import type { FileEntry } from '../../handover/tier/file-blocks.ts';
import type { TierBlock } from '../../handover/tier/tier-block.ts';
import { random, type Random } from '../../workload/random.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { CopyTiming, VirtualFiles } from './offload-scenario.ts';

/** What a file holds: it never changes. */
type StoredBlock = Readonly<Pick<TierBlock, 'keys' | 'rows'>>;

export class VirtualStore {
  readonly #clock: Clock;
  readonly #files: VirtualFiles;
  readonly #stream: Random;
  readonly #blocks: Map<FileEntry, StoredBlock> = new Map();

  constructor(clock: Clock, files: VirtualFiles, seed: number) {
    this.#clock = clock;
    this.#files = files;
    this.#stream = random(seed, 'sim/offload-files');
  }

  /** Files that are there. */
  get size(): number {
    return this.#blocks.size;
  }

  write(entry: FileEntry, { keys, rows }: TierBlock, end: (isWritten: boolean) => void): void {
    const fails = this.#stream.nextFloat() < this.#files.failedWriteShare;
    this.#soon(() => {
      if (!fails) this.#blocks.set(entry, { keys, rows });
      end(!fails);
    });
  }

  /** `null`: what is there is not the block. */
  read(entry: FileEntry, end: (stored: StoredBlock | null) => void): void {
    const fails = this.#stream.nextFloat() < this.#files.failedReadShare;
    this.#soon(() => end(fails ? null : (this.#blocks.get(entry) ?? null)));
  }

  remove(entry: FileEntry): void {
    this.#blocks.delete(entry);
  }

  #soon(run: () => void): void {
    const ticks = drawnTicks(this.#stream, this.#files.timing);
    this.#clock.plan(this.#clock.now + ticks, Phase.client, run);
  }
}

export function drawnTicks(stream: Random, { ticks, jitter, slowShare, slowFactor }: CopyTiming): number {
  const drawn = ticks + stream.below(jitter + 1);
  return stream.nextFloat() < slowShare ? drawn * slowFactor : drawn;
}
