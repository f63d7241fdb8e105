/** The tier of an engine in virtual time: copies take their time and fail, and files are a store that does the same. */

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
import { FileBlocks } from '../../handover/tier/file-blocks.ts';
import { KvTier, type TierCopy, type TierLoad } from '../../handover/tier/kv-tier.ts';
import type { TierBlock } from '../../handover/tier/tier-block.ts';
import { random, type Random } from '../../workload/random.ts';
import type { Mark } from '../coverage.ts';
import type { Judge } from '../laws/judge.ts';
import { kvOf, type SlotContents } from '../laws/slot-contents.ts';
import type { LoadedKv } from '../laws/tracked-request.ts';
import type { Storm } from '../storm.ts';
import { Phase, type Clock } from '../virtual/event-heap.ts';
import type { World } from '../world.ts';
import type { OffloadScenario } from './offload-scenario.ts';
import { drawnTicks, VirtualStore } from './virtual-store.ts';

export type TierSurroundings = Readonly<{
  clock: Clock;
  judge: Judge;
  marks: Set<Mark>;
  offload: OffloadScenario;
  seed: number;
}>;

export class VirtualTier implements KvConnector {
  readonly isTier = true;
  readonly #around: TierSurroundings;
  readonly #tier: KvTier;
  readonly #files: FileBlocks | null;
  readonly #store: VirtualStore | null;
  readonly #copies: Random;
  /** What the ledger knows of keys that were read off the device. */
  readonly #contents: WeakMap<Uint32Array, SlotContents> = new WeakMap();
  /** Of requests that may load. */
  readonly #views: Map<string, CaptureRequest> = new Map();
  /** By load. */
  readonly #written: Map<number, LoadedKv> = new Map();
  readonly #blockSize: number;
  /** A load was written since the last one began. */
  #isWriting = false;
  /** The cache is reset once more, to see what is left. */
  #isEnding = false;
  #world: World | null = null;
  #storm: Storm | null = null;

