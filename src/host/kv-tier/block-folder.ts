/**
 * KV blocks in a folder, a file each: a crash leaves no half block under a block's name, and a file that cannot be
 * written, read or believed is a miss.
 */

import { existsSync, mkdirSync, readdirSync, statSync, unlinkSync } from 'node:fs';
import { open, readFile, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { RowShape } from '../../capture/row-shape.ts';
import type { FileEntry } from '../../handover/tier/file-blocks.ts';
import type { TierBlock } from '../../handover/tier/tier-block.ts';
import { settlesWithin } from '../../worker/settles-within.ts';
import { blockName, decodeBlock, encodeBlock, type StoredBlock } from './block-file-format.ts';
import type { TierIdentity } from './offload-options.ts';

/** Its name, and the first of its tokens that has a row. */
const FILE = /^([0-9a-f]{64})-(\d+)\.kv$/;
const UNFINISHED = /\.kv\.tmp-\d+-\d+$/;
/** A file that nobody has finished for so long, in ms, is left by a process that is gone. */
const UNFINISHED_AGE_MS = 600_000;

const READ_TIMEOUT_MS = 10_000;

export class BlockFolder {
  /** What lies there, the file used longest ago first. */
  readonly found: readonly FileEntry[];
  readonly #dir: string;
  readonly #identity: TierIdentity;
  readonly #rowShape: RowShape;
  #numWritten = 0;

  /** Throws what keeps the folder from being made or read. */
  constructor(dir: string, identity: TierIdentity, rowShape: RowShape) {
    this.#dir = dir;
    this.#identity = identity;
    this.#rowShape = rowShape;
    // Not `recursive`, which never returns in a file system that makes no folders, like /proc.
    if (!existsSync(dir)) mkdirSync(dir);
    this.found = this.#scan();
  }

  nameOf(hash: string): string {
    return blockName(this.#identity, hash);
  }

  /** Resolves when the file is whole and on the disk; rejects if it cannot be. */
  async write(entry: FileEntry, { keys, rows }: TierBlock): Promise<void> {
    const path = this.#pathOf(entry);
    const temporary = `${path}.tmp-${process.pid}-${this.#numWritten++}`;
    const { name, rowsOffset } = entry;
    const bytes = encodeBlock({ name, identity: this.#identity, rowsOffset }, { keys: keys!, rows });
    try {
      const file = await open(temporary, 'wx');
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
    await this.#syncFolder();
  }

  /** The block of a file, or what is wrong with it. A disk that stands still keeps no request waiting for ever. */
  async read(entry: FileEntry): Promise<StoredBlock | string> {
    const reading = this.#read(entry);
    if (await settlesWithin(READ_TIMEOUT_MS, reading)) return reading;
    return `it could not be read within ${READ_TIMEOUT_MS / 1e3} s`;
  }

  async #read(entry: FileEntry): Promise<StoredBlock | string> {
    try {
      const { name, rowsOffset } = entry;
      const expected = { name, rowsOffset, identity: this.#identity, rowShape: this.#rowShape };
      return decodeBlock(await readFile(this.#pathOf(entry)), expected);
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** A file that cannot be removed takes room, and does no other harm. */
  async remove(entry: FileEntry): Promise<void> {
    await unlink(this.#pathOf(entry)).catch(() => {});
  }

  /** Without this a power cut may take the new name, which is a miss. Not every file system can do it. */
  async #syncFolder(): Promise<void> {
    const folder = await open(this.#dir, 'r').catch(() => null);
    await folder?.sync().catch(() => {});
    await folder?.close();
  }

  #scan(): FileEntry[] {
    const entries: { entry: FileEntry; time: number }[] = [];
    for (const file of readdirSync(this.#dir)) {
      const [, name, rowsOffset] = FILE.exec(file) ?? [];
      const isUnfinished = UNFINISHED.test(file);
      if (name === undefined && !isUnfinished) continue;
      const time = statSync(join(this.#dir, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
      if (name !== undefined) entries.push({ entry: { name, rowsOffset: Number(rowsOffset) }, time });
      else if (Date.now() - time > UNFINISHED_AGE_MS) removeQuietly(join(this.#dir, file));
    }
    return entries.toSorted((a, b) => a.time - b.time).map(({ entry }) => entry);
  }

  #pathOf({ name, rowsOffset }: FileEntry): string {
    return join(this.#dir, `${name}-${rowsOffset}.kv`);
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Of a read-only folder.
  }
}
