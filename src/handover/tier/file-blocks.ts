/**
 * Which blocks lie in files, as a state machine: what is written, found, given up. It has no promise, clock, disk or
 * randomness of its own; the host drives it with a directory, the simulator with a virtual store.
 *
 *     store ─▶ writing ─written─▶ stored ─find─▶ read … ─▶ the tier
 *                 └─notWritten─▶ ×    └─notRead, oldest─▶ remove
 */

import type { TierBlock } from './tier-block.ts';

/** A block in a file. The name of a file says all that must be equal for its block to be of use. */
export type FileEntry = Readonly<{
  /** Of model, weights and the tokens up to the block's end. */
  name: string;
  /** The first of the block's tokens that has a row; the block size: none has. */
  rowsOffset: number;
}>;

/** What is asked of the driver. None of these may call back before it has returned. */
export type FileActions = Readonly<{
  /** Call `written` or `notWritten`. */
  write: (entry: FileEntry, block: TierBlock) => void;
  /** Call `KvTier.fileRead` or `fileNotRead`. */
  read: (entry: FileEntry, block: TierBlock) => void;
  remove: (entry: FileEntry) => void;
}>;

export type FileBlocksOptions = Readonly<{
  /** Of a block's hash. */
  nameOf: (hash: string) => string;
  /** The most files. */
  capacity: number;
  /** Found at the start, the one used longest ago first; others' are among them, and are given up in their turn. */
  found: readonly FileEntry[];
}>;

/** Since the start. Problems are files that could not be written or read, or that hold something else. */
export type FileCounts = { writes: number; reads: number; skippedWrites: number; problems: number };

/** Files that are being written. A disk that is slower than the tier gets fewer blocks, and not more memory. */
const MOST_WRITES = 64;

export class FileBlocks {
  readonly counts: FileCounts = { writes: 0, reads: 0, skippedWrites: 0, problems: 0 };
  readonly #options: FileBlocksOptions;
  readonly #actions: FileActions;
  /** By name, the one used longest ago first. */
  readonly #entries: Map<string, FileEntry> = new Map();
  /** Those of `#entries` that are not whole yet, and those whose place was given up meanwhile. */
  readonly #writing: Set<FileEntry> = new Set();

  constructor(options: FileBlocksOptions, actions: FileActions) {
    this.#options = options;
    this.#actions = actions;
    for (const entry of options.found) this.#entries.set(entry.name, entry);
    this.#makeRoom(0);
  }

  get size(): number {
    return this.#entries.size;
  }

  get numWriting(): number {
    return this.#writing.size;
  }

  /** A block has its keys and its rows: it is written, unless it is there with as many rows. */
  store(block: TierBlock): void {
    const name = this.#options.nameOf(block.hash);
    const { rowsOffset } = block;
    const known = this.#entries.get(name);
    if (known !== undefined && known.rowsOffset <= rowsOffset) {
      this.#touch(known);
      return;
    }
    if (this.#writing.size >= MOST_WRITES) {
      this.counts.skippedWrites += 1;
      return;
    }
    if (known !== undefined) this.#giveUp(known);
    this.#makeRoom(1);
    const entry = { name, rowsOffset };
    this.#entries.set(name, entry);
    this.#writing.add(entry);
    this.#actions.write(entry, block);
  }

  /** The file of a block with this hash, or `null`. A file that is being written is none. */
  find(hash: string): FileEntry | null {
    const entry = this.#entries.get(this.#options.nameOf(hash));
    return entry === undefined || this.#writing.has(entry) ? null : entry;
  }

  /** A block of the file is needed. */
  read(entry: FileEntry, block: TierBlock): void {
    this.counts.reads += 1;
    this.#touch(entry);
    this.#actions.read(entry, block);
  }

  /** The file is whole and on the disk. */
  written(entry: FileEntry): void {
    this.#writing.delete(entry);
    this.counts.writes += 1;
    if (this.#entries.get(entry.name) !== entry) this.#actions.remove(entry);
  }

  notWritten(entry: FileEntry): void {
    this.#writing.delete(entry);
    this.counts.problems += 1;
    this.#forget(entry);
  }

  /** The file is not there, or is not what its name says. */
  notRead(entry: FileEntry): void {
    this.counts.problems += 1;
    if (this.#entries.get(entry.name) === entry) this.#giveUp(entry);
  }

  /** No block is to come back. */
  clear(): void {
    for (const entry of this.#entries.values()) this.#giveUp(entry);
  }

  #makeRoom(numNew: number): void {
    for (const entry of this.#entries.values()) {
      if (this.#entries.size + numNew <= this.#options.capacity) return;
      this.#giveUp(entry);
    }
  }

  /** A file that is being written goes when it is whole. */
  #giveUp(entry: FileEntry): void {
    this.#forget(entry);
    if (!this.#writing.has(entry)) this.#actions.remove(entry);
  }

  #forget(entry: FileEntry): void {
    if (this.#entries.get(entry.name) === entry) this.#entries.delete(entry.name);
  }

  #touch(entry: FileEntry): void {
    if (!this.#entries.delete(entry.name)) return;
    this.#entries.set(entry.name, entry);
  }
}