  constructor(around: TierSurroundings, { model, engine }: Pick<World['scenario'], 'model' | 'engine'>) {
    const { offload, seed, clock } = around;
    const { hostBlocks: capacity, mostCopies, files } = offload;
    this.#around = around;
    this.#blockSize = engine.blockSize;
    this.#copies = random(seed, 'sim/offload-copies');
    this.#store = files === null ? null : new VirtualStore(clock, files, seed);
    this.#files = this.#store === null ? null : this.#makeFiles(this.#store);
    this.#tier = new KvTier(
      { capacity, mostCopies, blockSize: engine.blockSize, rowShape: rowShape(model) },
      {
        readKv: (copy) => this.#readKv(copy),
        writeKv: (load) => {
          this.#isWriting = true;
          this.#soon(() => this.#writeKv(load));
        },
        finishLoad: (load, outcome) => this.#finishLoad(load, outcome),
      },
      this.#files,
    );
  }

  attach(world: World, storm: Storm): void {
    this.#world = world;
    this.#storm = storm;
  }

  externalKv(request: CaptureRequest, question: PrefixQuestion): ExternalKv | null {
    this.#views.set(request.requestId, request);
    return this.#tier.find(request, question);
  }

  startLoad(load: KvLoad): void {
    const { marks } = this.#around;
    const request = this.#world!.request(load.loadId);
    if (request.wasPreempted) marks.add('preempted request loads its blocks back');
    this.#world!.onLoadBegun(load, this.#views.get(load.requestId)!);
    this.#isWriting = false;
    this.#tier.startLoad(load);
    if (!this.#isWriting) marks.add('block found while it was on its way');
  }

  keepsBlocks(): boolean {
    return false;
  }

  onEvicted(block: EvictedBlock): void {
    const { marks } = this.#around;
    if (block.rows !== null && block.rows.read() === null) marks.add('rows under way when their block was evicted');
    const { blocksSkipped } = this.#tier.counts;
    this.#tier.evicted(block);
    if (this.#tier.counts.blocksSkipped > blocksSkipped) marks.add('evicted block not kept');
  }

  onPlanned(): void {
    this.#tier.planned();
    this.#checkBounds();
  }

  onCacheReset(): void {
    const { blocks, copies } = this.#tier.liveCounts();
    if (blocks > 0 && !this.#isEnding) this.#around.marks.add('cache reset with blocks outside the device');
    if (copies > 0) this.#around.marks.add('cache reset with copies under way');
    this.#tier.onCacheReset();
  }

  onWorkersLost(): void {
    const { copies, loads } = this.#tier.liveCounts();
    if (copies > 0) this.#around.marks.add('workers lost while blocks were saved');
    if (loads > 0) this.#around.marks.add('workers lost while blocks came back');
    this.#tier.onWorkersLost();
    this.#written.clear();
  }

  /** The storm is over. */
  end(): void {
    this.#isEnding = true;
  }

  /** After the drain and a cache reset: nothing may be left (L7). */
  checkEnd(): void {
    const { blocks, copies, loads, files } = this.#tier.liveCounts();
    const left = (this.#store?.size ?? 0) + (this.#files?.numWriting ?? 0);
    if (blocks + copies + loads + files + left === 0) return;
    const what = `${blocks} blocks, ${copies} copies, ${loads} loads and ${files} files, of which ${left} are there`;
    this.#around.judge.wrong('L7', `the tier holds ${what} after the drain and a cache reset`);
  }

  /** Memory and files are bounded at any time (L7). */
  #checkBounds(): void {
    const { hostBlocks, files: limits } = this.#around.offload;
    const { blocks, files } = this.#tier.liveCounts();
    if (blocks <= hostBlocks && files <= (limits?.blocks ?? 0)) return;
    this.#around.judge.wrong('L7', `the tier holds ${blocks} of ${hostBlocks} blocks and ${files} files`);
  }

  #makeFiles(store: VirtualStore): FileBlocks {
    const { offload, marks } = this.#around;
    const files: FileBlocks = new FileBlocks(
      { nameOf: (hash) => hash, capacity: offload.files!.blocks, found: [] },
      {
        write: (entry, block) =>
          store.write(entry, block, (isWritten) => {
            if (isWritten) files.written(entry);
            else {
              marks.add('file of a block not written');
              files.notWritten(entry);
            }
          }),
        read: (entry, block) =>
          store.read(entry, (stored) => {
            if (stored === null) {
              marks.add('file of a block not believed');
              this.#tier.fileNotRead(entry, block);
              return;
            }
            marks.add('block read from a file');
            const keys = stored.keys!.slice();
            this.#contents.set(keys, this.#contents.get(stored.keys!)!);
            this.#tier.fileRead(block, keys, stored.rows);
          }),
        remove: (entry) => store.remove(entry),
      },
    );
    return files;
  }

  /** In turn with the engine's steps: ahead of the one being planned. */
  #readKv(copy: TierCopy): void {
    const { ledger } = this.#world!;
    const { marks, offload } = this.#around;
    marks.add('block kept outside the device');
    let contents: SlotContents[] = [];
    this.#storm!.handKv({
      kind: 'read-kv',
      rank: 0,
      blockIds: Uint32Array.from(copy.blockIds),
      onExecuted: () => {
        contents = copy.blockIds.map((id) => ledger.contentsOf(id));
      },
      onRead: (keys) => {
        const fails = this.#copies.nextFloat() < offload.failedCopyShare;
        this.#soon(() => {
          if (fails) this.#tier.notRead(copy);
          else this.#keysRead(copy, keys, contents);
        });
      },
    });
  }

  #keysRead(copy: TierCopy, keys: Uint32Array, contents: readonly SlotContents[]): void {
    this.#tier.keysRead(copy, keys);
    for (const [i, block] of copy.blocks.entries())
      if (block.keys !== null) this.#contents.set(block.keys, contents[i]!);
  }

  #writeKv(load: TierLoad): void {
    const { judge, offload } = this.#around;
    if (!this.#tier.isUnderWay(load)) return;
    const { ledger, scenario } = this.#world!;
    const { loadId, blockIds } = load.load;
    const request = this.#world!.request(loadId);
    const { blocks } = request;
    const kept = load.blocks.map((block) => this.#contentsOf(block));
    const kv = kvOf(request, { from: load.load.from, blocks: kept, blockSize: this.#blockSize, judge });
    this.#written.set(loadId, kv);
    const fails = this.#copies.nextFloat() < offload.failedCopyShare;
    let numLeft = scenario.numRanks;
    this.#storm!.handKv({
      kind: 'write-kv',
      blockIds: Uint32Array.from(blockIds),
      keys: this.#keysOf(load),
      onExecuted: () => ledger.writeKv(request, blocks, kv),
      onWritten: () => {
        numLeft -= 1;
        if (numLeft > 0) return;
        this.#soon(() => {
          if (fails) this.#tier.notWritten(load);
          else this.#tier.written(load);
        });
      },
    });
  }

  #contentsOf({ keys }: TierBlock): SlotContents | null {
    return keys === null ? null : (this.#contents.get(keys) ?? null);
  }

  /** A block that is believed too early has no keys. */
  #keysOf({ blocks }: TierLoad): Uint32Array {
    const words = 2 * this.#blockSize;
    const keys = new Uint32Array(blocks.length * words);
    for (const [i, block] of blocks.entries()) if (block.keys !== null) keys.set(block.keys, i * words);
    return keys;
  }

  #finishLoad({ loadId }: KvLoad, outcome: KvLoadOutcome): void {
    const { marks } = this.#around;
    const request = this.#world!.request(loadId);
    const kv = outcome.kind === 'loaded' ? (this.#written.get(loadId) ?? null) : null;
    if (!request.isAlive) marks.add('aborted while its blocks came back');
    else if (outcome.kind !== 'loaded') marks.add('blocks did not come back and were computed again');
    else {
      marks.add('block loaded back');
      if (request.spec.rows) marks.add('block loaded back for a request that wants rows');
    }
    this.#written.delete(loadId);
    this.#world!.finishLoad(loadId, outcome, kv);
    this.#storm!.wakeUp();
  }

  /** A copy takes its time. */
  #soon(run: () => void): void {
    const { clock, offload } = this.#around;
    clock.plan(clock.now + drawnTicks(this.#copies, offload.copy), Phase.client, run);
  }
}
