/**
 * One step between `schedule` and `update`: the requests that it runs, and the message about them to the workers. Steps
 * are pooled: a step at steady state allocates nothing.
 */

import { RequestKind, type SchedulerOutput } from '../contract/scheduler-output.ts';
import { Request } from './request.ts';

/** Fills the unused places of pooled lists, so that they keep no ended request alive. */
export const NO_REQUEST: Request = new Request(0xffff_ffff, {
  requestId: '',
  promptTokenIds: new Uint32Array(0),
  sampling: {
    maxTokens: 0,
    minTokens: 0,
    eosTokenId: null,
    stopTokenIds: [],
    returnRoutedExperts: false,
    routedExpertsPromptStart: 0,
  },
  priority: 0,
  arrivalTime: 0,
  cacheSalt: null,
});

const grownTo = (array: Uint32Array, length: number): Uint32Array<ArrayBuffer> => {
  const grown = new Uint32Array(Math.max(length, array.length * 2));
  grown.set(array);
  return grown;
};

/** Most lists are empty already, and setting a length leaves compiled code. */
const empty = (list: unknown[]): void => {
  if (list.length > 0) list.length = 0;
};

/** Most steps of a small batch fit; a larger batch grows its steps once. */
const FIRST_REQUESTS = 8;

export class ScheduledStep {
  readonly output: SchedulerOutput = {
    stepId: 0,
    numRequests: 0,
    totalNumScheduledTokens: 0,
    requestIndices: new Uint32Array(FIRST_REQUESTS),
    kinds: new Uint32Array(FIRST_REQUESTS),
    numComputedTokens: new Uint32Array(FIRST_REQUESTS),
    numScheduledTokens: new Uint32Array(FIRST_REQUESTS),
    newBlockIds: new Uint32Array(FIRST_REQUESTS),
    newBlockOffsets: new Uint32Array(FIRST_REQUESTS + 1),
    draftTokenIds: new Uint32Array(FIRST_REQUESTS),
    draftOffsets: new Uint32Array(FIRST_REQUESTS + 1),
    newRequests: [],
    preemptedIndices: [],
    finishedIndices: [],
    captureMetadata: null,
  };
  /** The scheduled requests, in the scheduler's order; `count` of them. */
  readonly requests: Request[] = [];
  count = 0;
  /** 1 if the step samples for the request, since it reaches the end of the known tokens. */
  samples: Uint8Array = new Uint8Array(FIRST_REQUESTS);
  /** The requests that the capture design wants, and their places in `requests`. */
  readonly wanted: Request[] = [];
  readonly wantedPositions: number[] = [];

  begin(stepId: number): void {
    this.count = 0;
    this.output.stepId = stepId;
    this.output.numRequests = 0;
    this.output.totalNumScheduledTokens = 0;
    empty(this.output.newRequests);
    empty(this.output.preemptedIndices);
    empty(this.output.finishedIndices);
    this.output.captureMetadata = null;
    empty(this.wanted);
    empty(this.wantedPositions);
  }

  add(request: Request): void {
    this.requests[this.count] = request;
    this.count += 1;
  }

  /** Takes out a request that was added to this step. */
  withdraw(request: Request): void {
    const at = this.requests.indexOf(request);
    this.requests.copyWithin(at, at + 1, this.count);
    this.count -= 1;
    this.requests[this.count] = NO_REQUEST;
  }

  /** Adds what the workers are to forget. */
  tell(preemptedIndices: readonly number[], finishedIndices: readonly number[]): void {
    for (const index of preemptedIndices) this.output.preemptedIndices.push(index);
    for (const index of finishedIndices) this.output.finishedIndices.push(index);
  }

  /** Writes the message about `requests` and runs their counters ahead to the end of the step. */
  dispatch(numTokens: number, asyncScheduling: boolean): void {
    const { output, count, requests } = this;
    this.reserve();
    output.numRequests = count;
    output.totalNumScheduledTokens = numTokens;
    for (let i = 0; i < count; i += 1) {
      const request = requests[i]!;
      this.write(i, request);
      this.samples[i] = request.runAhead(asyncScheduling) ? 1 : 0;
    }
  }

  /** Makes room for `count` requests. */
  reserve(): void {
    const { output, count } = this;
    if (output.requestIndices.length >= count) return;
    output.requestIndices = grownTo(output.requestIndices, count);
    const { length } = output.requestIndices;
    output.kinds = grownTo(output.kinds, length);
    output.numComputedTokens = grownTo(output.numComputedTokens, length);
    output.numScheduledTokens = grownTo(output.numScheduledTokens, length);
    output.newBlockOffsets = grownTo(output.newBlockOffsets, length + 1);
    output.draftOffsets = grownTo(output.draftOffsets, length + 1);
    this.samples = new Uint8Array(length);
  }

  /** Writes entry `i` of the message; the entries before it are written. */
  write(i: number, request: Request): void {
    const { output } = this;
    output.requestIndices[i] = request.index;
    output.kinds[i] = request.stepKind;
    output.numComputedTokens[i] = request.numComputedTokens;
    output.numScheduledTokens[i] = request.stepNumTokens;
    const { blockIds, stepFirstNewBlock } = request;
    let numBlocks = output.newBlockOffsets[i]!;
    if (blockIds.length > stepFirstNewBlock) {
      const end = numBlocks + blockIds.length - stepFirstNewBlock;
      if (end > output.newBlockIds.length) output.newBlockIds = grownTo(output.newBlockIds, end);
      for (let b = stepFirstNewBlock; numBlocks < end; b += 1, numBlocks += 1)
        output.newBlockIds[numBlocks] = blockIds[b]!;
    }
    output.newBlockOffsets[i + 1] = numBlocks;
    let numDrafts = output.draftOffsets[i]!;
    if (request.stepNumDrafts > 0) {
      const end = numDrafts + request.stepNumDrafts;
      if (end > output.draftTokenIds.length) output.draftTokenIds = grownTo(output.draftTokenIds, end);
      for (let d = 0; numDrafts < end; d += 1, numDrafts += 1)
        output.draftTokenIds[numDrafts] = request.draftTokenIds[d]!;
    }
    output.draftOffsets[i + 1] = numDrafts;
    if (request.stepKind !== RequestKind.running) {
      output.newRequests.push({
        index: request.index,
        tokenIds: request.tokenIds,
        numTokens: request.numTokens,
        numPromptTokens: request.numPromptTokens,
        // A u32 on the way to the worker; no request is that long.
        maxTokens: Math.min(request.maxTokens, 0xffff_ffff),
        returnRoutedExperts: request.returnRoutedExperts,
        routedExpertsPromptStart: request.routedExpertsPromptStart,
      });
    }
    if (request.wanted) {
      this.wanted.push(request);
      this.wantedPositions.push(i);
    }
  }

  /** Lets go of the requests. */
  end(): void {
    for (let i = 0; i < this.count; i += 1) this.requests[i] = NO_REQUEST;
    this.count = 0;
    empty(this.output.newRequests);
    empty(this.wanted);
  }
}
