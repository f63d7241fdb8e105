/** The tier of an engine in real time: `KvTier` on worker threads, and on a folder if there is one. */

import { rowShape } from '../../capture/row-shape.ts';
import type {
  EvictedBlock,
  ExternalKv,
  KvConnector,
  KvLoad,
  KvLoadOutcome,
  PrefixQuestion,
} from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import { FileBlocks, type FileCounts } from '../../handover/tier/file-blocks.ts';
import { KvTier, type TierCopy, type TierCounts, type TierLoad } from '../../handover/tier/kv-tier.ts';
import { settlesWithin } from '../../worker/settles-within.ts';
import type { SessionConfig } from '../design-session.ts';
import { BlockFolder } from './block-folder.ts';
import type { KvOffloadOptions, TierIdentity } from './offload-options.ts';

/** What the tier needs of its engine. */
export type OffloadedEngine = Readonly<{
  finishLoad: (loadId: number, outcome: KvLoadOutcome) => void;
  readKv: (blockIds: readonly number[]) => Promise<Uint32Array>;
  writeKv: (blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>) => Promise<void>;
}>;

/** What goes wrong with files: each kind is told once, and counted. */
export type TierProblem = 'open' | 'write' | 'read';

/** What a tier holds and has done. */
export type OffloadStats = TierCounts &
  Readonly<{
    hostBlocks: number;
    /** `null`: there are none, or the folder cannot be used. */
    files: (FileCounts & Readonly<{ blocks: number }>) | null;
    /** Times that the folder or a file could not be used. */
    fileProblems: number;
  }>;

/** Tasks beyond those that a rank has places for would hold up steps. */
const MOST_WRITES = 2;
const SETTLE_TIMEOUT_MS = 30_000;

export class KvOffload implements KvConnector {
  readonly isTier = true;
  readonly #tier: KvTier;
  readonly #files: FileBlocks | null;
  readonly #engine: OffloadedEngine;
  readonly #onProblem: (message: string) => void;
  readonly #told: Set<TierProblem> = new Set();
  /** Loads that are to be written, oldest first, and how many are being written. */
  readonly #loads: TierLoad[] = [];
  #numWriting = 0;
  /** Work on files. */
  readonly #pending: Set<Promise<void>> = new Set();

