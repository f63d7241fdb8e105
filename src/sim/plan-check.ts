/** The scheduler's plans against what is known of requests and blocks: who may run, what it may hold, who lost it. */

import type { EngineConfig } from '../contract/config.ts';
import type { SchedulerOutput } from '../contract/scheduler-output.ts';
import { RequestKind } from '../contract/scheduler-output.ts';
import type { Mark } from './coverage.ts';
import type { Flight, FlightEntry } from './flight.ts';
import type { Judge } from './judge.ts';
import type { Scenario } from './scenario.ts';
import type { TrackedRequest } from './tracked-request.ts';

const KIND_NAMES = { [RequestKind.running]: 'runs', [RequestKind.new]: 'joins', [RequestKind.resumed]: 'resumes' };

const NONE: readonly number[] = [];

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
  /** Requests that ended and of whose end the workers have not heard. */
  readonly #untold = new Set<number>();

  constructor(engine: EngineConfig, judge: Judge, marks: Set<Mark>, requests: readonly TrackedRequest[]) {
    this.#engine = engine;
    this.#judge = judge;
    this.#marks = marks;
    this.#requests = requests;
    this.#holders = new Int32Array(engine.numBlocks);
    this.#takenIn = new Int32Array(engine.numBlocks).fill(-1);
  }

  /** Takes in a plan. `flights`: the steps under way. */
  onPlan(plan: SchedulerOutput, flights: readonly Flight[], { numRanks, hasEpochs }: Scenario): Flight {
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
        `step ${plan.stepId} runs ${plan.numRequests} requests and ${plan.totalNumScheduledTokens} tokens: over its limits`,
      );
    }
    const entries: FlightEntry[] = [];
    let isWanted = false;
    let numTokens = 0;
    for (let i = 0; i < plan.numRequests; i += 1) {
      const request = this.#requests[plan.requestIndices[i]!]!;
      numTokens += plan.numScheduledTokens[i]!;
      this.#schedule(plan, i, request);
      isWanted ||= request.spec.rows;
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
    return {
      stepId: plan.stepId,
      plan,
      epoch: hasEpochs ? plan.stepId + 1 : 0,
      entries,
      isWanted,
      isExecuted: false,
      outputs: Array<null>(numRanks).fill(null),
      numArrived: 0,
    };
  }

  /** A cache reset: whoever runs loses its KV, and its outputs on their way are thrown away. */
  preemptAll(flights: readonly Flight[]): void {
    for (const request of this.#requests) {
      if (request.state === 'running') this.#preempt(request, flights, true);
    }
  }

  /** The workers are gone: nobody holds anything, and nobody is left to be told of an end. */
  loseAll(flights: readonly Flight[]): void {
    for (const flight of flights) for (const entry of flight.entries) forbidStep(entry.request, flight.stepId);
    for (const request of this.#requests) {
      if (request.state !== 'running') continue;
      if (request.numComputed > 0 && request.numComputed < request.spec.prompt.length) {
        this.#marks.add('respawn mid-prefill');
      }
      this.release(request);
      request.state = 'preempted';
    }
    this.#untold.clear();
  }

  /** The request gives up its blocks; if it has ended, the workers must be told. */
  release(request: TrackedRequest): void {
    for (const id of request.blocks) this.#drop(id);
    request.blocks = [];
    this.#untold.add(request.index);
  }

  /** Requests that ended and of whose end the workers have not heard. */
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

  /** A plan in words. */
  describe({ plan, entries }: Flight): string {
    const parts = entries.map(({ request }, i) => {
      const from = plan.numComputedTokens[i]!;
      const to = from + plan.numScheduledTokens[i]!;
      const drafts = plan.draftOffsets[i + 1]! - plan.draftOffsets[i]!;
      const blocks = plan.newBlockIds.subarray(plan.newBlockOffsets[i], plan.newBlockOffsets[i + 1]);
      const kind = KIND_NAMES[plan.kinds[i] as 0 | 1 | 2];
      return `${request.name} ${kind} [${from}, ${to})${drafts > 0 ? ` with ${drafts} drafts` : ''}${blocks.length > 0 ? ` blocks +${[...blocks]}` : ''}`;
    });
    const names = (indices: readonly number[]): string => indices.map((i) => this.#requests[i]!.name).join(', ');
    if (plan.preemptedIndices.length > 0) parts.push(`preempted: ${names(plan.preemptedIndices)}`);
    if (plan.finishedIndices.length > 0) parts.push(`over: ${names(plan.finishedIndices)}`);
    return `step ${plan.stepId} is begun: ${parts.join('; ')}`;
  }

  #schedule(plan: SchedulerOutput, i: number, request: TrackedRequest): void {
    const { blockSize } = this.#engine;
    const kind = plan.kinds[i]!;
    const due =
      request.state === 'waiting'
        ? RequestKind.new
        : request.state === 'preempted'
          ? RequestKind.resumed
          : RequestKind.running;
    if (request.state === 'ended' || kind !== due) {
      this.#judge.wrong('L8', `step ${plan.stepId} runs ${request.name}, which is ${request.state}, as kind ${kind}`);
    }
    const isJoining = kind !== RequestKind.running;
    const start = plan.numComputedTokens[i]!;
    const numHitBlocks = isJoining ? start / blockSize : 0;
    const firstBlock = plan.newBlockOffsets[i]!;
    const endBlock = plan.newBlockOffsets[i + 1]!;
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
    if (isJoining) this.#checkTokens(plan, request, start);
    request.state = 'running';
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

  /** The request loses its blocks. What is on its way for it counts as stale, or is dropped. */
  #preempt(request: TrackedRequest, flights: readonly Flight[], isDropping: boolean): void {
    if (request.state !== 'running') {
      // A reset or lost worker has preempted it here already, and the workers hear of it with the next step.
      if (request.state === 'preempted' || request.state === 'ended') return;
      this.#judge.wrong('L8', `${request.name} was preempted, but is ${request.state}`);
      return;
    }
    for (const id of request.blocks) this.#drop(id);
    request.blocks = [];
    request.state = 'preempted';
    const entries = flights.flatMap((flight) =>
      flight.entries.filter((entry) => entry.request === request).map((entry) => ({ flight, entry })),
    );
    const drops = isDropping || entries.some(({ entry }) => entry.isDropped);
    for (const { flight, entry } of entries) {
      entry.isStale = true;
      entry.isDropped = drops;
      if (drops) forbidStep(request, flight.stepId);
    }
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

/** Rows that a step computed for the request must not be delivered: nothing that is delivered attended to them. */
function forbidStep(request: TrackedRequest, stepId: number): void {
  for (const rows of request.rowsOfSteps.values()) {
    for (const row of rows) if (row.stepId === stepId) row.isForbidden = true;
  }
}
