/**
 * The KV blocks that the prefix cache has given up, in host memory and in files, as a state machine: it has evicted
 * blocks read off the device, finds them by hash, and has them written to the blocks of a request that hits them, with
 * the rows that were computed with them (L9). It has no promise, clock, disk or randomness of its own; the host drives
 * it with workers and a directory, the simulator with virtual ones.
 *
 *     evicted … planned ─▶ readKv … keysRead ─▶ host memory ─▶ file
 *     find ─▶ startLoad ─▶ every block has its keys ─▶ writeKv … written ─▶ finishLoad
 *                │ of a file: read … fileRead ─┘            fileNotRead ─▶ finishLoad: recompute
 *
 * A block that is on its way can be found: a load waits for it. Only blocks that are there are written to the device.
 */

import type { RowShape } from '../../capture/row-shape.ts';
import type { EvictedBlock, ExternalKv, KvLoad, KvLoadOutcome, PrefixQuestion } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { FileBlocks, FileEntry } from './file-blocks.ts';
import { HostBlocks } from './host-blocks.ts';
import { loadedRows } from './loaded-rows.ts';
import { TierBlock, type TierRows } from './tier-block.ts';

export type TierOptions = Readonly<{
  /** The most blocks in host memory. */
  capacity: number;
  /** Reads of the device under way at once. What is evicted beyond them is not kept. */
  mostCopies: number;
  blockSize: number;
  rowShape: RowShape;
}>;

/** A read of blocks off the device. */
export type TierCopy = Readonly<{ blockIds: readonly number[]; blocks: readonly TierBlock[] }>;

/** A load of the engine, and the blocks that it brings. */
export type TierLoad = Readonly<{ load: KvLoad; blocks: readonly TierBlock[] }>;

/** What the tier asks of its driver. None of these may call the tier back before it has returned. */
export type TierActions = Readonly<{
  /** Hand the read to the workers at once, ahead of the step being planned; call `keysRead` or `notRead`. */
  readKv: (copy: TierCopy) => void;
  /** Write the keys of all blocks to those of the load; call `written` or `notWritten`. */
  writeKv: (load: TierLoad) => void;
  /** See `EngineCore.finishLoad`. */
  finishLoad: (load: KvLoad, outcome: KvLoadOutcome) => void;
}>;

/** Since the start. Bytes are those of keys and rows. */
export type TierCounts = {
  blocksSaved: number;
  /** Evicted and not kept, since too many copies were under way. */
  blocksSkipped: number;
  bytesToHost: number;
  bytesFromHost: number;
  loads: number;
  failedLoads: number;
};

/** What a request found, until its load begins: a block in host memory, or a file with the block for it. */
type Find = Readonly<{ block: TierBlock; file: FileEntry | null }>;
type Finds = Readonly<{
  requestId: string;
  from: number;
  finds: readonly Find[];
  /** `null`: no row is wanted. */
  rowsStart: number | null;
  needsRows: boolean;
}>;

type LoadUnderWay = TierLoad & Pick<Finds, 'rowsStart' | 'needsRows'> & { numComing: number };

/** Invariant: a load under way waits for its blocks, or is being written; one whose workers were lost is neither. */
export class KvTier {
  readonly counts: TierCounts = {
    blocksSaved: 0,
    blocksSkipped: 0,
    bytesToHost: 0,
    bytesFromHost: 0,
    loads: 0,
    failedLoads: 0,
  };
  readonly #options: TierOptions;
  readonly #actions: TierActions;
  readonly #files: FileBlocks | null;
  readonly #host: HostBlocks;
  /** Evicted in the planning under way. */
  #evicted: { readonly blockIds: number[]; readonly blocks: TierBlock[] } = { blockIds: [], blocks: [] };
  readonly #copies: Set<TierCopy> = new Set();
  /** By load id. */
  readonly #loads: Map<number, LoadUnderWay> = new Map();
  /** Blocks on their way, and the loads that wait for each. */
  readonly #coming: Map<TierBlock, LoadUnderWay[]> = new Map();
  /** Blocks with keys, whose rows are under way. */
  readonly #unsettled: Set<TierBlock> = new Set();
  #found: Finds | null = null;

  constructor(options: TierOptions, actions: TierActions, files: FileBlocks | null) {
    this.#options = options;
    this.#actions = actions;
    this.#files = files;
    this.#host = new HostBlocks(options.capacity);
  }