  constructor(
    options: KvOffloadOptions,
    session: Pick<SessionConfig, 'model' | 'engine' | 'queueDepth' | 'routing'>,
    engine: OffloadedEngine,
    onProblem: (message: string) => void,
  ) {
    const { model, queueDepth } = session;
    const { blockSize } = session.engine;
    this.#engine = engine;
    this.#onProblem = onProblem;
    this.#files = this.#openFiles(options, session);
    this.#tier = new KvTier(
      { capacity: options.hostBlocks, mostCopies: queueDepth, blockSize, rowShape: rowShape(model) },
      {
        readKv: (copy) => void this.#readKv(copy),
        writeKv: (load) => this.#enqueue(load),
        finishLoad: ({ loadId }, outcome) => engine.finishLoad(loadId, outcome),
      },
      this.#files,
    );
  }

  externalKv(request: CaptureRequest, question: PrefixQuestion): ExternalKv | null {
    return this.#tier.find(request, question);
  }

  startLoad(load: KvLoad): void {
    this.#tier.startLoad(load);
  }

  keepsBlocks(): boolean {
    return false;
  }

  onEvicted(block: EvictedBlock): void {
    this.#tier.evicted(block);
  }

  onPlanned(): void {
    this.#tier.planned();
  }

  onCacheReset(): void {
    this.#tier.onCacheReset();
  }

  onWorkersLost(): void {
    this.#tier.onWorkersLost();
  }

  stats(): OffloadStats {
    const files = this.#files;
    const { blocks: hostBlocks } = this.#tier.liveCounts();
    const fileProblems = (files?.counts.problems ?? 0) + (this.#told.has('open') ? 1 : 0);
    return { ...this.#tier.counts, hostBlocks, files: files && { ...files.counts, blocks: files.size }, fileProblems };
  }

  /** Resolves when all that was to be written to files is, or a disk stands still. Never rejects. */
  async settled(): Promise<void> {
    await settlesWithin(SETTLE_TIMEOUT_MS, this.#drained());
  }

  async #drained(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async #readKv(copy: TierCopy): Promise<void> {
    const keys = await this.#engine.readKv(copy.blockIds).catch(() => null);
    if (keys === null) this.#tier.notRead(copy);
    else this.#tier.keysRead(copy, keys);
  }

  /** Called in the scheduler's step: the keys are put together after it (L6). */
  #enqueue(load: TierLoad): void {
    this.#loads.push(load);
    queueMicrotask(() => void this.#writeNext());
  }

  async #writeNext(): Promise<void> {
    if (this.#numWriting >= MOST_WRITES) return;
    const load = this.#loads.shift();
    if (load === undefined) return;
    // The blocks of a load whose workers were lost may be another request's.
    if (this.#tier.isUnderWay(load)) {
      this.#numWriting++;
      const writing = this.#engine.writeKv(load.load.blockIds, this.#keysOf(load));
      const isWritten = await writing.then(
        () => true,
        () => false,
      );
      this.#numWriting--;
      if (isWritten) this.#tier.written(load);
      else this.#tier.notWritten(load);
    }
    await this.#writeNext();
  }

  #keysOf({ blocks }: TierLoad): Uint32Array<ArrayBuffer> {
    const words = blocks[0]!.keys!.length;
    const keys = new Uint32Array(blocks.length * words);
    for (const [i, block] of blocks.entries()) keys.set(block.keys!, i * words);
    return keys;
  }

  #openFiles(options: KvOffloadOptions, session: ConstructorParameters<typeof KvOffload>[1]): FileBlocks | null {
    const { dir, dirBlocks } = options;
    if (dir === null) return null;
    try {
      const folder = new BlockFolder(dir, identityOf(options, session), rowShape(session.model));
      const files: FileBlocks = new FileBlocks(
        { nameOf: (hash) => folder.nameOf(hash), capacity: dirBlocks, found: folder.found },
        {
          write: (entry, block) => {
            this.#work(
              folder.write(entry, block).then(
                () => files.written(entry),
                (error: Error) => {
                  files.notWritten(entry);
                  this.#tell('write', `a block could not be written: ${error.message}`);
                },
              ),
            );
          },
          read: (entry, block) => {
            this.#work(
              folder.read(entry).then((stored) => {
                if (typeof stored !== 'string') {
                  this.#tier.fileRead(block, stored.keys, stored.rows);
                  return;
                }
                this.#tell('read', `the file of block ${entry.name} is a miss: ${stored}`);
                this.#tier.fileNotRead(entry, block);
              }),
            );
          },
          remove: (entry) => this.#work(folder.remove(entry)),
        },
      );
      return files;
    } catch (error) {
      this.#tell('open', `the folder is not used: ${(error as Error).message}`);
      return null;
    }
  }

  #work(work: Promise<void>): void {
    const done = work.finally(() => this.#pending.delete(done));
    this.#pending.add(done);
  }

  #tell(problem: TierProblem, message: string): void {
    if (this.#told.has(problem)) return;
    this.#told.add(problem);
    this.#onProblem(`--kv-offload-dir: ${message} (told once; serving goes on)`);
  }
}

function identityOf(
  { weightVersion }: KvOffloadOptions,
  { model, engine, routing }: Pick<SessionConfig, 'model' | 'engine' | 'routing'>,
): TierIdentity {
  const epoch = routing === undefined || routing.kind === 'deterministic' ? 0 : epochOf(routing);
  return { model, blockSize: engine.blockSize, weightVersion, epoch, numStages: engine.pipelineParallelSize ?? 1 };
}

function epochOf(routing: NonNullable<SessionConfig['routing']>): TierIdentity['epoch'] {
  return routing.kind === 'nondeterministic' ? (routing.epoch ?? 'by step') : 'replay';
}
