// Tasks of one rank begin in the order in which they are accepted, a full ring holds steps back (DESIGN §5), a failed
// task costs no other task anything, and nothing is submitted while a map's bytes are looked at.

import { expect, test } from 'vitest';
import type { BlockingReads } from '../../src/contract/capture.ts';
import type { EngineConfig, ModelConfig } from '../../src/contract/config.ts';
import { EngineCore } from '../../src/engine/engine-core.ts';
import { ForwardPass } from '../../src/kernels/model/forward-pass.ts';
import { simKernels } from '../../src/sim/virtual/sim-kernels.ts';
import { VirtualDevice } from '../../src/sim/virtual/virtual-device.ts';
import { StepPipeline } from '../../src/worker/pipeline/step-pipeline.ts';
import type { ComingPass, EndedPass, PendingMap, TaskEnd, WorkerTask } from '../../src/worker/pipeline/step-tasks.ts';

const model: ModelConfig = { name: 'm', numLayers: 2, numExperts: 8, topK: 2, vocabSize: 64, gateWidth: 8 };
const engineConfig: EngineConfig = {
  blockSize: 4,
  numBlocks: 16,
  maxNumSeqs: 4,
  maxNumBatchedTokens: 16,
  maxModelLen: 32,
  policy: 'fcfs',
  asyncScheduling: true,
  enablePrefixCaching: true,
  enableChunkedPrefill: true,
  longPrefillTokenThreshold: 0,
  reserveFullIsl: false,
  watermark: 0,
  numSpeculativeTokens: 0,
};
const BLOCK_WORDS = 2 * engineConfig.blockSize;

type NamedTask = WorkerTask & Readonly<{ name: string }>;

/** One rank whose device runs a submission when it is told to, and whose maps come when they are asked for. */
class Rank {
  readonly device: VirtualDevice = new VirtualDevice();
  readonly pipeline: StepPipeline<NamedTask>;
  readonly engine: EngineCore = new EngineCore(engineConfig, null);
  readonly maps: PendingMap<NamedTask>[] = [];
  readonly ends: [name: string, end: TaskEnd][] = [];
  numSubmitted = 0;

  /** Steps and dummies that wait to hear of the passes of other engines. */
  readonly coming: ComingPass<NamedTask>[] = [];
  /** Steps and dummies that wait for the passes of other ranks. */
  readonly ended: EndedPass<NamedTask>[] = [];

  constructor(
    blockingReads?: (forward: ForwardPass) => BlockingReads,
    ringDepth: number = 2,
    lockstep: 'none' | 'ranks' | 'engines' = 'none',
  ) {
    const { device } = this;
    const forward = ForwardPass.assemble(device, { model, engine: engineConfig, kernels: simKernels });
    const half = blockingReads && {
      design: 'off' as const,
      blockingReads: blockingReads(forward),
      record: () => null,
      collect: () => null,
      forget: () => undefined,
      recycle: () => undefined,
      liveCounts: () => ({ requests: 0, bytes: 0 }),
      close: () => undefined,
    };
    this.pipeline = new StepPipeline<NamedTask>(
      { engine: engineConfig, device, forward, capture: half ?? null, ringDepth },
      {
        onSubmitted: () => (this.numSubmitted += 1),
        onMap: (map) => this.maps.push(map),
        ...(lockstep === 'none' ? {} : { onPassEnd: (pass: EndedPass<NamedTask>) => this.ended.push(pass) }),
        ...(lockstep === 'engines' ? { onPassComes: (pass: ComingPass<NamedTask>) => this.coming.push(pass) } : {}),
        onEnd: (task, end) => this.ends.push([task.name, end]),
      },
    );
    const sampling = {
      maxTokens: 8,
      minTokens: 0,
      eosTokenId: null,
      stopTokenIds: [],
      returnRoutedExperts: false,
      routedExpertsPromptStart: 0,
    };
    const promptTokenIds = Uint32Array.of(1, 2, 3, 4, 5);
    this.engine.addRequest({ requestId: 'r', promptTokenIds, sampling, priority: 0, arrivalTime: 0, cacheSalt: null });
  }

  step(name: string): void {
    this.pipeline.accept({ kind: 'step', step: this.engine.beginStep()!, epoch: 0, name });
  }

  readKv(name: string, ...blockIds: number[]): void {
    this.pipeline.accept({ kind: 'read-kv', blockIds: Uint32Array.from(blockIds), name });
  }

  writeKv(name: string, word: number, ...blockIds: number[]): void {
    const keys = new Uint32Array(blockIds.length * BLOCK_WORDS).fill(word);
    this.pipeline.accept({ kind: 'write-kv', blockIds: Uint32Array.from(blockIds), keys, name });
  }