  /** After a drain copies and loads are 0, and after a cache reset all are (L7). */
  liveCounts(): Readonly<{ blocks: number; copies: number; loads: number; files: number }> {
    const { size: blocks } = this.#host;
    return { blocks, copies: this.#copies.size, loads: this.#loads.size, files: this.#files?.size ?? 0 };
  }

  /** See `KvConnector.onEvicted`. */
  evicted({ blockId, hashes, at, hashWords, rows }: EvictedBlock): void {
    const hash = hashText(hashes, at, hashWords);
    const { blockSize, mostCopies } = this.#options;
    const rowsOffset = rows === null ? blockSize : rows.from % blockSize;
    const known = this.#host.get(hash);
    if (known !== undefined && known.rowsOffset <= rowsOffset) {
      this.#host.touch(known);
      return;
    }
    const block = new TierBlock({ hash, rowsOffset, evicted: rows });
    if (this.#copies.size >= mostCopies || !this.#host.add(block)) {
      this.counts.blocksSkipped += 1;
      return;
    }
    this.#coming.set(block, []);
    this.#evicted.blockIds.push(blockId);
    this.#evicted.blocks.push(block);
  }

  /** See `KvConnector.onPlanned`. */
  planned(): void {
    this.#found = null;
    if (this.#evicted.blocks.length === 0) return;
    const copy = this.#evicted;
    this.#evicted = { blockIds: [], blocks: [] };
    this.#copies.add(copy);
    this.#actions.readKv(copy);
  }

  /** See `KvConnector.externalKv`. */
  find(request: CaptureRequest, { numComputed, needsRows }: PrefixQuestion): ExternalKv | null {
    const { blockSize } = this.#options;
    const { blockHashes, blockHashWords, requestId, returnRoutedExperts, routedExpertsPromptStart } = request;
    const first = numComputed / blockSize;
    const end = Math.floor((request.numTokens - 1) / blockSize);
    const finds: Find[] = [];
    for (let i = first; i < end; i += 1) {
      const find = this.#findBlock(hashText(blockHashes, i * blockHashWords, blockHashWords));
      if (find === null) break;
      const offset = routedExpertsPromptStart - i * blockSize;
      if (needsRows && offset < blockSize && !find.block.hasRowsFrom(Math.max(0, offset))) break;
      finds.push(find);
    }
    // A prefix is of use from its front on: its front goes last.
    for (const { block } of finds.toReversed()) this.#host.touch(block);
    const rowsStart = returnRoutedExperts ? routedExpertsPromptStart : null;
    this.#found = { requestId, from: numComputed, finds, rowsStart, needsRows };
    // Rows are promised where they are needed. Elsewhere some blocks may have them.
    return finds.length === 0 ? null : { numTokens: (first + finds.length) * blockSize, hasRows: needsRows };
  }

  /** See `KvConnector.startLoad`. */
  startLoad(load: KvLoad): void {
    const { finds, rowsStart, needsRows } = this.#found!;
    const blocks = finds.slice(0, load.blockIds.length).map((find) => this.#begin(find));
    const underWay: LoadUnderWay = { load, blocks, rowsStart, needsRows, numComing: 0 };
    this.counts.loads += 1;
    this.#loads.set(load.loadId, underWay);
    for (const block of blocks) {
      const waiting = this.#coming.get(block);
      if (waiting === undefined) continue;
      waiting.push(underWay);
      underWay.numComing += 1;
    }
    if (underWay.numComing === 0) this.#actions.writeKv(underWay);
  }

  /** The blocks of a copy have been read: `[blocks, stages, blockSize, 2]` u32. */
  keysRead(copy: TierCopy, keys: Uint32Array): void {
    if (!this.#copies.delete(copy)) return;
    const words = keys.length / copy.blocks.length;
    for (const [i, block] of copy.blocks.entries()) {
      block.keys = keys.slice(i * words, (i + 1) * words);
      this.counts.blocksSaved += 1;
      this.counts.bytesToHost += block.keys.byteLength;
      this.#unsettled.add(block);
    }
    this.#settle();
    for (const block of copy.blocks) this.#arrive(block);
  }

  /** The blocks of a copy could not be read. */
  notRead(copy: TierCopy): void {
    if (!this.#copies.delete(copy)) return;
    for (const block of copy.blocks) this.#lose(block);
  }

  /** The file was whole, and its checksum right. */
  fileRead(block: TierBlock, keys: Uint32Array, rows: TierRows | null): void {
    block.keys = keys;
    block.rows = rows;
    this.#arrive(block);
  }

  fileNotRead(entry: FileEntry, block: TierBlock): void {
    this.#files!.notRead(entry);
    this.#lose(block);
  }

  /** The keys of a load are in its blocks. */
  written(written: TierLoad): void {
    const { load } = written;
    const underWay = this.#loads.get(load.loadId);
    if (underWay === undefined || underWay !== written) return;
    for (const block of underWay.blocks) this.counts.bytesToHost += block.settleRows();
    const rows = loadedRows(underWay, this.#options);
    // Rows that were promised come, or the load fails: L4 leaves no third way.
    if (underWay.needsRows && rows !== null && rows.missing.length > 0) {
      this.#fail(underWay);
      return;
    }
    this.#loads.delete(load.loadId);
    this.counts.bytesFromHost += underWay.blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#actions.finishLoad(load, { kind: 'loaded', rows });
  }

  notWritten(load: TierLoad): void {
    if (this.isUnderWay(load)) this.#fail(load);
  }

  /** The blocks of a load that is not may be another request's: nothing must be written to them. */
  isUnderWay(load: TierLoad): boolean {
    return this.#loads.get(load.load.loadId) === load;
  }

  /**
   * The engine has given up every load, and what was to be read off the devices is gone. What lies here stays: it was
   * computed under the same weights.
   */
  onWorkersLost(): void {
    this.#loads.clear();
    for (const { blocks } of [this.#evicted, ...this.#copies]) for (const block of blocks) this.#lose(block);
    this.#evicted = { blockIds: [], blocks: [] };
    this.#copies.clear();
  }

  /** No load is under way. What is being read was computed before the reset, and is not to be found either. */
  onCacheReset(): void {
    this.#evicted = { blockIds: [], blocks: [] };
    this.#copies.clear();
    this.#coming.clear();
    this.#unsettled.clear();
    this.#host.clear();
    this.#files?.clear();
  }

  #findBlock(hash: string): Find | null {
    const block = this.#host.get(hash);
    if (block !== undefined) return { block, file: null };
    const file = this.#files?.find(hash) ?? null;
    if (file === null) return null;
    return { block: new TierBlock({ hash, rowsOffset: file.rowsOffset, evicted: null }), file };
  }

  /** A block of a file comes to host memory first; two loads that found it read it once. */
  #begin({ block, file }: Find): TierBlock {
    if (file === null) return block;
    const known = this.#host.get(block.hash);
    if (known !== undefined && known.rowsOffset <= block.rowsOffset) return known;
    this.#coming.set(block, []);
    this.#host.add(block);
    this.#files!.read(file, block);
    return block;
  }

  /** The keys of a block are there: loads that waited for no other are written. */
  #arrive(block: TierBlock): void {
    const waiting = this.#coming.get(block) ?? [];
    this.#coming.delete(block);
    for (const underWay of waiting) {
      underWay.numComing -= 1;
      if (underWay.numComing === 0 && this.isUnderWay(underWay)) this.#actions.writeKv(underWay);
    }
  }

  /** A block will not come. */
  #lose(block: TierBlock): void {
    const waiting = this.#coming.get(block) ?? [];
    this.#coming.delete(block);
    this.#host.remove(block);
    for (const underWay of waiting) if (this.isUnderWay(underWay)) this.#fail(underWay);
  }

  #fail({ load }: TierLoad): void {
    this.#loads.delete(load.loadId);
    this.counts.failedLoads += 1;
    this.#actions.finishLoad(load, { kind: 'recompute' });
  }

  /** Blocks go to files once they have their rows. Those whose rows never come stay in host memory only. */
  #settle(): void {
    for (const block of this.#unsettled) {
      this.counts.bytesToHost += block.settleRows();
      if (block.lacksRows) {
        if (this.#host.get(block.hash) !== block) this.#unsettled.delete(block);
        continue;
      }
      this.#unsettled.delete(block);
      this.#files?.store(block);
    }
  }
}

/** A hash as a key of maps: two UTF-16 units a word, which takes half the time of hexadecimal digits. */
function hashText(hashes: Uint32Array, at: number, hashWords: number): string {
  let text = '';
  for (let i = at; i < at + hashWords; i += 1) {
    const word = hashes[i]!;
    text += String.fromCharCode(word >>> 16, word & 0xffff);
  }
  return text;
}
