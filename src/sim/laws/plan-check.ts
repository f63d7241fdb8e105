/** Checks the scheduler's plans: which requests may run, which blocks each may hold, and which requests lost theirs. */

import type { EngineConfig } from '../../contract/config.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { SchedulerOutput } from '../../contract/scheduler-output.ts';
import { RequestKind } from '../../contract/scheduler-output.ts';
import type { Mark } from '../coverage.ts';
import type { Flight, FlightEntry } from '../flight.ts';
import { isGivenBack } from './given-back.ts';
import type { Judge } from './judge.ts';
import { Flag, type LoadedKv, type TrackedRequest } from './tracked-request.ts';

const NONE: readonly number[] = [];

type PlanChecked = Readonly<{
  engine: EngineConfig;
  judge: Judge;
  marks: Set<Mark>;
  requests: readonly TrackedRequest[];
}>;

export class PlanCheck {
  readonly #engine: EngineConfig;
  readonly #judge: Judge;
  readonly #marks: Set<Mark>;
  readonly #requests: readonly TrackedRequest[];
  /** Requests that hold each block. */
  readonly #holders: Int32Array;
  /** The step that took each block from the free list last. */
  readonly #takenIn: Int32Array;
  #numHeld = 0;
  /** Requests that wait with their blocks, since KV is or was loaded for them, and the engine's view of each. */
  readonly #withKv: Map<TrackedRequest, CaptureRequest> = new Map();
  readonly #begunLoads: Readonly<{ request: TrackedRequest; view: CaptureRequest; from: number }>[] = [];
  /** Loads under way, also those of ended requests, and requests whose blocks are kept. */
  #numUnderWay = 0;
  /** Ended requests whose end the workers have not been told. */
  readonly #untold = new Set<number>();

  constructor({ engine, judge, marks, requests }: PlanChecked) {
    this.#engine = engine;
    this.#judge = judge;
    this.#marks = marks;
    this.#requests = requests;
    this.#holders = new Int32Array(engine.numBlocks);
    this.#takenIn = new Int32Array(engine.numBlocks).fill(-1);
  }