  dummy(name: string): void {
    this.pipeline.accept({ kind: 'dummy', name });
  }

  advance(): string[] {
    const begun: string[] = [];
    for (let task = this.pipeline.advance(); task !== null; task = this.pipeline.advance()) begun.push(task.name);
    return begun;
  }

  /** The device runs all that was submitted, and the oldest map comes. */
  map(): void {
    for (; this.numSubmitted > 0; this.numSubmitted -= 1) this.device.executeNext();
    const map = this.maps.shift()!;
    this.pipeline.mapped(map, this.device.view(map.buffer, map.byteLength));
  }

  get endedNames(): string[] {
    return this.ends.map(([name, { kind }]) => `${name}: ${kind}`);
  }
}

test('steps and KV moves begin in the order in which they are accepted', () => {
  const rank = new Rank();
  rank.step('a');
  rank.readKv('b', 1);
  rank.writeKv('c', 7, 3);
  rank.readKv('d', 3);
  expect(rank.advance()).toEqual(['a', 'b', 'c', 'd']);
  while (rank.maps.length > 0) rank.map();
  expect(rank.endedNames).toEqual(['c: kv-written', 'a: output', 'b: kv', 'd: kv']);
  const keysOf = (name: string): number[] => [
    ...(rank.ends.find(([n]) => n === name)![1] as { keys: Uint32Array }).keys,
  ];
  expect(keysOf('b').slice(0, 2)).not.toEqual([0, 0]);
  expect(keysOf('d')).toEqual(Array<number>(BLOCK_WORDS).fill(7));
});

test('a KV read sees what the step before it wrote, also where the step holds the turn', () => {
  const rank = new Rank(({ slotMapping }) => ({
    readBefore: () => ({ buffer: slotMapping, byteLength: 4 }),
    takeBefore: () => undefined,
    readAfter: () => ({ buffer: slotMapping, byteOffset: 4, byteLength: 4 }),
    takeAfter: () => undefined,
  }));
  rank.step('a');
  rank.readKv('b', 1);
  rank.writeKv('c', 7, 1);
  expect(rank.advance()).toEqual(['a']);
  rank.map();
  expect(rank.advance()).toEqual(['a']);
  rank.map();
  expect(rank.advance()).toEqual([]);
  rank.map();
  expect(rank.advance()).toEqual(['b', 'c']);
  rank.map();
  expect(rank.endedNames).toEqual(['a: output', 'c: kv-written', 'b: kv']);
  const { keys } = rank.ends[2]![1] as { keys: Uint32Array };
  expect(keys.includes(7)).toBe(false);
  expect(keys[0]).not.toBe(0);
});

test('nothing is submitted before the bytes of a map have been given back', () => {
  const rank = new Rank(({ slotMapping }) => ({
    readBefore: () => ({ buffer: slotMapping, byteLength: 4 }),
    takeBefore: () => undefined,
    readAfter: () => ({ buffer: slotMapping, byteLength: 4 }),
    takeAfter: () => undefined,
  }));
  rank.step('a');
  rank.readKv('b', 1);
  rank.advance();
  for (let i = 0; i < 4; i += 1) {
    rank.map();
    expect(rank.numSubmitted).toBe(0);
    rank.advance();
  }
  expect(rank.endedNames).toEqual(['a: output', 'b: kv']);
});

test('a blocking read starts where its range starts', () => {
  const seen: number[][] = [];
  const rank = new Rank(({ slotMapping }) => ({
    readBefore: () => ({ buffer: slotMapping, byteLength: 8 }),
    takeBefore: (_, bytes) => void seen.push([...new Uint32Array(bytes.slice().buffer)]),
    readAfter: () => ({ buffer: slotMapping, byteOffset: 4, byteLength: 8 }),
    takeAfter: (_, bytes) => void seen.push([...new Uint32Array(bytes.slice().buffer)]),
  }));
  rank.step('a');
  for (let i = 0; i < 3; i += 1) {
    rank.advance();
    rank.map();
  }
  const [before, after] = seen;
  expect(after![0]).toBe(before![1]);
  expect(after![1]).toBe(before![1]! + 1);
});

test('a full ring holds the next step back, and not the KV moves ahead of it', () => {
  const rank = new Rank(undefined, 1);
  rank.step('a');
  rank.readKv('b', 1);
  rank.step('c');
  expect(rank.advance()).toEqual(['a', 'b']);
  expect(rank.pipeline.isRingFull).toBe(true);
  rank.map();
  expect(rank.advance()).toEqual(['c']);
  expect(rank.pipeline.isRingFull).toBe(false);
});

