/**
 * Which request wrote what another attended to: the truth of L9. It stands on the device's side, notes at kernel time
 * the token, the epoch and the row of every KV slot that a pass writes, and for each request which write it found in
 * the slot of each position. It also recomputes every row with the oracle, from the tokens and epochs found.
 *
 *     slot       write 7 ─▶ write 12 ─▶ …     a write: token, epoch, row, next token, and the request that computed it
 *     request    position p: [7, 12]               in the passes of its life it read write 7 there, later write 12
 */

import type { Design } from '../../src/capture/designs.ts';
import type { CaptureWorkerContext, CaptureWorkerHalf, WorkerStep } from '../../src/contract/capture.ts';
import type { ModelConfig } from '../../src/contract/config.ts';
import type { SchedulerOutput } from '../../src/contract/scheduler-output.ts';
import { RequestKind } from '../../src/contract/scheduler-output.ts';
import type { KernelSetFactory } from '../../src/kernels/model/kernel-set.ts';
import { wgslKernels } from '../../src/kernels/model/wgsl-kernels.ts';
import { Oracle } from '../../src/kernels/model/oracle.ts';
import { Router } from '../../src/kernels/model/route/route.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from '../../src/kernels/model/step-input.ts';

export type KvWrite = {
  readonly token: number;
  readonly epoch: number;
  readonly row: Uint32Array;
  nextToken: number;
  /** Index of the request that computed it. */
  readonly producer: number;
};

export class KvWitness {
  /** Writes that each request read, oldest first, by position. */
  readonly attended: Map<number, KvWrite[][]> = new Map();
  /** Rows of the device that are not the oracle's. */
  numWrongRows = 0;
  readonly #blockSize: number;
  readonly #hasEpochs: boolean;
  readonly #router: Router;
  readonly #tables: Map<number, number[]> = new Map();
  readonly #plans: Map<number, Map<number, number[]>> = new Map();
  readonly #slots: (KvWrite | undefined)[] = [];
  /** Tokens of the pass that is running, by row. */
  #tokens: number[] = [];

  constructor(model: ModelConfig, blockSize: number, hasEpochs: boolean) {
    this.#blockSize = blockSize;
    this.#hasEpochs = hasEpochs;
    this.#router = new Router(model);
  }

  /** The scheduler planned a step: takes down the block tables. */
  onPlan(step: SchedulerOutput): void {
    const tables: Map<number, number[]> = new Map();
    for (let i = 0; i < step.numRequests; i++) {
      const index = step.requestIndices[i]!;
      if (step.kinds[i] !== RequestKind.running) this.#tables.set(index, []);
      const table = this.#tables.get(index)!;
      table.push(...step.newBlockIds.subarray(step.newBlockOffsets[i], step.newBlockOffsets[i + 1]));
      tables.set(index, [...table]);
    }
    this.#plans.set(step.stepId, tables);
  }

  /** The reference kernels, watched. */
  readonly kernels: KernelSetFactory = (model, shape, info) => {
    const set = wgslKernels(model, shape, info);
    const { kernel, grid } = set.attendWrite;
    const reference: typeof kernel.reference = (buffers, workgroups) => {
      this.#tokens = tokensOf(buffers[0]!, buffers[2]!, shape.numSpeculativeTokens);
      kernel.reference(buffers, workgroups);
    };
    return { ...set, attendWrite: { kernel: { ...kernel, reference }, grid } };
  };

  /** A design whose worker half reports each pass when the router has run. */
  watch(design: Design): Design {
    return {
      ...design,
      workerHalf: (context, resources) => {
        const half = design.workerHalf(context, resources)!;
        const record: CaptureWorkerHalf['record'] = (step, commands) => {
          this.#onPass(step, context);
          return half.record(step, commands);
        };
        return new Proxy(half, {
          get: (target, name) => {
            if (name === 'record') return record;
            const member: unknown = Reflect.get(target, name, target);
            return typeof member === 'function' ? member.bind(target) : member;
          },
        });
      },
    };
  }

  #onPass(step: WorkerStep, { routedExperts }: CaptureWorkerContext): void {
    // On the cpu device a command has run when it is recorded.
    const { words } = routedExperts as unknown as { words: Uint32Array };
    const epoch = this.#hasEpochs ? step.stepId + 1 : 0;
    const width = this.#router.model.numLayers * this.#router.model.topK;
    // All keys of a pass are written before one is read: a request may hit a block that another fills in the same pass.
    for (let i = 0; i < step.numRequests; i++) {
      for (let at = step.rowStarts[i]!; at < step.rowStarts[i]! + step.tokenCounts[i]!; at++) {
        const row = words.slice(at * width, (at + 1) * width);
        const producer = step.requestIndices[i]!;
        this.#slots[step.slotMapping[at]!] = { token: this.#tokens[at]!, epoch, row, nextToken: -1, producer };
      }
    }
    const expected = new Uint32Array(width);
    for (let i = 0; i < step.numRequests; i++) {
      const oracle = new Oracle(this.#router);
      for (const [p, write] of this.#attend(step, i).entries()) {
        const nextToken = oracle.push(write.token, write.epoch);
        if (p < step.tokenStarts[i]!) continue;
        write.nextToken = nextToken;
        oracle.row(expected);
        if (write.row.some((expert, k) => expert !== expected[k])) this.numWrongRows++;
      }
    }
  }

  /** What request `i` of the step reads, by position. */
  #attend(step: WorkerStep, i: number): KvWrite[] {
    const index = step.requestIndices[i]!;
    let positions = this.attended.get(index);
    if (positions === undefined) this.attended.set(index, (positions = []));
    const end = step.tokenStarts[i]! + step.tokenCounts[i]!;
    return Array.from({ length: end }, (_, p) => {
      const write = this.#slots[this.#slotOf(step.stepId, index, p)]!;
      const writes = (positions[p] ??= []);
      if (writes.at(-1) !== write) writes.push(write);
      return write;
    });
  }

  #slotOf(stepId: number, index: number, position: number): number {
    const table = this.#plans.get(stepId)!.get(index)!;
    return table[Math.floor(position / this.#blockSize)]! * this.#blockSize + (position % this.#blockSize);
  }
}

/** The token of each row, those known to the device only looked up there. */
function tokensOf(stepInput: Uint32Array, lastTokens: Uint32Array, numSpeculativeTokens: number): number[] {
  return Array.from({ length: stepInput[Header.numTokens]! }, (_, row) => {
    const token = stepInput[HEADER_WORDS + row]!;
    if (token !== FROM_DEVICE) return token;
    const ordinal = stepInput[stepInput[Header.tokenRequests]! + row]!;
    const request = stepInput[Header.requests]! + REQUEST_WORDS * ordinal;
    const tail = stepInput[request + RequestField.tokenCount]! - stepInput[request + RequestField.numDrafts]! - 1;
    const offset = row - stepInput[request + RequestField.rowStart]! - tail;
    return lastTokens[stepInput[request + RequestField.batchSlot]! * (1 + numSpeculativeTokens) + offset]!;
  });
}
