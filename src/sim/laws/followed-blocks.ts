/**
 * The cached blocks that an engine half follows: those of requests that want rows. They are derived from the calls to
 * the half, without asking it.
 *
 *     onBlocksCached, onExternalKv ─▶ followed ─▶ onBlockEvicted, onCacheReset
 *
 * They serve two checks. The half is told of the eviction of these blocks and of no others (L5). And cached rows are
 * shared: a request that wants rows is admitted with every block that has them, whichever request cached its tokens
 * first (L9).
 */

import type { CaptureRequest } from '../../contract/request.ts';
import { RequestKind, type SchedulerOutput } from '../../contract/scheduler-output.ts';
import type { Judge } from './judge.ts';

type FollowedBlock = Readonly<{
  /** Its hash: words of `hashes` from `at` on. */
  hashes: Uint32Array;
  at: number;
  /** The request that computed it. */
  owner: number;
  /** The block has no rows before this position; `null`: it is not known which rows it has. */
  rowsFrom: number | null;
  /** How many plans were made before it was cached. */
  numPlans: number;
}>;

export class FollowedBlocks {
  readonly #blockSize: number;
  readonly #judge: Judge;
  /** The design keeps rows with these blocks. */
  readonly #keepsRows: boolean;
  readonly #byId: Map<number, FollowedBlock> = new Map();
  /** By the first word of their hash, those of one hash and those that share no more than that word. */
  readonly #byWord: Map<number, FollowedBlock[]> = new Map();
  /** Requests for which KV is or was loaded. */
  readonly #loading: Set<number> = new Set();
  #numPlans = 0;

  constructor({ blockSize, judge, keepsRows }: Readonly<{ blockSize: number; judge: Judge; keepsRows: boolean }>) {
    this.#blockSize = blockSize;
    this.#judge = judge;
    this.#keepsRows = keepsRows;
  }

  onBlocksCached(request: CaptureRequest, firstBlock: number): void {
    const rowsFrom = this.#loading.has(request.index) ? null : request.routedExpertsPromptStart;
    for (let i = firstBlock; i < request.numCachedBlocks; i += 1) this.#add(request, i, rowsFrom);
  }

  /** KV from position `from` on was loaded; its rows are not looked at. */
  onExternalKv(request: CaptureRequest, from: number): void {
    for (let i = Math.ceil(from / this.#blockSize); i < request.numCachedBlocks; i += 1) this.#add(request, i, null);
  }

  onLoadBegun(request: CaptureRequest): void {
    this.#loading.add(request.index);
  }

  /** The request loses its blocks. */
  onTableLost(request: CaptureRequest): void {
    this.#loading.delete(request.index);
  }

  /** A tier asks for the rows of a block. */
  onRowsAsked(blockId: number): void {
    if (this.#byId.has(blockId)) return;
    this.#judge.wrong('L5', `the rows of block ${blockId} were asked for, of which the scheduler never told`);
  }

  onBlockEvicted(blockId: number): void {
    const block = this.#byId.get(blockId);
    if (block === undefined) {
      this.#judge.wrong('L5', `the scheduler told of the eviction of block ${blockId}, of which it never told`);
      return;
    }
    this.#byId.delete(blockId);
    const alike = this.#byWord.get(block.hashes[block.at]!)!;
    if (alike.length > 1) alike.splice(alike.indexOf(block), 1);
    else this.#byWord.delete(block.hashes[block.at]!);
  }

  onCacheReset(): void {
    this.#byId.clear();
    this.#byWord.clear();
  }

  /** A plan was made: checks the blocks that its requests were admitted with. */
  onScheduled(plan: SchedulerOutput, requests: readonly CaptureRequest[], positions: readonly number[]): void {
    if (this.#keepsRows) {
      for (const [i, request] of requests.entries()) {
        const at = positions[i]!;
        const isJoining = plan.kinds[at] !== RequestKind.running;
        if (!isJoining || this.#loading.has(request.index)) continue;
        const later = new Set(requests.slice(i).map(({ index }) => index));
        this.#checkHits(request, plan.numComputedTokens[at]! / this.#blockSize, later);
      }
    }
    this.#numPlans += 1;
  }

  /** `later`: requests that were scheduled after this one's prefix was looked up, itself included. */
  #checkHits(request: CaptureRequest, numHits: number, later: ReadonlySet<number>): void {
    const mostHits = Math.floor((request.numTokens - 1) / this.#blockSize);
    const firstWanted = Math.floor(request.routedExpertsPromptStart / this.#blockSize);
    for (let i = 0; i < mostHits && i <= numHits; i += 1) {
      const from = Math.max(request.routedExpertsPromptStart, i * this.#blockSize);
      const hit = i < numHits ? this.#byId.get(request.blockIds[i]!) : undefined;
      if (i < numHits && (i < firstWanted || (hit !== undefined && (hit.rowsFrom ?? from) <= from))) continue;
      const { blockHashes, blockHashWords } = request;
      const alike = this.#byWord.get(blockHashes[i * blockHashWords]!) ?? [];
      const isShared = alike.some((block) => {
        const { rowsFrom, owner, numPlans } = block;
        if (!hasHash(block, request, i) || (numPlans === this.#numPlans && later.has(owner))) return false;
        return i < firstWanted || (rowsFrom !== null && rowsFrom <= from);
      });
      if (!isShared) continue;
      const got = i < numHits ? `block ${request.blockIds[i]} without rows` : 'none';
      this.#judge.wrong('L9', `"${request.requestId}" was given ${got} as its block ${i}, of which rows are cached`);
      return;
    }
  }

  #add(request: CaptureRequest, ordinal: number, rowsFrom: number | null): void {
    const id = request.blockIds[ordinal]!;
    if (this.#byId.has(id)) {
      this.#judge.wrong('L9', `block ${id} was given other tokens, and its eviction was not told`);
      this.onBlockEvicted(id);
    }
    const { blockHashes: hashes, blockHashWords, index: owner } = request;
    const at = ordinal * blockHashWords;
    const block = { hashes, at, owner, rowsFrom, numPlans: this.#numPlans };
    this.#byId.set(id, block);
    const alike = this.#byWord.get(hashes[at]!);
    if (alike === undefined) this.#byWord.set(hashes[at]!, [block]);
    else alike.push(block);
  }
}

/** Whether the block has the hash of the request's block `ordinal`. */
function hasHash({ hashes, at }: FollowedBlock, request: CaptureRequest, ordinal: number): boolean {
  const { blockHashes, blockHashWords } = request;
  for (let i = 0; i < blockHashWords; i += 1) {
    if (hashes[at + i] !== blockHashes[ordinal * blockHashWords + i]) return false;
  }
  return true;
}