test('a task that fails gives back its slot and its turn, and ends once', () => {
  const rank = new Rank(undefined, 1);
  rank.readKv('bad', 99);
  rank.step('a');
  expect(rank.advance()).toEqual(['bad', 'a']);
  expect(rank.endedNames).toEqual(['bad: failed']);
  expect(rank.pipeline.numRingSlotsInUse).toBe(1);
  const map = rank.maps.shift()!;
  rank.pipeline.notMapped(map, new Error('the map was refused'));
  rank.pipeline.notMapped(map, new Error('again'));
  rank.pipeline.mapped(map, new Uint8Array(map.byteLength));
  expect(rank.endedNames).toEqual(['bad: failed', 'a: failed']);
  expect(rank.pipeline.numRingSlotsInUse).toBe(0);
  rank.readKv('b', 1);
  expect(rank.advance()).toEqual(['b']);
});

test('without a device the tasks that have not begun fail', () => {
  const rank = new Rank(undefined, 1);
  rank.step('a');
  rank.step('b');
  rank.readKv('c', 1);
  expect(rank.advance()).toEqual(['a']);
  rank.pipeline.failQueued(new Error('gone'));
  expect(rank.endedNames).toEqual(['b: failed', 'c: failed']);
  expect(rank.advance()).toEqual([]);
});

test('in lockstep the next pass begins when the others have run this one, and its results come after that', () => {
  const rank = new Rank(undefined, 2, 'ranks');
  rank.step('a');
  rank.step('b');
  expect(rank.advance()).toEqual(['a']);
  rank.map();
  expect([rank.advance(), rank.maps.length, rank.endedNames]).toEqual([[], 0, []]);
  rank.pipeline.passReleased(rank.ended.shift()!);
  expect(rank.advance()).toEqual(['a', 'b']);
  rank.map();
  expect(rank.endedNames).toEqual(['a: output']);
});

test('in lockstep a blocking read comes after the others have run the pass, and holds the next step back', () => {
  const rank = new Rank(
    ({ routedExperts, slotMapping }) => ({
      readBefore: () => ({ buffer: slotMapping, byteLength: 4 }),
      takeBefore: () => {},
      readAfter: () => ({ buffer: routedExperts, byteLength: 8 }),
      takeAfter: () => {},
    }),
    2,
    'ranks',
  );
  const kinds = (): string[] => rank.maps.map(({ kind }) => kind);
  rank.step('a');
  rank.step('b');
  rank.advance();
  expect(kinds()).toEqual(['before']);
  rank.map();
  rank.advance();
  expect(kinds()).toEqual(['pass']);
  rank.map();
  rank.advance();
  expect(kinds()).toEqual([]);
  rank.pipeline.passReleased(rank.ended.shift()!);
  expect([rank.advance(), kinds()]).toEqual([['a'], ['after']]);
  rank.map();
  expect(rank.advance()).toEqual([]);
  rank.map();
  expect([rank.endedNames, rank.advance()]).toEqual([['a: output'], ['b']]);
});

test('a step whose pass the others never run fails, and gives back its slot and its turn', () => {
  const rank = new Rank(undefined, 1, 'ranks');
  rank.step('a');
  rank.step('b');
  rank.advance();
  rank.map();
  rank.pipeline.passFailed(rank.ended.shift()!, new Error('in vain'));
  expect([rank.endedNames, rank.advance()]).toEqual([['a: failed'], ['b']]);
});

test('among engines a pass begins when the sizes of all are known, and a dummy takes its turn like a step', () => {
  const rank = new Rank(undefined, 2, 'engines');
  rank.dummy('a');
  rank.step('b');
  expect([rank.advance(), rank.numSubmitted]).toEqual([['a'], 0]);
  expect(rank.coming.map(({ numRows }) => numRows)).toEqual([1]);
  rank.pipeline.passSized(rank.coming.shift()!, [1]);
  expect([rank.advance(), rank.numSubmitted]).toEqual([['a'], 1]);
  rank.map();
  expect([rank.advance(), rank.endedNames]).toEqual([[], []]);
  rank.pipeline.passReleased(rank.ended.shift()!);
  expect([rank.advance(), rank.endedNames]).toEqual([['a', 'b'], ['a: dummy-run']]);
  expect(rank.coming.map(({ numRows }) => numRows)).toEqual([5]);
  rank.pipeline.passFailed(rank.coming.shift()!, new Error('in vain'));
  expect([rank.endedNames, rank.pipeline.numRingSlotsInUse]).toEqual([['a: dummy-run', 'b: failed'], 0]);
});