  /** There was nothing to plan; loads may have begun, and loaded KV may have been given back. */
  onNoPlan(): void {
    if (this.#withKv.size > 0) this.#findGivenBack(null);
    this.#takeBegunLoads();
  }

  /** Takes in a plan. `flights`: the steps under way. */
  onPlan(plan: SchedulerOutput, flights: readonly Flight[], epoch: number): Flight {
    if (this.#withKv.size > 0) this.#findGivenBack(plan);
    for (const index of plan.preemptedIndices) this.#preempt(this.#requests[index]!, flights, false);
    for (const index of plan.finishedIndices) {
      if (!this.#untold.delete(index)) {
        this.#judge.wrong(
          'L3',
          `step ${plan.stepId} tells the workers that request #${index} is over, which it is not`,
        );
      }
    }
    const { maxNumSeqs, maxNumBatchedTokens } = this.#engine;
    if (plan.numRequests > maxNumSeqs || plan.totalNumScheduledTokens > maxNumBatchedTokens) {
      this.#judge.wrong(
        'L8',
        `step ${plan.stepId} runs ${plan.numRequests} requests and ${plan.totalNumScheduledTokens} tokens: ` +
          'over its limits',
      );
    }
    const entries: FlightEntry[] = [];
    let numWantedTokens = 0;
    let numTokens = 0;
    for (let i = 0; i < plan.numRequests; i += 1) {
      const request = this.#requests[plan.requestIndices[i]!]!;
      numTokens += plan.numScheduledTokens[i]!;
      this.#schedule(plan, i, request);
      if (request.spec.rows) numWantedTokens += plan.numScheduledTokens[i]!;
      const isJoining = plan.kinds[i] !== RequestKind.running;
      entries.push({
        request,
        blocks: isJoining ? request.blocks : NONE,
        numHits: isJoining ? plan.numComputedTokens[i]! : 0,
        sampled: NONE,
        from: 0,
        to: 0,
        isStale: false,
        isDropped: false,
      });
    }
    if (numTokens !== plan.totalNumScheduledTokens) {
      this.#judge.wrong(
        'L8',
        `step ${plan.stepId} counts ${plan.totalNumScheduledTokens} tokens, its requests ${numTokens}`,
      );
    }
    this.#takeBegunLoads();
    return {
      stepId: plan.stepId,
      plan,
      epoch,
      entries,
      numWantedTokens,
      isExecuted: false,
      outputs: [],
      joined: null,
      numArrived: 0,
    };
  }

  /** A cache reset: running requests lose their KV, and their outputs in flight are thrown away. */
  preemptAll(flights: readonly Flight[]): void {
    for (const request of this.#requests) {
      if (request.state === 'running') this.#preempt(request, flights, true);
      else if (request.state === 'loaded') this.#giveBack(request);
    }
  }

  /**
   * The request waits for KV of `[from, to)`, and `view.blockIds` are its blocks: those before `from` were found in the
   * prefix cache.
   */
  onLoadBegun(request: TrackedRequest, view: CaptureRequest, from: number): void {
    this.#begunLoads.push({ request, view, from });
  }

  /**
   * The scheduler begins loads while it plans. They are checked after the rest of the plan, when the blocks that it
   * gave to other requests are known.
   */
  #takeBegunLoads(): void {
    for (const { request, view, from } of this.#begunLoads) this.#takeBegunLoad(request, view, from);
    this.#begunLoads.length = 0;
  }

  #takeBegunLoad(request: TrackedRequest, view: CaptureRequest, from: number): void {
    const { blockSize } = this.#engine;
    const { blockIds } = view;
    if (request.state !== 'waiting' && request.state !== 'preempted')
      this.#judge.wrong('L8', `a load began for ${request.name}, which is ${request.state}`);
    for (const [i, id] of blockIds.entries()) {
      if (i * blockSize >= from && (this.#holders[id] !== 0 || id === 0)) {
        this.#judge.wrong('L8', `block ${id} is to be loaded for ${request.name}, and others hold it`);
      }
      this.#hold(id);
    }
    if (from > 0) this.#marks.add('KV loaded behind a cached prefix');
    request.blocks = [...blockIds];
    request.state = 'loading';
    request.numLoaded = from;
    this.#withKv.set(request, view);
    this.#numUnderWay += 1;
  }

  /** `kv`: what has come; `null`: nothing, and the request goes on with what it has. */
  onLoadEnded(request: TrackedRequest, kv: LoadedKv | null): void {
    this.#numUnderWay -= 1;
    if (!request.isAlive) {
      this.#withKv.delete(request);
      this.#dropBlocks(request);
      return;
    }
    request.state = 'loaded';
    if (kv === null) return;
    this.#marks.add('KV loaded');
    if (request.spec.rows) this.#marks.add('KV loaded for a request that wants rows');
    request.loadedKv = kv;
    request.numLoaded = Math.min(kv.to, request.tokens.length - 1);
    if (request.numLoaded < kv.to) this.#marks.add('all but the last prompt token loaded');
    for (let p = kv.from; p < request.numLoaded; p += 1) request.flags[p]! |= Flag.loaded;
  }

  /** The request is about to end, and its blocks stay. */
  onKept(request: TrackedRequest): void {
    request.isKept = true;
    this.#numUnderWay += 1;
  }

  onKeptReleased(request: TrackedRequest): void {
    if (!request.isKept) return;
    request.isKept = false;
    this.#numUnderWay -= 1;
    this.#dropBlocks(request);
  }

  /** Whether blocks are read or written from outside the engine: they cannot be taken back then. */
  get isUnderWay(): boolean {
    return this.#numUnderWay > 0;
  }

  /** Finds loaded requests whose blocks the scheduler has taken to let another request run. */
  #findGivenBack(plan: SchedulerOutput | null): void {
    for (const [request, view] of this.#withKv) {
      const isLoaded = request.state === 'loaded';
      if (isLoaded && isGivenBack(request, view, plan, this.#engine.blockSize)) this.#giveBack(request);
    }
  }

  #giveBack(request: TrackedRequest): void {
    this.#marks.add('loaded KV given back');
    this.#forgetLoad(request);
    this.#dropBlocks(request);
    request.state = request.stateWithoutBlocks;
  }

  #forgetLoad(request: TrackedRequest): void {
    for (let p = 0; p < request.numLoaded; p += 1) request.flags[p]! &= ~Flag.loaded;
    request.loadedKv = null;
    request.numLoaded = 0;
    this.#withKv.delete(request);
  }

  /** The workers are gone: no request holds blocks, and no worker must be told of an end. */
  loseAll(flights: readonly Flight[]): void {
    for (const flight of flights) for (const entry of flight.entries) forbidStep(entry.request, flight.stepId);
    for (const request of this.#requests) {
      if (request.state !== 'running') {
        if (request.blocks.length > 0) this.#loseKv(request);
        continue;
      }
      if (request.numComputed > 0 && request.numComputed < request.spec.prompt.length) {
        this.#marks.add('respawn mid-prefill');
      }
      this.#dropBlocks(request);
      request.state = 'preempted';
      request.wasPreempted = true;
    }
    this.#numUnderWay = 0;
    this.#untold.clear();
  }

  /** Loaded, loading and kept KV goes with the workers. */
  #loseKv(request: TrackedRequest): void {
    this.#dropBlocks(request);
    request.isKept = false;
    if (request.isAlive) {
      this.#forgetLoad(request);
      request.state = request.stateWithoutBlocks;
    } else this.#withKv.delete(request);
  }

  /**
   * The request ends: the workers must be told, and its blocks are free, unless a load writes to them or another engine
   * is going to read them.
   */
  end(request: TrackedRequest): void {
    this.#untold.add(request.index);
    if (request.state === 'loading') this.#marks.add('aborted while its KV was loaded');
    else if (!request.isKept) {
      this.#withKv.delete(request);
      this.#dropBlocks(request);
    }
  }

  /** How many ended requests the workers have not been told of. */
  get numUntold(): number {
    return this.#untold.size;
  }

  checkBlocks(numUsed: number, numFree: number): void {
    const usable = this.#engine.numBlocks - 1;
    if (numUsed === this.#numHeld && numFree === usable - numUsed) return;
    this.#judge.wrong(
      'L7',
      `${this.#numHeld} blocks are held by requests; the pool counts ${numUsed} used and ${numFree} free of ${usable}`,
    );
  }

  #schedule(plan: SchedulerOutput, i: number, request: TrackedRequest): void {
    const { blockSize } = this.#engine;
    const kind = plan.kinds[i]!;
    const due =
      request.state === 'running' ? RequestKind.running : request.wasPreempted ? RequestKind.resumed : RequestKind.new;
    if (request.state === 'ended' || kind !== due) {
      this.#judge.wrong('L8', `step ${plan.stepId} runs ${request.name}, which is ${request.state}, as kind ${kind}`);
    }
    const isJoining = kind !== RequestKind.running;
    const start = plan.numComputedTokens[i]!;
    const isLoaded = request.state === 'loaded';
    const numHitBlocks = isJoining && !isLoaded ? start / blockSize : 0;
    // The plan names all blocks of a loaded request, which holds the first of them already.
    const firstBlock = plan.newBlockOffsets[i]! + (isLoaded ? request.blocks.length : 0);
    const endBlock = plan.newBlockOffsets[i + 1]!;
    if (isLoaded) this.#withKv.delete(request);
    for (let b = firstBlock; b < endBlock; b += 1) {
      const id = plan.newBlockIds[b]!;
      const isHit = b - firstBlock < numHitBlocks;
      if (isHit && this.#takenIn[id] === plan.stepId) this.#marks.add('same-step prefix hit');
      if (!isHit) {
        if (this.#holders[id] !== 0 || id === 0) {
          this.#judge.wrong('L8', `step ${plan.stepId} gives block ${id} to ${request.name}, which others hold`);
        }
        this.#takenIn[id] = plan.stepId;
      }
      this.#hold(id);
      request.blocks.push(id);
    }
    if (request.blocks.length * blockSize < start + plan.numScheduledTokens[i]!) {
      this.#judge.wrong('L8', `step ${plan.stepId} runs ${request.name} beyond its ${request.blocks.length} blocks`);
    }
    this.#checkLength(plan, i, request);
    if (isJoining) this.#checkTokens(plan, request, isLoaded ? 0 : start);
    request.state = 'running';
    request.lastStepId = plan.stepId;
  }

  /** The last token that fits the model is never an input. A joining request may have padding there. */
  #checkLength(plan: SchedulerOutput, i: number, request: TrackedRequest): void {
    const { maxModelLen, numSpeculativeTokens } = this.#engine;
    const isJoining = plan.kinds[i] !== RequestKind.running;
    const end = plan.numComputedTokens[i]! + plan.numScheduledTokens[i]!;
    if (end > (isJoining ? maxModelLen : maxModelLen - 1)) {
      this.#judge.wrong('L8', `step ${plan.stepId} runs ${request.name} to position ${end}, of ${maxModelLen}`);
    }
    const numDrafts = plan.draftOffsets[i + 1]! - plan.draftOffsets[i]!;
    if (isJoining || numDrafts === 0) return;
    if (end === maxModelLen - 1 && numDrafts < numSpeculativeTokens) this.#marks.add('drafts cut by the model length');
    if (request.lastStepId < plan.stepId - 1) this.#marks.add('drafts verified after a step without the request');
  }

  #checkTokens(plan: SchedulerOutput, request: TrackedRequest, numHits: number): void {
    const { blockSize } = this.#engine;
    const { tokens } = request;
    const data = plan.newRequests.find(({ index }) => index === request.index);
    if (
      data === undefined ||
      data.numTokens !== tokens.length ||
      tokens.some((token, p) => data.tokenIds[p] !== token)
    ) {
      this.#judge.wrong('L3', `the worker is told other tokens of ${request.name} than were delivered`);
    }
    if (tokens.length % blockSize !== 0 || numHits === 0 || numHits !== tokens.length - blockSize) return;
    for (const other of this.#requests) {
      const isLonger = other.numComputed >= tokens.length || other.tokens.length > tokens.length;
      if (other !== request && isLonger && tokens.every((token, p) => other.tokens[p] === token)) {
        this.#marks.add('last-token recompute on a full hit');
        return;
      }
    }
  }

  /** The request loses its blocks. Its outputs in flight become stale, or are dropped. */
  #preempt(request: TrackedRequest, flights: readonly Flight[], isDropping: boolean): void {
    if (request.state !== 'running') {
      // A reset or a lost worker has preempted it here already; the plan tells the workers only now.
      if (request.state === 'preempted' || request.state === 'ended') return;
      this.#judge.wrong('L8', `${request.name} was preempted, but is ${request.state}`);
      return;
    }
    this.#dropBlocks(request);
    request.state = 'preempted';
    request.wasPreempted = true;
    if (request.numLoaded > 0) this.#marks.add('preempted after its KV was loaded');
    const isOwn = (entry: FlightEntry): boolean => entry.request === request;
    const wasDropped = flights.some(({ entries }) => entries.some((entry) => isOwn(entry) && entry.isDropped));
    if (wasDropped && !isDropping) this.#marks.add('preempted again while dropped output is on its way');
    const drops = isDropping || wasDropped;
    for (const { entries, stepId } of flights) {
      for (const entry of entries) {
        if (!isOwn(entry)) continue;
        entry.isStale = true;
        entry.isDropped = drops;
        if (drops) forbidStep(request, stepId);
      }
    }
  }

  #dropBlocks(request: TrackedRequest): void {
    for (const id of request.blocks) this.#drop(id);
    request.blocks = [];
  }

  #hold(id: number): void {
    if (this.#holders[id] === 0) this.#numHeld += 1;
    this.#holders[id]! += 1;
  }

  #drop(id: number): void {
    this.#holders[id]! -= 1;
    if (this.#holders[id] === 0) this.#numHeld -= 1;
  }
}

/** Forbids the rows that a step computed for the request: no delivered token attended to their KV. */
function forbidStep(request: TrackedRequest, stepId: number): void {
  for (const rows of request.rowsOfSteps.values()) {
    for (const row of rows) if (row.stepId === stepId) row.isForbidden = true;
  }
}
