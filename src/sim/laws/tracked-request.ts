/** What the simulator itself knows of a request, independently of the code under test. */

import type { FinishReason } from '../../contract/engine-core-output.ts';
import type { ScenarioRequest } from '../scenario.ts';

/** What is known of a position. */
export const Flag = {
  /** A forward pass of the request computed it. */
  computed: 1,
  /** The output of such a pass reached the engine. */
  arrived: 2,
  /** The request was admitted with a cached block that holds it. */
  hit: 4,
  /** Its row was delivered. */
  delivered: 8,
  /** Its row was reported missing. */
  missing: 16,
  /** `rows` holds its row. */
  routed: 32,
  /** Its KV came from another engine. */
  loaded: 64,
} as const;

/** A row that a position had, and the step that computed it; −1 for the row of a cached block. */
export type RowOfStep = {
  readonly stepId: number;
  readonly row: Uint16Array;
  /** The output of its step was thrown away: nothing that was delivered attended to its KV (L9). */
  isForbidden: boolean;
};

/** `loading`: it waits for KV from elsewhere. `loaded`: the load has ended, and it waits with its blocks. */
export type TrackedState = 'waiting' | 'loading' | 'loaded' | 'running' | 'preempted' | 'ended';

/** KV of the positions `[from, to)` from another engine: the epoch of each, and with epochs its row. */
export type LoadedKv = Readonly<{ from: number; to: number; epochs: readonly number[]; rows: readonly Uint16Array[] }>;

type Tracked = Readonly<{
  index: number;
  spec: ScenarioRequest;
  arrivalTime: number;
  maxPositions: number;
  rowLength: number;
}>;

export class TrackedRequest {
  readonly index: number;
  readonly spec: ScenarioRequest;
  readonly arrivalTime: number;

  /** The caller's view: prompt and delivered tokens. */
  readonly tokens: number[];
  state: TrackedState = 'waiting';
  /** The workers have known it before. */
  wasPreempted = false;
  finish: FinishReason | null = null;
  /** Whether it held blocks when it ended. */
  endedWithBlocks = false;
  /** Block table, as the scheduler gave it out. */
  blocks: number[] = [];
  /** The step that ran it last. */
  lastStepId = -1;
  /** For a request that waits with its blocks: how many tokens have KV in them. */
  numLoaded = 0;
  /** What was loaded for it, until a forward pass has read it. */
  loadedKv: LoadedKv | null = null;
  /** It has ended, and its blocks are kept for another engine to read. */
  isKept = false;
  /** Positions `[from, to)` of the rows handed out so far; `from` −1 before the first. */
  rowsFrom = -1;
  rowsTo = -1;

  /** The device's view: tokens known to it, and how many of them have their key in the KV cache. */
  chain: number[] = [];
  numComputed = 0;
  /** Sums over the keys up to each position; the hidden state follows from them. */
  readonly sumX: number[] = [];
  readonly sumY: number[] = [];
  table: number[] = [];

  readonly flags: Uint8Array;
  /** Deterministic mode: the row of each position, where `Flag.routed` says so. */
  readonly rows: Uint16Array;
  /** With epochs: every row that a position had. */
  readonly rowsOfSteps: Map<number, RowOfStep[]> = new Map();

  /** `maxPositions`: the most positions that a step may run for it. */
  constructor({ index, spec, arrivalTime, maxPositions, rowLength }: Tracked) {
    this.index = index;
    this.spec = spec;
    this.arrivalTime = arrivalTime;
    this.tokens = [...spec.prompt];
    this.flags = new Uint8Array(maxPositions);
    this.rows = new Uint16Array(maxPositions * rowLength);
  }

  get name(): string {
    return `"${this.spec.id}" (#${this.index})`;
  }

  get isAlive(): boolean {
    return this.finish === null;
  }

  get stateWithoutBlocks(): 'waiting' | 'preempted' {
    return this.wasPreempted ? 'preempted' : 'waiting';
  }

  /** From the beginning of its load until it is admitted. */
  get waitsWithBlocks(): boolean {
    return this.state === 'loading' || this.state === 'loaded';
  }

  get numOutputs(): number {
    return this.tokens.length - this.spec.prompt.length;
  }

  has(position: number, flag: number): boolean {
    return (this.flags[position]! & flag) !== 0;
  }

  /** Returns how the token appended last ends the request. Written from the API's promise, not the engine's code. */
  stopCheck(maxModelLen: number): Readonly<{ finish: FinishReason; stopReason: number | null }> | null {
    const { spec, tokens, numOutputs } = this;
    const last = tokens.at(-1)!;
    if (numOutputs >= spec.minTokens) {
      if (last === spec.eos) return { finish: 'stop', stopReason: null };
      if (spec.stops.includes(last)) return { finish: 'stop', stopReason: last };
    }
    if (numOutputs === spec.maxTokens || tokens.length === maxModelLen) return { finish: 'length', stopReason: null };
    return null;
  }
}
