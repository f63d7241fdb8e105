/**
 * A worker for tests of the engine core. Like the real one it has a KV cache of one key per slot and reads every key
 * through the block table, so that a wrong block, a block given away too early, or a position computed twice with other
 * tokens shows up as a wrong token and a wrong row. What it answers is a function of the token prefix alone: `oracle*`
 * are that function, without KV, blocks or steps.
 */

import type { ModelRunnerOutput } from '../../src/contract/model-runner-output.ts';
import { PLACEHOLDER_TOKEN, RequestKind, type SchedulerOutput } from '../../src/contract/scheduler-output.ts';

const VOCABULARY = 11;

export const mix = (a: number, b: number): number => {
  let h = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
};

const keyOf = (token: number, position: number): number => mix(token, position);
const tokenOf = (hidden: number): number => (hidden >>> 4) % VOCABULARY;
export const rowOf = (hidden: number): number => (hidden >>> 16) & 0xff;

/** Hidden state of the last of `tokens`. */
const oracleHidden = (tokens: readonly number[]): number => {
  let hidden = 0;
  for (const [p, token] of tokens.entries()) hidden = mix(hidden, keyOf(token, p));
  return hidden;
};

export const oracleNextToken = (tokens: readonly number[]): number => tokenOf(oracleHidden(tokens));
export const oracleRow = (tokens: readonly number[], position: number): number =>
  rowOf(oracleHidden(tokens.slice(0, position + 1)));

type BatchEntry = { tokens: number[]; table: number[]; drafts: number[]; wantsRows: boolean };

export class FakeWorker {
  readonly #blockSize: number;
  readonly #numDrafts: number;
  readonly #isAsync: boolean;
  readonly #random: () => number;
  readonly #keys: Uint32Array;
  readonly batch: Map<number, BatchEntry> = new Map();

  constructor(
    config: { blockSize: number; numBlocks: number; numSpeculativeTokens: number; asyncScheduling: boolean },
    random: () => number,
  ) {
    this.#blockSize = config.blockSize;
    this.#numDrafts = config.numSpeculativeTokens;
    this.#isAsync = config.asyncScheduling;
    this.#random = random;
    this.#keys = new Uint32Array(config.blockSize * config.numBlocks);
  }

  /** Runs a step at once, as a device that works in order does, and copies what it needs of the plan. */
  execute(step: SchedulerOutput): ModelRunnerOutput {
    for (const index of [...step.preemptedIndices, ...step.finishedIndices]) this.batch.delete(index);
    for (const data of step.newRequests) {
      this.batch.set(data.index, {
        tokens: [...data.tokenIds.subarray(0, data.numTokens)],
        table: [],
        drafts: [],
        wantsRows: data.returnRoutedExperts,
      });
    }
    const sampled: number[][] = [];
    const drafts: number[][] = [];
    const spans: number[] = [];
    const rows: number[] = [];
    for (let i = 0; i < step.numRequests; i += 1) {
      const index = step.requestIndices[i]!;
      const entry = this.batch.get(index);
      if (entry === undefined) throw new Error(`request ${index} runs, but the worker was never told of it`);
      const newBlocks = step.newBlockIds.subarray(step.newBlockOffsets[i], step.newBlockOffsets[i + 1]);
      if (step.kinds[i] !== RequestKind.running && entry.table.length > 0)
        throw new Error(`request ${index} joined twice`);
      entry.table.push(...newBlocks);
      const planned = [...step.draftTokenIds.subarray(step.draftOffsets[i], step.draftOffsets[i + 1])];
      const numBase = step.numScheduledTokens[i]! - planned.length;
      // Asynchronous scheduling counts drafts as accepted that were rejected meanwhile: only the device knows where the
      // request stands.
      const start = Math.min(step.numComputedTokens[i]!, entry.tokens.length - numBase);
      const known = planned.map((token, d) => (token === PLACEHOLDER_TOKEN ? (entry.drafts[d] ?? -1) : token));
      const inputs = [...entry.tokens.slice(start, start + numBase), ...known];
      const hidden = inputs.map((token, p) => this.#forward(entry.table, token, start + p));
      const tokens: number[] = [];
      if (start + numBase === entry.tokens.length) {
        let next = tokenOf(hidden[numBase - 1]!);
        tokens.push(next);
        for (const [d, draft] of known.entries()) {
          if (draft !== next) break;
          next = tokenOf(hidden[numBase + d]!);
          tokens.push(next);
        }
        entry.tokens.push(...tokens);
      } else if (planned.length > 0) throw new Error(`request ${index} has drafts in the middle of its prompt`);
      sampled.push(tokens);
      const numRows = numBase + Math.max(0, tokens.length - 1);
      if (entry.wantsRows) {
        spans.push(index, start, numRows);
        for (let p = 0; p < numRows; p += 1) rows.push(rowOf(hidden[p]!));
      }
      entry.drafts = tokens.length > 0 ? this.#propose(entry.tokens) : [];
      drafts.push(entry.drafts);
    }
    return this.#answer(step, sampled, drafts, spans, rows);
  }

  #forward(table: readonly number[], token: number, position: number): number {
    const slot = (p: number): number => {
      const block = table[Math.floor(p / this.#blockSize)];
      if (block === undefined) throw new Error(`position ${p} has no block`);
      return block * this.#blockSize + (p % this.#blockSize);
    };
    this.#keys[slot(position)] = keyOf(token, position);
    let hidden = 0;
    for (let p = 0; p <= position; p += 1) hidden = mix(hidden, this.#keys[slot(p)]!);
    return hidden;
  }

  /** Drafts that are often right, and wrong in a way that depends on the prefix only. */
  #propose(tokens: readonly number[]): number[] {
    const guess = [...tokens];
    for (let d = 0; d < this.#numDrafts; d += 1) {
      const next = oracleNextToken(guess);
      guess.push(mix(next, guess.length + d) % 3 === 0 ? (next + 1) % VOCABULARY : next);
    }
    return guess.slice(tokens.length);
  }

  /** The answer, its requests in an order of the worker's own. */
  #answer(
    step: SchedulerOutput,
    sampled: number[][],
    drafts: number[][],
    spans: number[],
    rows: number[],
  ): ModelRunnerOutput {
    const order = Array.from({ length: step.numRequests }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i -= 1) {
      const j = Math.floor(this.#random() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    const flat = (values: number[][]): { tokenIds: Uint32Array; offsets: Uint32Array } => {
      const offsets = new Uint32Array(order.length + 1);
      for (const [w, i] of order.entries()) offsets[w + 1] = offsets[w]! + values[i]!.length;
      return { tokenIds: Uint32Array.from(order.flatMap((i) => values[i]!)), offsets };
    };
    const { tokenIds, offsets } = flat(sampled);
    return {
      stepId: step.stepId,
      numRequests: step.numRequests,
      requestIndices: Uint32Array.from(order, (i) => step.requestIndices[i]!),
      sampledTokenIds: tokenIds,
      sampledOffsets: offsets,
      drafts: this.#numDrafts > 0 && !this.#isAsync ? flat(drafts) : null,
      routedExpertDeltas:
        spans.length === 0
          ? null
          : {
              rows: Uint8Array.from(rows),
              numRows: rows.length,
              index: Uint32Array.from(spans),
              indexLength: spans.length,
            },
    };
  }
}

/** mulberry32: a seeded generator of numbers in [0, 1). */
export const randomFrom = (seed: number): (() => number) => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
};
